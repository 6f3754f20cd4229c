"""Exponential Euler in its frames: DDPM."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.exponential import exponential_step
from srk.plans.ou import ou_time
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DDPM(Integrator):
    """`ddpm`: exponential Euler with the network frozen over the step.

    The linear part of the reverse SDE is exact.

    One network call per step, weak order 1, strong order 1. What is frozen is the frame:

    - "data" (default): the denoiser D. eta = 1 is DDPM ancestral sampling, eta = 0 is DDIM;
      u' = e^{-ah} u + (1 - e^{-ah}) D + r1 sqrt(1 - e^{-2 eta^2 h}) z with u = x/alpha, a = 1 +
      eta^2.
    - "noise": eps = (x - alpha D)/sigma (DPM-Solver's form); u' = u - a (r0 - r1) eps + eta
    sqrt(r0^2 - r1^2) z.
    - "score": the score s itself, in the variance-preserving scale and the Ornstein-Uhlenbeck clock
    (the textbook exponential integrator);
      Y' = e^d Y + (1 + eta^2)(e^d - 1) s + eta sqrt(e^{2d} - 1) z.

    At eta = 0 all frames are first-order solvers of the probability-flow ODE; "data" and "noise"
    are then both DDIM.

    Arguments:
        frame: what is frozen: "data", "noise" or "score".
    """

    name = "ddpm"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = (
        "Ho et al. 2020 (arXiv 2006.11239), eq. 7; Song et al. 2021 (arXiv 2010.02502) for eta"
    )
    advice = "the baseline: robust, one call, order 1"

    frame: Literal["data", "noise", "score"] = attrs.field(
        default="data", validator=in_(("data", "noise", "score"))
    )

    def plan(self, step: Step) -> StepPlan:
        start, stop, eta = step.start, step.stop, step.eta
        if self.frame == "data" or start.alpha == 0.0:
            return exponential_step(step)
        a = 1.0 + eta**2
        r0, r1 = start.r, stop.r
        draft = step.draft("gauge(inf,1)")
        node = draft.evaluate(draft.state, start)
        noise = draft.normal(-(r0**2), -(r1**2)) * (
            stop.alpha * eta * r1 * math.sqrt(math.expm1(2.0 * step.h))
        )
        carried = node.x * (stop.alpha / start.alpha)
        if self.frame == "noise":
            eps = (node.x - node.value * start.alpha) / start.sigma
            return draft.finish(carried - eps * (stop.alpha * a * r1 * math.expm1(step.h)) + noise)
        # The score of y = x/sqrt(alpha^2 + sigma^2) is sqrt(alpha^2 + sigma^2) s
        scale0, scale1 = math.hypot(start.alpha, start.sigma), math.hypot(stop.alpha, stop.sigma)
        score = (node.value * start.alpha - node.x) * (scale0 / start.sigma**2)
        d = ou_time(start) - ou_time(stop)
        return draft.finish(carried + score * (scale1 * a * math.expm1(d)) + noise)
