"""The linear multistep method."""

from __future__ import annotations

import math

import pytest

import srk
from srk.analysis import gaussian_kl
from srk.integrators import LMS, Column
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)


@pytest.mark.parametrize(("order", "slope"), [(1, -2.0), (2, -4.0), (3, -6.0), (4, -7.5)])
def test_orders_from_pure_noise(order: int, slope: float) -> None:
    """From sigma = 80, where the first steps have next to no error, KL falls as steps^-2p at
    order p.
    """
    kl = [gaussian_kl(LMS(order=order), EDM, steps=n) for n in (192, 384)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(slope, abs=0.2)


def test_start_up_limits_the_order() -> None:
    """From sigma = 3 the first, Euler, step shows and the order is 2, which is what `weak_order`
    declares.
    """
    kl = [gaussian_kl("lms", srk.EDM(sigma_min=0.01, sigma_max=3.0), steps=n) for n in (256, 512)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-4.0, abs=0.2)
    assert LMS().weak_order == 2.0
    assert LMS(order=1).weak_order == 1.0


@pytest.mark.parametrize("stop", [0.3, 0.0])
def test_cubic_slopes_are_integrated_exactly(stop: float) -> None:
    """Four slopes d = r^k, k <= 3, add int r^k dr; also on the step to sigma = 0."""
    nodes = [2.0, 1.5, 0.9, 0.7]
    plan = plan_grid(srk.EDM(sigma_min=0.0), srk.solvers()["lms"], [*nodes, stop])[-1]
    row = dict(plan.update)
    assert len(plan.keep) == 3
    newest = -row[Column("E", 0)] * nodes[-1]  # d = (u - D)/r
    weights = [row[Column("m", i)] for i in range(3)]
    for k in range(4):
        got = newest * nodes[-1] ** k + sum(
            w * r**k for w, r in zip(weights, nodes[-2::-1], strict=True)
        )
        assert got == pytest.approx((stop ** (k + 1) - nodes[-1] ** (k + 1)) / (k + 1), rel=1e-12)
