"""The probability-flow ODE from data to noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.run import Job, run
from srk._modes import ordinary_tensors
from srk.errors import IncompatibleError, SolveError
from srk.integrators import Integrator, integrator
from srk.noise import NoiseSource, noise_source
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, LinearProcess
from srk.sampling.arguments import controller_given, process_given, state_given, steps_given
from srk.sampling.planning import grid_times, validate
from srk.scores import Prediction, as_prediction
from srk.scores.centred import bound_to, hidden, placed, seen
from srk.solution import Solution
from srk.steps import Grid, RunInfo

INVERTIBLE = ("ddim", "dpm-solver-2", "dpmpp-2m", "heun", "dpm2")
"""The solvers whose steps go up as well as down: each is held to its order by a test."""


def invert(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    x: Tensor,
    solver: str | Integrator = "ddim",
    *,
    steps: int | None = None,
    nfe: int | None = None,
    grid: Any = None,
) -> Solution:
    """Take states at t_min up to t_max along the probability-flow ODE, without noise.

    `srk.solve(process, score, solver, eta=0, x_init=solution.x, denoise_final=False)` with the same
    steps brings them back. The error of the round trip falls at the order of the solver.

    Arguments:
        process: a linear process with noise at t_min.
        score: the network, as for `srk.solve`.
        x: states at t_min, (batch, *event), in the dtype of the run; not modified. Data are such
            states up to the noise at t_min.
        solver: one of "ddim" (DDIM inversion), "heun", "dpm2", "dpm-solver-2" and "dpmpp-2m".
        steps, nfe: number of steps (default 50), or of network calls.
        grid: a fixed grid's name, a grid, or a list of times that decreases, as for `srk.solve`;
            its times are taken in the opposite order.

    Returns:
        A `Solution`; its `x` is at t_max, its `times` rise.

    Raises:
        IncompatibleError: the process is not linear or free of noise at t_min, the solver is
            another one, or the grid is not fixed.
        SolveError: the network returned something that is not finite.

    Source: Song et al. 2021, arXiv 2010.02502, section 4.3.

    Examples:
        >>> import torch, srk
        >>> vp, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> x = torch.full((2, 1), 0.6, dtype=torch.float64)
        >>> up = srk.invert(vp, target.score(vp), x, "heun", steps=50)
        >>> back = srk.solve(
        ...     vp,
        ...     target.score(vp),
        ...     "heun",
        ...     x_init=up.x,
        ...     steps=50,
        ...     denoise_final=False,
        ... )
        >>> bool((back.x - x).abs().max() < 0.01)
        True
    """
    given = process_given(process)
    validate(given)
    process = given.centred
    method = integrator(solver)
    if not isinstance(process, LinearProcess) or process.level(process.t_min).sigma == 0.0:
        raise IncompatibleError(
            "the ODE goes up from a state with noise under a linear process, and "
            f"{process!r} has none at t_min = {process.t_min!r}; build it with a larger t_min"
        )
    if method.name not in INVERTIBLE:
        raise IncompatibleError(
            f"the steps of {method.name!r} go down only; use solver='ddim', or one of "
            f"{', '.join(map(repr, INVERTIBLE))}"
        )
    method.check(process, 0.0)
    control = controller_given(grid, None, True)
    if not isinstance(control, Grid) or control.rises:
        raise IncompatibleError(
            f"an inversion needs a fixed grid that falls, not {control!r}; use grid='log-snr'"
        )
    prediction = bound_to(as_prediction(score), given)
    count = steps_given(process, method, control, steps, nfe, False, prediction.calls())
    times = grid_times(control, RunInfo(process, method, count, 0.0))[::-1]
    with torch.no_grad(), ordinary_tensors():
        state = state_given(x, None, prediction.event_shape).detach().clone().contiguous()
        state, prediction = hidden(prediction, state), placed(prediction, state)
    source = noise_source("generator", 0)
    source.start(state.shape, state.dtype, state.device)
    with torch.no_grad():
        solution, failed = go_up(process, prediction, method, times, state, source)
        solution = seen(prediction, attrs.evolve(solution, seed=None))
    if failed:
        raise SolveError(f"{solution.status}; the last finite state is in .solution.x", solution)
    return solution


def go_up(
    process: LinearProcess,
    prediction: Prediction,
    method: Integrator,
    times: Sequence[float],
    state: Tensor,
    source: NoiseSource,
    progress: bool = False,
) -> tuple[Solution, bool]:
    """A run along the ODE from data to noise, and whether it failed.

    Arguments:
        process, prediction: what is followed, and the network, bound to it.
        method: the solver.
        times: own times, rising.
        state: the state at the first, ours to overwrite.
        source: a started noise source; nothing is drawn.
        progress: show a progress bar.
    """
    job = Job(
        process=process,
        prediction=prediction,
        method=method,
        eta=0.0,
        label=method.name,
        denoise=False,
        progress=progress,
    )
    return run(job, plans_up(process, method, times), state, source)


def plans_up(process: LinearProcess, method: Integrator, times: Sequence[float]) -> list[StepPlan]:
    """The steps up, in order."""
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    levels = [process.level(t) for t in times]
    for index, (start, stop) in enumerate(pairwise(levels)):
        step = Step(process, start, stop, 0.0, index, notes, len(levels) - 1)
        plan = _to_noise(step) if math.isinf(stop.lam) else method.plan_step(step)
        notes = plan.notes
        plans.append(plan)
    return plans


def _to_noise(step: Step) -> StepPlan:
    """The step to alpha = 0, where the state is the noise that the denoiser leaves."""
    draft = step.draft()
    node = draft.evaluate(draft.state, step.start)
    noise = (node.x - node.value * step.start.alpha) / step.start.sigma
    return draft.finish(noise * step.stop.sigma)
