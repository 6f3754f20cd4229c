r"""Ancestral steps: an ODE step below the end of the step, and noise back up to it.

With h the step in the half log-SNR, u = x/alpha, r = sigma/alpha, the noise that is added and the
level that the ODE goes down to are

    r_up = eta r' sqrt(1 - e^{-2h})  (at most r')
    r_down = sqrt(r'^2 - r_up^2)
    H = log(r/r_down) >= h

This is DDIM's eta: r_up is eta times the standard deviation of the DDPM posterior. It is srk's eta
at 0 and 1 and in the limit of short steps; at other values the step of `ddpm` has r_down = r'
e^{-eta^2 h}, which solves du = (1 + eta^2)(D - u) dlam + eta sqrt2 r dW exactly with D frozen.
"""

from __future__ import annotations

import math

from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step


def ancestral_step(h: float, eta: float) -> tuple[float, float]:
    """(H, r_up/r') of an ancestral step of length h in the half log-SNR.

    H is inf where the noise that is added is all of it.

    Examples:
        >>> from srk.plans.ancestral import ancestral_step
        >>> H, up = ancestral_step(0.5, 1.0)
        >>> # at eta = 1, H = 2h and r_up^2 = r'^2 (1 - e^{-2h})
        >>> round(H, 12), round(up**2 + 2.718281828459045**-1.0, 12)
        (1.0, 1.0)
    """
    kept = eta**2 * math.expm1(-2.0 * h)  # -(r_up/r')^2
    if kept <= -1.0:
        return math.inf, 1.0
    return h - 0.5 * math.log1p(kept), math.sqrt(-kept)


def ancestral_noise(draft: Draft, gauge: GaugeStep, up: float) -> LinearForm:
    """The noise of the step in units of x, from the draw that `ddpm` makes too (slot and clock)."""
    return draft.normal(*gauge.interval) * (gauge.stop.sigma * up)


def euler_step(step: Step) -> StepPlan:
    """The ancestral Euler step: u' = e^{-H} u + (1 - e^{-H}) D + r_up z."""
    start, stop = step.start, step.stop
    gauge = GaugeStep(start, stop, 0.0, step.eta)
    draft = step.draft(gauge.clock)
    node = draft.evaluate(draft.state, start)
    H, up = ancestral_step(step.h, step.eta)
    down = math.sqrt(max(0.0, 1.0 - up**2)) if math.isinf(step.h) else math.exp(step.h - H)
    carried = draft.state * (
        stop.sigma * down / start.sigma
    )  # e^{-H} alpha'/alpha, finite at alpha = 0
    return draft.finish(
        carried - node.value * (stop.alpha * math.expm1(-H)) + ancestral_noise(draft, gauge, up)
    )


def midpoint_step(step: Step, *, data: bool) -> StepPlan:
    """One step of either midpoint method.

    `data` freezes D at the midpoint, otherwise the noise (u - D)/r.
    """
    start, stop = step.start, step.stop
    gauge = GaugeStep(start, stop, 0.0, step.eta)
    draft = step.draft(gauge.clock)
    H, up = ancestral_step(step.h, step.eta)
    first = draft.evaluate(draft.state, start)
    level = stop if step.eta == 1.0 else step.process.level_at(start.lam + 0.5 * H)
    u = draft.state / start.alpha
    node = draft.evaluate(
        (u * math.exp(-0.5 * H) - first.value * math.expm1(-0.5 * H)) * level.alpha, level
    )
    if data:
        down = u * math.exp(-H) - node.value * math.expm1(-H)
    else:
        down = u + (node.x / level.alpha - node.value) * (start.r * math.expm1(-H) / level.r)
    return draft.finish(down * stop.alpha + ancestral_noise(draft, gauge, up))
