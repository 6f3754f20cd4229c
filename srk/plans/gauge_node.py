r"""A stage inside a step of the gauge clock, on its own noise level.

Its R carries the whole step.

With H the step and B its Brownian increment on the clock, and R predicted by Rp up to the stage,

    Xc = X + c H Rp + J,    X' = X + H R(Xc) + B,    Var J = c H,  Cov(J, B) = H/2

`srk2s` evaluates Rp, `srk2m` predicts it from the steps before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs
import numpy as np

from srk._checks import is_real, shown
from srk.errors import ArgumentError
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep, remainder
from srk.plans.step import Draft, Node, Step
from srk.processes.base import Level

# : Default variance of the Gaussian reference. Measured, see docs (How to choose a solver): for
# data scaled to [-1, 1] values between
#: 0.1 and 1 differ by little.
DATA_VARIANCE = 0.5

# : A node whose noise exceeds that of the end of its step by more than this, as log((s + v)/(s' +
# v)),
#: is at infinity: a step from alpha = 0 at a small eta is an exponential Euler step.
FARTHEST = 500.0


LONG = 2.5
"""Half log-SNR. A longer step sees detail of many scales, so that no one of them is its gauge. The
last step before a schedule's 0 may be such a one: with the gauge of its middle the spread of the
samples was up to 25% off, with v it is as that of `srk2m`."""


def check_fraction(value: Any) -> float | None:
    """`node` as a float in [1/4, 1), or None; raise `ArgumentError` otherwise."""
    if value is None:
        return None
    c = float(value)
    if not 0.25 <= c < 1:
        raise ArgumentError(
            "the node must lie in [1/4, 1) of the step (Cauchy-Schwarz: Var J = c H, Cov(J, "
            f"B) = H/2), not at {value!r}"
        )
    return c


Curve = tuple[tuple[float, float], ...]
"""Pairs (half log-SNR, log v) with increasing first entries: a gauge that was measured."""


def check_curve(value: Any) -> Curve | None:
    """`curve` as pairs of floats, or None; raise `ArgumentError` otherwise."""
    if value is None:
        return None
    try:
        curve = tuple((float(lam), float(log_v)) for lam, log_v in value)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"curve is a sequence of pairs (half log-SNR, log of a variance), not {shown(value)}; "
            "srk.Profile.curve() makes one"
        ) from None
    rising = all(one[0] < other[0] for one, other in pairwise(curve))
    if not curve or not rising or not all(math.isfinite(x) for pair in curve for x in pair):
        raise ArgumentError(
            "curve needs one or more pairs of finite numbers with increasing half log-SNRs, not "
            f"{shown(value)}"
        )
    return curve


def curve_variance(curve: Curve, lam: float) -> float:
    """The variance of a curve at a half log-SNR."""
    places, log_v = np.array(curve).T
    return math.exp(float(np.interp(lam, places, log_v)))


def check_slope(value: Any) -> float:
    """`local` as a float > 0; raise `ArgumentError` otherwise."""
    slope = float(value) if is_real(value) else math.nan
    if not slope > 0.0:
        raise ArgumentError(
            "local must be a positive number (inf: the gauge does not depend on the noise "
            f"level), not {shown(value)}; e.g. 0.3"
        )
    return slope


@attrs.frozen
class GaugeNode:
    """Where the stage of a step lies, and in which gauge.

    Arguments:
        data_variance: v, the variance of the Gaussian reference.
        local: let the gauge follow the noise, see `SRK2M`; inf for v at all levels.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1), or None.
        curve: v at half log-SNRs, in place of `local`; see `SRK2M`.
        bound: the largest gauge, of steps that are not long; None: v.
    """

    data_variance: float
    local: float
    strong: bool
    node: float | None
    curve: Curve | None = None
    bound: float | None = None

    @property
    def follows(self) -> bool:
        """Whether the gauge may change from step to step."""
        return self.curve is not None or math.isfinite(self.local) or self.bound is not None

    def variance(self, log_s: float) -> float:
        """v at s = (sigma/alpha)^2 = exp(log_s)."""
        v = self.data_variance if self.bound is None else self.bound
        if self.curve is not None:
            return curve_variance(self.curve, -0.5 * log_s)
        if math.isfinite(self.local) and v > 0.0 and log_s < 700.0:
            v = 1.0 / (1.0 / v + math.exp(-log_s) / self.local)
        return v

    def c(self, eta: float) -> float:
        """Fraction of the step at which the stage lies.

        1/4 at eta = 1, or 1/3 for strong order 1.5; 1/2 at eta = 0.

        For eta < 1, R has a drift, (1 - eta^2) times that of the ODE, and weak order 2 asks for
        1/2. Near eta = 1 that drift is so small that the lower variance of an earlier node wins up
        to some 100 steps, at weak order 1.
        """
        if self.node is not None:
            return self.node
        e = eta**2
        return 0.5 if e <= 0.5 else 0.5 - e * (1.0 / 6.0 if self.strong else 0.25)

    def gauge(self, step: Step) -> GaugeStep:
        """The step in its gauge.

        V, or with `local` 1/(1/v + 1/(local s)), s in the middle of its log-SNR and v at most
        `bound`; in a step longer than `LONG`, v.
        """
        long = self.curve is None and step.stop.lam - step.start.lam > LONG
        v = self.data_variance if long else self.variance(-(step.start.lam + step.stop.lam))
        return GaugeStep(step.start, step.stop, v, step.eta)

    def draws(self, step: Step, gauge: GaugeStep) -> tuple[Draft, LinearForm, LinearForm]:
        """The draft, and unit draws: the increment of the gauge's clock, and its space-time area.

        With `local` every step has a clock of its own, while a path lives on that of
        `data_variance`; there the increment is an integral with a kernel.
        """
        v, e = self.data_variance, step.eta**2
        path = attrs.evolve(gauge, v=v)
        draft = step.draft(path.clock)
        if gauge.v == v or e == 0.0:
            return draft, draft.normal(*path.interval), draft.normal(*path.interval, (0.0, 1.0))

        def kernel(c: np.ndarray) -> np.ndarray:
            # dT_v/dT, T the clock of data_variance, is ((s + data_variance)/(s + v))^(1 + e)
            s = path.noise(c)
            return np.asarray(((s + gauge.v) / (s + v)) ** (-0.5 * (1.0 + e)))

        def area(c: np.ndarray) -> np.ndarray:
            return np.asarray(kernel(c) * (0.5 - gauge.fraction(path.noise(c))))

        first, *rest = draft.orthonormal(
            *path.interval, [kernel, area] if self.c(step.eta) > 0.25 else [kernel], fractions=True
        )
        return draft, first, rest[0] if rest else ZERO

    def stage(
        self,
        step: Step,
        draft: Draft,
        gauge: GaugeStep,
        level: Level,
        draws: Sequence[LinearForm],
        predicted: LinearForm,
    ) -> tuple[LinearForm, Node, LinearForm]:
        """The new state, the evaluation at the node and its R.

        They follow from the R predicted for the way there; `level` is the noise level of the node.
        """
        c = self.c(step.eta)
        b, area = draws
        # J = B/2 + sqrt(c - 1/4) z': Var J = c (the node's own noise level) and Cov(J, B) = 1/2, in
        # units of the step
        j = b * 0.5 + area * math.sqrt(max(c - 0.25, 0.0))
        x = gauge.carry(draft.state, predicted, level, c) + j * gauge.noise_std(level, c)
        node = draft.evaluate(x, level)
        R = remainder(level, gauge.v, node.x, node.value)
        new = gauge.carry(draft.state, R, step.stop) + b * gauge.noise_std(step.stop)
        return new, node, R
