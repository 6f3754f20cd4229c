"""SRA1 in exponential form."""

from __future__ import annotations

import math

import attrs
import numpy as np

from srk._fields import gt, le
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class ETDSRA1(Integrator):
    r"""`etd-sra1`: SRA1 with the linear part exact, in the half log-SNR.

    Two network calls per step, strong order 1.5, weak order 2 (eta = 1). With a = 1 + eta^2, p1 = 1
    - e^{-ah}, p2 = h - p1/a, the noise M of the step and Z = int a e^{-a(h - t)} M_t dt, jointly
    Gaussian, and node c:

    $$
    \begin{aligned}
    b &= p_2/(c h) \\
    X_c &= e^{-ach} u + (1 - e^{-ach}) D + Z/b \\
    u' &= e^{-ah} u + p_1 D + b\, (D(X_c) - D) + M
    \end{aligned}
    $$

    Arguments:
        node: c, the place of the stage in the half log-SNR, in (0, 1].
    """

    name = "etd-sra1"
    evaluations_per_step = 2
    strong_order = 1.5
    weak_order = 2.0
    reference = "Roessler 2010, SRA1, in exponential (Lawson/ETD) form; srk docs: The mathematics"
    advice = "two calls, strong order 1.5 without a gauge; srk2s is more accurate"

    node: float = attrs.field(default=0.75, validator=[gt(0.0), le(1.0)])

    def plan(self, step: Step) -> StepPlan:
        start, stop, eta, h, c = step.start, step.stop, step.eta, step.h, self.node
        a = 1.0 + eta**2
        level = stop if c == 1.0 else step.process.level_at(start.lam + c * h)
        gauge = GaugeStep(start, stop, 0.0, eta)
        draft = step.draft(gauge.clock)
        first = draft.evaluate(draft.state, start)
        p1 = -math.expm1(-a * h)
        b = _phi2(a * h) / c
        t0, t1 = gauge.interval
        if eta > 0.0:

            def lag(t: np.ndarray) -> np.ndarray:
                # h - (lam - lam0) as a function of the clock T; log(s) is -2 lam
                return 0.5 * gauge.log_noise(t)

            # both integrals are in units of u at the end of the step
            m, z = draft.functionals(t0, t1, [lambda t: np.ones_like(t), lambda t: a * lag(t)])
            std = gauge.noise_std(stop) / stop.alpha / math.sqrt(t1 - t0)
            m, z = m * std, z * std
        else:
            m = z = draft.state * 0.0
        u = draft.state / start.alpha
        node = draft.evaluate(
            (u * math.exp(-a * c * h) - first.value * math.expm1(-a * c * h) + z / b) * level.alpha,
            level,
        )
        new = u * math.exp(-a * h) + first.value * p1 + (node.value - first.value) * b + m
        return draft.finish(new * stop.alpha)


def _phi2(x: float) -> float:
    """(1/h) p2 = 1 - (1 - e^{-x})/x, without cancellation."""
    if x < 1e-2:
        return x / 2 - x**2 / 6 + x**3 / 24 - x**4 / 120 + x**5 / 720 - x**6 / 5040
    return 1.0 + math.expm1(-x) / x
