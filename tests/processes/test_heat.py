"""Heat kernels on the circle and on the rotations, against their series and each other."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.processes import heat, rotations

VARIANCES = [1e-4, 0.01, 0.3, 1.0, 1.999, 2.001, 4.0, 20.0]


def tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def igso3(angle: float, variance: float) -> Any:
    """The series over the representations, term by term."""
    w, s = mpmath.mpf(angle), mpmath.mpf(variance)
    degrees = range(int(20 / math.sqrt(variance)) + 10)
    return sum(
        (2 * n + 1)
        * mpmath.exp(-n * (n + 1) * s / 2)
        * mpmath.sin((n + mpmath.mpf(1) / 2) * w)
        / mpmath.sin(w / 2)
        for n in degrees
    )


def wrapped(angle: float, variance: float) -> Any:
    """The sum over all turns."""
    s = mpmath.mpf(variance)
    return sum(
        mpmath.exp(-((angle + 2 * mpmath.pi * k) ** 2) / (2 * s)) / mpmath.sqrt(2 * mpmath.pi * s)
        for k in range(-30, 31)
    )


@pytest.mark.parametrize("variance", VARIANCES[1:])
def test_kernels_are_their_series(variance: float) -> None:
    with mpmath.workdps(60):
        for angle in (1e-5, 0.1, 0.8, 2.0, 3.0, math.pi):
            if angle**2 / variance > 200:
                continue
            for ours, series in (
                (heat.rotation_log_kernel, igso3),
                (heat.circle_log_kernel, wrapped),
            ):
                wanted = float(mpmath.log(series(angle, variance)))
                found = float(ours(tensor(angle), tensor(variance)))
                assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("variance", VARIANCES)
def test_slopes_are_the_derivatives(variance: float) -> None:
    s = tensor(variance)
    angle = torch.linspace(1e-3, math.pi - 1e-6, 400, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(heat.rotation_log_kernel(angle, s).sum(), angle)
    error = heat.rotation_slope(angle, s) - slope / angle
    assert float(error.detach().abs().max()) < 1e-9 * max(1.0, 1.0 / variance)
    (slope,) = torch.autograd.grad(heat.circle_log_kernel(angle - 1.0, s).sum(), angle)
    error = heat.circle_slope(angle - 1.0, s) - slope
    assert float(error.detach().abs().max()) < 1e-11 * max(1.0, 1.0 / variance)


def test_slopes_in_single_precision() -> None:
    angle = torch.linspace(0.0, 3.14, 300)
    for variance in VARIANCES:
        single = heat.rotation_slope(angle, torch.tensor(variance))
        double = heat.rotation_slope(angle.double(), tensor(variance))
        assert float((single - double).abs().max()) < 1e-4 * max(1.0, 1.0 / variance)


@pytest.mark.parametrize("variance", VARIANCES)
def test_densities_integrate_to_one(variance: float) -> None:
    x = torch.linspace(-math.pi, math.pi, 20001, dtype=torch.float64)[:-1]
    total = heat.circle_log_kernel(x, tensor(variance)).exp().mean() * 2 * math.pi
    assert float(total) == pytest.approx(1.0, abs=1e-12)
    end = tensor(min(math.pi, 12.0 * math.sqrt(variance)))
    assert float(heat.rotation_cdf(end, tensor(variance))) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("one", "two"), [(0.05, 0.1), (0.5, 1.0), (1.5, 1.0), (3.0, 0.4)])
def test_two_noises_in_turn_are_one(one: float, two: float) -> None:
    """The kernels are a semigroup: the convolution of two is that of the sum of variances."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = tensor(0.5 * math.pi * (nodes + 1.0))
    by_angle = tensor(0.5 * math.pi * weights) * 2 * torch.sin(angle / 2) ** 2 / math.pi
    cosine = tensor(nodes)
    for turn in (0.2, 1.0, 2.5):  # the angle of the rotation at which the convolution is taken
        half = math.cos(turn / 2) * torch.cos(angle / 2)[:, None]
        half = half + math.sin(turn / 2) * torch.sin(angle / 2)[:, None] * cosine
        between = 2 * torch.acos(half.abs().clamp(max=1.0))
        first = heat.rotation_log_kernel(between, tensor(one)).exp()
        second = heat.rotation_log_kernel(angle, tensor(two)).exp()
        found = (first * (0.5 * tensor(weights)) * (second * by_angle)[:, None]).sum()
        wanted = heat.rotation_log_kernel(tensor(turn), tensor(one + two)).exp()
        assert float(found) == pytest.approx(float(wanted), rel=1e-5, abs=1e-12)
    x = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
    for turn in (0.2, 1.0, 2.5):
        back = srk.Torus().wrap(turn - x)
        first = heat.circle_log_kernel(back, tensor(one)).exp()
        found = (first * heat.circle_log_kernel(x, tensor(two)).exp()).mean() * 2 * math.pi
        wanted = heat.circle_log_kernel(tensor(turn), tensor(one + two)).exp()
        assert float(found) == pytest.approx(float(wanted), rel=1e-12)


def test_the_angle_is_drawn_by_its_distribution_function() -> None:
    """The series of the density times (1 - cos w)/pi, integrated term by term."""
    radius = torch.linspace(0.01, 5.0, 300, dtype=torch.float64)
    level = torch.erf(radius / math.sqrt(2))
    level = level - math.sqrt(2 / math.pi) * radius * torch.exp(-(radius**2) / 2)
    for variance in VARIANCES:
        angle = heat.rotation_angle(radius, tensor(variance))
        assert bool((angle.diff() >= 0).all())
        found = (angle - angle.sin()) / math.pi
        for n in range(1, int(9 / math.sqrt(variance)) + 5):
            weight = (2 * n + 1) * math.exp(-0.5 * n * (n + 1) * variance) / math.pi
            found = found + weight * ((n * angle).sin() / n - ((n + 1) * angle).sin() / (n + 1))
        assert float((found - level).abs().max()) < 1e-9


def test_rotation_vectors_are_matrix_exponentials() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 200, 3, generator=generator, dtype=torch.float64).mul(1.5)

    def hat(v: Tensor) -> Tensor:
        zero = torch.zeros_like(v[..., 0])
        rows = [[zero, -v[..., 2], v[..., 1]], [v[..., 2], zero, -v[..., 0]]]
        rows.append([-v[..., 1], v[..., 0], zero])
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    matrix = torch.linalg.matrix_exp(hat(a))
    assert torch.allclose(rotations.to_matrix(a), matrix, atol=1e-12)
    product = matrix @ torch.linalg.matrix_exp(hat(b))
    assert torch.allclose(rotations.to_matrix(rotations.compose(a, b)), product, atol=1e-12)
    back = rotations.from_matrix(matrix)
    assert float(back.norm(dim=-1).max()) <= math.pi
    assert torch.allclose(rotations.to_matrix(back), matrix, atol=1e-12)
    for axis in torch.eye(3, dtype=torch.float64):  # half a turn, and none
        assert torch.allclose(
            rotations.from_matrix(rotations.to_matrix(axis * math.pi)).abs(),
            axis * math.pi,
            atol=1e-7,
        )
    none = torch.zeros(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(rotations.compose(a[:2].float(), none).sum(), none)
    assert slope.isfinite().all()
