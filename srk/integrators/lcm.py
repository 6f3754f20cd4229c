"""The sampler of latent consistency models."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class LCM(Integrator):
    r"""`lcm`: the denoised state, noised anew to the level at the end of the step.

    One network call per step, for consistency models, whose network returns a sample of the data
    from any level. It has no order: with an ordinary denoiser, which returns the mean of the data,
    samples lack variance.

    $$
    x' = \alpha' D + \sigma' z
    $$

    A step to sigma = 0, and the final denoising, return D. Elsewhere: diffusers `LCMScheduler`,
    whose boundary scaling c_skip x + c_out D is a property of the network: apply it in the adapter.
    """

    name = "lcm"
    infinite_noise = True
    eta_range = (1.0, 1.0)
    reference = "Luo et al. 2023, LCM (arXiv 2310.04378), algorithm 3"
    advice = "consistency models, 1 to 8 calls"

    def plan(self, step: Step) -> StepPlan:
        gauge = GaugeStep(step.start, step.stop, 0.0, step.eta)
        draft = step.draft(gauge.clock)
        node = draft.evaluate(draft.state, step.start)
        noise = draft.normal(*gauge.interval) * step.stop.sigma
        return draft.finish(node.value * step.stop.alpha + noise)
