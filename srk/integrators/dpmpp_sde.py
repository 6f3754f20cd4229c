"""DPM-Solver++ (SDE), the two-stage stochastic method of k-diffusion."""

from __future__ import annotations

import math

import attrs

from srk._fields import gt, le
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ancestral import ancestral_step
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DPMppSDE(Integrator):
    r"""`dpmpp-sde`: two ancestral steps from the same start.

    The first of them goes to the middle of the step.

    Two network calls per step, weak order 2. With (H, r_up) the ancestral step to the end and (H_s,
    r_up,s) that to s = lam + c h:

    $$
    \begin{aligned}
    u_s &= e^{-H_s} u + (1 - e^{-H_s}) D + r_{\mathrm{up},s} n_1 \\
    u' &= e^{-H} u + (1 - e^{-H}) \Big(\big(1 - \tfrac1{2c}\big) D + \tfrac1{2c} D_s\Big)
        + r_\mathrm{up} n_2
    \end{aligned}
    $$

    n1 and n2 are the increments, scaled to unit variance, of ONE Brownian path in r over [r, r_s]
    and [r, r'], correlation sqrt((r - r_s)/(r - r')); with independent draws the weak order would
    be 1. It takes two Gaussian draws a step. The path in r is that of k-diffusion's Brownian tree,
    not the path of the SDE, so that no strong order is claimed. eta is that of the ancestral
    methods: srk's at 0 and 1 and in the limit of short steps. Elsewhere: k-diffusion
    `sample_dpmpp_sde` with the same eta and r = c.

    Arguments:
        node: c, the place of the stage in the half log-SNR, in (0, 1]; k-diffusion's r.
    """

    name = "dpmpp-sde"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = "k-diffusion 0.1.1, sample_dpmpp_sde, after Lu et al. 2022 (arXiv 2211.01095)"
    advice = "two calls, order 2, single step; dpmpp-2m-sde is more accurate at the same cost"

    node: float = attrs.field(default=0.5, validator=[gt(0.0), le(1.0)])

    def plan(self, step: Step) -> StepPlan:
        start, stop, h, c = step.start, step.stop, step.h, self.node
        level = stop if c == 1.0 else step.process.level_at(start.lam + c * h)
        draft = step.draft("-sigma/alpha")
        first = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha
        n1, rest = draft.normal(-start.r, -level.r), draft.normal(-level.r, -stop.r)
        f = math.expm1(-c * h) / math.expm1(-h)
        n2 = n1 * math.sqrt(f) + rest * math.sqrt(max(0.0, 1.0 - f))

        H, up = ancestral_step(c * h, step.eta)
        node = draft.evaluate(
            (u * math.exp(-H) - first.value * math.expm1(-H) + n1 * (level.r * up)) * level.alpha,
            level,
        )
        H, up = ancestral_step(h, step.eta)
        denoised = first.value * (1.0 - 0.5 / c) + node.value * (0.5 / c)
        return draft.finish(
            (u * math.exp(-H) - denoised * math.expm1(-H) + n2 * (stop.r * up)) * stop.alpha
        )
