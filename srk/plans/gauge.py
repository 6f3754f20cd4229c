r"""The gauge: coordinates in which a Gaussian reference N(0, v) of the data is solved exactly.

With $s = r^2 = \sigma^2/\alpha^2$, $u = x/\alpha$, $n = v\alpha^2 + \sigma^2$, a step from $s_0$ to
$s_1 < s_0$ and $e = \eta^2$:

    L  = log((s0 + v)/(s1 + v))                       the step, in every formula below
    R  = (n D - v alpha x)/sigma^2
    u' = e^{-(1+e)L/2} u + (1 - e^{-(1+e)L/2}) R + sqrt(s1 + v) sqrt(1 - e^{-eL}) z

where the last line has R frozen over the step. R is 0 for N(0, v) data; for eta = 1 it is a
martingale along the exact process.

For eta = 1 this is Euler-Maruyama in the gauge clock $\tau = 1/(s+v)$, state $Z = \tau u$: **dZ = R
dtau + dB**, unit noise. v = 0 is stochastic localization; v = inf the variance-exploding clock -s.
The derivation is in docs (The mathematics).

All formulas stay finite at alpha = 0, and use log1p and expm1 where a short step would cancel.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from srk._checks import is_real, shown
from srk.errors import ArgumentError
from srk.plans.form import LinearForm
from srk.processes.base import Level, LinearProcess

FLAT = 1e-4
"""Below this eta^2 the clock T is counted from -1/eta^2, so that its values do not drown in it."""


def check_variance(data_variance: float, *, finite: bool = True) -> float:
    """`data_variance` as a float >= 0; raise `ArgumentError` otherwise."""
    v = float(data_variance) if is_real(data_variance) else math.nan
    if not v >= 0 or (finite and math.isinf(v)):
        raise ArgumentError(
            f"data_variance must be a {'finite ' if finite else ''}number >= 0 (the variance "
            f"of the Gaussian reference), not {shown(data_variance)}; e.g. 0.5"
        )
    return v


def digits(eta: float) -> str:
    """Eta in the name of a clock: short where that is all of it, else every digit.

    Steps of one run may differ in eta. Two clocks of one name, but not the same, would make their
    draws dependent.
    """
    short = f"{eta:g}"
    return short if float(short) == eta else repr(eta)


def log_ratio(start: Level, stop: Level, v: float) -> float:
    """L = log((s0 + v)/(s1 + v)) >= 0; inf where the step starts at alpha = 0."""
    h2 = 2.0 * (stop.lam - start.lam)
    if h2 > 700.0:  # expm1 overflows: the start is so noisy that only its ratio counts
        if start.alpha == 0.0:
            return math.inf
        return (
            math.log(v * start.alpha**2 + start.sigma**2)
            - math.log(v * stop.alpha**2 + stop.sigma**2)
            + 2.0 * math.log(stop.alpha / start.alpha)
        )
    return math.log1p(stop.sigma**2 * math.expm1(h2) / (v * stop.alpha**2 + stop.sigma**2))


def remainder(level: Level, v: float, x: LinearForm, denoised: LinearForm) -> LinearForm:
    """R = (n D - v alpha x)/sigma^2 at a level."""
    n = v * level.alpha**2 + level.sigma**2
    return denoised * (n / level.sigma**2) - x * (v * level.alpha / level.sigma**2)


@attrs.frozen(slots=True)
class GaugeStep:
    """The coefficients of one step in the gauge `v` at `eta`, and of the stage inside it.

    Arguments:
        start, stop: noise levels.
        v: variance of the Gaussian reference, finite.
        eta: stochasticity.
    """

    start: Level
    stop: Level
    v: float
    eta: float
    L: float = attrs.field(init=False)

    @L.default
    def _log_ratio(self) -> float:
        return log_ratio(self.start, self.stop, self.v)

    @property
    def clock(self) -> str:
        """Name of the clock T = (s + v)^(-eta^2)/eta^2 that the draws are measured on."""
        return f"gauge({self.v:g},{digits(self.eta)})"

    @property
    def interval(self) -> tuple[float, float]:
        """The step on the clock T; for eta = 0, where nothing is drawn, on log(s + v) reversed."""
        return _clock(self.start, self.v, self.eta), _clock(self.stop, self.v, self.eta)

    def length(self, start: Level, stop: Level) -> float:
        """Length of another step on the clock T of this one; may be inf for eta = 0.

        Far below v the two values of the clock are the same number, so they are not subtracted.
        """
        L, e = log_ratio(start, stop, self.v), self.eta**2
        if e == 0.0:
            return L
        end = _clock(stop, self.v, self.eta)
        return -math.expm1(-e * L) * (end if e >= FLAT else end + 1.0 / e)

    def node(self, process: LinearProcess, c: float) -> Level:
        """The noise level at the fraction `c` of the step on the clock T."""
        s1 = (self.stop.sigma / self.stop.alpha) ** 2
        s = s1 + (s1 + self.v) * math.expm1(self.to_stop(c))
        return process.level_at(-0.5 * math.log(s))

    def to_stop(self, c: float) -> float:
        """log((s_c + v)/(s1 + v)) at the fraction c."""
        e = self.eta**2
        if e == 0.0 or e * self.L < 1e-8:  # the limit of a clock that is log(s + v)
            return (1.0 - c) * self.L
        return -math.log1p((1.0 - c) * math.expm1(-e * self.L)) / e

    def noise(self, c: np.ndarray) -> np.ndarray:
        """s at fractions c of the step on the clock T; accurate where s is far below v."""
        s1 = (self.stop.sigma / self.stop.alpha) ** 2
        return s1 + (s1 + self.v) * np.expm1([self.to_stop(float(fraction)) for fraction in c])

    def fraction(self, s: np.ndarray) -> np.ndarray:
        """The fractions of the step on the clock T at which s is reached; eta > 0."""
        s1, e = (self.stop.sigma / self.stop.alpha) ** 2, self.eta**2
        whole = math.expm1(-e * self.L)
        return 1.0 - np.expm1(-e * np.log1p((s - s1) / (s1 + self.v))) / whole

    def carry(self, x: LinearForm, R: LinearForm, at: Level, c: float = 1.0) -> LinearForm:
        """The state at the fraction `c` with `R` frozen, without the noise.

        It starts from the state `x` at the start of the step; `at` is the noise level at `c`.
        """
        a = 1.0 + self.eta**2
        half = 0.5 * a * (self.L - (self.to_stop(c) if c != 1.0 else 0.0))
        if self.start.alpha == 0.0:
            # e^{-aL/2}/alpha_0 -> alpha_0^{eta^2} (...): nothing for eta > 0; for eta = 0 the noise
            # is carried along
            n0, n = self.start.sigma**2, self.v * at.alpha**2 + at.sigma**2
            cx = math.sqrt(n / n0) if self.eta == 0 else 0.0
        else:
            cx = at.alpha / self.start.alpha * math.exp(-half)
        return x * cx + R * (-at.alpha * math.expm1(-half))

    def noise_std(self, at: Level, c: float = 1.0) -> float:
        """Standard deviation, at level `at`, of the whole step's noise carried there.

        It is alpha m(s) eta sqrt(dT).
        """
        e = self.eta**2
        if e == 0.0:
            return 0.0
        n = self.v * at.alpha**2 + at.sigma**2
        return (
            math.sqrt(n)
            * math.exp(0.5 * e * (self.to_stop(c) if c != 1.0 else 0.0))
            * math.sqrt(-math.expm1(-e * self.L))
        )

    def log_noise(self, clock: np.ndarray) -> np.ndarray:
        """log((s + v)/(s1 + v)) at values of the clock T; eta > 0."""
        e, end = self.eta**2, self.interval[1]
        if e >= FLAT:
            return np.asarray(np.log(end / clock) / e)
        return np.asarray((math.log1p(e * end) - np.log1p(e * clock)) / e)


def _clock(level: Level, v: float, eta: float) -> float:
    n = v * level.alpha**2 + level.sigma**2
    e = eta**2
    if e >= FLAT:
        return float((level.alpha**2 / n) ** e / e)
    log = -math.inf if level.alpha == 0.0 else 2.0 * math.log(level.alpha) - math.log(n)
    return math.expm1(e * log) / e if e > 0.0 else log


def _any_variance(value: float) -> float:
    return check_variance(value, finite=False)


@attrs.frozen(slots=True)
class GaugeClock:
    """The clock in which the reverse SDE (eta = 1) is dZ = R dtau + dB.

    It belongs to a reference variance v in [0, inf].

    n = p alpha^2 + q sigma^2 with (p, q) = (v, 1), or (1, 0) for v = inf; then Z = alpha x/n, R =
    (n D - p alpha x)/sigma^2, and tau is alpha^2/n, or -sigma^2/n for v = inf.

    Arguments:
        data_variance: v. 0 is stochastic localization (tau = alpha^2/sigma^2, Z = alpha x/sigma^2,
            R = D).
    """

    data_variance: float = attrs.field(converter=_any_variance)

    @property
    def name(self) -> str:
        """The name under which draws on this clock agree."""
        return f"gauge({self.data_variance:g},1)"

    def n(self, level: Level) -> float:
        if math.isinf(self.data_variance):
            return level.alpha**2
        return self.data_variance * level.alpha**2 + level.sigma**2

    def value(self, level: Level) -> float:
        """tau at a level."""
        return (-(level.sigma**2) if math.isinf(self.data_variance) else level.alpha**2) / self.n(
            level
        )

    def length(self, start: Level, stop: Level) -> float:
        """tau(stop) - tau(start), accurate for short steps."""
        h = stop.lam - start.lam
        return (
            -(start.sigma**2)
            * stop.alpha**2
            * math.expm1(-2.0 * h)
            / (self.n(start) * self.n(stop))
        )

    def node(self, process: LinearProcess, start: Level, stop: Level, c: float) -> Level:
        """The level at the fraction `c` of the step on this clock.

        For c = 0 and 1 it is one of the ends themselves.
        """
        if c in (0, 1):
            return stop if c else start
        n0, n1 = self.n(start), self.n(stop)
        s = ((1 - c) * start.sigma**2 / n0 + c * stop.sigma**2 / n1) / (
            (1 - c) * start.alpha**2 / n0 + c * stop.alpha**2 / n1
        )
        return process.level_at(-0.5 * math.log(s))

    def to_clock(self, level: Level, x: LinearForm) -> LinearForm:
        """Z from x."""
        return x * (level.alpha / self.n(level))

    def from_clock(self, level: Level, z: LinearForm) -> LinearForm:
        """x from Z."""
        return z * (self.n(level) / level.alpha)

    def rate(self, level: Level, x: LinearForm, denoised: LinearForm) -> LinearForm:
        """R at a level, from x and D."""
        n = self.n(level)
        p = 1.0 if math.isinf(self.data_variance) else self.data_variance
        return denoised * (n / level.sigma**2) - x * (p * level.alpha / level.sigma**2)
