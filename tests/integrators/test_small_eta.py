"""A stochasticity that is small, however small, is the ODE and an error of order eta^2 beside
it.
"""

from __future__ import annotations

import math

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
    eta = 10.0**exponent
    law = srk.analysis.gaussian_distribution(
        solver, PROCESSES[process], 0.5, 0.3, steps=steps, eta=eta
    )
    ode = srk.analysis.gaussian_distribution(
        solver, PROCESSES[process], 0.5, 0.3, steps=steps, eta=0.0
    )
    # raw frames diverge in a few steps of a long range, at the rate that eta^2 then multiplies
    tolerance = (1e3 * eta**2 + 1e-9) * (1.0 + float(ode.variance[0]))
    assert abs(law.variance[0] - ode.variance[0]) <= tolerance
    assert abs(law.mean[0] - ode.mean[0]) <= tolerance


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
