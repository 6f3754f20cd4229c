"""Noise that belongs to the sample: the same numbers at any batch size, order and sharding."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from srk.noise.base import NoiseSource
from srk.noise.counter import SampleNormals

if TYPE_CHECKING:
    from typing import Self

    from srk.plans.plan import Slot, StepPlan


class KeyedNoise(NoiseSource):
    """`keyed`: each sample has noise of its own, so that any batch gives the same samples.

    A draw is a function of (seed, index of the sample, interval) alone. The interval is named by
    its clock and its two ends, and where a step draws several numbers on it by which of them this
    is; it does not matter to which step it belongs. The initial state is a stream of its own. Draws
    on different intervals are independent, even where the intervals overlap; `BrownianNoise` is for
    noise that stays the same path when the number of steps changes.

    The bits are the same on every machine and device. The numbers are made in float32, which the
    dtype of the state only rounds; another device differs by a few units in the last place.

    Arguments:
        seed: any integer; None takes a seed from the operating system, which `Solution.seed` tells.
        first_index: index of the first sample of the batch, e.g. 8 for the second batch of 8.
        indices: the index of each sample, instead.
        seeds: a seed for each sample, instead; sample k is then sample 0 of `KeyedNoise(seeds[k])`.

    Examples:
        >>> import srk, torch
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> options = {"steps": 5}
        >>> score = target.score(process)
        >>> whole = srk.solve(process, score, shape=(4, 1), noise="keyed", seed=0, **options).x
        >>> second = srk.noise.KeyedNoise(seed=0, first_index=2)
        >>> half = srk.solve(process, score, shape=(2, 1), noise=second, **options).x
        >>> torch.equal(whole[2:], half)
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

    def sample_normals(self) -> SampleNormals:
        return self.normals

    def fresh(self) -> Self:
        made = copy.copy(self)
        made.normals = self.normals.fresh()
        return made

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.normals.start(shape)
        self._like = torch.empty(0, device=device)

    def part(self, first: int, count: int) -> KeyedNoise:
        return KeyedNoise(**self.normals.part(first, count))

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        names = [_name(slot, plan.clock) for plan in plans for slot in plan.slots]
        self.normals.prepare(names, self._like.device)

    def prior(self, out: torch.Tensor) -> None:
        self.normals.fill(out, "prior")

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        self.normals.fill(out, *_name(slot, clock))

    def words(self, slot: Slot, clock: str) -> torch.Tensor:
        """The bits behind `draw`, int32 of shape (batch, words), on the device of the run.

        `srk.noise.counter.normals` makes the draw of them.
        """
        return self.normals.words(self._like, *_name(slot, clock))


def _name(slot: Slot, clock: str) -> tuple[str | float, ...]:
    """What a draw is called: its clock, its interval, and which draw there it is."""
    return "draw", clock, *slot.name
