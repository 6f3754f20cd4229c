"""Numbers that users give to processes: times, parameters, ranges."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch

from srk._checks import is_real, shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.elementwise import is_number


def check_data(x0: object) -> None:
    """Raise `ArgumentTypeError` unless `x0` is data (batch, *event) that noise can be added to."""
    numbers = isinstance(x0, torch.Tensor) and (x0.is_floating_point() or x0.is_complex())
    if numbers and isinstance(x0, torch.Tensor) and x0.ndim > 0:
        return
    got = f"{x0.dtype} of shape {tuple(x0.shape)}" if isinstance(x0, torch.Tensor) else shown(x0)
    raise ArgumentTypeError(
        f"data are a floating-point tensor of shape (batch, *event), not {got}; e.g. x0.float()"
    )


def as_number(value: Any, what: str) -> float:
    """`value` as a float, nan and inf included.

    Raises:
        ArgumentTypeError: it is not a real number.
    """
    if type(value) is float:
        return value
    if not is_real(value):
        raise ArgumentTypeError(f"{what} is a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # an int beyond the largest float
        return math.copysign(math.inf, value)


# Half log-SNRs this close (relative to max(1, |lam|)) to an end are that end: they come from a
# sigma or alpha that was rounded elsewhere.
_END_TOLERANCE = 1e-9


def same_lam(lam: float, end: float) -> bool:
    """Whether a half log-SNR is that of an end of the range."""
    return lam == end or abs(lam - end) <= _END_TOLERANCE * max(1.0, min(abs(lam), abs(end)))


def check_range(t_min: float, t_max: float) -> None:
    """Raise unless 0 <= t_min < t_max, both finite.

    Examples:
        >>> from srk.processes.parameters import check_range
        >>> check_range(0.0, 1.0)
    """
    if not (0 <= t_min < t_max < math.inf):
        raise ArgumentError(
            f"a process needs 0 <= t_min < t_max < inf, not t_min = {t_min!r}, t_max = {t_max!r}"
        )


def _float(value: Any) -> Any:
    return float(value) if is_number(value) else value


def _finite(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not is_number(value) or not math.isfinite(value):
        raise ArgumentTypeError(f"{field.name} must be a finite number, not {value!r}")


def parameter(default: float) -> Any:
    """A field of a process that holds one finite float."""
    return attrs.field(default=default, converter=_float, validator=_finite)
