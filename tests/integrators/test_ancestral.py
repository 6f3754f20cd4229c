"""The ancestral family: DDIM's formula, what equals what, orders, the ends of the range of eta."""

from __future__ import annotations

import math

import pytest
import torch

import srk
from srk.analysis import gaussian_kl
from srk.errors import IncompatibleError
from srk.integrators import Column
from srk.plans.ancestral import ancestral_step
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
VP = srk.VP()


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_the_formula_of_the_paper(eta: float) -> None:
    """Song et al.

    2021, eq. 12 and 16, in their alpha-bar, on VP: x' = sqrt(a') D + sqrt(1 - a' - s^2) eps + s z.
    """
    process = VP
    start, stop = process.level(0.7), process.level(0.6)
    a, a1 = start.alpha**2, stop.alpha**2
    s = eta * math.sqrt((1 - a1) / (1 - a)) * math.sqrt(1 - a / a1)
    plan = plan_grid(process, srk.solvers()["ddim"], [0.7, 0.6], eta)[0]
    got = dict(plan.update)
    on_eps = math.sqrt(1 - a1 - s**2) / math.sqrt(1 - a)  # eps = (x - sqrt(a) D)/sqrt(1 - a)
    assert got[Column("x")] == pytest.approx(on_eps, rel=1e-12)
    assert got[Column("E", 0)] == pytest.approx(math.sqrt(a1) - math.sqrt(a) * on_eps, rel=1e-11)
    assert got.get(Column("z", 0), 0.0) == pytest.approx(s, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_ddpm_at_both_ends(eta: float) -> None:
    """At eta = 0 and 1 DDIM's eta is srk's."""
    for one, two in zip(
        *(plan_grid(VP, srk.solvers()[name], [1.0, 0.5, 0.1], eta) for name in ("ddim", "ddpm")),
        strict=True,
    ):
        assert dict(one.update) == pytest.approx(dict(two.update), rel=1e-12)
        assert one.slots == two.slots
        assert one.clock == two.clock


def test_ddim_and_ddpm_part_between() -> None:
    """At eta = 0.5 they are two methods whose coefficients agree to first order in the step."""
    gaps = []
    for h in (0.1, 0.05):
        start = VP.level(0.5)
        times = [0.5, VP.time(start.lam + h)]
        ddim, ddpm = (
            dict(plan_grid(VP, srk.solvers()[name], times, 0.5)[0].update)
            for name in ("ddim", "ddpm")
        )
        gaps.append(abs(ddim[Column("E", 0)] - ddpm[Column("E", 0)]))
    assert gaps[0] > 1e-6
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_from_no_signal(eta: float) -> None:
    """From alpha = 0 the noise that DDIM does not replace is carried on.

    The variance of a point mass's state is exactly sigma'^2.
    """
    plan = plan_grid(srk.Flow(), srk.solvers()["ddim"], [1.0, 0.7], eta)[0]
    got, stop = dict(plan.update), plan.stop
    assert got[Column("E", 0)] == pytest.approx(stop.alpha, rel=1e-14)
    assert got.get(Column("x"), 0.0) ** 2 + got.get(Column("z", 0), 0.0) ** 2 == pytest.approx(
        stop.sigma**2, rel=1e-14
    )


def test_ancestral_step_keeps_the_variance() -> None:
    """r_down^2 + r_up^2 = r'^2 also for steps too short and too long for a difference of
    squares.
    """
    for h in (1e-9, 0.1, 20.0):
        for eta in (0.0, 0.3, 1.0):
            H, up = ancestral_step(h, eta)
            assert math.exp(2 * (h - H)) + up**2 == pytest.approx(1.0, rel=1e-14)
            assert up == pytest.approx(eta * math.sqrt(-math.expm1(-2 * h)), rel=1e-14)
    assert ancestral_step(1.0, 2.0) == (math.inf, 1.0)


@pytest.mark.parametrize(
    ("solver", "etas", "slope"),
    [
        ("euler-ancestral", (0.0, 0.5, 1.0, 1.5), -2.0),
        ("ddim", (0.0, 0.5, 1.0), -2.0),
        ("dpm2-ancestral", (0.0, 0.5, 1.0), -4.0),
        ("dpmpp-2s-ancestral", (0.0, 0.5, 1.0), -4.0),
    ],
)
def test_weak_orders(solver: str, etas: tuple[float, ...], slope: float) -> None:
    """KL slopes, at any eta."""
    for eta in etas:
        kl = [gaussian_kl(solver, VP, variance=[0.2, 1.0], steps=n, eta=eta) for n in (128, 256)]
        assert math.log2(kl[1] / kl[0]) == pytest.approx(slope, abs=0.2), eta


@pytest.mark.parametrize(
    "solver",
    [
        "euler-ancestral",
        "dpm2-ancestral",
        "dpmpp-2s-ancestral",
        "dpmpp-2m-sde",
        "dpmpp-3m-sde-corrected",
    ],
)
def test_strong_order_one(solver: str) -> None:
    """On the path of stochastic localization (the clock that they draw on).

    1 within the error of 128 paths, neither 1/2 nor 3/2.
    """
    target = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.6, 0.5])
    order = srk.analysis.strong_order(
        solver, srk.VP(t_min=0.01), target, steps=(32, 64, 128), paths=128, reference_steps=512
    )
    assert order.slope == pytest.approx(1.0, abs=0.25)


def test_the_midpoint_stays_in_the_step() -> None:
    """At eta = 1 the midpoint of a two-stage method is the end of the step, so that the last
    step asks for nothing below t_min.
    """
    for solver in ("dpm2-ancestral", "dpmpp-2s-ancestral"):
        plans = plan_grid(VP, srk.solvers()[solver], [1.0, 0.5, VP.t_min], 1.0)
        assert all(plan.stages[1].level == plan.stop for plan in plans)
        with pytest.raises(
            IncompatibleError, match=r"0 <= eta <= 1 only, not eta = 1\.5; use eta=1"
        ):
            srk.solvers()[solver].check(VP, 1.5)


def test_one_draw_a_step() -> None:
    """Each step draws one Gaussian, and none at eta = 0."""
    for solver in ("euler-ancestral", "ddim", "dpm2-ancestral", "dpmpp-2s-ancestral"):
        for eta, draws in ((0.0, 0), (1.0, 1)):
            plans = plan_grid(VP, srk.solvers()[solver], [1.0, 0.5, 0.1], eta)
            assert [len(plan.slots) for plan in plans] == [draws, draws]


def test_a_point_mass_is_reached_exactly() -> None:
    """For data at one point D is constant and every method of the family is exact in distribution.

    All samples end at it.
    """
    target = srk.targets.Gaussian(0.7, 1e-12)
    process = srk.EDM(sigma_min=0.0)
    for solver in ("euler-ancestral", "ddim", "dpm2-ancestral", "dpmpp-2s-ancestral"):
        x = srk.solve(
            process,
            target.score(process),
            solver,
            shape=(16, 1),
            steps=6,
            seed=0,
            dtype=torch.float64,
        ).x
        assert torch.allclose(x, torch.full_like(x, 0.7), atol=1e-5)
