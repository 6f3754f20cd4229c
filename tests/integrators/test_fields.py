"""Samplers of other fields against their formulas, written out, with the same draws in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError
from srk.integrators import EDMDPM2, EDMDPMpp2S, EDMEuler, EDMHeun, Integrator
from srk.noise import ReplayNoise
from srk.scores import LowTemperature

EXACT = 1e-10
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.1, 0.3, 0.2]
)
Denoiser = Callable[[Tensor, float], Tensor]


def karras(n: int, high: float, low: float, rho: float, factor: float = 1.0) -> list[float]:
    """n levels of EDM's schedule, times `factor`, then 0."""
    a, b = high ** (1 / rho), low ** (1 / rho)
    return [factor * (a + i / (n - 1) * (b - a)) ** rho for i in range(n)] + [0.0]


def setup(sigmas: Sequence[float]) -> tuple[srk.EDM, Denoiser, Tensor, list[Tensor]]:
    """Process, denoiser, state at the start, and draws enough for one a step."""
    process = srk.EDM(sigma_min=0.0, sigma_max=sigmas[0])
    score = TARGET.score(srk.EDM(sigma_min=0.0, sigma_max=4 * sigmas[0]))

    def denoise(x: Tensor, s: float) -> Tensor:
        return x + s**2 * score(x, torch.full((len(x),), s, dtype=x.dtype))

    generator = torch.Generator().manual_seed(3)
    draws = [torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in sigmas]
    return process, denoise, draws[0] * sigmas[0], draws[1:]


def run(
    process: srk.EDM,
    solver: str | Integrator,
    sigmas: Sequence[float],
    x: Tensor,
    draws: Sequence[Tensor],
) -> Tensor:
    """The states of a run of ours, one a level."""
    sol = srk.solve(
        process,
        TARGET.score(process),
        solver,
        grid=list(sigmas),
        x_init=x,
        noise=ReplayNoise(list(draws)),
        save="x",
        denoise_final=False,
    )
    assert sol.trajectory is not None
    return sol.trajectory.values


def close(ours: Tensor, theirs: Sequence[Tensor]) -> None:
    """Equal trajectories."""
    wanted = torch.stack(list(theirs))
    assert ours.shape == wanted.shape
    for mine, other in zip(ours, wanted, strict=True):
        assert (mine - other).abs().max() <= EXACT * other.abs().max()


@pytest.mark.parametrize(
    ("solver", "gamma_0", "gamma_min", "noise_scale", "step_scale"),
    [("boltz2", 0.8, 1.0, 1.003, 1.5), ("boltz1", 0.605, 1.107, 0.901, 1.638)],
)
@pytest.mark.parametrize("rho", [7.0, 8.0])
def test_boltz(
    solver: str,
    gamma_0: float,
    gamma_min: float,
    noise_scale: float,
    step_scale: float,
    rho: float,
) -> None:
    """The sampler of AlphaFold 3: the END of a step decides on its churn, which is not cut, and the
    step scale holds for the last step too.
    """
    sigmas = karras(12, 160.0, 4e-4, rho, 16.0)
    process, denoise, x, draws = setup(sigmas)
    states, unused, used = [x], list(draws), []
    for s, s_next in pairwise(sigmas):
        gamma = gamma_0 if s_next > gamma_min else 0.0
        s_hat = s * (1 + gamma)
        x_hat = x
        if gamma > 0:
            used.append(unused.pop(0))
            x_hat = x + noise_scale * math.sqrt(s_hat**2 - s**2) * used[-1]
        d = (x_hat - denoise(x_hat, s_hat)) / s_hat
        x = x_hat + step_scale * (s_next - s_hat) * d
        states.append(x)
    assert 3 < len(used) < 12
    close(run(process, solver, sigmas, states[0], used), states)


def test_chai1() -> None:
    """EDM's Heun with S_churn = 80 by the level at the start of a step."""
    sigmas = karras(30, 160.0, 4e-4, 7.0, 16.0)
    process, denoise, x, draws = setup(sigmas)
    states, unused, used, n = [x], list(draws), [], len(sigmas) - 1
    for s, s_next in pairwise(sigmas):
        gamma = min(80 / n, math.sqrt(2) - 1) if 4e-4 <= s <= 80 else 0.0
        s_hat, x_hat = s * (1 + gamma), x
        if gamma > 0:
            used.append(unused.pop(0))
            x_hat = x + 1.003 * math.sqrt(s_hat**2 - s**2) * used[-1]
        d = (x_hat - denoise(x_hat, s_hat)) / s_hat
        x = x_hat + (s_next - s_hat) * d
        if s_next > 0:
            d2 = (x - denoise(x, s_next)) / s_next
            x = x_hat + (s_next - s_hat) * (d + d2) / 2
        states.append(x)
    close(run(process, "chai1", sigmas, states[0], used), states)


