"""Samplers between two given ends, by processes that users write: docs/bridges.md."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk

DOUBLE = torch.float64
HALF = torch.linspace(1e-4**0.5, (0.3 / 1000) ** 0.5, 1000, dtype=DOUBLE)[:500] ** 2
STD = torch.cat([HALF, HALF.flip(0)]).cumsum(0).sqrt()


@attrs.frozen
class Schedule(srk.processes.VarianceExploding):
    """sigma^power of I2SB's table; own time is the index."""

    power: int = 1
    t_min = 0.0
    t_max = 999.0

    def sigma(self, t: Any) -> Any:
        i = min(int(t), 998)
        a, b = float(STD[i]) ** 2, float(STD[i + 1]) ** 2
        return (a + (t - i) * (b - a)) ** (0.5 * self.power)


def noise(x: Tensor, std: float) -> Tensor:
    """What a network might say: nonlinear, and growing with the level."""
    return torch.tanh(x) + 0.3 * std


@pytest.mark.parametrize("ode", [False, True])
def test_the_sampler_of_i2sb_to_rounding(ode: bool) -> None:
    """Its `ddpm_sampling` transcribed: products of Gaussians, with or without noise (`ot_ode`)."""
    indices = torch.linspace(0, 999, 16).round().long().tolist()
    x1 = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    process = Schedule(2 if ode else 1)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        std = float(STD[round(float(t[0]))])
        return x - std * noise(x, std)

    sol = srk.solve(
        process,
        srk.Data(denoiser),
        "ddim" if ode else "ddpm",
        x_init=x1,
        grid=[float(i) for i in reversed(indices)],
        seed=3,
        eta=0.0 if ode else 1.0,
        denoise_final="mean",
    )
    generator = torch.Generator().manual_seed(3)
    x = x1
    for n, previous in zip(reversed(indices[1:]), reversed(indices[:-1]), strict=True):
        x0 = x - STD[n] * noise(x, float(STD[n]))
        std_previous = STD[previous]
        std_delta = (STD[n] ** 2 - std_previous**2).sqrt()
        total = std_previous**2 + std_delta**2
        x = std_delta**2 / total * x0 + std_previous**2 / total * x
        if not ode and previous > 0:
            variance = std_previous**2 * std_delta**2 / total
            x = x + variance.sqrt() * torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    assert sol.nfe == 15
    assert torch.allclose(sol.x, x, atol=1e-10, rtol=0)


@attrs.frozen
class PinnedVE(srk.LinearProcess):
    """A variance-exploding process with sigma = t, pinned at t = 1, less the pin."""

    t_min = 1e-3
    t_max = 0.999

    def alpha(self, t: Any) -> Any:
        return 1.0 - t * t

    def sigma(self, t: Any) -> Any:
        return t * (1.0 - t * t) ** 0.5


def test_a_pinned_diffusion_is_a_process_around_the_pin() -> None:
    """Moments of the bridge from the joint Gaussian of (x_t, x_T) given x_0 and x_T."""
    process = srk.Shifted(PinnedVE(), mean=2.0)
    for t in (0.1, 0.5, 0.9):
        x0, y = -0.4, 2.0
        # x_t = x0 + t e, x_T - x_t = sqrt(1 - t^2) e': condition on x_T = y
        mean = x0 + t * t * (y - x0)
        variance = t * t * (1.0 - t * t)
        level = process.level(t)
        assert y + level.alpha * (x0 - y) == pytest.approx(mean, rel=1e-13)
        assert level.sigma**2 == pytest.approx(variance, rel=1e-13)


@pytest.mark.parametrize("solver", ["srk2m", "ddpm", "heun", "dpmpp-2m-sde"])
def test_bridges_end_at_the_distribution_of_the_data(solver: str) -> None:
    process: Any = srk.Shifted(PinnedVE(), mean=2.0)
    coarse, fine = (
        srk.analysis.gaussian_distribution(solver, process, 0.5, 0.2, steps=n) for n in (16, 128)
    )
    assert fine.kl < 0.1 * coarse.kl
    assert fine.kl < 2e-3
    # From the pin itself: noise forgets what the start leaves out, the ODE keeps 2% of it
    pinned = srk.analysis.gaussian_distribution(solver, process, 0.5, 0.2, steps=128, start="prior")
    left = abs(pinned.mean[0] - pinned.target_mean[0]) / 1.5
    assert left == pytest.approx(0.02, abs=0.002) if solver == "heun" else left < 1e-3


def test_flows_between_two_data_sets_take_their_solvers_from_any_state() -> None:
    """Euler's method and Heun's, transcribed, for dx/dt = v(x, t) from given pictures."""
    flow, n = srk.Flow(t_min=0.0), 8

    def velocity(x: Tensor, t: float) -> Tensor:
        return torch.sin(3.0 * x) + t

    network = srk.FlowVelocity(lambda x, t: velocity(x, float(t[0])))
    y = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    times = [1.0 - i / n for i in range(n + 1)]
    sol = srk.solve(flow, network, "euler", x_init=y, grid=times)
    x = y
    for t, s in itertools.pairwise(times):
        x = x + (s - t) * velocity(x, t)
    assert torch.allclose(sol.x, x, atol=1e-12, rtol=0)
    sol = srk.solve(flow, srk.FlowVelocity(lambda x, t: 0.5 * x), "heun", x_init=y, steps=400)
    assert torch.allclose(sol.x, y * math.exp(-0.5), atol=1e-3)
