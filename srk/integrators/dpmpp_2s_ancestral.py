"""DPM-Solver++(2S) down, noise up."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ancestral import midpoint_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPMpp2SAncestral(Integrator):
    r"""`dpmpp-2s-ancestral`: DPM-Solver++(2S) down, noise up.

    DPM-Solver++(2S) is the midpoint method in log r, in data form.

    Two network calls per step, weak order 2, strong order 1. With m halfway between the start and
    r_down in the half log-SNR (at eta = 1 the end of the step):

    $$
    u_m = e^{-H/2} u + (1 - e^{-H/2}) D, \qquad
    u' = e^{-H} u + (1 - e^{-H}) D_m + r_\mathrm{up} z
    $$

    For eta > 1 the midpoint would lie below the end of the step. At eta = 0 it is DPM-Solver++(2S).
    Elsewhere: k-diffusion `sample_dpmpp_2s_ancestral` with the same eta.
    """

    name = "dpmpp-2s-ancestral"
    evaluations_per_step = 2
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    reference = (
        "k-diffusion 0.1.1, sample_dpmpp_2s_ancestral, after Lu et al. 2022 (arXiv "
        "2211.01095), algorithm 1"
    )
    advice = "two calls, order 2, single step"

    def plan(self, step: Step) -> StepPlan:
        return midpoint_step(step, data=True)