def test_gencast() -> None:
    """DPM-Solver++(2S) in data form, midpoint r = 1/2, with churn from sigma = 0.75 on."""
    sigmas = karras(20, 80.0, 0.03, 7.0)
    process, denoise, x, draws = setup(sigmas)
    states, unused, used = [x], list(draws), []
    for s, s_next in pairwise(sigmas):
        gamma = min(2.5 / 20, math.sqrt(2) - 1) if s >= 0.75 else 0.0
        s_hat, x_hat = s * (1 + gamma), x
        if gamma > 0:
            used.append(unused.pop(0))
            x_hat = x + 1.05 * math.sqrt(s_hat**2 - s**2) * used[-1]
        x = denoise(x_hat, s_hat)
        if s_next > 0:
            middle = math.sqrt(s_hat * s_next)
            x_mid = middle / s_hat * x_hat + (1 - middle / s_hat) * x
            x = s_next / s_hat * x_hat + (1 - s_next / s_hat) * denoise(x_mid, middle)
        states.append(x)
    assert 5 < len(used) < 20
    close(run(process, "gencast", sigmas, states[0], used), states)


@pytest.mark.parametrize("kind", [EDMEuler, EDMHeun, EDMDPM2, EDMDPMpp2S])
def test_general_churn(kind: type[Integrator]) -> None:
    """gamma above sqrt2 - 1, either range rule, eta and the step scale, for every method down."""
    solver = kind(gamma=1.4, s_min=0.2, s_max=6.0, range_by="stop", s_noise=0.9, step_scale=1.2)
    plain = kind(s_churn=0.0)  # type: ignore[call-arg]
    process = srk.EDM(sigma_min=0.0, sigma_max=80.0)
    score = TARGET.score(process)
    for s, s_next in ((20.0, 5.0), (0.5, 0.2), (9.0, 7.0), (0.5, 0.0)):
        gamma = 0.25 * 1.4 if 0.2 < s_next <= 6.0 else 0.0
        x, z = torch.ones(3, 2, dtype=torch.float64), torch.full((3, 2), 0.7, dtype=torch.float64)
        s_hat = s * (1 + gamma)
        x_hat = x + 0.9 * math.sqrt(s_hat**2 - s**2) * z
        down = srk.solve(
            process, score, plain, grid=[s_hat, s_next], x_init=x_hat, denoise_final=False
        ).x
        ours = srk.solve(
            process,
            score,
            solver,
            grid=[s, s_next],
            x_init=x,
            eta=0.5,
            noise=ReplayNoise([z] if gamma else []),
            denoise_final=False,
        ).x
        assert (ours - (x_hat + 1.2 * (down - x_hat))).abs().max() < EXACT


def test_churn_is_said_once() -> None:
    with pytest.raises(ArgumentError, match="give one of them"):
        EDMEuler(s_churn=10.0, gamma=0.1)
    with pytest.raises(ValueError):
        EDMEuler(range_by="middle")  # type: ignore[arg-type]


def test_consistency_multistep() -> None:
    """Algorithm 1 of the consistency models' paper: D, then sqrt(s^2 - s_min^2) new noise."""
    sigmas = [80.0, 20.0, 3.0, 0.5, 0.002]
    _, denoise, x, draws = setup(sigmas)
    process = srk.EDM(sigma_min=0.002, sigma_max=80.0)
    states = [x]
    for s, s_next, z in zip(sigmas[:-1], sigmas[1:], draws, strict=True):
        states.append(denoise(states[-1], s) + math.sqrt(s_next**2 - 0.002**2) * z)
    close(run(process, "consistency", sigmas, x, draws[:3]), states)


def test_tcd_on_continuous_time() -> None:
    """DDIM to (1 - gamma) t', then the forward process; at eta = 0 it is DDIM."""
    process = srk.VP()
    score = TARGET.score(process)
    x = torch.ones(3, 2, dtype=torch.float64)
    z = torch.full((3, 2), 0.3, dtype=torch.float64)
    a, b, c = process.level(0.9), process.level(0.4), process.level(0.7 * 0.4)
    s = score(x, torch.full((3,), 0.9, dtype=torch.float64))
    eps = -a.sigma * s
    data = (x - a.sigma * eps) / a.alpha
    mid = c.alpha * data + c.sigma * eps
    ratio = b.alpha / c.alpha
    wanted = ratio * mid + math.sqrt(b.sigma**2 - ratio**2 * c.sigma**2) * z
    options = {"grid": [0.9, 0.4], "x_init": x, "denoise_final": False}
    ours = srk.solve(process, score, "tcd", eta=0.3, noise=ReplayNoise([z]), **options).x
    assert (ours - wanted).abs().max() < EXACT
    still = srk.solve(process, score, "tcd", eta=0.0, **options).x
    ddim = srk.solve(process, score, "ddim", eta=0.0, **options).x
    assert (still - ddim).abs().max() < EXACT


