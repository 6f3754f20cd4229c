"""A run of several parts: the steps of all parts are taken together, stage by stage.

Each part has plans, a state, noise and a record of its own, as in a run of that part alone. What
the parts share is the network: stage i of a step is evaluated for all parts in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from srk._engine.changes import StateChanges
from srk._engine.density import log_density
from srk._engine.eager import Executor, Stepper
from srk._engine.network import folded
from srk._engine.retract import executor_for
from srk._engine.run import Job, Run
from srk._engine.together import Part, ProductCallback, Together, Turn
from srk.errors import ArgumentError, IncompatibleError
from srk.noise import NoiseSource, ZeroNoise
from srk.plans.plan import StepPlan
from srk.processes.base import Level
from srk.scores.joint import BoundPrediction
from srk.solution import ProductSolution, Saved


class PartRun(Part):
    """The run of one part: its plans in order, the final denoising included.

    Arguments:
        job: what to do.
        plans: the steps.
        x: the state at the start, ours to overwrite unless gradients flow.
        source: a started noise source.
        level: the noise level at the start, where there may be no steps; None for that of the
            first step.
        moves: for each step of the run whether the part takes a step of its own; None for always. A
            part that does not move is seen by the network all the same.
        written: whether a callback may write to the state between two steps.
    """

    def __init__(
        self,
        job: Job,
        plans: Sequence[StepPlan],
        x: Tensor,
        source: NoiseSource,
        level: Level | None = None,
        moves: Sequence[bool] | None = None,
        written: bool = False,
    ) -> None:
        super().__init__(Run(job, plans, x), source)
        self.written = written
        self.level = plans[0].start if level is None else level
        self.plans = [*plans]
        self.last: StepPlan | None = None
        self.memory: Sequence[Tensor] = ()
        """What the last step kept for the next."""
        self.ends: Iterator[Tensor] | None = None
        """Where each step leads instead of where its outcome does."""
        self.pauses = True
        """Whether it waits for the other parts at the end of each step, not of the last alone."""
        self.steps = len(plans)
        self.order: list[int | None] = [*range(self.steps)]
        """For each step of the run which of its own the part takes; None for none."""
        self.rests = moves is not None and not all(moves)
        """Whether there is a step of the run in which it takes none."""
        if moves is not None:
            number = iter(range(self.steps))
            self.order = [next(number) if moved else None for moved in moves]
        if plans and job.denoise and plans[-1].stop.sigma > 0:
            self.last = job.method.final_step(job.process, plans[-1].stop, job.eta, self.steps)
            self.plans.append(self.last)
            self.order.append(self.steps)
        self.changes = StateChanges(job.hooks, source) if job.hooks else None
        self.prepared = [*self.run.network.prepare_all(self.plans[: self.steps], x)]
        self.executor = self._executor(x)
        self.executor.prepare(self.prepared, x.dtype)
        self.density: Tensor | None = None
        """The log-density of the last step, where it was asked for and the step draws noise."""

    def _executor(self, x: Tensor) -> Stepper:
        """What takes the steps of states like `x`."""
        run, job = self.run, self.run.job
        if job.compiled and run.results is None:
            from srk._engine.compiled import CompiledExecutor

            place = tuple(x.shape), x.dtype, x.device
            # A callback or a hook may change the state, so the next step's first stage must wait.
            joined = () if job.hooks or self.written else self.prepared
            return CompiledExecutor(run.network, self.source, place, joined)
        # A log-density needs the state before the step.
        reuse = not job.grad and run.results is None
        return executor_for(job.process, run.network, self.source, reuse=reuse)

    def start(self) -> None:
        """Look at the state before the first step."""
        self.begin(self.level)

    @property
    def levels(self) -> list[Level]:
        """Where the network is asked, in order."""
        return [stage.level for plan in self.prepared for stage in plan.stages]

    def take_turns(self) -> Turn:
        """The steps to come, each driven together with those of the other parts, then accepted."""
        run, executor = self.run, self.executor
        network, recorder, results = run.network, run.recorder, run.results
        count, watch, changes, ends = network.count, run.watch, self.changes, self.ends
        memory = self.memory
        for plan in self.prepared[recorder.accepted :]:
            x = recorder.x
            if changes is not None:
                x = changes(x, plan.start, recorder.accepted)
            before = None if results is None else (plan, x, memory)
            state, memory, _ = yield from executor.walk(plan, x, memory)
            if ends is not None:
                state = next(ends)
            if before is not None and results is not None:
                told, self.density = results.take(), None
                if plan.slots and "log_prob" in run.job.saves:
                    self.density = log_density(*before, told, state)
                    recorder.density(plan.stop.t, self.density)
            if not watch.immediate:
                watch.keep(state)
            self.denoised = first = network.first
            recorder.accept(plan.stop, state, plan.asked, first, count.calls)
            network.begin(recorder.accepted)
            self.memory = memory
            if recorder.accepted == self.steps:
                watch.state(state, recorder.level.t)
            if self.pauses:
                yield None
        if self.last is None:
            if not self.pauses:
                yield None
            return
        # The final denoising: its plan belongs to the run alone, so that nothing remembers it or
        # listens to its results.
        plan = folded(self.last, network.prediction, remember=False)
        reuse = not run.job.grad and results is None
        final = Executor(network, self.source, reuse=reuse, remember=False)
        x = recorder.x
        if changes is not None:
            x = changes(x, plan.start, self.steps)
        self.ask = network
        state, _, _ = yield from final.walk(plan, x)
        recorder.finish(state)
        watch.keep(state)
        watch.state(state, recorder.level.t)
        yield None


class PartReplay(PartRun):
    """A part that goes through saved states again, for the log-densities of its steps.

    Arguments:
        name: the part, for messages.
        job: what to do.
        plans: the steps.
        saved: the states at their ends.
        level, moves: as of `PartRun`.
    """

    def __init__(
        self,
        name: str,
        job: Job,
        plans: Sequence[StepPlan],
        saved: Saved,
        level: Level | None = None,
        moves: Sequence[bool] | None = None,
    ) -> None:
        first = plans[0].start.t if level is None else level.t
        times = (first, *(plan.stop.t for plan in plans))
        if saved.times != times:
            raise ArgumentError(
                f"the trajectory of the part {name!r} has {len(saved.times)} states from t = "
                f"{saved.times[0]:g} to {saved.times[-1]:g}, which are not the {len(times)} times "
                "of this sampler; use the same process, solver, grid and number of steps"
            )
        source = ZeroNoise()
        source.start(saved.values[0].shape, saved.values.dtype, saved.values.device)
        super().__init__(job, plans, saved.values[0].clone(), source, level, moves)
        # a network that writes to its input is told so, but what was saved stays as it is
        self.ends = (state.clone() for state in saved.values[1:])


def check_lockstep(parts: Mapping[str, PartRun]) -> None:
    """Raise `IncompatibleError` unless the parts make as many evaluations in each of their steps.

    A part that does not move in a step is not asked.
    """
    (first, known), *others = parts.items()
    for name, other in others:
        if len(known.order) != len(other.order):
            raise IncompatibleError(
                f"the part {first!r} makes {len(known.order)} steps and the part {name!r} makes "
                f"{len(other.order)}, the final denoising included, but the parts of a product are "
                "evaluated together; give a number of network calls, e.g. nfe=20, or steps by "
                f"part, e.g. steps={{{first!r}: 20, {name!r}: 21}}"
            )
    if not any(part.rests for part in parts.values()):
        calls = [len(plan.stages) for plan in known.plans]
        if all([len(plan.stages) for plan in other.plans] == calls for _, other in others):
            return
    for index in range(len(known.order)):
        counts = {
            name: part.plans[number].evaluations
            for name, part in parts.items()
            if (number := part.order[index]) is not None
        }
        if len(set(counts.values())) > 1:
            one, *rest = counts
            two = next(name for name in rest if counts[name] != counts[one])
            raise IncompatibleError(
                f"step {index} has {counts[one]} evaluations in the part {one!r} and "
                f"{counts[two]} in the part {two!r}, but they are evaluated together; use a "
                "solver with one evaluation a step, such as 'srk2m' or 'dpmpp-2m', or begin and "
                "end everywhere with noise, e.g. srk.Flow(t_min=0.001, t_max=0.999)"
            )


class Lockstep(Together):
    """The parts of a run, which take their steps together.

    Arguments:
        parts: the run of each part, whose plans `check_lockstep` has accepted.
        prediction: what is known of all parts.
        autocast: dtype for `torch.autocast` around the network.
        visit: told the number of steps that are taken, at the start and after each step; a true
            return value ends the run.
        callback: told of each step; a true return value ends the run.
    """

    def __init__(
        self,
        parts: Mapping[str, PartRun],
        prediction: BoundPrediction,
        autocast: torch.dtype | None = None,
        visit: Callable[[int], bool] | None = None,
        callback: ProductCallback | None = None,
    ) -> None:
        super().__init__(parts, prediction, autocast, callback)
        self.runs, self.visit = parts, visit
        self._turns: dict[str, Turn] = {}
        alike: dict[tuple[object, ...], Executor] = {}
        for part in parts.values():
            executor, x = part.executor, part.run.recorder.x
            if isinstance(executor, Executor):
                executor.share(alike.setdefault((x.shape, x.dtype, x.device), executor))

    def go(self) -> None:
        """Take all steps. `NotFinite` says which part cannot go on."""
        for name, part in self.runs.items():
            self._of(name, part.start)
        self.prediction.prepare(
            {name: part.levels for name, part in self.runs.items()},
            {name: part.run.recorder.x for name, part in self.runs.items()},
        )
        resting = any(part.rests for part in self.runs.values())
        if self.visit is None and self.callback is None and not resting:
            # Nobody looks at the parts between two steps: each does what it can between two calls,
            # so that its states stay in the processor's cache.
            for part in self.runs.values():
                part.pauses = False
            self.take(self.runs.keys())
        else:
            self._step_by_step()
        self.settle()

    def _step_by_step(self) -> None:
        """Take all steps, and tell of each."""
        if self.visit is not None:
            self.visit(0)
        for index, moving in enumerate(self._steps()):
            self.take(moving)
            if self.visit is not None and self.visit(index + 1):
                self.status = "stopped"
                break
            if self.callback is None:
                continue
            numbers = {name: self.runs[name].order[index] for name in moving}
            last = all(number == self.runs[name].steps for name, number in numbers.items())
            if not last and self.stops(index):  # the last one is the final denoising
                break

    def _steps(self) -> Iterator[Collection[str]]:
        """The parts that take a step of their own in each step of the run."""
        everybody = self.runs.keys()
        for numbers in zip(*(part.order for part in self.runs.values()), strict=True):
            if None in numbers:
                pairs = zip(everybody, numbers, strict=True)
                yield [name for name, number in pairs if number is not None]
            else:
                yield everybody

    def take(self, moving: Collection[str]) -> None:
        """Take these parts to where they pause: a step."""
        turns = self._turns
        if len(turns) < len(self.runs):
            for name, part in self.runs.items():
                turns.setdefault(name, part.take_turns())
        self.drive(turns if len(moving) == len(turns) else {name: turns[name] for name in moving})

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes the parts up where they are between two steps.
        return {**self.__dict__, "_turns": {}}

    def enter(self, name: str) -> None:
        """There is another part of that name among the parts, which begins with its first step."""
        self._turns.pop(name, None)


def run_product(
    parts: Mapping[str, PartRun],
    prediction: BoundPrediction,
    *,
    seed: int | None,
    grad: bool = False,
    autocast: torch.dtype | None = None,
    callback: ProductCallback | None = None,
    progress: bool = False,
) -> tuple[ProductSolution, bool]:
    """Take the parts to their ends: the solution, and whether the run failed.

    Arguments:
        parts: the run of each part.
        prediction: what is known of all parts.
        seed: the seed of the run, which its solution tells.
        grad: whether gradients flow through the run.
        autocast: dtype for `torch.autocast` around the network.
        callback: told of each step; a true return value ends the run.
        progress: whether to show a progress bar.
    """
    lockstep = Lockstep(parts, prediction, autocast, None, callback)
    longest = max(parts.values(), key=lambda part: part.steps)
    bar = longest.run.recorder.bar(" + ".join(parts)) if progress else nullcontext()
    return lockstep.finish(lockstep.go, seed, grad, bar)


def replay(
    parts: Mapping[str, PartReplay],
    prediction: BoundPrediction,
    autocast: torch.dtype | None = None,
) -> dict[str, Saved]:
    """The log-densities of the steps of saved parts, differentiable in the network's parameters.

    Arguments:
        parts: the saved states of each part.
        prediction: what is known of all parts.
        autocast: dtype for `torch.autocast` around the network.
    """
    rounds = max(len(part.order) for part in parts.values())
    for part in parts.values():
        part.order += [None] * (rounds - len(part.order))
    Lockstep(parts, prediction, autocast).go()
    densities = {name: part.run.recorder.saved()[2] for name, part in parts.items()}
    return {name: density for name, density in densities.items() if density is not None}
