"""The example of spherical noise: its field against scipy's harmonics, its statistics, its keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from repository import script
from scipy.special import sph_harm_y

import srk
from srk.integrators import Slot

ROWS, COLUMNS, DEGREE = 33, 40, 6
SLOT = Slot(0.0, 1.0)


@pytest.fixture
def example() -> Iterator[ModuleType]:
    yield script("examples/spherical_noise.py")
    srk.noise().unregister("spherical")


def real_harmonics() -> np.ndarray:
    """(degree, order, cos or sin, latitude, longitude), orthonormal on the sphere, by scipy."""
    theta = np.linspace(0, np.pi, ROWS)[:, None]
    phi = 2 * np.pi * np.arange(COLUMNS) / COLUMNS
    made = np.zeros((DEGREE + 1, DEGREE + 1, 2, ROWS, COLUMNS))
    for degree in range(DEGREE + 1):
        for order in range(degree + 1):
            y = sph_harm_y(degree, order, theta, phi) * (math.sqrt(2) if order else 1.0)
            made[degree, order] = y.real, y.imag
    return made


def drawn(source: Any, batch: int) -> torch.Tensor:
    out = torch.empty(batch, 2, ROWS, COLUMNS, dtype=torch.float64)
    source.start(out.shape, out.dtype, out.device)
    source.draw(SLOT, "clock", out)
    return out


def test_the_field_is_the_sum_of_harmonics(example: ModuleType) -> None:
    source = example.SphericalNoise(0, degree=DEGREE)
    field = drawn(source, 3)
    harmonics = torch.from_numpy(real_harmonics())
    wanted = torch.einsum("bcklm,lmkij->bcij", source.normals, harmonics)
    wanted *= math.sqrt(4 * math.pi) / (DEGREE + 1)
    assert (field - wanted).abs().max() < 1e-12


def test_coefficients_are_white_and_the_variance_is_one(example: ModuleType) -> None:
    """The harmonic coefficients of the fields, by quadrature over the sphere, are independent and
    of equal variance; at each point the variance is 1. To six standard errors.
    """
    fields = drawn(example.SphericalNoise(1, degree=DEGREE), 1500).flatten(0, 1)
    n, size = len(fields), DEGREE + 1
    theta = np.linspace(0, np.pi, ROWS)
    # Clenshaw-Curtis: exact for polynomials of cos(theta) up to degree ROWS - 1
    k = np.arange(0, ROWS, 2)
    weights = np.array(
        [np.sum(np.cos(k * t) * np.where(k == 0, 0.5, 1) / (1 - k**2)) for t in theta]
    )
    weights *= 4 / (ROWS - 1)
    weights[[0, -1]] /= 2
    area = torch.from_numpy(weights * 2 * np.pi / COLUMNS)
    kept = [(a, b, c) for a in range(size) for b in range(a + 1) for c in range(2) if b or not c]
    basis = torch.from_numpy(np.stack([real_harmonics()[i] for i in kept]))
    gram = torch.einsum("aij,bij,i->ab", basis, basis, area)
    assert len(kept) == size**2
    assert (gram - torch.eye(size**2, dtype=gram.dtype)).abs().max() < 1e-12
    coefficients = torch.einsum("nij,aij,i->na", fields, basis, area)
    coefficients *= size / math.sqrt(4 * math.pi)
    covariance = coefficients.T @ coefficients / n
    assert (covariance - torch.eye(size**2, dtype=gram.dtype)).abs().max() < 6 * math.sqrt(2 / n)
    assert (fields.square().mean(0) - 1.0).abs().max() < 6 * math.sqrt(2 / n)


def test_by_name_in_any_batch(example: ModuleType) -> None:
    process = srk.EDM(sigma_max=80.0)
    score = srk.targets.Gaussian(0.0, 1.0, event_shape=(9, 24)).score(process)
    run: dict[str, Any] = {"shape": 5, "steps": 4, "noise": "spherical", "seed": 7}
    whole = srk.solve(process, score, "gencast", **run)
    assert whole.seed == 7
    parts = srk.solve(process, score, "gencast", microbatch=2, **run)
    assert torch.allclose(parts.x, whole.x, atol=1e-5)


def test_the_example_runs(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    x = example.main(samples=4).x
    assert x.shape == (4, 2, 25, 48)
    # a field of degree 12 has one value at each pole
    assert (x[:, :, 0] - x[:, :, 0, :1]).abs().max() < 1e-4
    assert "variance" in capsys.readouterr().out
