"""DEIS: Adams-Bashforth for the noise prediction, polynomials in log(sigma/alpha)."""

from __future__ import annotations

from typing import ClassVar

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.form import ZERO
from srk.plans.history import usable
from srk.plans.lagrange import exponential_weights
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class DEIS2(Integrator):
    r"""`deis-2`: tAB-DEIS of order 2 in its log-rho form, noise prediction.

    One network call per step, order 2; probability-flow ODE only. With rho = sigma/alpha, eps = (x
    - alpha D)/sigma at the last two evaluations and l_j their Lagrange polynomials in log(rho):

    $$
    \frac{x'}{\alpha'} = \frac{x}{\alpha}
    + \sum_j \varepsilon_j \int_\rho^{\rho'} l_j(\log\rho)\, d\rho
    $$

    Equals diffusers' DEISMultistepScheduler(solver_order=2) with lower_order_final=False; order 1
    would be DDIM.
    """

    name = "deis-2"
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = (
        "Zhang and Chen 2022, DEIS (arXiv 2204.13902), eq. 14-15, log-rho form as in diffusers"
    )
    advice = "ODE, one call, order 2, noise prediction"

    order: ClassVar[int] = 2

    def plan(self, step: Step) -> StepPlan:
        start, stop, h = step.start, step.stop, step.h
        draft = step.draft()
        node = draft.evaluate(draft.state, start)
        lams: list[float] = [start.lam, *step.memory]
        eps = [(node.x - node.value * start.alpha) / start.sigma] + [
            draft.memory(i) for i in range(len(step.memory))
        ]
        used = usable(step, lams, h, 0.0)
        # d rho = -rho dlam, heaviest at the start of the step: the integral of the step reversed
        weights = exponential_weights([start.lam + h - lams[i] for i in used], h)
        u = draft.state / start.alpha - start.r * sum(
            (eps[i] * w for i, w in zip(used, weights, strict=True)), ZERO
        )
        return draft.finish(
            u * stop.alpha, keep=list(zip(eps, lams, strict=True))[: self.order - 1]
        )


@register_solver
@attrs.frozen(kw_only=True)
class DEIS3(DEIS2):
    r"""`deis-3`: tAB-DEIS of order 3 in its log-rho form, noise prediction.

    One network call per step, order 3; probability-flow ODE only. As `deis-2` with the last three
    evaluations. Equals diffusers' DEISMultistepScheduler(solver_order=3) with
    lower_order_final=False. The order of the first two steps is lower, which shows only where a run
    starts at a level that already carries information.
    """

    name = "deis-3"
    weak_order = 3.0
    advice = "ODE, one call, order 3, noise prediction"

    order: ClassVar[int] = 3
