"""A run of plans with the control turned around: it is told the network's result, call by call."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from srk._engine.eager import Executor, Outcome
from srk._engine.memory import copy_of
from srk.ecosystem.diffusers.noise import PipelineNoise
from srk.ecosystem.diffusers.route import sees_state
from srk.noise import NoiseSource
from srk.plans.plan import Stage, StepPlan


class Walk:
    """A run of `plans` from a state that its first evaluation sees.

    It can be copied and pickled between any two calls: it then keeps what the step under way has
    been given and has drawn, and goes the same way again.

    Arguments:
        plans: the steps.
        noise: a noise source, not yet started.
        sample: what the states look like, (batch, *event).
        every_step_draws: whether a step without noise takes a draw from the pipeline's generator,
            as the scheduler of diffusers does that is replaced.
    """

    def __init__(
        self,
        plans: Sequence[StepPlan],
        noise: NoiseSource,
        sample: Tensor,
        *,
        every_step_draws: bool = False,
    ) -> None:
        self.noise = noise
        noise.start(sample.shape, sample.dtype, sample.device)
        noise.prepare(plans)
        self._every_step_draws = every_step_draws
        self._next = 0
        self._memory: list[Tensor] = []
        self._under_way: _UnderWay | None = None
        self._handed: Tensor | None = None
        self._bind(plans)

    def _bind(self, plans: Sequence[StepPlan]) -> None:
        self._plans = list(plans)
        self._draws = _Draws(self.noise)
        self._executor = Executor(_not_called, self._draws)
        self._walk: Generator[tuple[Tensor, Stage], Tensor, Outcome] | None = None
        self._input: Tensor | None = None

    @property
    def plans(self) -> Sequence[StepPlan]:
        """The steps."""
        return self._plans

    @property
    def done(self) -> bool:
        """Whether the last plan was run to its end."""
        return self._next == len(self._plans) and self._walk is None

    def handed(self, sample: Tensor) -> bool:
        """Whether `sample` is what the last call handed out, and the run is not at its end."""
        last = self._handed
        return (
            not self.done
            and last is not None
            and last.shape == sample.shape
            and bool(torch.equal(last.to(sample), sample))
        )

    def advance(self, sample: Tensor, result: Tensor) -> Tensor:
        """The next network input, or the result after the last call.

        Arguments:
            sample: what the network saw; the step goes on from here even if it is not what was
                handed out.
            result: its denoiser, or where the plans are folded the network's output.
        """
        if self._walk is None:
            self._enter(copy_of(sample))
        self._handed = self._told(sample, result)
        return self._handed

    def _told(self, sample: Tensor, result: Tensor) -> Tensor:
        assert self._walk is not None and self._input is not None
        if self._under_way is not None:
            self._under_way.told.append((sample.clone(), result.clone()))
        # The walk looks whether anybody keeps its input, so this must not.
        waiting, self._input = self._input, None
        waiting.copy_(sample)
        del waiting
        try:
            self._input, _ = self._walk.send(result)
            return self._input.clone()
        except StopIteration as end:
            outcome: Outcome = end.value
        self._memory, self._walk, self._under_way = outcome.keep, None, None
        if self._next == len(self._plans) or sees_state(self._plans[self._next]):
            return outcome.state  # the next call brings it back, perhaps changed
        return self._enter(outcome.state).clone()

    def _enter(self, state: Tensor) -> Tensor:
        plan = self._plans[self._next]
        self._next += 1
        if len(plan.stages) > 1 or not sees_state(plan):  # it will wait for a call in its middle
            self._under_way = _UnderWay(state.clone(), [kept.clone() for kept in self._memory])
        self._draws.record = None if self._under_way is None else self._under_way.draws
        if self._every_step_draws and not plan.slots and isinstance(self.noise, PipelineNoise):
            self.noise.skip()
        self._walk = self._executor.walk(plan, state, self._memory)
        self._input, _ = next(self._walk)
        return self._input

    def __getstate__(self) -> dict[str, Any]:
        bound = ("_plans", "_draws", "_executor", "_walk", "_input")
        return {key: value for key, value in self.__dict__.items() if key not in bound}

    def resume(self, plans: Sequence[StepPlan]) -> None:
        """Go on after a copy, with the plans of the run that was copied."""
        self._bind(plans)
        was = self._under_way
        if was is None:
            return
        self._next -= 1
        self._draws.replay = [draw.clone() for draw in was.draws]
        told, self._under_way = was.told, None
        skips, self._every_step_draws = self._every_step_draws, False
        self._memory = [kept.clone() for kept in was.memory]
        self._enter(was.state.clone())
        for sample, result in told:
            self._told(sample, result)
        self._every_step_draws = skips


class _UnderWay:
    """A step that waits for a call: where it started, what it was told and what it drew."""

    def __init__(self, state: Tensor, memory: list[Tensor]) -> None:
        self.state, self.memory = state, memory
        self.told: list[tuple[Tensor, Tensor]] = []
        self.draws: list[Tensor] = []


class _Draws(NoiseSource):
    """The draws of a source; notes them where they may be needed again, and repeats noted ones."""

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self.record: list[Tensor] | None = None
        self.replay: list[Tensor] = []

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._source.start(shape, dtype, device)

    def prior(self, out: Tensor) -> None:
        self._source.prior(out)

    def draw(self, slot: Any, clock: str, out: Tensor) -> None:
        if self.replay:
            out.copy_(self.replay.pop(0))
        else:
            self._source.draw(slot, clock, out)
        if self.record is not None:
            self.record.append(out.clone())


def _not_called(x: Tensor, stage: Stage) -> Tensor:
    raise AssertionError("the pipeline calls the network")
