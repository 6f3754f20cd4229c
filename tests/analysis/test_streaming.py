"""Moments and Frechet distances from pieces: those of the whole, and those of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

import srk
from srk.analysis.streaming import Moments, frechet_distance, moments
from srk.errors import ArgumentError, ArgumentTypeError


@pytest.mark.parametrize("cuts", [[1] * 50, [50], [1, 20, 29], [0, 25, 0, 25]])
def test_moments_of_pieces_are_those_of_the_whole(cuts: list[int]) -> None:
    """Also far from zero, where sums of squares would cancel: 1e8 and a deviation of 1."""
    x = 1e8 + torch.randn(50, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = Moments()
    for piece in x.split(cuts):
        seen.add(piece)
    flat = x.flatten(1).numpy()
    assert seen.n == 50
    np.testing.assert_allclose(seen.mean, flat.mean(0), rtol=1e-15)
    np.testing.assert_allclose(seen.covariance, np.cov(flat.T), atol=1e-6)


def test_the_formula_written_out() -> None:
    """Against scipy's square root of a matrix that is not symmetric."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 400, 6, generator=generator, dtype=torch.float64)
    b = b @ torch.randn(6, 6, generator=generator, dtype=torch.float64) + 0.3
    one, other = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected = shift + np.trace(one + other - 2 * scipy.linalg.sqrtm(one @ other).real)
    assert frechet_distance(moments(a), moments(b, batch=7)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(moments(a), moments(a)) < 1e-9


def test_a_set_is_read_a_chunk_at_a_time() -> None:
    pytest.importorskip("zarr")
    process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
    made = srk.sample_to({}, process, target.score(process), shape=(500, 1), batch=64, nfe=20)
    found, whole = moments(made), made.load().double()
    assert found.n == 500 and found.mean.item() == pytest.approx(whole.mean().item(), rel=1e-12)
    assert found.covariance.item() == pytest.approx(whole.var().item(), rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    exact = 0.5 + 0.2 * torch.randn(500, 1, generator=generator, dtype=torch.float64)
    assert frechet_distance(found, moments(exact)) < 6 * 0.04 * 2 / 500


def test_what_has_no_moments() -> None:
    with pytest.raises(ArgumentError, match="NaN or inf"):
        moments(torch.tensor([[float("nan")]]))
    with pytest.raises(ArgumentError, match="samples of one shape"):
        moments([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(ArgumentError, match="at least 2 samples, not 1"):
        _ = moments(torch.ones(1, 2)).covariance
    with pytest.raises(ArgumentError, match="two sets must have"):
        frechet_distance(moments(torch.ones(2, 2)), moments(torch.ones(2, 3)))
    with pytest.raises(ArgumentTypeError, match="a set, a tensor or pieces"):
        moments(3)
