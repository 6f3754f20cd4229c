"""Two-stage stochastic Runge-Kutta in the gauge clock."""

from __future__ import annotations

import math

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.exponential import exponential_step
from srk.plans.gauge import check_variance, remainder
from srk.plans.gauge_node import DATA_VARIANCE, FARTHEST, GaugeNode, check_fraction, check_slope
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class SRK2S(Integrator):
    r"""`srk2s` = `srk2`: two-stage stochastic Runge-Kutta in the gauge clock.

    Two network calls per step, weak order 2 (3 on linear problems), strong order 1 with the default
    node c = 1/4 and 1.5 with `strong=True` (c = 1/3, which costs about 1.7x in KL). Update, with H
    the step and B its Brownian increment on the clock:

    $$
    X_c = X + c H R(X) + J, \qquad X' = X + H R(X_c) + B, \qquad
    \operatorname{Var} J = c H, \quad \operatorname{Cov}(J, B) = H/2
    $$

    Its sibling with one call per step is `srk2m`.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
        local: let the gauge follow the noise, 1/(1/v + 1/(local s)) at s = (sigma/alpha)^2: what is
            still open of an image at a noise level is detail of about that scale. v is then a
            bound, best some four times the variance of the data; 2 is a good value. inf (the
            default): v at all levels.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
    """

    name = "srk2s"
    evaluations_per_step = 2
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"
    advice = "two calls, order 2; single step, so nothing to start up"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)
    local: float = attrs.field(default=math.inf, converter=check_slope)
    strong: bool = False
    node: float | None = attrs.field(default=None, converter=check_fraction)

    @property
    def strong_order(self) -> float:  # type: ignore[override]
        return 1.5 if self.strong and self.node is None else 1.0

    @property
    def stage(self) -> GaugeNode:
        """The stage of a step."""
        return GaugeNode(self.data_variance, self.local, self.strong, self.node)

    def plan(self, step: Step) -> StepPlan:
        stage = self.stage
        gauge = stage.gauge(step)
        if gauge.to_stop(stage.c(step.eta)) > FARTHEST:
            return exponential_step(step)
        draft, *draws = stage.draws(step, gauge)
        first = draft.evaluate(draft.state, step.start)
        R0 = remainder(step.start, gauge.v, first.x, first.value)
        new, _, R = stage.stage(
            step, draft, gauge, gauge.node(step.process, stage.c(step.eta)), draws, R0
        )
        # what srk1 would have made of the first evaluation, with the same noise
        return draft.finish(
            new,
            error=gauge.carry(draft.state, R, step.stop) - gauge.carry(draft.state, R0, step.stop),
        )
