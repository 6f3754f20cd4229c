"""Numerical differentiation on a closed interval."""

from __future__ import annotations

import math

import pytest

from srk.processes.differentiate import derivative


@pytest.mark.parametrize("t", [0.0, 1e-14, 1e-7, 0.2, 0.5, 1 - 1e-7, 1.0])
def test_entire_functions_to_rounding(t: float) -> None:
    assert derivative(math.exp, t, 0.0, 1.0) == pytest.approx(math.exp(t), rel=1e-11)


@pytest.mark.parametrize("distance", [1e-12, 1e-9, 1e-6, 1e-3, 0.1])
def test_a_singular_end_outside_or_inside_the_interval(distance: float) -> None:
    """sqrt and log, whose scale is the distance to 0; at 0 itself log is not finite."""
    assert derivative(math.sqrt, distance, 0.0, 1.0) == pytest.approx(
        0.5 / math.sqrt(distance), rel=1e-10
    )
    assert derivative(math.sqrt, distance, distance, 1.0) == pytest.approx(
        0.5 / math.sqrt(distance), rel=1e-10
    )
    assert derivative(
        lambda s: math.log(s) if s else -math.inf, distance, 0.0, 1.0
    ) == pytest.approx(1 / distance, rel=1e-10)


def test_constants_have_derivative_zero_exactly() -> None:
    assert derivative(lambda s: 0.1, 0.3, 0.0, 1.0) == 0.0


def test_one_sided_at_a_kink_inside_is_a_number_and_nothing_finite_is_nan() -> None:
    assert abs(derivative(lambda s: abs(s - 0.3), 0.3, 0.0, 1.0)) <= 1.0
    assert math.isnan(derivative(lambda s: math.nan, 0.3, 0.0, 1.0))
