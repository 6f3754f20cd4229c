"""An adaptive run: attempts, retries, and samples that go their own way for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._engine.executor import Executor, Outcome
from srk._engine.resolution import resolution
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.plans.step import Step
from srk.processes.base import Level
from srk.processes.phase import statistic
from srk.steps import Problem, Report, StepController

if TYPE_CHECKING:
    from srk._engine.run import Run


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
    """A step that a controller has not judged yet; `asked` is the own time of its first network call."""

    notes: tuple[Any, ...]
    state: Tensor
    keep: list[Tensor]
    error: Tensor | None
    asked: float


class Adapting:
    """Takes a run from the controller's first time to its last.

    Arguments:
        run: the run; its state, memory, counts and status are kept up to date.
        problem: what the controller may know.
    """

    def __init__(self, run: Run, problem: Problem) -> None:
        self.run, self.problem = run, problem

    def go(self, control: StepController) -> None:
        """The whole run; `control.first` was not called yet."""
        run = self.run
        start, stop = control.first(self.problem)
        run.begin(run.process.level(start))
        executor = Executor(run.evaluate, run.source, reuse=False)
        notes: tuple[Any, ...] = ()
        target: float | None = stop
        while target is not None:
            attempt = self._attempt(control, executor, run.x, run.memory, notes, run.level, target)
            decision = control.next(
                Report(
                    run.level.t, target, run.accepted, run.x, attempt.state, attempt.error, run.nfe
                )
            )
            state, accept = attempt.state, decision.accept
            if isinstance(accept, Tensor):
                run.rejected += 1
                again = self._again(
                    control.fork(), run.source, run.x, run.level, decision.retry, target, ~accept
                )
                if again is None:
                    return
                state, accept = state.index_copy(0, *again), True
            if accept:
                notes = attempt.notes
                if run.accept(attempt.asked, run.process.level(target), state, attempt.keep):
                    return
            else:
                run.rejected += 1
                run.first_result = None
            if decision.status is not None:
                run.status = decision.status
                return
            target = decision.stop

    def _attempt(
        self,
        control: StepController,
        executor: Executor,
        x: Tensor,
        memory: list[Tensor],
        notes: tuple[Any, ...],
        start: Level,
        target: float,
    ) -> _Attempt:
        """A step from `start` to the time `target`, with its error."""
        run = self.run
        stop = run.process.level(target)

        def step(
            x: Tensor,
            memory: list[Tensor],
            notes: tuple[Any, ...],
            start: Level,
            stop: Level,
            error: bool,
        ) -> tuple[StepPlan, Outcome]:
            plan = run.prepare(
                run.method.plan_step(
                    Step(
                        run.process,
                        start,
                        stop,
                        run.eta,
                        run.accepted,
                        notes,
                        error=error,
                        resolution=resolution(run.x.dtype, run.autocast, run.prediction),
                    )
                )
            )
            return plan, executor.run(plan, x, memory)

        plan, whole = step(x, memory, notes, start, stop, not control.doubling)
        middle = _middle(run.process, start, stop) if control.doubling else None
        if middle is None:
            return _Attempt(
                plan.notes, whole.state, whole.keep, whole.error, plan.stages[0].level.t
            )
        first, half = step(x, memory, notes, start, middle, False)
        plan, twice = step(half.state, half.keep, first.notes, middle, stop, False)
        return _Attempt(plan.notes, twice.state, twice.keep, twice.state - whole.state, start.t)

    def _again(
        self,
        control: StepController,
        within: NoiseSource,
        x: Tensor,
        start: Level,
        target: float | None,
        end: float,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor] | None:
        """The samples `rows` (a bool tensor) of the batch `x`, whose draws come from `within`, go from `start` to the time `end` by themselves.

        Returns their numbers and states, or None if the run stops.
        """
        run = self.run
        numbers = rows.nonzero().flatten()
        prediction, run.prediction = run.prediction, run.prediction.select(numbers, len(x))
        source = _Rows(within, numbers, x.shape)
        executor = Executor(run.evaluate, source, reuse=False)
        state, level = x[numbers], start
        share = len(numbers) / len(x)
        run.share *= share
        try:
            while target is not None:
                target = max(target, end)
                attempt = self._attempt(control, executor, state, [], (), level, target)
                decision = control.next(
                    Report(
                        level.t, target, run.accepted, state, attempt.state, attempt.error, run.nfe
                    )
                )
                after, accept = attempt.state, decision.accept
                if isinstance(accept, Tensor):
                    run.rejected += 1
                    again = self._again(
                        control.fork(), source, state, level, decision.retry, target, ~accept
                    )
                    if again is None:
                        return None
                    after, accept = after.index_copy(0, *again), True
                if accept:
                    state, level = after, run.process.level(target)
                    if target == end:
                        return numbers, state
                else:
                    run.rejected += 1
                if decision.status is not None:
                    run.status = decision.status
                    return None
                target = decision.stop
        finally:
            run.prediction = prediction
            run.share /= share
        raise AssertionError("a controller ends its steps at t_min or later")


def _middle(process: Any, start: Level, stop: Level) -> Level | None:
    """The level half-way in half log-SNR (in own time for a process without one); None where an end is at infinity."""
    if statistic(process) is not None and (math.isinf(start.lam) or math.isinf(stop.lam)):
        return None
    t = (
        0.5 * (start.t + stop.t)
        if statistic(process) is None
        else process.time(0.5 * (start.lam + stop.lam))
    )
    level: Level = process.level(t)
    return level
