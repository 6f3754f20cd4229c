"""Rigid motions of points in space: rotations, the best one, weighted centres."""

from __future__ import annotations

import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.scores.selection import Windows, cut


def rotation(quaternions: Tensor) -> Tensor:
    """The rotations of quaternions (w, x, y, z) of any length, to be multiplied from the right:
    points @ rotation. The quaternion 0 rotates nothing.

    Arguments:
        quaternions: shape (batch, 4). Four unit normals give a uniform rotation.

    Returns:
        Shape (batch, 3, 3).
    """
    size = quaternions.norm(dim=-1, keepdim=True)
    w, x, y, z = (quaternions / torch.where(size > 0.0, size, 1.0)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
        2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


SQUARINGS = 40
"""The matrix is raised to the power 2^40, which tells apart eigenvalues that differ by 1e-11."""


def best_rotation(source: Tensor, goal: Tensor, weights: Tensor | None = None) -> Tensor:
    """The rotation that takes centred points nearest to others: source @ rotation ~ goal.

    It is that of the unit quaternion q for which q^T N q is largest, N Horn's symmetric 4 x 4
    matrix: the eigenvector of the largest eigenvalue, which repeated squaring of the shifted
    matrix leaves over.

    Arguments:
        source, goal: shape (batch, points, 3), with their weighted means at 0.
        weights: shape (batch or 1, points, 1), or None.

    Returns:
        Shape (batch, 3, 3).
    """
    left = source if weights is None else source * weights
    s = left.mT @ goal
    xx, xy, xz, yx, yy, yz, zx, zy, zz = s.flatten(1).unbind(1)
    rows = [
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    ]  # fmt: skip
    horn = torch.stack(rows, -1).reshape(-1, 4, 4)
    # N/|N| + 1 has no negative eigenvalue. Without points N is 0, and any rotation is right.
    size = horn.square().sum((1, 2), keepdim=True)
    unit = horn * torch.where(size > 0.0, size, 1.0).rsqrt()
    power = unit + torch.eye(4, dtype=s.dtype, device=s.device)
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # What is left is q q^T: its column of the largest diagonal entry is q, times a number.
    column = power.diagonal(dim1=1, dim2=2).argmax(1)
    return rotation(power.gather(2, column[:, None, None].expand(-1, 4, 1))[..., 0])


def as_points(x: Tensor) -> Tensor:
    """The state as points, (batch, points, 3)."""
    if x.is_complex():
        raise IncompatibleError(
            f"the state is {x.dtype}, but points in space are real; give this hook to a run of "
            "coordinates"
        )
    if x.ndim < 3 or x.shape[-1] != 3:
        raise ArgumentError(
            f"the state has shape {tuple(x.shape)}, but points in space have (batch, ..., points, "
            "3); give this hook to a run of coordinates"
        )
    return x.reshape(len(x), -1, 3)


def weights_of(given: Tensor | None, x: Tensor, points: Tensor, windows: Windows) -> Tensor | None:
    """The weights of the points, (batch or 1, points, 1)."""
    if given is None:
        return None
    own = cut(given, x.ndim - 1, windows)
    if own.shape not in (x.shape[1:-1], x.shape[:-1], (1, *x.shape[1:-1])):
        raise ArgumentError(
            f"the points have the weights of shape {tuple(own.shape)}, but the state of shape "
            f"{tuple(x.shape)} needs {tuple(x.shape[1:-1])} or {tuple(x.shape[:-1])}: one for each "
            "point"
        )
    return own.to(points).reshape(-1, points.shape[1], 1)


def center_of(points: Tensor, weights: Tensor | None) -> Tensor:
    """The weighted mean of the points, (batch, 1, 3)."""
    if weights is None:
        return points.mean(1, keepdim=True)
    total = weights.sum(1, keepdim=True)
    return (points * weights).sum(1, keepdim=True) / torch.where(total == 0.0, 1.0, total)
