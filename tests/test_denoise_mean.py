"""denoise_final="mean": the last step without its noise."""

from __future__ import annotations

import math

import pytest
import torch

import srk
from srk.analysis import gaussian_distribution
from srk.errors import IncompatibleError

VP = srk.VP()
TARGET = srk.targets.Gaussian(0.5, 0.3)
RUN = {"shape": (3, 1), "seed": 0, "dtype": torch.float64}


def test_the_last_step_of_euler_maruyama_written_out() -> None:
    """x' = x + dt (-f x + g^2 s): the states before it are those of a run with noise."""
    score, times = TARGET.score(VP), [1.0, 0.6, 0.3, 0.1]
    run = {"grid": times, "save": "x", **RUN}
    noisy = srk.solve(VP, score, "euler-maruyama", denoise_final=False, **run)
    mean = srk.solve(VP, score, "euler-maruyama", denoise_final="mean", **run)
    assert noisy.trajectory is not None and mean.trajectory is not None
    assert torch.equal(mean.trajectory.values[:-1], noisy.trajectory.values[:-1])
    x, t, dt = mean.trajectory.values[-2], 0.3, 0.2
    s = score(x, torch.full((3,), t, dtype=x.dtype))
    f, g = VP.log_alpha_rate(t), VP.diffusion(t)
    assert torch.allclose(mean.x, x + dt * (-f * x + g**2 * s), rtol=1e-12)
    assert mean.nfe == noisy.nfe == 3
    assert not torch.equal(mean.x, noisy.x)


def test_the_exact_distribution_lacks_the_noise_of_the_last_step() -> None:
    """For ddpm that noise has the standard deviation sigma' sqrt(1 - e^{-2h})."""
    times = [1.0, 0.6, 0.3, 0.1]
    noisy = gaussian_distribution("ddpm", VP, 0.5, 0.3, grid=times)
    mean = gaussian_distribution("ddpm", VP, 0.5, 0.3, grid=times, denoise_final="mean")
    h = VP.level(0.1).lam - VP.level(0.3).lam
    noise = VP.level(0.1).sigma ** 2 * -math.expm1(-2.0 * h)
    assert noisy.variance[0] - mean.variance[0] == pytest.approx(noise, rel=1e-10)


def test_solvers_without_noise_and_other_processes() -> None:
    """An ODE is as it was; a sampler gives the same twice; adaptive steps are refused."""
    score = TARGET.score(VP)
    still, plain = (
        srk.solve(VP, score, "dpmpp-2m", steps=4, denoise_final=end, **RUN).x
        for end in ("mean", False)
    )
    assert torch.equal(still, plain)
    sampler = srk.Sampler(VP, score, "srk2m", steps=4, denoise_final="mean")
    assert sampler.plans()[-1] is sampler.plans()[-1]
    assert torch.equal(sampler(**RUN).x, sampler(**RUN).x)
    with pytest.raises(IncompatibleError, match="fixed grid"):
        srk.solve(VP, score, "sra1", grid="adaptive", denoise_final="mean", **RUN)
