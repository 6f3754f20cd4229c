"""How much of a step's rounding reaches the new state.

A row of a plan is a sum whose terms may be far larger than what they add up to: a slope at the end
of a step is a difference of state and denoiser divided by the noise there, and where the noise has
fallen by many decades in one step that difference has no correct digit left.
"""

from __future__ import annotations

import math
import warnings

from srk.errors import GridWarning
from srk.plans.plan import Column, StepPlan
from srk.processes.base import Level

#: Rounding of this size, relative to the state, is told.
FELT = 0.1


def amplification(plan: StepPlan) -> float:
    """The largest term of a step's rows in units of what the row gives, for data of scale 1.

    A plan in terms of the denoiser is meant, not of what a network says. What earlier steps kept
    and rows with matrices are left out.
    """
    rows = [(stage.row, stage.level) for stage in plan.stages]
    largest = 0.0
    for row, level in [*rows, (plan.update, plan.stop)]:
        for column, value in row:
            if isinstance(value, float) and column.kind in ("x", "X", "E"):
                term = abs(value) * _scale(column, plan) / _size(level)
                largest = max(largest, term)  # a NaN, where a process has no scale, is no larger
    return largest


def _scale(column: Column, plan: StepPlan) -> float:
    if column.kind == "E":
        return 1.0
    return _size(plan.start if column.kind == "x" else plan.stages[column.number].level)


def _size(level: Level) -> float:
    return math.hypot(level.alpha, level.sigma)


def warn_of_rounding(plan: StepPlan, resolution: float, index: int, name: str) -> None:
    """Warn where the rounding of the state or of the network is much of what a step gives.

    Arguments:
        plan: the step, in terms of the denoiser.
        resolution: relative rounding of the state and of what the network says.
        index: the number of the step.
        name: of the solver.
    """
    if any(stage.kind != "denoiser" for stage in plan.stages):
        return
    felt = amplification(plan) * resolution
    if felt <= FELT:
        return
    warnings.warn(
        f"step {index} of {name}, from t = {plan.start.t:.6g} to {plan.stop.t:.6g}, adds up terms "
        f"{felt / resolution:.3g} times as large as their sum, so that rounding ({resolution:.2g} "
        f"of the state or of the network's output) makes an error of {felt:.2g} of the state. Take "
        "more steps, a solver in data form such as 'srk2m' or 'dpmpp-2m', or dtype=torch.float64",
        GridWarning,
        stacklevel=2,
    )
