"""Draws that are made once and used in every sweep over a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srk.noise.base import NoiseSource
from srk.plans.plan import Slot


class Remembered(NoiseSource):
    """Another source's draws, each drawn once, in the order of the steps.

    Draws are kept from the first sweep over a step until the step is final, so that a source that
    draws one number after the other gives those of the sequential run.
    """

    def __init__(self, source: NoiseSource) -> None:
        self.source, self.step = source, 0
        self._kept: dict[tuple[int, str, Slot], Tensor] = {}

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.source.start(shape, dtype, device)

    def prior(self, out: Tensor) -> None:
        self.source.prior(out)

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        key = self.step, clock, slot
        if key not in self._kept:
            self.source.draw(slot, clock, out)
            self._kept[key] = out.clone()
        else:
            out.copy_(self._kept[key])

    def forget(self, step: int) -> None:
        """Step number `step` is final."""
        self._kept = {key: value for key, value in self._kept.items() if key[0] > step}
