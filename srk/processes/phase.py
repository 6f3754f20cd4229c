"""Phase-space processes.

Linear diffusions of the data together with auxiliary variables, and the one number per coordinate
that they know.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch

from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.processes.elementwise import elementwise, is_number, ones_like, per_sample
from srk.processes.kernel import Array, PhaseKernel, kernel_of, mix
from srk.processes.linear_flow import linear_flow
from srk.processes.parameters import check_data
from srk.values import NotAValue, Remembered
from srk.values import value as key_of


class PhaseProcess(ForwardProcess):
    r"""A process dz = F(t) z dt + G(t) dW of k components.

    The first component starts as the data, and the others as Gaussian noise.

    The state is a tensor of shape (batch, k, *event); F and G are k x k and act on the component
    axis alone, so that `z.flatten(1, 2)` is the network input of methods that concatenate the
    components along the channels. A subclass gives `drift_matrix`, `diffusion`,
    `auxiliary_variance`, `t_min` and `t_max`, and `transition` where it has a closed form; for the
    kernel the process starts at t = 0. Kernels are remembered, so a process is a value: an
    `attrs.frozen` class whose attributes do not change.

    Given the data, z_t is Gaussian with a mean a(t) x0, so one number per coordinate of the data, m
    = rho^2 a^T C^-1 z = x0 + rho eps, is a sufficient statistic: the denoiser and the whole score
    follow from D(m) = E[x0 | m],

    $$
    E[x_0 \mid z] = D(m), \qquad \nabla \log p(z) = C^{-1} (a D(m) - z)
    $$

    `statistic` is that linear process (alpha = 1, sigma = rho(t)); `level`, `lam` and `time` are
    its.

    Examples:
        >>> from srk.processes import CLD
        >>> level = CLD().level(1.0)
        >>> level.alpha, round(level.sigma, 1), round(level.lam, 2)
        (1.0, 247.6, -5.51)
    """

    components: int = 2

    @abstractmethod
    def drift_matrix(self, t: float) -> Array:
        """F(t) at own time `t`, shape (k, k)."""

    @abstractmethod
    def diffusion(self, t: float) -> Any:
        """G(t) at own time `t`, shape (k, k)."""

    @property
    @abstractmethod
    def auxiliary_variance(self) -> tuple[float, ...]:
        """Variances of the k - 1 auxiliary components at t = 0.

        There they have mean 0 and know nothing of the data.
        """

    def transition(self, start: float, stop: float) -> tuple[Array, Array]:
        """(Psi, Q) with z_stop = Psi z_start + N(0, Q), forward in own time.

        From `start` to `stop` >= `start`; here by collocation, to about 1e-13.
        """
        # A kernel asks from 0 on: from the last anchor, where anchors can be remembered
        if start == 0.0 and stop > 0.0 and _is_value(self):
            anchor = int(_ANCHORS * stop / self.t_max)
            (psi, q), (psi1, q1) = (
                _anchored(self, anchor),
                _transition(self, self.t_max * anchor / _ANCHORS, stop),
            )
            return psi1 @ psi, psi1 @ q @ psi1.T + q1
        return _transition(self, start, stop)

    def kernel(self, t: float) -> PhaseKernel:
        """The distribution of z_t given the data, at own time `t`."""
        t = float(t)
        kernel: PhaseKernel = _KERNELS.get(lambda: _kernel(self, t), "kernel", self, t)
        return kernel

    @property
    def statistic(self) -> Statistic:
        """The linear process m = x0 + rho(t) eps of the sufficient statistic, in own time."""
        return Statistic(self)

    def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
        """F(t) z for states of shape (batch, k, *event)."""
        return mix(self.drift_matrix(t), x)

    def reverse_drift(self, level: Level, eta: float) -> tuple[Array, Array]:
        """(A, B), shapes (k, k), from F, G and the score C^-1 (a D - z)."""
        half = 0.5 * (1.0 + eta * eta)
        kernel, g = self.kernel(level.t), self.diffusion(level.t)
        pull = half * g @ g.T @ np.linalg.inv(kernel.covariance)
        lift = np.zeros_like(pull)
        lift[:, 0] = pull @ kernel.mean
        return -self.drift_matrix(level.t) - pull, lift

    def flow_given_data(self, start: Level, stop: Level, eta: float) -> tuple[Array, Array, Array]:
        """The exact flow of the reverse family given the data, by collocation: see `linear_flow`.

        dPhi/dt = (F + (1 + eta^2)/2 G G^T C^-1) Phi.
        """

        def blocks(t: float) -> tuple[Array, Array, Array]:
            kernel, g = self.kernel(t), self.diffusion(t)
            square = g @ g.T
            pull = 0.5 * (1.0 + eta**2) * square @ np.linalg.inv(kernel.covariance)
            return (
                self.drift_matrix(t) + pull,
                eta**2 * square,
                -pull @ kernel.mean * (-np.log(kernel.rho) - start.lam),
            )

        return linear_flow(blocks, self.components, start.t, stop.t)

    def read_score(self, t: float) -> tuple[Array, Array]:
        """(w, w C^-1) with w = G u/(u . u), u = G^T C^-1 a: D follows from G^T s = G^T C^-1 (a D -
        z).
        """
        kernel, g = self.kernel(t), self.diffusion(t)
        inverse = np.linalg.inv(kernel.covariance)
        u = g.T @ inverse @ kernel.mean
        weights = g @ u / (u @ u)
        return weights, weights @ inverse

    @property
    def prior_factor(self) -> Array:
        """Lower-triangular L with L L^T = C(t_max).

        The reversal starts from L eps, shape (k, k).
        """
        return np.linalg.cholesky(self.kernel(self.t_max).covariance)

    def initial_state(self, normals: torch.Tensor) -> torch.Tensor:
        """`normals`, of shape (batch, k, *event), mixed by `prior_factor`."""
        self.check_shape(normals.shape)
        return mix(self.prior_factor, normals)

    def data_scale(self, t: float) -> float:
        """The weight of the data in the first component at own time `t`."""
        return abs(float(self.kernel(self.check_time(t)).mean[0]))

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Draw states of shape `shape` = (batch, k, *event) from N(0, C(t_max))."""
        self.check_shape(shape)
        return mix(
            self.prior_factor,
            torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype),
        )

    def perturb(
        self, x0: torch.Tensor, t: float | torch.Tensor, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draw z_t, shape (batch, k, *event), given data.

        Arguments:
            x0: data, shape (batch, *event).
            t: own time, one number or a tensor of shape (batch,) on any device.
            generator: where the normals come from; PyTorch's global one by default.
        """
        check_data(x0)
        if isinstance(t, torch.Tensor) and t.ndim:
            per_sample(float, t, x0)  # checks the shape
            each = zip(x0, t.tolist(), strict=True)
            return torch.cat([self.perturb(x[None], s, generator=generator) for x, s in each])
        kernel = self.kernel(self.check_time(float(t)))
        eps = torch.randn(
            (x0.shape[0], self.components, *x0.shape[1:]),
            generator=generator,
            device=x0.device,
            dtype=x0.dtype,
        )
        basis = np.column_stack([kernel.rho * kernel.mean, kernel.complement])
        z = mix(basis, eps)
        for i, a in enumerate(kernel.mean):
            z[:, i].add_(x0, alpha=float(a))
        return z

    def validate(self) -> None:
        """Raise unless the matrices fit and make a process that loses the data.

        The covariances must be positive definite, and the noise of the statistic must grow.
        """
        super().validate()
        k, previous = self.components, 0.0
        try:
            hash(self)
        except TypeError:
            raise ArgumentTypeError(
                f"the kernels of {self!r} are remembered, so it must be hashable; make "
                f"{type(self).__name__} an attrs.frozen class"
            ) from None
        if k < 2:
            raise ArgumentError(
                f"{self!r} needs at least two components, not {k!r}; a process of the data alone "
                "is an srk.LinearProcess"
            )
        if len(self.auxiliary_variance) != k - 1 or min(self.auxiliary_variance) < 0.0:
            raise ArgumentError(
                f"auxiliary_variance of {self!r} must hold {k - 1} variances >= 0, not "
                f"{self.auxiliary_variance!r}"
            )
        if self.t_min < 0.0:
            raise ArgumentError(
                f"{self!r} starts at t = 0, so t_min must be >= 0, not {self.t_min!r}"
            )
        for i in range(17):
            t = self.t_min + (self.t_max - self.t_min) * i / 16
            for name, value in (
                ("drift_matrix", self.drift_matrix(t)),
                ("diffusion", self.diffusion(t)),
            ):
                if np.shape(value) != (k, k) or not np.all(np.isfinite(value)):
                    raise ArgumentError(
                        f"{name}({t!r}) of {self!r} must be a finite {k} x {k} array, not {value!r}"
                    )
            rho = self.kernel(t).rho
            if not (rho > previous or i == 0):
                raise ArgumentError(
                    f"the noise rho of the statistic of {self!r} must grow with t, but it is "
                    f"{previous!r} and then {rho!r} at t = {t!r}"
                )
            previous = rho


@attrs.frozen
class Statistic(LinearProcess):
    """The sufficient statistic m = x0 + rho(t) eps of a phase-space process, as a linear process.

    Alpha = 1, sigma = rho.

    Along the reverse SDE of the phase-space process, m follows the reverse SDE of this process
    exactly (docs: Phase space).

    Arguments:
        phase: the phase-space process.
    """

    name = "statistic"
    phase: PhaseProcess

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.phase.t_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.phase.t_max

    def alpha(self, t: Any) -> Any:
        return ones_like(t)

    def sigma(self, t: Any) -> Any:
        if not is_number(t):
            return elementwise(self.sigma, t)
        if t == 0.0:
            return 0.0
        a, c, _ = _moments(self.phase, float(t))
        return float(a @ np.linalg.solve(c, a)) ** -0.5

    def log_alpha_rate(self, t: float) -> float:
        return 0.0

    def lam_rate(self, t: float) -> float:
        """d lam/dt = -(1/2) rho^2 |G^T C^-1 a|^2: the rate at which the reverse process learns."""
        rho = self.phase.kernel(t).rho
        return -math.inf if rho == 0.0 else -0.5 * (self.diffusion(t) / rho) ** 2

    def diffusion(self, t: float) -> float:
        """rho^2 |G^T C^-1 a| = |G^T w|."""
        kernel = self.phase.kernel(t)
        return float(np.linalg.norm(self.phase.diffusion(t).T @ kernel.reading))


def statistic(process: ForwardProcess) -> LinearProcess | None:
    """`process.statistic`, as a function."""
    return process.statistic


_KERNELS = Remembered(16 * 2**20)
"""Kernels and anchors of processes whose numbers cannot change unseen."""


def _is_value(process: PhaseProcess) -> bool:
    try:
        key_of(process)
    except NotAValue:
        return False
    return True


def _kernel(process: PhaseProcess, t: float) -> PhaseKernel:
    a, c, psi = _moments(process, t)
    return kernel_of(
        a, c, psi, np.asarray(process.auxiliary_variance), t == 0.0, f"{process!r} at t = {t!r}"
    )


def _moments(process: PhaseProcess, t: float) -> tuple[Array, Array, Array]:
    """(a, C, Psi) from the start to own time `t`; the auxiliary components are integrated out."""
    psi, q = process.transition(0.0, t)
    return psi[:, 0], q + (psi[:, 1:] * np.asarray(process.auxiliary_variance)) @ psi[:, 1:].T, psi


_ANCHORS = 64


def _anchored(process: PhaseProcess, anchor: int) -> tuple[Array, Array]:
    """The transition from 0 to an anchor, a multiple of t_max/64."""
    made: tuple[Array, Array] = _KERNELS.get(
        lambda: _make_anchor(process, anchor), "anchor", process, anchor
    )
    return made


def _make_anchor(process: PhaseProcess, anchor: int) -> tuple[Array, Array]:
    if anchor == 0:
        return np.eye(process.components), np.zeros((process.components, process.components))
    psi, q = _anchored(process, anchor - 1)
    psi1, q1 = _transition(
        process, process.t_max * (anchor - 1) / _ANCHORS, process.t_max * anchor / _ANCHORS
    )
    return psi1 @ psi, psi1 @ q @ psi1.T + q1


def _transition(process: PhaseProcess, start: float, stop: float) -> tuple[Array, Array]:
    k = process.components

    def blocks(t: float) -> tuple[Array, Array, Array]:
        g = process.diffusion(t)
        return process.drift_matrix(t), g @ g.T, np.zeros(k)

    psi, q, _ = linear_flow(blocks, k, start, stop)
    return psi, q
