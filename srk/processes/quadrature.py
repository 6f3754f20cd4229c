"""Gauss-Legendre quadrature."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@functools.cache
def gauss_legendre(n: int) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1], exact up to degree 2n - 1.

    The arrays are remembered, and so read-only.

    Examples:
        >>> from srk.processes.quadrature import gauss_legendre
        >>> x, w = gauss_legendre(3)
        >>> round(float(w @ x**5), 12) == round(1 / 6, 12)
        True
    """
    nodes, weights = np.polynomial.legendre.leggauss(n)
    points, masses = 0.5 * (nodes + 1.0), 0.5 * weights
    points.setflags(write=False)
    masses.setflags(write=False)
    return points, masses
