"""Adaptive steps of several parts: one error norm over all of them decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.eager import Executor, Outcome, Walk
from srk._engine.network import folded
from srk._engine.resolution import resolution
from srk._engine.run import Job, Run
from srk._engine.together import Part, ProductCallback, Together, Turn
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level
from srk.scores.joint import BoundPrediction
from srk.steps import Report, RunInfo, StepController
from srk.steps.base import Range


@attrs.frozen
class CommonClock(ForwardProcess):
    """The clock of all parts: 1 where each has most noise, 0 where it has least.

    In between each part is at that fraction of its half log-SNR, or of its own time where it has
    none. A controller chooses its steps on this clock.

    Arguments:
        parts: the processes of the parts.
    """

    name = "common clock"
    parts: Mapping[str, ForwardProcess]
    t_min: float = 0.0
    t_max: float = 1.0

    def drift(self, t: float, x: Tensor) -> Tensor:
        raise NotImplementedError("the parts have drifts")

    def diffusion(self, t: float) -> float:
        raise NotImplementedError("the parts have diffusions")

    def sample_prior(self, shape: Sequence[int], **options: Any) -> Tensor:
        raise NotImplementedError("the parts have priors")

    def of(self, name: str, t: float) -> Level:
        """Where the part is at the time `t` of this clock."""
        process: Any = self.parts[name]
        if t in (0.0, 1.0):
            time = process.t_max if t else process.t_min
        elif process.statistic is None:
            time = t * process.t_max + (1.0 - t) * process.t_min
        else:
            ends = Range.of(process)
            time = process.time(t * ends.noisy + (1.0 - t) * ends.clean)
        level: Level = process.level(time)
        return level


class AdaptivePart(Part):
    """A part whose steps are planned as the run goes.

    Arguments:
        job: what to do.
        x: the state at the start.
        source: a started noise source.
    """

    def __init__(self, job: Job, x: Tensor, source: NoiseSource) -> None:
        super().__init__(Run(job, (), x), source)
        self.run.recorder.total = None
        # Plans are made for one attempt, and the step's inputs must survive a rejection.
        network = self.run.network
        self.executor = Executor(network, source, reuse=False, remember=False)
        self.memory: Sequence[Tensor] = ()
        self.notes: tuple[Any, ...] = ()

    def plan(self, start: Level, stop: Level, notes: tuple[Any, ...], error: bool) -> StepPlan:
        """A step, and its error if that is wanted."""
        job, network, x = self.run.job, self.run.network, self.run.recorder.x
        eps = resolution(x.dtype, network.autocast, network.prediction)
        index = self.run.recorder.accepted
        return job.method.plan_step(
            Step(job.process, start, stop, job.eta, index, notes, error=error, resolution=eps)
        )


@attrs.frozen(slots=True)
class _Tried:
    """A step that no controller has judged, by part."""

    plans: Mapping[str, StepPlan]
    outcomes: Mapping[str, Outcome]
    errors: Mapping[str, Tensor | None]


class AllParts:
    """The solvers of all parts as one, for what a controller asks of a solver.

    Arguments:
        parts: the parts.
        clock: their common clock.
    """

    def __init__(self, parts: Mapping[str, AdaptivePart], clock: CommonClock) -> None:
        self.parts, self.clock = parts, clock
        self.name = " + ".join(dict.fromkeys(p.run.job.method.name for p in parts.values()))

    def plan_step(self, step: Step) -> StepPlan:
        """A plan with the draws of all parts, and an error only where all have one."""
        plans = [
            part.plan(self.clock.of(name, step.start.t), self.clock.of(name, step.stop.t), (), True)
            for name, part in self.parts.items()
        ]
        lacking = [plan for plan in plans if plan.error is None]
        return attrs.evolve(
            plans[0],
            slots=tuple(slot for plan in plans for slot in plan.slots),
            error=None if lacking else plans[0].error,
            keep=tuple(row for plan in plans for row in plan.keep),
        )


class AdaptiveProduct(Together):
    """Takes the parts from noise to data with the steps of one controller.

    Arguments:
        adaptive: the parts.
        prediction: what is known of all parts.
        clock: their common clock.
        steps: the number of steps that was asked for, which the controller refuses.
        autocast: dtype for `torch.autocast` around the network.
        callback: told of each step; a true return value ends the run.
    """

    def __init__(
        self,
        adaptive: Mapping[str, AdaptivePart],
        prediction: BoundPrediction,
        clock: CommonClock,
        steps: int | None = None,
        autocast: torch.dtype | None = None,
        callback: ProductCallback | None = None,
    ) -> None:
        super().__init__(adaptive, prediction, autocast, callback)
        self.adaptive, self.clock, self.steps = adaptive, clock, steps
        self.rejected = self.accepted = 0

    def go(self, control: StepController) -> None:
        """The whole run, with a controller of its own."""
        control = control.fresh()
        here, target = control.first(self._problem())
        for name, part in self.adaptive.items():
            self._of(name, part.begin, self.clock.of(name, here))
        while True:
            tried = self._try(control, here, target)
            decision = control.next(self._report(here, target, tried))
            if decision.accept is True:
                for name, part in self.adaptive.items():
                    plan, outcome = tried.plans[name], tried.outcomes[name]
                    part.notes, part.memory = plan.notes, outcome.keep
                    part.run.watch.keep(outcome.state)
                    level, first = self.clock.of(name, target), plan.asked
                    self._of(name, part.take, level, outcome.state, first)
                self.accepted, here = self.accepted + 1, target
                if self.stops(self.accepted - 1):
                    break
            else:
                self.rejected += 1
                for part in self.adaptive.values():
                    part.run.recorder.rejected += 1
                    part.run.network.begin(part.run.recorder.accepted)
            if decision.status is not None:
                self.status = decision.status
            if decision.status is not None or decision.stop is None:
                break
            target = decision.stop
        for part in self.adaptive.values():
            part.run.watch.state(part.run.recorder.x, part.run.recorder.level.t)
        if self.status == "done":
            self._denoise()
        self.settle()

    def _problem(self) -> RunInfo:
        """What the controller may know."""
        parts = self.adaptive
        coarse = [part.source for part in parts.values() if not part.source.refines]
        some = coarse[0] if coarse else next(iter(parts.values())).source
        eta = max(part.run.job.eta for part in parts.values())
        batch = len(next(iter(parts.values())).run.recorder.x)
        return RunInfo(
            self.clock, AllParts(parts, self.clock), self.steps, eta, noise=some, shape=(batch,)
        )

    def _try(self, control: StepController, here: float, target: float) -> _Tried:
        """A step of all parts with its error."""
        parts = self.adaptive
        whole, kept = self._step(here, target, not control.doubling, {}, {})
        if not control.doubling:
            return _Tried(whole, kept, {name: outcome.error for name, outcome in kept.items()})
        middle = 0.5 * (here + target)
        plans, half = self._step(here, middle, False, {}, {})
        notes = {name: plans[name].notes for name in parts}
        plans, twice = self._step(middle, target, False, half, notes)
        errors: dict[str, Tensor | None] = {
            name: twice[name].state - kept[name].state for name in parts
        }
        return _Tried(plans, twice, errors)

    def _step(
        self,
        here: float,
        target: float,
        error: bool,
        before: Mapping[str, Outcome],
        notes: Mapping[str, tuple[Any, ...]],
    ) -> tuple[dict[str, StepPlan], dict[str, Outcome]]:
        """One step of all parts, from where they are or from what a step `before` it gave."""
        plans, walks = {}, {}
        for name, part in self.adaptive.items():
            start, stop = self.clock.of(name, here), self.clock.of(name, target)
            plan = part.plan(start, stop, notes.get(name, part.notes), error)
            told = folded(plan, part.run.network.prediction, remember=False)
            x, memory = part.run.recorder.x, part.memory
            if name in before:
                x, memory = before[name].state, before[name].keep
            plans[name], walks[name] = plan, part.executor.walk(told, x, memory)
        counts = {name: plan.evaluations for name, plan in plans.items()}
        if len(set(counts.values())) > 1:
            raise IncompatibleError(
                f"the parts make {counts} evaluations in a step, but they are evaluated together; "
                "use the same solver for all"
            )
        return plans, self._outcomes(walks)

    def _outcomes(self, walks: Mapping[str, Walk]) -> dict[str, Outcome]:
        """What the steps of the parts give."""
        made: dict[str, Outcome] = {}

        def turn(name: str) -> Turn:
            made[name] = yield from walks[name]
            yield None

        self.drive({name: turn(name) for name in walks})
        return made

    def _report(self, here: float, target: float, tried: _Tried) -> Report:
        """Candidates and errors of all parts, in the units of their data, as one."""
        states, errors = [], []
        first = next(iter(self.adaptive.values())).run.recorder.x
        for name, part in self.adaptive.items():
            scale = 1.0 / part.run.job.process.data_scale(self.clock.of(name, target).t)
            kind = torch.promote_types(first.dtype, torch.float32)
            state, error = tried.outcomes[name].state, tried.errors[name]
            states.append((state.to(first.device, kind) * scale).flatten(1))
            if error is not None:
                errors.append((error.to(first.device, kind) * scale).flatten(1))
        candidate = torch.cat(states, 1)
        whole = torch.cat(errors, 1) if len(errors) == len(states) else None
        return Report(here, target, self.accepted, candidate, candidate, whole, self.calls)

    def _denoise(self) -> None:
        """The final denoising of the parts that have one."""
        walks, parts = {}, {}
        for name, part in self.adaptive.items():
            job, recorder = part.run.job, part.run.recorder
            if job.denoise and recorder.level.sigma > 0:
                index = recorder.accepted
                plan = job.method.final_step(job.process, recorder.level, job.eta, index)
                part.ask = part.run.network  # nobody asks for the last result
                told = folded(plan, part.run.network.prediction, remember=False)
                walks[name], parts[name] = part.executor.walk(told, recorder.x), part
        for name, outcome in self._outcomes(walks).items():
            recorder = parts[name].run.recorder
            recorder.finish(outcome.state)
            self._of(name, parts[name].run.watch.state, recorder.x, recorder.level.t)


def check_ends(processes: Mapping[str, ForwardProcess]) -> None:
    """Raise `IncompatibleError` unless every part begins with signal and ends with noise."""
    for name, process in processes.items():
        if process.statistic is None:
            continue
        start, stop = process.level(process.t_max), process.level(process.t_min)
        if start.alpha == 0.0 or math.isinf(stop.lam):
            raise IncompatibleError(
                f"adaptive steps of a product divide the log-SNR of each part, which is infinite "
                f"at an end of {process!r} (part {name!r}); begin and end with noise, e.g. "
                "srk.Flow(t_min=0.001, t_max=0.999)"
            )
