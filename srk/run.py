"""One run: the state, the network's calls, steps taken and refused, failures, and what is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from srk.control import Problem, Report, StepController
from srk.errors import ScoreError
from srk.executor import Executor
from srk.integrators import Integrator
from srk.integrators.base import Step, denoising_step
from srk.integrators.plan import Stage, StepPlan
from srk.noise import NoiseSource
from srk.processes.base import ForwardProcess, Level
from srk.scores import Prediction
from srk.solution import Saved, Solution


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
        saves: frozenset[str],
        callback: Callable[[StepInfo], bool | None] | None,
        label: str,
    ) -> None:
        self.label = label
        self.process, self.prediction, self.method, self.eta, self.source = process, prediction, method, eta, source
        self.x, self.saves, self.callback = x, saves, callback
        self.memory: list[Tensor] = []
        self.status, self.failed = "done", False
        self.nfe = self.accepted = self.rejected = 0
        self.score_seconds = 0.0
        self.times: list[float] = []
        self.total: int | None = None
        self.level: Level = Level(math.nan, math.nan, math.nan, math.nan)
        self.states: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.prediction_times: list[float] = []
        self.first_result: Tensor | None = None
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
        if stage.kind == "denoiser":
            result = self.prediction.denoise(x, stage.level, self.process)
        else:
            t = stage.level.t
            result = self.prediction.score(x, stage.level, self.process) * (0.5 * (1.0 + self.eta**2) * self.process.diffusion(t) ** 2)
            result -= self.process.drift(t, x)
        self.score_seconds += time.perf_counter() - began
        if not isinstance(result, Tensor) or result.shape != x.shape or result.dtype != x.dtype or result.device != x.device:
            raise ScoreError(
                f"the score returned {_describe(result)} for a state of {_describe(x)}; "
                "it must return a tensor of the same shape, dtype and device (network_dtype= of the adapters casts)"
            )
        self.nfe += self.prediction.calls(stage.level.t)
        total = result.sum()
        if self.immediate:
            if not math.isfinite(total.item()) and not bool(torch.isfinite(result).all()):
                bad = int((~torch.isfinite(result)).flatten(1).any(1).sum())
                raise self._failure(self.accepted, stage.level.t, bad)
        else:
            flag = torch.isfinite(total)
            self.flags.append(flag)
            self.flag_places.append((self.accepted, stage.level.t))
            self.finite = flag if self.finite is None else self.finite & flag
        if self.keep_result and self.first_result is None and stage.kind == "denoiser":
            self.first_result = result.clone()
        return result

    def _failure(self, step: int, t: float, bad: int) -> NotFinite:
        self.failed = True
        return NotFinite(f"failed: the score returned NaN or inf at step {step} (t = {t:.6g}) in {bad} of {self.x.shape[0]} samples")

    # -- steps ------------------------------------------------------------------------------------------------------

    def fixed(self, plans: list[StepPlan]) -> None:
        """Run plans made ahead."""
        executor = Executor(self.evaluate, self.source)
        self.total = len(plans)
        self.begin(plans[0].start)
        for plan in plans:
            outcome = executor.run(plan, self.x, self.memory)
            if self.accept(plan, outcome.state, outcome.keep):
                return

    def adaptive(self, control: StepController, problem: Problem) -> None:
        """Plan as the controller goes."""
        executor = Executor(self.evaluate, self.source, reuse=False)
        start, stop = control.first(problem)
        self.begin(self.process.level(start))
        notes: tuple[Any, ...] = ()
        target: float | None = stop
        while target is not None:
            step = Step(self.process, self.level, self.process.level(target), self.eta, self.accepted, notes, error=True)
            plan = self.method.plan_step(step)
            outcome = executor.run(plan, self.x, self.memory)
            decision = control.next(Report(self.level.t, target, self.accepted, self.x, outcome.state, outcome.error, self.nfe))
            if decision.accept:
                notes = plan.notes
                if self.accept(plan, outcome.state, outcome.keep):
                    return
            else:
                self.rejected += 1
                self.first_result = None
            if decision.status is not None:
                self.status = decision.status
                return
            target = decision.stop

    def begin(self, level: Level) -> None:
        self.level = level
        self.times.append(level.t)
        if not self.immediate:
            self.last = self.x.clone()
        if "x" in self.saves:
            self.states.append(self.x.clone())

    def accept(self, plan: StepPlan, state: Tensor, keep: list[Tensor]) -> bool:
        """Take the step; returns whether the callback wants to stop."""
        self.x, self.memory, self.level = state, keep, plan.stop
        self.times.append(plan.stop.t)
        if not self.immediate:
            self._watch()
        if "x" in self.saves:
            self.states.append(state.clone())
        stop = False
        if "denoised" in self.saves and self.first_result is not None:
            self.predictions.append(self.first_result)
            self.prediction_times.append(plan.stages[0].level.t)
        if self.callback is not None:
            info = StepInfo(self.accepted, self.total, plan.stop.t, self.nfe, state, self.first_result)
            stop = bool(self.callback(info))
        self.first_result = None
        self.accepted += 1
        self._tick()
        if stop:
            self.status = "stopped"
        return stop

    def denoise(self) -> None:
        """The final denoising step."""
        plan = denoising_step(Step(self.process, self.level, Level(self.level.t, 1.0, 0.0, math.inf), self.eta, self.accepted))
        self.x = Executor(self.evaluate, self.source).run(plan, self.x, []).state
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
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn(self.method.name), BarColumn(), MofNCompleteColumn(), TextColumn("NFE {task.fields[nfe]}"), TimeRemainingColumn()
        )
        task = bar.add_task("solve", total=total, nfe=0)
        self._tick = lambda: bar.update(task, advance=1, nfe=self.nfe)
        return bar

    def solution(self, seconds: float) -> Solution:
        return Solution(
            x=self.x,
            status=self.status,
            nfe=self.nfe,
            steps=self.accepted,
            rejected=self.rejected,
            times=tuple(self.times),
            solver=self.label,
            eta=self.eta,
            seed=self.source.seed,
            seconds=seconds,
            score_seconds=self.score_seconds,
            trajectory=Saved(tuple(self.times), torch.stack(self.states)) if self.states else None,
            denoised=Saved(tuple(self.prediction_times), torch.stack(self.predictions)) if self.predictions else None,
        )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)} on {value.device}"
    return f"{type(value).__name__}"
