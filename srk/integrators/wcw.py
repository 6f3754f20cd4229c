"""The seed paper's step, reconstructed."""

from __future__ import annotations

import math
from typing import Literal

import attrs
import numpy as np

from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ou import ou_time
from srk.plans.plan import StepPlan
from srk.plans.step import Step

RESOLVED = 1e-2
"""What rounding may do to a step of `wcw`, in units of the noise level at its end, for data of
order one."""


def _kappa(value: object) -> object:
    if value == "no-amplification" or (isinstance(value, int | float) and value > 0):
        return value
    raise ArgumentError(f"kappa must be a positive number or 'no-amplification', not {value!r}")


@register_solver
@attrs.frozen(kw_only=True)
class WCW(Integrator):
    r"""`wcw`: the stochastic Runge-Kutta step of Wu, Chen and Wei, RECONSTRUCTED.

    The text we have gives no update formula.

    Two network calls per step, both at the noise level of the start; strong order 1.5 and weak
    order 2 with kappa = 1. The paper names two ingredients, an exponential integrator and a
    score-difference correction. In Ornstein-Uhlenbeck time, step d, with e^t s a martingale:

    $$
    \begin{aligned}
    Y' &= e^d Y + 2 \sinh(d)\, s(Y) + \tfrac2\kappa \big(s(Y + \kappa G) - s(Y)\big) + N \\
    N &= \sqrt2 \int e^{d-u}\, dB, \qquad G = \sqrt2 \int \sinh(d - u)\, dB
    \end{aligned}
    $$

    The reverse SDE only (eta = 1). kappa near 1 amplifies an error of the score by 1/(kappa d);
    kappa = 3/(2d) does not, at strong order 1. Rounding is such an error. Where kappa is too small
    for what state and network resolve at the noise level (at kappa = 1: in float32 below sigma =
    0.02, in half precision below 0.5), the probe is as large as that asks, and at most 3/(2d).

    Arguments:
        kappa: the smallest size of the probe; a number, or "no-amplification" for 3/(2d).
    """

    name = "wcw"
    evaluations_per_step = 2
    strong_order = 1.5
    weak_order = 2.0
    eta_range = (1.0, 1.0)
    reference = "reconstruction of Wu, Chen, Wei 2024 (arXiv 2410.04760)"
    advice = "the seed paper's method; srk2s is more accurate at the same cost"

    kappa: float | Literal["no-amplification"] = attrs.field(default=1.0, converter=_kappa)

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        t0 = ou_time(start)
        # For a short step the difference of the two times cancels: log1p of the relative change of
        # 1 + r^2 does not
        d = 0.5 * math.log1p(
            stop.sigma**2 * math.expm1(2.0 * step.h) / (stop.alpha**2 + stop.sigma**2)
        )
        y0, y1 = math.hypot(start.alpha, start.sigma), math.hypot(stop.alpha, stop.sigma)
        a0, s0 = start.alpha / y0, start.sigma / y0
        calm = 1.5 / d  # a probe of this size amplifies nothing
        if self.kappa == "no-amplification":
            kappa = calm
        else:
            # The denoiser's rounding enters the new state as (2/kappa) resolution/s0^2
            resolved = 2.0 * step.resolution / (RESOLVED * s0**2 * (stop.sigma / y1))
            kappa = max(float(self.kappa), min(resolved, calm))
        # The clock of N is 1 - e^{-2u} = -r^2 up to a factor; on it N has a constant kernel
        draft = step.draft("gauge(inf,1)")
        r0, r1 = start.r**2, stop.r**2

        def probe(clock: np.ndarray) -> np.ndarray:
            # sinh(d - u) e^{u}, u = elapsed time: e^{2(d - u)} = (1 + r^2)/(1 + r1^2)
            left = 0.5 * np.log1p((-clock - r1) / (1.0 + r1))
            return np.asarray(np.sinh(left) * np.exp(-left))

        n, g = draft.functionals(-r0, -r1, [lambda clock: np.ones_like(clock), probe])
        unit = math.exp(
            -(t0 - d)
        )  # d(r^2) = 2 e^{2t} dt turns sqrt2 e^{d-u} dB into e^{-t1} dB(r^2)
        noise, g = n * unit, g * unit
        first = draft.evaluate(draft.state, start)
        score = (first.value * a0 - first.x / y0) / s0**2
        moved = draft.evaluate(first.x + g * (kappa * y0), start)
        other = (moved.value * a0 - moved.x / y0) / s0**2
        new = (
            first.x * (math.exp(d) / y0)
            + score * (2.0 * math.sinh(d))
            + (other - score) * (2.0 / kappa)
            + noise
        )
        return draft.finish(new * y1)
