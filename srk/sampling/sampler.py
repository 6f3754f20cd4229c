"""The sampler.

Process, score, solver and grid made ready once, to draw from as often as one likes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import choice, flag
from srk._engine.recorder import StepInfo
from srk._engine.run import Controlled, Job, Route, run
from srk._modes import ordinary_tensors
from srk.errors import IncompatibleError, SolveError
from srk.eta import Eta
from srk.integrators import Integrator
from srk.noise import NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.base import ForwardProcess
from srk.processes.product import Product
from srk.sampling.arguments import callback_given, device_given, dtype_given, saves_given
from srk.sampling.compatible import Gradient, check_grad, check_unrolled
from srk.sampling.complex_states import ComplexRun, complex_dtype, pairs_of
from srk.sampling.densities import log_prob, saved_states
from srk.sampling.pieces import pieces
from srk.sampling.planner import Planned, Planner
from srk.sampling.settings import Calls, Compile, Settings, settings_given
from srk.sampling.start import start
from srk.scores import Prediction
from srk.scores.centred import placed, seen, told
from srk.scores.conventions import watching
from srk.scores.hooks import Hook
from srk.scores.pairs import paired, paired_change
from srk.solution import Saved, Solution, join
from srk.steps import Levels, Profile, RunInfo, StepController
from srk.steps.picard import Picard
from srk.tableaus import StochasticTableau

if TYPE_CHECKING:
    from srk._engine.cuda_graph import Loops


class Sampler:
    """A run made ready: checked, planned, and called for samples as often as one likes. `srk.solve`
    makes one and calls it once.

    Its arguments are those of `srk.solve` that say how samples are made; those of the call say
    which: see there. Of an `srk.Product` it makes an `srk.ProductSampler`, of a grid of
    `srk.Levels` an `srk.LevelsSampler`.

    Arguments:
        process, score, solver: what is reversed, with which network, how.
        steps, nfe: number of steps, or of network calls.
        grid: where the steps go.
        controller: the old name of `grid`.
        profile: what `srk.calibrate` measured of the network; it places the steps and tells `auto`
            the variance of the data.
        eta: stochasticity: a number, a function of the level, a list, or a rule of `srk.eta`.
        denoise_final: end with the denoised prediction; "mean" ends with a step without its noise.
        autocast: dtype for `torch.autocast` around the network; the state keeps its own.
        calls: "free" lets the solver call the network where it likes; "schedule" at the times of
            the grid.
        parallel: a `srk.Picard` takes many steps at once.
        check_network: warn where the first outputs of the network do not fit its adapter.
        hooks: what acts on the denoised prediction, or on the state before each step.
        compile: "step" compiles the arithmetic between two network calls; "loop" captures the whole
            run as a CUDA graph at the first call of a shape, and replays it afterwards: a sampler
            that is kept is where this pays.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> sampler = srk.Sampler(process, target.score(process), "srk2m", nfe=20)
        >>> [round(sampler(shape=(2, 1), seed=seed).x.sum().item(), 3) == 0 for seed in range(2)]
        [False, False]
    """

    of_product: ClassVar[type[Any] | None] = None
    """What is made of a product; the module of products says it."""

    of_levels: ClassVar[type[Any] | None] = None
    """What is made of a grid of `Levels`; the module of levels says it."""

    def __new__(cls, process: Any = None, *args: Any, **options: Any) -> Any:
        if isinstance(process, Product) and cls is Sampler and cls.of_product is not None:
            return cls.of_product(process, *args, **options)
        levels = isinstance(options.get("grid"), Levels)
        if levels and cls is Sampler and cls.of_levels is not None:
            return cls.of_levels(process, *args, **options)
        return super().__new__(cls)

    def __init__(
        self,
        process: ForwardProcess,
        score: Prediction | Callable[..., Tensor],
        solver: str | Integrator | StochasticTableau = "auto",
        *,
        steps: int | None = None,
        nfe: int | None = None,
        grid: str | StepController | Levels | Sequence[float] | Tensor | None = None,
        controller: str | StepController | None = None,
        profile: Profile | None = None,
        eta: Eta | None = None,
        denoise_final: bool | Literal["mean"] | None = None,
        autocast: torch.dtype | None = None,
        compile: Compile = False,
        calls: Calls = "free",
        parallel: Picard | None = None,
        check_network: bool = True,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.settings = settings_given(
            process,
            score,
            solver,
            steps=steps,
            nfe=nfe,
            grid=grid,
            controller=controller,
            profile=profile,
            eta=eta,
            denoise_final=denoise_final,
            autocast=autocast,
            compile=compile,
            calls=calls,
            parallel=parallel,
            check_network=check_network,
            hooks=hooks,
        )
        self._planner = Planner(Sampler)
        self._looked = False  # whether a run has looked at the outputs of the network
        self._loops: Loops | None = None
        self._pairs: tuple[Settings, Sampler] | None = None

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
        settings = self.settings
        kind = complex_dtype(dtype, x_init)
        if kind is not None:
            return ComplexRun(kind).solved(
                settings.process,
                self._on_pairs().__call__,
                shape,
                x_init,
                callback_given(callback),
                noise=noise,
                seed=seed,
                device=device,
                save=save,
                progress=progress,
                on_failure=on_failure,
                grad=grad,
                microbatch=microbatch,
            )
        # Check what was asked for.
        if settings.parallel is not None:
            check_unrolled(grad)
            noise = "keyed" if noise is None else noise
        on_failure = choice(on_failure, ("raise", "return"), "on_failure")
        grad = choice(grad, (False, True, "checkpoint"), "grad")
        progress = flag(progress, "progress")
        callback = callback_given(callback)
        saves = saves_given(save)
        device, dtype = device_given(device), dtype_given(dtype)
        check_grad(grad, settings.compile, x_init)
        if microbatch is not None:
            whole = self._planner.piloted(settings, shape, x_init, device, dtype)
            run_part = partial(
                Sampler.__call__,
                device=device,
                dtype=dtype,
                save=saves,
                callback=callback,
                progress=progress,
                on_failure=on_failure,
                grad=grad,
            )
            parts = pieces(whole, microbatch, shape, x_init, noise, seed)
            return join([run_part(self._with(part), **arguments) for part, arguments in parts])
        with ordinary_tensors():
            x, source = start(settings, shape, x_init, noise, seed, device, dtype, bool(grad))
        settings.method.check_shape(x.shape)
        prediction = settings.prediction
        around = settings.process is not settings.given  # a mean
        if around:
            prediction = placed(prediction, x)
            callback = told(prediction, callback)

        # Plan.
        drawn = x_init is None
        problem = settings.problem(x, source)
        route, etas = self._route(problem, given=not drawn, grad=grad, saves=saves)
        if not isinstance(route, Controlled):
            source.prepare(route)

        # Run.
        job = settings.job(
            etas,
            prediction=prediction,
            grad=grad,
            saves=saves,
            callback=callback,
            progress=progress,
        )
        if settings.compile == "loop":
            solution, failed = self._captured(job, route, x, source, drawn)
        else:
            look = settings.check_network and drawn and not self._looked
            if look:
                with watching(settings.given):
                    solution, failed = run(job, route, x, source)
                self._looked = True
            else:
                solution, failed = run(job, route, x, source)
        if around:
            with torch.set_grad_enabled(bool(grad)):
                solution = seen(prediction, solution)
        if failed and on_failure == "raise":
            state = "last finite state" if bool(solution.x.isfinite().all()) else "state"
            raise SolveError(
                f"{solution.status}; the {state} is in .solution.x (or use on_failure='return')",
                solution,
            )
        return solution

    def _captured(
        self, job: Job, route: Route, x: Tensor, source: NoiseSource, drawn: bool
    ) -> tuple[Solution, bool]:
        """The run as a replay of a CUDA graph, captured at the first call of a shape."""
        from srk._engine.cuda_graph import Loops

        assert not isinstance(route, Controlled)
        if self._loops is None:
            self._loops = Loops()
        return self._loops(job, route, x, source, drawn)

    def _with(self, settings: Settings | None = None, **changes: Any) -> Sampler:
        """This sampler with other settings, or with some that are changed."""
        made = copy.copy(self)
        made.settings = attrs.evolve(self.settings if settings is None else settings, **changes)
        made._loops, made._pairs = None, None  # a graph holds its own conditions
        return made

    def _on_pairs(self) -> Sampler:
        """This sampler for the pairs of complex states, kept for the next call."""
        known = self._pairs
        if known is None or known[0] is not self.settings:
            settings = self.settings
            hooks = tuple(map(paired_change, settings.hooks))
            made = self._with(prediction=paired(settings.prediction), hooks=hooks)
            made._planner = Planner(Sampler)
            self._pairs = known = settings, made
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        # A captured graph belongs to its device and its network's memory: a copy captures again.
        return {**self.__dict__, "_loops": None}

    def plans(self, problem: RunInfo | None = None) -> list[StepPlan]:
        """The steps of a fixed grid as numbers, the final denoising left out.

        They are made once for each value of process, solver, grid and resolution of the run; those
        of a process whose numbers are learned are made at every call.
        """
        return [*self._planned(problem)[0]]

    def log_prob(
        self, trajectory: Saved | Solution, *, samples: slice | Sequence[int] | Tensor | None = None
    ) -> Saved:
        """Log-densities of a saved run under this sampler's network, differentiable in its
        parameters.

        What policy gradients on samplers need: draw with `save="x"`, change the network, ask again.
        With the network that drew it, the numbers are those of `save="log_prob"`.

        Solvers whose draws enter an input of the network (`srk2`, `srk2m`, most Runge-Kutta
        methods) have no density of a state given the one before. Draw with
        `save=("x", "inputs")` for these: what the network saw has one, input by input, and its sum
        is the log-density of all inputs and of the result.

        The graph of all steps is kept until it is differentiated. Where it does not fit, take some
        `samples` at a time and add up the gradients:

            for rows in torch.arange(64).split(8):
                loss(sampler.log_prob(sol, samples=rows), rows).backward()
            optimizer.step()

        Arguments:
            trajectory: a solution, or the states at the times of this sampler's grid, as
                `Solution.trajectory` holds them.
            samples: which samples of the batch; conditions of the network are cut alike.

        Returns:
            Own times at the end of each step that draws noise, and log p(x_k+1 | x_k, ...) in nats,
            shape (steps, batch); or with inputs their times, and the log-density of each that
            brings new noise given all before it.

        Raises:
            IncompatibleError: the solver's step is not Gaussian given the state and no inputs were
                saved, or the grid is not fixed.
            ArgumentError: the trajectory was not saved, or has other times.
        """
        saved, inputs = saved_states(trajectory)
        if not saved.values.is_complex():
            return log_prob(self.settings, self._planner, saved, inputs, samples)
        sampler, states = self._on_pairs(), pairs_of(saved)
        asked = None if inputs is None else pairs_of(inputs)
        found = log_prob(sampler.settings, sampler._planner, states, asked, samples)
        return ComplexRun(saved.values.dtype).density(found, states.values[0])

    def one_eta(self, what: str) -> float:
        """The stochasticity as one number, for `what`, which can do with no other."""
        if not isinstance(self.eta, float):
            raise IncompatibleError(
                f"{what} takes one eta for the whole run, not {self.eta!r}; give a number"
            )
        return self.eta

    def __repr__(self) -> str:
        eta = f"{self.eta:g}" if isinstance(self.eta, float) else repr(self.eta)
        return (
            f"Sampler({self.settings.given!r}, {self.prediction!r}, {self.label!r}, "
            f"steps={self.steps}, eta={eta}, grid={self.control!r})"
        )

    @property
    def process(self) -> ForwardProcess:
        """What the solver reverses: the process, of one around a mean that of the rest."""
        return self.settings.process

    @property
    def prediction(self) -> Prediction:
        """What the network says, bound to the process; another may be put in its place."""
        return self.settings.prediction

    @prediction.setter
    def prediction(self, prediction: Prediction) -> None:
        self.settings = attrs.evolve(self.settings, prediction=prediction)

    @property
    def method(self) -> Integrator:
        """The solver that plans the steps."""
        return self.settings.method

    @property
    def label(self) -> str:
        """What solutions call the solver."""
        return self.settings.label

    @property
    def eta(self) -> Any:
        """The stochasticity: a number, a tuple with one a step, a function or a rule."""
        return self.settings.eta

    @property
    def steps(self) -> int | None:
        """The number of steps; None where the grid or controller knows it."""
        return self.settings.steps

    @property
    def control(self) -> StepController:
        """The grid, or the controller that decides the steps as a run goes."""
        return self.settings.control

    def _route(
        self, problem: RunInfo, *, given: bool, grad: Gradient, saves: frozenset[str]
    ) -> tuple[Route, tuple[float, ...]]:
        """As `Planner.route` with these settings."""
        return self._planner.route(self.settings, problem, given=given, grad=grad, saves=saves)

    def _planned(self, problem: RunInfo | None = None) -> Planned:
        """As `Planner.planned` with these settings."""
        return self._planner.planned(self.settings, problem)


__all__ = ["Sampler"]
