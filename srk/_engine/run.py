"""One run, from the state at the start to a `Solution`: puts the parts together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import attrs
import torch
from torch import Tensor

from srk._engine.adaptive import AdaptiveRun
from srk._engine.changes import StateChanges
from srk._engine.density import Results
from srk._engine.eager import Evaluate, Executor
from srk._engine.finite import NotFinite, Watch
from srk._engine.fixed import Checkpointed, TakeStep, run_fixed
from srk._engine.network import Network
from srk._engine.parallel import ParallelRun
from srk._engine.recorder import Callback, Recorder, stacked
from srk._engine.retract import executor_for
from srk._modes import ordinary
from srk.integrators.base import Integrator
from srk.noise.base import NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.base import ForwardProcess
from srk.scores import Prediction, StateHook
from srk.solution import Solution
from srk.steps import RunInfo, StepController
from srk.steps.picard import Picard


@attrs.frozen
class Controlled:
    """Steps that a controller decides as the run goes."""

    control: StepController
    problem: RunInfo


Route = Sequence[StepPlan] | Controlled
"""Where a run goes: over steps that are planned already, or as a controller decides."""


@attrs.frozen(slots=False)  # made at every call, which takes half the time without slots
class Job:
    """What a run is to do.

    Arguments:
        process, prediction, method, eta: what is reversed, with which bound prediction, how.
        label: what the solution calls the solver.
        etas: the stochasticity of each step of a fixed grid.
        denoise: whether the run ends with the denoised prediction where noise is left.
        autocast: dtype for `torch.autocast` around the network.
        compiled: whether the arithmetic between two network calls is compiled.
        grad: whether gradients flow through the run, or are recomputed ("checkpoint").
        saves: what to keep along the way: "x", "denoised", "log_prob", "inputs" or several.
        callback: told of each accepted step.
        progress: whether to show a progress bar.
        parallel: how many steps are taken at once; None for one after the other.
        hooks: what changes the state before each step of a fixed grid.
    """

    process: ForwardProcess
    prediction: Prediction
    method: Integrator
    eta: float
    label: str
    etas: tuple[float, ...] = ()
    denoise: bool = True
    autocast: torch.dtype | None = None
    compiled: bool = False
    grad: bool | Literal["checkpoint"] = False
    saves: frozenset[str] = frozenset()
    callback: Callback | None = None
    progress: bool = False
    parallel: Picard | None = None
    hooks: tuple[StateHook, ...] = ()


class Run:
    """The parts of one run, and the way from its start to its end.

    Arguments:
        job: what to do.
        route: where it goes.
        x: the state at the start, ours to overwrite unless gradients flow.
    """

    def __init__(self, job: Job, route: Route, x: Tensor) -> None:
        self.job, self.route = job, route
        self.rounds: int | None = None
        self.results: Results | None = None
        total = None if isinstance(route, Controlled) else len(route)
        self.recorder = Recorder(x, job.saves, job.callback, total)
        self.watch = Watch(x)
        self.network = Network(
            job.prediction,
            job.process,
            job.eta,
            self.watch,
            autocast=job.autocast,
            records=self.recorder.wants_denoised,
        )

    def go(self, source: NoiseSource) -> None:
        """Take all steps with draws of the started `source`."""
        job, recorder = self.job, self.recorder
        start = job.process.t_max if isinstance(self.route, Controlled) else self.route[0].start.t
        self.watch.state(recorder.x, start)
        if job.parallel is not None:
            assert not isinstance(self.route, Controlled)
            self._at_once(job.parallel, self.route, source)
            return
        if isinstance(self.route, Controlled):
            loop = AdaptiveRun(
                job.process, job.method, job.eta, self.network, self.watch, recorder, source
            )
            loop.go(self.route.control, self.route.problem)
        else:
            self._fixed(self.route, source)
        self.watch.state(recorder.x, recorder.level.t)
        if job.denoise and recorder.status == "done" and recorder.level.sigma > 0:
            plan = job.method.final_step(job.process, recorder.level, job.eta, recorder.accepted)
            executor = Executor(self.network, source, reuse=not job.grad, remember=False)
            step = self._hooked(executor.run, source)
            recorder.finish(step(self.network.prepare(plan), recorder.x, ()).state)
            self.watch.keep(recorder.x)
            self.watch.state(recorder.x, recorder.level.t)

    def _at_once(self, options: Picard, plans: Sequence[StepPlan], source: NoiseSource) -> None:
        job, recorder = self.job, self.recorder
        end = plans[-1].stop
        final = job.denoise and end.sigma > 0
        if final:
            plans = [*plans, job.method.final_step(job.process, end, job.eta, len(plans))]
        densities = "log_prob" in job.saves
        made = ParallelRun(
            plans, final, self.network, recorder, source, options, densities, job.hooks
        )
        try:
            made.go()
        finally:
            self.rounds = made.rounds
        self.watch.keep(recorder.x)
        self.watch.state(recorder.x, recorder.level.t)

    def _fixed(self, plans: Sequence[StepPlan], source: NoiseSource) -> None:
        job, network, x = self.job, self.network, self.recorder.x
        prepared = network.prepare_all(plans, x)
        results = None
        if job.saves & {"log_prob", "inputs"}:
            results = self.results = Results(network, inputs="inputs" in job.saves)
        evaluate: Evaluate = network if results is None else results
        step: TakeStep
        if job.grad == "checkpoint":
            step = Checkpointed(evaluate, network, source)
        elif job.compiled and results is None:
            from srk._engine.compiled import CompiledExecutor

            place = tuple(x.shape), x.dtype, x.device
            # A callback or a hook may change the state, so the next step's first stage must wait.
            joined = prepared if job.callback is None and not job.hooks else ()
            step = CompiledExecutor(evaluate, source, place, joined).run
        else:
            # A log-density needs the state before the step.
            reuse = not job.grad and results is None
            executor = executor_for(job.process, evaluate, source, reuse=reuse)
            executor.prepare(prepared, x.dtype)
            step = executor.run
        step = self._hooked(step, source)
        densities = results if "log_prob" in job.saves else None
        run_fixed(prepared, step, network, self.watch, self.recorder, densities)

    def _hooked(self, step: TakeStep, source: NoiseSource) -> TakeStep:
        """The step with what hooks do to the state before it."""
        if not self.job.hooks:
            return step
        return StateChanges(self.job.hooks, source).around(step, lambda: self.recorder.accepted)

    def solution(self, status: str, seed: int | None, seconds: float) -> Solution:
        """What came out of it."""
        job, recorder, count = self.job, self.recorder, self.network.count
        trajectory, denoised, log_prob = recorder.saved()
        return Solution(
            x=ordinary(recorder.x),
            status=status,
            nfe=count.calls,
            mean_nfe=count.work,
            steps=recorder.accepted,
            rejected=recorder.rejected,
            times=tuple(recorder.times),
            solver=job.label,
            eta=_ran(job),
            seed=seed,
            seconds=seconds,
            score_seconds=count.seconds,
            trajectory=trajectory,
            denoised=denoised,
            log_prob=log_prob,
            inputs=None if self.results is None else stacked(self.results.inputs),
            rounds=self.rounds,
        )


def _ran(job: Job) -> float | tuple[float, ...]:
    """The eta of the run: a number, or where it changed one number a step."""
    if not job.etas:
        return job.eta
    return job.etas[0] if len(set(job.etas)) == 1 else job.etas


@contextmanager
def casts_kept() -> Iterator[None]:
    """Weights that `torch.autocast` casts in here are cast once.

    Autocast drops its casts where the outermost of its contexts ends; this counts as one, and
    switches nothing on.
    """
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


def run(job: Job, route: Route, x: Tensor, source: NoiseSource) -> tuple[Solution, bool]:
    """Run a job from the state `x` with the started `source`.

    The solution, and whether it failed.
    """
    began = time.perf_counter()
    made = Run(job, route, x)
    # What a callback or a gradient may change between two calls is cast at every call.
    once = job.autocast is not None and job.callback is None and not job.grad
    with torch.set_grad_enabled(bool(job.grad)):
        if not once and not job.progress:
            return finish(made, lambda: made.go(source), source.seed, began)
        bar = made.recorder.bar(job.method.name) if job.progress else nullcontext()
        with bar, casts_kept() if once else nullcontext():
            return finish(made, lambda: made.go(source), source.seed, began)


def finish(
    made: Run, go: Callable[[], None], seed: int | None, began: float
) -> tuple[Solution, bool]:
    """The solution of a run that `go` takes to its end, and whether it failed."""
    failed = False
    status = None
    try:
        go()
        made.watch.settle(made.recorder.x)
    except NotFinite as failure:
        failed, status = True, failure.status
        if made.watch.last is not None:
            made.recorder.x = made.watch.last
    solution = made.solution(status or made.recorder.status, seed, time.perf_counter() - began)
    return solution, failed
