"""An adaptive run: attempts, retries, and samples that go their own way for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.eager import Executor, Outcome
from srk._engine.finite import Watch
from srk._engine.network import Network, folded
from srk._engine.recorder import Recorder
from srk._engine.resolution import resolution
from srk.integrators.base import Integrator
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level
from srk.steps import Decision, Report, RunInfo, StepController


class _Rows(NoiseSource):
    """Another source's draws for some of its samples."""

    def __init__(self, source: NoiseSource, rows: Tensor, shape: Sequence[int]) -> None:
        self.source, self.rows, self.shape = source, rows, tuple(shape)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        raise NotImplementedError("the initial state is drawn for all samples")

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        whole = torch.empty(self.shape, dtype=out.dtype, device=out.device)
        self.source.draw(slot, clock, whole)
        torch.index_select(whole, 0, self.rows, out=out)


@attrs.frozen(slots=True)
class _Attempt:
    """A step that no controller has judged; `asked` is the own time of its first evaluation."""

    notes: tuple[Any, ...]
    state: Tensor
    keep: list[Tensor]
    error: Tensor | None
    asked: float


@attrs.frozen(slots=True)
class _Group:
    """Samples that take the same steps: the network and the noise for them."""

    network: Network
    source: NoiseSource


@attrs.frozen(slots=True)
class AdaptiveRun:
    """Takes a run from the controller's first time to its last.

    Arguments:
        process, method, eta: what is reversed, and how.
        network, watch, recorder: the parts of the run.
        source: the started noise source.
    """

    process: ForwardProcess
    method: Integrator
    eta: float
    network: Network
    watch: Watch
    recorder: Recorder
    source: NoiseSource

    def go(self, control: StepController, problem: RunInfo) -> None:
        """The whole run, with a controller of its own."""
        control = control.fresh()
        recorder, network = self.recorder, self.network
        start, stop = control.first(problem)
        recorder.begin(self.process.level(start))
        self.watch.keep(recorder.x)
        everybody = _Group(network, self.source)
        notes: tuple[Any, ...] = ()
        memory: Sequence[Tensor] = ()
        target: float | None = stop
        while target is not None:
            x, level = recorder.x, recorder.level
            judged = self._judged(control, everybody, x, memory, notes, level, target)
            if judged is None:
                return
            attempt, decision, state, accept = judged
            if accept:
                notes, memory = attempt.notes, attempt.keep
                self.watch.keep(state)
                end, nfe = self.process.level(target), network.count.calls
                if recorder.accept(end, state, attempt.asked, network.first, nfe):
                    return
            else:
                recorder.rejected += 1
            network.begin(recorder.accepted)
            if decision.status is not None:
                recorder.status = decision.status
                return
            target = decision.stop

    def _report(self, level: Level, target: float, x: Tensor, attempt: _Attempt) -> Report:
        done, nfe = self.recorder.accepted, self.network.count.calls
        return Report(level.t, target, done, x, attempt.state, attempt.error, nfe)

    def _attempt(
        self,
        control: StepController,
        group: _Group,
        x: Tensor,
        memory: Sequence[Tensor],
        notes: tuple[Any, ...],
        start: Level,
        target: float,
    ) -> _Attempt:
        """A step from `start` to the time `target`, with its error."""
        stop = self.process.level(target)
        # Plans are made for one attempt, and the step's inputs must survive a rejection.
        executor = Executor(group.network, group.source, reuse=False, remember=False)

        def step(
            x: Tensor,
            memory: Sequence[Tensor],
            notes: tuple[Any, ...],
            start: Level,
            stop: Level,
            error: bool,
        ) -> tuple[StepPlan, Outcome]:
            index = self.recorder.accepted
            eps = resolution(x.dtype, group.network.autocast, group.network.prediction)
            asked = Step(
                self.process, start, stop, self.eta, index, notes, error=error, resolution=eps
            )
            plan = self.method.plan_step(asked)
            told = folded(plan, group.network.prediction, remember=False)
            return plan, executor.run(told, x, memory)

        plan, whole = step(x, memory, notes, start, stop, not control.doubling)
        middle = _middle(self.process, start, stop) if control.doubling else None
        if middle is None:
            first = plan.stages[0].level.t
            return _Attempt(plan.notes, whole.state, whole.keep, whole.error, first)
        half_plan, half = step(x, memory, notes, start, middle, False)
        plan, twice = step(half.state, half.keep, half_plan.notes, middle, stop, False)
        return _Attempt(plan.notes, twice.state, twice.keep, twice.state - whole.state, start.t)

    def _judged(
        self,
        control: StepController,
        group: _Group,
        x: Tensor,
        memory: Sequence[Tensor],
        notes: tuple[Any, ...],
        start: Level,
        target: float,
    ) -> tuple[_Attempt, Decision, Tensor, bool] | None:
        """An attempt and what the controller says of it: the state after it, and whether it counts.

        The samples that it refuses are taken again, so that the others count; None if the run stops
        on the way.
        """
        attempt = self._attempt(control, group, x, memory, notes, start, target)
        decision = control.next(self._report(start, target, x, attempt))
        accept = decision.accept
        if not isinstance(accept, Tensor):
            return attempt, decision, attempt.state, accept
        self.recorder.rejected += 1
        fork = control.fork()
        again = self._again(fork, group, x, start, decision.retry, target, ~accept)
        if again is None:
            return None
        return attempt, decision, attempt.state.index_copy(0, *again), True

    def _again(
        self,
        control: StepController,
        within: _Group,
        x: Tensor,
        start: Level,
        target: float | None,
        end: float,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor] | None:
        """The samples `rows` of the batch `x` go from `start` to the time `end` by themselves.

        Arguments:
            control: decides their steps.
            within: the batch's network and noise.
            x: its states.
            start: the level of these.
            target: where the first step ends.
            end: where the last step ends.
            rows: which samples, a bool tensor.

        Returns:
            Their numbers and states, or None if the run stops.
        """
        recorder = self.recorder
        numbers = rows.nonzero().flatten()
        group = _Group(within.network.part(numbers, len(x)), _Rows(within.source, numbers, x.shape))
        state, level = x[numbers], start
        while target is not None:
            target = max(target, end)
            judged = self._judged(control, group, state, (), (), level, target)
            if judged is None:
                return None
            _, decision, after, accept = judged
            if accept:
                state, level = after, self.process.level(target)
                if target == end:
                    return numbers, state
            else:
                recorder.rejected += 1
            if decision.status is not None:
                recorder.status = decision.status
                return None
            target = decision.stop
        raise AssertionError("a controller ends its steps at t_min or later")


def _middle(process: Any, start: Level, stop: Level) -> Level | None:
    """The level half-way in half log-SNR (in own time for a process without one).

    None where an end is at infinity.
    """
    if process.statistic is None:
        t = 0.5 * (start.t + stop.t)
    elif math.isinf(start.lam) or math.isinf(stop.lam):
        return None
    else:
        t = process.time(0.5 * (start.lam + stop.lam))
    level: Level = process.level(t)
    return level
