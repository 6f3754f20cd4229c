"""Samplers with the calling convention of k-diffusion, for ComfyUI, A1111, Forge and others.

Such hosts look for functions `sample(model, x, sigmas, ...)`. `sampler` makes one of any solver.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, TimeError
from srk.integrators import SRK2M, SRK2S, Auto, Integrator, integrator
from srk.noise import BrownianNoise, GeneratorNoise, KeyedNoise, NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.processes import EDM, Flow, LinearProcess
from srk.sampling import Sampler as Run
from srk.scores import Data
from srk.steps import Grid, RunInfo
from srk.tableaus import StochasticTableau

Frame = Literal["auto", "edm", "flow"]
Calls = Literal["free", "schedule"]
NoiseName = Literal["brownian", "generator", "keyed"]
Model = Callable[..., Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[..., Tensor]

#: Two sigmas closer than this, relative to the larger, are one: the same number rounded twice.
SAME = 1e-6
#: Halvings of an octave of the clock that Brownian paths share at all numbers of steps.
LEVELS = 4


def sampler(
    solver: str | Integrator | StochasticTableau,
    *,
    frame: Frame = "auto",
    calls: Calls | None = None,
    noise: NoiseName | None = None,
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
    - `eta` is that of srk, default as in `srk.solve`: 1 is the reverse SDE, 0 the probability-flow
      ODE. k-diffusion's ancestral methods mean the same; the eta of its `dpmpp_2m_sde` and
      `dpmpp_3m_sde` is the square of ours. A solver that is defined for one eta alone (`wcw`)
      takes that one, with a warning where another was asked for.
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
            refine, so that they refine the picture), "generator", or "keyed" (the same numbers on
            every device). Default: torch's global generator itself, as in k-diffusion's ancestral
            samplers: `torch.manual_seed` then repeats a run.

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
    settings = _Settings(method, frame, calls, noise)
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


def frame_of(model: Any) -> Literal["edm", "flow"]:
    """The frame in which a host runs a model: "flow" for SD3, Flux and their kin, else "edm".

    ComfyUI, Forge and A1111 wrap their models several times; inside is an object with a method
    `noise_scaling(sigma, noise, latent)`, which makes the state of the first step. It is asked for
    the state without noise at sigma = 1/2, which is 1/2 of the latent in the frame of rectified
    flow and the latent itself in that of k-diffusion.

    Arguments:
        model: what the host passes to a sampler.

    Returns:
        The frame; "edm" for a model with nothing of the kind, such as a plain function.

    Raises:
        IncompatibleError: the state is neither.
    """
    waiting: list[Any] = [model]
    seen: set[int] = set()
    while waiting and len(seen) < 64:
        thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        scaling = getattr(thing, "noise_scaling", None)
        if callable(scaling):
            latent = torch.ones(1, 1, 1, 1)
            share = float(scaling(torch.tensor(0.5), torch.zeros(1, 1, 1, 1), latent).mean())
            if abs(share - 0.5) < 1e-3:
                return "flow"
            if abs(share - 1.0) < 1e-3:
                return "edm"
            raise IncompatibleError(
                f"the model's state at sigma = 0.5 holds {share:.4g} of the latent, which is "
                "neither the frame of k-diffusion (1) nor that of rectified flow (0.5)"
            )
        for name in ("model_sampling", "predictor", "inner_model", "model_wrap", "model"):
            inner = getattr(thing, name, None)
            if inner is not None:
                waiting.append(inner)
    return "edm"


@attrs.frozen
class _Settings:
    """What `sampler` was asked for."""

    method: Integrator
    frame: Frame
    calls: Calls | None
    noise: NoiseName | None

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


@attrs.frozen
class _Schedule:
    """The sigmas of a run without those that repeat, and where each stands in the host's list."""

    times: list[float]
    places: list[int]
    rising: bool


class _Rising(Grid):
    """A grid from data to noise, for the probability-flow ODE."""

    name: ClassVar[str] = "rising"

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def times(self, problem: RunInfo) -> list[float]:
        return self.values


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
    schedule = _schedule(sigmas, frame)
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

    run = Run(
        process,
        Data(network, time="t", network_dtype=x.dtype),
        method,
        grid=_Rising(times) if schedule.rising else times,
        eta=eta,
        denoise_final=False,
        calls="free" if schedule.rising else settings.calls_at(),
    )
    asked += [(i, s.level.t) for i, plan in enumerate(run.plans()) for s in plan.stages]
    source: NoiseSource
    if noise_sampler is not None or settings.noise is None:
        kept = sigmas[schedule.places]
        source = _HostNoise(noise_sampler, kept, process)
    else:
        source = _own_noise(settings.noise, call.extra_args.get("seed"))
    return run(
        x_init=x,
        noise=source if s_noise == 1.0 else _Scaled(source, float(s_noise)),
        progress=not call.disable if call.disable is not None else sys.stderr.isatty(),
    ).x


