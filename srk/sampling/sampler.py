"""The sampler: process, score, solver and grid made ready once, to draw from as often as one likes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from srk._engine.run import NotFinite, Run, StepInfo
from srk._engine.transitions import check_gaussian, transition_log_prob
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError, TimeError
from srk.integrators import Integrator, integrator
from srk.integrators.on_schedule import OnSchedule
from srk.noise import GeneratorNoise, NoiseSource, noise_source
from srk.plans.plan import StepPlan
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.phase import PhaseProcess, mix, statistic
from srk.sampling.planning import grid_times, plan_grid, validate
from srk.scores import Prediction, as_prediction
from srk.solution import Saved, Solution, join
from srk.steps import Grid, Problem, StepController, as_grid
from srk.steps.grids import Times
from srk.tableaus import StochasticTableau

DEFAULT_STEPS = 50
SAVES = {"x", "denoised", "log_prob"}
Gradient = Literal[False, True, "checkpoint"]
Compile = Literal[False, "step", "loop"]
Calls = Literal["free", "schedule"]


class Sampler:
    """A run made ready: checked, planned, and called for samples as often as one likes. `srk.solve` makes one and calls it once.

    Its arguments are those of `srk.solve` that say how samples are made; those of the call say which: see there.

    Arguments:
        process, score, solver: what is reversed, with which network, how.
        steps, nfe: number of steps, or of network calls.
        grid, controller: where the steps go.
        eta: stochasticity.
        denoise_final: end with the denoised prediction.
        autocast: dtype for `torch.autocast` around the network; the state keeps its own.
        calls: "free" lets the solver call the network where it likes; "schedule" at the times of
            the grid.
        compile: "step" compiles the arithmetic between two network calls; "loop" captures the whole run as a CUDA graph at the first call of a shape, and
            replays it afterwards: a sampler that is kept is where this pays.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> sampler = srk.Sampler(process, target.score(process), "srk2m", nfe=20)
        >>> [round(sampler(shape=(2, 1), seed=seed).x.sum().item(), 3) == 0 for seed in range(2)]
        [False, False]
    """

    def __init__(
        self,
        process: ForwardProcess,
        score: Prediction | Callable[..., Tensor],
        solver: str | Integrator | StochasticTableau = "srk2",
        *,
        steps: int | None = None,
        nfe: int | None = None,
        grid: str | StepController | Sequence[float] | Tensor | None = None,
        controller: str | StepController | None = None,
        eta: float | None = None,
        denoise_final: bool | None = None,
        autocast: torch.dtype | None = None,
        compile: Compile = False,
        calls: Calls = "free",
    ) -> None:
        if not isinstance(process, ForwardProcess):
            raise ArgumentTypeError(
                f"process must be an srk.ForwardProcess such as srk.VP() or srk.process('vp'), not {process!r}"
            )
        validate(process)
        method = integrator(solver)
        self.eta = method.default_eta if eta is None else float(eta)
        method.check(process, self.eta)
        linear = statistic(process) is not None
        if denoise_final and not linear:
            raise IncompatibleError(
                f"denoise_final needs a denoiser, which {process!r} has not; leave denoise_final out"
            )
        if autocast is not None and not (
            isinstance(autocast, torch.dtype) and autocast.is_floating_point
        ):
            raise ArgumentTypeError(
                f"autocast is a floating-point torch.dtype, not {autocast!r}; e.g. autocast=torch.bfloat16"
            )
        if compile not in (False, "step", "loop"):
            raise ArgumentError(f"compile must be False, 'step' or 'loop', not {compile!r}")
        if calls not in ("free", "schedule"):
            raise ArgumentError(f"calls must be 'free' or 'schedule', not {calls!r}")
        if calls == "schedule":
            method = OnSchedule(method)
        self.process = process
        self.compile = compile
        self.prediction = as_prediction(score).bind(process)
        self.denoise = linear if denoise_final is None else bool(denoise_final)
        self.autocast = autocast
        self.control = _controller(grid, controller, linear)
        self.steps = _steps(
            process, method, self.control, steps, nfe, self.denoise, self.prediction.calls()
        )
        known = len(self.control.values) - 1 if isinstance(self.control, Times) else self.steps
        self.label, self.method = (
            method.label(process, self.eta, known),
            method.choose(process, self.eta, known),
        )
        if calls == "schedule" and not isinstance(self.control, Grid):
            raise IncompatibleError(
                f"calls='schedule' needs a schedule, but {self.control!r} decides its steps as "
                "it goes; use grid='log-snr' or a list of times"
            )
        self._plans: list[StepPlan] | None = None
        self._graphs: dict[tuple[Any, ...], Any] = {}

    def __call__(
        self,
        shape: Sequence[int] | int | None = None,
        *,
        x_init: Tensor | None = None,
        noise: str | NoiseSource | Callable[..., Any] | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        save: str | Iterable[str] | None = None,
        callback: Callable[[StepInfo], bool | None] | None = None,
        progress: bool = False,
        on_failure: Literal["raise", "return"] = "raise",
        grad: Gradient = False,
        microbatch: int | None = None,
    ) -> Solution:
        """Draw samples; arguments, result and errors are those of `srk.solve`."""
        if on_failure not in ("raise", "return"):
            raise ArgumentError(f"on_failure must be 'raise' or 'return', not {on_failure!r}")
        if grad not in (False, True, "checkpoint"):
            raise ArgumentError(f"grad must be False, True or 'checkpoint', not {grad!r}")
        if grad and self.compile:
            raise IncompatibleError(
                f"compile={self.compile!r} writes into the buffers that gradients need; use compile=False with grad={grad!r}"
            )
        if microbatch is not None:
            parts = self._parts(microbatch, shape, x_init, noise, seed)
            solutions = []
            for sampler, arguments in parts:
                solutions.append(
                    sampler(
                        **arguments,
                        device=device,
                        dtype=dtype,
                        save=save,
                        callback=callback,
                        progress=progress,
                        on_failure=on_failure,
                        grad=grad,
                    )
                )
            return join(solutions)
        saves = _saves(save)
        x, source = self._start(shape, x_init, noise, seed, device, dtype, bool(grad))
        problem = Problem(
            process=self.process,
            solver=self.method,
            steps=self.steps,
            eta=self.eta,
            noise=source,
            score=self.prediction,
            shape=tuple(x.shape),
            device=x.device,
            dtype=x.dtype,
            autocast=self.autocast,
            seed=source.seed,
        )
        make = partial(
            Run,
            self.process,
            self.prediction,
            self.method,
            self.eta,
            saves=saves,
            callback=callback,
            label=self.label,
            autocast=self.autocast,
            grad=grad,
            compiled=self.compile == "step",
        )
        plans: list[StepPlan] | None = None
        if isinstance(self.control, Grid):
            plans = self.plans(problem)
            if x_init is None and plans[0].start.t != self.process.t_max:
                raise TimeError(
                    f"the grid starts at t = {plans[0].start.t!r}, below t_max = {self.process.t_max!r}, where the prior is not known; "
                    "give the state there as x_init, or let the grid start at process.t_max"
                )
            if "log_prob" in saves:
                check_gaussian(plans, self.label)
            source.prepare(plans)
        else:
            for wanted, what in (
                (self.compile, "compile"),
                (grad, "grad"),
                ("log_prob" in saves, "save='log_prob'"),
            ):
                if wanted:
                    raise IncompatibleError(
                        f"{what} needs a fixed grid: {self.control!r} decides its steps as it goes; use grid='log-snr'"
                    )

        def drive(run: Run) -> None:
            if plans is None:
                run.adaptive(self.control, problem)
            else:
                run.fixed(plans)
            if self.denoise and run.status == "done" and run.level.sigma > 0:
                run.denoise()

        began = time.perf_counter()
        if self.compile == "loop":
            run = self._captured(
                make,
                drive,
                x,
                source,
                drawn=x_init is None,
                watched=bool(saves or callback or progress),
            )
        else:
            run = make(source, x)
        with (
            torch.set_grad_enabled(bool(grad)),
            run.bar(None if plans is None else len(plans)) if progress else nullcontext(),
        ):
            try:
                if self.compile != "loop":
                    drive(run)
                run.check_device()
            except NotFinite as failure:
                run.status = failure.message
        solution = run.solution(time.perf_counter() - began)
        if run.failed and on_failure == "raise":
            raise SolveError(
                f"{solution.status}; the last finite state is in .solution.x (or use on_failure='return')",
                solution,
            )
        return solution

    def _captured(
        self,
        make: Callable[..., Run],
        drive: Callable[[Run], None],
        x: Tensor,
        source: NoiseSource,
        drawn: bool,
        watched: bool,
    ) -> Run:
        """The run as a replay of a CUDA graph, captured at the first call of a shape."""
        if x.device.type != "cuda":
            raise IncompatibleError(
                f"compile='loop' captures a CUDA graph, but the state is on {x.device}; use compile='step'"
            )
        if type(source) is not GeneratorNoise:
            raise IncompatibleError(
                f"compile='loop' draws inside the graph, which only noise='generator' can, not {source.name!r}; use compile='step'"
            )
        if watched:
            raise IncompatibleError(
                "compile='loop' runs without the host, which save, callback and progress need; leave them out, or use compile='step'"
            )
        from srk._engine.graphs import CapturedLoop

        place = (tuple(x.shape), x.dtype, x.device)
        if place not in self._graphs:
            self._graphs[place] = CapturedLoop(lambda state, noise: make(noise, state), drive, x)
        run: Run = self._graphs[place](x, source, drawn)
        return run

    def plans(self, problem: Problem | None = None) -> list[StepPlan]:
        """The steps of a fixed grid as numbers, the final denoising left out; made once."""
        if self._plans is None:
            if not isinstance(self.control, Grid):
                raise IncompatibleError(
                    f"{self.control!r} decides its steps as it goes; only a fixed grid has plans"
                )
            given = problem or Problem(self.process, self.method, self.steps, self.eta)
            self._plans = plan_grid(
                self.process, self.method, grid_times(self.control, given), self.eta
            )
        return self._plans

    def log_prob(self, trajectory: Saved | Solution) -> Saved:
        """Log-densities of the steps of a saved trajectory under this sampler's network, differentiable in its parameters.

        What policy gradients on samplers need: draw with `save="x"`, change the network, ask again. With the network that drew it, the
        numbers are those of `save="log_prob"`.

        Arguments:
            trajectory: states at the times of this sampler's grid, as `Solution.trajectory` holds them.

        Returns:
            Own times at the end of each step that draws noise, and log p(x_k+1 | x_k, ...) in nats, shape (steps, batch).

        Raises:
            IncompatibleError: the solver's step is not Gaussian given the state, or the grid is not fixed.
            ArgumentError: the trajectory was not saved, or has other times.
        """
        saved = trajectory.trajectory if isinstance(trajectory, Solution) else trajectory
        if saved is None:
            raise ArgumentError("the solution holds no trajectory; draw it with save='x'")
        plans = self.plans()
        check_gaussian(plans, self.label)
        return transition_log_prob(self.process, self.prediction, plans, saved)

    def __repr__(self) -> str:
        return f"Sampler({self.process!r}, {self.prediction!r}, {self.label!r}, steps={self.steps}, eta={self.eta:g}, grid={self.control!r})"

    def _start(
        self,
        shape: Sequence[int] | int | None,
        x_init: Tensor | None,
        noise: str | NoiseSource | Callable[..., Any] | None,
        seed: int | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        grad: bool,
    ) -> tuple[Tensor, NoiseSource]:
        """The initial state, ours to overwrite unless gradients flow, and the started noise source."""
        source = noise_source(noise, seed)
        event = self.prediction.event_shape
        if x_init is not None:
            _check_state(x_init, shape, event)
            x = (
                x_init.to(device=device, dtype=dtype)
                if grad
                else x_init.detach().to(device=device, dtype=dtype, copy=True)
            )
            x = x.contiguous()
        else:
            x = torch.empty(batch_shape(shape, event), device=device, dtype=dtype or torch.float32)
        if event is not None and tuple(x.shape[1:]) != tuple(event):
            raise ArgumentError(
                f"the samples would have event shape {tuple(x.shape[1:])}, but the score is for {tuple(event)}; use shape=(batch, *{tuple(event)})"
            )
        source.start(x.shape, x.dtype, x.device)
        if x_init is None:
            source.prior(x)
            if isinstance(self.process, LinearProcess):
                x.mul_(self.process.prior_std)
            elif isinstance(self.process, PhaseProcess):
                self.process.check_shape(x.shape)
                x.copy_(mix(self.process.prior_factor, x))
            else:
                # The process wants a generator of its own; its seed is a draw of the source, so that it shares no numbers with the path
                bits = x.flatten()[:2].cpu().double().view(torch.int64).sum()
                generator = torch.Generator(x.device).manual_seed(int(bits) & (2**63 - 1))
                x.copy_(
                    self.process.sample_prior(
                        x.shape, generator=generator, device=x.device, dtype=x.dtype
                    )
                )
        return x, source

    def _parts(
        self,
        size: int,
        shape: Sequence[int] | int | None,
        x_init: Tensor | None,
        noise: str | NoiseSource | Callable[..., Any] | None,
        seed: int | None,
    ) -> list[tuple[Sampler, dict[str, Any]]]:
        """The batch cut into pieces of at most `size` samples: samplers whose conditions are those of the piece, and the arguments of their calls."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"microbatch must be a positive int, not {size!r}")
        event = self.prediction.event_shape
        if x_init is not None:
            _check_state(x_init, shape, event)
        whole = tuple(x_init.shape) if x_init is not None else batch_shape(shape, event)
        source = noise_source("keyed" if noise is None else noise, seed)
        parts: list[tuple[Sampler, dict[str, Any]]] = []
        for first in range(0, whole[0], size):
            count = min(size, whole[0] - first)
            piece = copy.copy(self)
            piece._graphs = {}  # a graph holds its own conditions
            piece.prediction = self.prediction.select(slice(first, first + count), whole[0])
            where = (
                {"shape": (count, *whole[1:])}
                if x_init is None
                else {"x_init": x_init[first : first + count]}
            )
            parts.append((piece, {**where, "noise": source.part(first, count)}))
        return parts


