"""One run: the state, the network's calls, steps taken and refused, failures, and what is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from srk._engine.adapting import Adapting
from srk._engine.executor import Executor
from srk._engine.transitions import Draws, log_density
from srk.errors import ScoreError
from srk.integrators import Integrator
from srk.noise import NoiseSource, ReplayNoise
from srk.plans.exponential import denoising_step
from srk.plans.plan import Stage, StepPlan, fold
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level
from srk.scores import NetworkPrediction, Prediction
from srk.scores.convert import combine
from srk.solution import Saved, Solution
from srk.steps import Problem, StepController


@attrs.frozen(slots=True)
class StepInfo:
    """What a callback sees after each accepted step.

    Arguments:
        index: number of the step, from 0.
        steps: how many there will be; None if that is not known.
        t: own time at its end.
        nfe: network calls so far.
        x: the state at its end, (batch, *event). It is overwritten by the next step: clone it to keep it.
        denoised: the denoised prediction at the start of the step, or None where the process has none.
    """

    index: int
    steps: int | None
    t: float
    nfe: int
    x: Tensor
    denoised: Tensor | None


class NotFinite(Exception):
    def __init__(self, message: str) -> None:
        self.message = message


class Run:
    """The state of one run."""

    def __init__(
        self,
        process: ForwardProcess,
        prediction: Prediction,
        method: Integrator,
        eta: float,
        source: NoiseSource,
        x: Tensor,
        *,
        saves: frozenset[str] = frozenset(),
        callback: Callable[[StepInfo], bool | None] | None = None,
        label: str = "",
        autocast: torch.dtype | None = None,
        grad: bool | Literal["checkpoint"] = False,
        compiled: bool = False,
    ) -> None:
        self.label = label
        self.autocast, self.grad, self.compiled = autocast, grad, compiled
        # What a network says goes straight into the step where the denoiser follows from it by two numbers; not where an adapter has a denoiser of its own.
        self.folds = (
            isinstance(prediction, NetworkPrediction)
            and type(prediction).denoise is NetworkPrediction.denoise
        )
        self.draws = Draws(source) if grad == "checkpoint" or "log_prob" in saves else None
        self.process, self.prediction, self.method, self.eta, self.source = (
            process,
            prediction,
            method,
            eta,
            source,
        )
        self.x, self.saves, self.callback = x, saves, callback
        self.memory: list[Tensor] = []
        self.status, self.failed = "done", False
        self.nfe = self.accepted = self.rejected = 0
        self.share = 1.0  # the part of the batch that the next network call serves
        self.work = 0.0
        self.score_seconds = 0.0
        self.times: list[float] = []
        self.total: int | None = None
        self.level: Level = Level(math.nan, math.nan, math.nan, math.nan)
        self.states: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.prediction_times: list[float] = []
        self.first_result: Tensor | None = None
        self.log_probs: list[Tensor] = []
        self.log_prob_times: list[float] = []
        self.keep_result = callback is not None or "denoised" in saves
        # Where looking at a value would wait for the device, failures are counted on the device and read once, at the end.
        self.immediate = x.device.type == "cpu"
        self.flags: list[Tensor] = []
        self.flag_places: list[tuple[int, float]] = []
        self.finite: Tensor | None = None
        self.last: Tensor | None = None
        self._tick: Callable[[], None] = lambda: None

    # -- the network ------------------------------------------------------------------------------------------------

    def evaluate(self, x: Tensor, stage: Stage) -> Tensor:
        began = time.perf_counter()
        if self.autocast is None:
            result = self._ask(x, stage)
        else:
            with torch.autocast(x.device.type, self.autocast):
                result = self._ask(x, stage)
        self.score_seconds += time.perf_counter() - began
        # what an adapter says is checked there, with better advice
        if not self.folds and (
            not isinstance(result, Tensor)
            or result.shape != x.shape
            or result.dtype != x.dtype
            or result.device != x.device
        ):
            raise ScoreError(
                f"the score returned {_describe(result)} for a state of {_describe(x)}; "
                "it must return a tensor of the same shape, dtype and device (network_dtype= of the adapters casts)"
            )
        level = stage.level
        calls = self.prediction.calls(level.t)
        self.nfe += calls
        self.work += calls * self.share
        total = result.sum()
        if self.immediate:
            if not math.isfinite(total.item()) and not bool(torch.isfinite(result).all()):
                bad = int((~torch.isfinite(result)).flatten(1).any(1).sum())
                raise self._failure(self.accepted, level.t, bad)
        else:
            flag = torch.isfinite(total)
            self.flags.append(flag)
            self.flag_places.append((self.accepted, level.t))
            self.finite = flag if self.finite is None else self.finite & flag
        if self.keep_result and self.first_result is None and stage.kind == "denoiser":
            pair = self.prediction.coefficients(level) if self.folds else None
            self.first_result = (
                result.clone() if pair in (None, (0.0, 1.0)) else combine(pair, x, result)
            )
        return result

    def _ask(self, x: Tensor, stage: Stage) -> Tensor:
        prediction, level, process = self.prediction, stage.level, self.process
        if stage.kind == "denoiser":
            return (
                prediction.output(x, level, process)
                if self.folds
                else prediction.denoise(x, level, process)
            )
        half = 0.5 * (1.0 + self.eta**2) * process.diffusion(level.t) ** 2
        return prediction.score(x, level, process) * half - process.drift(level.t, x)

    def prepare(self, plan: StepPlan) -> StepPlan:
        """The plan in terms of what the network says."""
        if not self.folds:
            return plan
        pairs = tuple(
            self.prediction.coefficients(stage.level) if stage.kind == "denoiser" else (0.0, 1.0)
            for stage in plan.stages
        )
        if all(pair == (0.0, 1.0) for pair in pairs):
            return plan
        folded = plan.programs.get(pairs)
        if folded is None:
            folded = plan.programs[pairs] = fold(plan, pairs)  # type: ignore[arg-type]  # a network's coefficients are never None
        made: StepPlan = folded
        return made

    def _failure(self, step: int, t: float, bad: int) -> NotFinite:
        self.failed = True
        return NotFinite(
            f"failed: the score returned NaN or inf at step {step} (t = {t:.6g}) in {bad} of {self.x.shape[0]} samples"
        )

    # -- steps ------------------------------------------------------------------------------------------------------

    def fixed(self, plans: list[StepPlan]) -> None:
        """Run plans made ahead."""
        source, prepared = self.draws or self.source, [self.prepare(plan) for plan in plans]
        executor: Executor
        if self.compiled:
            from srk._engine.compiled import (
                CompiledExecutor,  # torch.compile takes seconds to import
            )

            place = tuple(self.x.shape), self.x.dtype, self.x.device
            # a callback may write to the state, so the next step's first stage must wait for it
            executor = CompiledExecutor(
                self.evaluate, source, place, prepared if self.callback is None else ()
            )
        else:
            executor = Executor(self.evaluate, source, reuse=not self.grad)
        step = self._checkpointed if self.grad == "checkpoint" else _step
        self.total = len(plans)
        self.begin(plans[0].start)
        for plan in prepared:
            if self.draws is not None:
                self.draws.begin()
            state, *keep = step(executor, plan, self.x, self.memory)
            if "log_prob" in self.saves and self.draws is not None and plan.slots:
                self.log_probs.append(log_density(plan, state, self.draws.values))
                self.log_prob_times.append(plan.stop.t)
            if self.accept(plan.stages[0].level.t, plan.stop, state, keep):
                return

    def _checkpointed(
        self, executor: Executor, plan: StepPlan, state: Tensor, memory: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """A step whose network calls are repeated in the backward pass, with the same draws."""
        assert self.draws is not None
        source = self.draws
        values: list[Tensor] | None = None

        def again(x: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
            nonlocal values
            if values is None:
                result = _step(executor, plan, x, list(kept))
                values = list(source.values)
                return result
            # the backward pass: the same calls again, which count as no others
            counts = self.nfe, self.work
            result = _step(
                Executor(self.evaluate, ReplayNoise(values), reuse=False), plan, x, list(kept)
            )
            self.nfe, self.work = counts
            return result

        result: tuple[Tensor, ...] = checkpoint(again, state, *memory, use_reentrant=False)
        return result

    def adaptive(self, control: StepController, problem: Problem) -> None:
        """Plan as the controller goes."""
        Adapting(self, problem).go(control)

    def begin(self, level: Level) -> None:
        self.level = level
        self.times.append(level.t)
        if not self.immediate:
            self.last = self.x.clone()
        if "x" in self.saves:
            self.states.append(self.x.clone())

    def accept(self, asked: float, stop: Level, state: Tensor, keep: list[Tensor]) -> bool:
        """Take the step to `stop`, whose first network call was at the time `asked`; returns whether the callback wants to stop."""
        self.x, self.memory, self.level = state, keep, stop
        self.times.append(stop.t)
        if not self.immediate:
            self._watch()
        if "x" in self.saves:
            self.states.append(state.clone())
        stopping = False
        if "denoised" in self.saves and self.first_result is not None:
            self.predictions.append(self.first_result)
            self.prediction_times.append(asked)
        if self.callback is not None:
            info = StepInfo(self.accepted, self.total, stop.t, self.nfe, state, self.first_result)
            stopping = bool(self.callback(info))
        self.first_result = None
        self.accepted += 1
        self._tick()
        if stopping:
            self.status = "stopped"
        return stopping

    def denoise(self) -> None:
        """The final denoising step."""
        plan = denoising_step(
            Step(
                self.process,
                self.level,
                Level(self.level.t, 1.0, 0.0, math.inf),
                self.eta,
                self.accepted,
            )
        )
        self.x = (
            Executor(self.evaluate, self.source, reuse=not self.grad)
            .run(self.prepare(plan), self.x, [])
            .state
        )
        if "denoised" in self.saves:
            self.predictions.append(self.x.clone())
            self.prediction_times.append(self.level.t)
        if not self.immediate:
            self._watch()

    # -- failures on a device that must not be waited for ---------------------------------------------------------

    def _watch(self) -> None:
        """Keep the last finite state, without looking."""
        if self.finite is not None and self.last is not None:
            self.last = torch.where(self.finite, self.x, self.last)

    def check_device(self) -> None:
        """Read the flags once, after the run."""
        if self.immediate or not self.flags:
            return
        ok = torch.stack(self.flags).cpu()
        if bool(ok.all()):
            return
        step, t = self.flag_places[int((~ok).nonzero()[0])]
        bad = int((~torch.isfinite(self.x)).flatten(1).any(1).sum())
        if bad == 0:
            return  # the sum overflowed, the values did not
        if self.last is not None:
            self.x = self.last
        raise self._failure(step, t, bad)

    # -- results ------------------------------------------------------------------------------------------------

    def bar(self, total: int | None) -> Any:
        """A progress bar with step, NFE and time left, as a context manager."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn(self.method.name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("NFE {task.fields[nfe]}"),
            TimeRemainingColumn(),
        )
        task = bar.add_task("solve", total=total, nfe=0)
        self._tick = lambda: bar.update(task, advance=1, nfe=self.nfe)
        return bar

    def solution(self, seconds: float) -> Solution:
        return Solution(
            x=self.x,
            status=self.status,
            nfe=self.nfe,
            mean_nfe=self.work,
            steps=self.accepted,
            rejected=self.rejected,
            times=tuple(self.times),
            solver=self.label,
            eta=self.eta,
            seed=self.source.seed,
            seconds=seconds,
            score_seconds=self.score_seconds,
            trajectory=Saved(tuple(self.times), torch.stack(self.states)) if self.states else None,
            denoised=Saved(tuple(self.prediction_times), torch.stack(self.predictions))
            if self.predictions
            else None,
            log_prob=Saved(tuple(self.log_prob_times), torch.stack(self.log_probs))
            if self.log_probs
            else None,
        )


def _step(
    executor: Executor, plan: StepPlan, state: Tensor, memory: list[Tensor]
) -> tuple[Tensor, ...]:
    outcome = executor.run(plan, state, memory)
    return outcome.state, *outcome.keep


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)} on {value.device}"
    return f"{type(value).__name__}"
