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

from srk._checks import choice, flag, integer
from srk._engine.resolution import resolution
from srk._engine.run import NotFinite, Run, StepInfo
from srk._engine.transitions import check_gaussian, transition_log_prob
from srk.errors import ArgumentError, IncompatibleError, SolveError, TimeError
from srk.integrators import Integrator, integrator
from srk.integrators.on_schedule import OnSchedule
from srk.noise import GeneratorNoise, NoiseSource, noise_source
from srk.plans.plan import StepPlan
from srk.processes.base import ForwardProcess
from srk.sampling.arguments import (
    autocast_given,
    batch_shape,
    callback_given,
    controller_given,
    device_given,
    dtype_given,
    eta_given,
    process_given,
    saves_given,
    state_given,
    steps_given,
)
from srk.sampling.planning import grid_times, plan_grid, validate
from srk.scores import Prediction, as_prediction
from srk.scores.conventions import watching
from srk.solution import Saved, Solution, join
from srk.steps import Grid, Problem, StepController
from srk.steps.grids import Times
from srk.tableaus import StochasticTableau

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
        check_network: warn where the first outputs of the network do not fit its adapter.
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
        check_network: bool = True,
    ) -> None:
        process = process_given(process)
        validate(process)
        method = integrator(solver)
        self.eta = eta_given(eta, method, process)
        linear = process.statistic is not None
        wanted = None if denoise_final is None else flag(denoise_final, "denoise_final")
        if wanted and not linear:
            raise IncompatibleError(
                f"denoise_final needs a denoiser, which {process!r} has not; leave denoise_final out"
            )
        if choice(calls, ("free", "schedule"), "calls") == "schedule":
            method = OnSchedule(method)
        self.process = process
        self.compile: Compile = choice(compile, (False, "step", "loop"), "compile")
        self.prediction = as_prediction(score).bind(process)
        self.denoise = linear if wanted is None else wanted
        self.autocast = autocast_given(autocast)
        self.check_network = flag(check_network, "check_network")
        self.control = controller_given(grid, controller, linear)
        self.steps = steps_given(
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
        self._plans: dict[float, list[StepPlan]] = {}
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
        on_failure = choice(on_failure, ("raise", "return"), "on_failure")
        grad = choice(grad, (False, True, "checkpoint"), "grad")
        progress = flag(progress, "progress")
        callback = callback_given(callback)
        saves = saves_given(save)
        device, dtype = device_given(device), dtype_given(dtype)
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
                        save=saves,
                        callback=callback,
                        progress=progress,
                        on_failure=on_failure,
                        grad=grad,
                    )
                )
            return join(solutions)
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
                    with watching(self.process, wanted=self.check_network and x_init is None):
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
        """The steps of a fixed grid as numbers, the final denoising left out.

        They are made once for each resolution of state and network.
        """
        given = problem or Problem(self.process, self.method, self.steps, self.eta)
        eps = resolution(given.dtype or torch.float64, self.autocast, self.prediction)
        if eps not in self._plans:
            if not isinstance(self.control, Grid):
                raise IncompatibleError(
                    f"{self.control!r} decides its steps as it goes; only a fixed grid has plans"
                )
            self._plans[eps] = plan_grid(
                self.process, self.method, grid_times(self.control, given), self.eta, eps
            )
        return self._plans[eps]

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
        plans = self.plans(
            Problem(self.process, self.method, self.steps, self.eta, dtype=saved.values.dtype)
        )
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
            x_init = state_given(x_init, shape, event)
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
            x = self.process.initial_state(x)
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
        size = integer(size, "microbatch", least=1)
        event = self.prediction.event_shape
        if x_init is not None:
            x_init = state_given(x_init, shape, event)
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


__all__ = ["Sampler"]
