"""The eta of a run that names none, and the k-diffusion family at the ends of a process."""

from __future__ import annotations

import pytest

import srk
from srk.errors import IncompatibleError

FAMILY = [
    "dpmpp-2m-sde",
    "dpmpp-3m-sde",
    "dpmpp-3m-sde-corrected",
    "dpmpp-sde",
    "dpmpp-2s-ancestral",
    "euler-ancestral",
    "dpm2-ancestral",
    "edm-heun",
    "edm-euler",
    "edm-dpm2",
    "ddim",
    "dpmpp-2m",
    "dpmpp-3m",
    "dpm-solver-2",
    "dpm-solver-3",
    "heun",
    "dpm2",
    "lms",
]
ODE = ["dpmpp-2m", "dpmpp-3m", "dpm-solver-2", "dpm-solver-3", "heun", "dpm2", "lms"]
TARGET = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.3, 0.2])


@pytest.mark.parametrize("solver", FAMILY)
def test_default_eta(solver: str) -> None:
    """1 where the method is defined for it, 0 for a method of the ODE alone.

    The Solution says which.
    """
    sol = srk.solve(srk.VP(), TARGET.score(srk.VP()), solver, shape=(2, 1), steps=4, seed=0)
    assert sol.eta == (0.0 if solver in ODE else 1.0)
    assert f"(eta = {sol.eta:g})" in repr(sol)


@pytest.mark.parametrize("solver", ODE)
def test_an_ode_method_says_what_to_do(solver: str) -> None:
    """Asked for the SDE, the error names eta=0 and a method of the SDE."""
    with pytest.raises(
        IncompatibleError,
        match=r"defined for eta = 0 only, not eta = 1; use eta=0, or solver='srk2m'",
    ):
        srk.solve(srk.VP(), TARGET.score(srk.VP()), solver, shape=(2, 1), steps=4, eta=1.0)


@pytest.mark.parametrize("solver", FAMILY)
@pytest.mark.parametrize(
    "process",
    [srk.EDM(sigma_min=0.0), srk.VP(t_min=0.0), srk.Flow(t_min=0.0)],
    ids=["edm", "vp", "flow"],
)
@pytest.mark.parametrize("eta", [None, 0.0])
def test_the_ends_of_a_process(solver: str, process: srk.LinearProcess, eta: float | None) -> None:
    """From alpha = 0 (flow) and to sigma = 0.

    Samples of the data's size at no more calls than asked for (every pair: test_every_pair).
    """
    sol = srk.solve(process, TARGET.score(process), solver, shape=(64, 1), nfe=24, seed=0, eta=eta)
    assert sol.success
    assert sol.nfe <= 24
    assert float(sol.x.abs().max()) < 3.0
    assert abs(float(sol.x.mean()) + 0.1) < 0.45
