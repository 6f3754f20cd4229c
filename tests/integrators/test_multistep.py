"""dpmpp-2m-sde, dpmpp-3m-sde and their ODE forms.

Exact distributions, orders, what their polynomials integrate, start-up.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

import srk
from srk.analysis import gaussian_distribution, gaussian_kl
from srk.integrators import Column, DPMpp2M, DPMpp2MSDE, DPMpp3MSDE, DPMpp3MSDECorrected, Integrator
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
LATE = srk.EDM(
    sigma_min=0.01, sigma_max=3.0
)  # starts where the noise is no larger than a few standard deviations of the data


@pytest.mark.parametrize(
    ("solver", "nfe", "kl"),
    [
        (DPMpp2MSDE(), 24, 4.29e-4),
        (DPMpp2MSDE(), 48, 3.25e-5),
        (DPMpp2MSDE(variant="heun"), 24, 2.65e-3),
        (DPMpp2MSDE(variant="heun"), 48, 1.54e-4),
        (DPMpp3MSDE(), 24, 4.43e-4),
        (DPMpp3MSDE(), 48, 1.86e-5),
    ],
)
def test_oracles(solver: Integrator, nfe: int, kl: float) -> None:
    """Target N(0, 1), sigma from 80 to 0.01, log-SNR grid, eta = 1.

    Values of an independent implementation, to 1%.
    """
    assert gaussian_kl(solver, EDM, nfe=nfe) == pytest.approx(kl, rel=0.01)


@pytest.mark.parametrize(
    ("solver", "values"),
    [("dpmpp-2m-sde", (1.4e-2, 5.5e-4, 3.6e-5)), ("dpmpp-3m-sde", (2.8e-2, 3.3e-4, 1.8e-5))],
)
def test_second_suite(solver: str, values: tuple[float, ...]) -> None:
    """VP, 16-D Gaussian with eigenvalues logspace(-2, 0.5) and mean 1, NFE 20, 50, 100.

    Two digits each.
    """
    for nfe, kl in zip((20, 50, 100), values, strict=True):
        assert gaussian_kl(
            solver, srk.VP(), variance=np.logspace(-2, 0.5, 16), mean=1.0, nfe=nfe
        ) == pytest.approx(kl, rel=0.05)


@pytest.mark.parametrize(
    "solver", [DPMpp2MSDE(), DPMpp2MSDE(variant="heun"), DPMpp3MSDE(), DPMpp3MSDECorrected()]
)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_weak_order_two(solver: Integrator, eta: float) -> None:
    """KL falls as steps^-4, start-up included."""
    kl = [gaussian_kl(solver, LATE, variance=[0.2, 1.0], steps=n, eta=eta) for n in (192, 384)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-4.0, abs=0.15)


@pytest.mark.parametrize("solver", ["dpmpp-2m", DPMpp2M(variant="heun"), "dpmpp-3m"])
def test_order_two_of_the_ode(solver: str | Integrator) -> None:
    """The ODE methods, dpmpp-3m with its half term included, are of order 2: KL slope -4."""
    kl = [gaussian_kl(solver, EDM, steps=n) for n in (192, 384)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-4.0, abs=0.1)


def test_the_corrected_term_gives_a_higher_order_to_the_ode() -> None:
    """With the whole quadratic the KL slope at eta = 0 is at least -6 from pure noise, where the
    start-up does not show.
    """
    kl = [gaussian_kl("dpmpp-3m-sde-corrected", EDM, steps=n, eta=0.0) for n in (48, 96)]
    assert math.log2(kl[1] / kl[0]) < -5.9


def _last_step(solver: Integrator, eta: float, lams: list[float]) -> dict[Column, float]:
    plan = plan_grid(srk.EDM(), solver, [math.exp(-lam) for lam in lams], eta)[-1]
    return dict(plan.update)


@pytest.mark.parametrize(
    ("solver", "degree", "factor"),
    [
        (DPMpp2MSDE(variant="heun"), 1, 1.0),
        (DPMpp3MSDECorrected(), 1, 1.0),
        (DPMpp3MSDECorrected(), 2, 1.0),
        (DPMpp3MSDE(), 1, 1.0),
        (DPMpp3MSDE(), 2, 0.5),
    ],
)
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_polynomials_in_the_half_log_snr(
    solver: Integrator, degree: int, factor: float, eta: float
) -> None:
    """What a step adds for D = (lam - lam_0)^k, k the degree, is its exact integral; the shipped 3M
    gets half of the curvature's.

    The three points of the interpolation are lam_0 = 0 and two before it, at uneven distances, so D
    there is not zero.
    """
    lams = [-0.75, -0.2, 0.0, 0.5]
    coefficients = _last_step(solver, eta, lams)
    columns = [Column("E", 0), Column("m", 0), Column("m", 1)]
    got = sum(
        coefficients.get(c, 0.0) * lam**degree
        for c, lam in zip(columns, [0.0, -0.2, -0.75], strict=True)
    )
    a, h = 1.0 + eta**2, 0.5
    exact = quad(
        lambda lam: a * math.exp(-a * (h - lam)) * lam**degree, 0.0, h, epsabs=1e-14, epsrel=1e-14
    )[0]
    if (
        degree == 2
    ):  # the half concerns only the term t^2 of Newton's polynomial, which here is all of D
        exact *= factor
    assert got == pytest.approx(exact, rel=1e-12)
    assert sum(coefficients.get(c, 0.0) for c in columns) == pytest.approx(
        -math.expm1(-a * h), rel=1e-13
    )


@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_midpoint_and_heun_differ_as_they_should(variant: str) -> None:
    """The weight of D - D1 on a uniform grid: half of 1 - e^{-ah}, or 1 - (1 - e^{-ah})/(ah)."""
    h = 0.3
    coefficients = _last_step(DPMpp2MSDE(variant=variant), 1.0, [0.0, h, 2 * h])
    p = -math.expm1(-2 * h)
    assert -coefficients[Column("m", 0)] == pytest.approx(
        0.5 * p if variant == "midpoint" else 1 - p / (2 * h), rel=1e-13
    )


def test_the_first_step_is_ddpm() -> None:
    """Nothing is remembered yet."""
    times = [80.0, 20.0]
    for solver in ("dpmpp-2m-sde", "dpmpp-3m-sde", "dpmpp-3m-sde-corrected"):
        ours, ddpm = (
            plan_grid(EDM, srk.solvers()[name], times)[0].update for name in (solver, "ddpm")
        )
        assert dict(ours) == pytest.approx(dict(ddpm), rel=1e-14)


def test_a_step_from_no_signal_is_not_remembered() -> None:
    """Cosine and flow start at alpha = 0, where half log-SNR differences are infinite.

    The next step starts anew.
    """
    plans = plan_grid(
        srk.Flow(t_min=0.0), srk.solvers()["dpmpp-3m-sde"], [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    )
    assert [len(plan.keep) for plan in plans] == [0, 1, 2, 2, 0]
    assert all(math.isfinite(value) for plan in plans for _, value in plan.update)


def test_ode_forms_are_the_sde_forms_at_eta_0() -> None:
    """dpmpp-2m and dpmpp-3m are their namesakes at eta = 0."""
    for ode, sde in (("dpmpp-2m", "dpmpp-2m-sde"), ("dpmpp-3m", "dpmpp-3m-sde")):
        a = gaussian_distribution(ode, EDM, 0.3, 0.5, steps=12)
        b = gaussian_distribution(sde, EDM, 0.3, 0.5, steps=12, eta=0.0)
        assert (a.mean, a.variance) == (b.mean, b.variance)


def test_short_steps_lose_no_digits() -> None:
    """1,000 steps.

    KL continues its distribution C/N^4 (1e-12 here), which a cancelling weight would break.
    """
    for solver in (DPMpp2MSDE(variant="heun"), DPMpp3MSDE()):
        kl = [gaussian_kl(solver, LATE, steps=n) * n**4 for n in (500, 1000)]
        assert kl[1] == pytest.approx(kl[0], rel=0.02)


def test_unknown_variant() -> None:
    """The variant is one of two."""
    with pytest.raises(ValueError, match="midpoint"):
        DPMpp2MSDE(variant="trapezoid")  # type: ignore[arg-type]


def test_options_make_another_plan() -> None:
    """Two variants on one process and grid are two methods, also where plans are remembered."""
    times = [3.0, 1.0, 0.3]
    midpoint, heun = (
        plan_grid(EDM, DPMpp2MSDE(variant=v), times)[1].update for v in ("midpoint", "heun")
    )
    assert midpoint != heun
