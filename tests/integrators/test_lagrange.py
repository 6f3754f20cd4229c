"""The integral behind the exponential Adams methods, against adaptive quadrature and where it
would cancel.
"""

from __future__ import annotations

import math

import mpmath
import pytest

from srk.plans.lagrange import exponential_weights
from srk.plans.phi import psi


def reference(places: list[float], length: float, rate: float) -> list[float]:
    """The same integrals in 60 digits, from the expanded polynomials."""
    with mpmath.workdps(60):
        moments = [
            mpmath.mpf(1) - mpmath.exp(-mpmath.mpf(rate) * length)
        ]  # int_0^h a e^{-a(h - s)} s^k ds, by parts
        for k in range(1, len(places)):
            moments.append(mpmath.mpf(length) ** k - k / mpmath.mpf(rate) * moments[-1])
        weights = []
        for j, own in enumerate(places):
            polynomial = [mpmath.mpf(1)]
            for k, other in enumerate(places):
                if k != j:
                    scale = mpmath.mpf(own) - mpmath.mpf(other)
                    shifted = [mpmath.mpf(0), *polynomial]
                    polynomial = [
                        (a - other * b) / scale
                        for a, b in zip(shifted, [*polynomial, mpmath.mpf(0)], strict=True)
                    ]
            weights.append(float(sum(c * m for c, m in zip(polynomial, moments, strict=True))))
        return weights


@pytest.mark.parametrize("length", [1e-8, 1e-3, 0.3, 2.0, 30.0, 500.0])
@pytest.mark.parametrize("rate", [1.0, 1.36, 2.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("ahead", [False, True])
def test_against_sixty_digits(length: float, rate: float, count: int, ahead: bool) -> None:
    """Every weight to 1e-13 of the largest, for steps from 1e-8 to 500.

    Nodes at this step's start and before, or with its end.
    """
    places = [0.0, -0.9 * length, -2.1 * length, -2.8 * length][: count - ahead]
    places = [length, *places] if ahead else places
    if not places:
        pytest.skip("no node")
    expected = reference(places, length, rate)
    size = max(map(abs, expected))
    assert exponential_weights(places, length, rate) == pytest.approx(
        expected, rel=1e-12, abs=1e-13 * size
    )


@pytest.mark.parametrize("x", [1e-6, 0.7, 12.0])
def test_constants_and_slopes(x: float) -> None:
    """The weights of one node, and of a slope, are psi_0 and psi_1."""
    assert exponential_weights([0.0], x) == [pytest.approx(-math.expm1(-x), rel=1e-14)]
    assert exponential_weights([x, 0.0], x)[0] == pytest.approx(psi(1, x), rel=1e-13)
