"""The exponential Euler step and the denoising step.

Every method shares them at the two ends of a process.
"""

from __future__ import annotations

import math

from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeStep, digits, remainder
from srk.plans.plan import STATE, Column, StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level


def exponential_coefficients(
    start: Level, stop: Level, v: float, eta: float
) -> tuple[float, float, float, tuple[float, float]]:
    """One step with R frozen, x' = cx x + cd D + cz z.

    Returns (cx, cd, cz, interval of the draw on the clock).
    """
    step = GaugeStep(start, stop, v, eta)
    denoised = Column("E")
    x, d = LinearForm({STATE: 1.0}), LinearForm({denoised: 1.0})
    form = step.carry(x, remainder(start, v, x, d), stop)
    return form.number(STATE), form.number(denoised), step.noise_std(stop), step.interval


def exponential_step(step: Step) -> StepPlan:
    """One exponential Euler step with the denoiser frozen (DDPM at eta = 1, DDIM at eta = 0).

    Any noise level, alpha = 0 included.
    """
    draft = step.draft(clock=f"gauge(0,{digits(step.eta)})")
    node = draft.evaluate(draft.state, step.start)
    cx, cd, cz, interval = exponential_coefficients(step.start, step.stop, 0.0, step.eta)
    return draft.finish(draft.state * cx + node.value * cd + draft.normal(*interval) * cz)


def denoising_step(step: Step) -> StepPlan:
    """The step to sigma = 0.

    The new state is the denoiser at the start, in the scale of the data.
    """
    draft = step.draft()
    node = draft.evaluate(draft.state, step.start)
    return draft.finish(node.value * step.stop.alpha)


def final_step(process: ForwardProcess, start: Level, eta: float = 1.0, index: int = 0) -> StepPlan:
    """The denoising step that ends a run: the denoiser at `start`, at the scale of the data."""
    return denoising_step(Step(process, start, Level(start.t, 1.0, 0.0, math.inf), eta, index))