def _check_state(
    x_init: object, shape: Sequence[int] | int | None, event: tuple[int, ...] | None
) -> None:
    if not isinstance(x_init, Tensor) or not x_init.dtype.is_floating_point or x_init.ndim == 0:
        raise ArgumentTypeError("x_init must be a floating-point tensor of shape (batch, *event)")
    if shape is not None and _shape(shape, event) != tuple(x_init.shape):
        raise ArgumentError(
            f"shape={shape!r} contradicts x_init, whose shape is {tuple(x_init.shape)}; leave shape out"
        )


def batch_shape(
    shape: Sequence[int] | int | None, event: tuple[int, ...] | None
) -> tuple[int, ...]:
    if shape is None and event is None:
        raise ArgumentError(
            "neither shape nor x_init is given, and the score does not know its event shape; for example solve(..., shape=(16, 3, 32, 32))"
        )
    return _shape(1 if shape is None else shape, event)


def _saves(save: str | Iterable[str] | None) -> frozenset[str]:
    saves = frozenset([save] if isinstance(save, str) else save or ())
    unknown = saves - SAVES
    if unknown:
        raise ArgumentError(
            f"save must be 'x', 'denoised', 'log_prob' or several of them, not {sorted(unknown)!r}"
        )
    return saves


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
        raise ArgumentError(
            f"grid={grid!r} and controller={controller!r} both say where the steps go; give one of them"
        )
    chosen = grid if controller is None else controller
    made: StepController = as_grid(
        ("log-snr" if linear else "uniform") if chosen is None else chosen
    )
    return made


