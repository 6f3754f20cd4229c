"""Noise that belongs to the sample: the same numbers at any batch size, order and sharding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from srk.noise.base import NoiseSource
from srk.noise.counter import SampleNormals

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class KeyedNoise(NoiseSource):
    """`keyed`: each sample has its own noise, a function of (seed, sample index, interval) only; any batch gives the same samples.

    The interval of a draw is named by its clock, its two ends and which functional of the path is drawn, so that it does not matter which
    step it belongs to. The initial state is a stream of its own. Draws on different intervals are independent, even where the intervals
    overlap: for noise that stays the same path when the number of steps changes see `BrownianNoise`.

    The bits are the same on every machine and device; the state's dtype only rounds the numbers (they are made in float32), and another
    device differs by a few units in the last place of float32.

    Arguments:
        seed: the seed; None takes one from the operating system (`Solution.seed` tells which).
        first_index: index of the first sample of the batch, e.g. 8 for the second batch of 8.
        indices: the index of each sample, instead.
        seeds: a seed for each sample, instead; sample k is then sample 0 of `KeyedNoise(seeds[k])`.

    Examples:
        >>> import srk, torch
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> whole = srk.solve(process, target.score(process), shape=(4, 1), steps=5, noise="keyed", seed=0).x
        >>> second = srk.noise.KeyedNoise(seed=0, first_index=2)
        >>> torch.equal(whole[2:], srk.solve(process, target.score(process), shape=(2, 1), steps=5, noise=second).x)
        True
    """

    name = "keyed"

    def __init__(
        self,
        seed: int | None = None,
        *,
        first_index: int = 0,
        indices: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.normals = SampleNormals(seed, first_index, indices, seeds)

    @property
    def seed(self) -> int | None:
        return self.normals.seed

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.normals.start(shape)
        self._like = torch.empty(0, device=device)

    def part(self, first: int, count: int) -> KeyedNoise:
        return KeyedNoise(**self.normals.part(first, count))

    def prior(self, out: torch.Tensor) -> None:
        self.normals.fill(out, "prior")

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        self.normals.fill(out, "draw", clock, slot.start, slot.stop, *slot.weights)

    def words(self, slot: Slot, clock: str) -> torch.Tensor:
        """The bits behind `draw`, int32 of shape (batch, words): `srk.noise.counter.normals` makes the draw of them."""
        return self.normals.words(self._like, "draw", clock, slot.start, slot.stop, *slot.weights)
