"""The particles of a steered run: their states, their weights, and a step of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.eager import Executor
from srk.noise import NoiseSource
from srk.plans.exponential import final_step
from srk.plans.plan import Stage, StepPlan
from srk.posterior.base import Weight, weight_at
from srk.posterior.evaluations import Evaluations
from srk.posterior.resampling import Weights, effective_size
from srk.processes.base import Level


class _Silence(NoiseSource):
    """Draws of zero, for the mean of a step."""

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        out.zero_()

    def draw(self, slot: Any, clock: str, out: Tensor) -> None:
        out.zero_()


@attrs.define(eq=False)
class Population:
    """The particles of a run, on their way.

    Arguments:
        evaluations: what answers for the network and the reward.
        temper: lambda.
        source: the started noise source.
        x: the states, shape (n, *event).

    Attributes:
        memory, twisted_memory: what the model's and the proposal's steps keep for the next one.
        weights: the weights of the particles.
        potential: lambda r(D) as it stands in the weights, shape (n,).
    """

    evaluations: Evaluations
    temper: Weight
    source: NoiseSource
    x: Tensor
    memory: list[Tensor] = attrs.field(factory=list)
    twisted_memory: list[Tensor] = attrs.field(factory=list)
    weights: Weights = attrs.field(init=False)
    potential: Tensor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.weights = Weights.equal(len(self.x), self.x.device)
        self.potential = torch.zeros_like(self.weights.log)

    # -- one step -----------------------------------------------------------------------------

    def step(self, plan: StepPlan, resampling: tuple[float, float]) -> Tensor:
        """Take a step and resample; returns the effective size before."""
        if self.evaluations.twisted:
            return self._twisted(plan, resampling)
        first: list[Tensor] = []  # the denoised prediction of the step's first evaluation

        def evaluate(x: Tensor, stage: Stage) -> Tensor:
            result, denoised = self.evaluations.model(x, stage)
            if not first:
                first.append(torch.cat(denoised).clone())
            return result

        out = Executor(evaluate, self.source, reuse=False).run(plan, self.x, self.memory)
        self.x, self.memory = out.state, out.keep
        weight = weight_at(self.temper, plan.stages[0].level)
        self._reweigh(weight, self.evaluations.rewards(first[0]))
        size = effective_size(self.weights.log)
        self.resample(*resampling)
        return size

    def _twisted(self, plan: StepPlan, resampling: tuple[float, float]) -> Tensor:
        """A step whose proposal is twisted: evaluate, reweigh, resample, propose, correct."""
        (stage,) = plan.stages
        weight = weight_at(self.temper, stage.level)
        base, twisted, rewards = self.evaluations.model_and_proposal(self.x, stage, weight)
        self._reweigh(weight, rewards)
        size = effective_size(self.weights.log)
        ancestors = self.resample(*resampling)
        base, twisted = base[ancestors], twisted[ancestors]
        drawn = [c for column, c in plan.update if column.kind == "z"]
        std = math.hypot(*[float(c) for c in drawn])  # type: ignore[arg-type]
        mean = self._run(plan, base, _Silence(), self.memory)
        if std == 0.0:  # nothing is drawn: only the model's own step has a density
            self.x, self.memory = mean.state, mean.keep
            return size
        other = self._run(plan, twisted, _Silence(), self.twisted_memory)
        new = self._run(plan, twisted, self.source, self.twisted_memory).state
        wide = torch.promote_types(new.dtype, torch.float32)
        noise, missed = (new - other.state).to(wide), (new - mean.state).to(wide)
        log_ratio = (noise.square() - missed.square()).flatten(1).sum(1) / (2.0 * std * std)
        self.weights = self.weights.times(log_ratio)
        self.x, self.memory, self.twisted_memory = new, mean.keep, other.keep
        return size

    def _run(self, plan: StepPlan, result: Tensor, noise: NoiseSource, memory: list[Tensor]) -> Any:
        return Executor(lambda x, stage: result, noise, reuse=False).run(plan, self.x, memory)

    def finish(self, level: Level, index: int) -> None:
        """The final denoising step, with the model's own prediction."""
        plan = final_step(self.evaluations.process, level, self.evaluations.eta, index)
        executor = Executor(
            lambda x, stage: self.evaluations.model(x, stage)[0], self.source, reuse=False
        )
        self.x = executor.run(plan, self.x, []).state

    def close(self) -> None:
        """The last factor: the reward of the samples themselves."""
        self._reweigh(1.0, self.evaluations.rewards(self.x))

    # -- weights ------------------------------------------------------------------------------

    def _reweigh(self, weight: float, rewards: Tensor) -> None:
        potential = weight * rewards.to(self.potential)
        self.weights = self.weights.times(potential - self.potential)
        self.potential = potential

    def resample(self, u: float, threshold: float) -> Tensor:
        """Replace particles by copies where the effective size asks for it."""
        if threshold == 0.0:
            return torch.arange(len(self.x), device=self.x.device)
        ancestors, self.weights = self.weights.resampled(u, threshold)
        self.x = self.x[ancestors]
        self.memory = [kept[ancestors] for kept in self.memory]
        self.twisted_memory = [kept[ancestors] for kept in self.twisted_memory]
        self.potential = self.potential[ancestors]
        return ancestors
