"""The density of a step of a scheduler, for reinforcement learning on its pipelines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from srk._engine.conditional import Conditional, Gaussian, forgets
from srk.ecosystem.diffusers.output import SRKSchedulerOutput
from srk.ecosystem.diffusers.runs import Runs
from srk.errors import ArgumentError, IncompatibleError
from srk.plans.plan import StepPlan

LOG_2_PI = math.log(2.0 * math.pi)


class Densities(Runs):
    """A scheduler that tells the distribution of what it hands out."""

    #: The run whose densities are followed, and what is known of it; and the same of a replay.
    _follows: tuple[Any, Conditional] | None = None
    _replay: tuple[int, Conditional] | None = None
    #: The state that the replay was given last.
    _replayed: Tensor | None = None

    def _ahead(self, run: Any, index: int, x: Tensor, told: Tensor) -> Gaussian:
        """The distribution of what the call at entry `index` of a run hands out.

        Arguments:
            run: the run.
            index: the entry of the call.
            x: what the network saw, (batch, *event).
            told: what it said there, in the form that the plans take.
        """
        plans: Sequence[StepPlan] = run.walk.plans
        entry = self._entries[index]
        first = index == run.begin
        if self._follows is not None and self._follows[0] is run.walk and not first:
            known = self._follows[1]
        elif first:
            known = Conditional(plans, x)
        else:
            plan = plans[-(self._entries[-1].step - entry.step + 1)]
            if not forgets(plan):
                raise IncompatibleError(
                    f"return_log_prob=True came with entry {index} of a run, but a step of "
                    f"{self.config.solver} depends on the calls before it: ask from the first "
                    "call of the run on, or use a solver that sees the state alone, such as "
                    "solver='euler-maruyama' or 'ddpm'"
                )
            known = Conditional([plan], x)
            known.tell(x, told)
            return known.next
        known.tell(x, told)
        self._follows = run.walk, known
        return known.next

    def _replayed_to(self, index: int, sample: Tensor) -> int:
        """The entry that a timestep stands for whose first entry is `index`.

        The calls of a step may have one timestep. A replay that is given the state that it ended at
        goes on from there.
        """
        if self._replay is None or self._replayed is None:
            return index
        following = self._replay[0]
        if following == index or following >= len(self._values):
            return index
        repeats = self._values[following] == self._values[index]
        goes_on = repeats and self._replayed.shape == sample.shape
        return following if goes_on and torch.equal(self._replayed.to(sample), sample) else index

    def _asked(self, positions: Sequence[int], x: Tensor, told: Tensor, rounding: float) -> Any:
        """The distribution of a state that is given, without a run.

        Arguments:
            positions: the entry of each sample, or one for all.
            x: what the network saw, (batch, *event).
            told: what it said there.
            rounding: that of the states.

        Returns:
            Mean, (batch, *event), and standard deviations, (batch,) as floats.
        """
        assert self._route is not None
        plans = self._plans_from(0, self._route.eta, rounding)
        own = [plans[self._entries[index].step] for index in positions]
        if all(map(forgets, plans)):
            return _each(own, x, told)
        index = positions[0]
        if any(other != index for other in positions):
            raise IncompatibleError(
                f"a step of {self.config.solver} depends on the calls before it, so that its "
                "samples are read again together, call by call; give one timestep for all, or use "
                "a solver that sees the state alone, such as solver='euler-maruyama' or 'ddpm'"
            )
        if index == 0:
            known = Conditional(plans, x)
        elif self._replay is not None and self._replay[0] == index:
            known = self._replay[1]
        else:
            raise IncompatibleError(
                f"a step of {self.config.solver} depends on the calls before it: give the states "
                f"of a run as prev_sample in order, from the first timestep on, not entry {index} "
                f"{'first' if self._replay is None else f'after {self._replay[0] - 1}'}; or use "
                "a solver that sees the state alone, such as solver='euler-maruyama' or 'ddpm'"
            )
        known.tell(x, told)
        self._replay = index + 1, known
        ahead = known.next
        return ahead.mean, [ahead.std] * len(x)


def _each(plans: Sequence[StepPlan], x: Tensor, told: Tensor) -> tuple[Tensor, list[float]]:
    """Means and deviations of samples that are each at a step of their own."""
    if all(plan is plans[0] for plan in plans):
        known = Conditional(plans[:1], x)
        known.tell(x, told)
        return known.next.mean, [known.next.std] * len(x)
    means: list[Tensor] = []
    stds: list[float] = []
    for i, plan in enumerate(plans):
        known = Conditional([plan], x[i : i + 1])
        known.tell(x[i : i + 1], told[i : i + 1])
        means.append(known.next.mean)
        stds.append(known.next.std)
    return torch.cat(means), stds


def with_density(
    output: SRKSchedulerOutput, mean: Tensor, stds: Sequence[float], *, must: bool
) -> SRKSchedulerOutput:
    """The output of a step with the density of its `prev_sample`.

    Arguments:
        output: what the step hands out.
        mean: the mean of `prev_sample`, (batch, *event).
        stds: its standard deviation, one for each sample.
        must: whether a step without noise is an error.
    """
    shape = (-1, *[1] * (mean.ndim - 1))
    std = torch.tensor(stds, dtype=mean.dtype, device=mean.device).view(shape)
    both = output.prev_sample, output.pred_original_sample
    if min(stds) == 0.0:
        if must:
            raise ArgumentError(
                f"{stds.count(0.0)} of {len(stds)} samples are at a step that draws no noise (the "
                "last one, which is the denoised prediction, or one with eta=0), so that their "
                "prev_sample has no density; leave those timesteps out"
            )
        return SRKSchedulerOutput(*both, mean, std)
    value = output.prev_sample.detach().to(mean.dtype)
    dimensions = tuple(range(1, mean.ndim))
    terms = -0.5 * ((value - mean) / std).square() - std.log() - 0.5 * LOG_2_PI
    return SRKSchedulerOutput(*both, mean, std, terms.sum(dimensions), terms.mean(dimensions))
