"""DPM-Solver++(3M) SDE, as shipped and corrected."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.multistep import multistep_step, quadratic
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPMpp3MSDE(Integrator):
    """`dpmpp-3m-sde`: DPM-Solver++(3M) SDE as k-diffusion ships it.

    Its second-order term is HALF of what it should be.

    One network call per step, weak order 2, strong order 1. Integrating the quadratic through the
    last three denoisers would add psi_1 d_1 + psi_2 d_2; the code adds psi_1 d_1 + (1/2) psi_2 d_2,
    because it takes the second divided difference for the second derivative, which is twice that.
    `dpmpp-3m-sde-corrected` has the full term. The first step is `ddpm`, the second `dpmpp-2m-sde`
    in the variant "heun". Elsewhere: k-diffusion `sample_dpmpp_3m_sde`, whose eta is our eta^2.
    """

    name = "dpmpp-3m-sde"
    strong_order = 1.0
    weak_order = 2.0
    reference = "k-diffusion 0.1.1, sample_dpmpp_3m_sde, after Lu et al. 2022 (arXiv 2211.01095)"
    advice = (
        "one call, order 2; more accurate than dpmpp-2m-sde from some 40 steps on, much "
        "less below 15"
    )

    def plan(self, step: Step) -> StepPlan:
        return multistep_step(step, quadratic(0.5), depth=3, name=self.name)


@register_solver
@attrs.frozen(kw_only=True)
class DPMpp3MSDECorrected(Integrator):
    """`dpmpp-3m-sde-corrected`: `dpmpp-3m-sde` with the right second-order term.

    It integrates a quadratic denoiser exactly.

    One network call per step, weak order 2 (the noise allows no more), strong order 1. The
    correction to exponential Euler is psi_1 d_1 + psi_2 d_2. At eta = 0 it is of order 3 but for
    its first two steps, which show only where the run starts at a noise level that already carries
    information. No other package has it.
    """

    name = "dpmpp-3m-sde-corrected"
    strong_order = 1.0
    weak_order = 2.0
    reference = "srk; the quadratic of Lu et al. 2022 (arXiv 2211.01095) integrated exactly"
    advice = (
        "one call, order 2; dpmpp-3m-sde without its error, more accurate than dpmpp-2m-sde "
        "from some 30 steps on"
    )

    def plan(self, step: Step) -> StepPlan:
        return multistep_step(step, quadratic(1.0), depth=3, name=self.name)
