"""Fixed grids of times."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import numpy as np

from srk._fields import gt
from srk.errors import ArgumentError, IncompatibleError, TimeError
from srk.processes.base import ForwardProcess
from srk.processes.parameters import as_number
from srk.processes.phase import statistic
from srk.steps.base import Grid, Range, RunInfo, steps_of


def need_linear(grid: Grid, process: Any) -> None:
    """Raise `IncompatibleError` unless the process has the log-SNR that a grid divides."""
    if statistic(process) is None:
        raise IncompatibleError(
            f"the grid {grid.name!r} needs a log-SNR, but {process!r} is not a linear process; "
            "use grid='uniform'"
        )


def from_log_snr(
    process: ForwardProcess,
    points: Callable[[int, float, float], np.ndarray],
    n: int,
    noisy: float | None = None,
    clean: float | None = None,
) -> list[float]:
    """Own times of a grid that is made in half log-SNR.

    Arguments:
        process: the process, whose own times are wanted.
        points: a function (n, noisy, clean) -> n + 1 increasing half log-SNRs, the ends exact.
        n: the number of steps.
        noisy, clean: half log-SNRs of the ends; None takes those of the process.

    Returns:
        n + 1 own times, the ends exactly t_max and t_min unless others are given. Where t_min is
        free of noise the last step is the denoiser, and `points` divides what is before it into
        n - 1 steps.
    """
    ends = Range.of(process)
    first = process.t_max if noisy is None else process.time(noisy)
    a = ends.noisy if noisy is None else noisy
    b = ends.clean if clean is None else clean
    if ends.stop.sigma > 0:
        last = process.t_min if clean is None else process.time(clean)
        inner = points(n, a, b)[1:-1]
    else:
        last = process.t_min
        inner = points(n - 1, a, b)[1:] if n > 1 else np.array([])
    return [first, *(process.time(float(lam)) for lam in inner), last]


@attrs.frozen
class Uniform(Grid):
    """`uniform`: equal steps in the process's own time."""

    name = "uniform"
    remembered = True

    def times(self, info: RunInfo) -> list[float]:
        n, hi, lo = steps_of(info), info.process.t_max, info.process.t_min
        return [hi + (lo - hi) * (i / n) for i in range(n)] + [lo]


@attrs.frozen
class Quadratic(Grid):
    """`quadratic`: equal steps in the square root of the process's own time.

    Source: J. Song, C. Meng, S. Ermon, "Denoising Diffusion Implicit Models", arXiv 2010.02502,
    appendix D.2.
    """

    name = "quadratic"
    remembered = True

    def times(self, info: RunInfo) -> list[float]:
        n, hi, lo = steps_of(info), info.process.t_max, info.process.t_min
        a, b = math.sqrt(hi), math.sqrt(lo)
        return [hi] + [(a + (b - a) * (i / n)) ** 2 for i in range(1, n)] + [lo]


@attrs.frozen
class LogSNR(Grid):
    """`log-snr`: equal steps in the log signal-to-noise ratio; the default for linear processes.

    Where the process starts at alpha = 0, the first step runs from there to the second point of the
    grid that starts at sigma/alpha = 80.
    """

    name = "log-snr"
    remembered = True

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            return noisy + (clean - noisy) * (np.arange(n + 1) / n)

        return from_log_snr(info.process, points, steps_of(info))


@attrs.frozen
class Gauge(Grid):
    r"""`gauge`: few steps where the data looks Gaussian.

    The density of steps over the half log-SNR is, with s = (sigma/alpha)^2,

    $$
    0.85\, \mathrm{normalized}\Big[\frac{v}{v + s} \frac{s}{s + v_{\min}}\Big]
    + 0.15\, \mathrm{uniform}
    $$

    It is superb on low-dimensional mixtures with few steps, and harmful where the data has many
    scales and v is not the largest (images with a per-pixel variance). So it is never a default,
    and it is refused without `data_variance`.

    Arguments:
        data_variance: v, the LARGEST variance of the data in any direction.
        min_variance: v_min, the smallest variance (squared scale) in the data.
    """

    name = "gauge"
    remembered = True
    data_variance: float | None = None
    min_variance: float = attrs.field(default=9e-4, validator=gt(0.0))

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)
        v, m = self.data_variance, self.min_variance
        if v is None or not v > 0:
            raise ArgumentError(
                "the grid 'gauge' needs the largest variance of the data in any direction, not "
                f"data_variance={v!r}; use grid=srk.steps.Gauge(data_variance=1.0) or "
                "grid='log-snr'"
            )
        if v == m:
            v *= 1 + 1e-9

        def mass(lam: float) -> float:
            # an antiderivative of v/(v + s) s/(s + m) in lam, s = e^{-2 lam}
            s = math.exp(-2.0 * lam)
            return 0.5 * v / (v - m) * (math.log(s + v) - math.log(s + m))

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            from scipy.optimize import brentq  # scipy is slow to import

            lo, total, width = mass(noisy), mass(clean) - mass(noisy), clean - noisy

            def cumulative(lam: float) -> float:
                return 0.85 * (mass(lam) - lo) / total + 0.15 * (lam - noisy) / width

            inner = [
                brentq(lambda x, i=i: cumulative(x) - i / n, noisy, clean, xtol=1e-13)
                for i in range(1, n)
            ]
            return np.array([noisy, *inner, clean])

        return from_log_snr(info.process, points, steps_of(info))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(as_number(value, "an entry of a list of times") for value in values)


@attrs.frozen
class Times(Grid):
    """An explicit list of own times, strictly decreasing.

    The last may be free of noise, where the step is the denoiser. Times that were computed in
    float32 are taken: an end that is the process's own up to that rounding is that end.

    Arguments:
        values: the times, at least two.
    """

    name = "times"
    values: tuple[float, ...] = attrs.field(converter=_floats)

    @property
    def own_steps(self) -> int:
        return len(self.values) - 1

    def times(self, info: RunInfo) -> list[float]:
        values = list(self.values)
        if len(values) < 2:
            raise TimeError(
                f"a list of times needs at least two entries, not {values!r}; for example "
                "[process.t_max, ..., process.t_min]"
            )
        process = info.process
        # users have lists in float32, whose ends are those of the process to float32 only
        values[0], values[-1] = process.snap(values[0]), process.snap(values[-1])
        if info.steps is not None and info.steps != len(values) - 1:
            raise ArgumentError(
                f"the list of {len(values)} times makes {len(values) - 1} steps, but "
                f"steps={info.steps}; leave steps out"
            )
        for i, (a, b) in enumerate(pairwise(values)):
            if a == b:
                raise TimeError(
                    f"the list of times repeats {a!r} at positions {i} and {i + 1}; every step "
                    "must have a length"
                )
            if b > a:
                reversed_ = (
                    "; reverse the list"
                    if values == sorted(values)
                    else "; srk.steps.Rising(times) goes up by forward noise"
                )
                raise TimeError(
                    "the list of times must decrease from noise to data, but entry "
                    f"{i + 1} ({b!r}) is above entry {i} ({a!r}){reversed_}"
                )
        return [process.check_time(t) for t in values]
