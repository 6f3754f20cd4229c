"""A run of plans with the control turned around: it asks for the network's result and is told, call by call."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.executor import Executor, Outcome
from srk.integrators import Integrator, Step
from srk.noise import NoiseSource
from srk.plans.exponential import denoising_step, exponential_step
from srk.plans.plan import STATE, Stage, StepPlan, fold
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.sampling.planning import plan_grid
from srk.scores import NetworkPrediction


@attrs.frozen
class StateFirst(Integrator):
    """A solver as a pipeline can run it: a first step that would draw noise before it calls the network is an exponential Euler step.

    A pipeline calls the network at the state that it drew, before the scheduler is asked anything.

    Arguments:
        inner: the solver.
    """

    inner: Integrator

    def __attrs_post_init__(self) -> None:
        for name in (
            "name",
            "evaluations_per_step",
            "startup_evaluations",
            "eta_range",
            "linear_only",
            "infinite_noise",
            "noise_free",
        ):
            object.__setattr__(self, name, getattr(self.inner, name))

    def plan(self, step: Step) -> StepPlan:
        return self.inner.plan(step)

    def plan_step(self, step: Step) -> StepPlan:
        plan = self.inner.plan_step(step)
        return plan if step.index > 0 or _sees_state(plan) else exponential_step(step)

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        return StateFirst(self.inner.choose(process, eta, steps))

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        return self.inner.label(process, eta, steps)

    def check(self, process: ForwardProcess, eta: float) -> None:
        self.inner.check(process, eta)


@attrs.frozen
class Route:
    """The steps of a run: times, method, and the plans that `srk.solve` would make.

    Arguments:
        process: the process that is reversed.
        solver: the integrator that was asked for.
        eta: stochasticity.
        times: own times of the ends of the steps, decreasing.
        denoise: whether a denoising step follows.
    """

    process: LinearProcess
    solver: Integrator
    eta: float
    times: tuple[float, ...]
    denoise: bool

    def plans(self) -> list[StepPlan]:
        """The plans of all steps."""
        plans = (
            plan_grid(self.process, self._method(len(self.times) - 1), self.times, self.eta)
            if len(self.times) > 1
            else []
        )
        return plans + self._last()

    def after(self, step: int, stage: int) -> list[StepPlan]:
        """The plans of a run that starts at evaluation `stage` of step `step` of this one, with no history.

        Where the network does not see the state at the start of the step there, the run goes to the end of the step by one of the first order; evaluations
        that the step has left then are not used.
        """
        plan = self.plans()[step]
        if stage == 0 and _sees_state(plan):
            return attrs.evolve(self, times=self.times[step:]).plans()
        first, *unused = [entry.level for entry in plan.stages[stage:]]
        across = Step(self.process, first, plan.stop, self.eta)
        if not plan.stop.lam > first.lam:
            plans = [_idle(across)]
        else:
            plans = [denoising_step(across) if plan.stop.sigma == 0.0 else exponential_step(across)]
        plans += [_idle(Step(self.process, level, plan.stop, self.eta)) for level in unused]
        levels = [self.process.level(t) for t in self.times[step + 1 :]]
        method = self._method(len(levels))
        notes: tuple[Any, ...] = ()
        for index, (start, stop) in enumerate(pairwise(levels), start=1):
            plans.append(
                method.plan_step(
                    Step(self.process, start, stop, self.eta, index, notes, len(levels))
                )
            )
            notes = plans[-1].notes
        return plans + self._last()

    def _method(self, steps: int) -> Integrator:
        return self.solver.choose(self.process, self.eta, steps)

    def _last(self) -> list[StepPlan]:
        if not self.denoise:
            return []
        level = self.process.level(self.times[-1])
        return [
            denoising_step(Step(self.process, level, Level(level.t, 1.0, 0.0, math.inf), self.eta))
        ]


def _idle(step: Step) -> StepPlan:
    """A step that asks for an evaluation and stays where it is."""
    board = step.draft()
    board.evaluate(board.state, step.start)
    return board.finish(board.state)


class Walk:
    """A run of `plans` from a state that its first evaluation sees.

    Arguments:
        plans: the steps.
        noise: a noise source, not yet started.
        sample: what the states look like, (batch, *event).
    """

    def __init__(self, plans: Sequence[StepPlan], noise: NoiseSource, sample: Tensor) -> None:
        self._plans, self._next = list(plans), 0
        noise.start(sample.shape, sample.dtype, sample.device)
        noise.prepare(plans)
        self._executor = Executor(_not_called, noise)
        self._memory: list[Tensor] = []
        self._walk: Generator[tuple[Tensor, Stage], Tensor, Outcome] | None = None
        self._input: Tensor | None = None

    def advance(self, sample: Tensor, result: Tensor) -> Tensor:
        """The next network input (after the last call: the result), given what the plans want to know at the current one.

        Arguments:
            sample: what the network saw; the step goes on from here even if it is not what was handed out.
            result: its denoiser, or where the plans are folded the network's output.
        """
        if self._walk is None:
            self._enter(sample.clone())
        assert self._walk is not None and self._input is not None
        self._input.copy_(sample)
        try:
            self._input, _ = self._walk.send(result)
            return self._input.clone()
        except StopIteration as end:
            outcome: Outcome = end.value
        self._memory, self._walk = outcome.keep, None
        if self._next == len(self._plans) or _sees_state(self._plans[self._next]):
            return outcome.state  # the next call brings it back, perhaps changed
        return self._enter(outcome.state).clone()

    def _enter(self, state: Tensor) -> Tensor:
        plan = self._plans[self._next]
        self._next += 1
        self._walk = self._executor.walk(plan, state, self._memory)
        self._input, _ = next(self._walk)
        return self._input


def folded(plan: StepPlan, prediction: NetworkPrediction) -> StepPlan:
    """The plan in terms of what the network says, as `srk.solve` runs it."""
    pairs = tuple(prediction.coefficients(stage.level) for stage in plan.stages)
    if all(pair == (0.0, 1.0) for pair in pairs):
        return plan
    if pairs not in plan.programs:
        plan.programs[pairs] = fold(plan, pairs)
    made: StepPlan = plan.programs[pairs]
    return made


def _sees_state(plan: StepPlan) -> bool:
    return plan.stages[0].row == ((STATE, 1.0),)


def _not_called(x: Tensor, stage: Stage) -> Tensor:
    raise AssertionError("the pipeline calls the network")


class PipelineNoise(NoiseSource):
    """The draws of diffusers: from the generator, or the list of one generator a sample, that the pipeline gives to `step`."""

    name = "pipeline"

    def __init__(self) -> None:
        self.generator: torch.Generator | list[torch.Generator] | None = None

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        raise AssertionError("the pipeline draws the first state")

    def draw(self, slot: object, clock: str, out: Tensor) -> None:
        from diffusers.utils.torch_utils import randn_tensor

        out.copy_(
            randn_tensor(out.shape, generator=self.generator, device=out.device, dtype=out.dtype)
        )
