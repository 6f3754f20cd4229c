"""Critically damped Langevin diffusion."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import numpy as np

from srk.errors import ArgumentError
from srk.processes.kernel import Array
from srk.processes.parameters import check_range, parameter
from srk.processes.phase import PhaseProcess


@attrs.frozen
class CLD(PhaseProcess):
    r"""Critically damped Langevin diffusion.

    Data x with a velocity v, noise enters the velocity only.

    $$
    dx = \tfrac{\beta}{M} v\, dt, \qquad
    dv = -\beta \big(x + \tfrac{\Gamma}{M} v\big) dt + \sqrt{2 \Gamma \beta}\; dW, \qquad
    \Gamma^2 = 4 M
    $$

    with v_0 ~ N(0, gamma M) and the equilibrium N(0, 1) N(0, M). In B = beta t, with kappa =
    1/sqrt(M), the transition is Psi = e^{-kappa B} [[1 + kappa B, B/M], [-B, 1 - kappa B]]. States
    have shape (batch, 2, *event): x in [:, 0], v in [:, 1].

    Arguments:
        beta: rate, per unit of own time.
        mass: M, the variance of the velocity in equilibrium.
        velocity_scale: gamma, variance of the velocity at t = 0 in units of M.
        t_min: own time at which the reversal ends; 0 is allowed (the last step is then the
            denoiser).
        t_max: own time at which the reversal starts.

    Source: Dockhorn, Vahdat, Kreis 2022, "Score-based generative modeling with critically-damped
    Langevin diffusion", arXiv 2112.07068, eq. 5 and appendix B; the defaults are those of its image
    models.

    Examples:
        >>> import srk
        >>> process, target = srk.CLD(), srk.targets.Gaussian(0.5, 0.04)
        >>> sol = srk.solve(process, target.score(process), "srk2m", shape=4, nfe=20, seed=0)
        >>> sol.x.shape, sol.x[:, 0].shape  # state, data
        (torch.Size([4, 2, 1]), torch.Size([4, 1]))
    """

    name: ClassVar[str] = "cld"

    beta: float = parameter(4.0)
    mass: float = parameter(0.25)
    velocity_scale: float = parameter(0.04)
    t_min: float = parameter(1e-3)
    t_max: float = parameter(1.0)

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        if not (self.beta > 0.0 and self.mass > 0.0 and 0.0 < self.velocity_scale < 2.0):
            raise ArgumentError(
                "CLD needs beta > 0, mass > 0 and 0 < velocity_scale < 2, not beta = "
                f"{self.beta!r}, mass = {self.mass!r}, "
                f"velocity_scale = {self.velocity_scale!r}; the usual values are 4, 0.25 and 0.04"
            )

    @property
    def friction(self) -> float:
        """Gamma = 2 sqrt(M), at which the oscillation just disappears."""
        return 2.0 * math.sqrt(self.mass)

    @property
    def auxiliary_variance(self) -> tuple[float, ...]:
        return (self.velocity_scale * self.mass,)

    @property
    def equilibrium(self) -> Array:
        """Covariance diag(1, M) that the forward process approaches."""
        return np.diag([1.0, self.mass])

    def drift_matrix(self, t: float) -> Array:
        return self.beta * np.array([[0.0, 1.0 / self.mass], [-1.0, -self.friction / self.mass]])

    def diffusion(self, t: float) -> Any:
        return np.array([[0.0, 0.0], [0.0, math.sqrt(2.0 * self.friction * self.beta)]])

    def transition(self, start: float, stop: float) -> tuple[Array, Array]:
        from scipy.special import gammainc  # scipy is slow to import

        M, b = self.mass, self.beta * (stop - start)
        kappa = 1.0 / math.sqrt(M)
        y, decay = kappa * b, math.exp(-kappa * b)
        psi = decay * np.array([[1.0 + y, b / M], [-b, 1.0 - y]])
        # 2 Gamma int_0^b u u^T with u = e^{-kappa s} (s/M, 1 - kappa s); in s = y/kappa the
        # integrals are incomplete gamma functions
        i0, i1, i2 = (
            math.factorial(n) / 2.0 ** (n + 1) * float(gammainc(n + 1, 2.0 * y)) for n in range(3)
        )
        xx, xv, vv = (
            4.0 * i2,
            2.0 * y * y * decay * decay * math.sqrt(M),
            4.0 * M * (i0 - 2.0 * i1 + i2),
        )
        return psi, np.array([[xx, xv], [xv, vv]])
