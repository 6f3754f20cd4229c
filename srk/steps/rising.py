"""Grids that go up as well as down: Restart, RePaint, and lists of times that rise.

A step from less noise to more is the forward process: it is linear in the state, draws noise and
calls no network. A solver with a memory starts anew after it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs

from srk._checks import integer, positive, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, TimeError
from srk.processes.base import LinearProcess
from srk.processes.parameters import as_number
from srk.steps.base import Grid, RunInfo
from srk.steps.controllers import as_grid


def _scale(value: Any) -> float:
    return positive(value, "noise_scale", cure="1.0 is the forward process")


def _rho(value: Any) -> float:
    return positive(value, "rho", cure="7.0 is that of Karras' grid")


@attrs.frozen(kw_only=True)
class RisingGrid(Grid):
    """A grid whose times may rise. Subclasses provide `levels`, own times in order.

    Arguments:
        noise_scale: factor of the noise of the steps up; 1 is the forward process.
    """

    rises = True

    noise_scale: float = attrs.field(default=1.0, converter=_scale)

    @abstractmethod
    def levels(self, info: RunInfo) -> list[float]:
        """Own times of the process; neighbours differ."""

    def times(self, info: RunInfo) -> list[float]:
        if not isinstance(info.process, LinearProcess):
            raise IncompatibleError(
                f"steps up are those of a linear process, and {info.process!r} is none; use a "
                "grid that goes down, e.g. grid='uniform'"
            )
        return self.levels(info)


def _base(value: Any) -> Grid:
    grid = as_grid(value)
    if not isinstance(grid, Grid) or grid.rises:
        raise ArgumentTypeError(
            f"base is the grid of the way down, a fixed one such as 'log-snr', not {shown(value)}"
        )
    return grid


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(as_number(value, "an entry of a list of times") for value in values)


@attrs.frozen
class Rising(RisingGrid):
    """An explicit list of own times in which some are above the one before.

    Arguments:
        values: the times, at least two; neighbours differ. The run ends at the last.
        noise_scale: factor of the noise of the steps up; 1 is the forward process.

    Raises:
        TimeError: in a run, for times that are outside of the process or repeat.

    Examples:
        >>> import srk
        >>> vp, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> grid = srk.steps.Rising([1.0, 0.5, 0.2, 0.6, 0.2, 0.001])
        >>> srk.solve(vp, target.score(vp), "ddpm", shape=(4, 1), grid=grid, seed=0).nfe
        5
    """

    name = "rising"
    values: tuple[float, ...] = attrs.field(converter=_floats)

    @property
    def own_steps(self) -> int:
        return lowest(self.values)

    def levels(self, info: RunInfo) -> list[float]:
        values = list(self.values)
        if len(values) < 2:
            raise TimeError(f"a list of times needs at least two entries, not {values!r}")
        values[0], values[-1] = info.process.snap(values[0]), info.process.snap(values[-1])
        for i, (a, b) in enumerate(pairwise(values)):
            if a == b:
                raise TimeError(
                    f"the list of times repeats {a!r} at positions {i} and {i + 1}; every step "
                    "must have a length"
                )
        return [info.process.check_time(t) for t in values]


def lowest(times: Sequence[float]) -> int:
    """How many of the steps end below all before them: the steps of the way down without detours.

    Examples:
        >>> from srk.steps.rising import lowest
        >>> lowest([1.0, 0.5, 0.2, 0.6, 0.2, 0.1])
        3
    """
    count, low = 0, times[0]
    for t in times[1:]:
        if t < low:
            count, low = count + 1, t
    return count


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
    base: Grid = attrs.field(default="karras", converter=_base)  # type: ignore[assignment]
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


def _jump(value: Any) -> int:
    return integer(value, "the length of a jump", least=1)


def _resamplings(value: Any) -> int:
    return integer(value, "the number of resamplings", least=1)


@attrs.frozen
class RePaint(RisingGrid):
    """Go down in pieces, each several times, with a jump up by forward noise between.

    Inpainting by replacing the known part lets the unknown part follow only slowly; going back and
    forth lets both agree. When the run first reaches a level j = 0, jump, 2 jump, ..., counted from
    the last level with noise and more than `jump` levels below the first, it jumps up by `jump`
    levels and comes down again, `resamplings` - 1 times. The jump is one step of the forward
    process, which has the distribution of the paper's `jump` single ones.

    Use it with a hook that puts the known part in: `srk.scores.RePaint(known, mask)` is the
    paper's, which overwrites that part of the state before each step; `srk.scores.Replace(known,
    mask)` replaces the prediction, and serves solvers with a memory too.

    Arguments:
        jump: the length of a jump, in steps.
        resamplings: how often each piece is gone down; 1 is the base grid.
        base: the grid of the way down: a name, a grid or a list of times. `steps=` counts its
            steps: 249 and the final denoising are the 250 of the paper.
        noise_scale: factor of the noise of the jumps; 1 is the forward process.

    Source: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    2022, arXiv 2201.09865, algorithm 1 and appendix B.

    Examples:
        >>> import srk
        >>> srk.steps.RePaint(jump=2, resamplings=2, base=[5, 4, 3, 2, 1, 0]).levels(
        ...     srk.steps.RunInfo(srk.VPDiscrete(), None, None)
        ... )
        [5.0, 4.0, 3.0, 2.0, 4.0, 3.0, 2.0, 1.0, 0.0, 2.0, 1.0, 0.0]
    """

    name = "repaint"
    jump: int = attrs.field(default=10, converter=_jump)
    resamplings: int = attrs.field(default=10, converter=_resamplings)
    base: Grid = attrs.field(default="uniform", converter=_base)  # type: ignore[assignment]

    @property
    def own_steps(self) -> int | None:
        return self.base.own_steps

    def levels(self, info: RunInfo) -> list[float]:
        down = self.base.times(info)
        last = len(down) - 1 if info.process.level(down[-1]).sigma > 0.0 else len(down) - 2
        # the numbers of the paper count levels from the last one with noise
        left = dict.fromkeys(range(0, last + 1 - self.jump, self.jump), self.resamplings - 1)
        times, at = [down[0]], 0
        while True:
            if left.get(last - at, 0) > 0:
                left[last - at] -= 1
                at -= self.jump
            elif at == len(down) - 1:
                break
            else:
                at += 1
            times.append(down[at])
        return times


__all__ = ["RePaint", "Restart", "Rising", "RisingGrid"]
