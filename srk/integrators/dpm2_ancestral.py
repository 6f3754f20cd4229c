"""DPM-Solver-2 in noise form, down, and noise up."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ancestral import midpoint_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPM2Ancestral(Integrator):
    r"""`dpm2-ancestral`: the midpoint method in log r (noise form) down, noise up.

    Two network calls per step, weak order 2, strong order 1. With m halfway between the start and
    r_down in the half log-SNR (at eta = 1 the end of the step):

    $$
    u_m = e^{-H/2} u + (1 - e^{-H/2}) D, \qquad
    u' = u + (r_\mathrm{down} - r) \frac{u_m - D_m}{r_m} + r_\mathrm{up} z
    $$

    For eta > 1 the midpoint would lie below the end of the step. Elsewhere: k-diffusion
    `sample_dpm_2_ancestral` with the same eta; diffusers `KDPM2AncestralDiscreteScheduler`.
    """

    name = "dpm2-ancestral"
    evaluations_per_step = 2
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    reference = "k-diffusion 0.1.1, sample_dpm_2_ancestral"
    advice = "two calls, order 2 at small steps only; dpmpp-2s-ancestral is more accurate"

    def plan(self, step: Step) -> StepPlan:
        return midpoint_step(step, data=False)
