"""Distribution function and quantiles of a one-dimensional Gaussian mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def distribution_function(points: Array, centres: Array, widths: Array, weights: Array) -> Any:
    """The probability below each of the points, of their shape; components have shape (K,)."""
    from scipy.special import ndtr  # scipy is slow to import

    return ndtr((points[..., None] - centres) / widths) @ weights


def quantiles(q: Array, centres: Array, widths: Array, weights: Array) -> Array:
    """The inverse of `distribution_function` at probabilities in [0, 1]; infinite at 0 and 1."""
    from scipy.optimize.elementwise import find_root  # scipy is slow to import
    from scipy.special import ndtr, ndtri

    def excess(x: Any, q: Any) -> Any:
        # from the nearer tail, where the probability has all its digits
        z = (x[..., None] - centres) / widths
        return np.where(q < 0.5, ndtr(z) @ weights - q, (1.0 - q) - ndtr(-z) @ weights)

    inside = q[(q > 0.0) & (q < 1.0)]
    out = np.where(q > 0.5, np.inf, -np.inf)
    if inside.size:
        # The mixture's quantile lies between the least and the largest of its components'; the
        # margin is for rounding.
        ends = centres + widths * ndtri(inside)[..., None]
        margin = 1e-6 * float(widths.max())
        out[(q > 0.0) & (q < 1.0)] = find_root(
            excess,
            (ends.min(-1) - margin, ends.max(-1) + margin),
            args=(inside,),
            tolerances={"fatol": 0.0},
        ).x
    return out
