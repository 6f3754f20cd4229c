"""Where `set_timesteps` puts the noise levels: diffusers' spacings, in the own times of the process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from srk.ecosystem.diffusers.conventions import Convention
from srk.errors import ArgumentError, IncompatibleError
from srk.integrators import Integrator
from srk.processes import EDM
from srk.processes.base import LinearProcess
from srk.steps import CONTROLLERS, Grid, Problem

SPACINGS = ("linspace", "leading", "trailing")
#: sigma/alpha that stands for alpha = 0 in the sigma schedules: that of alphas_cumprod = 2^-24, as in diffusers.
LARGEST = 4096.0


def own_times(
    config: Mapping[str, Any],
    made: Convention,
    method: Integrator,
    eta: float,
    *,
    steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
) -> tuple[list[float], bool]:
    """Own times of the ends of the steps, and whether a denoising step follows the last.

    Arguments:
        config: the scheduler's config.
        made: its convention.
        method, eta: for a grid that asks.
        steps: number of steps; or
        timesteps: the network's times at the start of each step; or
        sigmas: noise levels, as diffusers' schedulers of the family take them: "vp", "edm" sigma/alpha, the last one is the end; "flow" sigma before
            `shift`, an end at 0 is added.
        mu: the shift of flow schedulers with `use_dynamic_shifting`.
    """
    if timesteps is not None and sigmas is not None:
        raise ArgumentError("timesteps and sigmas both say where the steps go; give one of them")
    if (
        timesteps is None
        and sigmas is None
        and (steps is None or isinstance(steps, bool) or steps < 1)
    ):
        raise ArgumentError(
            f"num_inference_steps must be a positive int, not {steps!r}; or give timesteps or sigmas"
        )
    if sigmas is not None and not sigmas[0] > 0.0:
        raise ArgumentError(
            f"sigmas must decrease from the noise at the start, not {list(sigmas)!r}; e.g. sigmas=[14.6, 3.0, 0.5, 0.0]"
        )
    for name, given in (("timesteps", timesteps), ("sigmas", sigmas)):
        if given is not None and steps is not None and len(given) - steps not in (0, 1):
            raise ArgumentError(
                f"num_inference_steps={steps} contradicts the {len(given)} {name}; leave it out"
            )
    if (
        sum(bool(config.get(f"use_{name}_sigmas")) for name in ("karras", "exponential", "beta"))
        + bool(config.get("grid"))
        > 1
    ):
        raise ArgumentError(
            "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and grid exclude each other; set one of them"
        )
    final = config.get("final_sigmas_type") or "zero"
    if final not in ("zero", "sigma_min"):
        raise ArgumentError(f"final_sigmas_type must be 'zero' or 'sigma_min', not {final!r}")
    process, zero = made.process, final == "zero"
    if timesteps is not None:
        times = [made.level(float(t)).t for t in timesteps]
    elif config.get("grid") and sigmas is None:
        assert steps is not None
        return _house(config, made, method, eta, steps, zero)
    elif made.family == "flow":
        times = _flow(config, steps, sigmas, mu)
    elif sigmas is not None:
        values = [float(s) for s in sigmas]
        zero, values = values[-1] == 0.0, values[:-1] if values[-1] == 0.0 else values
        if made.family == "vp":
            return [_time(process, s) for s in values], zero
        return ([*values, 0.0], False) if zero else (values, False)
    elif made.family == "edm":
        assert steps is not None
        times = _schedule(config, steps, float(config.get("sigma_min") or 0.002), process.t_max)
    else:
        assert steps is not None
        times = _spaced(config, steps, process)
    if made.family == "vp":
        end = [] if zero or times[-1] == 0.0 else [0.0]
        return times + end, zero
    return [*times, 0.0] if zero else times, False


def _spaced(config: Mapping[str, Any], n: int, process: LinearProcess) -> list[float]:
    """The training indices of `timestep_spacing` (Lin et al. 2023, arXiv 2305.08891, table 2), or of a sigma schedule between the first and the last."""
    train, spacing = int(process.t_max) + 1, config.get("timestep_spacing") or "leading"
    if n > train:
        raise ArgumentError(
            f"num_inference_steps={n} is more than the {train} training steps; use grid='log-snr'"
        )
    if spacing == "linspace":
        times = np.linspace(0, train - 1, n)[::-1] if n > 1 else np.array([train - 1.0])
    elif spacing == "leading":
        times = (np.arange(n) * (train // n))[::-1] + float(config.get("steps_offset") or 0)
    elif spacing == "trailing":
        times = np.round(np.arange(train, 0, -train / n))[:n] - 1.0
    else:
        raise ArgumentError(
            f"timestep_spacing must be one of {', '.join(map(repr, SPACINGS))}, not {spacing!r}"
        )
    times = np.minimum(times, process.t_max)
    if not any(config.get(f"use_{name}_sigmas") for name in ("karras", "exponential", "beta")):
        return [float(t) for t in times]
    first, last = (min(process.level(float(t)).r, LARGEST) for t in (times[0], times[-1]))
    lowest, highest = config.get("sigma_min") or last, config.get("sigma_max") or first
    inner = [_time(process, s) for s in _schedule(config, n, lowest, highest)]
    return [float(times[0]), *inner[1:]] if highest == LARGEST else inner


def _schedule(config: Mapping[str, Any], n: int, lowest: float, highest: float) -> list[float]:
    """n sigmas from `highest` to `lowest`: exponential, beta, else Karras et al.'s."""
    ramp = np.linspace(0.0, 1.0, n)
    if config.get("use_exponential_sigmas"):
        values = np.exp(math.log(highest) + ramp * (math.log(lowest) - math.log(highest)))
    elif config.get("use_beta_sigmas"):
        values = lowest + scipy.stats.beta.ppf(1.0 - ramp, 0.6, 0.6) * (highest - lowest)
    else:
        rho = float(config.get("rho") or 7.0)
        values = (highest ** (1 / rho) + ramp * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho
    values[0] = highest
    if n > 1:
        values[-1] = lowest
    return [float(s) for s in values]


def _time(process: LinearProcess, sigma: float) -> float:
    """Own time at sigma/alpha = `sigma`; a rounded value just outside the range is its end."""
    ends = process.level(process.t_min).r, process.level(process.t_max).r
    for end, t in zip(ends, (process.t_min, process.t_max), strict=True):
        if abs(sigma - end) <= 1e-3 * end < math.inf:
            return t
    if not ends[0] < sigma < ends[1]:
        raise ArgumentError(
            f"sigma = {sigma!r} is outside the range of the network, [{ends[0]:.6g}, {ends[1]:.6g}]"
        )
    return process.time(-math.log(sigma))


def _flow(
    config: Mapping[str, Any], n: int | None, sigmas: Sequence[float] | None, mu: float | None
) -> list[float]:
    """Own times of `FlowMatchEulerDiscreteScheduler`: equally spaced, then shifted, stretched and spread as the config says."""
    shift, dynamic, train = (
        float(config.get("shift") or 1.0),
        bool(config.get("use_dynamic_shifting")),
        int(config["num_train_timesteps"]),
    )
    if dynamic and mu is None:
        raise ArgumentError(
            "use_dynamic_shifting needs mu, which depends on the size of the image: set_timesteps(..., mu=...)"
        )
    if sigmas is None:
        lowest = (
            1.0 / train
        )  # diffusers takes the shifted end of the training grid, and shifts it once more
        s = np.linspace(
            1.0, lowest if dynamic else shift * lowest / (1.0 + (shift - 1.0) * lowest), n or 0
        )
    else:
        s = np.array([float(value) for value in sigmas if value > 0.0])
    if not dynamic:
        s = shift * s / (1.0 + (shift - 1.0) * s)
    else:
        assert mu is not None
        factor = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
        s = factor / (factor + (1.0 / s - 1.0))
    if config.get("shift_terminal"):
        s = 1.0 - (1.0 - s) * (1.0 - float(config["shift_terminal"])) / (1.0 - s[-1])
    if any(config.get(f"use_{name}_sigmas") for name in ("karras", "exponential", "beta")):
        return _schedule(config, len(s), float(s[-1]), float(s[0]))
    return [float(value) for value in s]


def _house(
    config: Mapping[str, Any],
    made: Convention,
    method: Integrator,
    eta: float,
    steps: int,
    zero: bool,
) -> tuple[list[float], bool]:
    """The times of one of srk's own grids, `steps` steps with the step to sigma = 0 among them."""
    grid = CONTROLLERS[config["grid"]]()
    if not isinstance(grid, Grid):
        raise IncompatibleError(
            f"grid={config['grid']!r} decides its steps as it goes, but a scheduler must know them before; use grid='log-snr'"
        )
    process = made.process
    if made.family == "flow" and zero:
        return grid.times(Problem(process, method, steps, eta)), False
    if made.family == "flow":
        raise IncompatibleError(
            "final_sigmas_type='sigma_min' has no grid of srk for flow networks, whose noise goes to 0; use 'zero'"
        )
    noisy = (
        EDM(float(config.get("sigma_min") or 0.002), process.t_max)
        if made.family == "edm"
        else process
    )
    count = steps - 1 if zero else steps
    times = grid.times(Problem(noisy, method, count, eta)) if count else [process.t_max]
    return (times, zero) if made.family == "vp" else ([*times, 0.0] if zero else times, False)
