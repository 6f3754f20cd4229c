"""Fixed grids of times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
from scipy.optimize import brentq

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, TimeError
from srk.processes.base import LinearProcess, as_number
from srk.processes.phase import statistic
from srk.steps.base import Grid, Problem, Range, steps_of


def _need_linear(grid: Grid, process: Any) -> None:
    if statistic(process) is None:
        raise IncompatibleError(
            f"the grid {grid.name!r} needs a log-SNR, but {process!r} is not a linear process; use grid='uniform'"
        )


def _from_log_snr(
    process: LinearProcess, points: Callable[[int, float, float], np.ndarray], n: int
) -> list[float]:
    """Own times of n + 1 half log-SNRs points(n, noisy, clean), the ends exactly t_max and t_min."""
    ends = Range.of(process)
    lams = points(n, ends.noisy, ends.clean)
    inner = [process.time(float(lam)) for lam in lams[1:-1]]
    last = (
        [process.t_min] if ends.stop.sigma > 0 else [process.time(float(lams[-1])), process.t_min]
    )
    if len(last) == 2:  # t_min is noise-free: the last step is the denoiser
        inner, last = (
            [process.time(float(lam)) for lam in points(n - 1, ends.noisy, ends.clean)[1:]]
            if n > 1
            else [],
            [process.t_min],
        )
    return [process.t_max, *inner, *last]


@attrs.define
class Uniform(Grid):
    """`uniform`: equal steps in the process's own time."""

    name = "uniform"
    remembered = True

    def times(self, problem: Problem) -> list[float]:
        n, hi, lo = steps_of(problem), problem.process.t_max, problem.process.t_min
        return [hi + (lo - hi) * (i / n) for i in range(n)] + [lo]


@attrs.define
class Quadratic(Grid):
    """`quadratic`: equal steps in the square root of the process's own time (Song et al. 2021, DDIM)."""

    name = "quadratic"
    remembered = True

    def times(self, problem: Problem) -> list[float]:
        n, hi, lo = steps_of(problem), problem.process.t_max, problem.process.t_min
        a, b = math.sqrt(hi), math.sqrt(lo)
        return [hi] + [(a + (b - a) * (i / n)) ** 2 for i in range(1, n)] + [lo]


@attrs.define
class LogSNR(Grid):
    """`log-snr`: equal steps in the log signal-to-noise ratio; the default for linear processes.

    Where the process starts at alpha = 0, the first step runs from there to the second point of the grid that starts at sigma/alpha = 80.
    """

    name = "log-snr"
    remembered = True

    def times(self, problem: Problem) -> list[float]:
        _need_linear(self, problem.process)
        return _from_log_snr(
            problem.process, lambda n, a, b: a + (b - a) * (np.arange(n + 1) / n), steps_of(problem)
        )


@attrs.define
class Karras(Grid):
    """`karras`: equal steps in (sigma/alpha)^(1/rho) (Karras et al. 2022, arXiv 2206.00364, eq. 5).

    Arguments:
        rho: the exponent; 7 is the paper's.
    """

    name = "karras"
    remembered = True
    rho: float = attrs.field(default=7.0, validator=attrs.validators.gt(0.0))

    def times(self, problem: Problem) -> list[float]:
        _need_linear(self, problem.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            a, b = math.exp(-noisy / self.rho), math.exp(-clean / self.rho)
            return -self.rho * np.log(a + (b - a) * (np.arange(n + 1) / n))

        return _from_log_snr(problem.process, points, steps_of(problem))


@attrs.define
class Gauge(Grid):
    """`gauge`: few steps where the data looks Gaussian.

    Density over the half log-SNR, with s = r^2: 0.85 normalized[v/(v + s) s/(s + v_min)] + 0.15 uniform. Superb on low-dimensional mixtures with few steps,
    harmful where the data has     many scales and v is not the largest (images with a per-pixel variance): never a default, and refused without `data_variance`.

    Arguments:
        data_variance: v, the LARGEST variance of the data in any direction.
        min_variance: v_min, the smallest variance (squared scale) in the data.
    """

    name = "gauge"
    remembered = True
    data_variance: float | None = None
    min_variance: float = attrs.field(default=9e-4, validator=attrs.validators.gt(0.0))

    def times(self, problem: Problem) -> list[float]:
        _need_linear(self, problem.process)
        v, m = self.data_variance, self.min_variance
        if v is None or not v > 0:
            raise ArgumentError(
                f"the grid 'gauge' needs the largest variance of the data in any direction, not data_variance={v!r}; "
                "use grid=srk.steps.Gauge(data_variance=1.0) or grid='log-snr'"
            )
        if v == m:
            v *= 1 + 1e-9

        def mass(lam: float) -> float:
            # an antiderivative of v/(v + s) s/(s + m) in lam, s = e^{-2 lam}
            s = math.exp(-2.0 * lam)
            return 0.5 * v / (v - m) * (math.log(s + v) - math.log(s + m))

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            lo, total, width = mass(noisy), mass(clean) - mass(noisy), clean - noisy

            def cumulative(lam: float) -> float:
                return 0.85 * (mass(lam) - lo) / total + 0.15 * (lam - noisy) / width

            inner = [
                brentq(lambda x, i=i: cumulative(x) - i / n, noisy, clean, xtol=1e-13)
                for i in range(1, n)
            ]
            return np.array([noisy, *inner, clean])

        return _from_log_snr(problem.process, points, steps_of(problem))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(as_number(value, "an entry of a list of times") for value in values)


@attrs.define
class Times(Grid):
    """An explicit list of own times, strictly decreasing; the last may be noise-free, where the step is the denoiser.

    Arguments:
        values: the times, at least two.
    """

    name = "times"
    values: tuple[float, ...] = attrs.field(converter=_floats)

    def times(self, problem: Problem) -> list[float]:
        values = [problem.process.check_time(t) for t in self.values]
        if len(values) < 2:
            raise TimeError(
                f"a list of times needs at least two entries, not {values!r}; for example [process.t_max, ..., process.t_min]"
            )
        # users have lists in float32, whose ends are those of the process to float32 only
        values[0], values[-1] = map(problem.process.snap, (values[0], values[-1]))
        if problem.steps is not None and problem.steps != len(values) - 1:
            raise ArgumentError(
                f"the list of {len(values)} times makes {len(values) - 1} steps, but steps={problem.steps}; leave steps out"
            )
        for i, (a, b) in enumerate(pairwise(values)):
            if a == b:
                raise TimeError(
                    f"the list of times repeats {a!r} at positions {i} and {i + 1}; every step must have a length"
                )
            if b > a:
                raise TimeError(
                    f"the list of times must decrease from noise to data, but entry {i + 1} ({b!r}) is above entry {i} ({a!r})"
                    + ("; reverse the list" if list(self.values) == sorted(self.values) else "")
                )
        return values


def as_grid(grid: Any) -> Any:
    """A controller from what a user writes: a registered name, a list of times, or a `StepController`."""
    from srk.steps import CONTROLLERS, StepController

    if isinstance(grid, StepController):
        return grid
    if isinstance(grid, str):
        return CONTROLLERS[grid]()
    given = grid.tolist() if hasattr(grid, "tolist") else grid
    if isinstance(given, Sequence) and not isinstance(given, bytes):
        return Times(given)
    raise ArgumentTypeError(
        f"a grid is a name, a decreasing list of times or an srk.StepController, not {grid!r}"
    )
