"""A grid for a given number of network calls, from how fast the denoiser moves along the half log-SNR; a pilot run measures that."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._checks import is_integer
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.phase import PhaseProcess, statistic
from srk.steps.base import Grid, Problem, Range, steps_of
from srk.steps.grids import _from_log_snr, _need_linear

VERSION = 1
"""Of the JSON file of a profile."""
REACH = 0.5
"""How far, in half log-SNR, a profile may end before the process does; its tails bridge that."""
LEAST = 1e-9
"""q below this fraction of its maximum counts as this."""
LEAST_RESIDUAL = 0.02
"""1 - mmse/r^2 below this counts as this."""
PILOT_SEED = 0x70696C6F74
"""Of a pilot's noise, unless another is given: one that a run is not likely to have."""
_POINTS = 2001  # where the density of a grid is integrated

Array = np.ndarray[Any, np.dtype[np.float64]]


def _numbers(values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"a profile is made of numbers, not {values!r}") from None


@attrs.frozen
class Profile:
    r"""How fast the denoiser moves: its quadratic variation q along the half log-SNR lambda, per coordinate.

    Along the exact reverse process D = E[x0 | x_t] is a martingale, so that (d = number of coordinates)

        q(lambda) dlambda = E|dD|^2 / d = -d mmse        mmse(lambda) = E|x0 - D|^2 / d

    in squared units of the data. q belongs to the data alone: processes that reach the same lambda share it. For N(m, v) data and r = sigma/alpha,
    mmse = v r^2/(v + r^2) and q = 2 (v r/(v + r^2))^2. Beyond its ends q is continued as exp(2 lambda) towards noise and exp(-2 lambda) towards data.

    Arguments:
        lam: edges of intervals of half log-SNR log(alpha/sigma), increasing, shape (n + 1,).
        q: mean of q over each interval, shape (n,), not negative.
        process: the process it was measured with, in words.
        calls: network calls of the measurement, counted for each sample.

    Raises:
        ArgumentError: shapes that do not match, edges that do not increase, a q that is negative, not finite or zero everywhere.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.0, 0.25)
        >>> profile = srk.steps.Profile.pilot(process, target.score(process), samples=256)
        >>> bool(abs(profile.density([0.0])[0] / (2 * (0.25 / 1.25) ** 2) - 1) < 0.2)  # at r = 1
        True
    """

    lam: tuple[float, ...] = attrs.field(
        converter=_numbers,
        repr=lambda lam: f"<{len(lam)} edges from {lam[0]:.3g} to {lam[-1]:.3g}>",
    )
    q: tuple[float, ...] = attrs.field(converter=_numbers, repr=False)
    process: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    calls: int = attrs.field(default=0, validator=attrs.validators.instance_of(int))

    def __attrs_post_init__(self) -> None:
        lam, q = np.array(self.lam), np.array(self.q)
        if len(lam) != len(q) + 1 or len(q) < 2:
            raise ArgumentError(
                f"a profile has n + 1 edges of half log-SNR and n >= 2 values of q, not {len(lam)} and {len(q)}"
            )
        if not (np.isfinite(lam).all() and (np.diff(lam) > 0).all()):
            raise ArgumentError(
                "the edges of a profile, half log-SNRs, must be finite and increase from noise to data"
            )
        if not (np.isfinite(q).all() and (q >= 0).all() and q.max() > 0):
            raise ArgumentError(
                "the q of a profile must be finite, not negative, and not zero everywhere: does the network use its input?"
            )

    # -- where it comes from --------------------------------------------------------------------------------------------

    @staticmethod
    def pilot(
        process: Any,
        score: Any,
        *,
        shape: Sequence[int] | None = None,
        samples: int | None = None,
        steps: int = 32,
        seed: int = PILOT_SEED,
        batch: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        autocast: torch.dtype | None = None,
    ) -> Profile:
        """Measure q with a run of `srk2s` on the grid `log-snr`: the mean squared change of the denoiser over each step.

        On Gaussian data q is exact but for sampling, whose relative error in an interval is about sqrt(2/(samples x coordinates)), more where
        coordinates depend on each other. (The steps of `ddpm` are too short by the part of the noise that comes from what is not known of the data: its q
        at small noise is 25% low with 64 steps.)

        Arguments:
            process: a process with a log-SNR.
            score: the network, as in `srk.solve`.
            shape: of one state, (*event) without the batch; not needed where the score knows it.
            samples: how many; None takes 16, and more where the event has fewer than 64 coordinates (1024 coordinates in all).
            steps: of the pilot; two calls of the network each, and the final denoising.
            seed: of the pilot's own noise (source "keyed", so that `batch` does not matter).
            batch: samples to run at a time, and the length of the score's per-sample conditions if it has any; default all. Small states may come in
                larger pieces.
            device, dtype: of the states; default the CPU and float32.
            autocast: dtype for `torch.autocast` around the network, as in `srk.solve`.

        Raises:
            IncompatibleError: the process has no log-SNR.
            ArgumentError: neither `shape` nor a score that knows it; samples, steps or batch that are not positive (steps: at least 4).

        Source: I-MMSE, D. Guo, S. Shamai, S. Verdu, IEEE Trans. Inf. Theory 51 (2005) 1261.
        """
        from srk.noise import (
            KeyedNoise,
        )  # the pilot is a run: the one place where a controller looks up to solve
        from srk.sampling import solve
        from srk.scores import as_prediction

        phase = isinstance(process, PhaseProcess)
        if statistic(process) is None:
            raise IncompatibleError(
                f"a profile needs a log-SNR, but {process!r} is not a linear process; use grid='uniform'"
            )
        prediction = as_prediction(score).bind(process)
        event = prediction.event_shape if shape is None else tuple(int(n) for n in shape)
        if event is None:
            raise ArgumentError(
                "the score does not know its event shape; say it: Profile.pilot(process, score, shape=(3, 32, 32))"
            )
        count = max(16, -(-1024 // max(1, math.prod(event)))) if samples is None else samples
        for name, value, least in (
            ("samples", count, 1),
            ("steps", steps, 4),
            ("batch", batch or count, 1),
        ):
            if not is_integer(value) or value < least:
                raise ArgumentError(
                    f"{name} of a pilot must be an int of at least {least}, not {value!r}"
                )
        width = batch or count
        piece = prediction.select(slice(0, 1), width)
        # Conditions belong to the samples of the run's batch; without any, small states need not come in small batches
        size = min(
            count,
            width if piece is not prediction else max(width, 1024 // max(1, math.prod(event))),
        )
        total: Tensor | None = None
        times: tuple[float, ...] = ()
        calls = 0
        for first in range(0, count, size):
            meter = _Meter(phase)
            rows = min(size, count - first)
            sol = solve(
                process,
                prediction.select(slice(0, rows), width),
                "srk2s",
                shape=(rows, *event),
                steps=steps,
                grid="log-snr",
                noise=KeyedNoise(seed=seed, first_index=first),
                device=device,
                dtype=dtype,
                autocast=autocast,
                callback=meter,
            )
            if not phase and process.level(sol.times[-1]).sigma > 0:
                meter.see(sol.x)  # the final denoising, at t_min
            times, calls = sol.times, calls + rows * sol.nfe
            moved = torch.stack(meter.moved)
            total = moved if total is None else total + moved
        assert total is not None
        lam = np.array([process.level(t).lam for t in times])[: len(total) + 1]
        finite = np.isfinite(lam)
        coordinates = count * math.prod(event[1:] if phase else event)
        q = total.cpu().double().numpy()[finite[1:] & finite[:-1]] / (
            coordinates * np.diff(lam[finite])
        )
        return Profile(lam[finite], q, repr(process), calls)

    @staticmethod
    def from_losses(process: Any, sigma: Any, mmse: Any) -> Profile:
        """q from a training-loss curve: the mean squared error of the denoiser against the noise level, q = -d mmse/dlambda.

        An error that does not fall with the noise, as happens in a measured curve, is smoothed to the nearest curve that does (isotonic regression).

        Arguments:
            process: the process that the profile is for: its range of sigma/alpha must be covered to within a factor of exp(0.5) at each end.
            sigma: noise levels sigma/alpha, positive, all different, at least 3; shape (n,).
            mmse: mean squared error per coordinate of the denoiser there, in squared units of the data; shape (n,). Multiply a loss of the noise
                prediction by sigma^2, with sigma this noise level.

        Raises:
            ArgumentError: shapes that do not match, a level or an error that is not positive, levels that do not cover the process.
        """
        from scipy.optimize import isotonic_regression

        r, error = np.array(_numbers(sigma)), np.array(_numbers(mmse))
        if r.ndim != 1 or r.shape != error.shape or len(r) < 3:
            raise ArgumentError(
                f"a loss curve has as many errors as noise levels, at least 3, not {error.size} and {r.size}"
            )
        if not (np.isfinite(r).all() and (r > 0).all() and len(np.unique(r)) == len(r)):
            raise ArgumentError(
                "the noise levels sigma/alpha of a loss curve must be finite, positive and all different"
            )
        if not (np.isfinite(error).all() and (error >= 0).all()):
            raise ArgumentError(
                "the mean squared errors of a loss curve must be finite and not negative"
            )
        order = np.argsort(-r)
        lam, error = np.log(1.0 / r[order]), error[order]
        # weighted in units of r^2, of which the error at small noise is a fraction
        falling = isotonic_regression(
            error,
            weights=1.0 / np.maximum(error, LEAST * error.max() or 1.0) ** 2,
            increasing=False,
        ).x
        profile = Profile(lam, -np.diff(falling) / np.diff(lam), repr(process))
        profile.check(process)
        return profile

    # -- what it says ---------------------------------------------------------------------------------------------------

    def density(self, lam: Any) -> Array:
        """q at half log-SNRs `lam`, shape (n,): log-linear between the middles of the intervals, with the tails of the class docstring."""
        x = np.asarray(lam, dtype=float)
        edges, q = np.array(self.lam), np.array(self.q)
        middle = (edges[1:] + edges[:-1]) / 2
        log = np.log(np.maximum(q, LEAST * q.max()))
        tails = 2.0 * np.minimum(x - middle[0], 0.0) - 2.0 * np.maximum(x - middle[-1], 0.0)
        density: Array = np.exp(np.interp(x, middle, log) + tails)
        return density

    def mmse(self, lam: Any) -> Array:
        """The mean squared error of the denoiser per coordinate at half log-SNRs `lam`, shape (n,): the integral of q from there on, tail included."""
        x = np.asarray(lam, dtype=float)
        edges = np.array(self.lam)
        tail = self.density(edges[[0, -1]]) / 2.0
        left = (
            np.concatenate([np.cumsum((np.array(self.q) * np.diff(edges))[::-1])[::-1], [0.0]])
            + tail[1]
        )
        inside = np.exp(np.interp(x, edges, np.log(left)))
        beyond = self.density(x) / 2.0
        error: Array = np.where(
            x > edges[-1], beyond, np.where(x < edges[0], left[0] + tail[0] - beyond, inside)
        )
        return error

    def check(self, process: Any) -> None:
        """Raise `ArgumentError` unless the profile covers the half log-SNR of `process` to within 0.5 at each end."""
        ends = Range.of(process)
        if self.lam[0] > ends.noisy + REACH or self.lam[-1] < ends.clean - REACH:
            source = f", measured with {self.process}," if self.process else ""
            raise ArgumentError(
                f"the profile{source} covers half log-SNRs from {self.lam[0]:.4g} to {self.lam[-1]:.4g}, but {process!r} runs from "
                f"{ends.noisy:.4g} to {ends.clean:.4g}; measure one: srk.steps.Profile.pilot(process, score)"
            )

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a small JSON file (replaced if it is there); returns its path."""
        place = Path(path)
        data = {
            "srk-profile": VERSION,
            "process": self.process,
            "calls": self.calls,
            "lam": self.lam,
            "q": self.q,
        }
        place.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        return place

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Profile:
        """Read what `save` wrote.

        Raises:
            ArgumentError: not such a file, or of another version.
            FileNotFoundError: there is none.
        """
        place = Path(path)
        try:
            data = json.loads(place.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ArgumentError(
                f"{place} is not JSON ({error}); a profile is written by Profile.save or srk grid"
            ) from None
        if not isinstance(data, dict) or "srk-profile" not in data:
            raise ArgumentError(
                f"{place} holds no profile; one is written by Profile.save or srk grid"
            )
        if data["srk-profile"] != VERSION:
            raise ArgumentError(
                f"{place} is a profile of version {data['srk-profile']!r}, and this srk reads {VERSION}; measure it again"
            )
        try:
            return Profile(data["lam"], data["q"], data["process"], data["calls"])
        except (KeyError, TypeError, ArgumentError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ArgumentError(f"{place} is damaged: {what}; measure it again") from None


class _Meter:
    """A callback that adds up how far the denoiser moves over each step, on the device; of a phase-space process, the data component of the denoiser."""

    def __init__(self, phase: bool) -> None:
        self.phase = phase
        self.moved: list[Tensor] = []
        self.last: Tensor | None = None

    def __call__(self, info: Any) -> None:
        self.see(info.denoised)

    def see(self, denoised: Tensor) -> None:
        denoised = denoised[:, 0] if self.phase else denoised
        if self.last is not None:
            self.moved.append((denoised - self.last).float().square().sum())
        self.last = denoised


@attrs.frozen
class Criterion:
    r"""What a budget grid equidistributes over the half log-SNR, with r = sigma/alpha:

        (1 - uniform) normalized[q^power r^-slope (1 - mmse/r^2)^residual] + uniform

    1 - mmse/r^2 = E|x/alpha - D|^2/(d r^2) is the part of the noise that the denoiser removes, taken as 0.02 at least. On N(m, v) data, s = r^2, a step h of `ddpm`
    leaves a relative error 4 h^2 v s/(v + s)^2 of the variance, of which the fraction v/(v + s) reaches the end: together 2 h^2 q (1 - mmse/r^2)/r^2. For a
    given number of steps the sum is least where their density is the square root of the factor of h^2: (1/2, 1, 1/2). Without the residual, (1/2, 1) is that of
    the KL of paths; (1/3, 0) is that of the mean square.

    Arguments:
        power: of q, at least 0.
        slope: of 1/r.
        residual: of 1 - mmse/r^2.
        uniform: share of the steps that is spread evenly, in [0, 1].
    """

    power: float = attrs.field(validator=attrs.validators.ge(0.0))
    slope: float = attrs.field(
        validator=attrs.validators.and_(
            attrs.validators.gt(-math.inf), attrs.validators.lt(math.inf)
        )
    )
    residual: float = attrs.field(
        default=0.0,
        validator=attrs.validators.and_(
            attrs.validators.gt(-math.inf), attrs.validators.lt(math.inf)
        ),
    )
    uniform: float = attrs.field(
        default=0.1,
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.le(1.0)),
    )

    def density(self, profile: Profile, x: Array) -> Array:
        """Steps per half log-SNR, of integral 1 over the equidistant points `x`, shape (n,)."""
        residual = np.clip(1.0 - profile.mmse(x) * np.exp(2.0 * x), LEAST_RESIDUAL, 1.0)
        log = (
            self.power * np.log(profile.density(x))
            + self.slope * x
            + self.residual * np.log(residual)
        )
        shape = np.exp(log - log.max())
        density: Array = (1.0 - self.uniform) * shape / np.trapezoid(shape, x) + self.uniform / (
            x[-1] - x[0]
        )
        return density

    def points(self, profile: Profile, n: int, noisy: float, clean: float) -> Array:
        """n + 1 half log-SNRs from `noisy` to `clean`, exact at the ends, between which the integral of the density is the same."""
        x = np.linspace(noisy, clean, _POINTS)
        density = self.density(profile, x)
        mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
        points: Array = np.interp(np.arange(n + 1) / n * mass[-1], mass, x)
        points[0], points[-1] = noisy, clean
        return points


CRITERIA: dict[str, Criterion] = {
    "concentrated": Criterion(0.6, 0.7, 0.4),
    "broad": Criterion(0.4, 0.5),
    "kl": Criterion(0.5, 1.0),
    "l2": Criterion(1.0 / 3.0, 0.0),
}
"""By name: the two that measured best (benchmarks/results/budget.md), and two of theory: KL of the paths, and mean square."""
CONCENTRATED = frozenset({"ddpm", "srk1", "srk2s", "srk2m", "auto"})
"""Solvers whose default is "concentrated": those that take the denoiser as it is, and the house's, in the gauge clock. Most others extrapolate it: "broad"."""


def _criterion(value: Any) -> Criterion | None:
    if value is None or isinstance(value, Criterion):
        return value
    if value not in CRITERIA:
        raise ArgumentError(
            f"criterion is one of {', '.join(map(repr, CRITERIA))} or an srk.steps.Criterion, not {value!r}"
        )
    return CRITERIA[value]


@attrs.define
class Budget(Grid):
    """`budget`: exactly the steps that `nfe` buys, placed where a pilot run of a few samples sees the denoiser move.

    The first run measures a `Profile`, on the run's device and dtype, and keeps it: the object may be used for many runs of the same network, whatever their
    solver, budget and process range, and pilots once. Another network needs another object. The calls of the pilot are not in `Solution.nfe`: `pilot_nfe` counts
    them, in network calls times samples. The pilot's noise is its own (`seed`), so the grid depends on neither the run's seed nor its batch.

    Measured at eta = 1 (benchmarks/results/budget.md). `auto`, whose weights are made for equal steps, and the ODE method `dpmpp-2m` lose with it: give them "log-snr".

    Arguments:
        profile: measured before; None measures one.
        criterion: what is equidistributed: a name ("concentrated", "broad", "kl", "l2"), a `Criterion`, or None for the one measured best for the solver.
        samples, steps, seed: of the pilot (`Profile.pilot`).

    Attributes:
        pilot_nfe: network calls of this object's pilot times its samples; 0 before it, and with a profile that was given.

    Raises:
        IncompatibleError: the process has no log-SNR.
        ArgumentError: the profile does not cover the process, or there is neither profile nor score.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.0, 0.25)
        >>> budget = srk.steps.Budget()
        >>> sol = srk.solve(process, target.score(process), "srk2m", shape=8, controller=budget, nfe=20, seed=0)
        >>> sol.nfe, budget.pilot_nfe == budget.profile.calls > 0
        (20, True)
    """

    name = "budget"

    profile: Profile | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Profile))
    )
    criterion: Criterion | Literal["concentrated", "broad", "kl", "l2"] | None = attrs.field(
        default=None, converter=_criterion
    )
    samples: int | None = None
    steps: int = 32
    seed: int = PILOT_SEED
    pilot_nfe: int = attrs.field(default=0, init=False)

    def times(self, problem: Problem) -> list[float]:
        process, n = problem.process, steps_of(problem)
        _need_linear(self, process)
        if self.profile is None:
            self.profile = self._measured(problem)
            self.pilot_nfe = self.profile.calls
        self.profile.check(process)
        profile, criterion = self.profile, self._chosen(problem.solver)
        return _from_log_snr(process, lambda n, a, b: criterion.points(profile, n, a, b), n)

    def _chosen(self, solver: Any) -> Criterion:
        if isinstance(self.criterion, Criterion):
            return self.criterion
        return CRITERIA["concentrated" if getattr(solver, "name", "") in CONCENTRATED else "broad"]

    def _measured(self, problem: Problem) -> Profile:
        if problem.score is None or problem.shape is None:
            raise ArgumentError(
                "the grid 'budget' has no network to measure here; give it a profile: "
                "grid=srk.steps.Budget(profile=srk.steps.Profile.pilot(process, score))"
            )
        return Profile.pilot(
            problem.process,
            problem.score,
            shape=problem.shape[1:],
            samples=self.samples,
            steps=self.steps,
            seed=self.seed,
            batch=problem.shape[0],
            device=problem.device,
            dtype=problem.dtype,
            autocast=problem.autocast,
        )
