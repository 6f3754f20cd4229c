"""The same formula for one number and for an array: `math` on numbers (ten times faster), numpy on arrays."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np


def is_number(t: Any) -> bool:
    """Whether `t` is a real number (a numpy scalar too), not an array.

    Examples:
        >>> import numpy as np
        >>> from srk.processes.elementwise import is_number
        >>> is_number(1), is_number(np.float64(1)), is_number(np.ones(1)), is_number("1")
        (True, True, False, False)
    """
    return isinstance(t, (float, int, numbers.Real))


def library(t: Any) -> Any:
    """The module whose `exp`, `expm1`, `sqrt`, `sin` ... fit `t`: `math` for a number, numpy for an array."""
    return math if is_number(t) else np


def log(x: Any) -> Any:
    """Natural logarithm of a number or array, -inf at 0, silently.

    Examples:
        >>> import numpy as np
        >>> from srk.processes.elementwise import log
        >>> log(0.0), log(np.array([0.0, 1.0])).tolist()
        (-inf, [-inf, 0.0])
    """
    if is_number(x):
        return math.log(x) if x != 0.0 else -math.inf
    with np.errstate(divide="ignore"):
        return np.log(x)


def elementwise(
    function: Callable[[float], float], t: Any
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`function` of every number in the array `t`, in its shape."""
    t = np.asarray(t, dtype=np.float64)
    return np.array([float(function(float(s))) for s in t.ravel()], dtype=np.float64).reshape(
        t.shape
    )
