"""Replayed noise: the same draws for a solver and for what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from srk.integrators import Slot
from srk.noise import NoiseSource


class Replay(NoiseSource):
    """The draws of a list, in order."""

    name = "replay"

    def __init__(self, draws: Tensor) -> None:
        self.draws, self.next = draws, 0

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.next = 0

    def prior(self, out: Tensor) -> None:
        raise AssertionError("the state is given")

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        out.copy_(self.draws[self.next])
        self.next += 1


@pytest.fixture
def replay() -> Callable[[Tensor], NoiseSource]:
    """A noise source that replays the given draws, shape (k, batch, *event)."""
    return Replay


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    """Seeded normals in float64: normal(3, 2, seed=1)."""
    return lambda *shape, seed: torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
