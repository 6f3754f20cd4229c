"""The Gaussian target: closed form against matrix algebra written out."""

from __future__ import annotations

import pytest
import torch

from srk.errors import ArgumentError, IncompatibleError
from srk.processes import EDM, VP, Flow
from srk.targets import Gaussian

FULL = torch.tensor([[1.0, 0.6, 0.1], [0.6, 2.0, -0.3], [0.1, -0.3, 0.5]], dtype=torch.float64)
TARGETS = [
    Gaussian(0.7, 0.3),
    Gaussian(0.7, 0.3, event_shape=(2, 2)),
    Gaussian([1.0, -1.0, 0.0], [0.5, 1e-4, 3.0]),
    Gaussian(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.1, 0.2], [0.3, 0.4]])),
    Gaussian([1.0, -1.0, 0.5], FULL),
    Gaussian(torch.ones(3, 1), FULL),
]
IDS = ["isotropic", "isotropic 2x2", "diagonal", "diagonal 2x2", "full", "full 3x1"]


def dense(target):
    """Mean and covariance as a vector and a matrix."""
    mean, covariance = target.moments()
    d = target.dimension
    if covariance.ndim == 0:
        covariance = covariance * torch.eye(d, dtype=torch.float64)
    elif covariance.shape == mean.shape:
        covariance = torch.diag(covariance.flatten())
    return mean.flatten(), covariance


@pytest.mark.parametrize("target", TARGETS, ids=IDS)
@pytest.mark.parametrize("t", [1e-3, 0.4, 1.0])
def test_denoiser_score_and_density_are_those_of_the_dense_formulas(target, t):
    process = VP()
    level = process.level(t)
    x = target.sample(6, process, t, seed=0, dtype=torch.float64)
    mean, covariance = dense(target)
    total = level.alpha**2 * covariance + level.sigma**2 * torch.eye(
        target.dimension, dtype=torch.float64
    )
    z = torch.linalg.solve(total, (x.flatten(1) - level.alpha * mean).T).T
    assert torch.allclose(
        target.denoise(x, level).flatten(1),
        mean + level.alpha * z @ covariance,
        rtol=1e-10,
        atol=1e-12,
    )
    assert torch.allclose(target.score_at(x, level).flatten(1), -z, rtol=1e-9, atol=1e-9)
    law = torch.distributions.MultivariateNormal(level.alpha * mean, total)
    assert torch.allclose(target.log_density(x, process, t), law.log_prob(x.flatten(1)), rtol=1e-10)


@pytest.mark.parametrize("target", TARGETS, ids=IDS)
def test_score_is_the_gradient_of_the_log_density(target):
    process = VP()
    x = target.sample(5, process, 0.3, seed=1, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x, process, 0.3).sum(), x)
    assert torch.allclose(target.score_at(x, process.level(0.3)), gradient, rtol=1e-10)


@pytest.mark.parametrize("target", TARGETS, ids=IDS)
def test_samples_have_the_moments(target):
    n, process, t = 40_000, VP(), 0.2
    for arguments in [(), (process, t)]:
        x = target.sample(n, *arguments, seed=2, dtype=torch.float64).flatten(1)
        mean, covariance = (m.flatten() for m in target.moments(*arguments))
        spread = x.var(0)
        assert ((x.mean(0) - mean).abs() < 5 * (spread / n).sqrt()).all()
        full = torch.cov(x.T).reshape(-1)
        if covariance.numel() == x.shape[1] ** 2 and covariance.numel() > 1:
            scale = torch.outer(spread, spread).sqrt().flatten()
            assert (
                (full - covariance).abs() < 7 * scale / n**0.5
            ).all()  # a covariance has standard error <= sqrt(2) scale/sqrt(n)
        else:
            assert ((spread / covariance - 1).abs() < 5 * (2 / n) ** 0.5).all()


def test_the_score_does_not_cancel_at_small_noise():
    """Through the denoiser the float32 error would be eps |x|/sigma^2 = 10."""
    target = Gaussian(1.0, 1.0)
    x = target.sample(50, seed=3)
    level = EDM(sigma_min=1e-5).level(1e-4)
    assert (target.score_at(x, level) - (1.0 - x)).abs().max() < 1e-6


def test_at_both_ends_the_denoiser_is_the_mean_and_the_state():
    target, x = Gaussian([1.0, -1.0, 0.5], FULL), torch.randn(4, 3)
    assert torch.allclose(
        target.denoise(x, Flow().level(1.0)), torch.tensor([1.0, -1.0, 0.5]).expand(4, 3)
    )
    assert torch.allclose(target.denoise(x, Flow(t_min=0.0).level(0.0)), x, atol=1e-6)


def test_a_singular_covariance_denoises_but_has_no_density_without_noise():
    target = Gaussian([0.0, 1.0], [[1.0, 1.0], [1.0, 1.0]])
    x = target.sample(5, seed=0, dtype=torch.float64)
    assert torch.allclose(target.denoise(x, Flow(t_min=0.0).level(0.0)), x, atol=1e-7)
    with pytest.raises(IncompatibleError, match="no density"):
        target.log_density(x)
    assert torch.equal(
        Gaussian(2.0, 0.0).denoise(torch.ones(1, 1), Flow(t_min=0.0).level(0.0)),
        torch.full((1, 1), 2.0),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0], [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (([0.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]), "negative variance"),
        ((0.0, -1.0), "negative variance"),
        (([0.0, 1.0], [1.0, 1.0, 1.0]), r"shape \(3,\).*\(2, 2\)"),
        ((float("nan"), 1.0), "finite"),
    ],
)
def test_impossible_parameters_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Gaussian(*arguments)


def test_an_event_shape_that_contradicts_the_mean_is_refused():
    with pytest.raises(ArgumentError, match="leave it out"):
        Gaussian([0.0, 1.0], 1.0, event_shape=(3,))
