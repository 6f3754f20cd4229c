"""Steps of the forward process, from less noise to more: they call no network."""

from __future__ import annotations

import math

from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import Level


def forward_coefficients(clean: Level, noisy: Level) -> tuple[float, float]:
    """(a, c) of the forward process x_noisy = a x_clean + c z between two levels.

    a = alpha/alpha', c^2 = sigma^2 - a^2 sigma'^2, without cancellation.

    Examples:
        >>> import srk
        >>> from srk.plans.renoise import forward_coefficients
        >>> ve = srk.EDM()
        >>> a, c = forward_coefficients(ve.level(3.0), ve.level(5.0))
        >>> a, round(c, 12)
        (1.0, 4.0)
    """
    share = -math.expm1(2.0 * (noisy.lam - clean.lam))  # 1 - (r'/r)^2
    return noisy.alpha / clean.alpha, noisy.sigma * math.sqrt(max(0.0, share))


def renoising_step(step: Step, scale: float = 1.0, name: str = "") -> StepPlan:
    """The step up from `step.start` to the noisier `step.stop`: x' = a x + scale c z.

    Arguments:
        step: the step; its eta has no meaning here.
        scale: factor of the noise; 1 is the forward process.
        name: of the clock of the draw, which no other step shares.
    """
    a, c = forward_coefficients(step.start, step.stop)
    draft = step.draft(name)
    return draft.finish(draft.state * a + draft.normal(step.start.t, step.stop.t) * (scale * c))
