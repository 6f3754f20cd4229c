r"""Interpolation under an exponential: the one integral behind the exponential Adams methods.

With nodes at places s_j, measured in half log-SNR from the start of a step of length h, and a rate
a,

    w_j = int_0^h a e^{-a (h - s)} l_j(s) ds        l_j the Lagrange polynomials of the nodes

are the weights with which u' = e^{-ah} u + sum_j w_j D_j integrates du = a (D - u) dlam exactly for
a polynomial D. In the gauge v the integral is that of R, of which the part w of a whole step is
frozen:

    w_j = int l_j dw,   w(s) = e^{-a L(s)/2},   L(s) = log((r^2 + v)/(r1^2 + v)) to the end, r1
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from srk.plans.gauge import GaugeStep
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
    return _integrals(places, length - back, kernel)


def gauge_weights(places: Sequence[float], gauge: GaugeStep) -> list[float]:
    """The weights w_j of R at `places`, in half log-SNR from the start of the step `gauge`, v > 0.

    Of one place the integral is exact, so that the step may start at infinite noise.
    """
    rate = 1.0 + gauge.eta**2
    if len(places) == 1:
        return [-math.expm1(-0.5 * rate * gauge.L)]
    length, end = gauge.stop.lam - gauge.start.lam, (gauge.stop.sigma / gauge.stop.alpha) ** 2
    # below v the kernel rises as r^2 with the distance from the end, above it falls as r^-a
    rise = max(0.0, 0.5 * math.log(gauge.v / end))
    reach = min(length, rise + _REACH / rate)
    back = reach * _POINTS
    s = end * np.exp(2.0 * back)
    part = np.exp(-0.5 * rate * np.log1p((s - end) / (end + gauge.v)))
    kernel = (rate * reach) * _MASSES * part * s / (s + gauge.v)
    return _integrals(places, length - back, kernel)


def _integrals(places: Sequence[float], s: np.ndarray, kernel: np.ndarray) -> list[float]:
    """The integrals of the Lagrange polynomials of `places` at `s` under a kernel."""
    weights = []
    for j, own in enumerate(places):
        value = kernel.copy()
        for k, other in enumerate(places):
            if k != j:
                value *= (s - other) / (own - other)
        weights.append(float(value.sum()))
    return weights
