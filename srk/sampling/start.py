"""Where a run starts: its initial state, and the noise source that draws for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from srk.errors import ArgumentError
from srk.noise import NoiseSource, noise_source
from srk.sampling.arguments import batch_shape, state_given
from srk.sampling.settings import Settings
from srk.scores.centred import hidden


def start(
    settings: Settings,
    shape: Sequence[int] | int | None,
    x_init: Tensor | None,
    noise: str | NoiseSource | Callable[..., Any] | None,
    seed: int | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    grad: bool,
) -> tuple[Tensor, NoiseSource]:
    """The initial state, ours to overwrite unless gradients flow, and the started noise source.

    Arguments:
        settings: of the sampler.
        shape, x_init, noise, seed, device, dtype: as in `srk.solve`, device and dtype checked.
        grad: whether gradients flow to `x_init`.
    """
    source = noise_source(noise, seed)
    event = settings.prediction.event_shape
    if x_init is not None:
        x_init = state_given(x_init, shape, event)
        x = (
            x_init.to(device=device, dtype=dtype)
            if grad
            else x_init.detach().to(device=device, dtype=dtype, copy=True)
        )
        with torch.set_grad_enabled(grad):
            x = hidden(settings.prediction, x.contiguous())
    else:
        x = torch.empty(batch_shape(shape, event), device=device, dtype=dtype or torch.float32)
    if event is not None and tuple(x.shape[1:]) != tuple(event):
        raise ArgumentError(
            f"the samples would have event shape {tuple(x.shape[1:])}, but the score is "
            f"for {tuple(event)}; use shape=(batch, *{tuple(event)})"
        )
    source.start(x.shape, x.dtype, x.device)
    if x_init is None:
        source.prior(x)
        x = settings.process.initial_state(x)
    return x, source
