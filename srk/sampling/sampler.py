"""The sampler.

Process, score, solver and grid made ready once, to draw from as often as one likes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from srk._checks import choice, flag, integer
from srk._engine.density import check_gaussian, input_log_prob, transition_log_prob
from srk._engine.finite import Watch
from srk._engine.network import Network
from srk._engine.recorder import StepInfo
from srk._engine.resolution import resolution
from srk._engine.run import Controlled, Job, Route, run
from srk._modes import ordinary_tensors
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError, TimeError
from srk.eta import Eta
from srk.integrators import Integrator, integrator
from srk.integrators.on_schedule import OnSchedule
from srk.noise import NoiseSource, noise_source
from srk.plans.plan import StepPlan, without_noise
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.manifold import retraction
from srk.processes.product import Product
from srk.sampling.arguments import (
    autocast_given,
    batch_shape,
    callback_given,
    controller_given,
    device_given,
    dtype_given,
    eta_given,
    hooks_given,
    process_given,
    saves_given,
    state_given,
    steps_given,
)
from srk.sampling.complex_states import ComplexRun, complex_dtype, pairs_of
from srk.sampling.pilot import calibrated, check_guidance, measured
from srk.sampling.planning import plan_run, validate
from srk.scores import Prediction, as_prediction
from srk.scores.centred import bound_to, hidden, hidden_each, placed, seen, told
from srk.scores.conventions import watching
from srk.scores.hooks import Hook, selected, with_hooks
from srk.scores.pairs import paired, paired_change
from srk.scores.state_hook_base import StateHook, changes_state
from srk.solution import Saved, Solution, join
from srk.steps import Budget, Grid, Levels, Profile, RunInfo, StepController
from srk.steps.picard import Picard
from srk.tableaus import StochasticTableau

if TYPE_CHECKING:
    from srk._engine.cuda_graph import Loops

Gradient = Literal[False, True, "checkpoint"]
Compile = Literal[False, "step", "loop"]
Calls = Literal["free", "schedule"]


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
        self.given = process_given(process)
        validate(self.given)
        process = self.given.centred  # what solvers reverse
        method = integrator(solver)
        self.eta: Any = eta_given(eta, method, process)
        constant = isinstance(self.eta, float)
        # what stands for all steps where one number has to
        self._eta: float = self.eta if constant else method.default_eta
        linear = process.statistic is not None
        self.mean = isinstance(denoise_final, str) and denoise_final == "mean"
        given: Any = False if self.mean else denoise_final
        wanted = None if given is None else flag(given, "denoise_final")
        if wanted and not linear:
            raise IncompatibleError(
                f"denoise_final needs a denoiser, which {process!r} has not; leave "
                "denoise_final out"
            )
        if profile is not None:
            where = controller if grid is None else grid
            method, fitted = calibrated(profile, method, where, self.given, self._eta)
            grid, controller = (fitted, None) if fitted is not where else (grid, controller)
        if choice(calls, ("free", "schedule"), "calls") == "schedule":
            method = OnSchedule(method)
        self.process = process
        self.compile: Compile = choice(compile, (False, "step", "loop"), "compile")
        given_hooks = hooks_given(hooks)
        self.hooks: tuple[StateHook, ...] = tuple(filter(changes_state, given_hooks))
        if self.hooks and not isinstance(self.given, LinearProcess):
            raise IncompatibleError(
                f"the hook {self.hooks[0]!r} changes the state before each step, which needs a "
                f"linear process, not {self.given!r}"
            )
        self.prediction = bound_to(with_hooks(as_prediction(score), given_hooks), self.given)
        if profile is not None:
            check_guidance(profile, self.prediction, process)
        self.denoise = linear if wanted is None else wanted
        self.autocast = autocast_given(autocast)
        self.check_network = flag(check_network, "check_network")
        self._looked = False  # whether a run has looked at the outputs of the network
        self.control = controller_given(grid, controller, linear)
        self.steps = steps_given(
            process, method, self.control, steps, nfe, self.denoise, self.prediction.calls()
        )
        own = self.control.own_steps if isinstance(self.control, Grid) else None
        known = self.steps if own is None else own
        self.label, self.method = method.name, method
        if constant:
            self.label = method.label(process, self.eta, known)
            self.method = method.choose(process, self.eta, known)
        elif calls == "schedule":
            raise IncompatibleError(
                "calls='schedule' places the steps for one eta of the whole run, but eta changes "
                "from step to step; give one number, or leave out calls='schedule'"
            )
        if calls == "schedule" and not isinstance(self.control, Grid):
            raise IncompatibleError(
                f"calls='schedule' needs a schedule, but {self.control!r} decides its steps as "
                "it goes; use grid='log-snr' or a list of times"
            )
        self.parallel = self._parallel_given(parallel)
        if retraction(process) is not None:
            self._check_moved()
        self._profiles: dict[Hashable, Budget] = {}
        self._loops: Loops | None = None
        self._pairs: tuple[Prediction, Sampler] | None = None
        self._last: tuple[StepPlan, StepPlan] | None = None  # a last step, and that without noise

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
        kind = complex_dtype(dtype, x_init)
        if kind is not None:
            given = ComplexRun(kind)
            given.check(self.process)
            run_pairs = partial(
                self._on_pairs().__call__,
                given.shape(shape),
                x_init=given.state(x_init),
                noise=noise,
                seed=seed,
                device=device,
                dtype=given.real,
                save=save,
                callback=given.callback(callback_given(callback)),
                progress=progress,
                on_failure=on_failure,
                grad=grad,
                microbatch=microbatch,
            )
            try:
                return given.solution(run_pairs())
            except SolveError as error:
                raise SolveError(str(error), given.solution(error.solution)) from None
        # Check what was asked for.
        if self.parallel is not None:
            if grad:
                raise IncompatibleError(
                    f"grad={grad!r} has no meaning with parallel=: the steps are iterated until "
                    "they no longer change, and gradients would go through every round; use "
                    "parallel=None"
                )
            noise = "keyed" if noise is None else noise
        on_failure = choice(on_failure, ("raise", "return"), "on_failure")
        grad = choice(grad, (False, True, "checkpoint"), "grad")
        progress = flag(progress, "progress")
        callback = callback_given(callback)
        saves = saves_given(save)
        device, dtype = device_given(device), dtype_given(dtype)
        self._check_grad(grad, x_init)
        if microbatch is not None:
            whole = self._piloted(shape, x_init, device, dtype)
            parts = whole._parts(microbatch, shape, x_init, noise, seed)
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
            return join([run_part(sampler, **arguments) for sampler, arguments in parts])
        with ordinary_tensors():
            x, source = self._start(shape, x_init, noise, seed, device, dtype, bool(grad))
        self.method.check_shape(x.shape)
        prediction = placed(self.prediction, x)

        # Plan.
        problem = self._problem(x, source)
        route, etas = self._route(problem, given=x_init is not None, grad=grad, saves=saves)
        if not isinstance(route, Controlled):
            source.prepare(route)

        # Run.
        job = Job(
            process=self.process,
            prediction=prediction,
            method=self.method,
            eta=self._eta,
            etas=etas,
            label=self.label,
            denoise=self.denoise,
            autocast=self.autocast,
            compiled=self.compile == "step",
            grad=grad,
            saves=saves,
            callback=told(prediction, callback),
            progress=progress,
            parallel=self.parallel,
            hooks=self.hooks,
        )
        drawn = x_init is None
        if self.compile == "loop":
            solution, failed = self._captured(job, route, x, source, drawn)
        else:
            look = self.check_network and drawn and not self._looked
            with watching(self.given, wanted=look):
                solution, failed = run(job, route, x, source)
            self._looked = self._looked or look
        with torch.set_grad_enabled(bool(grad)):
            solution = seen(prediction, solution)
        if failed and on_failure == "raise":
            state = "last finite state" if bool(solution.x.isfinite().all()) else "state"
            raise SolveError(
                f"{solution.status}; the {state} is in .solution.x (or use on_failure='return')",
                solution,
            )
        return solution

    def _on_pairs(self) -> Sampler:
        """This sampler for the pairs of complex states, kept for the next call."""
        known = self._pairs
        if known is None or known[0] is not self.prediction:
            made = copy.copy(self)
            made._pairs, made._loops, made._profiles = None, None, {}
            made.prediction = paired(self.prediction)
            made.hooks = tuple(map(paired_change, self.hooks))
            self._pairs = known = self.prediction, made
        return known[1]

    def _parallel_given(self, parallel: object) -> Picard | None:
        """`parallel`, if it is a `Picard` that this sampler can follow."""
        if parallel is None:
            return None
        if not isinstance(parallel, Picard):
            raise ArgumentTypeError(
                "parallel is a srk.Picard or None, not "
                f"{parallel!r}; e.g. parallel=srk.Picard(window=32, tolerance=1e-3)"
            )
        if self.compile:
            raise IncompatibleError(
                f"compile={self.compile!r} makes kernels for one step after the other, but "
                "parallel= takes many at once; leave one of the two out"
            )
        if not isinstance(self.control, Grid):
            raise IncompatibleError(
                f"parallel= needs a fixed grid: {self.control!r} decides its steps as it goes; "
                "use grid='log-snr'"
            )
        return parallel

    def _check_moved(self) -> None:
        """Raise if something that was asked for adds up states, which a retraction forbids."""
        asked = {
            "compile": self.compile,
            "parallel": self.parallel,
            "an adaptive grid": not isinstance(self.control, Grid),
        }
        for what, given in asked.items():
            if given:
                raise IncompatibleError(
                    f"{what} is not for {self.process!r}: it adds and subtracts states, but those "
                    "of this process are moved by increments; leave it out and use a fixed grid"
                )

    def _check_grad(self, grad: Gradient, x_init: Tensor | None) -> None:
        """Raise if gradients cannot flow as `grad` wants."""
        if grad and self.compile:
            raise IncompatibleError(
                f"compile={self.compile!r} writes into the buffers that gradients need; use "
                f"compile=False with grad={grad!r}"
            )
        inference = isinstance(x_init, Tensor) and x_init.is_inference()
        if grad and (torch.is_inference_mode_enabled() or inference):
            raise IncompatibleError(
                f"grad={grad!r} records what torch.inference_mode forgets: leave that mode, and "
                "give a clone of an x_init that was made in it"
            )

    def _problem(self, x: Tensor, source: NoiseSource) -> RunInfo:
        """What a controller may know of the run from the state `x` with this noise."""
        return RunInfo(
            process=self.process,
            solver=self.method,
            steps=self.steps,
            eta=self._eta,
            noise=source,
            score=self.prediction,
            shape=tuple(x.shape),
            device=x.device,
            dtype=x.dtype,
            autocast=self.autocast,
            seed=source.seed,
        )

    def _route(
        self, problem: RunInfo, *, given: bool, grad: Gradient, saves: frozenset[str]
    ) -> tuple[Route, tuple[float, ...]]:
        """The planned steps of a run and the eta of each, or its controller.

        Arguments:
            problem: what a controller may know.
            given: whether the state at the start is the caller's.
            grad, saves: as in the call; both need planned steps.
        """
        if not isinstance(self.control, Grid):
            for wanted, what in (
                (self.compile, "compile"),
                (grad, "grad"),
                ("log_prob" in saves, "save='log_prob'"),
                ("inputs" in saves, "save='inputs'"),
                (not isinstance(self.eta, float), "eta by level"),
                (self.mean, "denoise_final='mean'"),
                (self.hooks, "a hook that changes the state"),
            ):
                if wanted:
                    raise IncompatibleError(
                        f"{what} needs a fixed grid: {self.control!r} decides its steps as it "
                        "goes; use grid='log-snr'"
                    )
            return Controlled(self.control, problem), (self._eta,)
        plans, etas = self._planned(problem)
        if not given and plans[0].start.t != self.process.t_max:
            raise TimeError(
                f"the grid starts at t = {plans[0].start.t!r}, below t_max = "
                f"{self.process.t_max!r}, where the prior is not known; give the state there as "
                "x_init, or let the grid start at process.t_max"
            )
        if "inputs" in saves and (self.parallel is not None or grad == "checkpoint"):
            raise IncompatibleError(
                "save='inputs' keeps the network's inputs in the order of the calls; leave out "
                "parallel= and grad='checkpoint'"
            )
        if "log_prob" in saves:
            self._check_density()
            check_gaussian(plans, self.label)
        if self.hooks and any(plan.keep for plan in plans):
            raise IncompatibleError(
                f"{self.label} keeps what the network said in earlier steps, but the hook "
                f"{self.hooks[0]!r} changes the state between steps, so that both would not fit "
                "together; use a solver of single steps, such as 'boltz2', 'edm-heun', 'srk2s' or "
                "'ddpm'"
            )
        return plans, etas

    def _check_density(self) -> None:
        """Raise if hooks change the state between the steps, or a step is not Gaussian."""
        if retraction(self.process) is not None:
            raise IncompatibleError(
                f"a step of {self.process!r} moves the state by a Gaussian increment, but the "
                "state after it is not Gaussian, and its density is not known here; leave out "
                "log_prob"
            )
        if self.hooks:
            raise IncompatibleError(
                f"the hook {self.hooks[0]!r} changes the state before each step at random, so that "
                "the states of a trajectory alone do not say what a step began from; log-densities "
                "need a run without it"
            )

    def _captured(
        self, job: Job, route: Route, x: Tensor, source: NoiseSource, drawn: bool
    ) -> tuple[Solution, bool]:
        """The run as a replay of a CUDA graph, captured at the first call of a shape."""
        from srk._engine.cuda_graph import Loops

        assert not isinstance(route, Controlled)
        if self._loops is None:
            self._loops = Loops()
        return self._loops(job, route, x, source, drawn)

    def __getstate__(self) -> dict[str, Any]:
        # A captured graph belongs to its device and its network's memory: a copy captures again.
        return {**self.__dict__, "_loops": None}

    def plans(self, problem: RunInfo | None = None) -> list[StepPlan]:
        """The steps of a fixed grid as numbers, the final denoising left out.

        They are made once for each value of process, solver, grid and resolution of the run; those
        of a process whose numbers are learned are made at every call.
        """
        return self._planned(problem)[0]

    def _planned(self, problem: RunInfo | None = None) -> tuple[list[StepPlan], tuple[float, ...]]:
        """The steps of a fixed grid as numbers, and the eta of each."""
        if not isinstance(self.control, Grid):
            raise IncompatibleError(
                f"{self.control!r} decides its steps as it goes; only a fixed grid has plans"
            )
        given = problem or RunInfo(self.process, self.method, self.steps, self._eta)
        eps = resolution(given.dtype or torch.float64, self.autocast, self.prediction)
        plans, etas = plan_run(self._measured(self.control, given), given, self.eta, eps)
        if self.mean:
            last = self._last
            if last is None or last[0] is not plans[-1]:
                self._last = last = plans[-1], without_noise(plans[-1])
            plans[-1] = last[1]
        return plans, etas

    def _measured(self, grid: Grid, info: RunInfo) -> Grid:
        """The grid, with the profile that it lacks measured once for each kind of state."""
        if not isinstance(grid, Budget) or grid.profile is not None:
            return grid
        if info.shape is None:  # whatever was measured, if anything was
            return next(iter(self._profiles.values()), grid)
        score = self.prediction if info.score is None else info.score
        kind = id(score), info.shape, info.device, info.dtype
        known = self._profiles.get(kind)
        if known is None:
            assert info.device is not None
            assert info.dtype is not None
            known = measured(
                grid,
                Sampler,
                self.process,
                score,
                info.shape,
                device=info.device,
                dtype=info.dtype,
                autocast=self.autocast,
            )
            if score is self.prediction:
                self._profiles[kind] = known
        return known

    def _piloted(
        self,
        shape: Sequence[int] | int | None,
        x_init: Tensor | None,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> Sampler:
        """This sampler, with a grid that is the same for all pieces of a batch."""
        if not isinstance(self.control, Grid):
            return self
        size: tuple[int, ...]
        if isinstance(x_init, Tensor):
            size, place, kind = tuple(x_init.shape), x_init.device, x_init.dtype
        else:
            size = batch_shape(shape, self.prediction.event_shape)
            place, kind = torch.empty(0).device, torch.float32
        info = RunInfo(
            self.process,
            self.method,
            self.steps,
            self._eta,
            shape=size,
            device=device or place,
            dtype=dtype or kind,
        )
        whole = copy.copy(self)
        whole.control = self._measured(self.control, info)
        return whole

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
        whole = isinstance(trajectory, Solution)
        saved = trajectory.trajectory if isinstance(trajectory, Solution) else trajectory
        inputs = trajectory.inputs if isinstance(trajectory, Solution) else None
        if saved is None:
            with_inputs = " or save=('x', 'inputs')" if whole else ""
            raise ArgumentError(
                f"the solution holds no trajectory; draw it with save='x'{with_inputs}"
            )
        if samples is not None:
            rows = torch.arange(saved.values.shape[1], device=saved.values.device)[samples]
            part = copy.copy(self)
            part.prediction = self.prediction.select(rows, saved.values.shape[1])
            given = Saved(saved.times, saved.values[:, rows])
            if inputs is not None:
                inputs = Saved(inputs.times, inputs.values[:, rows])
            return part._density(given, inputs)
        return self._density(saved, inputs)

    def _density(self, saved: Saved, inputs: Saved | None) -> Saved:
        """The log-densities of states, or where they are given of the network's inputs."""
        if saved.values.is_complex():
            given = pairs_of(saved)
            density = self._on_pairs()._density(given, None if inputs is None else pairs_of(inputs))
            return ComplexRun(saved.values.dtype).density(density, given.values[0])
        plans = self.plans(
            RunInfo(self.process, self.method, self.steps, self._eta, dtype=saved.values.dtype)
        )
        self._check_density()
        if inputs is None:
            check_gaussian(plans, self.label)
        watch = Watch(saved.values[0])
        prediction = placed(self.prediction, saved.values[0])
        network = Network(prediction, self.process, self._eta, watch, autocast=self.autocast)
        saved = hidden_each(prediction, saved)
        if inputs is not None:
            return input_log_prob(network, plans, saved, hidden_each(prediction, inputs))
        return transition_log_prob(network, plans, saved)

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
            f"Sampler({self.given!r}, {self.prediction!r}, {self.label!r}, steps={self.steps}, "
            f"eta={eta}, grid={self.control!r})"
        )

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
        """The initial state, ours to overwrite unless gradients flow, and the started noise
        source.
        """
        source = noise_source(noise, seed)
        event = self.prediction.event_shape
        if x_init is not None:
            x_init = state_given(x_init, shape, event)
            x = (
                x_init.to(device=device, dtype=dtype)
                if grad
                else x_init.detach().to(device=device, dtype=dtype, copy=True)
            )
            with torch.set_grad_enabled(grad):
                x = hidden(self.prediction, x.contiguous())
        else:
            x = torch.empty(batch_shape(shape, event), device=device, dtype=dtype or torch.float32)
        if event is not None and tuple(x.shape[1:]) != tuple(event):
            raise ArgumentError(
                f"the samples would have event shape {tuple(x.shape[1:])}, but the score is "
                f"for {tuple(event)}; use shape=(batch, *{tuple(event)})"
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
        """The batch cut into pieces of at most `size` samples.

        Samplers whose conditions are those of the piece, and the arguments of their calls.
        """
        size = integer(size, "microbatch", least=1)
        event = self.prediction.event_shape
        if x_init is not None:
            x_init = state_given(x_init, shape, event)
        whole = tuple(x_init.shape) if x_init is not None else batch_shape(shape, event)
        self.method.check_shape((size, *whole[1:]), cut=True)
        source = noise_source("keyed" if noise is None else noise, seed)
        parts: list[tuple[Sampler, dict[str, Any]]] = []
        for first in range(0, whole[0], size):
            count = min(size, whole[0] - first)
            piece = copy.copy(self)
            piece._loops = None  # a graph holds its own conditions
            rows = slice(first, first + count)
            piece.prediction = self.prediction.select(rows, whole[0])
            piece.hooks = selected(self.hooks, rows, whole[0])
            where = (
                {"shape": (count, *whole[1:])}
                if x_init is None
                else {"x_init": x_init[first : first + count]}
            )
            parts.append((piece, {**where, "noise": source.part(first, count)}))
        return parts


__all__ = ["Sampler"]
