"""`SRKScheduler`: every solver of srk behind the interface of diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from srk.ecosystem.diffusers.configs import FAMILIES, OURS, profile_places, settle, translate
from srk.ecosystem.diffusers.etas import check_plain, plain_eta
from srk.ecosystem.diffusers.interface import SchedulerMixin, register_to_config
from srk.ecosystem.diffusers.noising import Noising
from srk.ecosystem.diffusers.output import SRKSchedulerOutput
from srk.ecosystem.diffusers.running import Running
from srk.ecosystem.diffusers.stepping import Stepping
from srk.ecosystem.profiles import profile_of
from srk.errors import (
    ArgumentError,
)
from srk.sampling.pilot import warn_of_guidance


class SRKScheduler(Stepping, Noising):
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
        eta: stochasticity; 1 the reverse SDE, 0 the ODE. A number, a list with one value a step, a
            function of the level or a rule such as `srk.eta.flow_grpo(0.7)`; a named rule is kept
            in the config as {"rule": "flow_grpo", "a": 0.7}. None: the solver's default.
        grid: name of a grid of srk, e.g. "log-snr", instead of `timestep_spacing` and the sigma
            schedules.
        profile: what `srk.calibrate` measured of the network: a `srk.Profile`, the path of its file
            or its dict; the config keeps the dict. It tells `auto` the variance of the data, and in
            `from_config` it places the steps, unless another grid or schedule of sigmas is asked
            for (grid="budget"); of other solvers those of runs with noise.
        guidance_scale: the scale that the pipeline will be called with, which no pipeline tells its
            scheduler. Where it is given, a profile that was measured at another one warns.
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
        solver: str = "auto",
        solver_options: dict[str, Any] | None = None,
        eta: Any = None,
        grid: str | None = None,
        profile: Any = None,
        guidance_scale: float | None = None,
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
        if isinstance(eta, bool) or not isinstance(eta, (int, float, type(None))):
            self.register_to_config(eta=plain_eta(eta))
        if profile is not None:
            known = profile_of(profile)
            assert known is not None
            self.register_to_config(profile=known.to_dict())
            if guidance_scale is not None:
                warn_of_guidance(known, (float(guidance_scale),))
        # Pipelines correct the config of the scheduler that they are given; what depends on it is
        # made when it is needed.
        self._made = None
        self._last = None
        self._told = ()
        self.num_inference_steps = None
        self._request = None
        self._entries = []
        self._values = []
        self._route = None
        self._begin_index = None
        self._step_index = None
        self._run = None
        self._left = None
        self._noised = False
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.integrator  # noqa: B018  # refuse unknown solvers and options now

    def save_config(self, *args: Any, **kwargs: Any) -> None:
        check_plain(self.config)
        super().save_config(*args, **kwargs)

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
            if profile_places(known, kwargs):
                kwargs["grid"] = "budget"
            config = settle(known, kwargs)
        return super().from_config(config, return_unused_kwargs, **kwargs)


#: The name in pickles that were made before the class had a module of its own.
_Run = Running

__all__ = ["SRKScheduler", "SRKSchedulerOutput"]
