"""One Brownian path for runs of different step counts.

Increments and Levy areas on a list of points, joined on demand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from srk._checks import need
from srk.errors import ArgumentError, IncompatibleError
from srk.noise.base import NoiseSource

if TYPE_CHECKING:
    from srk.plans.plan import Slot, StepPlan

SAME = 1e-13
"""Points of a clock this close, relative to their size, are one point: they differ by rounding."""


class GridPath(NoiseSource):
    r"""A Brownian path known at given points of a clock, with its Levy area between them.

    Any run whose draws end at these points sees it.

    W and H of every interval between neighbouring points are drawn once. A draw over several
    intervals joins them, exactly:

    $$
    W = \sum_k W_k, \qquad
    h \big(\tfrac12 W + H\big) = \int B = \sum_k \big(B_k h_k + h_k (\tfrac12 W_k + H_k)\big)
    $$

    What a draw needs beyond W and H of its interval (weights 2, 3, ... of `Slot`) is drawn for each
    interval anew: two runs with different steps then share W and H, which is all that strong order
    1.5 asks for, but not more.

    Arguments:
        points: for each clock, the points; in any order, repetitions allowed.
        seed: of the path.
    """

    name = "grid-path"
    refines = True

    def __init__(self, points: Mapping[str, ArrayLike], seed: int = 0) -> None:
        need(points, Mapping, "points", "a dict, clock -> its points")
        self.points = {
            clock: _distinct(np.asarray(values, dtype=np.float64), clock)
            for clock, values in points.items()
        }
        self._seed = seed
        self._steps: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._made: tuple[tuple[int, ...], torch.dtype, torch.device] | None = None
        self._rest: dict[tuple[str, int, int, int], torch.Tensor] = {}

    @classmethod
    def of(cls, runs: Iterable[Sequence[StepPlan]], seed: int = 0) -> GridPath:
        """The path that the planned `runs` can share.

        Its points are all the ends of their draws.
        """
        points: dict[str, list[float]] = {}
        for plans in runs:
            for plan in plans:
                for slot in plan.slots:
                    points.setdefault(plan.clock, []).extend((slot.start, slot.stop))
        return cls(points, seed)

    @property
    def seed(self) -> int:
        return self._seed

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        made = tuple(shape), dtype, device
        self._rest.clear()
        if made == self._made:
            return
        self._made = made
        for number, (clock, points) in enumerate(self.points.items()):
            generator = torch.Generator(device).manual_seed(_mix(self._seed, number))
            h = (
                torch.from_numpy(np.diff(points))
                .to(device=device, dtype=dtype)
                .reshape(-1, *[1] * len(shape))
            )
            size = (len(points) - 1, *shape)
            w = torch.randn(size, generator=generator, dtype=dtype, device=device).mul_(h.sqrt())
            levy = torch.randn(size, generator=generator, dtype=dtype, device=device).mul_(
                (h / 12.0).sqrt()
            )
            self._steps[clock] = w, levy

    def prior(self, out: torch.Tensor) -> None:
        out.normal_(generator=torch.Generator(out.device).manual_seed(_mix(self._seed, -1)))

    def increments(
        self, start: float, stop: float, clock: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(W, H) over [start, stop] of `clock`, both of the shape of the state.

        The ends must be points of the path.
        """
        i, j = self._index(start, clock), self._index(stop, clock)
        w, levy = (steps[i:j] for steps in self._steps[clock])
        if j == i + 1:
            return w[0], levy[0]
        points = self.points[clock]
        h = torch.from_numpy(np.diff(points[i : j + 1])).to(w).reshape(-1, *[1] * (w.ndim - 1))
        total = w.sum(0)
        before = w.cumsum(0) - w
        return total, ((before + 0.5 * w + levy) * h).sum(0) / h.sum() - 0.5 * total

    def mirrored(self, nodes: Sequence[float], clock: str) -> GridPath:
        """The started path reflected about its chords between `nodes`, points of `clock`.

        It is as likely as the path itself, with the same increments between the nodes and opposite
        Levy areas.

        A run with a step between each two nodes that draws W alone does not see the difference; one
        with shorter steps does, with the opposite sign to first order. So the mean over a path and
        its mirror image has little of the noise between the two runs (antithetic coupling: Giles
        and Szpruch 2014).
        """
        points, (w, levy) = self.points[clock], self._steps[clock]
        at = np.array([self._index(node, clock) for node in sorted(nodes)])
        if at[0] != 0 or at[-1] != len(points) - 1:
            raise ArgumentError(
                f"the nodes must include the ends of the path, {points[0]!r} and {points[-1]!r}"
            )
        inside = torch.from_numpy(np.searchsorted(at, np.arange(len(w)), side="right") - 1).to(
            w.device
        )
        share = (
            torch.from_numpy(np.diff(points) / np.diff(points[at])[inside.cpu().numpy()])
            .to(w)
            .reshape(-1, *[1] * (w.ndim - 1))
        )
        totals = w.new_zeros((len(at) - 1, *w.shape[1:])).index_add_(0, inside, w)
        image = copy(self)
        image._steps = {**self._steps, clock: (2.0 * share * totals[inside] - w, -levy)}
        image._rest = {}
        return image

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        w, levy = self.increments(slot.start, slot.stop, clock)
        points = self.points[clock]
        i, j = self._index(slot.start, clock), self._index(slot.stop, clock)
        h = points[j] - points[i]
        weights = (*slot.weights, 0.0)
        torch.mul(w, weights[0] / math.sqrt(h), out=out)
        out.add_(levy, alpha=weights[1] * math.sqrt(12.0 / h))
        for k, weight in enumerate(slot.weights[2:]):
            if weight != 0.0:
                key = clock, i, j, k
                if key not in self._rest:
                    generator = torch.Generator(out.device).manual_seed(_mix(self._seed, i, j, k))
                    self._rest[key] = torch.empty_like(out).normal_(generator=generator)
                out.add_(self._rest[key], alpha=weight)

    def _index(self, value: float, clock: str) -> int:
        points = self.points.get(clock)
        if points is not None:
            at = int(np.searchsorted(points, value))
            for i in (at - 1, at):
                if 0 <= i < len(points) and abs(points[i] - value) <= 2 * SAME * abs(value):
                    return i
        raise ArgumentError(
            f"{value!r} is not one of the points of this path on the clock {clock!r}"
        )


def _distinct(values: NDArray[np.float64], clock: str) -> NDArray[np.float64]:
    values = np.unique(values)
    if not np.isfinite(values).all():
        raise IncompatibleError(
            f"a path on the clock {clock!r} cannot start at alpha = 0, where that clock is "
            "infinite; choose a later start"
        )
    if len(values) < 2:
        raise ArgumentError(f"a path on the clock {clock!r} needs at least two points")
    keep = np.concatenate([[True], np.diff(values) > SAME * np.abs(values[1:])])
    return np.asarray(values[keep])


def _mix(seed: int, *numbers: int) -> int:
    """A seed for a stream of its own."""
    return int(
        np.random.SeedSequence([seed, *(n + 1 for n in numbers)]).generate_state(1, np.uint64)[0]
        >> 1
    )
