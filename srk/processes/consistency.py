"""Whether what a process says of itself belongs together."""

from __future__ import annotations

import math
from typing import Any

from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.elementwise import is_number
from srk.processes.level import Level


def check_ends(process: Any) -> None:
    """Raise unless t_min and t_max are finite numbers, in this order."""
    ends = []
    for attribute in ("t_min", "t_max"):
        value: Any = getattr(process, attribute, None)
        if not is_number(value):
            raise ArgumentTypeError(
                f"{process!r} must have a number {attribute} (own time), not {value!r}; set it "
                "on the class or instance"
            )
        ends.append(float(value))
    if not (-math.inf < ends[0] < ends[1] < math.inf):
        raise ArgumentError(
            f"{process!r} must have finite t_min < t_max, not t_min = {ends[0]!r}, t_max = "
            f"{ends[1]!r}"
        )


def check_consistent(process: Any) -> None:
    """Raise unless alpha, sigma, lam and time of a linear process belong together.

    Examples:
        >>> from srk.processes import VP
        >>> from srk.processes.consistency import check_consistent
        >>> check_consistent(VP())
    """
    points = 64
    low, high = process.t_min, process.t_max
    times = [low + (high - low) * i / points for i in range(points)] + [float(high)]
    previous: Level | None = None
    for t in times:
        alpha, sigma = _number(process, "alpha", t), _number(process, "sigma", t)
        _check_scales(process, t, alpha, sigma)
        level = Level(t, alpha, sigma, _number(process, "lam", t))
        _check_lam(process, level)
        if previous is not None and not level.lam < previous.lam:
            raise ArgumentError(
                f"the half log-SNR log(alpha/sigma) of {process!r} must decrease strictly in t, "
                "but it is "
                f"{previous.lam!r} at t = {previous.t!r} and {level.lam!r} at t = {t!r}; time "
                "runs from data (t_min) to noise (t_max): "
                "are alpha and sigma exchanged, or is t reversed?"
            )
        previous = level
    for t in times[points // 4 : -1 : points // 4]:
        back = float(process.time(_number(process, "lam", t)))
        if not abs(back - t) <= 1e-6 * (process.t_max - process.t_min):
            raise ArgumentError(
                f"time(lam({t!r})) of {process!r} is {back!r}: `time` must be the inverse of "
                "`lam`; correct it, or drop the override"
            )


def _number(process: Any, method: str, t: float) -> float:
    try:
        return float(getattr(process, method)(t))
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{method}({t!r}) of {process!r} must return a number for a float, but it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_scales(process: Any, t: float, alpha: float, sigma: float) -> None:
    for scale, value in (("alpha", alpha), ("sigma", sigma)):
        if not 0.0 <= value < math.inf:
            raise ArgumentError(
                f"{scale}({t!r}) of {process!r} is {value!r}; it must be finite and not negative "
                "on [t_min, t_max]"
            )
    if alpha == 0.0 == sigma:
        raise ArgumentError(
            f"alpha and sigma of {process!r} are both 0 at t = {t!r}; the state would carry "
            "neither data nor noise"
        )


def _check_lam(process: Any, level: Level) -> None:
    if level.alpha == 0.0 or level.sigma == 0.0:
        expected = -math.inf if level.alpha == 0.0 else math.inf
    else:
        expected = math.log(level.alpha) - math.log(level.sigma)
    # Loose: an override of lam is there because alpha or sigma is inexact. It shall catch a
    # factor of two, not rounding.
    if not (level.lam == expected or abs(level.lam - expected) <= 1e-3 * max(1.0, abs(expected))):
        raise ArgumentError(
            f"lam({level.t!r}) of {process!r} is {level.lam!r}, but log(alpha/sigma) is "
            f"{expected!r} there: "
            "`lam` must be the HALF log-SNR; correct it, or drop the override"
        )
