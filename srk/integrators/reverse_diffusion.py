"""The reverse-diffusion sampler of Song et al. 2021: the forward step, reversed."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.renoise import forward_coefficients
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class ReverseDiffusion(Integrator):
    r"""`reverse-diffusion`: the forward step between two levels with its drift and noise reversed.

    One network call per step, weak order 1, strong order 1. With x = a x' + c z the forward step
    from the end to the start of a step, and s the score at its start,

    $$
    x' = x - (a - 1)\, x + \tfrac{1 + \eta^2}{2} c^2 s + \eta\, c\, z
    $$

    For a variance-exploding process it is c^2 = sigma^2 - sigma'^2; on discrete betas a^2 = 1 -
    beta, c^2 = beta. The step to sigma = 0 is taken without noise. Elsewhere: score_sde's predictor
    `reverse_diffusion`, and SGMSE's with forward="euler".

    Arguments:
        forward: the forward step. "exact" takes the transition kernel of the process, as score_sde
            does for VE and VP; "euler" an Euler-Maruyama step in the process's own time, as
            score_sde does for sub-VP and SGMSE for OUVE. The latter differs from `euler-maruyama`
            in the step to sigma = 0 alone, which is no denoiser here.
    """

    name = "reverse-diffusion"
    strong_order = 1.0
    weak_order = 1.0
    noise_free = True
    reference = "Song et al. 2021 (arXiv 2011.13456), appendix E"
    advice = "one call, order 1; the predictor of score_sde"

    forward: Literal["exact", "euler"] = attrs.field(
        default="exact", validator=in_(("exact", "euler"))
    )

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        if self.forward == "euler":
            dt = start.t - stop.t
            decay = float(step.process.log_alpha_rate(start.t)) * dt  # a - 1
            spread = float(step.process.diffusion(start.t)) * math.sqrt(dt)
        else:
            a, spread = forward_coefficients(stop, start)
            decay = a - 1.0
        draft = step.draft("time")
        node = draft.evaluate(draft.state, start)
        score = (node.value * start.alpha - node.x) / start.sigma**2
        mean = draft.state * (1.0 - decay) + score * (0.5 * (1.0 + step.eta**2) * spread**2)
        if stop.sigma == 0.0:
            return draft.finish(mean)
        return draft.finish(mean + draft.normal(-start.t, -stop.t) * (step.eta * spread))
