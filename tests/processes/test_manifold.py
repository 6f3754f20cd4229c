"""Brownian motion of angles and rotations: scores, draws, schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes import heat

TORUS = srk.targets.TorusMixture([0.3, 0.7], [[-3.0, 0.5], [1.0, 2.0]], [0.2, 0.5])
ROTATIONS = srk.targets.RotationMixture([0.4, 0.6], [[0.3, -1.0, 2.0], [1.0, 0.5, 0.0]], [0.3, 0.6])
SPACES = [
    (srk.Torus(), TORUS),
    (srk.SO3(), ROTATIONS),
    (srk.SO3(frame="space", schedule="exponential"), ROTATIONS),
]


def angle_between(x: Tensor, y: Tensor) -> Any:
    trace = torch.einsum("...ij,...ij->...", srk.SO3.matrix(x), srk.SO3.matrix(y))
    return torch.acos((0.5 * (trace - 1.0)).clamp(-1.0, 1.0)).numpy()


def cdf(variance: float) -> Any:
    """The distribution function of the angle of IGSO(3)."""
    return lambda angle: heat.rotation_cdf(
        torch.as_tensor(angle), torch.tensor(variance, dtype=torch.float64)
    ).numpy()


@pytest.mark.parametrize(("process", "target"), SPACES)
def test_the_score_is_the_gradient_of_the_density(process: Any, target: Any) -> None:
    """The derivative along each increment that `retract` makes."""
    for t in (0.0, 0.3, 1.0):
        x = target.sample(40, process, t, seed=1, dtype=torch.float64)
        dx = torch.zeros_like(x, requires_grad=True)
        (slope,) = torch.autograd.grad(
            target.log_density(process.retract(x, dx), process, t).sum(), dx
        )
        score = target.score(process)(x, t)
        assert torch.allclose(score, slope, rtol=1e-7, atol=1e-7)
        mixed = target.score(process)(x[:3], torch.tensor([t, 0.5, t], dtype=torch.float64))
        assert torch.allclose(mixed[0], score[0])


@pytest.mark.parametrize(("process", "target"), SPACES)
def test_a_network_of_the_data_gives_the_score_of_the_kernel(process: Any, target: Any) -> None:
    point = target.means[0]
    alone = type(target)([1.0], point[None], 0.0)
    network = srk.Data(lambda x, t: point.to(x).expand_as(x))
    x = target.sample(20, process, 0.5, seed=0, dtype=torch.float64)
    level = process.level(0.5)
    found = network.bind(process).score(x, level, process)
    assert torch.allclose(found, alone.score(process)(x, 0.5), rtol=1e-12)
    with pytest.raises(IncompatibleError, match=r"srk\.Score\(network\)"):
        srk.solve(process, srk.NoisePrediction(lambda x, t: x), shape=tuple(x.shape), steps=3)


def test_densities_of_targets_integrate_to_one() -> None:
    axis = torch.linspace(-math.pi, math.pi, 201, dtype=torch.float64)[:-1]
    grid = torch.cartesian_prod(axis, axis)
    total = TORUS.log_density(grid).exp().mean() * (2 * math.pi) ** 2
    assert float(total) == pytest.approx(1.0, abs=1e-10)
    uniform = srk.SO3().sample_prior((6000, 3), generator=torch.Generator().manual_seed(0))
    weights = ROTATIONS.log_density(uniform.double(), srk.SO3(), 0.9).exp()
    assert abs(float(weights.mean()) - 1.0) < 6 * float(weights.std()) / math.sqrt(len(weights))


def test_draws_of_rotations_have_their_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = srk.SO3().sample_prior((3000, 3), generator=generator, dtype=torch.float64)
    angle = uniform.norm(dim=-1).numpy()
    assert stats.kstest(angle, lambda w: (w - np.sin(w)) / np.pi).pvalue > 1e-6
    mean = srk.SO3.matrix(uniform).mean(0)  # entries have the variance 1/3
    assert float(mean.abs().max()) < 6 / math.sqrt(3 * 3000)
    process = srk.SO3()
    x0 = uniform.flip(0)
    for t in (0.0, 0.4, 1.0):
        x = process.perturb(x0, t, generator=generator)
        assert stats.kstest(angle_between(x, x0), cdf(process.sigma(t) ** 2)).pvalue > 1e-6
        axis = torch.nn.functional.normalize(process.between(x0, x), dim=-1)
        assert float(axis.mean(0).abs().max()) < 6 / math.sqrt(3 * 3000)
    times = torch.rand(3000, generator=generator, dtype=torch.float64)
    x = process.perturb(x0, times, generator=generator)
    variance = torch.tensor([process.sigma(float(t)) ** 2 for t in times], dtype=torch.float64)
    level = heat.rotation_cdf(torch.as_tensor(angle_between(x, x0)), variance)
    assert stats.kstest(level.numpy(), "uniform").pvalue > 1e-6
    twice = process.move(
        process.move(x0, torch.randn(3000, 3, generator=generator), 0.3),
        torch.randn(3000, 3, generator=generator),
        0.5,
    )
    assert stats.kstest(angle_between(twice, x0), cdf(0.8)).pvalue > 1e-6


def test_draws_of_angles_have_their_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    process = srk.Torus(period=1.0, sigma_min=0.01, sigma_max=0.5)
    uniform = process.sample_prior((3000, 1), generator=generator)
    assert stats.kstest(uniform[:, 0].numpy() + 0.5, "uniform").pvalue > 1e-6
    x = process.perturb(torch.full((3000, 1), 0.4), 0.8, generator=generator)
    assert float(x.abs().max()) <= 0.5
    s = process.sigma(0.8) ** 2 * (2 * math.pi) ** 2
    for n in (1, 2):  # the characteristic function of a wrapped normal distribution
        wave = (2 * math.pi * n * (x - 0.4)).cos().mean()
        assert abs(float(wave) - math.exp(-0.5 * n**2 * s)) < 6 / math.sqrt(3000)
    target = srk.targets.TorusMixture([1.0], [[0.4]], 0.0, period=1.0)
    density = target.log_density(x.double(), process, 0.8)
    assert float(density.exp().max()) > 1.0
    with pytest.raises(IncompatibleError, match="period"):
        TORUS.score(process)


def test_schedules_are_those_of_their_papers() -> None:
    torsion, frame = srk.Torus(), srk.SO3()
    for t in (0.0, 0.2, 0.7, 1.0):
        low, high = 0.01 * math.pi, math.pi
        sigma = low ** (1 - t) * high**t
        assert torsion.sigma(t) == pytest.approx(sigma)
        g = sigma * math.sqrt(2 * math.log(high / low))
        assert torsion.diffusion(t) == pytest.approx(g)
        sigma = math.log(t * math.exp(1.5) + (1 - t) * math.exp(0.1))
        assert frame.sigma(t) == pytest.approx(sigma)
        g = math.sqrt(2 * (math.exp(1.5) - math.exp(0.1)) * sigma / math.exp(sigma))
        assert frame.diffusion(t) == pytest.approx(g)
        assert frame.time_at(frame.sigma(t)) == pytest.approx(t, abs=1e-12)
        assert torsion.time_at(torsion.sigma(t)) == pytest.approx(t, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: srk.Torus(sigma_min=2.0, sigma_max=1.0), ArgumentError, "sigma_min < sigma_max"),
        (lambda: srk.Torus(period=0.0), ArgumentError, "period"),
        (lambda: srk.SO3(schedule="linear"), ArgumentError, "schedule"),
        (lambda: srk.SO3(frame="world"), ArgumentError, "frame"),
        (lambda: ROTATIONS.score(srk.Torus()), ArgumentTypeError, r"srk\.SO3"),
        (lambda: ROTATIONS.score(srk.VP()), ArgumentTypeError, r"srk\.SO3"),
        (lambda: srk.targets.RotationMixture([1.0], [[0.0, 1.0]], 0.1), ArgumentError, "vectors"),
        (lambda: srk.targets.TorusMixture([1.0], [[0.0]], -1.0), ArgumentError, ">= 0"),
        (
            lambda: srk.targets.TorusMixture([1.0], [[0.0]], 0.0).log_density(torch.zeros(2, 1)),
            IncompatibleError,
            "without width",
        ),
        (lambda: TORUS.log_density(torch.zeros(2, 3)), ArgumentError, "shape"),
        (lambda: TORUS.sample(2, srk.Torus()), ArgumentError, "belong together"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