def _schedule(sigmas: Tensor, frame: Frame) -> _Schedule:
    """The sigmas as floats, in one transfer from their device, repeats dropped."""
    if not isinstance(sigmas, Tensor) or sigmas.ndim != 1:
        raise ArgumentTypeError(f"sigmas must be a tensor of shape (steps + 1,), not {sigmas!r}")
    # not double at once: some devices lack float64
    values: list[float] = sigmas.detach().cpu().double().tolist()
    for i, value in enumerate(values):
        if not 0.0 <= value < math.inf:
            raise TimeError(f"sigmas must be finite and not negative, but entry {i} is {value!r}")
        if frame == "flow" and value > 1.0:
            if value > 1.0 + SAME:
                raise TimeError(
                    f"in the frame 'flow' sigmas run from 1 to 0, but entry {i} is {value!r}; "
                    "frame='edm' has no such bound"
                )
            values[i] = 1.0  # rounded up where the host formed it
    places = [i for i in range(len(values)) if i == 0 or not _same(values[i - 1], values[i])]
    times = [values[i] for i in places]
    if len(times) < len(values) and len(places) > 1:
        # of sigmas that repeat the last is where the next step starts
        places = [*(b - 1 for b in places[1:]), places[-1]]
    rising = len(times) > 1 and times[1] > times[0]
    for i, (a, b) in enumerate(pairwise(times)):
        if (b > a) != rising:
            raise TimeError(
                "sigmas must decrease from noise to data (or all rise, for the ODE from data to "
                f"noise), but entries {places[i]} and {places[i + 1]} are {a!r} and {b!r}"
            )
    if rising and times[0] == 0.0:
        raise TimeError(
            "sigmas that rise start above 0, where the model tells noise from data; "
            f"use a small one, such as {0.01 * times[1]:.2g}, in place of the first"
        )
    if rising and frame == "flow" and times[-1] == 1.0:
        times[-1] = 1.0 - SAME  # at 1 nothing is left of the data
    return _Schedule(times, places, rising)


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(a, b)


def _own_noise(name: NoiseName, seed: Any) -> NoiseSource:
    """A noise source of ours; a list of seeds is one for each sample, as in Forge."""
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    if name == "generator":
        # one off, so that the steps do not repeat the draws of the host's initial state
        return GeneratorNoise(int(seed if not isinstance(seed, list | tuple) else seed[0]) + 1)
    seeds = {"seeds": list(seed)} if isinstance(seed, list | tuple) else {"seed": int(seed)}
    made: NoiseSource = (
        KeyedNoise(**seeds) if name == "keyed" else BrownianNoise(**seeds, levels=LEVELS)
    )
    return made


class _Scaled(NoiseSource):
    """Another source, times a number."""

    name: ClassVar[str] = "scaled"

    def __init__(self, source: NoiseSource, scale: float) -> None:
        self._source, self._scale = source, scale

    def fresh(self) -> _Scaled:
        return _Scaled(self._source.fresh(), self._scale)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._source.start(shape, dtype, device)

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        self._source.prepare(plans)

    def prior(self, out: Tensor) -> None:
        self._source.prior(out)

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self._source.draw(slot, clock, out)
        out.mul_(self._scale)


@attrs.define(eq=False)
class _Interval:
    """Draws that belong to one interval of sigma, and what the host's sampler says of its pieces.

    Arguments:
        ends: sigmas that cut the interval into as many pieces as there are draws.
        mixes: for each draw, its coordinates over the pieces; an orthogonal matrix.
        pieces: unit normals of the pieces, once they are asked for.
    """

    ends: list[Tensor]
    mixes: np.ndarray
    pieces: list[Tensor] = attrs.field(factory=list)


