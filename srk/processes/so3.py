"""Rotations in space."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor

from srk._checks import choice
from srk.errors import ArgumentError
from srk.processes import heat, rotations
from srk.processes.manifold import ManifoldProcess, Schedule, _schedule, precise, variance_like
from srk.processes.parameters import parameter


def _frame(value: Any) -> Any:
    return choice(value, ("body", "space"), "frame")


@attrs.frozen
class SO3(ManifoldProcess):
    """Rotations: Brownian motion on SO(3), for a protein's frames or a ligand's pose (IGSO(3)).

    A rotation is a vector along its axis, as long as its angle in radians; the state has the shape
    (batch, ..., 3). `matrix` gives the matrices, `from_matrix` the vectors. The network gets these
    vectors, and returns the score as a tangent vector of the same shape (`srk.Score`, or a bare
    callable), or the rotations without noise (`srk.Data`), whose score is that of IGSO(3) around
    them.

    Reversed by `euler-maruyama` (at eta = 0: Euler's method for the probability-flow ODE), whose
    increments go through the exponential map.

    Arguments:
        sigma_min: noise at t = 0, in radians; the samples keep it.
        sigma_max: noise at t = 1. The density is then between 0.69 and 1.98 of the uniform one, as
            in FrameDiff; with sigma_max=3 it is uniform to 0.2%.
        schedule: "log" or "exponential": see `ManifoldProcess`.
        frame: in which frame tangent vectors are written. "body": the rotation comes out as its
            matrix times that of the increment. "space": the increment's matrix times that of the
            rotation.

    Source: Yim et al., "SE(3) diffusion model with application to protein backbone generation"
    (FrameDiff), 2023; Leach et al., "Denoising Diffusion Probabilistic Models on SO(3)", 2022.
    DiffDock (Corso et al., 2023) turns in the frame of space, with sigma from 0.03 to 1.55 and
    schedule="exponential".

    Examples:
        >>> import srk, torch
        >>> process = srk.SO3(sigma_max=3.0)
        >>> target = srk.targets.RotationMixture([1.0], [[0.0, 0.0, 2.0]], [0.1])
        >>> score = target.score(process)
        >>> sol = srk.solve(process, score, "euler-maruyama", shape=(200, 3), steps=50, seed=0)
        >>> process.matrix(sol.x).shape, bool(sol.x[:, 2].abs().mean() > 1.5)
        (torch.Size([200, 3, 3]), True)
    """

    name: ClassVar[str] = "so3"

    sigma_min: float = parameter(0.1)
    sigma_max: float = parameter(1.5)
    schedule: Schedule = attrs.field(default="log", converter=_schedule, kw_only=True)
    frame: Literal["body", "space"] = attrs.field(default="body", converter=_frame, kw_only=True)

    @staticmethod
    def matrix(x: Tensor) -> Tensor:
        """Rotation matrices (..., 3, 3) of rotation vectors (..., 3)."""
        return rotations.to_matrix(_vectors(x))

    @staticmethod
    def from_matrix(matrices: Tensor) -> Tensor:
        """Rotation vectors (..., 3) of rotation matrices (..., 3, 3)."""
        return rotations.from_matrix(matrices)

    def retract(self, x: Tensor, dx: Tensor) -> Tensor:
        x = _vectors(x)
        return rotations.compose(x, dx) if self.frame == "body" else rotations.compose(dx, x)

    def between(self, x0: Tensor, x: Tensor) -> Tensor:
        """The tangent vector that leads from the rotations `x0` to `x`, at most pi long."""
        back = -_vectors(x0)
        return rotations.compose(back, x) if self.frame == "body" else rotations.compose(x, back)

    def move(self, x0: Tensor, normals: Tensor, variance: float | Tensor) -> Tensor:
        kind = precise(x0)
        z = _vectors(normals).to(kind)
        s = variance_like(variance, z)
        radius = rotations.length(z)
        angle = heat.rotation_angle(radius, s)
        return self.retract(x0.to(kind), z * (angle / radius)).to(x0.dtype)

    def log_kernel(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        angle, _, s = self._apart(x, x0, variance)
        return heat.rotation_log_kernel(angle, s)[..., 0].to(x.dtype)

    def kernel_score(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        angle, turn, s = self._apart(x, x0, variance)
        return (turn * heat.rotation_slope(angle, s)).to(x.dtype)

    def _apart(
        self, x: Tensor, x0: Tensor, variance: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Angle (..., 1) and tangent vector (..., 3) from `x0` to `x`, and the variance."""
        kind = precise(x)
        turn = self.between(x0.to(kind), x.to(kind))
        return rotations.length(turn), turn, variance_like(variance, turn)

    def uniform(self, normals: Tensor) -> Tensor:
        z = _vectors(normals).to(precise(normals))
        radius = rotations.length(z)
        return (z * (heat.uniform_angle(radius) / radius)).to(normals.dtype)


def _vectors(x: Tensor) -> Tensor:
    if x.ndim < 1 or x.shape[-1] != 3:
        raise ArgumentError(
            "rotations are vectors along their axes, whose last axis has three entries, not "
            f"tensors of shape {tuple(x.shape)}; srk.SO3.from_matrix(matrices) makes them of "
            "matrices"
        )
    return x
