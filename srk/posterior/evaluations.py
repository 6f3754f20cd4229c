"""What the network and the reward say about the particles of a steered run, and what it costs.

All of them ask for so many particles at a time, which bounds the memory of a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from srk._engine.memory import changed_in_place, version
from srk.errors import ScoreError
from srk.plans.plan import Stage
from srk.posterior.base import Pullback, needs_signal
from srk.processes.base import Level, LinearProcess
from srk.scores.base import Prediction
from srk.scores.convert import combine, denoiser_from_score

Reward = Callable[[Tensor], Tensor]


@attrs.define(eq=False)
class Evaluations:
    """Answers for all particles, and the count of what they cost.

    Arguments:
        process, prediction: what is reversed, with which bound prediction.
        proposal: the bound prediction that proposes, where it is another one.
        gradient: whether the reward's gradient proposes.
        reward: r.
        eta: stochasticity, for solvers that ask for the reverse drift.
        microbatch: particles in one network call.
    """

    process: LinearProcess
    prediction: Prediction
    proposal: Prediction | None
    gradient: bool
    reward: Reward
    eta: float
    microbatch: int
    nfe: int = 0
    score_seconds: float = 0.0

    @property
    def twisted(self) -> bool:
        """Whether steps are proposed with something else than the model says."""
        return self.gradient or self.proposal is not None

    def model(self, x: Tensor, stage: Stage) -> tuple[Tensor, list[Tensor]]:
        """What a stage asks for at the states `x`; and the denoised predictions, in pieces."""
        began, level = time.perf_counter(), stage.level
        results, denoised = [], []
        for rows in self._pieces(x):
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
        return torch.cat(results), denoised

    def model_and_proposal(
        self, x: Tensor, stage: Stage, weight: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the model and what the proposal say at the states, and the rewards."""
        began, level, before = time.perf_counter(), stage.level, version(x)
        base, twisted, rewards = [], [], []
        for rows in self._pieces(x):
            prediction, part = self.prediction.select(rows, len(x)), x[rows]
            if self.proposal is not None:
                d = prediction.denoise(part, level, self.process).clone()
                proposal = self.proposal.select(rows, len(x))
                other = proposal.denoise(part, level, self.process).clone()
                value = self._reward(d)
            else:
                d, other, value = self._pulled(prediction, part, level, weight)
            base.append(d)
            twisted.append(other)
            rewards.append(value.clone())
        if version(x) != before:
            raise changed_in_place()
        self.nfe += self.prediction.calls(level.t)
        if self.proposal is not None:
            self.nfe += self.proposal.calls(level.t)
        elif weight != 0.0:
            self.nfe += self.prediction.calls(level.t)
        self.score_seconds += time.perf_counter() - began
        results = torch.cat(base), torch.cat(twisted)
        if stage.kind == "drift":
            results = self._drift(x, results[0], level), self._drift(x, results[1], level)
        return (*results, torch.cat(rewards))

    def rewards(self, denoised: Tensor) -> Tensor:
        """The reward of each particle, shape (n,)."""
        # a reward network, too, may own its memory
        return torch.cat([self._reward(p).clone() for p in torch.split(denoised, self.microbatch)])

    def _pieces(self, x: Tensor) -> list[slice]:
        size = self.microbatch
        return [slice(first, first + size) for first in range(0, len(x), size)]

    def _pulled(
        self, prediction: Prediction, x: Tensor, level: Level, weight: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D, D + (sigma^2/alpha) grad_x lambda r(D), and r(D)."""
        if weight == 0.0 or level.sigma == 0.0:
            d = prediction.denoise(x, level, self.process).clone()
            return d, d, self._reward(d)
        needs_signal(level, self.reward)
        pull = Pullback(prediction, x, level, self.process)
        with torch.inference_mode(False), torch.enable_grad():
            point = pull.denoised.detach().clone().requires_grad_()
            value = self._reward(point)
            if not value.requires_grad:
                raise ScoreError(
                    "twist=True needs a reward that depends on the samples by differentiable "
                    "operations; this one does not: use twist=False"
                )
            (gradient,) = torch.autograd.grad(value.sum(), point)
        scale = weight * level.sigma * (level.sigma / level.alpha)
        return pull.denoised.clone(), pull.denoised + scale * pull(gradient), value.detach()

    def _drift(self, x: Tensor, denoised: Tensor, level: Level) -> Tensor:
        half = 0.5 * (1.0 + self.eta**2) * self.process.diffusion(level.t) ** 2
        score = (level.alpha * denoised - x) / level.sigma**2
        return score * half - self.process.drift(level.t, x)

    def _reward(self, denoised: Tensor) -> Tensor:
        """What the reward says about some of the particles, checked."""
        value, n = self.reward(denoised), len(denoised)
        if not isinstance(value, Tensor) or tuple(value.shape) != (n,):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ScoreError(
                f"the reward must return one number for each sample, a tensor of shape ({n},); it "
                f"returned {got}"
            )
        return value
