"""Pilot runs: what grids and `auto` know of a network before the first sample is drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from srk._checks import integer, outside, shown
from srk.errors import ArgumentTypeError, IncompatibleError
from srk.integrators import Integrator, integrator
from srk.noise import KeyedNoise
from srk.processes.phase import statistic
from srk.sampling.pilot_sums import Meter, OdePath, Sums
from srk.scores import Prediction
from srk.steps import Budget, Profile
from srk.steps.grids import need_linear

CALLS = 100
"""Network calls that a calibration makes at most."""
COORDINATES = 1024
"""Small states come in larger numbers, so that there are as many coordinates as this."""
LEAST_STEPS = 4
PATH = 1.0 / 3.0
"""The part of the calls that follows the ODE."""
LEAST_PATH = 8
"""With fewer levels on the ODE its bend is not measured."""
ROUNDING = 128.0
"""Second differences at levels sigma/alpha below so many roundings of the state are noise."""
SEED = 0x70696C6F74
"""Added to the seed of a pilot's noise, which is one that a run is not likely to have."""

MakeSampler = Callable[..., Callable[..., Any]]
"""`srk.Sampler`, which draws what a pilot looks at."""


def least_samples(event: Sequence[int], least: int) -> int:
    """How many samples of shape `event` make enough coordinates."""
    return max(least, -(-COORDINATES // max(1, math.prod(event))))


def measured(
    grid: Budget,
    sampler: MakeSampler,
    process: Any,
    prediction: Prediction,
    shape: Sequence[int],
    *,
    bend: bool,
    device: torch.device,
    dtype: torch.dtype,
    autocast: torch.dtype | None = None,
) -> Budget:
    """The grid with a profile, measured with the conditions of a run of the given shape.

    Arguments:
        grid: a grid without a profile; it says how many samples and steps the pilot has.
        sampler: `srk.Sampler`.
        process: what is reversed.
        prediction: bound to the process, with the conditions of the whole batch.
        shape: (batch, *event) of the run.
        bend: whether the grid goes by how the ODE bends.
        device, dtype: of its states.
        autocast: dtype around the network.
    """
    need_linear(grid, process)
    event, width = tuple(shape[1:]), int(shape[0])
    least = least_samples(event, 16)
    count = least if grid.samples is None else integer(grid.samples, "samples", least=1)
    # Conditions belong to the samples of the run's batch: pieces of the pilot have its width.
    conditioned = prediction.select(slice(0, 1), width) is not prediction
    profile = measure(
        sampler,
        process,
        prediction,
        (count, *event),
        steps=integer(grid.steps, "steps of a pilot", least=LEAST_STEPS),
        seed=integer(grid.seed, "seed of a pilot", least=0),
        size=width if conditioned else max(width, least),
        conditioned=conditioned,
        width=width,
        bend=bend,
        device=device,
        dtype=dtype,
        autocast=autocast,
    )
    return attrs.evolve(grid, profile=profile)


def calibrated(profile: Any, method: Integrator, process: Any) -> Integrator:
    """The solver of a run with a profile: `auto` takes its gauge from it.

    Arguments:
        profile: what the user gave.
        method: the solver.
        process: of the run.
    """
    if not isinstance(profile, Profile):
        raise ArgumentTypeError(
            f"profile must be an srk.Profile, not {shown(profile)}; "
            "use profile=srk.Profile.load(path), or measure one: srk.calibrate(process, score)"
        )
    profile.check(process)
    return method.calibrated(profile)


def placed(profile: Profile, method: Integrator, grid: Any, eta: float) -> Any:
    """The grid of a run with a profile.

    With "budget", and without a grid where the run has noise or the solver is one that a profile
    places, the profile places the steps.

    Arguments:
        profile, method: the profile and the solver of the run.
        grid: what the user gave.
        eta: of the run.
    """
    places = eta > 0.0 or method.profiled
    if (grid is None and places) or (isinstance(grid, str) and grid == Budget.name):
        return Budget(profile)
    if isinstance(grid, Budget) and grid.profile is None:
        return attrs.evolve(grid, profile=profile)
    return grid


def guidance_of(prediction: Any, process: Any, lam: Sequence[float]) -> tuple[float, ...]:
    """The guidance scales of a prediction and of those inside it, in order.

    Arguments:
        prediction: bound to the process.
        process: gives the levels at which a scale that is a function is asked.
        lam: half log-SNRs of those levels, of which the mean is taken.
    """
    scales = getattr(prediction, "scales", None)
    if scales is None:
        scales = (prediction.scale,) if hasattr(prediction, "scale") else ()
    found: list[float] = []
    for scale in scales if isinstance(scales, tuple | list) else (scales,):
        if callable(scale):
            linear = statistic(process)
            assert linear is not None
            found.append(float(np.mean([float(scale(linear.level_at(x))) for x in lam])))
        elif isinstance(scale, int | float):
            found.append(float(scale))
    inner = getattr(prediction, "prediction", None)
    if isinstance(inner, Prediction):
        found.extend(guidance_of(inner, process, lam))
    return tuple(found)


def check_guidance(profile: Profile, prediction: Prediction, process: Any) -> None:
    """Warn where a profile was measured at another guidance scale than the network now has."""
    edges = [x for x in profile.lam if _inside(process, x)]
    warn_of_guidance(profile, guidance_of(prediction, process, edges))


def warn_of_guidance(profile: Profile, now: Sequence[float]) -> None:
    """Warn unless `now` are the guidance scales that a profile was measured at."""
    if not profile.guidance and not now:
        return
    same = len(now) == len(profile.guidance) and np.allclose(now, profile.guidance, rtol=1e-3)
    if not same:
        then = ", ".join(f"{scale:g}" for scale in profile.guidance) or "none"
        used = ", ".join(f"{scale:g}" for scale in now) or "none"
        warnings.warn(
            f"the profile was measured at guidance scale {then} and is used at {used}, where the "
            "denoiser moves elsewhere; measure one: srk.calibrate(process, score) with the score "
            "that you sample with",
            UserWarning,
            stacklevel=outside(),
        )


# -- the measurement ---------------------------------------------------------------------------


def _inside(process: Any, lam: float) -> bool:
    linear = statistic(process)
    assert linear is not None
    return bool(linear.lam(linear.t_max) < lam < linear.lam(linear.t_min))


def measure(
    sampler: MakeSampler,
    process: Any,
    prediction: Prediction,
    shape: Sequence[int],
    *,
    steps: int,
    seed: int,
    size: int,
    conditioned: bool,
    width: int | None = None,
    bend: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
    resume: Path | None = None,
) -> Profile:
    """Measure a profile.

    Arguments:
        sampler: `srk.Sampler`.
        process: what is reversed.
        prediction: bound to the process.
        shape: (samples, *event).
        steps: of the run, at most; fewer where they would make more than 100 network calls.
        seed: of the noise.
        size: samples to run at a time.
        conditioned: whether the conditions of `prediction` belong to samples.
        width: the batch that those conditions are for; None: all samples.
        bend: whether to follow the ODE too, where that can be.
        device, dtype, autocast, progress: as in `srk.solve`.
        resume: a file of what is done, for a pilot that may be stopped.
    """
    count, event = shape[0], tuple(shape[1:])
    width = count if width is None else width
    linear = statistic(process)
    assert linear is not None
    each = max(1, prediction.calls())
    if (2 * LEAST_STEPS + 1) * each > CALLS:
        raise IncompatibleError(
            f"an evaluation of this score makes {each} network calls, so that a pilot of "
            f"{LEAST_STEPS} steps would need more than {CALLS}; calibrate a score with fewer "
            "conditions"
        )
    calls = CALLS // each
    path = int(calls * PATH) + 1  # levels of the ODE, its end too
    plain = process.components == 1 and process.centred is process
    if not (bend and plain) or path < LEAST_PATH or calls - path < 2 * LEAST_STEPS + 1:
        path = 0
    steps = min(steps, (calls - path - 1) // 2)
    sums = Sums(repr(process), tuple(shape), steps, path, seed)
    if resume is not None and resume.exists():
        sums = sums.read(resume)
    while sums.done < count:
        first = sums.done
        rows = min(size, count - first)
        start = first if width == count else 0
        piece = prediction.select(slice(start, start + rows), width) if conditioned else prediction
        meter = Meter(process)
        run: dict[str, Any] = {
            "noise": KeyedNoise(seed=(SEED + seed) % 2**63, first_index=first),
            "device": device,
            "dtype": dtype,
            "progress": progress,
        }
        made: dict[str, Any] = {"grid": "log-snr", "autocast": autocast}
        draw = sampler(process, piece, integrator("srk2s"), steps=steps, **made)
        sol = draw((rows, *event), callback=meter, **run)
        if process.components == 1 and linear.level(sol.times[-1]).sigma > 0:
            meter.see(sol.x)  # the final denoising, at t_min
        sums = sums.add(meter, rows, sol.nfe, sol.times)
        if path:
            way = OdePath(linear)
            draw = sampler(process, piece, integrator("unipc-3"), steps=path - 1, eta=0.0, **made)
            sol = draw((rows, *event), callback=way, **run)
            way.see(sol.x)
            sums = sums.add_path(way, rows * sol.nfe)
        if resume is not None:
            sums.write(resume)
    moved, crossed = np.array(sums.moved), np.array(sums.crossed)
    lam = np.array([linear.level(t).lam for t in sums.times])[: len(moved) + 1]
    finite = np.isfinite(lam)
    kept = finite[1:] & finite[:-1]
    coordinates = math.prod(process.data_shape(event))
    trace = moved[kept] / count
    q = trace / (coordinates * np.diff(lam[finite]))
    directions: Any = ()
    if sums.pairs:
        # two samples' increments are independent: E (a . b)^2 = tr C^2
        square = crossed[kept] / sums.pairs
        least = trace**2 / coordinates
        ratio = trace**2 / np.maximum(square, np.where(least > 0, least, 1.0))
        directions = np.clip(ratio, 1.0, coordinates)
    edges = lam[finite]
    lowest = -math.log(ROUNDING * torch.finfo(sol.x.dtype).eps)
    inner = [x for x in edges if _inside(process, x)]
    guidance = guidance_of(prediction, process, inner)
    if resume is not None:
        resume.unlink(missing_ok=True)
    profile = Profile(edges, q, repr(process), sums.calls, directions, guidance)
    places, bends = sums.bend(profile.variance, count * coordinates, lowest)
    return attrs.evolve(profile, bend_lam=places, bend=bends)
