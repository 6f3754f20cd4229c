"""DPM-Solver-2 and -3, single step."""

from __future__ import annotations

import math

import pytest

import srk
from srk.analysis import gaussian_distribution, gaussian_kl
from srk.errors import ArgumentError
from srk.integrators import DPMSolver2, DPMSolver3, Integrator

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)


@pytest.mark.parametrize(
    ("solver", "slope"), [(DPMSolver2(), -4.0), (DPMSolver2(node=0.8), -4.0), (DPMSolver3(), -6.0)]
)
@pytest.mark.parametrize("process", [EDM, srk.VP()])
def test_orders(process: srk.LinearProcess, solver: Integrator, slope: float) -> None:
    """KL falls as steps^-2p at order p of the ODE."""
    kl = [gaussian_kl(solver, process, variance=[0.2, 1.0], steps=n) for n in (96, 192)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(slope, abs=0.2)


def test_equal_names() -> None:
    """dpm-solver-2 with its node in the middle is dpm2."""
    one, two = (
        gaussian_distribution(name, srk.VP(), 0.3, [0.1, 1.0], steps=8)
        for name in ("dpm-solver-2", "dpm2")
    )
    assert one.variance == pytest.approx(two.variance, rel=1e-12)
    assert one.mean == pytest.approx(two.mean, rel=1e-12)


def test_bad_nodes() -> None:
    """Nodes out of order are refused, with the usual ones named."""
    with pytest.raises(ArgumentError, match=r"\(1/3, 2/3\)"):
        DPMSolver3(nodes=(0.7, 0.3))
