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
from srk.steps import Grid, Problem
from srk.values import Remembered

LIMIT = 64 * 2**20
"""Bytes of plans and times that are remembered."""
_remembered = Remembered(LIMIT)


def validate(process: ForwardProcess) -> None:
    """Check a process (`process.validate()`), once for each value of its attributes."""
    _remembered.get(process.validate, "valid", process)


def grid_times(grid: Grid, problem: Problem) -> list[float]:
    """The own times of a grid's steps, shape (steps + 1,), decreasing.

    The times of a grid that depends on process, solver, steps and eta only (`Grid.remembered`) are
    remembered.
    """
    if not grid.remembered:
        return grid.times(problem)
    what = (grid, problem.process, problem.solver, problem.steps, problem.eta)
    return list(_remembered.get(lambda: tuple(grid.times(problem)), "times", *what))


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
        resolution: relative rounding of the state and of the network (`Step.resolution`).
    """
    return list(
        _remembered.get(
            lambda: tuple(_plan(process, method, times, eta, resolution)),
            "plans",
            process,
            method,
            tuple(times),
            eta,
            resolution,
        )
    )


def forget() -> None:
    """Drop all that is remembered; benchmarks that time planning need it."""
    _remembered.clear()


def _plan(
    process: ForwardProcess,
    method: Integrator,
    times: Sequence[float],
    eta: float,
    resolution: float,
) -> list[StepPlan]:
    levels = [process.level(t) for t in times]
    method = method.on_grid(process, times, eta)
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    for index, (start, stop) in enumerate(pairwise(levels)):
        plan = method.plan_step(
            Step(
                process,
                start,
                stop,
                eta,
                index,
                notes,
                len(levels) - 1,
                resolution=resolution,
            )
        )
        notes = plan.notes
        plans.append(plan)
    return plans
