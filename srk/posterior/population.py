"""The particles of a steered run: their states, their weights, and a step of all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.eager import Executor
from srk._engine.memory import changed_in_place, version
from srk.errors import ScoreError, SolveError
from srk.noise import NoiseSource
from srk.plans.exponential import final_step
from srk.plans.plan import Stage, StepPlan
from srk.posterior.base import Pullback, Weight, needs_signal, weight_at
from srk.posterior.resampling import Weights, effective_size
from srk.processes.base import Level, LinearProcess
from srk.sampling.sampler import Sampler
from srk.scores.base import Prediction
from srk.scores.convert import combine, denoiser_from_score
from srk.solution import Solution

Reward = Callable[[Tensor], Tensor]


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
        process, prediction: what is reversed, with which bound prediction.
        proposal: the prediction that proposes, where it is another one.
        gradient: whether the reward's gradient proposes.
        reward, temper: r and lambda.
        eta: stochasticity.
        source: the started noise source.
        microbatch: particles in one network call.
        x: the states, shape (n, *event).
    """

    process: LinearProcess
    prediction: Prediction
    proposal: Prediction | None
    gradient: bool
    reward: Reward
    temper: Weight
    eta: float
    source: NoiseSource
    microbatch: int
    x: Tensor
    memory: list[Tensor] = attrs.field(factory=list)
    twisted_memory: list[Tensor] = attrs.field(factory=list)
    nfe: int = 0
    score_seconds: float = 0.0
    weights: Weights = attrs.field(init=False)
    potential: Tensor = attrs.field(init=False)  # lambda r(D) as it stands in the weights
    denoised: Tensor | None = None

    def __attrs_post_init__(self) -> None:
        self.weights = Weights.equal(len(self.x), self.x.device)
        self.potential = torch.zeros_like(self.weights.log)

    # -- one step -----------------------------------------------------------------------------

    def step(self, plan: StepPlan, resampling: tuple[float, float]) -> Tensor:
        """Take a step and resample; returns the effective size before."""
        if self.gradient or self.proposal is not None:
            return self._twisted(plan, resampling)
        self.denoised = None
        out = Executor(self._evaluate, self.source, reuse=False).run(plan, self.x, self.memory)
        self.x, self.memory = out.state, out.keep
        assert self.denoised is not None
        weight = weight_at(self.temper, plan.stages[0].level)
        self._reweigh(weight, self._rewards(self.denoised))
        size = effective_size(self.weights.log)
        self.resample(*resampling)
        return size

    def _twisted(self, plan: StepPlan, resampling: tuple[float, float]) -> Tensor:
        """A step whose proposal is twisted: evaluate, reweigh, resample, propose, correct."""
        (stage,) = plan.stages
        weight = weight_at(self.temper, stage.level)
        base, twisted, rewards = self._both(stage, weight)
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

    def finish(self, eta: float, level: Level, index: int) -> None:
        """The final denoising step, with the model's own prediction."""
        plan = final_step(self.process, level, eta, index)
        executor = Executor(self._evaluate, self.source, reuse=False)
        self.x = executor.run(plan, self.x, []).state

    def close(self) -> None:
        """The last factor: the reward of the samples themselves."""
        self._reweigh(1.0, self._rewards(self.x))

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

    def _rewards(self, denoised: Tensor) -> Tensor:
        pieces = []
        for part in torch.split(denoised, self.microbatch):
            piece = self.reward(part)
            _check_reward(piece, len(part))
            pieces.append(piece.clone())  # a reward network, too, may own its memory
        return torch.cat(pieces)

    # -- the network --------------------------------------------------------------------------

    def _pieces(self) -> list[slice]:
        size = self.microbatch
        return [slice(first, first + size) for first in range(0, len(self.x), size)]

    def _evaluate(self, x: Tensor, stage: Stage) -> Tensor:
        """What a stage asks for, piece by piece; remembers the first denoised prediction."""
        began, level = time.perf_counter(), stage.level
        results, denoised = [], []
        for rows in self._pieces():
            prediction, part = self.prediction.select(rows, len(x)), x[rows]
            if stage.kind == "denoiser":
                d = result = prediction.denoise(part, level, self.process)
            else:
                s = prediction.score(part, level, self.process)
                half = 0.5 * (1.0 + self.eta**2) * self.process.diffusion(level.t) ** 2
                result = s * half - self.process.drift(level.t, part)
                d = combine(denoiser_from_score(level), part, s)
            # a network may own the memory of its result, and write the next piece there
            results.append(result.clone())
            denoised.append(results[-1] if d is result else d.clone())
        self.nfe += self.prediction.calls(level.t)
        self.score_seconds += time.perf_counter() - began
        if self.denoised is None:
            self.denoised = torch.cat(denoised).clone()
        return torch.cat(results)

    def _both(self, stage: Stage, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """What the model and what the proposal say at the states, and the rewards."""
        began, level, before = time.perf_counter(), stage.level, version(self.x)
        base, twisted, rewards = [], [], []
        for rows in self._pieces():
            prediction, part = self.prediction.select(rows, len(self.x)), self.x[rows]
            if self.proposal is not None:
                d = prediction.denoise(part, level, self.process).clone()
                proposal = self.proposal.select(rows, len(self.x))
                other = proposal.denoise(part, level, self.process).clone()
                value = self.reward(d)
                _check_reward(value, len(part))
            else:
                d, other, value = self._pulled(prediction, part, level, weight)
            base.append(d)
            twisted.append(other)
            rewards.append(value.clone())
        if version(self.x) != before:
            raise changed_in_place()
        self.nfe += self.prediction.calls(level.t)
        if self.proposal is not None:
            self.nfe += self.proposal.calls(level.t)
        elif weight != 0.0:
            self.nfe += self.prediction.calls(level.t)
        self.score_seconds += time.perf_counter() - began
        results = torch.cat(base), torch.cat(twisted)
        if stage.kind == "drift":
            results = self._drift(results[0], level), self._drift(results[1], level)
        return (*results, torch.cat(rewards))

    def _pulled(
        self, prediction: Prediction, x: Tensor, level: Level, weight: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D, D + (sigma^2/alpha) grad_x lambda r(D), and r(D)."""
        if weight == 0.0 or level.sigma == 0.0:
            d = prediction.denoise(x, level, self.process).clone()
            value = self.reward(d)
            _check_reward(value, len(x))
            return d, d, value
        needs_signal(level, self.reward)
        pull = Pullback(prediction, x, level, self.process)
        with torch.inference_mode(False), torch.enable_grad():
            point = pull.denoised.detach().clone().requires_grad_()
            value = self.reward(point)
            _check_reward(value, len(x))
            if not value.requires_grad:
                raise ScoreError(
                    "twist=True needs a reward that depends on the samples by differentiable "
                    "operations; this one does not: use twist=False"
                )
            (gradient,) = torch.autograd.grad(value.sum(), point)
        scale = weight * level.sigma * (level.sigma / level.alpha)
        return pull.denoised.clone(), pull.denoised + scale * pull(gradient), value.detach()

    def _drift(self, denoised: Tensor, level: Level) -> Tensor:
        half = 0.5 * (1.0 + self.eta**2) * self.process.diffusion(level.t) ** 2
        score = (level.alpha * denoised - self.x) / level.sigma**2
        return score * half - self.process.drift(level.t, self.x)

    # -- the result ---------------------------------------------------------------------------

    def solution(
        self, sampler: Sampler, plans: Sequence[StepPlan], sizes: Tensor, seconds: float
    ) -> Solution:
        log = self.weights.log
        made = Solution(
            x=self.x,
            status="done",
            nfe=self.nfe,
            mean_nfe=float(self.nfe),
            steps=len(plans),
            rejected=0,
            times=(plans[0].start.t, *(plan.stop.t for plan in plans)),
            solver=sampler.label,
            eta=sampler.one_eta("steering"),
            seed=self.source.seed,
            seconds=seconds,
            score_seconds=self.score_seconds,
            log_weights=log - torch.logsumexp(log, 0),
            log_normalizer=float(self.weights.log_mean()),
            ess=sizes,
        )
        bad = ~torch.isfinite(made.x).flatten(1).all(1)
        if bool(bad.any()) or not math.isfinite(made.log_normalizer or 0.0):
            status = (
                f"failed: {int(bad.sum())} of {len(bad)} samples are NaN or inf, and the mean "
                f"weight is exp({made.log_normalizer!r}); the score or the reward returned that"
            )
            made = attrs.evolve(made, status=status)
            raise SolveError(f"{status}; the state is in .solution.x", made)
        return made


def _check_reward(value: object, n: int) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != (n,):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ScoreError(
            f"the reward must return one number for each sample, a tensor of shape ({n},); it "
            f"returned {got}"
        )
