"""The sampler heun of the probability-flow ODE."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.slopes import heun
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class Heun(Integrator):
    r"""`heun`: Heun's method for the probability-flow ODE in r = sigma/alpha (eta = 0).

    It is EDM's deterministic sampler.

    Two network calls per step, order 2. With d = (u - D)/r the slope,

    $$
    u_2 = u + (r' - r)\, d, \qquad u' = u + \tfrac12 (r' - r) (d + d_2)
    $$

    Elsewhere: EDM's Algorithm 1 with s(t) = 1, sigma(t) = t; k-diffusion `sample_heun` without
    churn; diffusers `HeunDiscreteScheduler`.
    """

    name = "heun"
    evaluations_per_step = 2
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "Karras et al. 2022 (arXiv 2206.00364), algorithm 1"
    advice = "ODE, two calls, order 2, single step; dpmpp-2m is more accurate at the same cost"

    def plan(self, step: Step) -> StepPlan:
        draft = step.draft()
        return draft.finish(
            heun(draft, draft.state / step.start.alpha, step.start, step.stop) * step.stop.alpha
        )
