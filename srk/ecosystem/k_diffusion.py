"""Samplers with the calling convention of k-diffusion, for the hosts (ComfyUI, A1111 and others) that look for functions of that form."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from srk._engine.run import StepInfo
from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.integrators import Integrator, Slot, StepPlan, integrator
from srk.noise import NoiseSource
from srk.processes import EDM, Flow, LinearProcess
from srk.sampling import solve
from srk.scores import Data
from srk.tableaus import StochasticTableau

Frame = Literal["edm", "flow"]
Model = Callable[..., Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[..., Tensor]


def sampler(solver: str | Integrator | StochasticTableau, *, frame: Frame = "edm") -> Sampler:
    """A k-diffusion sampler that takes the steps of `solver`.

    The function returned is called as k-diffusion's are:

        sample(model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None)

    Its arguments are those of k-diffusion:

    - `model(x, sigma, **extra_args)` returns the denoised prediction for states (batch, *event) and noise levels (batch,);
    - `x` is the state at `sigmas[0]`, of shape (batch, *event); it is not modified;
    - `sigmas` decrease; a last one of 0 makes the last step the denoised prediction. With fewer than two, `x` comes back;
    - `callback` gets a dict for each step, right after the step's first network call: `i`, the number of the step; `sigma`, that of the
      step; `x`, the state that the network saw; `sigma_hat`, its noise level (another than `sigma` for methods that look ahead, such as
      srk2m, and with churn); and `denoised`, what the network said;
    - `disable` switches the progress bar off; None switches it off where the output is not a terminal;
    - `eta` is that of srk, default as in `srk.solve`: 1 is the reverse SDE, 0 the probability-flow ODE. k-diffusion's ancestral methods
      mean the same; the eta of its `dpmpp_2m_sde` and `dpmpp_3m_sde` is the square of ours;
    - `s_noise` multiplies the noise;
    - `noise_sampler(sigma, sigma_next)` returns unit normals, independent on intervals that do not overlap. A step that needs one draw asks for
      (sigmas[i], sigmas[i + 1]), as in k-diffusion; one that needs more asks for as many consecutive pieces of that interval, so that the law is
      exact with a Brownian tree and with a plain generator. Steps to sigma = 0 draw nothing (but for `edm-heun` and its kin with `s_churn`). Without
      a noise sampler, draws come from torch's global generator on the device of `x`, as in k-diffusion's ancestral samplers: `torch.manual_seed`
      then repeats them.

    Methods of the ODE alone (`dpmpp-2m`, `heun`, ...) have no `eta`, `s_noise` and `noise_sampler`, as in k-diffusion.

    Arguments:
        solver: a registered name (`srk.solvers()`), an integrator with options, or a tableau.
        frame: "edm" if the model's state is x0 + sigma eps, as for all of k-diffusion; "flow" if it is (1 - sigma) x0 + sigma eps with sigma
            from 1 to 0, as hosts run rectified-flow models (SD3, Flux).

    Returns:
        The sampler; its `__name__` is sample_ and the name of the solver.

    Raises:
        UnknownNameError, ArgumentTypeError, ArgumentError: here, a solver or frame that does not exist; from the sampler, arguments that do
            not fit (the errors of `srk.solve`), such as TimeError for sigmas that do not decrease, or SolveError for a model that returns NaN.

    Source: the interface of k-diffusion 0.1.1, github.com/crowsonkb/k-diffusion.

    Examples:
        >>> import torch
        >>> sample = sampler("srk2m")
        >>> sample.__name__
        'sample_srk2m'
        >>> denoiser = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # data N(0, 1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = lambda sigma, sigma_next: torch.randn(4, 1, generator=generator)
        >>> sample(denoiser, 10.0 * torch.ones(4, 1), torch.tensor([10.0, 3.0, 1.0, 0.0]), noise_sampler=noise).shape
        torch.Size([4, 1])
    """
    method = integrator(solver)
    if frame not in get_args(Frame):
        raise ArgumentError(
            f"frame is 'edm' (x0 + sigma eps) or 'flow' ((1 - sigma) x0 + sigma eps), not {frame!r}"
        )
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
        return _sample(
            method,
            frame,
            model,
            x,
            sigmas,
            extra_args,
            callback,
            disable,
            eta,
            s_noise,
            noise_sampler,
        )

    def deterministic(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        return _sample(
            method, frame, model, x, sigmas, extra_args, callback, disable, 0.0, 1.0, None
        )

    sample: Sampler = stochastic if method.eta_range[1] > 0.0 else deterministic
    name = solver if isinstance(solver, str) else method.name
    sample.__name__ = sample.__qualname__ = "sample_" + name.replace("-", "_")
    sample.__doc__ = f"`{name}` as a k-diffusion sampler; see `srk.ecosystem.k_diffusion.sampler`."
    return sample


def _sample(
    method: Integrator,
    frame: Frame,
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None,
    callback: Callable[[dict[str, Any]], Any] | None,
    disable: bool | None,
    eta: float,
    s_noise: float,
    noise_sampler: NoiseSampler | None,
) -> Tensor:
    times = _times(sigmas, frame)
    if len(times) < 2:
        return x
    process: LinearProcess = (
        EDM(times[-1], times[0]) if frame == "edm" else Flow(times[-1], times[0])
    )
    step, told = 0, -1

    def network(state: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        nonlocal told
        denoised = model(state, sigma, **kwargs)
        if callback is not None and told < step:
            told = step
            callback(
                {
                    "x": state.clone(),
                    "i": step,
                    "sigma": sigmas[step],
                    "sigma_hat": sigma[0],
                    "denoised": denoised,
                }
            )
        return denoised

    def count(info: StepInfo) -> None:
        nonlocal step
        step = info.index + 1

    return solve(
        process,
        Data(network, time="t", model_kwargs=dict(extra_args or {}), network_dtype=x.dtype),
        method,
        x_init=x,
        grid=times,
        eta=eta,
        noise=_HostNoise(noise_sampler, sigmas, process, s_noise),
        denoise_final=False,
        callback=count if callback is not None else None,
        progress=not disable if disable is not None else sys.stderr.isatty(),
    ).x


def _times(sigmas: Tensor, frame: Frame) -> list[float]:
    """The sigmas as floats, in one transfer from their device."""
    if not isinstance(sigmas, Tensor) or sigmas.ndim != 1:
        raise ArgumentTypeError(f"sigmas must be a tensor of shape (steps + 1,), not {sigmas!r}")
    times: list[float] = (
        sigmas.detach().cpu().double().tolist()
    )  # not at once: some devices lack float64
    for i, (a, b) in enumerate(pairwise(times)):
        if not a > b >= 0.0 or math.isinf(a):
            raise TimeError(
                f"sigmas must be finite, not negative, and decrease from noise to data, but entries {i} and {i + 1} are {a!r} and {b!r}; "
                "drop repeated ones, e.g. torch.unique_consecutive(sigmas)"
            )
    if frame == "flow" and times and times[0] > 1.0:
        raise TimeError(
            f"in the frame 'flow' sigmas run from 1 to 0, but the first is {times[0]!r}; frame='edm' has no such bound"
        )
    return times


class _HostNoise(NoiseSource):
    """The host's noise sampler, asked once for each draw, on intervals that do not overlap; or torch's global generator."""

    name = "k-diffusion"

    def __init__(
        self, function: NoiseSampler | None, sigmas: Tensor, process: LinearProcess, scale: float
    ) -> None:
        self._function, self._sigmas, self._process, self._scale = (
            function,
            sigmas,
            process,
            float(scale),
        )
        self._intervals: dict[int, tuple[Tensor, Tensor]] = {}

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        for plan, ends in zip(plans, pairwise(self._sigmas), strict=True):
            cuts = [*map(self._sigmas.new_tensor, self._cuts(plan))]
            pieces = pairwise([ends[0], *cuts, ends[1]])
            self._intervals.update(
                (id(slot), piece)
                for slot, piece in zip(plan.slots, pieces, strict=bool(plan.slots))
            )

    def _cuts(self, plan: StepPlan) -> list[float]:
        """Where the step is cut so that each of its draws has a piece of its own."""
        pieces, start, stop = len(plan.slots), plan.start.t, plan.stop.t
        if (
            plan.clock == "-sigma/alpha"
        ):  # the path in sigma itself, of which `dpmpp-sde` asks two pieces
            return [self._process.time(-math.log(-slot.stop)) for slot in plan.slots[:-1]]
        return [start + (stop - start) * i / pieces for i in range(1, pieces)]

    def prior(self, out: Tensor) -> None:
        raise NotImplementedError  # the state is given

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        if self._function is None:
            out.normal_()
        else:
            result = self._function(*self._intervals[id(slot)])
            if not isinstance(result, Tensor) or result.shape != out.shape:
                got = (
                    f"a tensor of shape {tuple(result.shape)}"
                    if isinstance(result, Tensor)
                    else repr(result)
                )
                raise ArgumentError(
                    f"noise_sampler(sigma, sigma_next) must return unit normals of shape {tuple(out.shape)}, not {got}"
                )
            out.copy_(result)
        if self._scale != 1.0:
            out.mul_(self._scale)


sample_auto = sampler("auto")
sample_ddpm = sampler("ddpm")
sample_etd_sra1 = sampler("etd-sra1")
sample_euler_maruyama = sampler("euler-maruyama")
sample_srk1 = sampler("srk1")
sample_srk2 = sampler("srk2")
sample_srk2m = sampler("srk2m")
sample_srk2m_local = sampler("srk2m-local")
sample_srk2s = sampler("srk2s")
sample_wcw = sampler("wcw")

__all__ = [
    "sample_auto",
    "sample_ddpm",
    "sample_etd_sra1",
    "sample_euler_maruyama",
    "sample_srk1",
    "sample_srk2",
    "sample_srk2m",
    "sample_srk2m_local",
    "sample_srk2s",
    "sample_wcw",
    "sampler",
]
