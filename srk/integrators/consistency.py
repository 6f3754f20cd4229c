"""Multistep consistency sampling."""

from __future__ import annotations

import math

import attrs

from srk.errors import IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class Consistency(Integrator):
    r"""`consistency`: multistep consistency sampling of Song et al. 2023.

    One network call per step, for consistency models, whose network returns a sample at the lowest
    level r_min from any level r = sigma/alpha. It has no order: with an ordinary denoiser samples
    lack variance.

    $$
    u' = D + \sqrt{r'^2 - r_{\min}^2}\; z, \qquad u = x/\alpha
    $$

    r_min is the level at t_min of the process, where the last step then ends without noise: use
    denoise_final=False, or the final denoising is one more call. Elsewhere: diffusers
    `CMStochasticIterativeScheduler`, whose c_skip and c_out belong to the network here.
    """

    name = "consistency"
    infinite_noise = True
    eta_range = (1.0, 1.0)
    reference = "Song et al. 2023, Consistency models (arXiv 2303.01469), algorithm 1"
    advice = "consistency models trained down to a lowest noise, 1 to 8 calls"

    def plan(self, step: Step) -> StepPlan:
        lowest = step.process.level(step.process.t_min).r
        if math.isinf(lowest):
            raise IncompatibleError(
                f"{step.process!r} has no data at t_min, so that multistep consistency sampling "
                "has no lowest level; use a process with alpha > 0 at t_min"
            )
        gauge = GaugeStep(step.start, step.stop, 0.0, step.eta)
        draft = step.draft(gauge.clock)
        node = draft.evaluate(draft.state, step.start)
        r = step.stop.r
        new = math.sqrt(max(0.0, (r - lowest) * (r + lowest)))
        return draft.finish((node.value + draft.normal(*gauge.interval) * new) * step.stop.alpha)
