r"""Gaussians given a measurement, and Gaussians times an exponential of a quadratic.

    y = A x + n, n ~ N(0, R)    m' = m + K (y - A m),  S' = (I - K A) S,  K = S A^T (A S A^T + R)^-1
    exp(b.x - x.C x/2)          S' = (S^-1 + C)^-1,    m' = S' (S^-1 m + b)

Both are written without the inverse of S, which may be singular. Everything is float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from srk.errors import ArgumentError, ArgumentTypeError


class LinearGaussian(Protocol):
    """What a target needs to know of a measurement; `srk.posterior.Measurement` has it."""

    def system(self, event: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix A (m, d), y (m,) and the noise covariance (m, m), float64 on the CPU."""


class Conditioned(NamedTuple):
    """A Gaussian after an update, and the logarithm of its weight."""

    mean: Tensor
    covariance: Tensor
    log_weight: float


def system_of(measurement: Any, event: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """A, y and R of a measurement, or `ArgumentTypeError`."""
    if not hasattr(measurement, "system"):
        raise ArgumentTypeError(
            f"a posterior is that of a measurement, not of {measurement!r}; e.g. "
            "srk.posterior.Measurement(srk.posterior.Linear(A), y, noise_std=0.1)"
        )
    matrix, y, noise = measurement.system(event)
    return matrix, y, noise


def condition(mean: Tensor, cov: Tensor, matrix: Tensor, y: Tensor, noise: Tensor) -> Conditioned:
    """N(mean, cov) given y = matrix x + N(0, noise); the weight is the density of y.

    Arguments:
        mean, cov: shapes (d,) and (d, d).
        matrix, y, noise: shapes (m, d), (m,) and (m, m).
    """
    total = matrix @ cov @ matrix.mT + noise
    factor, failed = torch.linalg.cholesky_ex(total)
    if int(failed):
        raise ArgumentError(
            "the measurement has no density: without noise its numbers must not depend on each "
            "other, nor be certain before; give noise_std > 0"
        )
    white = torch.linalg.solve_triangular(factor, matrix @ cov, upper=False)
    r = torch.linalg.solve_triangular(factor, (y - matrix @ mean)[:, None], upper=False)[:, 0]
    covariance = cov - white.mT @ white
    log_weight = -0.5 * float(r.square().sum()) - float(factor.diagonal().log().sum())
    log_weight -= 0.5 * len(y) * math.log(2.0 * math.pi)
    return Conditioned(mean + white.mT @ r, (covariance + covariance.mT) / 2, log_weight)


def tilt(mean: Tensor, cov: Tensor, linear: Tensor, quadratic: Tensor) -> Conditioned:
    """N(mean, cov) times exp(linear.x - x.quadratic x/2); the weight is the integral.

    Arguments:
        mean, cov: shapes (d,) and (d, d).
        linear, quadratic: shapes (d,) and (d, d), the latter symmetric.

    Raises:
        ArgumentError: the product has no finite integral.
    """
    d = len(mean)
    values, axes = torch.linalg.eigh(cov)
    root = axes * values.clamp_min(0.0).sqrt()
    inner = torch.eye(d, dtype=cov.dtype) + root.mT @ quadratic @ root
    factor, failed = torch.linalg.cholesky_ex((inner + inner.mT) / 2)
    if int(failed):
        raise ArgumentError(
            "the tilt exp(b.x - x.C x/2) grows faster than the target falls, so that it has no "
            "integral: the inverse covariance plus C must be positive definite"
        )
    white = torch.linalg.solve_triangular(factor, root.mT, upper=False)
    covariance = white.mT @ white
    # About the mean the exponent is e - (g.z - z.C z/2) for z = x - mean.
    gradient = linear - quadratic @ mean
    constant = float(linear @ mean - 0.5 * mean @ quadratic @ mean)
    shift = covariance @ gradient
    log_weight = constant + 0.5 * float(gradient @ shift) - float(factor.diagonal().log().sum())
    return Conditioned(mean + shift, covariance, log_weight)


def tilt_of(linear: Any, quadratic: Any, d: int) -> tuple[Tensor, Tensor]:
    """b and C of a tilt over d numbers, checked."""
    b = torch.as_tensor(linear, dtype=torch.float64, device="cpu").detach().reshape(-1)
    b = b.expand(d) if b.numel() == 1 else b
    c = torch.zeros((), dtype=torch.float64)
    if quadratic is not None:
        c = torch.as_tensor(quadratic, dtype=torch.float64, device="cpu").detach()
    if c.ndim < 2:
        c = c.expand(d).diag() if c.numel() in (1, d) else c
    if tuple(b.shape) != (d,) or tuple(c.shape) != (d, d):
        raise ArgumentError(
            f"a tilt exp(b.x - x.C x/2) over samples of {d} numbers has b of shape ({d},) and C a "
            f"number, ({d},) or ({d}, {d}), not {tuple(b.shape)} and {tuple(c.shape)}"
        )
    if not torch.allclose(c, c.mT, rtol=1e-8, atol=1e-12 * float(c.abs().max())):
        raise ArgumentError("the matrix C of a tilt exp(b.x - x.C x/2) must be symmetric")
    return b, c


__all__ = ["Conditioned", "LinearGaussian", "condition", "system_of", "tilt", "tilt_of"]
