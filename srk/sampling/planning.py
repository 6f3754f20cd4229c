"""Times and plans of a run: numbers that follow from process, solver and grid, made once.

Whether they may be remembered is decided by `srk.values`: a process with a learned schedule, whose
numbers stand in a tensor, is planned afresh for every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from srk.integrators.base import Integrator
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess
from srk.steps import Grid, RunInfo
from srk.values import Remembered

LIMIT = 64 * 2**20
"""Bytes of plans and times that are remembered."""
_remembered = Remembered(LIMIT)


def validate(process: ForwardProcess) -> None:
    """Check a process (`process.validate()`), once for each value of its attributes."""
    _remembered.get(process.validate, "valid", process)


def grid_times(grid: Grid, info: RunInfo) -> list[float]:
    """The own times of a grid's steps, shape (steps + 1,), decreasing.

    The times of a grid that depends on process, solver, steps and eta only (`Grid.remembered`) are
    remembered.
    """
    if not grid.remembered:
        return grid.times(info)
    what = (grid, info.process, info.solver, info.steps, info.eta)
    return list(_remembered.get(lambda: tuple(grid.times(info)), "times", *what))


def plan_grid(
    process: ForwardProcess,
    method: Integrator,
    times: Sequence[float],
    eta: float = 1.0,
    resolution: float = 2.0**-52,
) -> list[StepPlan]:
    """The plans of all steps of a fixed grid, in order.

    Arguments:
        process: what is reversed.
        method: the integrator that plans.
        times: own times of the process, decreasing, shape (steps + 1,).
        eta: the stochasticity of each step.
        resolution: the relative rounding of the state, or of what the network says.
    """
    what = (process, method, tuple(times), eta, resolution)
    return list(_remembered.get(lambda: tuple(_plan(*what)), "plans", *what))


def forget() -> None:
    """Drop all that is remembered; benchmarks that time planning need it."""
    _remembered.clear()


def _plan(
    process: ForwardProcess,
    method: Integrator,
    times: Sequence[float],
    eta: float,
    resolution: float = 2.0**-52,
) -> list[StepPlan]:
    levels = [process.level(t) for t in times]
    method = method.on_grid(process, times, eta)
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    steps = len(levels) - 1
    for index, (start, stop) in enumerate(pairwise(levels)):
        step = Step(process, start, stop, eta, index, notes, steps, resolution=resolution)
        plan = method.plan_step(step)
        notes = plan.notes
        plans.append(plan)
    return plans
