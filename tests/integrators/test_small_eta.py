"""A stochasticity that is small, however small, is the ODE and an error of order eta^2 beside
it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import srk

SOLVERS = [
    name
    for name, solver in srk.solvers().items()
    if solver.eta_range[0] == 0.0 and solver.eta_range[1] > 0.0 and name not in ("auto", "tcd")
]
"""`auto` takes another method at eta = 0 itself.

The variance of the noise of `tcd` goes with eta.
"""
PROCESSES = {
    "vp": srk.VP(),
    "edm": srk.EDM(),
    "edm to 1e-9": srk.EDM(1e-9, 80.0),
    "flow": srk.Flow(),
    "cosine": srk.process("vp-cosine"),
}


@pytest.mark.parametrize("solver", SOLVERS)
@given(
    process=st.sampled_from(sorted(PROCESSES)),
    exponent=st.one_of(st.floats(-324.0, -2.0), st.sampled_from([-8.0, -154.0, -162.0, -323.0])),
    steps=st.integers(1, 14),
)
@settings(max_examples=10, deadline=None)
def test_a_small_eta_is_close_to_zero(
    solver: str, process: str, exponent: float, steps: int
) -> None:
    forward = PROCESSES[process]

    def moments(eta: float) -> np.ndarray:
        law = srk.analysis.gaussian_distribution(solver, forward, 0.5, 0.3, steps=steps, eta=eta)
        return np.array([law.variance[0], law.mean[0]])

    eta, ode = 10.0**exponent, moments(0.0)
    # Raw frames diverge in a few steps of a long range, by a factor that eta^2 then multiplies, so
    # it is measured, at two other places: it is the same there.
    slope, other = ((moments(near) - ode) / near**2 for near in (1e-3, 3e-3))
    # A slope at the end of a step divides what was rounded by the noise there.
    fall = forward.level(forward.t_max).r / forward.level(forward.t_min).r
    fall = fall if math.isfinite(fall) else 1.0
    rounding = (1e-9 + 4.0 * np.finfo(float).eps * fall) * (1.0 + ode[0])
    bend = 1e3 * (1.0 + ode[0])  # of eta^4, seen where the two parts of the slope cancel
    assert np.all(np.abs(slope - other) <= 0.1 * np.abs(slope) + bend * 1e-5 + rounding / 1e-6)
    tolerance = (2.0 * np.abs(slope) + bend * eta**2) * eta**2 + rounding
    assert np.all(np.abs(moments(eta) - ode) <= tolerance)


@pytest.mark.parametrize("solver", ["auto", "srk2m", "srk2s", "srk2m-local", "etd-sra1"])
def test_a_run_to_a_tiny_noise_level_is_right(solver: str) -> None:
    """At sigma = 1e-9 the gauge clock of v = 1/2 no longer moves in float64.

    Lengths do not need it to.
    """
    for eta in (1.0, 0.5, 1e-3, 0.0):
        law = srk.analysis.gaussian_distribution(
            solver, srk.EDM(1e-9, 80.0), 0.5, 0.3, steps=200, eta=eta
        )
        assert math.isclose(law.variance[0], law.target_variance[0], rel_tol=1e-2)
