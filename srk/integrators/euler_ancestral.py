"""Euler's method down, noise up."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ancestral import euler_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class EulerAncestral(Integrator):
    r"""`euler-ancestral`: Euler down, noise up.

    At eta = 1 it is DDPM; for eta <= 1 it is `ddim` under k-diffusion's name.

    One network call per step, weak order 1, strong order 1.

    $$
    u' = e^{-H} u + (1 - e^{-H}) D + r_\mathrm{up} z
    $$

    Elsewhere: k-diffusion `sample_euler_ancestral` with the same eta (for eta > 1, r_up is cut at
    r' as there); diffusers
    `EulerAncestralDiscreteScheduler` at eta = 1.
    """

    name = "euler-ancestral"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = "k-diffusion 0.1.1, sample_euler_ancestral"
    advice = "one call, order 1; ddpm under another name"

    def plan(self, step: Step) -> StepPlan:
        return euler_step(step)
