"""The sigmas of a host, as the times of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, integer
from srk.ecosystem.k_diffusion.frames import Frame
from srk.ecosystem.profiles import profile_of
from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.integrators import Auto
from srk.processes import EDM, Flow, LinearProcess
from srk.steps import Budget, Profile, RunInfo

#: Two sigmas closer than this, relative to the larger, are one: the same number rounded twice.
SAME = 1e-6


@attrs.frozen
class Schedule:
    """The sigmas of a run without those that repeat, and where each stands in the host's list."""

    times: list[float]
    places: list[int]
    rising: bool


def schedule_of(sigmas: Tensor, frame: Frame) -> Schedule:
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
    places = [i for i in range(len(values)) if i == 0 or not same(values[i - 1], values[i])]
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
    return Schedule(times, places, rising)


def same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(a, b)


def sigmas_of(
    profile: Profile | str | os.PathLike[str] | Mapping[str, Any],
    steps: int,
    *,
    frame: Literal["edm", "flow"] = "edm",
    sigma_min: float = 0.0292,
    sigma_max: float = 14.6146,
    eta: float | None = None,
) -> Tensor:
    """Noise levels for a host, placed as `srk.solve` places the steps of `auto` with a profile.

    Arguments:
        profile: what `srk.calibrate` measured of the network, its dict, or the path of its file.
        steps: number of steps, the one to 0 among them.
        frame: "edm" or "flow", as in `sampler`; a flow's levels run from 1 or `sigma_max`.
        sigma_min, sigma_max: the ends of the model's noise; the defaults are those of Stable
            Diffusion.
        eta: of the sampler: with noise the steps go elsewhere than those of the ODE. None: the
            default of `auto` with a profile, which is 0.

    Returns:
        Sigmas, shape (steps + 1,), float32, decreasing to 0.

    Raises:
        ArgumentError: the profile does not cover these noise levels, or it is none.

    Examples:
        >>> import srk
        >>> edm, target = srk.EDM(0.01, 20.0), srk.targets.Gaussian(0.0, 0.25)
        >>> profile = srk.calibrate(edm, target.score(edm), shape=(64, 1))
        >>> sigmas_of(profile, 4, sigma_min=0.03, sigma_max=14.6).shape
        torch.Size([5])
    """
    known = profile_of(profile)
    if known is None:
        raise ArgumentError("sigmas_of needs a profile: srk.calibrate(process, score)")
    count = integer(steps, "steps", least=1)
    process: LinearProcess
    if frame == "flow":
        process = Flow(sigma_min, min(sigma_max, 1.0))
    else:
        process = EDM(sigma_min, sigma_max)
    levels = [process.t_max]
    if count > 1:
        auto = Auto().calibrated(known)
        one = auto.default_eta if eta is None else as_float(eta)
        solver = auto.choose(process, one, count - 1)
        levels = Budget(known).times(RunInfo(process, solver, count - 1, one))
    return torch.tensor([*levels, 0.0], dtype=torch.float32)
