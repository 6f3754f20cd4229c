"""The exponential weights against 50-digit arithmetic."""

from __future__ import annotations

import mpmath
import pytest

from srk.plans.phi import psi


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "x", [-30.0, -3.0, -1.0, -0.5, -1e-3, -1e-12, 1e-12, 1e-3, 0.3, 0.999, 1.001, 4.0, 80.0]
)
def test_psi(k: int, x: float) -> None:
    """To 1e-13, on both sides of the switch between series and recursion, and for the noise form
    (x < 0).
    """
    with mpmath.workdps(50):
        value = mpmath.mpf(x)
        exact = -mpmath.expm1(-value)
        for j in range(1, k + 1):
            exact = 1 - j * exact / value
        assert psi(k, x) == pytest.approx(float(exact), rel=1e-13)
