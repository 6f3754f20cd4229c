"""Linear multistep for the probability-flow ODE in the noise level itself."""

from __future__ import annotations

import attrs
import numpy as np

from srk._fields import ge, integral, le
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.form import ZERO
from srk.plans.history import usable
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.quadrature import gauss_legendre


@register_solver
@attrs.frozen(kw_only=True)
class LMS(Integrator):
    r"""`lms`: the linear multistep method for du/dr = (u - D)/r (eta = 0).

    It is Adams-Bashforth with variable steps.

    One network call per step; the slopes d_j of the last `order` steps are interpolated by a
    polynomial in r, which is integrated exactly:

    $$
    u' = u + \sum_j c_j d_j, \qquad c_j = \int_r^{r'} l_j(s)\, ds, \qquad
    d_j = \frac{u_j - D_j}{r_j}
    $$

    The first steps have the order that their history allows, so that the order is 2 where the run
    starts at a noise level that already carries information; from pure noise that start-up error is
    negligible and the order is `order`. A step to sigma = 0 is integrated too, as in the original,
    where every other method takes the denoiser. Elsewhere: k-diffusion `sample_lms`; diffusers
    `LMSDiscreteScheduler`.

    Arguments:
        order: how many slopes are used, 4 by default.
    """

    name = "lms"
    eta_range = (0.0, 0.0)
    noise_free = True
    reference = "k-diffusion 0.1.1, sample_lms (K. Crowson)"
    advice = "ODE, one call, order 2 to 4; for many steps, dpmpp-2m is more accurate below some 50"

    order: int = attrs.field(
        default=4,
        validator=[
            integral,
            ge(1),
            le(8),
        ],
    )

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        return float(min(self.order, 2))

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        draft = step.draft()
        node = draft.evaluate(draft.state, start)
        slope = node.x / start.sigma - node.value / start.r
        history = [(slope, start.r)] + [(draft.memory(i), r) for i, r in enumerate(step.memory)]
        places = [r for _, r in history]
        used = usable(step, places, start.r - stop.r, 0.0)
        weights = _lagrange_integrals([places[i] for i in used], stop.r)
        total = sum((history[i][0] * c for i, c in zip(used, weights, strict=True)), ZERO)
        return draft.finish(
            (draft.state / start.alpha + total) * stop.alpha, keep=history[: self.order - 1]
        )


def _lagrange_integrals(nodes: list[float], end: float) -> list[float]:
    """The integrals from nodes[0] to `end` of the Lagrange polynomials on `nodes`.

    Gauss-Legendre, exact for these.
    """
    x, w = gauss_legendre(len(nodes) // 2 + 1)
    s = nodes[0] + (end - nodes[0]) * x
    result = []
    for j, own in enumerate(nodes):
        values = np.ones_like(s)
        for k, other in enumerate(nodes):
            if k != j:
                values = values * (s - other) / (own - other)
        result.append((end - nodes[0]) * float(w @ values))
    return result
