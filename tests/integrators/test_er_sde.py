"""ER-SDE-Solvers.

Against the authors' equations with adaptive quadrature, their special cases, and their orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import srk
from srk.analysis import gaussian_distribution, weak_order
from srk.integrators import ERSDE1, ERSDE2, ERSDE3, Integrator
from srk.noise import NoiseSource
from srk.processes import Level

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)

Replay = Callable[[Tensor], NoiseSource]
Normal = Callable[..., Tensor]


def phi(r: float) -> float:
    return r * (math.exp(r**0.3) + 10.0)


def authors(
    order: int, process: srk.LinearProcess, times: list[float], x: Tensor, draws: Tensor
) -> Tensor:
    """The authors' vp_k_order_taylor, with quad in place of their Riemann sums of 100 points."""
    levels = [process.level(t) for t in times]
    r = [level.r for level in levels]
    old = old_slope = None
    for i, (here, there) in enumerate(itertools.pairwise(levels)):
        d = TARGET.denoise(x, here)
        q = phi(r[i + 1]) / phi(r[i])
        new = there.alpha / here.alpha * q * x + there.alpha * (1 - q) * d
        new = new + there.alpha * math.sqrt(r[i + 1] ** 2 - r[i] ** 2 * q**2) * draws[i]
        slope = None
        if order >= 2 and old is not None:
            first = quad(
                lambda s: 1.0 / phi(s), r[i + 1], r[i], epsabs=0.0, epsrel=1e-13, limit=200
            )[0]
            slope = (d - old) / (r[i] - r[i - 1])
            new = new + there.alpha * (r[i + 1] - r[i] + phi(r[i + 1]) * first) * slope
            if order >= 3 and old_slope is not None:
                second = quad(
                    lambda s, r0=r[i]: (s - r0) / phi(s),
                    r[i + 1],
                    r[i],
                    epsabs=0.0,
                    epsrel=1e-13,
                    limit=200,
                )[0]
                bend = 2.0 * (slope - old_slope) / (r[i] - r[i - 2])
                new = (
                    new + there.alpha * ((r[i + 1] - r[i]) ** 2 / 2 + phi(r[i + 1]) * second) * bend
                )
        x, old, old_slope = new, d, slope
    return x


@pytest.mark.parametrize("process", [EDM, srk.VP(t_min=1e-3)], ids=lambda p: p.name)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_against_the_equations(
    process: srk.LinearProcess, order: int, replay: Replay, normal: Normal
) -> None:
    """All orders, on EDM and VP, step by step with the same noise."""
    lam0, lam1 = process.lam(process.t_max), process.lam(process.t_min)
    times = [process.time(lam0 + (lam1 - lam0) * (i / 12) ** 0.9) for i in range(13)]
    x, draws = normal(3, 2, seed=1) * process.level(times[0]).sigma, normal(12, 3, 2, seed=2)
    ours = srk.solve(
        process,
        TARGET.score(process),
        f"er-sde-{order}",
        x_init=x,
        grid=times,
        noise=replay(draws),
        denoise_final=False,
    ).x
    assert torch.allclose(ours, authors(order, process, times, x, draws), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_with_phi_r_squared_it_is_ddpm(eta: float) -> None:
    """phi = r^2 is the reverse SDE.

    The distribution of `ddpm` at every eta; and at eta = 0 any phi is DDIM.
    """
    ours = gaussian_distribution(ERSDE1(growth=math.log), EDM, 0.3, [0.1, 1.0], steps=10, eta=eta)
    assert ours.variance == pytest.approx(
        gaussian_distribution("ddpm", EDM, 0.3, [0.1, 1.0], steps=10, eta=eta).variance, rel=1e-12
    )
    if eta == 0.0:
        assert gaussian_distribution(
            "er-sde-1", EDM, 0.3, [0.1, 1.0], steps=10, eta=0.0
        ).variance == pytest.approx(ours.variance, rel=1e-12)


@pytest.mark.parametrize(("solver", "order"), [(ERSDE1(), 1), (ERSDE2(), 2), (ERSDE3(), 2)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_orders(solver: Integrator, order: int, eta: float) -> None:
    """Weak orders 1, 2 and 2.

    The third-order method takes its slope from a one-sided difference.
    """
    assert weak_order(solver, srk.VP(), steps=(128, 256), eta=eta).slope == pytest.approx(
        order, abs=0.12
    )
    assert solver.weak_order == order


def test_a_growth_that_falls_is_refused() -> None:
    with pytest.raises(srk.errors.ArgumentError, match="must not decrease"):
        gaussian_distribution(ERSDE1(growth=lambda r: -r), EDM, steps=5)


def test_far_out() -> None:
    """The default growth does not overflow where its e^{r^0.3} would."""
    assert srk.integrators.er_sde.er_sde_5(1e12) == pytest.approx(1e12**0.3)
    assert srk.integrators.er_sde.er_sde_5(2.0) == pytest.approx(
        math.log(phi(2.0) / 2.0), rel=1e-14
    )


def test_levels_are_not_told_apart_by_scale(replay: Replay, normal: Normal) -> None:
    """The steps depend on r and alpha only: VP and EDM with the same levels give the same u."""
    vp = srk.VP()
    lams = [-4.0 + 0.5 * i for i in range(12)]
    draws = normal(11, 3, 2, seed=2)
    u = normal(3, 2, seed=1) * math.exp(4.0)
    results = []
    for process in (vp, EDM):
        levels: list[Level] = [process.level_at(lam) for lam in lams]
        x = u * levels[0].alpha
        grid = [level.t for level in levels]
        run = srk.solve(
            process,
            TARGET.score(process),
            "er-sde-3",
            x_init=x,
            grid=grid,
            noise=replay(draws),
            denoise_final=False,
        )
        results.append(run.x / levels[-1].alpha)
    assert torch.allclose(*results, rtol=1e-9, atol=1e-10)
