"""Times and plans of a run: numbers that follow from process, solver and grid, made once.

Whether they may be remembered is decided by `srk.values`: a process with a learned schedule, whose
numbers stand in a tensor, is planned afresh for every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

from srk._checks import is_real
from srk.errors import IncompatibleError
from srk.eta import eta_values, first_diffusion
from srk.integrators.base import Integrator
from srk.plans.plan import StepPlan
from srk.plans.renoise import renoising_step
from srk.plans.rounding import warn_of_rounding
from srk.plans.step import Step
from srk.processes.base import ForwardProcess
from srk.steps import Grid, RunInfo
from srk.steps.rising import lowest
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


def plan_run(
    grid: Grid, info: RunInfo, eta: Any, resolution: float
) -> tuple[tuple[StepPlan, ...], tuple[float, ...]]:
    """The plans of all steps that a grid gives, in order, and the stochasticity of each.

    Arguments:
        grid: where the steps go.
        info: what the grid may know of the run.
        eta: the stochasticity, as `srk.eta.as_eta` gives it.
        resolution: as in `plan_grid`.
    """
    process, method = info.process, info.solver

    if grid.remembered and isinstance(eta, float):  # found by what the times are made from

        def make() -> tuple[tuple[StepPlan, ...], tuple[float, ...]]:
            times = grid.times(info)
            etas = (eta,) * (len(times) - 1)
            plans = _plan(process, method, times, etas, resolution, None, grid.noise_scale)
            return tuple(plans), etas

        what = (grid, process, method, info.steps, info.eta, eta, resolution)
        made: tuple[tuple[StepPlan, ...], tuple[float, ...]] = _remembered.get(make, "run", *what)
        return made
    times = grid_times(grid, info)
    etas, diffusion = step_etas(eta, process, method, times)
    scale = grid.noise_scale
    return tuple(plan_grid(process, method, times, etas, resolution, diffusion, scale)), etas


def plan_grid(
    process: ForwardProcess,
    method: Integrator,
    times: Sequence[float],
    eta: float | Sequence[float] = 1.0,
    resolution: float = 2.0**-52,
    diffusion: float | None = None,
    noise_scale: float = 1.0,
) -> list[StepPlan]:
    """The plans of all steps of a fixed grid, in order.

    A step up is one of the forward process. What a method kept is forgotten there, and the draws of
    the way down after it are on a path of its own.

    Arguments:
        process: what is reversed.
        method: the integrator that plans.
        times: own times of the process, shape (steps + 1,).
        eta: the stochasticity; a number, or one number a step, of which those of steps up have no
            meaning.
        resolution: the relative rounding of the state, or of what the network says.
        diffusion: eta g of the first step, where that starts at alpha = 0 and a rule says so.
        noise_scale: factor of the noise of steps up.
    """
    if process.centred is not process:
        raise IncompatibleError(
            f"steps are those of the state less the mean, and not of {process!r}; give its "
            "process.centred, with data less the mean"
        )
    given: Any = eta
    etas = (float(given),) * (len(times) - 1) if is_real(given) else tuple(map(float, given))
    what = (process, method, tuple(times), etas, resolution, diffusion, noise_scale)
    return list(_remembered.get(lambda: tuple(_plan(*what)), "plans", *what))


def step_etas(
    eta: Any, process: ForwardProcess, method: Integrator, times: Sequence[float]
) -> tuple[tuple[float, ...], float | None]:
    """The stochasticity of each step of a grid, which the method must allow.

    With it the diffusion of the first step, where a rule gives that one.

    A function of the level is asked afresh for every run; the plans that follow are remembered by
    its values.

    Arguments:
        eta: a float, a tuple, a function of the level or a rule (`srk.eta.as_eta`).
        process, method: what is reversed, and how.
        times: own times of the process, shape (steps + 1,).
    """
    if isinstance(eta, float):
        return (eta,) * (len(times) - 1), None
    levels = [process.level(t) for t in times]
    etas = eta_values(eta, levels)
    for value in sorted(set(etas)):
        method.check(process, value)
    return etas, first_diffusion(eta, levels)


def forget() -> None:
    """Drop all that is remembered; benchmarks that time planning need it."""
    _remembered.clear()


def _plan(
    process: ForwardProcess,
    method: Integrator,
    times: Sequence[float],
    etas: Sequence[float],
    resolution: float = 2.0**-52,
    diffusion: float | None = None,
    noise_scale: float = 1.0,
) -> list[StepPlan]:
    levels = [process.level(t) for t in times]
    if not etas:  # a grid of one time, as a run has that only denoises
        return []
    steps = lowest(times)
    if method.one_eta and steps < len(times) - 1:
        raise IncompatibleError(
            "calls='schedule' places the steps of a grid that goes down, but this one rises; leave "
            "out calls='schedule'"
        )
    if len(set(etas)) == 1:
        method = method.on_grid(process, times, etas[0])
    elif method.one_eta:
        raise IncompatibleError(
            f"{method.name or type(method).__name__} places its steps for one eta of the whole "
            "run, but eta changes from step to step; give one number, or leave out "
            "calls='schedule'"
        )
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    ascents = 0
    for index, (start, stop) in enumerate(pairwise(levels)):
        step = Step(process, start, stop, etas[index], index, notes, steps, resolution=resolution)
        if index == 0 and diffusion is not None:
            step = attrs.evolve(step, diffusion=diffusion)
        if stop.lam < start.lam:
            ascents += 1
            plan = renoising_step(step, noise_scale, f"ascent {ascents}")
        else:
            plan = method.plan_step(step)
            warn_of_rounding(plan, resolution, index, method.name)
            if ascents:
                plan = attrs.evolve(plan, clock=f"{plan.clock} after ascent {ascents}")
        notes = plan.notes
        plans.append(plan)
    return plans
