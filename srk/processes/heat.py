r"""Heat kernels on the circle and on the rotations: what Brownian motion makes of a point.

With the variance s, the kernel of the circle is the wrapped normal distribution, and that of the
rotations is IGSO(3). Each has two exact series, one that converges fast for small s and one for
large s (Poisson's summation formula takes one into the other):

    circle     sum_k N(x + 2 pi k; 0, s)           = (1 + 2 sum_n e^(-n^2 s/2) cos(n x))/(2 pi)
    rotations  sum_l (2l + 1) e^(-l(l+1) s/2) sin((l + 1/2) w)/sin(w/2)
               = sqrt(2 pi) s^(-3/2) e^(s/8) sum_k (-1)^k (w + 2 pi k) e^(-(w + 2 pi k)^2/(2s))
                 / sin(w/2)

The functions use the one or the other on both sides of s = 2, where six terms of either are exact
to the rounding of float64. Angles are in radians. All of it is elementwise and differentiable.

Source: Nikolayev and Savyolova, "Normal distribution on the rotation group SO(3)", 1997; Leach et
al., "Denoising Diffusion Probabilistic Models on SO(3) for Rotational Alignment", 2022.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CROSSOVER = 2.0
"""The variance at which one series gives way to the other."""
_IMAGES = 2
_WAVES = 7


def circle_log_kernel(x: Tensor, variance: Tensor) -> Tensor:
    """Logarithm of the wrapped normal density at angles `x` in [-pi, pi], per radian.

    Examples:
        >>> import torch
        >>> angle, variance = torch.tensor([0.0, 3.0]), torch.tensor(1.0)
        >>> (circle_log_kernel(angle, variance).exp() * 2 * torch.pi).round(decimals=3)
        tensor([2.5070, 0.0390])
    """
    near, far = variance.clamp(max=CROSSOVER), variance.clamp(min=CROSSOVER)
    logs = torch.stack([-((x + turn) ** 2) / (2.0 * near) for turn in _turns()])
    images = torch.logsumexp(logs, 0) - 0.5 * torch.log(2.0 * math.pi * near)
    total, _ = _waves_on_circle(x, far)
    return torch.where(variance <= CROSSOVER, images, torch.log(total / (2.0 * math.pi)))


def circle_slope(x: Tensor, variance: Tensor) -> Tensor:
    """Derivative of `circle_log_kernel` in `x`."""
    near, far = variance.clamp(max=CROSSOVER), variance.clamp(min=CROSSOVER)
    distances = torch.stack([x + turn for turn in _turns()])
    shares = torch.softmax(-(distances**2) / (2.0 * near), 0)
    total, slope = _waves_on_circle(x, far)
    return torch.where(variance <= CROSSOVER, -(shares * distances).sum(0) / near, slope / total)


def _turns() -> list[float]:
    return [2.0 * math.pi * k for k in range(-_IMAGES, _IMAGES + 1)]


def _waves_on_circle(x: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """2 pi times the density, and its derivative."""
    total, slope = torch.ones_like(x * variance), torch.zeros_like(x * variance)
    for n in range(1, _WAVES):
        weight = 2.0 * torch.exp(-0.5 * n**2 * variance)
        total = total + weight * torch.cos(n * x)
        slope = slope - n * weight * torch.sin(n * x)
    return total, slope


def rotation_log_kernel(angle: Tensor, variance: Tensor) -> Tensor:
    """Logarithm of the IGSO(3) density at rotation angles in [0, pi].

    The density is relative to the uniform distribution of rotations, which has the density 1.
    """
    near, far = variance.clamp(max=CROSSOVER), variance.clamp(min=CROSSOVER)
    others, _ = _images_of_rotations(angle, near)
    bend = math.log(2.0) - torch.log(torch.sinc(angle / (2.0 * math.pi)))
    scale = near / 8.0 + 0.5 * math.log(2.0 * math.pi) - 1.5 * torch.log(near)
    images = scale + bend - angle**2 / (2.0 * near) + torch.log1p(others)
    total, _ = _waves_of_rotations(angle, far)
    return torch.where(variance <= CROSSOVER, images, torch.log(total))


def rotation_slope(angle: Tensor, variance: Tensor) -> Tensor:
    """Derivative of `rotation_log_kernel` in the angle, divided by the angle.

    The quotient is finite at 0, so that times the vector of a rotation it is the score.
    """
    near, far = variance.clamp(max=CROSSOVER), variance.clamp(min=CROSSOVER)
    others, slope = _images_of_rotations(angle, near)
    images = -1.0 / near + _bend(angle) + slope / (1.0 + others)
    total, waves = _waves_of_rotations(angle, far)
    return torch.where(variance <= CROSSOVER, images, waves / total)


def _bend(angle: Tensor) -> Tensor:
    """(1/w - cot(w/2)/2)/w, the curvature's part of the slope."""
    square = angle**2
    series = 1 / 12 + square * (1 / 720 + square * (1 / 30240 + square / 1209600))
    small = angle < 0.2
    safe = torch.where(small, torch.ones_like(angle), angle)
    return torch.where(small, series, (1.0 / safe - 0.5 / torch.tan(0.5 * safe)) / safe)


