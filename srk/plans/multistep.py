r"""Multistep methods of the DPM-Solver++ family.

They make one network call a step, and extrapolate the denoiser through earlier ones.

With h the step in the half log-SNR, h1 and h2 the two steps before, a = 1 + eta^2, u = x/alpha, r =
sigma/alpha:

    u' = e^{-ah} u + psi_0 D + psi_1 d_1 + psi_2 d_2 + r' sqrt(1 - e^{-2 eta^2 h}) z
    psi_k = psi_k(ah), see `phi`

where D + d_1 t + d_2 t^2, t the fraction of the step, passes through the denoisers at the starts of
this step and of the ones before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.history import usable_for_denoiser
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Step

#: Denoisers and the half log-SNR that they belong to, the latest first.
History = list[tuple[LinearForm, float]]
#: (history, h, (1 + eta^2) h) -> what is added to exponential Euler in units of u.
Correction = Callable[[History, float, float], LinearForm]
Variant = Literal["midpoint", "heun"]


def multistep_step(
    step: Step, correction: Correction, *, depth: int = 2, name: str = ""
) -> StepPlan:
    """The exponential Euler step with a correction from earlier denoisers; one network call.

    Arguments:
        step: the step.
        correction: see `line` and `quadratic`.
        depth: how many denoisers the method uses at most.
        name: of the solver, for warnings.
    """
    gauge = GaugeStep(step.start, step.stop, 0.0, step.eta)
    draft = step.draft(gauge.clock)
    node = draft.evaluate(draft.state, step.start)
    # What the steps before kept is the denoiser at their start; the note is the half log-SNR there
    history = [(node.value, step.start.lam)]
    history += [(draft.memory(i), lam) for i, lam in enumerate(step.memory)]
    used = usable_for_denoiser(step, [lam for _, lam in history], name=name)
    ah = (1.0 + step.eta**2) * step.h
    new = gauge.carry(draft.state, node.value, step.stop)
    new = new + correction([history[i] for i in used], step.h, ah) * step.stop.alpha
    noise = draft.normal(*gauge.interval) * gauge.noise_std(gauge.stop)
    return draft.finish(new + noise, keep=history[: depth - 1])


def line(variant: Variant) -> Correction:
    """The line through two denoisers, in one of the two ways of the DPM-Solver++ code.

    "midpoint" carries half of psi_0 of its slope, "heun" integrates it exactly (psi_1).
    """

    def correction(history: History, h: float, ah: float) -> LinearForm:
        if len(history) < 2:
            return ZERO
        (d, lam), (d1, lam1) = history
        weight = 0.5 * psi(0, ah) if variant == "midpoint" else psi(1, ah)
        return (d - d1) * (weight * h / (lam - lam1))

    return correction


def quadratic(curvature: float) -> Correction:
    """The quadratic through three denoisers, its second-order term times `curvature`.

    1 integrates it exactly; the codes of DPM-Solver++ and k-diffusion have 1/2.
    """

    def correction(history: History, h: float, ah: float) -> LinearForm:
        if len(history) < 2:
            return ZERO
        (d, lam), (d1, lam1) = history[:2]
        slope = (d - d1) * (h / (lam - lam1))
        if len(history) < 3:
            return slope * psi(1, ah)
        d2, lam2 = history[2]
        before = (d1 - d2) * (h / (lam1 - lam2))
        bend = (slope - before) * (h / (lam - lam2))  # h^2 times the second divided difference
        first = (slope + bend * ((lam - lam1) / h)) * psi(1, ah)
        return first + bend * (curvature * psi(2, ah))

    return correction
