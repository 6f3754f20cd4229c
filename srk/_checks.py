"""Checks of numbers that users pass: what counts as an integer or a real number, in one place.

Users have integers and numbers of several libraries: Python's, NumPy's scalars, and tensors
without axes. All of these are taken where a number is meant. A bool is none: `steps=True` is a
slip, not one step.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from typing import Any

import numpy as np
import torch

from srk.errors import ArgumentError, ArgumentTypeError, NumberError


def shown(value: object, limit: int = 120) -> str:
    """The repr of a value for a message, cut to `limit` characters.

    Examples:
        >>> shown("a" * 1000, 10)
        "'aaaa ... a'"
    """
    try:
        text = repr(value)
    except Exception:  # the repr of an object of the user's may fail, the message must not
        text = f"an object of type {type(value).__name__}"
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} ... {text[-limit // 5 :]}"


def is_integer(value: object) -> bool:
    """Whether `value` is an integer: an int, a NumPy integer or an integer tensor without axes.

    Examples:
        >>> [is_integer(v) for v in (3, np.int64(3), torch.tensor(3), True, 3.0, "3")]
        [True, True, True, False, False, False]
    """
    if type(value) is int:
        return True
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = value.dtype
        whole = (
            not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
            if isinstance(kind, torch.dtype)
            else np.issubdtype(kind, np.integer)
        )
        return whole and value.ndim == 0
    return isinstance(value, int | np.integer) or hasattr(type(value), "__index__")


def is_real(value: object) -> bool:
    """Whether `value` is a real number: an int, a float, or a scalar of NumPy or PyTorch.

    Examples:
        >>> [is_real(v) for v in (3, np.float32(3), torch.tensor(3.0), True, 3j, "3")]
        [True, True, True, False, False, False]
    """
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, torch.Tensor):
        kind = value.dtype
        return value.ndim == 0 and not (kind.is_complex or kind == torch.bool)
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, numbers.Real)


def integer(
    value: Any,
    name: str,
    *,
    least: int | None = None,
    most: int | None = None,
    kind: str = "an int",
    cure: str = "",
) -> int:
    """`value` as an int.

    Arguments:
        value: what the user passed.
        name: what the argument is called, for the message.
        least, most: the smallest and the largest value allowed.
        kind: what is wanted, for the message.
        cure: a corrected call, for the message.

    Returns:
        The Python int.

    Raises:
        NumberError: `value` is not an integer; bools, floats and strings are none.
        ArgumentError: it is out of range.

    Examples:
        >>> integer(np.int64(4), "steps", least=1)
        4
    """
    if type(value) is int and (least is None or value >= least) and (most is None or value <= most):
        return value
    wanted = _wanted(kind, least, most)
    advice = f"; {cure}" if cure else ""
    if not is_integer(value):
        raise NumberError(f"{name} must be {wanted}, not {shown(value)}{advice}")
    made = operator.index(value)
    if (least is not None and made < least) or (most is not None and made > most):
        raise ArgumentError(f"{name} must be {wanted}, not {shown(made)}{advice}")
    return made


def real(
    value: Any,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    cure: str = "",
) -> float:
    """`value` as a finite float; arguments and errors as in `integer`.

    Examples:
        >>> real(np.float32(0.5), "eta", least=0.0)
        0.5
    """
    wanted = _wanted("a finite number", least, most)
    advice = f"; {cure}" if cure else ""
    if not is_real(value):
        raise NumberError(f"{name} must be {wanted}, not {shown(value)}{advice}")
    try:
        made = float(value)
    except OverflowError:  # an int beyond the largest float
        made = math.inf
    if (
        not math.isfinite(made)
        or (least is not None and made < least)
        or (most is not None and made > most)
    ):
        raise ArgumentError(f"{name} must be {wanted}, not {shown(value)}{advice}")
    return made


def need(value: Any, kind: type | tuple[type, ...], name: str, wanted: str) -> Any:
    """`value`, which must be of class `kind`.

    Arguments:
        value: what the user passed.
        kind: the class, or the classes.
        name: what the argument is called, for the message.
        wanted: what it must be, in words, with a call that works.

    Raises:
        ArgumentTypeError: it is something else.

    Examples:
        >>> need(3, str, "name", "a str such as 'left'")
        Traceback (most recent call last):
            ...
        srk.errors.ArgumentTypeError: name must be a str such as 'left', not 3
    """
    if isinstance(value, kind):
        return value
    raise ArgumentTypeError(f"{name} must be {wanted}, not {shown(value)}")


def as_float(value: Any) -> float:
    """`value` as a float, which may be infinite: a converter for the fields of attrs classes.

    Raises:
        NumberError: it is no number, or a word that Python would take for one.

    Examples:
        >>> as_float(2)
        2.0
    """
    try:
        return float("" if isinstance(value, str | bytes) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise NumberError(f"a number is wanted here, not {shown(value)}; e.g. 0.5") from None


def positive(value: Any, name: str, *, cure: str = "") -> float:
    """`value` as a finite float above 0; arguments and errors as in `integer`.

    Examples:
        >>> positive(2, "snr")
        2.0
    """
    number = real(value, name, cure=cure)
    if number > 0.0:
        return number
    raise ArgumentError(f"{name} must be above 0, not {number!r}" + (f"; {cure}" if cure else ""))


def flag(value: Any, name: str) -> bool:
    """`value` as a bool: True or False of Python or NumPy.

    Raises:
        ArgumentTypeError: it is something else, which may only look true.
    """
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise ArgumentTypeError(f"{name} must be True or False, not {shown(value)}")


def choice(value: Any, options: tuple[Any, ...], name: str) -> Any:
    """`value`, if it is one of `options`: strings, True and False.

    Raises:
        ArgumentError: it is none of them; 1 is not True here.
    """
    if isinstance(value, np.bool_):
        value = bool(value)
    for option in options:
        if value is option or (isinstance(value, str) and value == option):
            return option
    *first, last = map(repr, options)
    raise ArgumentError(f"{name} must be {', '.join(first)} or {last}, not {shown(value)}")


def outside() -> int:
    """The `stacklevel` of a warning that shall name the first line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("srk."):
        frame, level = frame.f_back, level + 1
    return level


def _wanted(kind: str, least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"{kind} from {least} to {most}"
    if least == 1 and kind == "an int":
        return "a positive int"
    if least is not None:
        return f"{kind} of at least {least}"
    return f"{kind} of at most {most}" if most is not None else kind
