"""Scales of guidance: numbers, or functions of the noise level."""

from __future__ import annotations

import math
from typing import Any

from srk._checks import as_float, is_real
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import Level
from srk.scores.inputs import TIMES, LevelFunction

Scale = float | LevelFunction


def limited(
    scale: Scale, low: float, high: float, *, unit: str = "sigma", outside: float = 1.0
) -> LevelFunction:
    """A guidance scale that holds in an interval of noise levels only.

    Guidance at high noise costs diversity and at low noise changes nothing, so that an interval in
    between is better and cheaper: with `outside` = 1 a `Guided` with one condition calls the
    network once there instead of twice.

    Arguments:
        scale: the scale in the interval, a number or a function of the level.
        low, high: ends of the interval, included, in `unit`.
        unit: "sigma" (sigma/alpha, as in the paper), "half-log-snr", "log-snr", "flow" or "t".
        outside: the scale elsewhere.

    Returns:
        A function of the level, for `Guided`.

    Raises:
        ArgumentError: low > high, or a unit that does not exist.
        IncompatibleError: on a call, for a nonlinear process with a unit other than "t".

    Source: Kynkaanniemi et al., "Applying Guidance in a Limited Interval Improves Sample and
    Distribution Quality in Diffusion Models", 2024.

    Examples:
        >>> from srk.processes import EDM
        >>> scale = limited(2.0, 0.28, 5.42)
        >>> [scale(EDM().level(sigma)) for sigma in (10.0, 1.0, 0.1)]
        [1.0, 2.0, 1.0]
    """
    if not isinstance(unit, str) or unit not in TIMES:
        raise ArgumentError(
            f"the unit of an interval is one of {', '.join(map(repr, TIMES))}, not {unit!r}"
        )
    if not (is_real(low) and is_real(high) and low <= high):
        raise ArgumentError(
            f"an interval has low <= high, not low = {low!r}, high = {high!r}; in the unit {unit!r}"
        )
    value, measure, rest = as_scale(scale), TIMES[unit], as_float(outside)

    def function(level: Level) -> float:
        place = measure(level)
        if math.isnan(place):
            raise IncompatibleError(
                f"the noise level of a nonlinear process is not known in the unit {unit!r}; give "
                "the interval in own time: unit='t'"
            )
        return weight_at(value, level) if low <= place <= high else rest

    return function


def as_scale(value: Any) -> Scale:
    """The scale that a user means: a finite number, or a function of the level."""
    if is_real(value) and math.isfinite(value):
        return float(value)
    if callable(value):
        return value  # type: ignore[no-any-return]
    raise ArgumentTypeError(
        f"a guidance scale is a finite number or a function of the level, not {value!r}; e.g. "
        "scale=2.0"
    )


def as_scales(value: Any) -> tuple[Scale, ...]:
    """Several scales, one for each condition."""
    return tuple(map(as_scale, value if isinstance(value, list | tuple) else [value]))


def weight_at(scale: Scale, level: Level) -> float:
    """The number that a scale is at a level."""
    if not callable(scale):
        return scale
    weight = float(scale(level))
    if not math.isfinite(weight):
        raise ArgumentError(
            f"the guidance scale {scale!r} returned {weight!r} at {level!r}; it must return a "
            "finite number at every level"
        )
    return weight


__all__ = ["Scale", "as_scale", "as_scales", "limited", "weight_at"]
