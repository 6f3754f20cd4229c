"""The run: from the network's output to its next input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srk.ecosystem.diffusers.interface import BaseOutput
from srk.ecosystem.diffusers.noise import PipelineNoise
from srk.ecosystem.diffusers.running import lock, under_way
from srk.ecosystem.diffusers.runs import Runs
from srk.errors import (
    ArgumentError,
    IncompatibleError,
    ScoreError,
)
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


class Stepping(Runs):
    """A scheduler that takes the steps of a run."""

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


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
