"""DPM-Solver++(2M)."""

from __future__ import annotations

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.multistep import Variant, line, multistep_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPMpp2M(Integrator):
    """`dpmpp-2m`: DPM-Solver++(2M), `dpmpp-2m-sde` for the probability-flow ODE (eta = 0).

    One network call per step, order 2. In the variant "midpoint", u' = e^{-h} u + (1 - e^{-h}) (D +
    (h/(2 h1)) (D - D1)). Elsewhere: k-diffusion `sample_dpmpp_2m`; diffusers
    `DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2)`.

    Arguments:
        variant: "midpoint" or "heun".
    """

    name = "dpmpp-2m"
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "Lu et al. 2022 (arXiv 2211.01095), algorithm 2; k-diffusion 0.1.1, sample_dpmpp_2m"
    advice = "ODE, one call, order 2; the usual deterministic sampler of image models"

    variant: Variant = attrs.field(default="midpoint", validator=in_(("midpoint", "heun")))

    def plan(self, step: Step) -> StepPlan:
        return multistep_step(step, line(self.variant), name=self.name)
