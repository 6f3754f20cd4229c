"""`SRKScheduler`: every solver of srk behind the interface of diffusers' schedulers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._engine.network import folded
from srk.ecosystem.diffusers.configs import FAMILIES, OURS, settle, translate
from srk.ecosystem.diffusers.conventions import Convention, convention
from srk.ecosystem.diffusers.grids import levels
from srk.ecosystem.diffusers.noise import PipelineNoise, seeds_of
from srk.ecosystem.diffusers.route import LastOrders, Route, StateFirst, last_orders_of
from srk.ecosystem.diffusers.solvers import options_of, solver_of
from srk.ecosystem.diffusers.walk import Walk
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    MissingExtraError,
    ScoreError,
)
from srk.integrators import SRK2M, Auto, Integrator, OnSchedule, integrator
from srk.noise import NOISES, NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.base import Level
from srk.scores.adapters import NetworkPrediction
from srk.scores.convert import combine
from srk.scores.inputs import scale_value, time_value
from srk.steps import RunInfo, Times

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
        pred_original_sample: the denoised prediction at the sample that `step` was given, same
            shape.
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


@attrs.define
class _Run:
    """A run under way: where it started, with which stochasticity, and which entry comes next."""

    walk: Walk
    begin: int
    eta: float
    index: int
    resolution: float


@attrs.frozen
class _Left:
    """A run that stopped before its end, and the entries that it followed."""

    request: dict[str, Any]
    entries: list[_Entry]
    method: Integrator
    run: _Run


#: Schedulers with a run under way, one of which may be handed over to another scheduler.
_running: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


class SRKScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped here
    """A diffusers scheduler that runs a solver of srk; the samples are those of `srk.solve`.

    `timesteps` has one entry for each network call, so that a solver with two stages has two for
    each step; `step` returns the next network input in between. It follows that entries may repeat
    or go back; `step` counts them, and refuses a timestep that is not the one it counted to.

    The steps go where the scheduler of diffusers puts them whose config was given: it is made and
    asked, so that every spacing is that of the installed version of diffusers.

    Arguments:
        solver: a registered name (`srk.solvers()`), or "host": the solver of ours that does what
            the scheduler does that the config came from.
        solver_options: options of the solver, e.g. {"data_variance": 0.25}. None: those in the
            config that mean the same (`solver_type`, `predictor_order`), else its defaults.
        eta: stochasticity; 1 the reverse SDE, 0 the ODE. None: the solver's default. Pipelines'
            own `eta` argument is not used.
        grid: name of a grid of srk, e.g. "log-snr", instead of `timestep_spacing` and the sigma
            schedules.
        noise: "generator": draws from the `generator` of `step`, as diffusers does, and where the
            pipeline gives none from generators seeded by the first states, or by `seed`; "keyed" or
            "brownian": each sample's noise is a function of its seed and its position in the run
            only (see `srk.noise`).
        seed: of the noise where the pipeline gives no generator; for "keyed" and "brownian" also
            where it does. None: from the initial seed of `generator` (of each, where it is a list),
            else from the first states.
        process: family of the network: "vp" (DDPM and Stable Diffusion), "flow" (SD3, Flux), "edm"
            (EDM, Stable Video). None: "vp"; `from_config` finds it in the other scheduler's config.
        host: the class of diffusers that is asked where the steps go; `from_config` fills it in.
            None: DDPMScheduler, FlowMatchEulerDiscreteScheduler or EDMEulerScheduler by `process`.
        frame: "sigma": the states of the pipeline are x/alpha, as in EulerDiscreteScheduler, for
            pipelines that compute with `sigmas` themselves (latent upscaler). None: those of the
            network.
        round_timesteps: whether levels are rounded to training steps, for pipelines that use
            timesteps as indices (family "vp").
        calls: "schedule": the network is called at the levels that the scheduler of diffusers has,
            and nowhere else, also by `srk2`, `srk2m`, `srk2m-local` and `auto` (see
            `srk.integrators.OnSchedule`). "free": where the solver would have it, which for these
            is inside the steps. None: "schedule" for `srk2m`, `srk2m-local` and `auto` where the
            config is another scheduler's and no `grid` of srk is asked for, else "free".
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction"; None: that of the
            family.
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
        host: str | None = None,
        frame: str | None = None,
        round_timesteps: bool = False,
        calls: str | None = None,
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
        if noise not in ("generator", "keyed", "brownian"):
            raise ArgumentError(f"noise must be 'generator', 'keyed' or 'brownian', not {noise!r}")
        if calls not in (None, "schedule", "free"):
            raise ArgumentError(f"calls must be None, 'schedule' or 'free', not {calls!r}")
        if frame not in (None, "sigma"):
            raise ArgumentError(f"frame must be None or 'sigma', not {frame!r}")
        if frame == "sigma" and process not in (None, "vp"):
            raise ArgumentError(
                f"frame='sigma' is for networks of process='vp', not {process!r}; leave it out"
            )
        # Pipelines correct the config of the scheduler that they are given; what depends on it is
        # made when it is needed.
        self._made: tuple[dict[str, Any], Convention] | None = None
        self._last: LastOrders | None = None
        self._told: tuple[tuple[float, float], ...] = ()
        self.num_inference_steps: int | None = None
        self._request: dict[str, Any] | None = None
        self._entries: list[_Entry] = []
        self._values: list[float] = []
        self._route: Route | None = None
        self._begin_index: int | None = None
        self._step_index: int | None = None
        self._run: _Run | None = None
        self._left: _Left | None = None
        self._noised = False
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.integrator  # noqa: B018  # refuse unknown solvers and options now

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The scheduler for the network of another one, whose `config` this is.

        Arguments:
            config: its config, or the scheduler itself.
            return_unused_kwargs: whether the keywords that are no arguments are returned too.
            kwargs: arguments of `SRKScheduler`. They win over the config: what it inherited and
                they contradict (another schedule of sigmas, options of another solver) is dropped.

        Raises:
            IncompatibleError: the other scheduler cannot be replaced, or it is not known and no
                `process` says what its network is.
            ArgumentError: two keywords contradict each other.
        """
        if isinstance(config, SchedulerMixin):
            config = {**config.config, "_class_name": type(config).__name__}
        if isinstance(config, Mapping):
            ours = config.get("_class_name") == cls.__name__ or (
                # a config that was not loaded begins with the arguments of its class
                "_class_name" not in config and set(list(config)[: len(OURS)]) == set(OURS)
            )
            if ours:
                known = {
                    key: value for key, value in config.items() if key != "_use_default_values"
                }
            else:
                known = translate(config, OURS, kwargs)
            config = settle(known, kwargs)
        return super().from_config(config, return_unused_kwargs, **kwargs)

    # -- what the config says ---------------------------------------------------------------------

    @property
    def integrator(self) -> StateFirst:
        """The solver, in the form in which `srk.solve` makes the same samples with it.

        See `StateFirst`. How the order falls at the end of a run is known after `set_timesteps`.
        """
        return StateFirst(self._method(), self._last)

    def _method(self) -> Integrator:
        name = self.config.solver
        if name == "host":
            name = solver_of(self.config)[0]
        method: Any = integrator(name)
        options = self.config.solver_options
        if options is None:
            options = options_of(self.config, name, self._told)
        try:
            made: Integrator = attrs.evolve(method, **options) if options else method
            return OnSchedule(made) if self._on_schedule(made) else made
        except TypeError as error:
            known = (
                ", ".join(field.name for field in attrs.fields(type(method)) if field.init)
                or "none"
            )
            raise ArgumentError(
                f"solver_options={options!r} are not options of {name!r}; it has: {known}"
            ) from error

    def _on_schedule(self, method: Integrator) -> bool:
        """Whether the solver needs a form of its own to call the network at the host's levels."""
        calls, own = self.config.calls, isinstance(method, (SRK2M, Auto))
        if calls is None:
            return own and self.config.host is not None and self.config.grid is None
        return calls == "schedule" and (own or method.evaluations_per_step > 1)

    @property
    def _eta(self) -> float:
        if self.config.eta is not None:
            return float(self.config.eta)
        eta = solver_of(self.config)[1] if self.config.solver == "host" else None
        return self._method().default_eta if eta is None else eta

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
        process: Any = made.process
        return torch.tensor(process.alphas_cumprod, dtype=torch.float32)

    @property
    def alphas(self) -> Tensor:
        """1 - betas of the training steps; of networks of the family "vp" only."""
        products = self.alphas_cumprod
        return products / torch.cat([products.new_ones(1), products[:-1]])

    @property
    def betas(self) -> Tensor:
        """The betas of the training steps; of networks of the family "vp" only."""
        return 1.0 - self.alphas

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """alphas_cumprod at the end of a run: 1, or that of training step 0."""
        end = self.config.final_sigmas_type == "sigma_min"
        return self.alphas_cumprod[0] if end else torch.tensor(1.0)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state."""
        if self.config.frame != "sigma":
            return self._convention.prior_std
        process = self._convention.process
        r = self._entries[0].level.r if self._entries else process.level(process.t_max).r
        scaled = self.config.timestep_spacing in ("linspace", "trailing")
        return float(r if scaled else (r * r + 1.0) ** 0.5)  # as EulerDiscreteScheduler has it

    @property
    def order(self) -> int:
        """Entries of `timesteps` for each step, which pipelines skip for each one left out.

        After `set_timesteps` with a list it is 1: pipelines then take the number of entries for the
        number of steps.
        """
        asked = self._request or {}
        if asked.get("timesteps") is not None or asked.get("sigmas") is not None:
            return 1
        return self._method().evaluations_per_step

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    # -- the grid ---------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        strength: float | None = None,
    ) -> None:
        """Choose the noise levels of a run and forget the last one.

        Arguments:
            num_inference_steps: number of steps.
            device: where `timesteps` shall be.
            timesteps: instead, the network's times at the start of each step, decreasing. For flow
                networks they may be given beside `sigmas`: what the network is told at each.
            sigmas: instead, noise levels: sigma/alpha down to the end of the last step (0 for the
                data), or for flow networks sigma before `shift`, whose end at 0 is added. With
                `grid`, the list that a flow pipeline makes where its user gives none says only how
                many steps there are.
            mu: shift of flow networks with `use_dynamic_shifting`.
            original_inference_steps, strength: of LCMScheduler, for the configs of that class.

        Raises:
            ArgumentError, TimeError, IncompatibleError: the levels or the solver are not possible;
                each message names the cure.
        """
        request = {
            "num_inference_steps": num_inference_steps,
            "timesteps": _listed(timesteps),
            "sigmas": _listed(sigmas),
            "mu": None if mu is None else float(mu),
            "original_inference_steps": original_inference_steps,
            "strength": strength,
        }
        left = None
        run = self._run
        if run is not None and not run.walk.done and self._request is not None:
            left = _Left(self._request, self._entries, self.integrator, run)
        self._prepare(request, device)
        self._left = left
        self._begin_index = self._step_index = self._run = None
        self._noised = False

    def _prepare(self, request: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Make the entries of a run."""
        made, eta = self._convention, self._eta
        self._last, self._told = None, ()
        method = self.integrator
        method.check(made.process, eta)
        more = {
            key: request[key]
            for key in ("original_inference_steps", "strength")
            if request[key] is not None
        }
        found = levels(
            self.config,
            made,
            method,
            eta,
            steps=request["num_inference_steps"],
            timesteps=request["timesteps"],
            sigmas=request["sigmas"],
            mu=request["mu"],
            more=more,
        )
        times, denoise, process = list(found.times), found.denoise, made.process
        if made.family == "edm" and times[0] > process.t_max:
            process = attrs.evolve(process, sigma_max=times[0])  # type: ignore[misc]
        if len(set(times)) > 1:
            self._checked(times, RunInfo(process, method, None, eta))
        given = request["timesteps"] is not None or request["sigmas"] is not None
        if len(set(times)) + denoise < 2 and (given or len(times) < 2):
            explicit = {key: request[key] for key in ("timesteps", "sigmas")}
            raise ArgumentError(
                f"{explicit} make no step; give at least two levels, or final_sigmas_type='zero'"
            )
        told = found.told or ()
        self._told = tuple((process.level(t).r, said) for t, said in zip(times, told, strict=False))
        self._last = self._last_orders(times, denoise)
        self._route = Route(process, self.integrator, eta, tuple(times), denoise)
        plans, prediction = self._route.plans(), self._prediction
        said_at = dict(reversed(list(zip(times, told, strict=False))))
        self._entries = []
        theirs = bool(told)
        for step, plan in enumerate(plans):
            for stage, entry in enumerate(plan.stages):
                at = entry.level
                if told and stage == 0 and at.t == times[step]:
                    timestep = told[step]
                elif at.t in said_at:
                    timestep = said_at[at.t]
                else:
                    timestep = time_value(prediction.time, at, process, None)
                    timestep *= prediction.time_scale
                    if self.config.round_timesteps and made.family == "vp":
                        timestep = float(round(timestep))
                    theirs = False
                self._entries.append(_Entry(at, step, stage, float(timestep)))
        values = [entry.timestep for entry in self._entries]
        if theirs:
            dtype = found.dtype
        else:
            whole = made.family == "vp" and all(value.is_integer() for value in values)
            dtype = torch.int64 if whole else torch.float32
        self.timesteps = torch.tensor(values, dtype=dtype, device=device)
        noisy = [*(entry.level for entry in self._entries), plans[-1].stop]
        self.sigmas = torch.tensor(
            [level.sigma if made.family == "flow" else level.r for level in noisy],
            dtype=torch.float32,
        )
        self._values = self.timesteps.tolist()
        self.num_inference_steps = len(plans)
        self._request = request
        self._sigmas_then = self.sigmas.clone()

    def _checked(self, times: list[float], problem: RunInfo) -> None:
        """Raise if the times are not those of a run; equal ones are steps of no length."""
        Times([t for i, t in enumerate(times) if i == 0 or t != times[i - 1]]).times(problem)

    def _last_orders(self, times: list[float], denoise: bool) -> LastOrders | None:
        """The rule of the config for the last steps, where the solver is of that kind."""
        config, rule = self.config, last_orders_of(self._method())
        lower, euler = bool(config.get("lower_order_final")), bool(config.get("euler_at_final"))
        if rule is None or not (lower or (euler and rule == "short")):
            return None
        moves = len(set(times)) - 1
        stops = len(times) - 1 - moves
        trailing = 0
        while trailing < stops and times[-2 - trailing] == times[-1]:
            trailing += 1
        total = len(times) - 1 + denoise
        return LastOrders(
            always=rule == "always",
            euler=euler,
            total=total if lower else 10**9,
            after=trailing + denoise,
        )

    @property
    def begin_index(self) -> int | None:
        """Entry of `timesteps` at which the run starts, if `set_begin_index` said so."""
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """Entry of `timesteps` that comes next; None before the run."""
        return self._step_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the next run at entry `begin_index` of `timesteps`, as image-to-image pipelines do.

        It ends a run that is under way.
        """
        if not 0 <= begin_index < max(1, len(self._entries)):
            raise ArgumentError(
                f"begin_index={begin_index} is not an entry of the {len(self._entries)} timesteps"
            )
        self._begin_index, self._step_index, self._run = begin_index, None, None

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Tensor | None = None) -> int:
        """The entry of `timesteps` that `timestep` stands for, at the start of a run."""
        self._ready()
        return self._position(timestep, None)

    def previous_timestep(self, timestep: Any) -> Any:
        """The entry of `timesteps` after `timestep`, as DDPMScheduler has it; -1 after the last."""
        if not self._entries:
            return timestep - 1
        index = self._position(timestep, None)
        return self.timesteps[index + 1] if index + 1 < len(self._entries) else torch.tensor(-1)

    def _ready(self) -> None:
        """A scheduler that is used before `set_timesteps` takes every training step."""
        if not self._entries:
            device = self.timesteps.device
            self._prepare(
                {
                    "num_inference_steps": int(self.config.num_train_timesteps),
                    "timesteps": None,
                    "sigmas": None,
                    "mu": 0.0 if self.config.use_dynamic_shifting else None,
                    "original_inference_steps": None,
                    "strength": None,
                },
                device,
            )

    def _index(self, timestep: Any) -> int:
        """The entry that `timestep` stands for: the next one, or where a run starts."""
        self._ready()
        index = self._step_index
        if index is None or index == len(self._entries):
            index = self._begin_index
        return self._position(timestep, index)

    def _position(self, timestep: Any, index: int | None) -> int:
        """The entry that `timestep` stands for, which must be `index` where that is known."""
        own = (
            isinstance(timestep, Tensor)
            and timestep.untyped_storage().data_ptr() == self.timesteps.untyped_storage().data_ptr()
        )
        if own and timestep.numel() == 1:
            # an element of `timesteps` knows its position, even where its value repeats
            said = timestep.storage_offset()
            if index is None or said == index:
                return int(said)
            raise self._lost(index, float(self._values[said]))
        if index is not None and isinstance(timestep, Tensor) and timestep.device.type != "cpu":
            return index  # to look at it would wait for the device
        value = _number(timestep)
        same = _comparison(timestep, value)
        if index is not None:
            if same(self._values[index]):
                return index
            raise self._lost(index, value)
        places = [i for i, known in enumerate(self._values) if same(known)]
        if not places:
            raise ArgumentError(
                f"timestep {value!r} is not among the timesteps {_short(self._values)}; iterate "
                "over scheduler.timesteps"
            )
        return next((i for i in places if self._entries[i].stage == 0), places[0])

    def _lost(self, index: int, value: float) -> ArgumentError:
        return ArgumentError(
            f"step() was called with timestep {value!r}, but entry {index}, which is "
            f"{self._values[index]!r}, comes next; call it once for each entry of "
            "scheduler.timesteps in order, and call set_timesteps (or set_begin_index) before a "
            "new run"
        )

    # -- the run ----------------------------------------------------------------------------------

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
            with _lock:
                _running.discard(self)
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
    ) -> tuple[_Run, bool]:
        """The run that entry `index` belongs to; and whether it goes on at the entry after it."""
        run = self._run
        if run is None or self._step_index is None or self._step_index == len(self._entries):
            taken = self._handed_over(index, x)
            if taken is None:
                eta = self._eta if eta is None else eta
                walk = self._begin(index, x, generator, eta, rounding)
                self._run = _Run(walk, index, eta, index, rounding)
                early = False
            else:
                self._run, early = taken, taken.index == index + 1
            self._left = None
            with _lock:
                _running.add(self)
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

    def _handed_over(self, index: int, x: Tensor) -> _Run | None:
        """The run of another pipeline (SDXL's base model) that stopped with the state `x`.

        It is recognised by its entries and by the values of what it handed out last. A refiner
        counts one entry less than the base model left over where a step has two calls.
        """
        if not index or self._begin_index != index or self._noised:
            return None
        mine = self.integrator
        candidates = [] if self._left is None else [self._left]
        with _lock:
            others = list(_running)
        for other in others:
            run = other._run
            if other is not self and run is not None and other._request is not None:
                candidates.append(_Left(other._request, other._entries, other.integrator, run))
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
        state = {key: value for key, value in self.__dict__.items() if key not in _MADE_AGAIN}
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
            self._left = _Left(request, self._entries, self.integrator, run)
        if self._request is not None:
            sigmas, timesteps = state["sigmas"], state["timesteps"]
            self._prepare(self._request, timesteps.device)
            self.timesteps, self.sigmas = timesteps, sigmas
        if self._run is not None:
            run = self._run
            run.walk.resume(self._plans_from(run.begin, run.eta, run.resolution))
            if not run.walk.done:
                with _lock:
                    _running.add(self)

    # -- noising ----------------------------------------------------------------------------------

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma eps at the network times `timesteps`, in the run or of the training.

        Arguments:
            original_samples: x0, (batch, *event).
            noise: eps, same shape.
            timesteps: (batch,) or one for all.
        """
        self._noised = True
        alpha, sigma = self._scales(original_samples, timesteps)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and argument order of the flow schedulers."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha eps - sigma x0, what a network with "v_prediction" is trained to say."""
        if self.config.frame is not None:
            raise ArgumentError("get_velocity is for training; make a scheduler without frame")
        alpha, sigma = self._scales(sample, timesteps)
        return alpha * noise - sigma * sample

    def _scales(self, sample: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma (in the frame of the states) at `timesteps`, to be multiplied with x0."""
        timesteps = torch.as_tensor(timesteps)
        level = [self._level(t) for t in timesteps.flatten().cpu()]
        if len(level) not in (1, sample.shape[0]):
            raise ArgumentError(
                f"{len(level)} timesteps for {sample.shape[0]} samples; give one for all, or one "
                "for each"
            )
        pairs = [(at.alpha, at.sigma) for at in level]
        if self.config.frame is not None:
            pairs = [(1.0, at.r) for at in level]
        shape = (-1, *[1] * (sample.ndim - 1))
        alpha, sigma = (
            torch.tensor(values, dtype=sample.dtype, device=sample.device).view(shape)
            for values in zip(*pairs, strict=True)
        )
        return alpha, sigma

    def _level(self, timestep: Tensor) -> Level:
        """The level of a timestep: of the run where it is one of those, else of the training."""
        value = float(timestep)
        same = _comparison(timestep, value)
        begin = self._begin_index if self._step_index is None else self._step_index
        first = begin or 0
        order = [*range(first, len(self._values)), *range(first)]
        made: Convention = self._convention
        found = next((i for i in order if same(self._values[i])), None)
        return made.level(value) if found is None else self._entries[found].level


#: What a copy of a scheduler makes again.
_MADE_AGAIN = ("_made", "_entries", "_values", "_route", "_left", "_last", "_told", "_sigmas_then")


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


def _comparison(timestep: Any, value: float) -> Any:
    """Whether a known timestep is the given one, in the precision that this one came in."""
    dtype = timestep.dtype if isinstance(timestep, Tensor) else None
    if dtype in (torch.float16, torch.bfloat16):
        return lambda known: float(torch.tensor(known, dtype=dtype)) == value
    if dtype is not None and not dtype.is_floating_point:
        return lambda known: int(known) == value or abs(value - known) <= 1e-6 * abs(value)
    return lambda known: abs(value - known) <= 1e-6 * abs(value)


def _short(values: list[float]) -> str:
    """The values, for a message."""
    shown = ", ".join(f"{value:g}" for value in values[:12])
    return f"[{shown}{', ...' if len(values) > 12 else ''}]"
