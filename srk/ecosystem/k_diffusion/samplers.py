"""Samplers with the calling convention of k-diffusion."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
from torch import Tensor

from srk.ecosystem.k_diffusion.frames import Frame, frame_of, guidance_scale_of
from srk.ecosystem.k_diffusion.noise import HostNoise, NoiseName, NoiseSampler, Scaled, own_noise
from srk.ecosystem.k_diffusion.schedules import schedule_of
from srk.ecosystem.profiles import profile_of
from srk.errors import ArgumentError, SolveError, TimeError
from srk.integrators import SRK2M, SRK2S, Auto, Integrator, integrator
from srk.noise import NoiseSource
from srk.plans.plan import StepPlan
from srk.processes import EDM, Flow
from srk.sampling import Sampler as Run
from srk.sampling.invert import go_up, plans_up
from srk.sampling.pilot import warn_of_guidance
from srk.scores import Data
from srk.steps import Profile
from srk.tableaus import StochasticTableau

Calls = Literal["free", "schedule"]
Model = Callable[..., Tensor]
Sampler = Callable[..., Tensor]


def sampler(
    solver: str | Integrator | StochasticTableau,
    *,
    frame: Frame = "auto",
    calls: Calls | None = None,
    noise: NoiseName | None = None,
    profile: Profile | str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> Sampler:
    """A k-diffusion sampler that takes the steps of `solver`.

    The function returned is called as k-diffusion's are:

        sample(model, x, sigmas, extra_args=None, callback=None, disable=None,
               eta=1.0, s_noise=1.0, noise_sampler=None)

    Its arguments are those of k-diffusion:

    - `model(x, sigma, **extra_args)` returns the denoised prediction for states (batch, *event)
      and noise levels (batch,).
    - `x` is the state at `sigmas[0]`, of shape (batch, *event). It is not modified.
    - `sigmas` decrease. A last one of 0 makes the last step the denoised prediction. Repeated
      sigmas count once, and a first one above 1 by rounding is the 1 of a flow. Sigmas that all
      rise reverse the probability-flow ODE, from data to noise, for solvers at eta = 0. With fewer
      than two, `x` comes back.
    - `callback` gets a dict for each step, right after the step's first network call: `i`, the
      number of the step in `sigmas`; `sigma`, that of the step; `x`, the state that the network
      saw; `sigma_hat`, its noise level; and `denoised`, what the network said.
    - `disable` switches the progress bar off; None does so where the output is no terminal.
    - `eta` is that of srk, default as in `srk.solve` (`auto` with a profile: 0): 1 is the reverse
      SDE, 0 the probability-flow ODE. k-diffusion's ancestral methods mean the same; the eta of
      its `dpmpp_2m_sde` and `dpmpp_3m_sde` is the square of ours. A solver that is defined for one
      eta alone (`wcw`) takes that one, with a warning where another was asked for.
    - `s_noise` multiplies the noise.
    - `noise_sampler(sigma, sigma_next)` returns unit normals, independent on intervals that do not
      overlap, as a Brownian tree or a generator does. It is asked for the interval of sigma to
      which a draw belongs on the solver's own path, or for consecutive pieces of it where the draw
      is more than an increment. Steps to sigma = 0 draw nothing (but for churn).

    Methods of the ODE alone (`dpmpp-2m`, `heun`, ...) have no `eta` and `s_noise`, as in
    k-diffusion; they accept a `noise_sampler`, which some hosts always pass, and never ask it.

    Arguments:
        solver: a registered name (`srk.solvers()`), an integrator with options, or a tableau.
        frame: "edm" if the model's state is x0 + sigma eps, as for all of k-diffusion; "flow" if it
            is (1 - sigma) x0 + sigma eps with sigma from 1 to 0, as hosts run rectified-flow models
            (SD3, Flux); "auto" asks the model, see `frame_of`.
        calls: "schedule" calls the model at `sigmas` and nowhere else, as patches, caches and
            context windows of hosts expect; "free" lets the solver choose. Default: the schedule
            for `srk2`, `srk2m`, `srk2m-local` and `auto`; other solvers call where they do.
        noise: where draws come from without a `noise_sampler`, seeded by `extra_args["seed"]` or,
            where there is none, by torch's global generator: "brownian" (a path that more steps
            refine, so that they refine the picture; `srk2m` and `srk2` then have `strong=True`),
            "generator", or "keyed" (the same numbers on every device). Default: torch's global
            generator itself, as in k-diffusion's ancestral samplers: `torch.manual_seed` then
            repeats a run.
        profile: what `srk.calibrate` measured of the network, or the path of its file: it tells
            `auto` the variance of the data. The steps go where the host's sigmas are;
            `srk.ecosystem.k_diffusion.sigmas_of` makes sigmas of a profile. Where the host says its
            guidance scale, and the profile was measured at another, a run warns.

    Returns:
        The sampler; its `__name__` is sample_ and the name of the solver.

    Raises:
        UnknownNameError, ArgumentTypeError, ArgumentError: here, a solver, frame, noise or place of
            the calls that does not exist; from the sampler, arguments that do not fit (the errors
            of `srk.solve`), such as TimeError for sigmas that are no schedule, or SolveError for a
            model that returns NaN.

    Source: the interface of k-diffusion 0.1.1, github.com/crowsonkb/k-diffusion.

    Examples:
        >>> import torch
        >>> sample = sampler("srk2m")
        >>> sample.__name__
        'sample_srk2m'
        >>> denoiser = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # data N(0, 1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = lambda sigma, sigma_next: torch.randn(4, 1, generator=generator)
        >>> sigmas = torch.tensor([10.0, 3.0, 1.0, 0.0])
        >>> sample(denoiser, 10.0 * torch.ones(4, 1), sigmas, noise_sampler=noise).shape
        torch.Size([4, 1])
    """
    method = integrator(solver)
    if frame not in get_args(Frame):
        raise ArgumentError(
            "frame is 'edm' (x0 + sigma eps), 'flow' ((1 - sigma) x0 + sigma eps) or 'auto', "
            f"not {frame!r}"
        )
    if calls not in (None, *get_args(Calls)):
        raise ArgumentError(f"calls is 'free', 'schedule' or None, not {calls!r}")
    if noise not in (None, *get_args(NoiseName)):
        raise ArgumentError(f"noise is 'brownian', 'generator', 'keyed' or None, not {noise!r}")
    known = profile_of(profile)
    if known is not None:
        method = method.calibrated(known)
    if noise == "brownian" and isinstance(method, SRK2M | SRK2S) and method.node is None:
        method = attrs.evolve(method, strong=True)  # what follows the path nearest
    settings = _Settings(method, frame, calls, noise, known)
    eta_default = method.default_eta

    def stochastic(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
        eta: float = eta_default,
        s_noise: float = 1.0,
        noise_sampler: NoiseSampler | None = None,
    ) -> Tensor:
        call = _Call(model, sigmas, dict(extra_args or {}), callback, disable)
        return _sample(settings, call, x, eta, s_noise, noise_sampler)

    def deterministic(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
        noise_sampler: NoiseSampler | None = None,
    ) -> Tensor:
        call = _Call(model, sigmas, dict(extra_args or {}), callback, disable)
        return _sample(settings, call, x, 0.0, 1.0, None)

    sample: Sampler = stochastic if method.eta_range[1] > 0.0 else deterministic
    name = solver if isinstance(solver, str) else method.name
    sample.__name__ = sample.__qualname__ = "sample_" + name.replace("-", "_")
    sample.__doc__ = f"`{name}` as a k-diffusion sampler; see `srk.ecosystem.k_diffusion.sampler`."
    return sample


@attrs.frozen
class _Settings:
    """What `sampler` was asked for."""

    method: Integrator
    frame: Frame
    calls: Calls | None
    noise: NoiseName | None
    profile: Profile | None = None

    def calls_at(self) -> Calls:
        if self.calls is not None:
            return self.calls
        return "schedule" if isinstance(self.method, SRK2S | SRK2M | Auto) else "free"


@attrs.frozen(eq=False)
class _Call:
    """What the host passed on."""

    model: Model
    sigmas: Tensor
    extra_args: dict[str, Any]
    callback: Callable[[dict[str, Any]], Any] | None
    disable: bool | None


def _sample(
    settings: _Settings,
    call: _Call,
    x: Tensor,
    eta: float,
    s_noise: float,
    noise_sampler: NoiseSampler | None,
) -> Tensor:
    method, sigmas = settings.method, call.sigmas
    frame = frame_of(call.model) if settings.frame == "auto" else settings.frame
    schedule = schedule_of(sigmas, frame)
    times = schedule.times
    if len(times) < 2:
        return x
    low, high = method.eta_range
    if low == high != eta:
        warnings.warn(f"{method.name} takes eta = {low:g}, not {eta:g}", stacklevel=3)
        eta = low
    if schedule.rising and eta != 0.0:
        raise TimeError(
            f"sigmas that rise from {times[0]:.4g} to {times[-1]:.4g} go from data to noise, which "
            f"only the probability-flow ODE can: use eta=0, not eta={eta:g}, or a solver of the ODE"
        )
    if settings.profile is not None:
        scale = guidance_scale_of(call.model, call.extra_args)
        if scale is not None:
            warn_of_guidance(settings.profile, (scale,))
    process = (EDM if frame == "edm" else Flow)(min(times), max(times))
    # Which call this is, so that the model gets the host's own sigma without a look at the device
    asked: list[tuple[int, float]] = []
    made, told = 0, -1

    def network(state: Tensor, sigma: Tensor) -> Tensor:
        nonlocal made, told
        index, t = asked[made]
        made += 1
        place = schedule.places[index]
        if t == times[index]:
            sigma = sigmas[place] * state.new_ones(len(state))
        denoised = call.model(state, sigma, **call.extra_args)
        if call.callback is not None and told < index:
            told = index
            call.callback(
                {
                    "x": state.clone(),
                    "i": place,
                    "sigma": sigmas[place],
                    "sigma_hat": sigma[0],
                    "denoised": denoised,
                }
            )
        return denoised

    prediction = Data(network, time="t", network_dtype=x.dtype)
    shown = not call.disable if call.disable is not None else sys.stderr.isatty()
    if schedule.rising:
        method = method.choose(process, 0.0, len(times) - 1)
        asked += _asked(plans_up(process, method, times))
        state = x.detach().clone().contiguous()
        unused = HostNoise(None, sigmas, process)
        solution, failed = go_up(
            process, prediction.bind(process), method, times, state, unused, shown
        )
        if failed:
            raise SolveError(
                f"{solution.status}; the last finite state is in .solution.x", solution
            )
        return solution.x
    run = Run(
        process,
        prediction,
        method,
        grid=times,
        eta=eta,
        denoise_final=False,
        calls=settings.calls_at(),
    )
    asked += _asked(run.plans())
    source: NoiseSource
    if noise_sampler is not None or settings.noise is None:
        kept = sigmas[schedule.places]
        source = HostNoise(noise_sampler, kept, process)
    else:
        source = own_noise(settings.noise, call.extra_args.get("seed"))
    return run(
        x_init=x,
        noise=source if s_noise == 1.0 else Scaled(source, float(s_noise)),
        progress=shown,
    ).x


def _asked(plans: Sequence[StepPlan]) -> list[tuple[int, float]]:
    """The step and the time of every network call."""
    return [(i, stage.level.t) for i, plan in enumerate(plans) for stage in plan.stages]
