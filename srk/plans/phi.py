"""The weights of powers under an exponential.

Every exponential multistep and Runge-Kutta method is made of them.
"""

from __future__ import annotations

import math


def psi(k: int, x: float) -> float:
    """psi_k(x) = int_0^1 x e^{-x(1 - t)} t^k dt, without cancellation.

    psi_0 = 1 - e^{-x} and psi_k = 1 - k psi_{k-1}/x.

    In du = a (D - u) dlam over a step h, a denoiser D = sum_k d_k t^k (t the fraction of the step)
    adds sum_k psi_k(a h) d_k. A negative x serves the noise
    form: e^h - 1 = -psi_0(-h).

    Examples:
        >>> from srk.plans.phi import psi
        >>> abs(psi(1, 1e-9) / 0.5e-9 - 1) < 1e-9
        True
    """
    if abs(x) > 1.0:
        value = -math.expm1(-x)
        for j in range(1, k + 1):
            value = 1.0 - j * value / x
        return value
    # x sum_j (-x)^j k!/(k + 1 + j)!; the terms fall below rounding before j = 20
    term = x / (k + 1)
    total = term
    for j in range(1, 22):
        term *= -x / (k + 1 + j)
        total += term
    return total
