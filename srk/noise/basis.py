"""Unit vectors in place of random draws: the exact distribution of a solver on Gaussian data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from srk.errors import ArgumentError
from srk.noise.base import NoiseSource

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class BasisNoise(NoiseSource):
    """`basis`: the k-th draw of the run is the k-th unit vector along the batch.

    On a Gaussian target a solver is a linear map of the initial noise and the step noises. A run
    with this source gives the columns of that map, if the batch is at least the number of draws
    (the initial one included). The sum of squares over the batch is then the exact variance.

    Arguments:
        first: number of the first draw; -1 makes every draw zero, which gives the mean.
        components: k of states of shape (batch, k, *event), whose draws are k independent ones and
            take k vectors; 1 for other states.
    """

    name = "basis"

    def __init__(self, first: int = 0, components: int = 1) -> None:
        self.first = first
        self.components = components
        self._next = first

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._next = self.first

    def prior(self, out: torch.Tensor) -> None:
        self._unit(out)

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        self._unit(out)

    def _unit(self, out: torch.Tensor) -> None:
        if self.first < 0:
            out.zero_()
            return
        if self._next + self.components > out.shape[0]:
            raise ArgumentError(
                "the basis source needs a batch of at least one row per draw; "
                f"{out.shape[0]} rows are used up"
            )
        out.zero_()
        if self.components == 1:
            out[self._next] = 1.0
        else:
            for i in range(self.components):
                out[self._next + i, i] = 1.0
        self._next += self.components
