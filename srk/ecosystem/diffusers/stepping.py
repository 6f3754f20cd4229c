"""The run: from the network's output to its next input."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from srk._engine.memory import version
from srk.ecosystem.diffusers.densities import Densities, with_density
from srk.ecosystem.diffusers.noise import PipelineNoise
from srk.ecosystem.diffusers.output import SRKSchedulerOutput
from srk.ecosystem.diffusers.running import lock, under_way
from srk.errors import (
    ArgumentError,
    IncompatibleError,
    ScoreError,
)
from srk.processes.base import Level
from srk.scores.convert import combine
from srk.scores.inputs import scale_value


class Stepping(Densities):
    """A scheduler that takes the steps of a run."""

    #: The state that `scale_model_input` was given last, and its version then.
    _given: tuple[Any, int] | None = None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """What the network shall see of `sample` (batch, *event) at `timestep`.

        That is `sample` itself, except for the family "edm" and for frame="sigma". Until `step` the
        sample must stay as it is: whoever edits it does so after a step, or edits a copy.
        """
        self._given = weakref.ref(sample), version(sample)
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
        *,
        return_log_prob: bool = False,
        prev_sample: Tensor | None = None,
        **options: Any,
    ) -> SRKSchedulerOutput | tuple[Any, ...]:
        """From the network's output at `sample` to its next input.

        Arguments:
            model_output: the network's output, (batch, *event); with learned variances twice the
                channels.
            timestep: the entry of `timesteps` that the network was called with.
            sample: its input, (batch, *event), before `scale_model_input`. Half precision is
                computed in float32 and returned as it came.
            generator: of the noise, or one for each sample. None: generators of the scheduler's
                own, which the states at the start of the run seed, so that a run repeats.
            return_dict: False returns a tuple of the values of `SRKSchedulerOutput`, as far as they
                are there.
            return_log_prob: whether mean, standard deviation and log-density of the next input are
                returned too (see `SRKSchedulerOutput`). Any solver has them; one that depends on
                earlier calls must be asked from the first call of a run on.
            prev_sample: what another step handed out from here, (batch, *event). It is returned in
                place of a new draw, with its density under `model_output`; the run, if there is
                one, stays where it is. Solvers that see the state alone ("euler-maruyama", "ddpm",
                "euler-ancestral", ...) take any timestep, or a tensor with one for each sample;
                others take the timesteps of a run in order.
            options: `eta` (a number), the stochasticity of the run instead of that of the config;
                where it changes within a run, the solver starts anew there. `per_token_timesteps`
                (batch, tokens), flow networks' times of each token as LTX's pipelines give them,
                with the negative of the network's output: a token whose time is below `timestep`
                stays as it is. What else pipelines pass must be None.

        Raises:
            ArgumentError: `timestep` is not the next one, an option is not known, or `prev_sample`
                is given at a step that draws no noise.
            ScoreError: `model_output` does not fit `sample`.
            IncompatibleError: the pipeline does what only its own scheduler can follow, or the
                sample was changed in place since `scale_model_input`.
        """
        eta, tokens = _options(options)
        self._check_unchanged(sample)
        dense = return_log_prob or prev_sample is not None
        if dense and tokens is not None:
            raise IncompatibleError("per_token_timesteps leave no density of the whole sample")
        if prev_sample is not None:
            if eta is not None:
                raise ArgumentError("with prev_sample give eta to from_config, not to step")
            output = self._read_again(model_output, timestep, sample, prev_sample)
            return output if return_dict else output.to_tuple()
        index = self._index(timestep)
        entry = self._entries[index]
        x, said = self._states(sample, model_output, entry.level)
        held: Tensor | None = None
        with torch.no_grad():
            heard = said
            if tokens is not None:
                heard, held = self._per_token(said, x, tokens, entry.level)
            denoised, told = self._heard(x, heard, entry.level)
            rounding = max(torch.finfo(one.dtype).eps for one in (sample, model_output))
            run, early = self._started(index, x, generator, eta, rounding)
            if early:  # handed over at the next entry: this call was at another level
                following = x
            else:
                if isinstance(run.walk.noise, PipelineNoise):
                    run.walk.noise.generator = generator
                following = run.walk.advance(x, told)
        self._step_index = run.index = index + 1
        if run.walk.done:
            with lock:
                under_way.discard(self)
        scale = self._scale_after(index)
        if scale != 1.0:
            following = following / scale
        if held is not None:
            following = torch.where(held, sample.to(following.dtype), following)
        output = SRKSchedulerOutput(following.to(sample.dtype), denoised.to(sample.dtype))
        if dense and not early:
            ahead = self._ahead(run, index, x, self._heard(x, said, entry.level)[1])
            mean = ahead.mean if scale == 1.0 else ahead.mean / scale
            output = with_density(output, mean, [ahead.std / scale] * len(x), must=False)
        return output if return_dict else output.to_tuple()

    def _check_unchanged(self, sample: Tensor) -> None:
        """Raise if the state was written to since `scale_model_input` was given it."""
        given, self._given = self._given, None
        if given is not None and given[0]() is sample and given[1] != version(sample):
            raise IncompatibleError(
                "the state was changed in place between scale_model_input and step, so that the "
                "network's output does not belong to it: by an edit such as latents[:] = ..., or "
                "by a network that writes to its input. Edit the state that step returned, before "
                "scale_model_input, or give the network a copy"
            )

    def _read_again(
        self, model_output: Tensor, timestep: Any, sample: Tensor, prev_sample: Tensor
    ) -> SRKSchedulerOutput:
        """`step` for a next input that is known."""
        if prev_sample.shape != sample.shape:
            raise ArgumentError(
                f"prev_sample has shape {tuple(prev_sample.shape)}, but sample "
                f"{tuple(sample.shape)}; give what the step from there handed out"
            )
        self._ready()
        several = isinstance(timestep, Tensor) and timestep.ndim > 0
        times = list(timestep.flatten()) if several else [timestep]
        if len(times) not in (1, len(sample)):
            raise ArgumentError(
                f"{len(times)} timesteps for {len(sample)} samples; give one for all, or one each"
            )
        places = [self._position(t if several else timestep, None) for t in times]
        if len(set(places)) == 1:
            places = [self._replayed_to(places[0], sample)]
        places = places * len(sample) if len(places) == 1 else places
        rounding = max(torch.finfo(one.dtype).eps for one in (sample, model_output))
        if all(place == places[0] for place in places):
            x, said = self._states(sample, model_output, self._entries[places[0]].level)
            denoised, told = self._heard(x, said, self._entries[places[0]].level)
        else:
            parts = []
            for i, place in enumerate(places):
                level = self._entries[place].level
                x, said = self._states(sample[i : i + 1], model_output[i : i + 1], level)
                parts.append((x, *self._heard(x, said, level)))
            x, denoised, told = (torch.cat(part) for part in zip(*parts, strict=True))
        mean, stds = self._asked(places, x, told, rounding)
        self._replayed = prev_sample.detach().clone()
        scales = [self._scale_after(place) for place in places]
        if any(scale != 1.0 for scale in scales):
            shape = (-1, *[1] * (mean.ndim - 1))
            mean = mean / torch.tensor(scales, dtype=mean.dtype, device=mean.device).view(shape)
            stds = [std / scale for std, scale in zip(stds, scales, strict=True)]
        output = SRKSchedulerOutput(prev_sample, denoised.detach().to(sample.dtype))
        return with_density(output, mean, stds, must=True)

    def _states(self, sample: Tensor, model_output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """What the network saw and said, as the plans take it, in float32 or more."""
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
        if self.config.frame is not None:
            x = x * level.alpha
        return x, output.to(x.dtype)

    def _heard(self, x: Tensor, output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The denoiser at `x`, and what the plans want: the output, or the bounded denoiser."""
        hook = self._convention.hook
        denoised = combine(self._prediction.coefficients(level), x, output)
        if hook is None:
            return denoised, output
        denoised = hook(denoised, level)
        return denoised, denoised

    def _scale_after(self, index: int) -> float:
        """What the state after entry `index` is divided by, in frame="sigma"."""
        if self.config.frame is None:
            return 1.0
        if index + 1 < len(self._entries):
            return self._entries[index + 1].level.alpha
        assert self._route is not None
        return float(self._route.plans()[-1].stop.alpha)

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
