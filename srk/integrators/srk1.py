"""Euler-Maruyama in the gauge clock."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.exponential import exponential_coefficients
from srk.plans.gauge import GaugeStep, check_variance
from srk.plans.gauge_node import DATA_VARIANCE
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class SRK1(Integrator):
    """`srk1`: Euler-Maruyama in the gauge clock.

    It is DDPM with the Gaussian part N(0, v) of the data solved exactly.

    One network call per step, weak order 1, strong order 1. With v = 0 it is `ddpm`; for N(0, v)
    data it is exact at any step.
    Update: X' = X + H R(X) + B.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
    """

    name = "srk1"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"
    advice = "one call, order 1; DDPM with the Gaussian part solved exactly"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)

    def plan(self, step: Step) -> StepPlan:
        cx, cd, cz, interval = exponential_coefficients(
            step.start, step.stop, self.data_variance, step.eta
        )
        draft = step.draft(GaugeStep(step.start, step.stop, self.data_variance, step.eta).clock)
        node = draft.evaluate(draft.state, step.start)
        return draft.finish(draft.state * cx + node.value * cd + draft.normal(*interval) * cz)
