"""Replayed noise: the same draws for a solver and for what it is compared with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from srk.noise import NoiseSource, ReplayNoise


@pytest.fixture
def replay() -> Callable[[Tensor], NoiseSource]:
    """A noise source that replays the given draws, shape (k, batch, *event)."""
    return ReplayNoise


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    """Seeded normals in float64: normal(3, 2, seed=1)."""
    return lambda *shape, seed: torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
