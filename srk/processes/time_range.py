"""Own times and the range of a process: what lies outside, and what is an end but for rounding."""

from __future__ import annotations

import sys
from typing import Protocol

from srk.errors import TimeError
from srk.processes.parameters import as_number

_SINGLE = 2.0**-23
"""The rounding of float32, relative."""


class Timed(Protocol):
    """What has a range of own times."""

    t_min: float
    t_max: float


def time_in_range(process: Timed, t: float) -> float:
    """`t` as a float in the range of the process; a time beyond an end by rounding is that end.

    Examples:
        >>> import srk
        >>> time_in_range(srk.VP(t_max=1.0), 1.0 + 1e-8)
        1.0
    """
    t = as_number(t, "a time")
    t_min, t_max = process.t_min, process.t_max
    if t_min <= t <= t_max:
        return t
    slack = 8 * sys.float_info.epsilon * max(abs(t_min), abs(t_max))
    low, high = max(slack, _SINGLE * abs(t_min)), max(slack, _SINGLE * abs(t_max))
    if not (t_min - low <= t <= t_max + high):  # also catches nan
        raise TimeError(
            f"t = {t!r} is outside the range of {process!r}, which is [{t_min!r}, {t_max!r}]; "
            "choose times inside it, or build the process with another t_min or t_max"
        )
    return float(min(max(t, t_min), t_max))


def snapped_to_end(process: Timed, t: float) -> float:
    """`t`, or the end of the range that is the same number in float32.

    Examples:
        >>> import srk
        >>> snapped_to_end(srk.VP(t_min=0.1), 0.10000000149011612)  # 0.1 in float32
        0.1
    """
    for end in (process.t_min, process.t_max):
        if abs(t - end) <= _SINGLE * abs(end):
            return float(end)
    return t
