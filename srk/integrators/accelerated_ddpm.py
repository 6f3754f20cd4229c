"""The accelerated stochastic sampler of Li et al. 2024."""

from __future__ import annotations

import math

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.ou import ou_step, preserving_score
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class AcceleratedDDPM(Integrator):
    r"""`accelerated-ddpm`: DDPM with half of its noise added before the network is asked.

    One network call and two draws per step, strong order 1, weak order 1. In the
    variance-preserving scale Y, with a the ratio of the squared signal scales at start and end and
    s the score of Y at the noise level of the start:

    $$
    Y_+ = Y + \sqrt{(1 - a)/2}\; z, \qquad
    Y' = a^{-1/2} \big(Y_+ + (1 - a)\, s(Y_+)\big) + \sqrt{(1 - a)/2}\; z_+
    $$

    Y+ is noisier than the level at which s is taken; that is the method. The reverse SDE only (eta
    = 1). The draws are the increments of one path over the two halves of the step in the clock
    -(sigma/alpha)^2.
    """

    name = "accelerated-ddpm"
    strong_order = 1.0
    weak_order = 1.0
    eta_range = (1.0, 1.0)
    reference = "Li, Huang, Efimov, Wei, Chi, Chen 2024 (arXiv 2403.03852), stochastic sampler"
    advice = "for its theory; order 1, no better than ddpm"

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        d = ou_step(start, stop)
        half = math.sqrt(-0.5 * math.expm1(-2.0 * d))  # a = e^{-2d}
        s0, s1 = start.r**2, stop.r**2
        middle = s1 + 0.5 * (s0 - s1)
        n0, n1 = math.hypot(start.alpha, start.sigma), math.hypot(stop.alpha, stop.sigma)
        draft = step.draft("gauge(inf,1)")
        node = draft.evaluate(draft.state + draft.normal(-s0, -middle) * (half * n0), start)
        moved = node.x / n0 - preserving_score(node, start) * math.expm1(-2.0 * d)
        return draft.finish((moved * math.exp(d) + draft.normal(-middle, -s1) * half) * n1)
