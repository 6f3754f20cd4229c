"""ER-SDE-Solvers: the extended reverse-time SDE, with its own amount of noise at every level."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import attrs
import numpy as np

from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.gauge import digits
from srk.plans.history import usable_for_denoiser
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.quadrature import gauss_legendre

_POINTS, _MASSES = gauss_legendre(64)


def er_sde_5(r: float) -> float:
    """log(e^{r^0.3} + 10).

    The growth of phi(r) = r (e^{r^0.3} + 10), the noise scale that the authors recommend ("ER SDE
    5").
    """
    return float(np.logaddexp(r**0.3, math.log(10.0)))


@register_solver
@attrs.frozen(kw_only=True)
class ERSDE1(Integrator):
    r"""`er-sde-1`: first-order ER-SDE-Solver, data prediction.

    One network call per step, strong order 1, weak order 1. With r = sigma/alpha, u = x/alpha, q =
    phi(r')/phi(r):

    $$
    u' = q\, u + (1 - q) D + \sqrt{r'^2 - q^2 r^2}\; z
    $$

    phi says how much noise there is at each level: phi = r is the probability-flow ODE (the step is
    DDIM), phi = r^2 the reverse SDE (`ddpm`); in general 1 + eta(r)^2 = d log phi/d log r. The
    default, phi = r (e^{r^0.3} + 10), has eta(80) = 0.95 and eta(0) = 0. `eta`
    scales that: the steps use r (phi/r)^{eta^2}, so that eta = 1 is the published method and eta =
        0 the ODE.

    Arguments:
        growth: log(phi(r)/r), a function of r = sigma/alpha that does not decrease; `math.log` is
            phi = r^2.
    """

    name = "er-sde-1"
    strong_order = 1.0
    weak_order = 1.0
    reference = (
        "Cui et al. 2023, ER-SDE-Solver (arXiv 2309.06169), eq. 12-16; the authors' vp_1_order"
    )
    advice = "one call, order 1, with noise that fades towards the end"

    order: ClassVar[int] = 1
    growth: Callable[[float], float] = er_sde_5

    def plan(self, step: Step) -> StepPlan:
        start, stop, e = step.start, step.stop, step.eta**2
        r0, r1, h = start.r, stop.r, step.h
        g0 = self._growth(r0, e)
        ratio = self._growth(r1, e) - g0  # log of (phi/r) at the end over that at the start
        if ratio > 1e-14 * max(1.0, abs(g0)):
            raise ArgumentError(
                f"growth, log(phi(r)/r), must not decrease in r, but it rises by {ratio:.3g} "
                f"from r = {r0!r} to {r1!r}: {self.growth!r}"
            )
        ratio = min(ratio, 0.0)
        fall = ratio - h  # log q
        draft = step.draft(f"er-sde({digits(step.eta)})")
        node = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha * math.exp(fall) - node.value * math.expm1(fall)
        past: list[float] = list(step.memory)
        values = [node.value] + [draft.memory(i) for i in range(len(past))]
        places = [r0, *past]
        kept = list(zip(values, places, strict=True))[: self.order - 1]
        lams = [-math.log(r) for r in places]
        used = usable_for_denoiser(step, lams, math.sqrt(-ratio / h), self.name)
        values, places = [values[i] for i in used], [places[i] for i in used]
        if len(used) > 1:
            moments = self._moments(r0, r1, h, g0 + ratio, e)
            slope = (values[0] - values[1]) / (places[0] - places[1])
            u = u + slope * moments[0]
            if len(used) == 3:
                before = (values[1] - values[2]) / (places[1] - places[2])
                u = u + (slope - before) * (2.0 / (places[0] - places[2]) * moments[1])
        if ratio < 0.0:
            u = u + draft.normal(math.exp(-2.0 * g0), math.exp(-2.0 * (g0 + ratio))) * (
                r1 * math.sqrt(-math.expm1(2.0 * ratio))
            )
        return draft.finish(u * stop.alpha, keep=kept)

    def _growth(self, r: float, e: float) -> float:
        """eta^2 log(phi(r)/r)."""
        return e * float(self.growth(r)) if e > 0.0 else 0.0

    def _moments(self, r0: float, r1: float, h: float, g1: float, e: float) -> tuple[float, float]:
        """int_{r1}^{r0} (r - r0)^k (phi(r1)/phi(r) - 1) dr for k = 0, 1.

        How far the slope and the curvature of D carry u.
        """
        first = second = 0.0
        for point, mass in zip(_POINTS, _MASSES, strict=True):
            back = float(point) * h  # log(r/r1)
            r = r1 * math.exp(back)
            change = math.expm1(g1 - self._growth(r, e) - back) * r * h * float(mass)
            first += change
            second += change * (r - r0)
        return first, second


@register_solver
@attrs.frozen(kw_only=True)
class ERSDE2(ERSDE1):
    r"""`er-sde-2`: second-order ER-SDE-Solver, data prediction.

    One network call per step, strong order 1, weak order 2. As `er-sde-1`, plus the slope of D in r
    from the last two evaluations:

    $$
    u' \mathrel{+}= \Big[r' - r + \varphi(r') \int_{r'}^r \frac{ds}{\varphi(s)}\Big]
    \frac{D - D_\mathrm{old}}{r - r_\mathrm{old}}
    $$

    The integral is exact here (Gauss-Legendre); the authors' code takes a left Riemann sum of 100
    points, and drops a noise variance below 1e-6.

    Arguments:
        growth: log(phi(r)/r), a function of r = sigma/alpha that does not decrease; `math.log` is
            phi = r^2.
    """

    name = "er-sde-2"
    strong_order = 1.0
    weak_order = 2.0
    advice = "one call; noise that fades towards the end"

    order: ClassVar[int] = 2


@register_solver
@attrs.frozen(kw_only=True)
class ERSDE3(ERSDE1):
    r"""`er-sde-3`: third-order ER-SDE-Solver, data prediction.

    One network call per step, strong order 1, weak order 2 and not 3: the slope of D is still the
    one-sided difference of `er-sde-2`. As that, plus the curvature D_2 = 2 (D' - D'_old)/(r - r_2),
    with D' the slopes of the last two steps:

    $$
    u' \mathrel{+}= \Big[\tfrac12 (r' - r)^2
    + \varphi(r') \int_{r'}^r \frac{s - r}{\varphi(s)}\, ds\Big] D_2
    $$

    Arguments:
        growth: log(phi(r)/r), a function of r = sigma/alpha that does not decrease; `math.log` is
            phi = r^2.
    """

    name = "er-sde-3"
    strong_order = 1.0
    weak_order = 2.0
    advice = "one call; the authors' choice of their three"

    order: ClassVar[int] = 3
