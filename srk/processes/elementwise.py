"""The same formula for one number, an array and a tensor.

Numbers go through `math`, which is ten times faster than NumPy on them; arrays through NumPy; and
tensors through PyTorch, on their own device.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from srk.errors import ArgumentError


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
    """The module whose `exp`, `expm1`, `sqrt`, `sin` ... fit `t`.

    It is `math` for a number, NumPy for an array, and PyTorch for a tensor.
    """
    if is_number(t):
        return math
    return torch if isinstance(t, torch.Tensor) else np


def log(x: Any) -> Any:
    """Natural logarithm of a number, array or tensor, -inf at 0, silently.

    Examples:
        >>> import numpy as np
        >>> from srk.processes.elementwise import log
        >>> log(0.0), log(np.array([0.0, 1.0])).tolist()
        (-inf, [-inf, 0.0])
    """
    if is_number(x):
        return math.log(x) if x != 0.0 else -math.inf
    if isinstance(x, torch.Tensor):
        return torch.log(x)
    with np.errstate(divide="ignore"):
        return np.log(x)


def elementwise(function: Callable[[float], float], t: Any) -> Any:
    """`function` of every number in the array or tensor `t`, in its shape.

    The numbers are float64 on the CPU in between. A tensor comes back on its device, in its dtype
    if that is floating.
    """
    tensor = isinstance(t, torch.Tensor)
    given = t.detach().to("cpu", torch.float64).numpy() if tensor else np.asarray(t, np.float64)
    values = np.array([float(function(float(s))) for s in given.ravel()], dtype=np.float64)
    values = values.reshape(given.shape)
    if not tensor:
        return values
    kind = t.dtype if t.dtype.is_floating_point else torch.get_default_dtype()
    return torch.as_tensor(values, dtype=kind, device=t.device)


def ones_like(t: Any) -> Any:
    """1 for a number, ones in the shape of an array, ones like a tensor."""
    if is_number(t):
        return 1.0
    return torch.ones_like(t) if isinstance(t, torch.Tensor) else np.ones(np.shape(t))


def per_sample(
    function: Callable[[float], float], t: torch.Tensor, like: torch.Tensor
) -> torch.Tensor:
    """`function` of one time per sample, to multiply a batch with.

    Arguments:
        function: of a float, in float64.
        t: times, shape (batch,), on any device, which is waited for.
        like: states, shape (batch, *event).

    Returns:
        Tensor of shape (batch, 1, ..., 1), of the dtype and device of `like`.

    Raises:
        ArgumentError: `t` has another shape.
    """
    if t.shape != like.shape[:1]:
        raise ArgumentError(
            f"times of shape {tuple(t.shape)} are given for a batch of {len(like)}; give one "
            "number, "
            "or a tensor with one time for each sample"
        )
    values = torch.tensor(
        [function(s) for s in t.detach().to("cpu", torch.float64).tolist()],
        dtype=torch.float64,
        device="cpu",
    )
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))
