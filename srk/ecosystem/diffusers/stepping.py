"""The run: from the network's output to its next input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.network import folded
from srk.ecosystem.diffusers.interface import BaseOutput
from srk.ecosystem.diffusers.noise import PipelineNoise, seeds_of
from srk.ecosystem.diffusers.running import Left, Running, lock, under_way
from srk.ecosystem.diffusers.scheduled import Scheduled
from srk.ecosystem.diffusers.walk import Walk
from srk.errors import (
    ArgumentError,
    IncompatibleError,
    ScoreError,
)
from srk.integrators import integrator
from srk.noise import NOISES, NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.base import Level
from srk.scores.convert import combine
from srk.scores.inputs import scale_value


@dataclass
class SRKSchedulerOutput(BaseOutput):  # type: ignore[misc]  # diffusers is untyped here
    """What `SRKScheduler.step` returns.

    Arguments:
        prev_sample: the next network input, (batch, *event); after the last call the result.
        pred_original_sample: the denoised prediction at the sample that `step` was given, same
            shape.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class Stepping(Scheduled):
    """A scheduler that takes the steps of a run, and can be copied in the middle of one."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """What the network shall see of `sample` (batch, *event) at `timestep`.

        That is `sample` itself, except for the family "edm" and for frame="sigma".
        """
        frame = self.config.frame
        if self._convention.family != "edm" and frame is None:
            if sample.ndim == 0:
                raise IncompatibleError(
                    "this pipeline scales a noise level as if it were a state: it computes with "
                    "scheduler.sigmas itself, for states x/alpha. Make the scheduler with "
                    "frame='sigma': SRKScheduler.from_config(config, frame='sigma')"
                )
            return sample
        level = self._entries[self._index(timestep)].level
        if frame is not None:
            return sample * level.alpha
        return sample * scale_value(self._prediction.input_scale, level)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> SRKSchedulerOutput | tuple[Tensor, Tensor]:
        """From the network's output at `sample` to its next input.

        Arguments:
            model_output: the network's output, (batch, *event); with learned variances twice the
                channels.
            timestep: the entry of `timesteps` that the network was called with.
            sample: its input, (batch, *event), before `scale_model_input`. Half precision is
                computed in float32 and returned as it came.
            generator: of the noise, or one for each sample. None: generators of the scheduler's
                own, which the states at the start of the run seed, so that a run repeats.
            return_dict: False returns a tuple.
            options: `eta` (a number), the stochasticity of the run instead of that of the config;
                where it changes within a run, the solver starts anew there. `per_token_timesteps`
                (batch, tokens), flow networks' times of each token as LTX's pipelines give them,
                with the negative of the network's output: a token whose time is below `timestep`
                stays as it is. What else pipelines pass must be None.

        Raises:
            ArgumentError: `timestep` is not the next one, or an option is not known.
            ScoreError: `model_output` does not fit `sample`.
            IncompatibleError: the pipeline does what only its own scheduler can follow.
        """
        eta, tokens = _options(options)
        index = self._index(timestep)
        entry, prediction = self._entries[index], self._prediction
        x, output = _wide(sample), _wide(model_output)
        if (
            "channels" in self._convention.options
            and output.ndim > 1
            and output.shape[1] == 2 * x.shape[1]
        ):
            output = output[:, : x.shape[1]]
        if output.shape != x.shape:
            raise ScoreError(
                f"the network returned shape {tuple(output.shape)} for a sample of shape "
                f"{tuple(x.shape)}; if it also learns the variance, use "
                "variance_type='learned_range'"
            )
        frame = self.config.frame is not None
        if frame:
            x = x * entry.level.alpha
        with torch.no_grad():
            output = output.to(x.dtype)
            held: Tensor | None = None
            if tokens is not None:
                output, held = self._per_token(output, x, tokens, entry.level)
            hook = self._convention.hook
            denoised = combine(prediction.coefficients(entry.level), x, output)
            if hook is not None:
                denoised = hook(denoised, entry.level)
            rounding = max(torch.finfo(one.dtype).eps for one in (sample, model_output))
            run, early = self._started(index, x, generator, eta, rounding)
            if early:  # handed over at the next entry: this call was at another level
                following = x
            else:
                if isinstance(run.walk.noise, PipelineNoise):
                    run.walk.noise.generator = generator
                following = run.walk.advance(x, output if hook is None else denoised)
        self._step_index = run.index = index + 1
        if run.walk.done:
            with lock:
                under_way.discard(self)
        if frame and index + 1 < len(self._entries):
            following = following / self._entries[index + 1].level.alpha
        elif frame and self._route is not None:
            following = following / self._route.plans()[-1].stop.alpha
        if held is not None:
            following = torch.where(held, sample.to(following.dtype), following)
        result = following.to(sample.dtype), denoised.to(sample.dtype)
        return SRKSchedulerOutput(*result) if return_dict else result

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
                eta = self._eta if eta is None else eta
                walk = self._begin(index, x, generator, eta, rounding)
                self._run = Running(walk, index, eta, index, rounding)
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

    def _per_token(
        self, output: Tensor, x: Tensor, tokens: Tensor, level: Level
    ) -> tuple[Tensor, Tensor]:
        """The output as that at one level, and which tokens stay, with times of their own."""
        if self._convention.family != "flow":
            raise ArgumentError("per_token_timesteps is for flow networks; leave it out")
        own = tokens.to(x) / float(self.config.num_train_timesteps)
        own = own.reshape(*own.shape, *[1] * (x.ndim - own.ndim))
        denoised = x + own * output  # the output is given with the other sign
        return (x - denoised) / level.sigma, (own < level.sigma - 1e-6).expand_as(x)

    def _begin(
        self,
        index: int,
        x: Tensor,
        generator: torch.Generator | list[torch.Generator] | None,
        eta: float,
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

    def _plans_from(self, index: int, eta: float, rounding: float) -> list[StepPlan]:
        """The plans of a run that starts at entry `index`, as the walk takes them."""
        assert self._route is not None
        entry = self._entries[index]
        route = attrs.evolve(self._route, eta=eta, resolution=rounding)
        if eta != self._route.eta:
            route.solver.check(route.process, eta)
        plans = route.after(entry.step, entry.stage)
        expected = [other.level for other in self._entries[index:]]
        if _calls(plans) != expected and entry.stage == 0:
            plans = route.counted(entry.step)
        if _calls(plans) != expected:
            raise IncompatibleError(
                f"{self.config.solver} started here with eta={eta:g} makes other network calls "
                "than the timesteps say; start at the first of them, and give eta to from_config"
            )
        prediction = self._prediction
        if self._convention.hook is not None:
            return plans
        return [folded(plan, prediction) for plan in plans]

    def _every_step_draws(self, eta: float) -> bool:
        """Whether the scheduler of diffusers that is replaced draws in steps without noise too."""
        config = self.config
        own = config.get("host") == "SASolverScheduler" and config.noise == "generator"
        return bool(own and isinstance(self._method(), type(integrator("sa-solver"))) and eta > 0.0)

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

    # -- copies -----------------------------------------------------------------------------------

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
MADE_AGAIN = ("_made", "_entries", "_values", "_route", "_left", "_last", "_told", "_sigmas_then")


def _options(options: dict[str, Any]) -> tuple[float | None, Tensor | None]:
    """`eta` and `per_token_timesteps` among what a pipeline passes to `step`."""
    eta, tokens = options.pop("eta", None), options.pop("per_token_timesteps", None)
    unknown = [key for key, value in options.items() if value is not None]
    if unknown:
        raise ArgumentError(
            f"step() has no option {', '.join(unknown)}: it belongs to a scheduler of diffusers. "
            "Options of a solver are given to SRKScheduler.from_config(..., solver_options={...}); "
            "a pipeline that passes it needs its own scheduler"
        )
    return None if eta is None else float(eta), tokens


def _calls(plans: Sequence[StepPlan]) -> list[Level]:
    """The levels of all network calls."""
    return [stage.level for plan in plans for stage in plan.stages]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
