r"""Interpolation under an exponential: the one integral behind the exponential Adams methods.

With nodes at places s_j, measured in half log-SNR from the start of a step of length h, and a rate
a,

    w_j = int_0^h a e^{-a (h - s)} l_j(s) ds        l_j the Lagrange polynomials of the nodes

are the weights with which u' = e^{-ah} u + sum_j w_j D_j integrates du = a (D - u) dlam exactly for
a polynomial D.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srk.processes.quadrature import gauss_legendre

_REACH = 45.0  # e^-45 is below rounding: beyond it the kernel contributes nothing
_POINTS, _MASSES = gauss_legendre(48)


def exponential_weights(places: Sequence[float], length: float, rate: float = 1.0) -> list[float]:
    """The weights w_j for nodes at `places`, a step of `length` > 0 and `rate` > 0.

    By Gauss-Legendre quadrature of the polynomials in their product form: nothing cancels, neither
    for short nor for long steps (in the expanded form, which the reference code of SA-Solver uses,
    four nodes lose all digits of float32).
    """
    reach = min(length, _REACH / rate)
    back = reach * _POINTS  # distance from the end of the step
    kernel = (rate * reach) * _MASSES * np.exp(-rate * back)
    s = length - back
    weights = []
    for j, own in enumerate(places):
        value = kernel.copy()
        for k, other in enumerate(places):
            if k != j:
                value *= (s - other) / (own - other)
        weights.append(float(value.sum()))
    return weights