class _HostNoise(NoiseSource):
    """The host's noise sampler, asked once for each piece of the path; or torch's global generator.

    The pieces do not overlap, and there is one for each draw, so that the draws are independent
    unit normals whether the host holds a path or not. A draw that is an increment of the solver's
    path gets the host's increment over the same interval; what it wants of the path beyond that is
    approximated by the pieces.
    """

    name: ClassVar[str] = "k-diffusion"

    def __init__(
        self, function: NoiseSampler | None, sigmas: Tensor, process: LinearProcess
    ) -> None:
        self._function, self._sigmas, self._process = function, sigmas, process
        self._draws: dict[int, tuple[_Interval, int]] = {}

    def fresh(self) -> _HostNoise:
        return _HostNoise(self._function, self._sigmas, self._process)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        if self._function is None:
            return
        for index, plan in enumerate(plans):
            if plan.stop.sigma == 0.0:  # a host's path ends at the smallest positive sigma
                continue
            for (start, stop), slots in self._groups(plan).items():
                count = len(slots)
                inner = [start + (stop - start) * j / count for j in range(1, count)]
                times = [start, *inner, stop]
                ends = [self._sigma(t, index) for t in times]
                lengths = np.abs(np.diff(times))
                interval = _Interval(ends, _mix([slot.weights for slot in slots], lengths))
                self._draws |= {id(slot): (interval, j) for j, slot in enumerate(slots)}

    def _groups(self, plan: StepPlan) -> dict[tuple[float, float], list[Slot]]:
        """The draws of a step by the interval of own time to which they belong."""
        groups: dict[tuple[float, float], list[Slot]] = {}
        for slot in plan.slots:
            ends = [_own_time(self._process, plan.clock, at) for at in (slot.start, slot.stop)]
            if None in ends or not ends[0] > ends[1]:  # type: ignore[operator]
                return {(plan.start.t, plan.stop.t): list(plan.slots)}
            groups.setdefault((ends[0], ends[1]), []).append(slot)  # type: ignore[arg-type]
        path = sorted(groups, reverse=True)
        if any(a[1] < b[0] * (1.0 - SAME) for a, b in pairwise(path)):  # they overlap
            return {(plan.start.t, plan.stop.t): list(plan.slots)}
        return groups

    def _sigma(self, t: float, index: int) -> Tensor:
        """A time as a sigma of the host's: its own where it has that one."""
        for sigma in (index, index + 1, index + 2):
            if sigma < len(self._sigmas) and _same(self._values[sigma], t):
                return self._sigmas[sigma]
        return self._sigmas.new_tensor(t)

    @property
    def _values(self) -> list[float]:
        if not hasattr(self, "_floats"):
            self._floats: list[float] = self._sigmas.detach().cpu().double().tolist()
        return self._floats

    def prior(self, out: Tensor) -> None:
        raise NotImplementedError  # the state is given

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        if self._function is None or id(slot) not in self._draws:
            out.normal_()
            return
        interval, j = self._draws[id(slot)]
        if not interval.pieces:
            for ends in pairwise(interval.ends):
                piece = self._function(*ends)
                if not isinstance(piece, Tensor) or piece.shape != out.shape:
                    got = f"{tuple(piece.shape)}" if isinstance(piece, Tensor) else repr(piece)
                    raise ArgumentError(
                        "noise_sampler(sigma, sigma_next) must return unit normals of shape "
                        f"{tuple(out.shape)}, not {got}"
                    )
                interval.pieces.append(piece)
        if len(interval.pieces) == 1:
            out.copy_(interval.pieces[0])
            return
        out.zero_()
        for piece, share in zip(interval.pieces, interval.mixes[j].tolist(), strict=True):
            out.add_(piece.to(out), alpha=share)


def _own_time(process: LinearProcess, clock: str, value: float) -> float | None:
    """The time of a value of a clock that depends on sigma/alpha alone; None of others."""
    if clock == "-sigma/alpha":
        ratio = -value
    else:
        gauge = re.fullmatch(r"gauge\((\S+),(\S+)\)", clock)
        if gauge is None or math.isinf(float(gauge[1])):
            return None
        v, e = float(gauge[1]), float(gauge[2]) ** 2
        if e == 0.0 or not math.isfinite(value):
            return None
        square = (e * value) ** (-1.0 / e) - v if value > 0.0 else math.inf
        ratio = math.sqrt(max(square, 0.0))
    ends = process.level(process.t_max), process.level(process.t_min)
    if ratio >= ends[0].r:
        return process.t_max
    return process.t_min if ratio <= ends[1].r else process.time(-math.log(ratio))


def _mix(weights: Sequence[tuple[float, ...]], lengths: np.ndarray) -> np.ndarray:
    """Orthogonal coordinates of draws over the unit normals of consecutive pieces of an interval.

    The draws are given by their weights over the increment W, the space-time area H and more (see
    `Slot`). W is a sum over the pieces, and H nearly so; the nearest orthogonal matrix to these
    coordinates keeps the draws independent.
    """
    count = len(lengths)
    shares = lengths / lengths.sum()
    middles = np.cumsum(shares) - 0.5 * shares
    basis = np.zeros((count, count))
    basis[0] = np.sqrt(shares)
    if count > 1:
        basis[1] = np.sqrt(shares) * (0.5 - middles)
    basis += 1e-6 * np.eye(count)  # what is not on the path may point anywhere
    path = np.linalg.qr(basis.T)[0].T
    path *= np.where((path * basis).sum(1) < 0.0, -1.0, 1.0)[:, None]
    wanted = np.zeros((count, count))
    for row, weight in zip(wanted, weights, strict=True):
        row[: min(count, len(weight))] = weight[:count]
    left, _, right = np.linalg.svd(wanted @ path)
    return np.asarray(left @ right)


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
    "frame_of",
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
