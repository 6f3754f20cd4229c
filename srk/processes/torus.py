"""Angles, and everything else that comes back after a period."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from srk._checks import real
from srk.errors import ArgumentError
from srk.processes import heat
from srk.processes.manifold import ManifoldProcess, precise, variance_like
from srk.processes.parameters import parameter


def _period(value: Any) -> float:
    return real(value, "period", cure="it is a positive number, e.g. 2 * math.pi")


@attrs.frozen
class Torus(ManifoldProcess):
    """Angles: Brownian motion on circles, such as a molecule's torsions (wrapped normal).

    Every number of the state is an angle for itself, from -pi to pi; with another period they are
    whatever repeats, such as the fractional coordinates in a crystal. The network returns the score
    (`srk.Score`, or a bare callable), or the angles without noise (`srk.Data`), whose score is that
    of the wrapped normal distribution around them.

    Reversed by `euler-maruyama` and the tableaus, whose increments are added and wrapped.

    Arguments:
        sigma_min: noise at t = 0; the samples keep it.
        sigma_max: noise at t = 1; at half a period the distribution is uniform to 1.5%.
        schedule: "exponential" or "log": see `ManifoldProcess`.
        period: after which an angle comes back; sigma_min and sigma_max are in its unit. None for
            2 pi.

    Source: Jing et al., "Torsional Diffusion for Molecular Conformer Generation", 2022; Jiao et
    al., "Crystal Structure Prediction by Joint Equivariant Diffusion", 2023 (period 1).

    Examples:
        >>> import srk
        >>> torus = srk.Torus(sigma_max=6.0)
        >>> target = srk.targets.TorusMixture([0.3, 0.7], [[-3.0], [1.0]], [0.2, 0.3])
        >>> score = target.score(torus)
        >>> sol = srk.solve(torus, score, "euler-maruyama", shape=(500, 1), steps=50, seed=0)
        >>> bool((sol.x.abs() <= 3.1416).all()), round((sol.x.cos() > 0).float().mean().item(), 1)
        (True, 0.7)
    """

    name: ClassVar[str] = "torus"
    flat: ClassVar[bool] = True

    sigma_min: float = parameter(0.01 * math.pi)
    sigma_max: float = parameter(math.pi)
    period: float = attrs.field(default=2.0 * math.pi, converter=_period, kw_only=True)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.period > 0.0:
            raise ArgumentError(
                f"the period is a positive number, not {self.period!r}; e.g. srk.Torus(period=1.0, "
                "sigma_min=0.005, sigma_max=0.5)"
            )

    def wrap(self, x: Tensor) -> Tensor:
        """`x` in [-period/2, period/2]."""
        return x - self.period * torch.round(x / self.period)

    def retract(self, x: Tensor, dx: Tensor) -> Tensor:
        return self.wrap(x + dx)

    def move(self, x0: Tensor, normals: Tensor, variance: float | Tensor) -> Tensor:
        return self.wrap(x0 + normals * variance_like(variance, x0).sqrt())

    def log_kernel(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        angle, s, unit = self._inside(x, x0, variance)
        return (heat.circle_log_kernel(angle, s) + math.log(unit)).to(x.dtype)

    def kernel_score(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        angle, s, unit = self._inside(x, x0, variance)
        return (heat.circle_slope(angle, s) * unit).to(x.dtype)

    def _inside(
        self, x: Tensor, x0: Tensor, variance: float | Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """The angles between the states, the variance, and the radians in a unit of the state."""
        unit = 2.0 * math.pi / self.period
        kind = precise(x)
        angle = self.wrap(x.to(kind) - x0.to(kind)) * unit
        return angle, variance_like(variance, angle) * unit**2, unit

    def uniform(self, normals: Tensor) -> Tensor:
        level = torch.special.ndtr(normals.to(precise(normals)))
        return self.wrap((level - 0.5) * self.period).to(normals.dtype)
