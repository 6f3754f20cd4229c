"""Pilot runs: what grids and `auto` know of a network before the first sample is drawn."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._checks import integer, outside, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.integrators import Integrator, integrator
from srk.integrators.auto import Auto
from srk.noise import KeyedNoise
from srk.processes.base import ForwardProcess
from srk.processes.phase import statistic
from srk.scores import Prediction
from srk.steps import Budget, Profile
from srk.steps.grids import need_linear

CALLS = 100
"""Network calls that a calibration makes at most."""
COORDINATES = 1024
"""Small states come in larger numbers, so that there are as many coordinates as this."""
LEAST_STEPS = 4
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
        device=device,
        dtype=dtype,
        autocast=autocast,
    )
    return attrs.evolve(grid, profile=profile)


def calibrated(
    profile: Any, method: Integrator, grid: Any, process: Any, eta: float
) -> tuple[Integrator, Any]:
    """The solver and the grid of a run with a profile.

    Arguments:
        profile: what the user gave.
        method: the solver; `auto` takes its gauge from the profile.
        grid: what the user gave; with "budget", and without one where the run has noise or the
            solver is `auto`, the profile places the steps.
        process, eta: of the run.
    """
    if not isinstance(profile, Profile):
        raise ArgumentTypeError(
            f"profile must be an srk.Profile, not {shown(profile)}; "
            "use profile=srk.Profile.load(path), or measure one: srk.calibrate(process, score)"
        )
    profile.check(process)
    if isinstance(method, Auto):
        method = method.calibrated(profile)
    if (grid is None and (eta > 0.0 or isinstance(method, Auto))) or (
        isinstance(grid, str) and grid == Budget.name
    ):
        grid = Budget(profile)
    elif isinstance(grid, Budget) and grid.profile is None:
        grid = attrs.evolve(grid, profile=profile)
    return method, grid


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
    steps = min(steps, (CALLS // each - 1) // 2)
    sums = Sums(repr(process), tuple(shape), steps, seed)
    if resume is not None and resume.exists():
        sums = sums.read(resume)
    while sums.done < count:
        first = sums.done
        rows = min(size, count - first)
        start = first if width == count else 0
        piece = prediction.select(slice(start, start + rows), width) if conditioned else prediction
        meter = _Meter(process)
        draw = sampler(
            process, piece, integrator("srk2s"), steps=steps, grid="log-snr", autocast=autocast
        )
        sol = draw(
            (rows, *event),
            noise=KeyedNoise(seed=(SEED + seed) % 2**63, first_index=first),
            device=device,
            dtype=dtype,
            callback=meter,
            progress=progress,
        )
        if process.components == 1 and linear.level(sol.times[-1]).sigma > 0:
            meter.see(sol.x)  # the final denoising, at t_min
        sums = sums.add(meter, rows, sol.nfe, sol.times)
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
    inner = [x for x in edges if _inside(process, x)]
    guidance = guidance_of(prediction, process, inner)
    if resume is not None:
        resume.unlink(missing_ok=True)
    return Profile(edges, q, repr(process), sums.calls, directions, guidance)


@attrs.frozen
class Sums:
    """What a pilot has added up so far; a file of it lets a pilot that was stopped go on.

    Arguments:
        process, shape, steps, seed: which pilot it is.
        done: samples that are counted.
        calls: network calls, counted for each sample.
        pairs: of samples whose moves were multiplied.
        moved, crossed: sums over each step, of squares and of squared products of moves.
        times: of the grid.
    """

    process: str
    shape: tuple[int, ...]
    steps: int
    seed: int
    done: int = 0
    calls: int = 0
    pairs: int = 0
    moved: tuple[float, ...] = ()
    crossed: tuple[float, ...] = ()
    times: tuple[float, ...] = ()

    def add(self, meter: _Meter, rows: int, nfe: int, times: Sequence[float]) -> Sums:
        """With the samples of another piece."""
        squares = torch.stack(meter.moved).cpu().numpy()
        products = torch.stack(meter.crossed).cpu().numpy()
        if self.done:
            squares, products = squares + self.moved, products + self.crossed
        return attrs.evolve(
            self,
            done=self.done + rows,
            calls=self.calls + rows * nfe,
            pairs=self.pairs + rows * (rows - 1),
            moved=tuple(squares.tolist()),
            crossed=tuple(products.tolist()),
            times=tuple(times),
        )

    def write(self, path: Path) -> None:
        """Replace the file, never leaving half of one."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"srk-pilot": 1} | attrs.asdict(self)), encoding="utf-8")
        os.replace(part, path)

    def read(self, path: Path) -> Sums:
        """What was written by a pilot of the same process, shape, steps and seed."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            assert data.pop("srk-pilot") == 1
            lists: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in data.items()
            }
            found = Sums(**lists)
            n = len(found.moved)
            assert 0 < found.done <= self.shape[0] and len(found.crossed) == n > 0
            assert len(found.times) > n and np.isfinite([*found.moved, *found.crossed]).all()
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            raise ArgumentError(
                f"{path} is no unfinished calibration; remove it, or give another file as resume="
            ) from None
        for name in ("process", "shape", "steps", "seed"):
            here, there = getattr(self, name), getattr(found, name)
            if here != there:
                raise ArgumentError(
                    f"{path} is the unfinished calibration of {name} {shown(there)}, not of "
                    f"{shown(here)}; calibrate as then, remove it, or give another file as resume="
                )
        return found


class _Meter:
    """A callback that adds up, on the device, how far the denoiser moves over each step, and the
    squared products of the samples' moves; of a phase-space process, of the data component.

    Arguments:
        process: what is reversed.
    """

    def __init__(self, process: ForwardProcess) -> None:
        self.process = process
        self.moved: list[Tensor] = []
        self.crossed: list[Tensor] = []
        self.last: Tensor | None = None

    def __call__(self, info: Any) -> None:
        self.see(info.denoised)

    def see(self, denoised: Tensor) -> None:
        denoised = self.process.data_of(denoised)
        if self.last is not None:
            move = (denoised - self.last).float().flatten(1)
            square = move.square().sum(1).double()
            self.moved.append(square.sum())
            products = (move @ move.T).double().square()
            self.crossed.append(products.sum() - products.diagonal().sum())
        self.last = denoised
