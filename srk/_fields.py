"""Validators of the fields of attrs classes, as `attrs.validators` has them, with errors of ours.

An error names the class, the field, the value that was given and, from the field's default, a call
that works.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import attrs

from srk._checks import is_integer, is_real, shown
from srk.errors import ArgumentError, ArgumentTypeError, NumberError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def ge(bound: float) -> Validator:
    """A number of at least `bound`."""
    return _compared(operator.ge, ">=", bound)


def gt(bound: float) -> Validator:
    """A number above `bound`."""
    return _compared(operator.gt, ">", bound)


def le(bound: float) -> Validator:
    """A number of at most `bound`."""
    return _compared(operator.le, "<=", bound)


def lt(bound: float) -> Validator:
    """A number below `bound`."""
    return _compared(operator.lt, "<", bound)


def integral(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """An int, and no bool."""
    if not is_integer(value):
        raise NumberError(_message(instance, attribute, "an int", value))


def in_(options: tuple[Any, ...]) -> Validator:
    """One of `options`, which are strings or ints.

    Examples:
        >>> from srk.integrators import DDPM
        >>> DDPM(frame="velocity")
        Traceback (most recent call last):
            ...
        srk.errors.ArgumentError: DDPM needs frame to be 'data', 'noise' or 'score', not ...
    """
    *first, last = map(repr, options)
    wanted = f"{', '.join(first)} or {last}"

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        known = isinstance(value, str) or is_integer(value)
        if not (known and any(value == option for option in options)):
            raise ArgumentError(_message(instance, attribute, wanted, value))

    return check


def instance_of(kind: type, wanted: str) -> Validator:
    """An object of class `kind`; `wanted` says in words what that is."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise ArgumentTypeError(_message(instance, attribute, wanted, value))

    return check


def function(what: str) -> Validator:
    """A callable; `what` says of what and to what, e.g. "(x) -> A x"."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, type) or not callable(value):
            raise ArgumentTypeError(_message(instance, attribute, f"a function {what}", value))

    return check


def _compared(holds: Callable[[Any, Any], bool], sign: str, bound: float) -> Validator:
    wanted = f"a number {sign} {bound:g}" if math.isfinite(bound) else "a finite number"

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not is_real(value):
            raise NumberError(_message(instance, attribute, wanted, value))
        if not holds(value, bound):
            raise ArgumentError(_message(instance, attribute, wanted, value))

    return check


def _message(instance: Any, attribute: attrs.Attribute[Any], wanted: str, value: Any) -> str:
    """What the field needs, what was given, and the default in a call where there is one."""
    name, field = type(instance).__name__, attribute.alias or attribute.name
    default = attribute.default
    plain = isinstance(default, str | int | float | tuple) and not isinstance(default, bool)
    cure = f"; e.g. {name}({field}={default!r})" if plain else ""
    return f"{name} needs {field} to be {wanted}, not {shown(value)}{cure}"
