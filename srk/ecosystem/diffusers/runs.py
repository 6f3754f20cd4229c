"""Which run a call of a scheduler belongs to, and the plans of that run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.network import folded
from srk.ecosystem.diffusers.noise import PipelineNoise, seeds_of
from srk.ecosystem.diffusers.running import Left, Running, Stochasticity, lock, under_way
from srk.ecosystem.diffusers.scheduled import Scheduled
from srk.ecosystem.diffusers.walk import Walk
from srk.errors import (
    IncompatibleError,
)
from srk.integrators import integrator
from srk.noise import NOISES, NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.base import Level


class Runs(Scheduled):
    """A scheduler with a run, which can be copied in its middle and handed over."""

    def _started(
        self,
        index: int,
        x: Tensor,
        generator: torch.Generator | list[torch.Generator] | None,
        eta: float | None,
        rounding: float,
    ) -> tuple[Running, bool]:
        """The run that entry `index` belongs to; and whether it goes on at the entry after it."""
        run = self._run
        if run is None or self._step_index is None or self._step_index == len(self._entries):
            taken = self._handed_over(index, x)
            if taken is None:
                assert self._route is not None
                ran = self._route.eta if eta is None else eta
                walk = self._begin(index, x, generator, ran, rounding)
                self._run = Running(walk, index, ran, index, rounding)
                early = False
            else:
                self._run, early = taken, taken.index == index + 1
            self._left = None
            with lock:
                under_way.add(self)
            return self._run, early
        if run.index != index:
            raise IncompatibleError(
                f"the pipeline set the scheduler back from entry {run.index} to {index} of its "
                "timesteps, as those of Cosmos do, which only their own scheduler can follow; keep "
                "that scheduler"
            )
        if eta is not None and eta != run.eta:
            run.walk = self._begin(index, x, generator, eta, run.resolution)
            run.begin, run.eta = index, eta
        return run, False

    def _handed_over(self, index: int, x: Tensor) -> Running | None:
        """The run of another pipeline (SDXL's base model) that stopped with the state `x`.

        It is recognised by its entries and by the values of what it handed out last. A refiner
        counts one entry less than the base model left over where a step has two calls.
        """
        if not index or self._begin_index != index or self._noised:
            return None
        mine = self.integrator
        candidates = [] if self._left is None else [self._left]
        with lock:
            others = list(under_way)
        for other in others:
            run = other._run
            if other is not self and run is not None and other._request is not None:
                candidates.append(Left(other._request, other._entries, other.integrator, run))
        for left in candidates:
            run = left.run
            if (
                run.index in (index, index + 1)
                and left.method == mine
                and left.entries == self._entries
                and run.walk.handed(x)
            ):
                return run
        return None

    def _begin(
        self,
        index: int,
        x: Tensor,
        generator: torch.Generator | list[torch.Generator] | None,
        eta: Stochasticity,
        rounding: float,
    ) -> Walk:
        if not torch.equal(self.sigmas, self._sigmas_then):
            raise IncompatibleError(
                "the pipeline changed scheduler.sigmas after set_timesteps, which the steps of "
                "this scheduler do not follow; give the levels by set_timesteps(sigmas=...)"
            )
        return Walk(
            self._plans_from(index, eta, rounding),
            self._noise(x, generator),
            x,
            every_step_draws=self._every_step_draws(eta),
        )

    def _plans_from(self, index: int, eta: Stochasticity, rounding: float) -> list[StepPlan]:
        """The plans of a run that starts at entry `index`, as the walk takes them."""
        assert self._route is not None
        entry = self._entries[index]
        route = attrs.evolve(self._route, eta=eta, resolution=rounding)
        if isinstance(eta, float) and eta != self._route.eta:
            route = attrs.evolve(route, diffusion=None)
            route.solver.check(route.process, eta)
        plans = route.after(entry.step, entry.stage)
        expected = [other.level for other in self._entries[index:]]
        if _calls(plans) != expected and entry.stage == 0:
            plans = route.counted(entry.step)
        if _calls(plans) != expected:
            raise IncompatibleError(
                f"{self.config.solver} started here with eta={eta!r} makes other network calls "
                "than the timesteps say; start at the first of them, and give eta to from_config"
            )
        prediction = self._prediction
        if self._convention.hook is not None:
            return plans
        return [folded(plan, prediction) for plan in plans]

    def _every_step_draws(self, eta: Stochasticity) -> bool:
        """Whether the scheduler of diffusers that is replaced draws in steps without noise too."""
        config = self.config
        own = config.get("host") == "SASolverScheduler" and config.noise == "generator"
        noisy = eta > 0.0 if isinstance(eta, float) else any(one > 0.0 for one in eta)
        return bool(own and noisy and isinstance(self._method(), type(integrator("sa-solver"))))

    def _noise(
        self, x: Tensor, generator: torch.Generator | list[torch.Generator] | None
    ) -> NoiseSource:
        if self.config.noise == "generator":
            return PipelineNoise(x, self.config.seed)
        source: Any = NOISES[self.config.noise]
        if self.config.seed is not None:
            made = source(self.config.seed)
        elif isinstance(generator, (list, tuple)):
            made = source(seeds=[one.initial_seed() for one in generator])
        elif generator is not None:
            made = source(generator.initial_seed())
        else:
            made = source(seeds=seeds_of(x))
        result: NoiseSource = made
        return result

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes along: the numbers are made again, the state is kept."""
        state = {key: value for key, value in self.__dict__.items() if key not in MADE_AGAIN}
        if self._left is not None:
            state["_left"] = (self._left.request, self._left.run)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        left = state.pop("_left", None)
        self.__dict__.update(state, _made=None, _entries=[], _values=[], _route=None, _left=None)
        self._last, self._told = None, ()
        if left is not None:
            request, run = left
            self._prepare(request)
            run.walk.resume(self._plans_from(run.begin, run.eta, run.resolution))
            self._left = Left(request, self._entries, self.integrator, run)
        if self._request is not None:
            sigmas, timesteps = state["sigmas"], state["timesteps"]
            self._prepare(self._request, timesteps.device)
            self.timesteps, self.sigmas = timesteps, sigmas
        if self._run is not None:
            run = self._run
            run.walk.resume(self._plans_from(run.begin, run.eta, run.resolution))
            if not run.walk.done:
                with lock:
                    under_way.add(self)


#: What a copy of a scheduler makes again.
MADE_AGAIN = (
    *("_made", "_entries", "_values", "_route", "_left", "_last", "_told", "_sigmas_then"),
    *("_follows", "_replay", "_replayed", "_given"),
)


def _calls(plans: Sequence[StepPlan]) -> list[Level]:
    """The levels of all network calls."""
    return [stage.level for plan in plans for stage in plan.stages]
