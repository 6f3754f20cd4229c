"""`SRKScheduler`: every solver of srk behind the interface of diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.ecosystem.diffusers.conventions import FAMILIES, Convention, convention, translate
from srk.ecosystem.diffusers.grids import own_times
from srk.ecosystem.diffusers.walk import PipelineNoise, Route, StateFirst, Walk, folded
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    MissingExtraError,
    ScoreError,
)
from srk.integrators import Integrator, integrator
from srk.noise import NOISES, NoiseSource
from srk.processes.base import Level
from srk.scores.adapters import NetworkPrediction
from srk.scores.convert import combine
from srk.scores.inputs import scale_value, time_value
from srk.steps import Problem, Times

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
    from diffusers.utils import BaseOutput
except ImportError as error:
    raise MissingExtraError("srk.ecosystem.diffusers", "diffusers", "diffusers") from error


@dataclass
class SRKSchedulerOutput(BaseOutput):  # type: ignore[misc]  # diffusers is untyped here
    """What `SRKScheduler.step` returns.

    Arguments:
        prev_sample: the next network input, (batch, *event); after the last call the result.
        pred_original_sample: the denoised prediction at the sample that `step` was given, same shape.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


@attrs.frozen
class _Entry:
    """One network call: where it is, and which evaluation of which step."""

    level: Level
    step: int
    stage: int
    timestep: float


class SRKScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped here
    """A diffusers scheduler that runs a solver of srk; the samples are those of `srk.solve`, bit for bit.

    `timesteps` has one entry for each network call, so that a solver with two stages has two for each step; `step` returns the next network
    input in between. It follows that entries may repeat or go back; `step` counts them, and refuses a timestep that is not the one it
    counted to.

    Arguments:
        solver: a registered name (`srk.solvers()`).
        solver_options: options of the solver, e.g. {"data_variance": 0.25}.
        eta: stochasticity; 1 the reverse SDE, 0 the ODE. None: the solver's default. Pipelines' own `eta` argument is not used.
        grid: name of a grid of srk, e.g. "log-snr", instead of `timestep_spacing` and the sigma schedules.
        noise: "generator": draws from the `generator` of `step`, as diffusers does; "keyed" or "brownian": each sample's noise is a function of
            its seed and place in the run only (see `srk.noise`).
        seed: of "keyed" and "brownian"; None takes the initial seed of `generator` (of each, where it is a list).
        process: family of the network: "vp" (DDPM and Stable Diffusion), "flow" (SD3, Flux), "edm" (EDM, Stable Video). None: "vp";
            `from_config` finds it in the other scheduler's config.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction"; None: that of the family.
        rho: exponent of Karras' sigmas.
        sigma_min, sigma_max: ends of the sigma schedules; for "edm" also of the process.

    The other arguments are those of diffusers' schedulers, under the same names.

    Interface: that of diffusers 0.42.

    Examples:
        >>> from diffusers import DDIMScheduler
        >>> scheduler = SRKScheduler.from_config(DDIMScheduler().config, solver="srk2")
        >>> scheduler.set_timesteps(3)  # two calls a step, and the denoising at the end
        >>> [round(float(t), 1) for t in scheduler.timesteps], scheduler.order
        ([666.0, 476.7, 333.0, 234.4, 0.0], 2)
    """

    _compatibles: ClassVar[list[str]] = list(FAMILIES)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        solver: str = "srk2m",
        solver_options: dict[str, Any] | None = None,
        eta: float | None = None,
        grid: str | None = None,
        noise: str = "generator",
        seed: int | None = None,
        process: str | None = None,
        prediction_type: str | None = None,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        variance_type: str | None = None,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        final_sigmas_type: str = "zero",
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        rho: float = 7.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_data: float = 0.5,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        shift_terminal: float | None = None,
        time_shift_type: str = "exponential",
    ) -> None:
        self.integrator  # noqa: B018  # refuse unknown solvers and options now
        if noise not in ("generator", "keyed", "brownian"):
            raise ArgumentError(f"noise must be 'generator', 'keyed' or 'brownian', not {noise!r}")
        # Pipelines correct the config of the scheduler that they are given; what depends on it is made when it is needed.
        self._made: tuple[dict[str, Any], Convention] | None = None
        self.num_inference_steps: int | None = None
        self._entries: list[_Entry] = []
        self._route: Route | None = None
        self._begin_index: int | None = None
        self._step_index: int | None = None
        self._walk: Walk | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The scheduler for the network of another scheduler, whose `config` this is; keyword arguments override it.

        Raises:
            IncompatibleError: the other scheduler is not known, and no `process` says what its network is.
        """
        if isinstance(config, Mapping):
            if config.get("_class_name") != cls.__name__:
                config = translate(
                    {
                        **config,
                        **{
                            key: kwargs[key]
                            for key in ("process", "prediction_type")
                            if key in kwargs
                        },
                    }
                )
            else:
                config = {
                    key: value for key, value in config.items() if key != "_use_default_values"
                }
        return super().from_config(config, return_unused_kwargs, **kwargs)

    # -- what the config says ---------------------------------------------------------------------------------------

    @property
    def integrator(self) -> Integrator:
        """The solver, in the form in which `srk.solve` makes the same samples with it (see `StateFirst`)."""
        method: Any = integrator(self.config.solver)
        options = self.config.solver_options or {}
        try:
            return StateFirst(attrs.evolve(method, **options) if options else method)
        except TypeError as error:
            known = (
                ", ".join(field.name for field in attrs.fields(type(method)) if field.init)
                or "none"
            )
            raise ArgumentError(
                f"solver_options={options!r} are not options of {self.config.solver!r}; it has: {known}"
            ) from error

    @property
    def _convention(self) -> Convention:
        config = dict(self.config)
        if self._made is None or self._made[0] != config:
            self._made = (
                config,
                convention({key: value for key, value in config.items() if key != "_class_name"}),
            )
        return self._made[1]

    @property
    def _prediction(self) -> NetworkPrediction:
        return self._convention.prediction(_in_the_pipeline)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alphas_cumprod of the training steps; of networks of the family "vp" only."""
        made = self._convention
        if made.family != "vp":
            raise AttributeError(f"alphas_cumprod is defined for process='vp', not {made.family!r}")
        return torch.tensor(made.process.alphas_cumprod, dtype=torch.float32)  # type: ignore[attr-defined]

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state."""
        return self._convention.prior_std

    @property
    def order(self) -> int:
        """Entries of `timesteps` for each step: pipelines skip that many for each step that they leave out."""
        return self.integrator.evaluations_per_step

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    # -- the grid -----------------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Choose the noise levels of a run and forget the last one.

        Arguments:
            num_inference_steps: number of steps.
            device: where `timesteps` shall be.
            timesteps: instead, the network's times at the start of each step, decreasing.
            sigmas: instead, noise levels: sigma/alpha down to the end of the last step (0 for the data), or for flow networks sigma before `shift`, whose
                end at 0 is added.
            mu: shift of flow networks with `use_dynamic_shifting`.

        Raises:
            ArgumentError, TimeError, IncompatibleError: the levels or the solver are not possible; each message names the cure.
        """
        made, method = self._convention, self.integrator
        eta = method.default_eta if self.config.eta is None else float(self.config.eta)
        method.check(made.process, eta)
        explicit = {
            name: _listed(values) for name, values in (("timesteps", timesteps), ("sigmas", sigmas))
        }
        times, denoise = own_times(
            self.config, made, method, eta, steps=num_inference_steps, mu=mu, **explicit
        )
        process = made.process
        if made.family == "edm" and times[0] > process.t_max:
            process = attrs.evolve(process, sigma_max=times[0])  # type: ignore[misc]
        if len(times) > 1:
            times = Times(times).times(Problem(process, method, None, eta))  # checked
        self._route = Route(process, method, eta, tuple(times), denoise)
        plans, prediction = self._route.plans(), self._prediction
        if not plans:
            raise ArgumentError(
                f"{explicit} make no step; give at least two levels, or final_sigmas_type='zero'"
            )
        self._entries = [
            _Entry(
                entry.level,
                step,
                stage,
                time_value(prediction.time, entry.level, process, None) * prediction.time_scale,
            )
            for step, plan in enumerate(plans)
            for stage, entry in enumerate(plan.stages)
        ]
        values = [entry.timestep for entry in self._entries]
        whole = made.family == "vp" and all(value.is_integer() for value in values)
        self.timesteps = torch.tensor(
            values, dtype=torch.int64 if whole else torch.float32, device=device
        )
        noisy = [*(entry.level for entry in self._entries), plans[-1].stop]
        self.sigmas = torch.tensor(
            [level.sigma if made.family == "flow" else level.r for level in noisy],
            dtype=torch.float32,
        )
        self._values = self.timesteps.tolist()
        self.num_inference_steps = len(plans)
        self._begin_index = self._step_index = self._walk = None

    @property
    def begin_index(self) -> int | None:
        """Entry of `timesteps` at which the run starts, if `set_begin_index` said so."""
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """Entry of `timesteps` that comes next; None before the run."""
        return self._step_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the next run at entry `begin_index` of `timesteps`, as image-to-image pipelines do; ends a run that is under way."""
        if not 0 <= begin_index < max(1, len(self._entries)):
            raise ArgumentError(
                f"begin_index={begin_index} is not an entry of the {len(self._entries)} timesteps"
            )
        self._begin_index, self._step_index, self._walk = begin_index, None, None

    def _index(self, timestep: Any) -> int:
        """The entry that `timestep` stands for: the next one, which it must equal, or where a run starts."""
        if not self._entries:
            raise ArgumentError(
                "there are no timesteps yet; call set_timesteps(20) before the first step"
            )
        index = self._step_index
        if index is None or index == len(self._entries):
            index = self._begin_index
        own = (
            isinstance(timestep, Tensor)
            and timestep.untyped_storage().data_ptr() == self.timesteps.untyped_storage().data_ptr()
        )
        if (
            own and timestep.numel() == 1
        ):  # an element of `timesteps` knows its place, even where its value repeats
            said = timestep.storage_offset()
            if index is None or said == index:
                return int(said)
            raise self._lost(index, float(self._values[said]))
        if index is not None and isinstance(timestep, Tensor) and timestep.device.type != "cpu":
            return index  # to look at it would wait for the device
        value = _number(timestep)
        if index is not None:
            if abs(value - self._values[index]) <= 1e-6 * abs(value):
                return index
            raise self._lost(index, value)
        places = [
            i for i, known in enumerate(self._values) if abs(value - known) <= 1e-6 * abs(value)
        ]
        if not places:
            raise ArgumentError(
                f"timestep {value!r} is not among the timesteps {self._values!r}; iterate over scheduler.timesteps"
            )
        return next((i for i in places if self._entries[i].stage == 0), places[0])

    def _lost(self, index: int, value: float) -> ArgumentError:
        return ArgumentError(
            f"step() was called with timestep {value!r}, but entry {index}, which is {self._values[index]!r}, comes next; call it once for each entry of "
            "scheduler.timesteps in order, and call set_timesteps (or set_begin_index) before a new run"
        )

    # -- the run --------------------------------------------------------------------------------------------------------

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """What the network shall see of `sample` (batch, *event) at `timestep`: `sample` itself, except for the family "edm"."""
        if self._convention.family != "edm":
            return sample
        scale = scale_value(
            self._prediction.input_scale, self._entries[self._index(timestep)].level
        )
        return sample * scale

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SRKSchedulerOutput | tuple[Tensor, Tensor]:
        """From the network's output at `sample` to its next input.

        Arguments:
            model_output: the network's output, (batch, *event); with learned variances twice the channels.
            timestep: the entry of `timesteps` that the network was called with.
            sample: its input, (batch, *event), before `scale_model_input`. Half precision is computed in float32 and returned as it came.
            generator: of the noise, or one for each sample; None: PyTorch's global one.
            return_dict: False returns a tuple.

        Raises:
            ArgumentError: `timestep` is not the next one.
            ScoreError: `model_output` does not fit `sample`.
        """
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
                f"the network returned shape {tuple(output.shape)} for a sample of shape {tuple(x.shape)}; "
                "if it also learns the variance, use variance_type='learned_range'"
            )
        if self._walk is None or self._step_index is None or self._step_index == len(self._entries):
            self._walk = self._begin(entry, x, generator)
        if isinstance(self._source, PipelineNoise):
            self._source.generator = generator
        with torch.no_grad():
            output, hook = output.to(x.dtype), self._convention.hook
            denoised = combine(prediction.coefficients(entry.level), x, output)
            if hook is not None:
                denoised = hook(denoised, entry.level)
            following = self._walk.advance(x, output if hook is None else denoised)
        self._step_index = index + 1
        result = following.to(sample.dtype), denoised.to(sample.dtype)
        return SRKSchedulerOutput(*result) if return_dict else result

    def _begin(
        self, entry: _Entry, x: Tensor, generator: torch.Generator | list[torch.Generator] | None
    ) -> Walk:
        assert self._route is not None
        plans = self._route.after(entry.step, entry.stage)
        calls = [stage.level for plan in plans for stage in plan.stages]
        if calls != [other.level for other in self._entries[self._entries.index(entry) :]]:
            raise IncompatibleError(
                f"{self.config.solver} started here makes other network calls than the timesteps say; start at the first of them"
            )
        self._source = self._noise(generator)
        prediction = self._prediction
        return Walk(
            plans
            if self._convention.hook is not None
            else [folded(plan, prediction) for plan in plans],
            self._source,
            x,
        )

    def _noise(self, generator: torch.Generator | list[torch.Generator] | None) -> NoiseSource:
        if self.config.noise == "generator":
            return PipelineNoise()
        source: Any = NOISES[self.config.noise]
        if self.config.seed is not None:
            made = source(self.config.seed)
        elif isinstance(generator, (list, tuple)):
            made = source(seeds=[one.initial_seed() for one in generator])
        else:
            made = source(None if generator is None else generator.initial_seed())
        result: NoiseSource = made
        return result

    # -- noising --------------------------------------------------------------------------------------------------------

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma eps at the network times `timesteps`, (batch,) or one for all, in the run or of the training."""
        level = [self._level(float(t)) for t in timesteps.flatten().tolist()]
        if len(level) not in (1, original_samples.shape[0]):
            raise ArgumentError(
                f"{len(level)} timesteps for {original_samples.shape[0]} samples; give one for all, or one for each"
            )
        shape = (-1, *[1] * (original_samples.ndim - 1))
        alpha, sigma = (
            torch.tensor(values, dtype=original_samples.dtype, device=original_samples.device).view(
                shape
            )
            for values in ([at.alpha for at in level], [at.sigma for at in level])
        )
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and argument order of the flow schedulers."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    def _level(self, time: float) -> Level:
        for entry, value in zip(self._entries, getattr(self, "_values", ()), strict=True):
            if value == time:
                return entry.level
        return self._convention.level(time)


def _in_the_pipeline(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("the pipeline calls the network")


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _listed(values: Any) -> list[float] | None:
    if values is None:
        return None
    listed = [
        float(value)
        for value in (values.tolist() if isinstance(values, (Tensor, np.ndarray)) else values)
    ]
    if not listed:
        raise ArgumentError("timesteps and sigmas must not be empty")
    return listed


def _number(timestep: Any) -> float:
    if isinstance(timestep, Tensor) and timestep.numel() > 1:
        timestep = timestep.flatten()[0]
    try:
        return float(timestep)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"timestep must be an entry of scheduler.timesteps, not {timestep!r}"
        ) from error
