"""Profiles: how fast the denoiser moves along the half log-SNR, as numbers that travel with a
model.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from srk._checks import is_integer, shown
from srk._fields import instance_of, integral
from srk.errors import ArgumentError, ArgumentTypeError, MissingDataError
from srk.steps.base import Range
from srk.steps.profile_file import checked, not_finite

VERSION = 3
"""The version of the JSON file; versions 1, which lacks `directions` and `guidance`, and 2, which
lacks `bend_lam` and `bend`, are read too."""
REACH = 0.5
"""How far, in half log-SNR, a profile may end before the process does; its tails bridge that."""
LEAST = 1e-9
"""Where q is below this fraction of its maximum, it counts as this fraction."""
OPEN = 0.95
"""The largest part of the noise that the gauge of a profile takes for open."""
LARGEST_FILE = 2**20
"""Bytes; a profile takes a few thousand."""
Array = np.ndarray[Any, np.dtype[np.float64]]


def numbers(values: Any) -> tuple[float, ...]:
    """A sequence of numbers as floats."""
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentTypeError(f"a profile is made of numbers, not {shown(values)}") from None


@attrs.frozen
class Profile:
    r"""How fast the denoiser moves, and where the probability-flow ODE bends, by half log-SNR.

    The first is the quadratic variation q of the denoiser along the half log-SNR, per coordinate.
    Along the exact reverse process D = E[x0 | x_t] is a martingale, so that, with lambda the half
    log-SNR and d the number of coordinates,

    $$
    q(\lambda)\, d\lambda = \tfrac1d E|dD|^2 = -d\,\mathrm{mmse}, \qquad
    \mathrm{mmse}(\lambda) = \tfrac1d E|x_0 - D|^2
    $$

    in squared units of the data. q belongs to the data alone: processes that reach the same lambda
    share it. For N(m, v) data and r = sigma/alpha, mmse = v r^2/(v + r^2) and
    q = 2 (v r/(v + r^2))^2. Beyond its ends q is continued as exp(2 lambda) towards noise and as
    exp(-2 lambda) towards data.

    `srk.calibrate` measures one; `Profile.from_losses` makes one of a curve of training losses.

    Arguments:
        lam: edges of intervals of half log-SNR log(alpha/sigma), increasing, shape (n + 1,).
        q: mean of q over each interval, shape (n,), not negative.
        process: the process that it was measured with, in words.
        calls: network calls of the measurement, counted for each sample.
        directions: in how many directions of state space the denoiser moves in each interval,
            shape (n,), at least 1: (tr C)^2/tr C^2 with C the covariance of its increments; empty
            where that was not measured.
        guidance: the guidance scales of the network, empty without guidance; for a scale that is a
            function of the level, its mean over the intervals.
        bend_lam: half log-SNRs at which the bend was measured, increasing, shape (m,); empty where
            it was not.
        bend: how much the probability-flow ODE bends there, in the gauge v of `variance`, positive,
            shape (m,). With s = (sigma/alpha)^2, u = x/alpha and R = D + v (D - u)/s, which would
            be 0 on N(0, v) data,

            $$
            \mathrm{bend} = \frac{s}{(s + v)^{3/2}} \Big(
            \tfrac1d E\Big|\frac{d^2 R}{d\lambda^2}\Big|^2 \Big)^{1/2},
            $$

            the part of the step of the ODE that a method must predict, differentiated twice along a
            path.

    Raises:
        ArgumentError: shapes that do not match, edges that do not increase, a q that is negative,
            not finite or zero everywhere.

    Source: I-MMSE, D. Guo, S. Shamai, S. Verdu, IEEE Trans. Inf. Theory 51 (2005) 1261.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.0, 0.25)
        >>> profile = srk.calibrate(process, target.score(process), shape=(256, 1))
        >>> bool(abs(profile.density([0.0])[0] / (2 * (0.25 / 1.25) ** 2) - 1) < 0.2)  # at r = 1
        True
    """

    lam: tuple[float, ...] = attrs.field(
        converter=numbers,
        repr=lambda lam: f"<{len(lam)} edges from {lam[0]:.3g} to {lam[-1]:.3g}>",
    )
    q: tuple[float, ...] = attrs.field(converter=numbers, repr=False)
    process: str = attrs.field(default="", validator=instance_of(str, "a str"))
    calls: int = attrs.field(default=0, validator=integral)
    directions: tuple[float, ...] = attrs.field(default=(), converter=numbers, repr=False)
    guidance: tuple[float, ...] = attrs.field(default=(), converter=numbers)
    bend_lam: tuple[float, ...] = attrs.field(default=(), converter=numbers, repr=False)
    bend: tuple[float, ...] = attrs.field(default=(), converter=numbers, repr=False)

    def _repr_html_(self) -> str:
        from srk._views import profile_html

        return profile_html(self.lam, self.q, f"Profile of {self.process or 'a process'}")

    def __attrs_post_init__(self) -> None:
        lam, q, directions = (np.array(v) for v in (self.lam, self.q, self.directions))
        if len(lam) != len(q) + 1 or len(q) < 2:
            raise ArgumentError(
                "a profile has n + 1 edges of half log-SNR and n >= 2 values of q, not "
                f"{len(lam)} and {len(q)}"
            )
        if not (np.isfinite(lam).all() and (np.diff(lam) > 0).all()):
            raise ArgumentError(
                "the edges of a profile, half log-SNRs, must be finite and increase from noise to "
                "data"
            )
        if not (np.isfinite(q).all() and (q >= 0).all() and q.max() > 0):
            raise ArgumentError(
                "the q of a profile must be finite, not negative, and not zero everywhere: does "
                "the network use its input?"
            )
        if len(directions) not in (0, len(q)) or not (
            np.isfinite(directions).all() and (directions >= 1).all()
        ):
            raise ArgumentError(
                "a profile has one number of directions, finite and at least 1, for each interval, "
                f"or none; not {len(directions)} for {len(q)} intervals"
            )
        if not np.isfinite(np.array(self.guidance)).all():
            raise ArgumentError(f"guidance scales are finite numbers, not {self.guidance!r}")
        places, bend = np.array(self.bend_lam), np.array(self.bend)
        if len(places) != len(bend) or not (
            np.isfinite(places).all() and (np.diff(places) > 0).all()
        ):
            raise ArgumentError(
                "a profile has one bend for each of its bend_lam, finite half log-SNRs that "
                f"increase, not {len(bend)} for {len(places)}"
            )
        if not (np.isfinite(bend).all() and (bend > 0).all()):
            raise ArgumentError("the bend of a profile must be finite and positive")

    # -- where it comes from --------------------------------------------------------------------

    @staticmethod
    def pilot(process: Any, score: Any, **options: Any) -> Profile:
        """Deprecated: the old name of `srk.calibrate`; it goes with the next release."""
        warnings.warn(
            "Profile.pilot(process, score) is now srk.calibrate(process, score); the old name goes "
            "with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        made: Profile = import_module("srk.sampling.calibration").old_pilot(
            process, score, **options
        )
        return made

    @staticmethod
    def from_losses(process: Any, sigma: Any, mmse: Any) -> Profile:
        """A profile from a training-loss curve: the mean squared error of the denoiser against the
        noise level, q = -d mmse/dlambda.

        An error that does not fall with the noise, as happens in a measured curve, is smoothed to
        the nearest curve that does (isotonic regression).

        Arguments:
            process: the process that the profile is for: its range of sigma/alpha must be covered
                to within a factor of exp(0.5) at each end.
            sigma: noise levels sigma/alpha, positive, all different, at least 3; shape (n,).
            mmse: mean squared error per coordinate of the denoiser there, in squared units of the
                data; shape (n,). Multiply a loss of the noise prediction by sigma^2, with sigma
                this noise level.

        Raises:
            ArgumentError: shapes that do not match, a level or an error that is not positive,
                levels that do not cover the process.
        """
        from scipy.optimize import isotonic_regression

        r, error = np.array(numbers(sigma)), np.array(numbers(mmse))
        if r.ndim != 1 or r.shape != error.shape or len(r) < 3:
            raise ArgumentError(
                "a loss curve has as many errors as noise levels, at least 3, not "
                f"{error.size} and {r.size}"
            )
        if not (np.isfinite(r).all() and (r > 0).all() and len(np.unique(r)) == len(r)):
            raise ArgumentError(
                "the noise levels sigma/alpha of a loss curve must be finite, positive and all "
                "different"
            )
        if not (np.isfinite(error).all() and (error >= 0).all()):
            raise ArgumentError(
                "the mean squared errors of a loss curve must be finite and not negative"
            )
        order = np.argsort(-r)
        lam, error = np.log(1.0 / r[order]), error[order]
        # weighted in units of r^2, of which the error at small noise is a fraction
        floor = LEAST * error.max() or 1.0
        weights = 1.0 / np.maximum(error, floor) ** 2
        falling = isotonic_regression(error, weights=weights, increasing=False).x
        profile = Profile(lam, -np.diff(falling) / np.diff(lam), repr(process))
        profile.check(process)
        return profile

    # -- what it says ---------------------------------------------------------------------------

    def density(self, lam: Any) -> Array:
        """q at half log-SNRs `lam`, shape (n,): log-linear between the middles of the intervals,
        with the tails of the class docstring.
        """
        x = np.asarray(lam, dtype=float)
        edges, q = np.array(self.lam), np.array(self.q)
        middle = (edges[1:] + edges[:-1]) / 2
        log = np.log(np.maximum(q, LEAST * q.max()))
        density: Array = np.exp(np.interp(x, middle, log) - 2.0 * _beyond(x, middle))
        return density

    def log_bend(self, lam: Any) -> Array:
        """The logarithm of the bend at half log-SNRs `lam`, shape (n,): linear between the places
        where it was measured, and beyond them falling with the distance.

        Raises:
            ArgumentError: it was not measured, as by an older srk or by `from_losses`.
        """
        if not self.bend:
            raise ArgumentError(
                "this profile has no bend, which the criterion 'bend' equidistributes; measure it "
                "again: srk.calibrate(process, score), or take criterion='network'"
            )
        x, places = np.asarray(lam, dtype=float), np.array(self.bend_lam)
        log: Array = np.interp(x, places, np.log(self.bend)) - _beyond(x, places)
        return log

    def mmse(self, lam: Any) -> Array:
        """The mean squared error of the denoiser per coordinate at half log-SNRs `lam`, shape
        (n,): the integral of q from there on, tail included.
        """
        x = np.asarray(lam, dtype=float)
        edges = np.array(self.lam)
        tail = self.density(edges[[0, -1]]) / 2.0
        right = np.cumsum((np.array(self.q) * np.diff(edges))[::-1])[::-1]
        left = np.concatenate([right, [0.0]]) + tail[1]
        inside = np.exp(np.interp(x, edges, np.log(left)))
        beyond = self.density(x) / 2.0
        error: Array = np.where(
            x > edges[-1], beyond, np.where(x < edges[0], left[0] + tail[0] - beyond, inside)
        )
        return error

    @property
    def variance(self) -> float:
        """The variance of the data per coordinate: the error of the denoiser at infinite noise."""
        return float(self.mmse([-math.inf])[0])

    def curve(self, factor: float = 1.0) -> tuple[tuple[float, float], ...]:
        """The variance v along the half log-SNR whose N(0, v) leaves as much open as was measured,
        for `curve=` of `srk.integrators.SRK2M` and `GaugeAdams`: pairs (half log-SNR, log v) at the
        edges.

        Of N(0, v) data the noise s = r^2 leaves mmse = v s/(v + s) open, so that v = mmse s/(s -
        mmse): the variance of the data at large noise, and at small noise that of the detail which
        is not yet known. Where nearly all of the noise is open (mmse above 0.95 s), 0.95 s counts;
        v is at most four times the variance of the data.

        Arguments:
            factor: multiplies v.
        """
        lam = np.array(self.lam)
        s = np.exp(-2.0 * lam)
        open_part = np.clip(self.mmse(lam) / s, LEAST, OPEN)
        v = np.minimum(s * open_part / (1.0 - open_part), 4.0 * self.variance)
        return tuple(zip(lam.tolist(), np.log(factor * v).tolist(), strict=True))

    def check(self, process: Any) -> None:
        """Raise `ArgumentError` unless the profile covers the half log-SNR of `process` to within
        0.5 at each end.
        """
        ends = Range.of(process)
        if self.lam[0] > ends.noisy + REACH or self.lam[-1] < ends.clean - REACH:
            source = f", measured with {self.process}," if self.process else ""
            raise ArgumentError(
                f"the profile{source} covers half log-SNRs from {self.lam[0]:.4g} to "
                f"{self.lam[-1]:.4g}, but {process!r} runs from {ends.noisy:.4g} to "
                f"{ends.clean:.4g}; measure one: srk.calibrate(process, score)"
            )

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a small JSON file (replaced if it is there); returns its path."""
        file = Path(path)
        file.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return file

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain values, those of its JSON file."""
        data = {"srk-profile": VERSION} | attrs.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in data.items()}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Profile:
        """Read what `save` wrote. The file is data only: nothing in it is run.

        Raises:
            ArgumentError: not such a file, damaged, or of another version.
            MissingDataError: there is none (a FileNotFoundError too).
        """
        file = Path(path)
        if not file.is_file():
            raise MissingDataError(
                f"there is no profile {str(file)!r}; measure one: "
                "srk.calibrate(process, score).save(path), or srk calibrate PATH --model ..."
            )
        if file.stat().st_size > LARGEST_FILE:
            raise ArgumentError(
                f"{file} has {file.stat().st_size} bytes, and a profile has a few thousand; "
                "one is written by Profile.save or srk calibrate"
            )
        try:
            data = json.loads(file.read_text(encoding="utf-8"), parse_constant=not_finite)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError, JSONDecodeError too
            raise ArgumentError(
                f"{file} is not JSON ({shown(str(error))}); a profile is written by Profile.save "
                "or srk calibrate"
            ) from None
        return Profile.from_dict(data, str(file))

    @staticmethod
    def from_dict(data: Any, source: str = "the dict") -> Profile:
        """What `to_dict` gave.

        Arguments:
            data: plain values.
            source: what an error calls them.

        Raises:
            ArgumentError: they are no profile, damaged, or of another version.
        """
        if not isinstance(data, dict) or "srk-profile" not in data:
            raise ArgumentError(
                f"{source} holds no profile; one is written by Profile.save or srk calibrate"
            )
        data = dict(data)
        version = data.pop("srk-profile")
        if version not in range(1, VERSION + 1) or not is_integer(version):
            raise ArgumentError(
                f"{source} is a profile of version {shown(version)}, and this srk reads 1 to "
                f"{VERSION}; measure it again: srk.calibrate(process, score)"
            )
        try:
            return Profile(**checked(data, attrs.fields_dict(Profile)))
        except (ArgumentError, ArgumentTypeError) as error:
            raise ArgumentError(
                f"{source} is damaged: {error}; measure it again: srk.calibrate(process, score)"
            ) from None


def _beyond(x: Array, places: Array) -> Array:
    """How far `x` is outside of the ends of `places`."""
    outside: Array = np.maximum(places[0] - x, 0.0) + np.maximum(x - places[-1], 0.0)
    return outside
