"""Where `set_timesteps` puts the noise levels, in the own times of the process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import torch

from srk.ecosystem.diffusers.conventions import Convention
from srk.ecosystem.diffusers.hosts import Spaced, ask
from srk.ecosystem.profiles import profile_of
from srk.errors import ArgumentError, IncompatibleError
from srk.integrators import Integrator
from srk.processes import EDM
from srk.processes.base import LinearProcess
from srk.steps import CONTROLLERS, Budget, Grid, RunInfo

SAME = 1e-6
"""Relative difference of sigma/alpha below which two levels in float32 are one."""


@attrs.frozen
class Levels:
    """The noise levels of a run.

    Arguments:
        times: own times at the start of each step and at the end of the last; not increasing. Two
            that are equal are a step of no length, which a scheduler of diffusers may have.
        denoise: whether a denoising step follows the last.
        told: what the network is told at the start of each step, the denoising step among them;
            None: the time that its adapter computes.
        dtype: of `timesteps` where the network is told only these.
    """

    times: tuple[float, ...]
    denoise: bool
    told: tuple[float, ...] | None = None
    dtype: torch.dtype = torch.float32


def levels(
    config: Mapping[str, Any],
    made: Convention,
    method: Integrator,
    eta: float,
    *,
    steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Levels:
    """The levels of a run: those of the scheduler that the config came from, or of a grid of srk.

    Arguments:
        config: the scheduler's config.
        made: its convention.
        method, eta: for a grid that asks.
        steps: number of steps; or
        timesteps: the network's times at the start of each step; or
        sigmas: noise levels, as the schedulers of diffusers take them: "vp", "edm" sigma/alpha, the
            last one is the end; "flow" sigma before `shift`, an end at 0 is added.
        mu: the shift of flow schedulers with `use_dynamic_shifting`.
        more: further arguments for the `set_timesteps` of the scheduler that is asked.

    Raises:
        ArgumentError: the arguments contradict each other or the config.
        IncompatibleError: the grid cannot be known before the run.
    """
    _check(config, made, steps, timesteps, sigmas, mu)
    if sigmas is not None and made.family == "flow":
        sigmas = [s for s in sigmas if s > 0.0]  # theirs adds the end at 0
    family, zero = made.family, (config.get("final_sigmas_type") or "zero") == "zero"
    grid = bool(config.get("grid"))
    if grid and timesteps is None and (sigmas is None or _is_the_pipelines_own(made, sigmas)):
        count = steps if sigmas is None else len(sigmas)
        assert count is not None
        return _of_srk(config, made, method, eta, count, zero)
    asked = None
    alone = steps == 1 and family == "vp" and not config.get("host")
    if alone and config.get("timestep_spacing") == "linspace":
        timesteps = [made.process.t_max]  # not step 0, where diffusers has it
    if family == "flow" or (timesteps is None and sigmas is None) or _falls(timesteps, sigmas):
        both = timesteps is not None and sigmas is not None  # the levels, and what is told
        asked = _ask(
            config,
            made,
            steps=steps,
            timesteps=None if both else timesteps,
            sigmas=sigmas,
            mu=mu,
            more=more,
        )
        if both and asked is not None and timesteps is not None:
            asked = attrs.evolve(asked, timesteps=tuple(map(float, timesteps)))
    if asked is not None:
        return _own(config, made, asked)
    if timesteps is not None:
        times = [made.level(float(t)).t for t in timesteps]
        if family == "vp":
            end = [] if zero or times[-1] == 0.0 else [0.0]
            return Levels(tuple(times + end), zero)
        return Levels((*times, 0.0) if zero else tuple(times), False)
    assert sigmas is not None
    values = [float(s) for s in sigmas]
    zero, values = values[-1] == 0.0, values[:-1] if values[-1] == 0.0 else values
    if family == "vp":
        return Levels(tuple(own_time(made.process, s) for s in values), zero)
    return Levels((*values, 0.0) if zero else tuple(values), False)


def _check(
    config: Mapping[str, Any],
    made: Convention,
    steps: int | None,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
    mu: float | None,
) -> None:
    """Refuse what contradicts itself, before a scheduler of diffusers is asked."""
    if timesteps is not None and sigmas is not None and made.family != "flow":
        raise ArgumentError("timesteps and sigmas both say where the steps go; give one of them")
    whole = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool) and steps > 0
    if timesteps is None and sigmas is None and not whole:
        raise ArgumentError(
            f"num_inference_steps must be a positive int, not {steps!r}; or give timesteps or "
            "sigmas"
        )
    if sigmas is not None and not sigmas[0] > 0.0:
        raise ArgumentError(
            "sigmas must decrease from the noise at the start, "
            f"not {list(sigmas)!r}; e.g. sigmas=[14.6, 3.0, 0.5, 0.0]"
        )
    for name, given in (("timesteps", timesteps), ("sigmas", sigmas)):
        if given is not None and steps is not None and len(given) - steps not in (0, 1):
            raise ArgumentError(
                f"num_inference_steps={steps} contradicts the {len(given)} {name}; leave it out"
            )
    schedules = [f"use_{name}_sigmas" for name in ("karras", "exponential", "beta")] + ["grid"]
    if sum(bool(config.get(name)) for name in schedules) > 1:
        raise ArgumentError(
            "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and grid exclude each "
            "other; set one of them"
        )
    final = config.get("final_sigmas_type") or "zero"
    if final not in ("zero", "sigma_min"):
        raise ArgumentError(f"final_sigmas_type must be 'zero' or 'sigma_min', not {final!r}")
    spacing = config.get("timestep_spacing") or "leading"
    if spacing not in ("linspace", "leading", "trailing"):
        raise ArgumentError(
            f"timestep_spacing must be one of 'linspace', 'leading', 'trailing', not {spacing!r}"
        )
    dynamic = made.family == "flow" and config.get("use_dynamic_shifting")
    if dynamic and mu is None and not config.get("grid"):
        raise ArgumentError(
            "use_dynamic_shifting needs mu, which depends on the size of the image: "
            "set_timesteps(..., mu=...)"
        )
    train = int(config.get("num_train_timesteps", 1000))
    spaced = steps is not None and timesteps is None and sigmas is None and not config.get("grid")
    if made.family == "vp" and spaced and steps is not None and steps > train:
        raise ArgumentError(
            f"num_inference_steps={steps} is more than the {train} training steps; "
            "use grid='log-snr'"
        )


def _falls(timesteps: Sequence[float] | None, sigmas: Sequence[float] | None) -> bool:
    """Whether a list can be given to a scheduler of diffusers, which would not check it."""
    values = timesteps if timesteps is not None else sigmas
    assert values is not None
    return all(b < a for a, b in pairwise(values))


def _is_the_pipelines_own(made: Convention, sigmas: Sequence[float]) -> bool:
    """Whether a flow pipeline passes the list that it makes itself where its user gives none."""
    n = len(sigmas)
    usual = np.linspace(1.0, 1.0 / n, n)
    return made.family == "flow" and bool(np.allclose(usual, sigmas, rtol=1e-6, atol=0.0))


def _ask(config: Mapping[str, Any], made: Convention, **request: Any) -> Spaced | None:
    if made.family == "edm" and request["sigmas"] is not None:
        return None  # theirs takes places between the ends there, not sigmas
    return ask(config, **request)


def _own(config: Mapping[str, Any], made: Convention, asked: Spaced) -> Levels:
    """The levels that a scheduler of diffusers has, in the own times of the process."""
    process = made.process
    if made.family == "vp":
        last = asked.levels[-1]
        times = [
            _training_time(process, t) if level is None else _vp_time(process, t, level)
            for t, level in zip(asked.timesteps, asked.levels[:-1], strict=True)
        ]
        if last != 0.0:
            times.append(0.0 if last is None else own_time(process, last))
    else:
        times = [math.nan if level is None else level for level in asked.levels]
    for i in range(1, len(times)):  # levels in float32 that stand for the same one
        a, b = (process.level(t).r if made.family == "vp" else t for t in times[i - 1 : i + 1])
        if abs(a - b) <= SAME * a < math.inf:
            times[i] = times[i - 1]
    if config.get("round_timesteps") and made.family == "vp":
        return Levels(
            tuple(float(round(t)) for t in times),
            asked.levels[-1] == 0.0,
            tuple(float(round(t)) for t in asked.timesteps),
            torch.int64,
        )
    zero = made.family == "vp" and asked.levels[-1] == 0.0
    return Levels(tuple(times), zero, asked.timesteps, asked.dtype)


def _training_time(process: LinearProcess, timestep: float) -> float:
    """Own time of a training step; the lists of some schedulers go one beyond the last."""
    return min(max(timestep, process.t_min), process.t_max)


def _vp_time(process: LinearProcess, timestep: float, r: float) -> float:
    """Own time of a level that is given in float32: the training step itself where it is meant."""
    t = _training_time(process, timestep)
    exact = process.level(t).r
    meant = exact == r or (t.is_integer() and abs(exact - r) <= 3e-7 * r)
    return t if meant else own_time(process, r)


def own_time(process: LinearProcess, r: float) -> float:
    """Own time at sigma/alpha = `r`; a rounded value just outside the range is its end.

    Raises:
        ArgumentError: `r` is outside the range of the training.
    """
    ends = process.level(process.t_min).r, process.level(process.t_max).r
    for end, t in zip(ends, (process.t_min, process.t_max), strict=True):
        if abs(r - end) <= 1e-3 * end < math.inf and not (ends[0] < r < ends[1]):
            return t
    if not ends[0] < r < ends[1]:
        raise ArgumentError(
            f"sigma = {r!r} is outside the range of the network, [{ends[0]:.6g}, {ends[1]:.6g}]"
        )
    return process.time(-math.log(r))


def _of_srk(
    config: Mapping[str, Any],
    made: Convention,
    method: Integrator,
    eta: float,
    steps: int,
    zero: bool,
) -> Levels:
    """The times of one of srk's own grids, with the step to sigma = 0 among its `steps` steps."""
    profile = profile_of(config.get("profile"))
    if config["grid"] == Budget.name and profile is None:
        raise ArgumentError(
            "grid='budget' places the steps by a profile: give profile=srk.calibrate(process, "
            "score), where process, score = srk.from_pipeline(pipe), or use grid='log-snr'"
        )
    grid: Any = Budget(profile) if config["grid"] == Budget.name else CONTROLLERS[config["grid"]]()
    if not isinstance(grid, Grid):
        raise IncompatibleError(
            f"grid={config['grid']!r} decides its steps as it goes, but a scheduler must know them "
            "before; use grid='log-snr'"
        )
    process = made.process
    if isinstance(config.get("eta"), int | float | None):  # else the choice is made at each step
        method = method.choose(process, eta, steps)
    if made.family == "flow" and zero:
        return Levels(tuple(grid.times(RunInfo(process, method, steps, eta))), False)
    if made.family == "flow":
        raise IncompatibleError(
            "final_sigmas_type='sigma_min' has no grid of srk for flow networks, whose noise goes "
            "to 0; use 'zero'"
        )
    noisy = (
        EDM(float(config.get("sigma_min") or 0.002), process.t_max)
        if made.family == "edm"
        else process
    )
    count = steps - 1 if zero else steps
    times = grid.times(RunInfo(noisy, method, count, eta)) if count else [process.t_max]
    if config.get("round_timesteps") and made.family == "vp":
        times = sorted({float(round(t)) for t in times}, reverse=True)
    if made.family == "vp":
        return Levels(tuple(times), zero)
    return Levels((*times, 0.0) if zero else tuple(times), False)
