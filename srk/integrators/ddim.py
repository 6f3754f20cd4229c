"""The sampler of Song et al. 2021."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ancestral import euler_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DDIM(Integrator):
    r"""`ddim`: the sampler of Song et al. 2021 with their eta.

    It goes from the deterministic DDIM (eta = 0) to DDPM (eta = 1).

    One network call per step, weak order 1, strong order 1. In their notation, for a
    variance-preserving process,

    $$
    x' = \alpha' D + \sqrt{\sigma'^2 - s^2}\; \varepsilon + s z, \qquad
    s = \eta\, \frac{\sigma'}{\sigma} \sqrt{1 - \alpha^2/\alpha'^2}
    $$

    which for any linear process is `euler-ancestral` with s = alpha' r_up. Between 0 and 1 the
    method `ddpm` at eta makes another, equally valid step: it solves srk's reverse SDE of that eta
    exactly with D frozen, where DDIM scales the standard deviation of the posterior; the two agree
    to first order in the step. From alpha = 0 it carries the noise on, as the formula says.
    Elsewhere: diffusers `DDIMScheduler(clip_sample=False)` with its eta.
    """

    name = "ddim"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    eta_range = (0.0, 1.0)
    reference = "Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16"
    advice = "one call, order 1, with DDIM's eta; eta=0 is the deterministic baseline"

    def plan(self, step: Step) -> StepPlan:
        return euler_step(step)
