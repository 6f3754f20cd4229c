"""The mixture target against quadrature and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from srk.errors import ArgumentError, IncompatibleError
from srk.processes import EDM, VP, Flow, Level
from srk.targets import Gaussian, GaussianMixture, mixture

WEIGHTS, MEANS, STDS = [0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2]
ONE = GaussianMixture(WEIGHTS, MEANS, STDS)


def some_mixture(d, diagonal, k=4):
    generator = torch.Generator().manual_seed(d)
    weights = torch.rand(k, generator=generator) + 0.1
    means = torch.randn(k, d, generator=generator, dtype=torch.float64)
    stds = 0.1 + torch.rand((k, d) if diagonal else (k,), generator=generator, dtype=torch.float64)
    return GaussianMixture(weights, means, stds)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_denoiser_and_density_are_the_integrals_over_the_data(alpha, sigma):
    level = Level(0.5, alpha, sigma, math.log(alpha / sigma))
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None] * (alpha + sigma)
    y = np.linspace(
        -8.0, 8.0, 64_001
    )  # the trapezoidal rule is exact to rounding for smooth functions that vanish at the ends
    prior = sum(
        w * stats.norm.pdf(y, m[0], s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
    )
    log_likelihood = stats.norm.logpdf(x.numpy(), alpha * y, sigma)
    top = log_likelihood.max(1, keepdims=True)
    joint = np.exp(log_likelihood - top) * prior
    evidence = joint.sum(1)
    assert np.allclose(
        ONE.denoise(x, level)[:, 0], (joint * y).sum(1) / evidence, rtol=1e-9, atol=1e-12
    )

    class Fixed(EDM):
        def level(self, t):
            return level

    density = np.log(evidence * (y[1] - y[0])) + top[:, 0]
    assert np.allclose(ONE.log_density(x, Fixed(), 1.0), density, rtol=1e-9)


@pytest.mark.parametrize(
    "target",
    [ONE, some_mixture(3, False), some_mixture(5, True)],
    ids=["1-D", "isotropic", "diagonal"],
)
@pytest.mark.parametrize("t", [1e-4, 0.1, 1.0])
def test_score_is_the_gradient_of_the_log_density(target, t):
    process = VP(t_min=0.0)
    x = target.sample(20, process, t, seed=0, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x, process, t).sum(), x)
    level = process.level(t)
    assert torch.allclose(target.score_at(x, level), gradient, rtol=1e-9, atol=1e-9)
    assert torch.allclose(
        target.denoise(x, level),
        (x + level.sigma**2 * gradient) / level.alpha,
        rtol=1e-9,
        atol=1e-9,
    )


def test_one_component_is_the_gaussian():
    x = torch.randn(7, 3, dtype=torch.float64)
    one, gaussian = (
        GaussianMixture([1.0], [[1.0, 2.0, 3.0]], [[0.1, 0.2, 0.3]]),
        Gaussian([1.0, 2.0, 3.0], [0.01, 0.04, 0.09]),
    )
    assert torch.allclose(one.denoise(x, VP().level(0.3)), gaussian.denoise(x, VP().level(0.3)))
    assert torch.allclose(one.log_density(x), gaussian.log_density(x))


@pytest.mark.parametrize("target", [ONE, some_mixture(8, True)], ids=["1-D", "8-D"])
@pytest.mark.parametrize("r", [1e-6, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("alpha", [1.0, 1e-3])
def test_float32_agrees_with_float64_at_any_noise(target, r, alpha):
    level = Level(0.5, alpha, alpha * r, -math.log(r))
    x = target.sample(200, seed=1, dtype=torch.float64)
    x = (alpha * (x + r * torch.randn_like(x))).float()
    exact, single = target.denoise(x.double(), level), target.denoise(x, level)
    assert single.isfinite().all()
    assert single.dtype == torch.float32
    # In float32 an exponent of size e is wrong by e 2^-24; these are below 100. The spread of the
    # means is about 3.
    assert (single - exact).abs().max() < 1e-4


@pytest.mark.parametrize("target", [ONE, some_mixture(8, True)], ids=["1-D", "8-D"])
def test_at_both_ends_the_denoiser_is_the_mean_and_the_state(target):
    x = target.sample(20, seed=1, dtype=torch.float64)
    mean = target.weights @ target.means
    assert torch.allclose(target.denoise(x, Flow().level(1.0)), mean.expand_as(x))
    assert torch.allclose(target.denoise(x, Flow(t_min=0.0).level(0.0)), x)
    far = Level(1.0, 1.0, 1e8, -math.log(1e8))
    assert (target.denoise(1e8 * torch.randn_like(x), far) - mean).abs().max() < 1e-6


def test_large_batches_are_computed_in_pieces_with_the_same_result(monkeypatch):
    x = ONE.sample(1000, seed=2, dtype=torch.float64)
    whole = [ONE.denoise(x, VP().level(0.2)), ONE.score_at(x, VP().level(0.2)), ONE.log_density(x)]
    monkeypatch.setattr(mixture, "ELEMENTS", 100)
    pieces = [ONE.denoise(x, VP().level(0.2)), ONE.score_at(x, VP().level(0.2)), ONE.log_density(x)]
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))
    assert ONE.denoise(x[:0], VP().level(0.2)).shape == (0, 1)


@pytest.mark.parametrize("arguments", [(), (VP(), 0.3), (EDM(), 50.0)], ids=["data", "VP", "EDM"])
def test_the_quantile_inverts_the_cdf_and_the_cdf_integrates_the_density(arguments):
    q = torch.tensor([1e-300, 1e-10, 0.01, 0.3, 0.5, 0.8, 0.99, 1 - 1e-10], dtype=torch.float64)
    x = ONE.quantile(q, *arguments)
    assert torch.allclose(
        ONE.cdf(x, *arguments), q, rtol=1e-11, atol=0
    )  # condition number 2e3 at 1e-300
    points = x[2:-1].clone()
    h = 1e-4
    slope = (ONE.cdf(points + h, *arguments) - ONE.cdf(points - h, *arguments)) / (2 * h)
    assert torch.allclose(slope, ONE.log_density(points[:, None], *arguments).exp(), rtol=1e-4)
    assert ONE.quantile([0.0, 1.0], *arguments).tolist() == [-math.inf, math.inf]
    assert ONE.quantile(torch.full((2, 3), 0.5)).shape == (2, 3)


@pytest.mark.parametrize("arguments", [(), (VP(), 0.3)], ids=["data", "VP"])
def test_samples_have_the_law_of_the_cdf(arguments):
    x = ONE.sample(50_000, *arguments, seed=5, dtype=torch.float64)[:, 0]
    assert stats.kstest(x.numpy(), lambda x: ONE.cdf(x, *arguments).numpy()).pvalue > 1e-3


def test_samples_of_a_mixture_in_many_dimensions_have_its_moments():
    target, n = some_mixture(5, True), 100_000
    x = target.sample(n, seed=6, dtype=torch.float64)
    mean = target.weights @ target.means
    second = target.weights @ (target.means**2 + target.stds**2)
    assert ((x.mean(0) - mean).abs() < 5 * ((second - mean**2) / n).sqrt()).all()
    assert (((x**2).mean(0) - second).abs() < 5 * ((x**2).var(0) / n).sqrt()).all()


def test_weights_are_normalized_and_means_of_one_dimension_may_be_flat():
    target = GaussianMixture([3, 5, 2], [-1.0, 0.3, 1.2], STDS)
    x = torch.randn(5, 1)
    assert target.event_shape == (1,)
    assert torch.allclose(target.denoise(x, VP().level(0.5)), ONE.denoise(x, VP().level(0.5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.0], [[0.0], [1.0]], [1.0, 1.0]), "positive"),
        (([0.5, 0.5], [[0.0]], [1.0, 1.0]), r"means have shape \(1, 1\)"),
        (([0.5, 0.5], [[0.0], [1.0]], [1.0]), r"standard deviations have shape \(1,\)"),
        (([0.5, 0.5], [[0.0], [1.0]], [1.0, 0.0]), "Empirical"),
        (([0.5, 0.5], [[0.0], [math.inf]], [1.0, 1.0]), "finite"),
    ],
)
def test_impossible_parameters_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        GaussianMixture(*arguments)


def test_cdf_and_quantile_refuse_more_dimensions_and_wrong_probabilities():
    with pytest.raises(IncompatibleError, match="2 dimensions"):
        some_mixture(2, False).cdf(0.0)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ArgumentError, match=r"\[0, 1\]"):
            ONE.quantile(q)
