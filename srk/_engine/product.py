"""A run of several parts: the steps of all parts are taken together, stage by stage.

Each part has plans, a state, noise and a record of its own, as in a run of that part alone. What
the parts share is the network: stage i of a step is evaluated for all parts in one go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.changes import StateChanges
from srk._engine.density import log_density
from srk._engine.eager import Executor, Outcome, Walk
from srk._engine.finite import NotFinite
from srk._engine.memory import changed_in_place, version
from srk._engine.network import folded
from srk._engine.retract import executor_for
from srk._engine.run import Job, Run
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import Stage, StepPlan
from srk.processes.base import Level
from srk.scores.joint import BoundPrediction
from srk.solution import ProductSolution


@attrs.frozen(slots=True)
class ProductStepInfo:
    """What a callback of a product sees after each step; dicts with the names of the parts.

    Arguments:
        index: number of the step, from 0.
        steps: how many there will be; None if that is not known.
        t: own time of each part.
        nfe: network calls so far.
        x: the states, (batch, *event). They are overwritten by the next step: clone what is kept.
        denoised: the denoised predictions at the start of the step; None for a part that has none.
    """

    index: int
    steps: int | None
    t: Mapping[str, float]
    nfe: int
    x: Mapping[str, Tensor]
    denoised: Mapping[str, Tensor | None]


ProductCallback = Callable[[ProductStepInfo], bool | None]


class PartRun:
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
        self.run = Run(job, plans, x)
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
        network, self.grad = self.run.network, bool(job.grad)
        # A log-density needs the state before the step.
        self.records = "log_prob" in job.saves
        reuse = not job.grad and not self.records
        self.executor = executor_for(job.process, network, source, reuse=reuse)
        self.changes = StateChanges(job.hooks, source) if job.hooks else None
        self.denoised: Tensor | None = None
        self._memory: Sequence[Tensor] = ()
        self._before: tuple[StepPlan, Tensor, Sequence[Tensor]] | None = None
        self._told: list[Tensor] = []

    def begin(self) -> None:
        """Look at the state at the start, before the first step."""
        recorder = self.run.recorder
        self.run.watch.state(recorder.x, self.level.t)
        recorder.begin(self.level)
        self.run.watch.keep(recorder.x)

    def walk(self, index: int) -> Walk:
        """The step of that number, to be driven together with those of the other parts."""
        if index == self.steps:
            self._look()
            self._memory = ()
        x = self.run.recorder.x
        if index == self.steps:  # this plan belongs to the run alone, so that nothing remembers it
            last = self.executor
            executor = Executor(last.evaluate, last.noise, reuse=last.reuse, remember=False)
            plan = folded(self.plans[index], self.run.network.prediction, remember=False)
            return executor.walk(plan, x)
        plan = self.run.network.prepare(self.plans[index])
        if self.changes is not None:
            x = self.changes(x, plan.start, index)
        if self.records:
            self._before, self._told = (plan, x, self._memory), []
        return self.executor.walk(plan, x, self._memory)

    def ask(self, x: Tensor, stage: Stage) -> Tensor:
        """What the network says of the part, once all parts were asked together."""
        result = self.run.network(x, stage)
        if self.records:
            self._told.append(result.clone())  # the network may write to its own again
        return result

    def accept(self, index: int, outcome: Outcome) -> None:
        """The step of that number counts."""
        network, watch, recorder = self.run.network, self.run.watch, self.run.recorder
        plan = self.plans[index]
        if index == self.steps:
            recorder.finish(outcome.state)
            watch.keep(recorder.x)
        else:
            if not watch.immediate:
                watch.keep(outcome.state)
            asked, self.denoised = plan.asked, network.first
            if self._before is not None and plan.slots:
                density = log_density(*self._before, self._told, outcome.state)
                recorder.density(plan.stop.t, density)
            recorder.accept(plan.stop, outcome.state, asked, network.first, network.count.calls)
            network.begin(recorder.accepted)
            self._memory = outcome.keep
        if index + 1 == len(self.plans):
            self._look()

    def _look(self) -> None:
        self.run.watch.state(self.run.recorder.x, self.run.recorder.level.t)


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


class Lockstep:
    """The parts of a run, which take their steps together.

    Arguments:
        parts: the run of each part, whose plans `check_lockstep` has accepted.
        prediction: what is known of all parts.
        autocast: dtype for `torch.autocast` around the network.
        visit: told the number of steps that are taken, at the start and after each step.
        callback: told of each step; a true return value ends the run.
    """

    def __init__(
        self,
        parts: Mapping[str, PartRun],
        prediction: BoundPrediction,
        autocast: torch.dtype | None = None,
        visit: Callable[[int], None] | None = None,
        callback: ProductCallback | None = None,
    ) -> None:
        self.visit, self.callback = visit, callback
        if callback is not None:
            for part in parts.values():
                part.run.network.records = True
        self.parts, self.prediction, self.autocast = parts, prediction, autocast
        self.devices = sorted({part.run.recorder.x.device.type for part in parts.values()})
        self.calls = 0
        self.seconds = 0.0
        self.status = "done"

    def go(self) -> None:
        """Take all steps. `NotFinite` says which part cannot go on."""
        for name, part in self.parts.items():
            self._of(name, part.begin)
        if self.visit is not None:
            self.visit(0)
        for index in range(len(next(iter(self.parts.values())).order)):
            moving = {
                name: number
                for name, part in self.parts.items()
                if (number := part.order[index]) is not None
            }
            self.take(moving)
            if self.visit is not None:
                self.visit(index + 1)
            if self.callback is not None and self._stops(index, moving):
                break
        for name, part in self.parts.items():
            self._of(name, part.run.watch.settle, part.run.recorder.x)

    def take(self, moving: Mapping[str, int]) -> None:
        """Take a step of some parts: those of the given numbers."""
        walks = {
            name: self._of(name, self.parts[name].walk, number) for name, number in moving.items()
        }
        outcomes = self._step(walks)
        for name, number in moving.items():
            self._of(name, self.parts[name].accept, number, outcomes.pop(name))

    def _stops(self, index: int, moving: Mapping[str, int]) -> bool:
        """Whether the callback ends the run after the step of that number."""
        if all(number >= self.parts[name].steps for name, number in moving.items()):
            return False  # that was the final denoising
        assert self.callback is not None
        recorders = {name: part.run.recorder for name, part in self.parts.items()}
        info = ProductStepInfo(
            index,
            max(part.steps for part in self.parts.values()),
            {name: recorder.level.t for name, recorder in recorders.items()},
            self.calls,
            {name: recorder.x for name, recorder in recorders.items()},
            {name: part.denoised for name, part in self.parts.items()},
        )
        if not self.callback(info):
            return False
        self.status = "stopped"
        return True

    def _step(self, walks: Mapping[str, Walk]) -> dict[str, Outcome]:
        """The outcome of one step of all parts."""
        outcomes: dict[str, Outcome] = {}
        results: dict[str, Any] = dict.fromkeys(walks)
        while len(outcomes) < len(walks):
            requests: dict[str, tuple[Tensor, Stage]] = {}
            for name, walk in walks.items():
                try:
                    requests[name] = walk.send(results.pop(name))
                except StopIteration as end:
                    outcomes[name] = end.value
            if requests:
                results = self._evaluate(requests)
        return outcomes

    def _evaluate(self, requests: dict[str, tuple[Tensor, Stage]]) -> dict[str, Any]:
        """What the network says of all parts. The requests are dropped: see `Executor.walk`."""
        began = time.perf_counter()
        before = {name: version(x) for name, (x, _) in requests.items()}
        with ExitStack() as stack:
            if self.autocast is not None:
                cached = torch.is_autocast_cache_enabled()
                for device in self.devices:
                    stack.enter_context(torch.autocast(device, self.autocast, cache_enabled=cached))
            states = {name: x for name, (x, _) in requests.items()}
            levels = {name: stage.level for name, (_, stage) in requests.items()}
            for name, part in self.parts.items():
                if name not in requests:  # it does not move
                    states[name] = part.run.recorder.x
                    levels[name] = part.run.recorder.level
            self.prediction.ask(states, levels)
            del states
            results = {
                name: self._of(name, self.parts[name].ask, *request)
                for name, request in requests.items()
            }
            self.prediction.forget()
        if any(version(x) != before[name] for name, (x, _) in requests.items()):
            raise changed_in_place()
        self.calls += max(
            self.parts[name].run.network.prediction.calls(stage.level.t)
            for name, (_, stage) in requests.items()
        )
        requests.clear()
        self.seconds += time.perf_counter() - began
        return results

    def _of(self, name: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """`do`, whose failure is that of the part `name`."""
        try:
            return do(*arguments)
        except NotFinite as failure:
            reason = failure.status.removeprefix("failed: ")
            raise NotFinite(f"failed: in the part {name!r}, {reason}") from None


def run_product(
    parts: Mapping[str, PartRun],
    prediction: BoundPrediction,
    *,
    seed: int | None,
    grad: bool = False,
    autocast: torch.dtype | None = None,
    visit: Callable[[int], None] | None = None,
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
        visit: told the number of steps that are taken, at the start and after each step.
        callback: told of each step; a true return value ends the run.
        progress: whether to show a progress bar.
    """
    began = time.perf_counter()
    lockstep = Lockstep(parts, prediction, autocast, visit, callback)
    longest = max(parts.values(), key=lambda part: part.steps)
    bar = longest.run.recorder.bar(" + ".join(parts)) if progress else nullcontext()
    failed = False
    with torch.set_grad_enabled(grad), bar:
        try:
            lockstep.go()
            status = lockstep.status
        except NotFinite as failure:
            failed, status = True, failure.status
            for part in parts.values():
                last = part.run.watch.last
                if last is not None:
                    part.run.recorder.x = last
    seconds = time.perf_counter() - began
    solutions = {
        name: part.run.solution(status, part.executor.noise.seed, seconds)
        for name, part in parts.items()
    }
    made = ProductSolution(
        parts=solutions,
        status=status,
        nfe=lockstep.calls,
        seed=seed,
        seconds=seconds,
        score_seconds=lockstep.seconds,
    )
    return made, failed