def test_flow_policies_of_robots() -> None:
    """The loop of pi0 and SmolVLA in LeRobot: Euler steps of equal length on dx/dt = v."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 7, dtype=torch.float64, generator=generator) / 3
    noise = torch.randn(4, 50, 7, dtype=torch.float64, generator=generator)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x - torch.tanh(x @ matrix) * (1 + t[:, None, None])

    steps = 10
    dt = -1.0 / steps
    x = noise
    states = [x]
    for step in range(steps):
        time = torch.full((4,), 1.0 + step * dt, dtype=torch.float64)
        x = x + dt * velocity(x, time)
        states.append(x)
    sol = srk.solve(
        srk.Flow(t_min=0.0),
        srk.FlowVelocity(velocity),
        "ddim",
        eta=0.0,
        grid="uniform",
        steps=steps,
        x_init=noise,
        save="x",
        check_network=False,
    )
    assert sol.trajectory is not None
    close(sol.trajectory.values, states)


def test_corrdiff() -> None:
    """EDM's Heun without churn, 18 steps."""
    sigmas = karras(18, 800.0, 0.002, 7.0)
    process, denoise, x, _ = setup(sigmas)
    states = [x]
    for s, s_next in pairwise(sigmas):
        d = (x - denoise(x, s)) / s
        moved = x + (s_next - s) * d
        if s_next > 0:
            d = (d + (moved - denoise(moved, s_next)) / s_next) / 2
            moved = x + (s_next - s) * d
        x = moved
        states.append(x)
    close(run(process, EDMHeun(s_churn=0.0), sigmas, states[0], []), states)


@pytest.mark.parametrize("psi", [0.0, 0.7])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_diffdock(temperature: float, psi: float) -> None:
    """The translations of DiffDock: Euler-Maruyama on VE at a low temperature, in its own time,
    without noise in the last step.
    """
    process = srk.VE(0.1, 19.0)
    score = TARGET.score(process)
    data = math.exp(0.4 * math.log(19.0) + 0.6 * math.log(0.1))
    times = [process.t_max + i / 8 * (process.t_min - process.t_max) for i in range(9)]
    generator = torch.Generator().manual_seed(5)
    draws = [torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in times]
    x = draws[0] * process.level(times[0]).sigma
    states = [x]
    for i, (t, s) in enumerate(pairwise(times)):
        sigma, dt = process.level(t).sigma, t - s
        g = sigma * math.sqrt(2 * math.log(19.0 / 0.1))
        factor = (data + sigma) / (data + sigma / temperature)
        value = score(x, torch.full((4,), t, dtype=x.dtype))
        z = draws[i + 1] if i < 7 else torch.zeros_like(x)
        drift = g**2 * dt * (factor + temperature * psi / 2) * value
        x = x + drift + g * math.sqrt(dt * (1 + psi)) * z
        states.append(x)
    hook = LowTemperature(temperature, psi=psi, sigma_data=data)
    sol = srk.solve(
        process,
        TARGET.score(process),
        "euler-maruyama",
        eta=hook.eta,
        hooks=[hook],
        grid=times,
        x_init=states[0],
        noise=ReplayNoise(draws[1:8]),
        save="x",
        denoise_final="mean",
    )
    assert sol.trajectory is not None
    close(sol.trajectory.values, states)


def test_lcm() -> None:
    """D, then all noise anew: x' = alpha' D + sigma' z; the final denoising is the last call."""
    process = srk.VP()
    score = TARGET.score(process)
    times = [1.0, 0.7, 0.4, 0.1]
    generator = torch.Generator().manual_seed(6)
    draws = [torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in times]
    x = draws[0]

    def denoised(x: Tensor, t: float) -> Tensor:
        level = process.level(t)
        return (x + level.sigma**2 * score(x, torch.full((4,), t, dtype=x.dtype))) / level.alpha

    states = [x]
    for t, s, z in zip(times[:-1], times[1:], draws[1:], strict=True):
        level = process.level(s)
        states.append(level.alpha * denoised(states[-1], t) + level.sigma * z)
    sol = srk.solve(
        process, score, "lcm", grid=times, x_init=x, noise=ReplayNoise(draws[1:]), save="x"
    )
    assert sol.trajectory is not None
    close(sol.trajectory.values, states)
    assert (sol.x - denoised(states[-1], times[-1])).abs().max() < EXACT
    assert sol.nfe == 4
