"""What a file of a profile may hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from srk._checks import is_integer, is_real, shown
from srk.errors import ArgumentError

MOST = 4096
"""Intervals that a file may hold."""


def not_finite(name: str) -> float:
    """For `json.loads`, which reads NaN and infinities unless told otherwise."""
    raise ValueError(f"{name} is not a number")


def checked(data: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The fields of a profile, each of its type, as a file holds them.

    Raises:
        ArgumentError: one that there is not, lacks, or has another type.
    """
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ArgumentError(f"it holds {shown(unknown)}, which a profile has not")
    lacking = [name for name in ("lam", "q", "process", "calls") if name not in data]
    if lacking:
        raise ArgumentError(f"it lacks {', '.join(map(repr, lacking))}")
    for name, entry in data.items():
        if name == "process":
            if not isinstance(entry, str):
                raise ArgumentError(f"its 'process' is {shown(entry)}")
        elif name == "calls":
            if not is_integer(entry) or not 0 <= entry < 2**63:
                raise ArgumentError(f"its 'calls' is {shown(entry)}")
        elif not isinstance(entry, list) or len(entry) > MOST or not all(map(is_real, entry)):
            raise ArgumentError(f"its {name!r} is no list of at most {MOST} numbers")
    return data
