"""The sampler dpm2 of the probability-flow ODE."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.slopes import midpoint
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPM2(Integrator):
    r"""`dpm2`: the midpoint method for the probability-flow ODE in r (eta = 0).

    The middle of the step is taken in log r.

    Two network calls per step, order 2. With r_m = sqrt(r r') and d = (u - D)/r the slope,

    $$
    u_m = u + (r_m - r)\, d, \qquad u' = u + (r' - r)\, d_m
    $$

    It is `dpm-solver-2` with its node at 1/2. Elsewhere: k-diffusion `sample_dpm_2` without churn;
    diffusers `KDPM2DiscreteScheduler`.
    """

    name = "dpm2"
    evaluations_per_step = 2
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "k-diffusion 0.1.1, sample_dpm_2; Lu et al. 2022 (arXiv 2206.00927)"
    advice = "ODE, two calls, order 2, single step; dpm-solver-2 under another name"

    def plan(self, step: Step) -> StepPlan:
        draft = step.draft()
        return draft.finish(
            midpoint(draft, draft.state / step.start.alpha, step.start, step.stop) * step.stop.alpha
        )
