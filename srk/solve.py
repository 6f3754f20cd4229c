"""solve(): where network, noise and plan meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from srk.control import Grid, Problem, StepController, as_grid
from srk.control.grids import Times
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError, TimeError
from srk.integrators import Integrator, integrator
from srk.noise import NoiseSource, noise_source
from srk.planning import plan_grid
from srk.processes.base import ForwardProcess, LinearProcess
from srk.run import NotFinite, Run, StepInfo
from srk.scores import Prediction, as_prediction
from srk.solution import Solution
from srk.tableaus import StochasticTableau

DEFAULT_STEPS = 50


def solve(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    solver: str | Integrator | StochasticTableau = "srk2",
    *,
    shape: Sequence[int] | int | None = None,
    x_init: Tensor | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | StepController | Sequence[float] | Tensor | None = None,
    controller: str | StepController | None = None,
    eta: float | None = None,
    noise: str | NoiseSource | Callable[..., Any] | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    denoise_final: bool | None = None,
    save: str | Iterable[str] | None = None,
    callback: Callable[[StepInfo], bool | None] | None = None,
    progress: bool = False,
    on_failure: Literal["raise", "return"] = "raise",
) -> Solution:
    """Draw samples by reversing `process` with the network `score`.

    Arguments:
        process: the forward process, e.g. `srk.VP()`.
        score: a callable (x, t) -> score with x of shape (batch, *event) and t a (batch,) tensor of the process's own time; or an adapter around a network of
            another kind (`srk.Noise`, `srk.Data`, `srk.Velocity`, `srk.FlowVelocity`, `srk.EDMDenoiser`); or the exact score of a target.
        solver: a registered name (`srk.solvers()`), an integrator object with options, or a tableau.
        shape: (batch, *event) of the samples. Optional where the score knows its event shape: then an int is the batch, and the default is one sample.
        x_init: state to start from, (batch, *event), instead of a draw from the prior; it is not modified.
        steps: number of steps (default 50).
        nfe: number of network calls to spend instead, the final denoising included; the solver takes the steps that it buys. A guided prediction may
            make two or more calls for each evaluation, and pays for them here.
        grid: name of a grid (`srk.controllers()`), a decreasing list of own times, or a controller. Default "log-snr" for linear processes, else "uniform".
        controller: the same for step controllers that are not grids; give one of the two.
        eta: stochasticity; 1 is the reverse SDE, 0 the probability-flow ODE. Default: 1 where the solver is defined for it, else 0.
        noise: name of a noise source (`srk.noise()`), an `srk.noise.NoiseSource`, or a function (slot, clock, out) that draws; default "generator".
        seed: seed of the run; the global random state is never touched.
        device, dtype: of the samples; default those of `x_init`, else the CPU and float32.
        denoise_final: end with the denoised prediction at t_min, one more network call. Default: yes where the process has a denoiser.
        save: "x", "denoised" or both: keep the states after each step, or the denoised predictions.
        callback: called with a `StepInfo` after each accepted step; a true return value stops the run.
        progress: show a progress bar with step, NFE and time left.
        on_failure: what to do when the network returns something that is not finite: "raise" a `SolveError`, or "return" the
            solution, whose status says so. Both carry the last finite state.

    Returns:
        A `Solution`.

    Raises:
        ArgumentError, ArgumentTypeError, UnknownNameError, TimeError, IncompatibleError, ScoreError, SolveError: see `srk.errors`; each message names the cure.

    Examples:
        >>> import srk
        >>> process = srk.VP()
        >>> target = srk.targets.Gaussian(0.5, 0.04)
        >>> sol = srk.solve(process, target.score(process), "srk2m", shape=(4, 1), nfe=20, seed=0)
        >>> sol.x.shape, sol.nfe, sol.status
        (torch.Size([4, 1]), 20, 'done')
    """
    if not isinstance(process, ForwardProcess):
        raise ArgumentTypeError(f"process must be an srk.ForwardProcess such as srk.VP() or srk.process('vp'), not {process!r}")
    process.validate()
    if on_failure not in ("raise", "return"):
        raise ArgumentError(f"on_failure must be 'raise' or 'return', not {on_failure!r}")
    method = integrator(solver)
    eta = method.default_eta if eta is None else float(eta)
    method.check(process, eta)
    prediction = as_prediction(score).bind(process)
    linear = isinstance(process, LinearProcess)
    if denoise_final and not linear:
        raise IncompatibleError(f"denoise_final needs a denoiser, which {process!r} has not; leave denoise_final out")
    denoise = linear if denoise_final is None else bool(denoise_final)
    saves = _saves(save)

    x, source = _start(process, prediction, shape, x_init, noise, seed, device, dtype)
    control = _controller(grid, controller, linear)
    count = _steps(process, method, control, steps, nfe, denoise, prediction.calls())
    known = len(control.values) - 1 if isinstance(control, Times) else count
    label, method = method.label(process, eta, known), method.choose(process, eta, known)
    problem = Problem(process, method, count, eta, source, prediction, tuple(x.shape), x.device, x.dtype, source.seed)
    run = Run(process, prediction, method, eta, source, x, saves, callback, label)
    if isinstance(control, Grid):
        times = control.times(problem)
        if x_init is None and times[0] != process.t_max:
            raise TimeError(
                f"the grid starts at t = {times[0]!r}, below t_max = {process.t_max!r}, where the prior is not known; "
                "give the state there as x_init, or let the grid start at process.t_max"
            )
        plans = plan_grid(process, method, times, eta)
        source.prepare(plans)
        total: int | None = len(plans)
        drive: Callable[[Run], None] = lambda run: run.fixed(plans)  # noqa: E731
    else:
        total = None
        drive = lambda run: run.adaptive(control, problem)  # noqa: E731

    began = time.perf_counter()
    with torch.no_grad(), run.bar(total) if progress else nullcontext():
        try:
            drive(run)
            if denoise and run.status == "done" and run.level.sigma > 0:
                run.denoise()
            run.check_device()
        except NotFinite as failure:
            run.status = failure.message
    seconds = time.perf_counter() - began
    solution = run.solution(seconds)
    if run.failed and on_failure == "raise":
        raise SolveError(f"{solution.status}; the last finite state is in .solution.x (or use on_failure='return')", solution)
    return solution


def _saves(save: str | Iterable[str] | None) -> frozenset[str]:
    saves = frozenset([save] if isinstance(save, str) else save or ())
    unknown = saves - {"x", "denoised"}
    if unknown:
        raise ArgumentError(f"save must be 'x', 'denoised' or both, not {sorted(unknown)!r}")
    return saves


def _start(
    process: ForwardProcess,
    prediction: Prediction,
    shape: Sequence[int] | int | None,
    x_init: Tensor | None,
    noise: str | NoiseSource | Callable[..., Any] | None,
    seed: int | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[Tensor, NoiseSource]:
    """The initial state, ours to overwrite, and the started noise source."""
    source = noise_source(noise, seed)
    event = prediction.event_shape
    if x_init is not None:
        if not isinstance(x_init, Tensor) or not x_init.dtype.is_floating_point or x_init.ndim == 0:
            raise ArgumentTypeError("x_init must be a floating-point tensor of shape (batch, *event)")
        if shape is not None and _shape(shape, event) != tuple(x_init.shape):
            raise ArgumentError(f"shape={shape!r} contradicts x_init, whose shape is {tuple(x_init.shape)}; leave shape out")
        x = x_init.detach().to(device=device, dtype=dtype, copy=True).contiguous()
    else:
        if shape is None and event is None:
            raise ArgumentError(
                "neither shape nor x_init is given, and the score does not know its event shape; for example solve(..., shape=(16, 3, 32, 32))"
            )
        x = torch.empty(_shape(1 if shape is None else shape, event), device=device, dtype=dtype or torch.float32)
    if event is not None and tuple(x.shape[1:]) != tuple(event):
        raise ArgumentError(
            f"the samples would have event shape {tuple(x.shape[1:])}, but the score is for {tuple(event)}; use shape=(batch, *{tuple(event)})"
        )
    source.start(x.shape, x.dtype, x.device)
    if x_init is None:
        if isinstance(process, LinearProcess):
            source.prior(x)
            x.mul_(process.prior_std)
        else:
            # The process wants a generator of its own; its seed is a draw of the source, so that it shares no numbers with the path
            source.prior(x)
            bits = x.flatten()[:2].cpu().double().view(torch.int64).sum()
            generator = torch.Generator(x.device).manual_seed(int(bits) & (2**63 - 1))
            x.copy_(process.sample_prior(x.shape, generator=generator, device=x.device, dtype=x.dtype))
    return x, source


def _shape(shape: Sequence[int] | int, event: tuple[int, ...] | None) -> tuple[int, ...]:
    if isinstance(shape, int):
        if event is None:
            raise ArgumentError(
                f"shape={shape} is only a batch size, and the score does not know its event shape; for example shape=({shape}, 3, 32, 32)"
            )
        shape = (shape, *event)
    result = tuple(int(n) for n in shape)
    if not result or min(result) < 1:
        raise ArgumentError(f"shape must be (batch, *event) with positive sizes, not {shape!r}")
    return result


def _controller(grid: Any, controller: Any, linear: bool) -> StepController:
    if grid is not None and controller is not None:
        raise ArgumentError(f"grid={grid!r} and controller={controller!r} both say where the steps go; give one of them")
    chosen = grid if controller is None else controller
    made: StepController = as_grid(("log-snr" if linear else "uniform") if chosen is None else chosen)
    return made


def _steps(
    process: ForwardProcess, method: Integrator, control: StepController, steps: int | None, nfe: int | None, denoise: bool, calls: int = 1
) -> int | None:
    if steps is not None and nfe is not None:
        raise ArgumentError(
            f"steps={steps!r} and nfe={nfe!r} are alternatives: nfe is the number of network calls, of which {method.name} spends {method.evaluations_per_step} a step; give one"
        )
    for name, value in (("steps", steps), ("nfe", nfe)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ArgumentError(f"{name} must be a positive int, not {value!r}")
    if nfe is None:
        explicit = isinstance(control, Grid) and control.name == "times"
        return steps if steps is not None or explicit or not isinstance(control, Grid) else DEFAULT_STEPS
    left, extra = nfe // calls, 0
    if isinstance(process, LinearProcess):
        start, stop = process.level(process.t_max), process.level(process.t_min)
        if stop.sigma == 0.0:  # the last step is the denoiser: one call
            left, extra = left - 1, extra + 1
        elif denoise:
            left -= 1
        if start.alpha == 0.0 and not method.infinite_noise:  # the first step is exponential Euler: one call
            left, extra = left - 1, extra + 1
    count = method.steps(left) + extra
    if left < 0 or count < 1 + (extra > 1):
        raise ArgumentError(
            f"nfe={nfe} buys no step of {method.name}, which needs {method.evaluations(1)} calls for the first"
            + (" and one for the final denoising" if denoise else "")
            + (f", each of which is {calls} calls of the network (see Prediction.calls)" if calls > 1 else "")
        )
    return count


__all__ = ["StepInfo", "solve"]