def _images_of_rotations(angle: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The terms k != 0 relative to that of k = 0, and their derivative divided by the angle."""
    total = slope = torch.zeros_like(angle * variance)
    for k in range(1, _IMAGES + 1):
        rate = 2.0 * math.pi * k / variance
        a, b = rate * angle, math.pi * k * rate
        c = 2.0 * b
        outer, inner = torch.exp(a - b), torch.exp(-a)
        small = a < 1e-2
        safe = torch.where(small, torch.ones_like(a), a)
        cosh = 0.5 * (1.0 + inner**2)  # times e^a
        near, bend = 1.0 + a**2 / 6.0 + a**4 / 120.0, 1.0 / 3.0 + a**2 / 30.0 + a**4 / 840.0
        sinhc = torch.where(small, inner * near, 0.5 * (1.0 - inner**2) / safe)
        bent = torch.where(small, inner * bend, (cosh - sinhc) / safe**2)
        sign = 2.0 * (-1.0) ** k
        total = total + sign * outer * (cosh - c * sinhc)
        slope = slope + sign * outer * rate**2 * (sinhc - c * bent)
    return total, slope


def _waves_of_rotations(angle: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The density, and its derivative divided by the angle."""
    weights = [
        (2 * degree + 1) * torch.exp(-0.5 * degree * (degree + 1) * variance)
        for degree in range(_WAVES)
    ]
    total, slope = torch.ones_like(angle * variance), torch.zeros_like(angle * variance)
    for degree in range(1, _WAVES):  # sin((l + 1/2) w)/sin(w/2) = 1 + 2 sum_m cos(m w), m <= l
        total = total + weights[degree]
        rest = 2.0 * torch.stack([w + torch.zeros_like(total) for w in weights[degree:]]).sum(0)
        total = total + rest * torch.cos(degree * angle)
        slope = slope - degree**2 * rest * torch.sinc(degree * angle / math.pi)
    return total, slope


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def rotation_cdf(angle: Tensor, variance: Tensor) -> Tensor:
    """Probability that the rotation angle of IGSO(3) is at most `angle`, by quadrature."""
    nodes = torch.tensor(_NODES, dtype=angle.dtype, device=angle.device)
    weights = torch.tensor(_WEIGHTS, dtype=angle.dtype, device=angle.device)
    densities = rotation_pdf(angle[..., None] * (0.5 * (nodes + 1.0)), variance[..., None])
    return 0.5 * angle * (densities @ weights)


def rotation_pdf(angle: Tensor, variance: Tensor) -> Tensor:
    """Probability density of the rotation angle, per radian."""
    measure = 2.0 * torch.sin(0.5 * angle) ** 2 / math.pi
    return torch.exp(rotation_log_kernel(angle, variance)) * measure


def rotation_angle(radius: Tensor, variance: Tensor) -> Tensor:
    """Draws of the rotation angle by its inverse distribution function.

    Arguments:
        radius: lengths of unit normal vectors in three dimensions, whose distribution function
            makes them uniform.
        variance: s.

    Returns:
        Angles in [0, pi], increasing with the radius.
    """
    level = _level(radius)
    low = torch.zeros_like(level * variance)
    high = torch.full_like(low, math.pi)
    angle = torch.minimum(_uniform_angle(level), radius * variance.sqrt())
    for _ in range(8):  # Newton's method, by bisection where it would leave the bracket
        excess = rotation_cdf(angle, variance) - level
        low = torch.where(excess < 0.0, angle, low)
        high = torch.where(excess < 0.0, high, angle)
        newton = angle - excess / rotation_pdf(angle, variance).clamp_min(1e-30)
        inside = (newton >= low) & (newton <= high)
        angle = torch.where(inside, newton, 0.5 * (low + high))
    return angle


def uniform_angle(radius: Tensor) -> Tensor:
    """The angles of uniform rotations; otherwise as `rotation_angle`."""
    return _uniform_angle(_level(radius))


def _level(radius: Tensor) -> Tensor:
    """The distribution function of the length of a unit normal vector in three dimensions."""
    tail = math.sqrt(2.0 / math.pi) * radius * torch.exp(-0.5 * radius**2)
    return torch.erf(radius / math.sqrt(2.0)) - tail


def _uniform_angle(level: Tensor) -> Tensor:
    """The angle w of uniform rotations with (w - sin w)/pi = level."""
    angle = (6.0 * math.pi * level).pow(1.0 / 3.0)
    for _ in range(5):
        slope = (2.0 * torch.sin(0.5 * angle) ** 2).clamp_min(1e-30)
        angle = angle - (angle - torch.sin(angle) - math.pi * level) / slope
        angle = angle.clamp(0.0, math.pi)
    return angle
