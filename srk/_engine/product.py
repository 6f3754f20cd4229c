"""A run of several parts: the steps of all parts are taken together, stage by stage.

Each part has plans, a state, noise and a record of its own, as in a run of that part alone. What
the parts share is the network: stage i of a step is evaluated for all parts in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from srk._engine.changes import StateChanges
from srk._engine.density import log_density
from srk._engine.eager import Executor, Outcome, Walk
from srk._engine.finite import NotFinite
from srk._engine.network import folded
from srk._engine.retract import executor_for
from srk._engine.run import Job, Run
from srk._engine.together import Part, ProductCallback, Together, blamed
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
    """

    def __init__(
        self,
        job: Job,
        plans: Sequence[StepPlan],
        x: Tensor,
        source: NoiseSource,
        level: Level | None = None,
        moves: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(Run(job, plans, x), source)
        self.level = plans[0].start if level is None else level
        self.plans = [*plans]
        self.steps = len(plans)
        number = iter(range(self.steps))
        moving = [True] * self.steps if moves is None else moves
        self.order = [next(number) if moved else None for moved in moving]
        if plans and job.denoise and plans[-1].stop.sigma > 0:
            last = job.method.final_step(job.process, plans[-1].stop, job.eta, self.steps)
            self.plans.append(last)
            self.order.append(self.steps)
        # A log-density needs the state before the step.
        reuse = not job.grad and self.run.results is None
        self.executor = executor_for(job.process, self.run.network, source, reuse=reuse)
        self.changes = StateChanges(job.hooks, source) if job.hooks else None
        self.prepared = [*self.run.network.prepare_all(self.plans[: self.steps], x)]
        self.executor.prepare(self.prepared, x.dtype)
        self.density: Tensor | None = None
        """The log-density of the last step, where it was asked for and the step draws noise."""
        self._memory: Sequence[Tensor] = ()
        self._before: tuple[StepPlan, Tensor, Sequence[Tensor]] | None = None

    def start(self) -> None:
        """Look at the state before the first step."""
        self.begin(self.level)

    @property
    def levels(self) -> list[Level]:
        """Where the network is asked, in order."""
        return [stage.level for plan in self.prepared for stage in plan.stages]

    def walk(self, index: int) -> Walk:
        """The step of that number, to be driven together with those of the other parts."""
        if index == self.steps:
            return self._last()
        plan, x = self.prepared[index], self.run.recorder.x
        if self.changes is not None:
            x = self.changes(x, plan.start, index)
        if self.run.results is not None:
            self._before = plan, x, self._memory
        return self.executor.walk(plan, x, self._memory)

    def _last(self) -> Walk:
        """The final denoising, whose plan belongs to the run alone, so that nothing remembers it
        or listens to its results.
        """
        self._look()
        run, executor = self.run, self.executor
        last = Executor(executor.evaluate, executor.noise, reuse=executor.reuse, remember=False)
        plan, x = folded(self.plans[-1], run.network.prediction, remember=False), run.recorder.x
        if self.changes is not None:
            x = self.changes(x, plan.start, self.steps)
        self.ask = run.network
        return last.walk(plan, x)

    def accept(self, index: int, outcome: Outcome) -> None:
        """The step of that number counts."""
        run, plan = self.run, self.plans[index]
        if index == self.steps:
            run.recorder.finish(outcome.state)
            run.watch.keep(run.recorder.x)
        else:
            if run.results is not None:
                told, self.density = run.results.take(), None
                if self._before is not None and plan.slots and "log_prob" in run.job.saves:
                    self.density = log_density(*self._before, told, outcome.state)
                    run.recorder.density(plan.stop.t, self.density)
            self.take(plan.stop, outcome.state, plan.asked)
            self._memory = outcome.keep
        if index + 1 == len(self.plans):
            self._look()

    def _look(self) -> None:
        self.run.watch.state(self.run.recorder.x, self.run.recorder.level.t)


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
        self.saved = saved

    def accept(self, index: int, outcome: Outcome) -> None:
        """The step of that number leads to the saved state."""
        # a network that writes to its input is told so, but what was saved stays as it is
        state = self.saved.values[index + 1].clone()
        super().accept(index, outcome._replace(state=state))


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

    def go(self) -> None:
        """Take all steps. `NotFinite` says which part cannot go on."""
        for name, part in self.runs.items():
            self._of(name, part.start)
        self.prediction.prepare(
            {name: part.levels for name, part in self.runs.items()},
            {name: part.run.recorder.x for name, part in self.runs.items()},
        )
        if self.visit is not None:
            self.visit(0)
        orders = {name: part.order for name, part in self.runs.items()}
        for index, numbers in enumerate(zip(*orders.values(), strict=True)):
            pairs = zip(orders, numbers, strict=True)
            moving = {name: number for name, number in pairs if number is not None}
            self.take(moving)
            if self.visit is not None and self.visit(index + 1):
                self.status = "stopped"
                break
            if self.callback is None:
                continue
            last = all(number >= self.runs[name].steps for name, number in moving.items())
            if not last and self.stops(index):  # the last one is the final denoising
                break
        self.settle()

    def take(self, moving: Mapping[str, int]) -> None:
        """Take a step of some parts: those of the given numbers."""
        runs, walks, name = self.runs, {}, ""
        for name, number in moving.items():
            walks[name] = runs[name].walk(number)
        outcomes = self.drive(walks)
        try:
            for name, number in moving.items():
                runs[name].accept(number, outcomes.pop(name))
        except NotFinite as failure:
            raise blamed(failure, name) from None


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
