"""One evaluation of the network: asked, checked, counted, watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from srk._engine.cache import PlanCache
from srk._engine.finite import Watch
from srk.errors import ScoreError
from srk.plans.plan import Kind, Stage, StepPlan, fold
from srk.processes.base import ForwardProcess, Level
from srk.scores import NetworkPrediction, Prediction
from srk.scores.base import Rows
from srk.scores.convert import combine
from srk.scores.shared import heard

_folded = PlanCache(4096)
_folded_runs = PlanCache(4096)
_stages = PlanCache(4096)


def folds(prediction: Prediction) -> bool:
    """Whether the denoiser follows from the network's output by two numbers.

    A plan is then written in terms of the output (`fold`), which saves a pass over memory. An
    adapter that has a denoiser of its own is asked for that.
    """
    return (
        isinstance(prediction, NetworkPrediction)
        and type(prediction).denoise is NetworkPrediction.denoise
    )


def folded(plan: StepPlan, prediction: Prediction, remember: bool = True) -> StepPlan:
    """The plan in terms of what the network says; False for plans that are never seen again."""
    if not folds(prediction):
        return plan
    pairs = tuple(
        [
            prediction.coefficients(stage.level) if stage.kind == "denoiser" else (0.0, 1.0)
            for stage in plan.stages
        ]
    )
    if pairs.count((0.0, 1.0)) == len(pairs):
        return plan
    if not remember:
        # A network's coefficients are never None.
        return fold(plan, pairs)  # type: ignore[arg-type]
    return folded_with(plan, pairs)  # type: ignore[arg-type]  # likewise


def folded_with(plan: StepPlan, pairs: tuple[tuple[float, float], ...]) -> StepPlan:
    """`fold(plan, pairs)`, remembered."""
    return _folded.get(plan, pairs, fold, plan, pairs)


def folded_all(plans: Sequence[StepPlan], prediction: NetworkPrediction) -> Sequence[StepPlan]:
    """The steps of a run in terms of what the network says."""

    def make() -> Sequence[StepPlan]:
        made = tuple([folded(plan, prediction) for plan in plans])
        same = all(new is old for new, old in zip(made, plans, strict=True))
        return plans if same else made

    how = prediction.reading
    return [*make()] if how is None else _folded_runs.get_all(plans, how, make)


class Stages:
    """The levels at which a run asks for the denoiser, and the number of each stage among them."""

    def __init__(self, plans: Sequence[StepPlan]) -> None:
        stages = [stage for plan in plans for stage in plan.stages if stage.kind == "denoiser"]
        self.levels = [stage.level for stage in stages]
        self.numbers = {id(stage): number for number, stage in enumerate(stages)}


class Count:
    """What evaluations have cost: network calls, calls a sample on average, and seconds."""

    def __init__(self) -> None:
        self.calls = 0
        self.work = 0.0
        self.seconds = 0.0


class Network:
    """Answers what a step asks: called with a state and a stage, it returns the network's result.

    Arguments:
        prediction: the bound prediction.
        process: the process that is reversed.
        eta: stochasticity, which a reverse drift contains.
        watch: the watch of the run.
        autocast: dtype for `torch.autocast` around the network.
        records: whether to keep the denoised prediction of a step's first evaluation.
        count: where to count; None begins a count.
        share: the part of the batch that this one serves.
    """

    def __init__(
        self,
        prediction: Prediction,
        process: ForwardProcess,
        eta: float,
        watch: Watch,
        *,
        autocast: torch.dtype | None = None,
        records: bool = False,
        count: Count | None = None,
        share: float = 1.0,
    ) -> None:
        self.prediction, self.process, self.eta = prediction, process, eta
        self.watch, self.autocast, self.records = watch, autocast, records
        self.count = Count() if count is None else count
        self.share = share
        self.folds = folds(prediction)
        self.first: Tensor | None = None
        self._plans: Sequence[StepPlan] = ()
        self._numbers: dict[int, int] = {}
        self._outputs: Callable[[Tensor, int], Tensor]

    def __getstate__(self) -> dict[str, Any]:
        # What `prepare_all` has made is found by the identity of stages, which a copy has not.
        kept = {name: value for name, value in self.__dict__.items() if name != "_outputs"}
        return {**kept, "_plans": (), "_numbers": {}}

    def prepare_all(self, plans: Sequence[StepPlan], x: Tensor) -> Sequence[StepPlan]:
        """The steps of a run in terms of what this network says, made ready for states like `x`."""
        if not self.folds:
            return plans
        assert isinstance(self.prediction, NetworkPrediction)
        self._plans = made = folded_all(plans, self.prediction)
        stages = _stages.get_all(made, None, Stages, made)
        self._numbers = stages.numbers
        asked = heard(self.prediction, stages.levels, x)
        self._outputs = asked or self.prediction.outputs(stages.levels, x, self.process)
        return made

    def prepare(self, plan: StepPlan) -> StepPlan:
        """The plan in terms of what this network says."""
        return folded(plan, self.prediction) if self.folds else plan

    def begin(self, step: int) -> None:
        """The step of that number begins."""
        self.watch.step, self.first = step, None

    def part(self, rows: Tensor, batch: int) -> Network:
        """The network for the samples `rows` of a batch of that size, with the same counts."""
        return Network(
            self.prediction.select(rows, batch),
            self.process,
            self.eta,
            self.watch,
            autocast=self.autocast,
            count=self.count,
            share=self.share * len(rows) / batch,
        )

    def __call__(self, x: Tensor, stage: Stage) -> Tensor:
        count, t = self.count, stage.level.t
        number = self._numbers.get(id(stage)) if self.autocast is None else None
        began = perf_counter()
        result = self.ask(x, stage) if number is None else self._outputs(x, number)
        count.seconds += perf_counter() - began
        if not self.folds:  # the output of a network is checked by its adapter, with more advice
            checked(x, result)
        calls = self.prediction.calls(t)
        count.calls += calls
        count.work += calls * self.share
        self.watch.result(x, result, t)
        if self.records and self.first is None and stage.kind == "denoiser":
            pair = self.prediction.coefficients(stage.level) if self.folds else None
            unchanged = pair in (None, (0.0, 1.0))
            # The pair is not None where the result has to be combined.
            self.first = (
                result.clone() if unchanged else combine(pair, x, result)  # type: ignore[arg-type]
            )
        return result

    def ask(self, x: Tensor, stage: Stage) -> Tensor:
        """What the network says, neither checked nor counted."""
        if self.autocast is None:
            return self._ask(x, stage)
        cached = torch.is_autocast_cache_enabled()
        with torch.autocast(x.device.type, self.autocast, cache_enabled=cached):
            return self._ask(x, stage)

    def _ask(self, x: Tensor, stage: Stage) -> Tensor:
        number = self._numbers.get(id(stage))
        if number is not None:
            return self._outputs(x, number)
        prediction, level, process = self.prediction, stage.level, self.process
        if stage.kind == "denoiser":
            if self.folds:
                return prediction.output(x, level, process)
            return prediction.denoise(x, level, process)
        return prediction.score(x, level, process) * self._half(level) - process.drift(level.t, x)

    def _half(self, level: Level) -> float:
        return 0.5 * (1.0 + self.eta**2) * self.process.diffusion(level.t) ** 2

    def ask_each(self, rows: Rows, kind: Kind) -> Tensor:
        """The denoiser or reverse drift at states of several levels, not checked or counted."""
        if self.autocast is None:
            return self._ask_each(rows, kind)
        cached = torch.is_autocast_cache_enabled()
        with torch.autocast(rows.x.device.type, self.autocast, cache_enabled=cached):
            return self._ask_each(rows, kind)

    def _ask_each(self, rows: Rows, kind: Kind) -> Tensor:
        process = self.process
        if kind == "denoiser":
            return self.prediction.denoise_each(rows, process)
        score = self.prediction.score_each(rows, process)
        drifts = [
            score[group] * self._half(level) - process.drift(level.t, rows.x[group])
            for group, level in rows.groups()
        ]
        return torch.cat(drifts)


def checked(x: Tensor, result: object) -> Tensor:
    """The result of a score for the states `x`, if it has their shape, dtype and device."""
    if (
        not isinstance(result, Tensor)
        or result.shape != x.shape
        or result.dtype != x.dtype
        or result.device != x.device
    ):
        raise ScoreError(
            f"the score returned {_describe(result)} for a state of {_describe(x)}; it must return "
            "a tensor of the same shape, dtype and device (network_dtype= of the adapters casts)"
        )
    return result


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"a {dtype} tensor of shape {tuple(value.shape)} on {value.device}"
