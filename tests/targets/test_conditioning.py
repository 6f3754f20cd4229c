"""Exact posteriors and tilts, against numerical integration on a grid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError
from srk.posterior import Linear, Measurement
from srk.targets import Gaussian, GaussianMixture

MIXTURE = GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.2], [0.8, -0.4], [0.1, 1.2]], [[0.3, 0.4], [0.5, 0.2], [0.25, 0.25]]
)
FULL = GaussianMixture(
    [0.4, 0.6],
    [[-0.5, 0.3], [0.6, 0.0]],
    covariances=[[[0.3, 0.2], [0.2, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]],
)
GAUSSIAN = Gaussian([0.3, -0.2], [[0.5, 0.3], [0.3, 0.4]])
A = torch.tensor([[1.0, 0.7]], dtype=torch.float64)
MEASUREMENT = Measurement(Linear(A), torch.tensor([0.4]), 0.5)
B = torch.tensor([1.0, -0.5], dtype=torch.float64)
C = torch.tensor([[0.4, 0.1], [0.1, -0.3]], dtype=torch.float64)

AXIS = torch.linspace(-6.0, 6.0, 601, dtype=torch.float64)
GRID = torch.cartesian_prod(AXIS, AXIS)
CELL = float(AXIS[1] - AXIS[0]) ** 2


def integrals(log_density: Tensor) -> tuple[float, Tensor, Tensor]:
    """Mass, mean and covariance of a density on the grid; exponentially exact for Gaussians."""
    weights = log_density.exp() * CELL
    mass = weights.sum()
    mean = weights @ GRID / mass
    centred = GRID - mean
    return float(mass), mean, (weights[:, None] * centred).mT @ centred / mass


@pytest.mark.parametrize("target", [MIXTURE, FULL, GAUSSIAN])
def test_the_posterior_is_prior_times_likelihood(target: GaussianMixture | Gaussian) -> None:
    likelihood = MEASUREMENT.log_likelihood(GRID)
    joint = target.log_density(GRID) + likelihood
    mass, mean, covariance = integrals(joint)
    posterior = target.posterior(MEASUREMENT)
    got = posterior.moments()
    torch.testing.assert_close(got[0], mean, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(got[1], covariance, rtol=0.0, atol=1e-8)
    assert abs(target.log_evidence(MEASUREMENT) - math.log(mass)) < 1e-8
    wanted = joint - target.log_evidence(MEASUREMENT)
    torch.testing.assert_close(posterior.log_density(GRID), wanted, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("target", [MIXTURE, FULL, GAUSSIAN])
def test_a_tilt_is_prior_times_the_exponential(target: GaussianMixture | Gaussian) -> None:
    exponent = GRID @ B - 0.5 * ((GRID @ C) * GRID).sum(1)
    joint = target.log_density(GRID) + exponent
    mass, mean, covariance = integrals(joint)
    tilted = target.tilted(B, C)
    got = tilted.moments()
    torch.testing.assert_close(got[0], mean, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(got[1], covariance, rtol=0.0, atol=1e-8)
    assert abs(target.log_tilt(B, C) - math.log(mass)) < 1e-8
    wanted = joint - target.log_tilt(B, C)
    torch.testing.assert_close(tilted.log_density(GRID), wanted, rtol=1e-8, atol=1e-7)


def test_a_measurement_is_a_tilt() -> None:
    precision = A.mT @ A / 0.25
    tilted = FULL.tilted((A.mT @ torch.tensor([0.4], dtype=torch.float64)) / 0.25, precision)
    posterior = FULL.posterior(MEASUREMENT)
    torch.testing.assert_close(tilted.weights, posterior.weights)
    torch.testing.assert_close(tilted.means, posterior.means)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_scores_of_full_covariances(t: float) -> None:
    """score and denoiser at a level: the gradient of the log-density, and Tweedie's formula."""
    process = srk.VP()
    x = FULL.sample(20, process, t, seed=1, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(FULL.log_density(x, process, t).sum(), x)
    level = process.level(t)
    torch.testing.assert_close(FULL.score_at(x, level), gradient, rtol=1e-9, atol=1e-9)
    denoised = (x + level.sigma**2 * gradient) / level.alpha
    torch.testing.assert_close(FULL.denoise(x, level), denoised, rtol=1e-8, atol=1e-8)


def test_full_and_diagonal_covariances_agree() -> None:
    stds = MIXTURE.stds
    same = GaussianMixture(
        MIXTURE.weights, MIXTURE.means, covariances=torch.diag_embed(stds.square())
    )
    x = MIXTURE.sample(10, seed=0, dtype=torch.float64)
    torch.testing.assert_close(same.log_density(x), MIXTURE.log_density(x))


def test_samples_of_full_covariances() -> None:
    n = 200_000
    x = FULL.sample(n, seed=0, dtype=torch.float64)
    mean, covariance = FULL.moments()
    assert bool(((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / n).sqrt()).all())
    torch.testing.assert_close(torch.cov(x.mT), covariance, rtol=0.0, atol=0.01)


def test_images_keep_their_shape() -> None:
    prior = Gaussian(0.0, 1.0, event_shape=(1, 2, 2))
    measurement = Measurement(srk.posterior.downsample(2), torch.ones(1, 1, 1), 0.1)
    posterior = prior.posterior(measurement)
    assert posterior.event_shape == (1, 2, 2)
    assert posterior.mean.shape == (1, 2, 2)
    torch.testing.assert_close(
        posterior.mean, torch.full((1, 2, 2), 0.25 / (0.25 + 0.01), dtype=torch.float64)
    )


def test_a_measurement_without_noise() -> None:
    """Certain directions have variance 0: no density of the data, but a score at every level."""
    measurement = Measurement(Linear(A), torch.tensor([0.4]), 0.0)
    posterior = FULL.posterior(measurement)
    x = posterior.sample(50, seed=0, dtype=torch.float64)
    torch.testing.assert_close(x @ A.mT, torch.full((50, 1), 0.4).double(), rtol=0.0, atol=1e-6)
    sol = srk.solve(srk.VP(), posterior.score(srk.VP()), "srk2m", shape=200, steps=40, seed=0)
    assert float((sol.x.double() @ A.mT - 0.4).abs().max()) < 0.05


def test_what_targets_refuse() -> None:
    with pytest.raises(ArgumentError, match="no integral"):
        MIXTURE.tilted(0.0, -20.0)
    with pytest.raises(ArgumentError, match="symmetric"):
        MIXTURE.tilted(0.0, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ArgumentError, match="one of them"):
        GaussianMixture([1.0], [[0.0, 0.0]])
    with pytest.raises(ArgumentError, match="negative variance"):
        GaussianMixture([1.0], [[0.0, 0.0]], covariances=[[[1.0, 2.0], [2.0, 1.0]]])
