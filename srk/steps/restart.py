"""Restart: ways down by an ODE, with steps up by fresh noise between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from srk._checks import integer, positive, shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.base import LinearProcess
from srk.processes.parameters import as_number
from srk.steps.base import Grid, RunInfo
from srk.steps.rising import RisingGrid, base_grid

Interval = tuple[int, int, float, float]
"""(points, repetitions, low, high) of a Restart interval."""


def _intervals(value: Any) -> tuple[Interval, ...]:
    given = list(value.values()) if isinstance(value, Mapping) else value
    given = given.tolist() if hasattr(given, "tolist") else given
    form = "intervals are (points, repetitions, low, high), e.g. [(3, 2, 0.06, 0.3)]"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentTypeError(f"{form}, not {shown(value)}")
    made = []
    for entry in given:
        if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 4:
            raise ArgumentTypeError(f"{form}, not {shown(entry)}")
        whole = [int(n) if isinstance(n, float) and n.is_integer() else n for n in entry[:2]]
        points = integer(whole[0], "the points of a Restart interval", least=2)
        times = integer(whole[1], "the repetitions of a Restart interval", least=1)
        low, high = (as_number(end, "an end of a Restart interval") for end in entry[2:])
        if not 0.0 <= low < high < math.inf:
            raise ArgumentError(
                f"a Restart interval goes up, from low = {low!r} to high = {high!r} here; give "
                "0 <= low < high, in units of sigma/alpha"
            )
        made.append((points, times, low, high))
    return tuple(made)


def _steps(value: Any) -> int | None:
    return None if value is None else integer(value, "steps", least=1)


def _rho(value: Any) -> float:
    return positive(value, "rho", cure="7.0 is that of Karras' grid")


@attrs.frozen
class Restart(RisingGrid):
    """At some levels go up again with fresh noise, and down once more, several times.

    The noise contracts errors that the way down has gathered, and the way down may be an ODE, with
    its few steps. Levels are sigma/alpha, which is EDM's sigma. When the run reaches the level of
    the base grid that is nearest to `low`, it goes up to `high` in one step of the forward process,
    and down to that level again on `points` levels, spaced by `rho` as Karras' grid, ends included;
    all that as often as `repetitions` says. With a solver of two calls a step that is
    2 repetitions (points - 1) calls more.

    Arguments:
        intervals: (points, repetitions, low, high) each, or the dict of them that the official
            code takes.
        base: the grid of the way down: a name, a grid or a list of times. `steps=` counts its
            steps.
        rho: of the ways down from `high`.
        steps: steps of the way down, where the grid shall know them itself.
        noise_scale: factor of the noise of the steps up, S_noise in the official code.

    Raises:
        ArgumentError: an interval does not go up; in a run, two intervals begin at one level, or
            one at the start.
        TimeError: in a run, a `high` is beyond the process.

    Source: Xu et al., "Restart Sampling for Improving Generative Processes", 2023, arXiv
    2306.14878, algorithm 1.

    Examples:
        >>> import srk
        >>> edm, target = srk.EDM(0.002, 80.0), srk.targets.Gaussian(0.5, 0.04)
        >>> grid = srk.steps.Restart([(3, 2, 0.06, 0.3)])
        >>> run = {"shape": (4, 1), "grid": grid, "steps": 17, "seed": 0, "denoise_final": False}
        >>> srk.solve(edm, target.score(edm), "heun", **run).nfe
        42
    """

    name = "restart"
    intervals: tuple[Interval, ...] = attrs.field(converter=_intervals)
    base: Grid = attrs.field(default="karras", converter=base_grid)  # type: ignore[assignment]
    rho: float = attrs.field(default=7.0, converter=_rho)
    steps: int | None = attrs.field(default=None, converter=_steps)

    @classmethod
    def published(
        cls, data: Literal["cifar10-vp", "cifar10-edm", "imagenet-64"], nfe: int
    ) -> Restart:
        """The settings that the paper's code lists for a data set and a number of calls.

        They are for `srk.EDM(0.002, 80)` and solver="heun", and know their number of steps, the
        final denoising left out. That code has a churn too, of gamma = 0.05 where 0.01 <= sigma
        <= 1, in the steps of the intervals: for it take
        `srk.integrators.EDMHeun(gamma=0.05, s_min=0.01, s_max=1.0, s_noise=...)` and `eta` from
        `Restart.inside`.

        Arguments:
            data: the data set.
            nfe: the number of calls: 43, 55, 75, 115 or 519 for "cifar10-vp", 43 for "cifar10-edm",
                39, 67, 99, 165, 203, 385, 535 or 623 for "imagenet-64".

        Examples:
            >>> import srk
            >>> srk.steps.Restart.published("cifar10-vp", 43).intervals
            ((3, 2, 0.06, 0.3),)
        """
        if data not in _PUBLISHED:
            raise ArgumentError(
                f"settings are published for {', '.join(map(repr, _PUBLISHED))}, not for "
                f"{shown(data)}"
            )
        found = {
            2 * steps - 1 + sum(2 * k * (n - 1) for n, k, _, _ in intervals): (steps, intervals)
            for steps, intervals in _PUBLISHED[data]
        }
        if nfe not in found:
            raise ArgumentError(
                f"settings for {data!r} are published for {', '.join(map(str, found))} calls, not "
                f"for {shown(nfe)}"
            )
        steps, intervals = found[nfe]
        scale = 1.003 if data == "imagenet-64" else 1.0
        return cls(intervals, steps=steps - 1, noise_scale=scale)

    @property
    def own_steps(self) -> int | None:
        return self.base.own_steps if self.steps is None else self.steps

    def levels(self, info: RunInfo) -> list[float]:
        return self._placed(info)[0]

    def inside(self, process: LinearProcess, steps: int | None = None) -> list[float]:
        """One number a step: 1 for the steps of the intervals, 0 for those of the base grid.

        As `eta` of a run it adds noise inside the intervals alone.

        Arguments:
            process: of the run.
            steps: steps of the base grid, if the grid does not know them itself.
        """
        return self._placed(RunInfo(process, None, steps))[1]

    def _placed(self, info: RunInfo) -> tuple[list[float], list[float]]:
        """The times, and for each step whether it belongs to an interval."""
        process, count = info.process, info.steps
        if self.steps is not None and count not in (None, self.steps):
            raise ArgumentError(
                f"the grid says steps={self.steps}, and the run steps={count!r}; leave one out"
            )
        count = self.steps if count is None else count
        down = self.base.times(attrs.evolve(info, steps=count))
        r = [process.level(t).r for t in down]
        starts: dict[int, Interval] = {}
        for interval in self.intervals:
            low = interval[2]
            i = min(range(len(r)), key=lambda j: abs(r[j] - low))
            if i == 0 or i in starts:
                which = "the start of the run" if i == 0 else "that of another"
                raise ArgumentError(
                    f"the level of the base grid nearest to low = {low!r} of the interval "
                    f"{interval} is {which}; use more steps, or other intervals"
                )
            starts[i] = interval
        times, inside = [down[0]], []
        for i in range(1, len(down)):
            times.append(down[i])
            inside.append(0.0)
            if i in starts:
                way = self._way(process, starts[i], down[i], r[i])
                times += way
                inside += [1.0] * len(way)
        return times, inside

    def _way(
        self, process: LinearProcess, interval: Interval, end: float, low: float
    ) -> list[float]:
        points, repetitions, _, high = interval
        if high <= low:
            raise ArgumentError(
                f"the interval {interval} starts at the level {low:.6g} of the base grid, which is "
                "not below its high; use more steps, or a higher one"
            )
        a, b = high ** (1.0 / self.rho), low ** (1.0 / self.rho)
        inner = [(a + i / (points - 1) * (b - a)) ** self.rho for i in range(1, points - 1)]
        once = [process.time(-math.log(level)) for level in (high, *inner)]
        return [*once, end] * repetitions


_LOW, _MIDDLE, _HIGH, _TOP = (0.06, 0.30), (0.30, 0.59), (0.59, 1.09), (1.09, 1.92)
_FIRST = (19.35, 40.79)
_ENDS = (_FIRST, _TOP, _HIGH, _MIDDLE, _LOW)
_PUBLISHED: dict[str, list[tuple[int, list[Any]]]] = {
    "cifar10-vp": [
        *((18, [(3, k, *_LOW)]) for k in (2, 5, 10, 20)),
        (20, [(9, 30, 0.06, 0.20)]),
    ],
    "cifar10-edm": [(18, [(3, 2, 0.14, 0.30)])],
    "imagenet-64": [
        (14, [(3, 1, *_FIRST), (3, 1, *_TOP), (3, 1, *_LOW)]),
        (18, [(5, 1, *_FIRST), (5, 1, *_TOP), (5, 1, *_HIGH), (5, 1, *_LOW)]),
        *(
            (
                n,
                [
                    (*first, *_FIRST),
                    (*top, *_TOP),
                    (*high, *_HIGH),
                    (*middle, *_MIDDLE),
                    (*low, *_LOW),
                ],
            )
            for n, first, top, high, middle, low in (
                (18, (3, 1), (4, 1), (4, 4), (4, 1), (4, 4)),
                (18, (3, 1), (4, 1), (4, 5), (4, 5), (4, 10)),
                (36, (4, 1), (4, 1), (4, 5), (4, 5), (6, 6)),
                (36, (3, 1), (6, 1), (6, 5), (6, 5), (6, 20)),
                (36, (6, 1), (6, 1), (7, 6), (7, 6), (7, 25)),
                (36, (10, 3), (10, 3), (7, 6), (7, 6), (7, 25)),
            )
        ),
    ],
}


__all__ = ["Restart"]
