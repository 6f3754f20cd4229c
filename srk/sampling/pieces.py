"""A batch that is drawn in pieces (`microbatch`), which share one noise and one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from srk._checks import integer
from srk.noise import NoiseSource, noise_source
from srk.sampling.arguments import batch_shape, state_given
from srk.sampling.settings import Settings
from srk.scores.hooks import selected


def pieces(
    settings: Settings,
    size: int,
    shape: Sequence[int] | int | None,
    x_init: Tensor | None,
    noise: str | NoiseSource | Callable[..., Any] | None,
    seed: int | None,
) -> list[tuple[Settings, dict[str, Any]]]:
    """The batch cut into pieces of at most `size` samples.

    Settings whose conditions are those of the piece, and the arguments of the call.
    """
    size = integer(size, "microbatch", least=1)
    event = settings.prediction.event_shape
    if x_init is not None:
        x_init = state_given(x_init, shape, event)
    whole = tuple(x_init.shape) if x_init is not None else batch_shape(shape, event)
    settings.method.check_shape((size, *whole[1:]), cut=True)
    source = noise_source("keyed" if noise is None else noise, seed)
    parts: list[tuple[Settings, dict[str, Any]]] = []
    for first in range(0, whole[0], size):
        count = min(size, whole[0] - first)
        rows = slice(first, first + count)
        piece = attrs.evolve(
            settings,
            prediction=settings.prediction.select(rows, whole[0]),
            hooks=selected(settings.hooks, rows, whole[0]),
        )
        where = (
            {"shape": (count, *whole[1:])}
            if x_init is None
            else {"x_init": x_init[first : first + count]}
        )
        parts.append((piece, {**where, "noise": source.part(first, count)}))
    return parts
