"""Brownian noise: one path per sample, the same for every grid of times.

Inside the smallest intervals that all runs share (`srk.noise.path`), the points of the run's own
grid are put in, coarse before fine: of N = m 2^j steps (m odd) first the m + 1 points that the grid
of m steps has, then those of 2m, and so on. Therefore

- runs of m, 2m, 4m, ... steps on the same kind of grid have exactly the same path;
- runs of other numbers of steps have the same path at the ends of the halved octaves, and differ in
  between by the bridge of those intervals;
- a step that is rejected loses nothing: a new point splits an interval that is there, whatever made
  it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from srk._checks import integer
from srk.errors import ArgumentError
from srk.noise.base import NoiseSource
from srk.noise.counter import SampleNormals
from srk.noise.path import Path, same
from srk.noise.torchsde_path import TorchSDEPath

if TYPE_CHECKING:
    from typing import Self

    from srk.plans.plan import Slot, StepPlan


def _coarseness(steps: int) -> list[int]:
    """How coarse each point 0..N of a grid of N = m 2^j steps is.

    It is the largest k <= j such that 2^k divides the number of the point.
    """
    twos = (steps & -steps).bit_length() - 1 if steps else 0
    return [twos if i == 0 else min(twos, (i & -i).bit_length() - 1) for i in range(steps + 1)]


class BrownianNoise(NoiseSource):
    """`brownian`: one fixed Brownian path per sample, so that more steps refine the same sample.

    A step is answered with the increment W and the space-time Levy area H of the path over its
    interval, exactly: increments over neighbouring intervals add up in any grid, with adaptive
    steps and rejected ones too. The path is a function of (seed, sample index, clock), as for
    `KeyedNoise`. Runs of m, 2m, 4m, ... steps follow exactly the same path. For other ratios the
    paths agree at the ends of octaves of the clock halved `levels` times, and between them up to
    the bridge. What a method draws beyond W and H is independent of them and of the rest of the
    path, and named by the interval.

    Methods agree on a path where their clocks have the same name: `srk1`, `srk2s` and `srk2m` with
    one `data_variance` and eta; `ddpm` and the methods of its frame; the raw-frame tableaus.
    Different clocks weigh the driving noise differently, so their increments are different
    functionals of it: they are taken from independent paths.

    Arguments:
        seed: any integer; None takes a seed from the operating system, which `Solution.seed` tells.
        levels: halvings of an octave that every grid shares, from 0 to 40. Each costs at most two
            normals per step where the grid is coarser.
        first_index, indices, seeds: which samples these are; see `KeyedNoise`.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> few, many = (
        ...     srk.solve(
        ...         process,
        ...         target.score(process),
        ...         shape=(4, 1),
        ...         steps=n,
        ...         noise="brownian",
        ...         seed=0,
        ...     ).x
        ...     for n in (50, 100)
        ... )
        >>> bool((few - many).abs().max() < 0.02)
        True
    """

    name = "brownian"
    refines = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        levels: int = 1,
        first_index: int = 0,
        indices: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.levels = integer(levels, "levels", least=0, most=40)
        self.normals = SampleNormals(seed, first_index, indices, seeds)
        self._paths: dict[str, Path] = {}
        self._like = torch.empty(0, device="cpu")

    @property
    def seed(self) -> int | None:
        return self.normals.seed

    def kind(self) -> Hashable:
        return type(self), self.levels

    def sample_normals(self) -> SampleNormals:
        return self.normals

    def fresh(self) -> Self:
        made = copy.copy(self)
        made.normals = self.normals.fresh()
        made._paths = {}
        return made

    def part(self, first: int, count: int) -> BrownianNoise:
        return BrownianNoise(levels=self.levels, **self.normals.part(first, count))

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.normals.start(shape)
        # Bridges in half precision would lose the path; draws are cast at the end
        kind = dtype if dtype == torch.float64 else torch.float32
        with torch.inference_mode(False):
            self._like = torch.empty(tuple(shape), dtype=kind, device=device)
        self._paths = {}

    def path(self, clock: str) -> Path:
        if clock not in self._paths:
            self._paths[clock] = Path(clock, self.normals, self.levels, self._like)
        return self._paths[clock]

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        coarseness = _coarseness(len(plans))
        points: list[tuple[int, int, str, float]] = []
        for i, plan in enumerate(plans):
            slots = [slot for slot in plan.slots if _on_path(slot)]
            if not slots:
                continue
            ends = {slot.start for slot in slots} | {slot.stop for slot in slots}
            first, last = min(ends), max(ends)
            points += [
                (-coarseness[i], i, plan.clock, first),
                (-coarseness[i + 1], i + 1, plan.clock, last),
            ]
            points += [(1, i, plan.clock, t) for t in sorted(ends - {first, last})]
        for _, _, clock, t in sorted(points, key=lambda point: point[:2]):
            self.path(clock).insert(t)
        for plan in plans:
            for slot in plan.slots:
                if _on_path(slot) and any(slot.weights[1:2]):
                    for node in self.path(plan.clock).cover(slot.start, slot.stop):
                        node.wanted = True

    def prior(self, out: torch.Tensor) -> None:
        self.normals.fill(out, "prior")

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        if slot.start > slot.stop and not same(slot.start, slot.stop):
            raise ArgumentError(
                f"the interval [{slot.start!r}, {slot.stop!r}] of the clock {clock!r} runs "
                "backwards; a draw needs start < stop"
            )
        if not _on_path(slot):  # an interval without length or without an end is not on the path
            self.normals.fill(out, "draw", clock, *slot.name)
            return
        weights = (*slot.weights, 0.0)
        w, n = self.path(clock).unit(slot.start, slot.stop, weights[1] != 0.0)
        if weights[0] == 1.0:
            out.copy_(w)
            return
        total = w * weights[0] if n is None else torch.mul(n, weights[1])
        if n is not None and weights[0] != 0.0:
            total.add_(w, alpha=weights[0])
        for j, weight in enumerate(slot.weights[2:]):
            if weight != 0.0:
                z = torch.empty_like(total)
                self.normals.fill(z, "beyond", clock, slot.start, slot.stop, float(j))
                total.add_(z, alpha=weight)
        out.copy_(total)

    def increment(self, clock: str, start: float, stop: float) -> tuple[torch.Tensor, torch.Tensor]:
        """W and H of the path over [start, stop] of a clock, each of shape (batch, *event).

        The source must have been started.
        """
        if not (math.isfinite(start) and math.isfinite(stop) and start <= stop):
            raise ArgumentError(
                f"a path has increments for start <= stop, both finite, not for "
                f"[{start!r}, {stop!r}]"
            )
        if same(start, stop):
            return torch.zeros_like(self._like), torch.zeros_like(self._like)
        w, n = self.path(clock).unit(start, stop, True)
        assert n is not None
        h = stop - start
        return w * math.sqrt(h), n * math.sqrt(h / 12.0)

    def as_torchsde(self, clock: str, start: float, stop: float) -> TorchSDEPath:
        """The path on [start, stop] of a clock as what torchsde takes for `bm`."""
        return TorchSDEPath(self, clock, start, stop)


def _on_path(slot: Slot) -> bool:
    return (
        math.isfinite(slot.start)
        and math.isfinite(slot.stop)
        and slot.start < slot.stop
        and not same(slot.start, slot.stop)
    )
