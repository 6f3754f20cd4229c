"""Solvers against formulas written by hand, and against each other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import srk
from srk.integrators import DDPM, SRK1, SRK2S, WCW, TableauSolver
from srk.noise import ReplayNoise

F64 = torch.float64


def normals(n: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=F64) for _ in range(n)]


MIXTURE = srk.targets.GaussianMixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])


def test_ddpm_is_the_posterior_formula() -> None:
    """eta = 1.

    Ho et al. 2020, eq. 7 with x0 replaced by D: mean (sqrt(abar') beta D + sqrt(a)(1 - abar') x)/(1
    - abar), variance beta (1 - abar')/(1 - abar).
    """
    process = srk.VPDiscrete()
    times = [900.0, 700.0, 400.0, 100.0, 0.0]
    x = normals(1, 5, 1)[0] * 0.7
    draws = normals(4, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process, score, "ddpm", x_init=x, grid=times, noise=ReplayNoise(draws), denoise_final=False
    ).x
    for t, s, z in zip(times[:-1], times[1:], draws, strict=True):
        now, then = process.level(t), process.level(s)
        D = score.denoise(x, now, process)
        abar, abar_s = now.alpha**2, then.alpha**2
        a = abar / abar_s
        beta = 1 - a
        mean = (math.sqrt(abar_s) * beta * D + math.sqrt(a) * (1 - abar_s) * x) / (1 - abar)
        x = mean + math.sqrt(beta * (1 - abar_s) / (1 - abar)) * z
    assert torch.allclose(ours, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frame", ["data", "noise"])
def test_eta_zero_is_ddim(frame: str) -> None:
    """Song et al.

    2021: x' = alpha' D + sigma' (x - alpha D)/sigma, in the data and the noise frame alike.
    """
    process = srk.VP()
    times = [1.0, 0.7, 0.4, 0.1]
    x = normals(1, 5, 1)[0]
    score = MIXTURE.score(process)
    ours = srk.solve(
        process, score, DDPM(frame=frame), x_init=x, grid=times, eta=0.0, denoise_final=False
    ).x  # type: ignore[arg-type]
    for t, s in pairwise(times):
        now, then = process.level(t), process.level(s)
        D = score.denoise(x, now, process)
        x = then.alpha * D + then.sigma * (x - now.alpha * D) / now.sigma
    assert torch.allclose(ours, x, rtol=1e-12, atol=1e-12)


def test_score_frame_is_the_textbook_exponential_integrator() -> None:
    """In OU time: Y' = e^d Y + 2 (e^d - 1) s + sqrt(e^{2d} - 1) z."""
    process = srk.OU()
    times = [2.0, 1.5, 0.7, 0.2]
    x = normals(1, 5, 1)[0]
    draws = normals(3, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process,
        score,
        DDPM(frame="score"),
        x_init=x,
        grid=times,
        noise=ReplayNoise(draws),
        denoise_final=False,
    ).x
    for t, s, z in zip(times[:-1], times[1:], draws, strict=True):
        d = t - s
        x = math.exp(d) * x + 2 * math.expm1(d) * score(x, t) + math.sqrt(math.expm1(2 * d)) * z
    assert torch.allclose(ours, x, rtol=1e-12, atol=1e-12)


def test_euler_maruyama_is_euler_maruyama() -> None:
    """x' = x + dt (-f x + g^2 s) + g sqrt(dt) z with VP's beta: f = -beta/2, g^2 = beta."""
    process = srk.VP()
    times = [1.0, 0.8, 0.5, 0.3]
    x = normals(1, 5, 1)[0]
    draws = normals(3, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process,
        score,
        "euler-maruyama",
        x_init=x,
        grid=times,
        noise=ReplayNoise(draws),
        denoise_final=False,
    ).x
    for t, s, z in zip(times[:-1], times[1:], draws, strict=True):
        beta, dt = 0.1 + 19.9 * t, t - s
        x = x + dt * (0.5 * beta * x + beta * score(x, t)) + math.sqrt(beta * dt) * z
    assert torch.allclose(ours, x, rtol=1e-11, atol=1e-11)


def test_sra1_in_the_localization_clock() -> None:
    """A hand-written SRA1 on dZ = D dl + dB with l = (alpha/sigma)^2, Z = alpha x/sigma^2."""
    process = srk.EDM(sigma_min=0.05, sigma_max=20.0)
    times = [20.0, 5.0, 1.5, 0.4, 0.05]
    x = normals(1, 5, 1)[0] * 20
    draws = normals(8, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process,
        score,
        TableauSolver("sra1", data_variance=0.0),
        x_init=x,
        grid=times,
        noise=ReplayNoise(draws),
        denoise_final=False,
    ).x
    left = list(draws)

    def D(z: torch.Tensor, clock: float) -> torch.Tensor:
        sigma = clock**-0.5
        return score.denoise(z * sigma**2, process.level(min(max(sigma, 0.05), 20.0)), process)

    Z = x / times[0] ** 2
    for t, s in pairwise(times):
        clock, h = t**-2, s**-2 - t**-2
        W = math.sqrt(h) * left.pop(0)
        H = math.sqrt(h / 12) * left.pop(0)
        i10_over_h = W / 2 + H
        f1 = D(Z, clock)
        f2 = D(Z + 0.75 * h * f1 + 1.5 * i10_over_h, clock + 0.75 * h)
        Z = Z + h * (f1 / 3 + 2 * f2 / 3) + W
    # The first row of the draws is used for W or H in the order in which the plan first needs them:
    # stage 2 needs both, W first
    assert torch.allclose(ours, Z * 0.05**2, rtol=1e-12, atol=1e-12)


def test_srk1_without_a_gauge_is_ddpm() -> None:
    """v -> 0: the coefficients go over into those of ddpm, and v = 0 are those."""
    process, score, x = srk.VP(), MIXTURE.score(srk.VP()), normals(1, 5, 1)[0]
    runs = [
        srk.solve(process, score, solver, x_init=x, steps=8, seed=0, eta=eta).x
        for eta in (1.0, 0.5, 0.0)
        for solver in ("ddpm", SRK1(data_variance=0.0), SRK1(data_variance=1e-13))
    ]
    for ddpm, zero, tiny in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
        assert torch.allclose(ddpm, zero, rtol=1e-12, atol=1e-12)
        assert torch.allclose(ddpm, tiny, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("c", [0.25, 1 / 3])
def test_srk2s_in_its_clock(c: float) -> None:
    """X = v u/(v + s), theta = -v s/(v + s), R = ((v + s) D - v u)/(v s).

    Xc = X + c H R + J, X' = X + H R(Xc) + B, as written in the design note.
    """
    v = 0.5
    process = srk.VE(sigma_min=0.05, sigma_max=20.0)
    times = [1.0, 0.7, 0.4, 0.1]
    x = normals(1, 5, 1)[0] * 20
    draws = normals(6, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process,
        score,
        SRK2S(data_variance=v, node=c),
        x_init=x,
        grid=times,
        noise=ReplayNoise(draws),
        denoise_final=False,
    ).x
    left = list(draws)

    def R(X: torch.Tensor, theta: float) -> torch.Tensor:
        s = -theta * v / (v + theta)
        u = X * (v + s) / v
        lam = -0.5 * math.log(s)
        return ((v + s) * score.denoise(u, process.level_at(lam), process) - v * u) / (v * s)

    for t, t1 in pairwise(times):
        s0, s1 = float(process.sigma(t)) ** 2, float(process.sigma(t1)) ** 2
        theta0, theta1 = -v * s0 / (v + s0), -v * s1 / (v + s1)
        H = theta1 - theta0
        X = v * x / (v + s0)
        z = left.pop(0)
        J = 0.5 * math.sqrt(H) * z
        if c > 0.25:
            J = J + math.sqrt((c - 0.25) * H) * left.pop(0)
        Xc = X + c * H * R(X, theta0) + J
        X = X + H * R(Xc, theta0 + c * H) + math.sqrt(H) * z
        x = X * (v + s1) / v
    assert torch.allclose(ours, x, rtol=1e-10, atol=1e-10)


def test_wcw_in_ou_time() -> None:
    """The reconstructed step as its docstring writes it, with N and G drawn from their
    covariance.
    """
    process = srk.OU()
    times = [2.0, 1.4, 0.8]
    x = normals(1, 5, 1)[0]
    draws = normals(4, 5, 1)
    score = MIXTURE.score(process)
    ours = srk.solve(
        process,
        score,
        WCW(),
        x_init=x,
        grid=times,
        noise=ReplayNoise(draws[:1] + draws[1:]),
        denoise_final=False,
    ).x
    left = list(draws)
    for t, s in pairwise(times):
        d = t - s
        var_n, var_g, cov = (
            math.expm1(2 * d),
            (math.sinh(2 * d) - 2 * d) / 2,
            math.expm1(2 * d) / 2 - d,
        )
        # the plan needs G first (in the second stage), whose row is W first, then the rest
        z1, z2 = left.pop(0), left.pop(0)
        N = math.sqrt(var_n) * z1
        G = cov / math.sqrt(var_n) * z1 + math.sqrt(var_g - cov**2 / var_n) * z2
        s0 = score(x, t)
        x = math.exp(d) * x + 2 * math.sinh(d) * s0 + 2 * (score(x + G, t) - s0) + N
    assert torch.allclose(ours, x, rtol=1e-9, atol=1e-9)


def test_processes_are_one_equation() -> None:
    """The same solver on the same noise levels gives the same u = x/alpha for VP, EDM and sub-VP.

    A process is its alpha and sigma.
    """
    lams = np.linspace(-3.0, 3.0, 9)
    results = []
    for process in (srk.VP(), srk.EDM(sigma_min=0.002, sigma_max=80.0), srk.SubVP(), srk.OU()):
        start, stop = process.level_at(lams[0]), process.level_at(lams[-1])
        x = normals(1, 4, 1)[0] * (start.alpha * 20)
        grid = [process.time(float(lam)) for lam in lams]
        sol = srk.solve(
            process,
            MIXTURE.score(process),
            "srk2m",
            x_init=x,
            grid=grid,
            seed=3,
            denoise_final=False,
        )
        results.append(sol.x / stop.alpha)
    for other in results[1:]:
        assert torch.allclose(results[0], other, rtol=1e-9, atol=1e-9)
