"""Euler's method for the probability-flow ODE."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class Euler(Integrator):
    r"""`euler`: Euler's method for the probability-flow ODE in r = sigma/alpha (eta = 0).

    Makes one network call per step and has order 1. This is what the field calls "Euler": the
    `sample_euler` of k-diffusion without churn, and the `EulerDiscreteScheduler` and
    `FlowMatchEulerDiscreteScheduler` of diffusers. With u = x/alpha and the slope d = (u - D)/r,

    $$
    u' = u + (r' - r)\, d
    $$

    The line in r is exactly the step of the deterministic DDIM (`ddim` at eta = 0). `heun` and
    `dpmpp-2m` are of order 2, the latter at the same cost. Euler's method for the reverse SDE is
    `euler-maruyama`.
    """

    name = "euler"
    weak_order = 1.0
    eta_range = (0.0, 0.0)
    reference = "Karras et al. 2022 (arXiv 2206.00364); k-diffusion 0.1.1, sample_euler"
    advice = "ODE, one call, order 1; the deterministic baseline, ddim at eta=0"

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        draft = step.draft()
        u = draft.state / start.alpha
        node = draft.evaluate(draft.state, start)
        d = (u - node.value) / start.r
        return draft.finish((u + (stop.r - start.r) * d) * stop.alpha)
