"""DPM-Solver++(2M) SDE."""

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
class DPMpp2MSDE(Integrator):
    r"""`dpmpp-2m-sde`: DPM-Solver++(2M) SDE, the second-order multistep method of k-diffusion.

    One network call per step, weak order 2, strong order 1. With D1 the denoiser of the step before
    and h1 its length, the correction to exponential Euler is

    $$
    \tfrac12 \psi_0 \frac{h}{h_1} (D - D_1) \text{ for } \texttt{midpoint}, \qquad
    \psi_1 \frac{h}{h_1} (D - D_1) \text{ for } \texttt{heun}
    $$

    The first step, and one after a step from alpha = 0, is `ddpm`. At eta = 0 it is `dpmpp-2m`.
    Elsewhere: k-diffusion `sample_dpmpp_2m_sde`, whose eta is our eta^2 (so that 0 and 1 are the
    same); diffusers `DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)`
    at eta = 1.

    Arguments:
        variant: "midpoint" or "heun", k-diffusion's solver_type.
    """

    name = "dpmpp-2m-sde"
    strong_order = 1.0
    weak_order = 2.0
    reference = "Lu et al. 2022 (arXiv 2211.01095); k-diffusion 0.1.1, sample_dpmpp_2m_sde"
    advice = "one call, order 2; the most used stochastic sampler of image models"

    variant: Variant = attrs.field(default="midpoint", validator=in_(("midpoint", "heun")))

    def plan(self, step: Step) -> StepPlan:
        return multistep_step(step, line(self.variant), name=self.name)
