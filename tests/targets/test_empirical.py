"""The empirical target against direct distances in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srk.errors import ArgumentError, IncompatibleError
from srk.processes import EDM, VP, Flow, Level
from srk.targets import Empirical, GaussianMixture, empirical

DATA = (
    torch.randn(500, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5.0
)
TARGET = Empirical(DATA)


def naive(x, data, alpha, sigma):
    """The formula, with every difference written out."""
    x, data = x.double(), data.double()
    distance = (x[:, None] - alpha * data[None]).flatten(2).square().sum(2)
    weights = torch.softmax(-distance / (2 * sigma**2), 1)
    return (weights @ data.flatten(1)).reshape(x.shape)


def level_of(alpha, r):
    return Level(0.5, alpha, alpha * r, -math.log(r))


@pytest.mark.parametrize("r", [1e-6, 0.05, 0.3, 1.0, 3.0, 100.0, 1e8])
@pytest.mark.parametrize("alpha", [1.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_denoiser_is_the_weighted_mean_of_the_data_at_any_noise(r, alpha, dtype):
    clean = TARGET.sample(40, seed=1, dtype=torch.float64)
    x = (alpha * (clean + r * torch.randn_like(clean))).to(dtype)
    level = level_of(alpha, r)
    out = TARGET.denoise(x, level)
    exact = naive(x, DATA, alpha, level.sigma)
    assert out.dtype == dtype
    assert out.isfinite().all()
    # Exponents have the error of the docstring: eps |x/alpha| |y| / r^2 with centred norms near
    # 7 sqrt(1 + r^2) and 7; the oracle's direct distances, in float64, have one of about eps each.
    eps = torch.finfo(dtype).eps
    weights_error = (
        eps * 50 * math.sqrt(1 + r**2) / r**2 if r > 0.01 else 0.0
    )  # below, the nearest point wins by far
    assert (out - exact).abs().max() < 20 * eps + 10 * weights_error + 1e-12


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    x = TARGET.sample(37, EDM(), 1.5, seed=2, dtype=torch.float64)
    level = EDM().level(1.5)
    whole = TARGET.denoise(x, level), TARGET.log_density(x, EDM(), 1.5), TARGET.nearest(x)
    monkeypatch.setattr(empirical, "ELEMENTS", 64)
    for chunk in (1, 7, 250, 499, 500, 10_000):
        blocks = Empirical(DATA, chunk=chunk)
        assert torch.allclose(blocks.denoise(x, level), whole[0], rtol=1e-12)
        assert torch.allclose(blocks.log_density(x, EDM(), 1.5), whole[1], rtol=1e-12)
        assert torch.equal(blocks.nearest(x), whole[2])


def test_the_maximum_may_come_in_any_block():
    """A point far ahead of the earlier ones must not overflow, one far behind must not count."""
    data = torch.tensor([[0.0], [100.0], [-50.0]])
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        target = Empirical(data[order], chunk=1)
        assert torch.equal(
            target.denoise(torch.tensor([[99.0], [1.0], [-40.0]]), level_of(1.0, 1e-3)),
            torch.tensor([[100.0], [0.0], [-50.0]]),
        )


def test_at_both_ends_the_denoiser_is_the_mean_and_the_nearest_point():
    x = TARGET.sample(10, seed=3)
    assert torch.allclose(
        TARGET.denoise(x, Flow().level(1.0)), DATA.mean(0).float().expand_as(x), rtol=1e-6
    )
    noisy = x + 0.1 * torch.randn_like(x)
    assert torch.allclose(TARGET.denoise(noisy, Flow(t_min=0.0).level(0.0)), x, rtol=1e-6)
    assert torch.allclose(TARGET.denoise(noisy, level_of(1.0, 1e-200)), x, rtol=1e-6)


@pytest.mark.parametrize("r", [0.05, 1.0, 30.0])
def test_score_is_the_gradient_of_the_log_density(r):
    process = EDM(sigma_min=1e-3)
    x = TARGET.sample(10, process, r, seed=4, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(TARGET.log_density(x, process, r).sum(), x)
    assert torch.allclose(
        TARGET.score_at(x, process.level(r)), gradient, rtol=1e-8, atol=1e-10 / r**2
    )


def test_the_log_density_is_that_of_the_mixture_of_the_points():
    """Also in float32 at small noise, where the expanded square would lose every digit."""
    process, t = EDM(sigma_min=1e-4), 1e-3
    points = DATA[:20].flatten(1)
    target = Empirical(points)
    x = target.sample(10, process, t, seed=5, dtype=torch.float64)
    distance = (x[:, None] - points).square().sum(2)
    exact = (
        torch.logsumexp(-distance / (2 * t**2), 1)
        - math.log(20)
        - 24 * math.log(2 * math.pi * t**2)
    )
    assert torch.allclose(target.log_density(x, process, t), exact, rtol=1e-10)
    mixture = GaussianMixture([0.05] * 20, points, [1e-7] * 20)
    assert torch.allclose(
        target.log_density(x, process, t), mixture.log_density(x, process, t), rtol=1e-6
    )


def test_precision_makes_float32_states_exact_at_small_noise():
    """Two points at nearly the same distance, far from the mean of the data."""
    data = torch.zeros(3, 1000)
    data[0], data[1], data[2] = 1.0, 1.0, -2.0
    data[1, 0] += 0.02
    x, level = data[:1].clone(), level_of(1.0, 0.01)
    x[0, 0] += 0.009
    exact = naive(x, data, 1.0, 0.01).float()
    assert 1.008 < exact[0, 0] < 1.012
    assert torch.allclose(
        Empirical(data, precision=torch.float64).denoise(x, level), exact, atol=1e-6
    )


def test_the_nearest_point_is_found_and_every_point_comes_equally_often():
    data = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)).numpy()
    target = Empirical(data, chunk=7)
    x = target.sample(20_000, EDM(), 0.002, seed=6)
    index = target.nearest(x)
    brute = np.square(x.numpy()[:500, None] - data).sum(2).argmin(1)
    assert index.dtype == torch.long
    assert np.array_equal(index[:500].numpy(), brute)
    counts = torch.bincount(index, minlength=50).double()
    chi_square = ((counts - 400) ** 2 / 400).sum()
    assert chi_square < 49 + 5 * math.sqrt(2 * 49)


def test_integers_and_arrays_are_data_too():
    target = Empirical(np.array([[0, 0], [255, 255]], dtype=np.uint8))
    assert target.data.dtype == torch.get_default_dtype()
    assert len(target) == 2
    assert target.event_shape == (2,)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.zeros(5), {}, r"data\[:, None\]"),
        (torch.zeros(0, 2), {}, "n >= 1 points"),
        (torch.full((2, 2), math.nan), {}, "NaN"),
        (torch.zeros(2, 2), {"chunk": 0}, "chunk=4096"),
        (torch.zeros(2, 2), {"precision": torch.bfloat16}, "float64"),
    ],
)
def test_impossible_data_are_refused(data, options, message):
    with pytest.raises(ArgumentError, match=message):
        Empirical(data, **options)


def test_points_have_no_density_without_noise():
    with pytest.raises(IncompatibleError, match="no density"):
        TARGET.log_density(DATA[:1])
    with pytest.raises(IncompatibleError, match="sigma is 0"):
        TARGET.score_at(DATA[:1], Flow(t_min=0.0).level(0.0))


def test_gradients_flow_through_the_denoiser():
    target = Empirical(DATA[:5].flatten(1)[:, :3], chunk=2)
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: target.denoise(x, VP().level(0.5)), (x,))