def _steps(
    process: ForwardProcess,
    method: Integrator,
    control: StepController,
    steps: int | None,
    nfe: int | None,
    denoise: bool,
    calls: int = 1,
) -> int | None:
    if steps is not None and nfe is not None:
        raise ArgumentError(
            f"steps={steps!r} and nfe={nfe!r} are alternatives: nfe is the number of network calls, of which {method.name} spends {method.evaluations_per_step} a step; give one"
        )
    for name, value in (("steps", steps), ("nfe", nfe)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ArgumentError(f"{name} must be a positive int, not {value!r}")
    if nfe is None:
        explicit = isinstance(control, Grid) and control.name == "times"
        return (
            steps
            if steps is not None or explicit or not isinstance(control, Grid)
            else DEFAULT_STEPS
        )
    left, extra = nfe // calls, 0
    if statistic(process) is not None:
        start, stop = process.level(process.t_max), process.level(process.t_min)
        if stop.sigma == 0.0:  # the last step is the denoiser: one call
            left, extra = left - 1, extra + 1
        elif denoise:
            left -= 1
        if (
            start.alpha == 0.0 and not method.infinite_noise
        ):  # the first step is exponential Euler: one call
            left, extra = left - 1, extra + 1
    count = method.steps(left) + extra
    if left < 0 or count < 1 + (extra > 1):
        raise ArgumentError(
            f"nfe={nfe} buys no step of {method.name}, which needs {method.evaluations(1)} calls for the first"
            + (" and one for the final denoising" if denoise else "")
            + (
                f", each of which is {calls} calls of the network (see Prediction.calls)"
                if calls > 1
                else ""
            )
        )
    return count


__all__ = ["Sampler"]
