"""Calibration: measure once, for a network, what places the steps of its runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from srk._checks import integer
from srk.errors import ArgumentError, IncompatibleError
from srk.processes.phase import statistic
from srk.sampling.arguments import process_given
from srk.sampling.pilot import LEAST_STEPS, least_samples, measure
from srk.sampling.sampler import Sampler
from srk.scores import Prediction, as_prediction
from srk.steps import Profile

PIECE = 8
"""Samples between two writings of a calibration that may be stopped, unless `batch` says."""
SAMPLES = 32
"""Samples of a calibration, unless `shape` says how many."""


def calibrate(
    process: Any,
    score: Any,
    *,
    shape: Sequence[int] | int | None = None,
    seed: int = 0,
    steps: int = 32,
    batch: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
    resume: str | os.PathLike[str] | None = None,
) -> Profile:
    """Measure once, for a network, what places the steps of its runs and chooses their solver.

    Two pilot runs on the grid `log-snr` are watched. With noise (`srk2s`): the mean squared change
    of the denoiser over each step, and in how many directions it goes. Along the probability-flow
    ODE (`unipc-3`): how much its right-hand side bends. The result is a small JSON file that can
    travel with the model. Calibrate with the guidance scale that the network is used with: it
    changes where the denoiser moves, and the profile records it.

    On Gaussian data q is exact but for sampling, whose relative error in an interval is about
    sqrt(2/(samples x coordinates)), more where coordinates depend on each other. (The steps of
    `ddpm` are too short by the part of the noise that comes from what is not known of the data:
    its q at small noise is 25% low with 64 steps.)

    Arguments:
        process: a process with a log-SNR.
        score: the network, as in `srk.solve`.
        shape: (batch, *event) of the pilot's samples; an int is the batch. Where the score knows
            its event shape it may be left out: then 32 samples, and more where the event has fewer
            than 32 coordinates (1024 coordinates in all).
        seed: of the pilot's own noise (source "keyed", so that `batch` does not matter).
        steps: of the pilot with noise, at least 4; two evaluations each, and the final denoising.
            The one along the ODE makes 34 evaluations. Fewer are made where an evaluation is
            several network calls: at most 100 calls in all. Above 4 calls an evaluation, and of
            processes in phase space or around a mean, the bend is not measured.
        batch: samples to run at a time; default all.
        device, dtype: of the states; default the CPU and float32.
        autocast: dtype for `torch.autocast` around the network, as in `srk.solve`.
        progress: show a progress bar.
        resume: a file. After each `batch` of samples (8 where `batch` is not given) what was
            measured is written there, and a call with the same arguments goes on from it; at the
            end it is removed. It does not know the network: give each network a file of its own.

    Returns:
        The profile, for `srk.solve(..., profile=profile, nfe=10)`.

    Raises:
        IncompatibleError: the process has no log-SNR.
        ArgumentError: neither `shape` nor a score that knows it; numbers out of range.
        SolveError: the network returned something that is not finite.

    Examples:
        >>> import srk
        >>> process = srk.EDM()
        >>> target = srk.targets.GaussianMixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3])
        >>> profile = srk.calibrate(process, target.score(process), seed=0)
        >>> sol = srk.solve(process, target.score(process), profile=profile, shape=4, nfe=10)
        >>> sol.nfe
        10
    """
    prediction = _bound(process, score)
    whole = _shape(prediction, shape)
    width = integer(batch or (whole[0] if resume is None else PIECE), "batch of a pilot", least=1)
    return measure(
        Sampler,
        process,
        prediction,
        whole,
        steps=integer(steps, "steps of a pilot", least=LEAST_STEPS),
        seed=integer(seed, "seed of a pilot", least=0),
        size=width,
        conditioned=prediction.select(slice(0, 1), whole[0]) is not prediction,
        device=device,
        dtype=dtype,
        autocast=autocast,
        progress=progress,
        resume=None if resume is None else Path(resume),
    )


def old_pilot(
    process: Any,
    score: Any,
    *,
    shape: Sequence[int] | None = None,
    samples: int | None = None,
    **options: Any,
) -> Profile:
    """`Profile.pilot` of version 0.1: `shape` is that of one sample."""
    event = _bound(process, score).event_shape if shape is None else tuple(shape)
    if event is None:
        raise ArgumentError(
            "the score does not know its event shape; say it: "
            "srk.calibrate(process, score, shape=(32, 3, 32, 32))"
        )
    count = (
        least_samples(event, 16)
        if samples is None
        else integer(samples, "samples of a pilot", least=1)
    )
    return calibrate(process, score, shape=(count, *event), **options)


def _bound(process: Any, score: Any) -> Prediction:
    if statistic(process_given(process)) is None:
        raise IncompatibleError(
            f"a profile needs a log-SNR, but {process!r} is not a linear process; "
            "use grid='uniform'"
        )
    return as_prediction(score).bind(process)


def _shape(prediction: Prediction, shape: Sequence[int] | int | None) -> tuple[int, ...]:
    """(batch, *event) of a calibration."""
    event = prediction.event_shape
    if shape is None or not isinstance(shape, Sequence | torch.Size):
        if event is None:
            raise ArgumentError(
                "the score does not know its event shape; say it: "
                "srk.calibrate(process, score, shape=(32, 3, 32, 32))"
            )
        count = least_samples(event, SAMPLES) if shape is None else integer(shape, "shape", least=1)
        return (count, *event)
    whole = tuple(integer(n, "shape", least=1) for n in shape)
    if not whole or (event is not None and whole[1:] != tuple(event)):
        expected = "event" if event is None else str(tuple(event))
        raise ArgumentError(
            f"shape must be (batch, *event) with the event shape {expected} of the score, not "
            f"{whole}"
        )
    return whole
