"""Seeded draws from PyTorch's generator on the state's device: the default, and the fastest."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from srk.errors import ArgumentTypeError
from srk.noise.base import NoiseSource

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class GeneratorNoise(NoiseSource):
    """`generator`: independent draws from a `torch.Generator` on the device of the state.

    The global random state of PyTorch is never touched. The same seed on the same device, batch and step count repeats the run; on
    another it is another sample.

    Arguments:
        seed: the seed; None takes one from the operating system (`Solution.seed` tells which).
    """

    name = "generator"

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ArgumentTypeError(f"seed must be an int or None, not {seed!r}")
        self._seed = secrets.randbits(62) if seed is None else seed
        self._generator: torch.Generator | None = None

    @property
    def seed(self) -> int | None:
        return self._seed

    @property
    def used_seed(self) -> int:
        """The seed, given or taken."""
        return self._seed

    def use(self, generator: torch.Generator) -> None:
        """Draw from this generator instead of one of its own."""
        self._generator = generator

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(self._seed)

    def prior(self, out: torch.Tensor) -> None:
        out.normal_(generator=self._generator)

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        out.normal_(generator=self._generator)
