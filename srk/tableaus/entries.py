"""The entries of a tableau.

Exact fractions where they are rational, floats where they are not, nothing else.
"""

from __future__ import annotations

import numbers
import re
import reprlib
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from srk.errors import ArgumentTypeError, TableauError

__all__ = [
    "Entry",
    "Matrix",
    "Number",
    "Vector",
    "add_once",
    "check_entries",
    "to_matrix",
    "to_number",
    "to_optional_vector",
    "to_order",
    "to_vector",
]

LONGEST = 1000
"""Digits that the numerator and the denominator of an exact entry may have.

Order conditions multiply entries exactly, which takes for ever with "1e100000000".
"""
_EXPONENT = re.compile(r"[eE]([+-]?[0-9_]+)\s*$")

Number: TypeAlias = Fraction | float
Entry: TypeAlias = int | float | Fraction | str
Vector: TypeAlias = tuple[Number, ...]
Matrix: TypeAlias = tuple[Vector, ...]


def to_number(value: Any) -> Number:
    """`value` as a Fraction where it is exact, else as a float.

    What is no number stays as it is, for `check_entries` to refuse by name.
    """
    if isinstance(value, str):
        if _too_long(value):
            return value  # type: ignore[return-value]
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            return value  # type: ignore[return-value]
    if isinstance(value, numbers.Rational) and not isinstance(value, bool):
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    return value  # type: ignore[no-any-return]


def _too_long(value: object) -> bool:
    """Whether exact arithmetic with this number or text would have no end."""
    if isinstance(value, Fraction):
        # A digit takes log2(10) = 3.32 bits.
        longest = max(value.numerator.bit_length(), value.denominator.bit_length())
        return longest > 3.33 * LONGEST
    if not isinstance(value, str):
        return False
    exponent = _EXPONENT.search(value)
    digits = exponent[1].lstrip("+-").lstrip("0") if exponent else ""
    return len(value) > 2 * LONGEST or len(digits) > 4 or int(digits or "0") > LONGEST


def to_vector(value: Any) -> Vector:
    """A tuple of numbers."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return (
        tuple(to_number(x) for x in value)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes)
        else value
    )


def to_matrix(value: Any) -> Matrix:
    """A tuple of rows.

    The strictly lower half alone (rows of 0, 1, 2, ... entries) is filled up with zeros.
    """
    rows: Any = to_vector(value)
    if not isinstance(rows, tuple):
        return rows  # type: ignore[no-any-return]
    rows = tuple(to_vector(row) for row in rows)
    if all(isinstance(row, tuple) and len(row) == i for i, row in enumerate(rows)):
        rows = tuple(row + (Fraction(0),) * (len(rows) - i) for i, row in enumerate(rows))
    return rows  # type: ignore[no-any-return]


def to_optional_vector(value: Any) -> Vector | None:
    return None if value is None else to_vector(value)


def to_order(value: Any) -> float:
    number: Any = to_number(value)
    exact = isinstance(number, Fraction) and abs(number) <= sys.float_info.max
    return float(number) if exact else number


def check_entries(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what is not a finite number, or a tuple of such, nested `depth` deep.

    The message says where the entry stands.
    """
    if depth:
        if not isinstance(value, tuple):
            raise ArgumentTypeError(
                f"{where} is {value!r}: give a list or tuple{' of rows' * (depth - 1)}"
            )
        for i, x in enumerate(value):
            check_entries(x, f"{where}[{i}]", depth - 1)
    elif _too_long(value):
        raise TableauError(
            f"{where} is {reprlib.repr(value)}, an exact number of more than {LONGEST} "
            "digits: give "
            "a fraction of smaller numbers, or a float"
        )
    elif isinstance(value, str):
        raise TableauError(
            f"{where} is {value!r}, which is not a fraction: write '3/4', '-2' or '0.75' (an "
            "irrational coefficient is a plain float)"
        )
    elif not isinstance(value, Fraction | float):
        raise ArgumentTypeError(
            f"{where} is {value!r} of type {type(value).__name__}: give an int, a float, a "
            "Fraction or a string such as '3/4'"
        )
    elif not -sys.float_info.max <= value <= sys.float_info.max:  # NaN fails too
        raise TableauError(
            f"{where} is {float('inf') if isinstance(value, Fraction) else value!r}: every "
            "coefficient must be finite"
        )


def add_once(a: Number, b: Number) -> Number:
    """a + b, exact if both are, else rounded once."""
    total = Fraction(a) + Fraction(b)
    return total if isinstance(a, Fraction) and isinstance(b, Fraction) else float(total)
