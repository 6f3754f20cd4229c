"""Grids that go up as well as down.

A step from less noise to more is the forward process: it is linear in the state, draws noise and
calls no network. A solver with a memory starts anew after it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

from srk._checks import positive, shown
from srk.errors import ArgumentTypeError, IncompatibleError, TimeError
from srk.processes.base import LinearProcess
from srk.processes.parameters import as_number
from srk.steps.base import Grid, RunInfo
from srk.steps.controllers import as_grid


def _scale(value: Any) -> float:
    return positive(value, "noise_scale", cure="1.0 is the forward process")


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


def base_grid(value: Any) -> Grid:
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


__all__ = ["Rising", "RisingGrid", "base_grid", "lowest"]
