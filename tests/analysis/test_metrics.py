"""Distances between samples, against scipy, POT and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from srk.analysis.metrics import (
    METRICS,
    chi_square_excess,
    energy_distance,
    floor,
    mmd,
    moment_errors,
    sliced_w2,
)
from srk.errors import ArgumentError, ArgumentTypeError


def normals(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(50, 50), (60, 35), (1, 7)])
def test_w2_in_one_dimension_is_the_optimal_transport_of_all_pairs(n: int, m: int) -> None:
    """Brute force.

    Repeat both samples to the common multiple of their numbers and pair them in order.
    """
    x, y = normals(n, 1, 0), normals(m, 1, 1) * 0.5 + 0.3
    a, b = np.sort(np.repeat(x.numpy().ravel(), m)), np.sort(np.repeat(y.numpy().ravel(), n))
    assert sliced_w2(x, y) == pytest.approx(math.sqrt(np.mean((a - b) ** 2)), rel=1e-12)


def test_sliced_w2_equals_pot_on_the_same_directions() -> None:
    ot = pytest.importorskip("ot")
    x, y = normals(300, 5, 0), normals(200, 5, 1) + 0.2
    directions = torch.randn(5, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = ot.sliced_wasserstein_distance(
        x.numpy(), y.numpy(), projections=(directions / directions.norm(dim=0)).numpy(), p=2
    )
    assert sliced_w2(x, y, projections=64, seed=3) == pytest.approx(float(expected), rel=1e-10)


def test_sliced_w2_of_a_shift_is_its_length_over_sqrt_d() -> None:
    """E cos^2 = 1/d over directions; 4000 of them give the mean to a few percent."""
    x = normals(400, 4, 0)
    assert sliced_w2(x, x + torch.tensor([2.0, 0.0, 0.0, 0.0]), projections=4000) == pytest.approx(
        1.0, rel=0.04
    )


def test_energy_distance_is_scipys_without_its_bias() -> None:
    x, y = normals(300, 1, 0), normals(250, 1, 1) * 1.3 + 0.5
    a, b = x.numpy().ravel(), y.numpy().ravel()
    within = (
        np.abs(a[:, None] - a).sum() / 300**2 / 299 + np.abs(b[:, None] - b).sum() / 250**2 / 249
    )
    assert energy_distance(x, y) ** 2 == pytest.approx(
        scipy.stats.energy_distance(a, b) ** 2 - within, rel=1e-10
    )


def test_mmd_of_two_gaussians_is_the_closed_form() -> None:
    """Gaussian kernel of width b, N(0, 1) against N(m, 1).

    E k = b/sqrt(b^2 + 2) exp(-m^2/(2 (b^2 + 2))).
    """
    x, y = normals(4000, 1, 0), normals(4000, 1, 1) + 1.0
    b = float(torch.pdist(y[:2048]).median())
    level = b / math.sqrt(b * b + 2.0)
    expected = math.sqrt(2.0 * level * (1.0 - math.exp(-0.5 / (b * b + 2.0))))
    # The standard error of the squared distance at n = 4000 is about 3% of it here
    assert mmd(x, y, bandwidths=(1.0,)) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("name", list(METRICS))
def test_samples_of_one_law_are_at_the_floor_and_others_above(name: str) -> None:
    metric = METRICS[name]
    x, y = normals(1500, 3, 0), normals(1500, 3, 1)
    bottom = max(floor(metric, torch.cat([x, y]), seed=seed) for seed in range(4))
    moved = y * 1.5 + 0.5
    assert metric(x, y) < 3.0 * bottom + 0.02
    assert metric(x, moved) > 3.0 * bottom


def test_moment_errors_are_relative_to_the_spread() -> None:
    y = normals(20000, 2, 0)
    errors = moment_errors(2.0 * y + 3.0, y)
    # mean: 3 sqrt(2)/sqrt(2); covariance: 4 C - C
    assert errors["mean"] == pytest.approx(3.0, rel=0.02)
    assert errors["covariance"] == pytest.approx(3.0, rel=1e-9)


def test_metrics_take_images_and_halves() -> None:
    x, y = normals(64, 16, 0).reshape(64, 4, 4).half(), normals(48, 16, 1).reshape(48, 4, 4).half()
    for metric in METRICS.values():
        assert math.isfinite(metric(x, y))


def test_chi_square_excess() -> None:
    assert chi_square_excess([5, 5, 5, 5]) == -1.0
    counts = np.random.default_rng(0).multinomial(50_000, [1 / 500] * 500)
    expected = scipy.stats.chisquare(counts).statistic / 499 - 1.0
    assert chi_square_excess(torch.from_numpy(counts)) == pytest.approx(expected, abs=1e-12)
    assert abs(expected) < 4.0 * math.sqrt(2.0 / 499)


def test_errors_name_the_fact() -> None:
    x = normals(10, 2, 0)
    with pytest.raises(ArgumentError, match="event shapes"):
        sliced_w2(x, normals(10, 3, 0))
    with pytest.raises(ArgumentTypeError, match="floating-point"):
        sliced_w2(x, [1.0, 2.0])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="at least 2"):
        energy_distance(x[:1], x)
    with pytest.raises(ArgumentError, match="all equal"):
        moment_errors(x, torch.ones(5, 2, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="coincide"):
        mmd(x, torch.ones(5, 2, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="counts"):
        chi_square_excess([3])
    with pytest.raises(ArgumentError, match="floor"):
        floor(sliced_w2, x, size=10)
