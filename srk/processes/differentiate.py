"""The derivative of a smooth function at a point of an interval, from values inside it only."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

_NODES = 0.5 - 0.5 * np.cos(
    np.pi * np.arange(15) / 14
)  # Chebyshev-Lobatto on [0, 1]: stable at the ends too


def derivative(function: Callable[[float], float], t: float, low: float, high: float) -> float:
    """d function/dt at `t` in [`low`, `high`], for a function that is smooth around `t`.

    An end of the interval may be singular.

    A polynomial through 15 Chebyshev points of a window around `t` is differentiated. The window is
    halved until two successive results agree to rounding, so it adapts to the scale of the function
    (a log-SNR near t = 0 varies on the scale of t). Values that are not finite spoil a window, not
    the result.

    Arguments:
        function: takes and returns a float; called only inside [low, high].
        t: where.
        low, high: the interval.

    Returns:
        The derivative, to about 1e-11 relative for an analytic function; nan if no window had
        finite values.

    Examples:
        >>> import math
        >>> from srk.processes.differentiate import derivative
        >>> abs(derivative(math.log, 1e-3, 1e-3, 1.0) * 1e-3 - 1.0) < 1e-10
        True
    """
    best, smallest, previous = math.nan, math.inf, math.nan
    half = 0.25 * (high - low)
    resolution = 64 * sys.float_info.epsilon * abs(t)  # a narrower window is not resolved
    worse = 0
    while half > resolution and worse < 3:
        value, noise = _window(function, t, max(low, t - half), min(high, t + half))
        error = abs(value - previous)
        if error < smallest:
            best, smallest, worse = value, error, 0
        elif smallest <= 1e-8 * abs(best):
            worse += 1
        if error <= max(1e-14 * abs(value), noise):
            break
        if not math.isnan(value) and math.isnan(best):
            best = value
        previous, half = value, 0.5 * half
        if half < 1e-290:
            break
    return best


def _window(
    function: Callable[[float], float], t: float, low: float, high: float
) -> tuple[float, float]:
    """The derivative at `t` of the interpolant on [low, high], and its rounding error at least."""
    nodes = low + (high - low) * _NODES
    nodes[0], nodes[-1] = low, high
    own = int(np.argmin(np.abs(nodes - t)))
    nodes[own] = t  # t is a node: then a constant has derivative 0 exactly
    values = np.array([function(float(s)) for s in nodes])
    if not np.isfinite(values).all():
        return math.nan, 0.0
    width = high - low
    gaps = (nodes[:, None] - nodes[None, :]) / width
    np.fill_diagonal(gaps, 1.0)
    weights = 1.0 / gaps.prod(axis=1)
    others = np.arange(len(nodes)) != own
    # the differentiation matrix's row for `own`, without the diagonal: its row sum is zero
    row = weights[others] / weights[own] / gaps[own, others]
    value = float(row @ (values[others] - values[own])) / width
    return value, sys.float_info.epsilon * float(np.abs(values).max()) / width
