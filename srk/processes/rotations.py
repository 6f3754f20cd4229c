"""Rotations as vectors: along the axis, as long as the angle in radians.

Vectors are tensors of shape (..., 3) and matrices of shape (..., 3, 3). All functions are smooth
enough for gradients, and exact at the angle 0 and near pi, for they go through unit quaternions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def length(vectors: Tensor) -> Tensor:
    """Lengths of vectors (..., 3), shape (..., 1), with the gradient 0 at 0."""
    square = vectors.square().sum(-1, keepdim=True)
    return square.clamp_min(torch.finfo(vectors.dtype).tiny).sqrt()


def quaternion(vectors: Tensor) -> Tensor:
    """Unit quaternions (..., 4), the real part first."""
    angle = length(vectors)
    scale = 0.5 * torch.sinc(angle / (2.0 * torch.pi))
    return torch.cat([torch.cos(0.5 * angle), vectors * scale], -1)


def vector(quaternions: Tensor) -> Tensor:
    """Vectors of at most pi of unit quaternions; q and -q are the same rotation."""
    real = quaternions[..., :1]
    quaternions = torch.where(real < 0.0, -quaternions, quaternions)
    real, imaginary = quaternions[..., :1], quaternions[..., 1:]
    size = length(imaginary)
    small = size < 1e-6
    safe = torch.where(small, torch.ones_like(size), size)
    angle = 2.0 * torch.atan2(safe, real)
    return imaginary * torch.where(small, 2.0 / real.clamp_min(0.5), angle / safe)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The vector of the product: the matrix of `first` times the matrix of `second`."""
    p, q = quaternion(first), quaternion(second)
    a, u, b, v = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    real = a * b - (u * v).sum(-1, keepdim=True)
    cross = torch.linalg.cross(u + torch.zeros_like(v), v + torch.zeros_like(u))
    imaginary = a * v + b * u + cross
    return vector(torch.cat([real, imaginary], -1))


def to_matrix(vectors: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of vectors (..., 3).

    Examples:
        >>> import math, torch
        >>> to_matrix(torch.tensor([0.0, 0.0, math.pi / 2])).round().tolist()
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = quaternion(vectors).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def from_matrix(matrices: Tensor) -> Tensor:
    """Vectors (..., 3) of rotation matrices (..., 3, 3), at most pi long.

    Examples:
        >>> import torch
        >>> turned = torch.tensor([0.3, -2.0, 0.5])
        >>> torch.allclose(from_matrix(to_matrix(turned)), turned)
        True
    """
    m = matrices
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    skew = torch.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        -1,
    )
    # Each row is 4 q_i q for the i-th component of the quaternion q; the longest row is safe.
    rows = [torch.cat([(1.0 + trace)[..., None], skew], -1)]
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        row = [torch.zeros_like(trace)] * 4
        row[0] = skew[..., i]
        row[1 + i] = 1.0 + 2.0 * m[..., i, i] - trace
        row[1 + j] = m[..., i, j] + m[..., j, i]
        row[1 + k] = m[..., i, k] + m[..., k, i]
        rows.append(torch.stack(row, -1))
    all_rows = torch.stack(rows, -2)
    sizes = all_rows.square().sum(-1)
    best = sizes.argmax(-1)[..., None, None].expand(*sizes.shape[:-1], 1, 4)
    chosen = all_rows.gather(-2, best)[..., 0, :]
    return vector(chosen / chosen.square().sum(-1, keepdim=True).sqrt())
