"""The Gaussian target."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import ForwardProcess, Level
from srk.targets.base import Target, event_of, level_of, parameter, plain_level, signal
from srk.targets.conditioning import (
    Conditioned,
    LinearGaussian,
    condition,
    system_of,
    tilt,
    tilt_of,
)


class Gaussian(Target):
    """Data from N(m, C): D = m + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha m), linear in x.

    Arguments:
        mean: m, a number or a tensor of shape `event`.
        covariance: C: a number >= 0 (isotropic variance), a tensor of shape `event` (a variance for
            each coordinate), or a full matrix (d, d) over the flattened event, d = number of
            coordinates. A tensor of shape `event` is always read as variances.
        event_shape: shape of one sample; needed only when `mean` is a number (default (1,)).

    Raises:
        ArgumentError: shapes that do not match, a negative variance, a matrix that is not symmetric
            positive semi-definite.

    Examples:
        >>> import torch
        >>> from srk.processes import VP
        >>> target = Gaussian([1.0, -1.0], [[1.0, 0.5], [0.5, 1.0]])
        >>> target.sample(3, VP(), t=0.5, seed=0).shape
        torch.Size([3, 2])
        >>> mean, covariance = target.moments()
        >>> covariance
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]], dtype=torch.float64)
    """

    def __init__(
        self,
        mean: float | Sequence[float] | Tensor,
        covariance: object = 1.0,
        *,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        if event_shape is not None:
            event_shape = event_of(event_shape)
        m, c = parameter(mean, "the mean"), parameter(covariance, "the covariance")
        if m.ndim == 0:
            m = m.expand(tuple(event_shape) if event_shape is not None else (1,)).clone()
        elif event_shape is not None and tuple(event_shape) != tuple(m.shape):
            raise ArgumentError(
                f"event_shape = {tuple(event_shape)} does not match the mean, which has shape "
                f"{tuple(m.shape)}; leave it out"
            )
        super().__init__(tuple(m.shape))
        self.mean, self.covariance = m, c
        self._basis: Tensor | None = None
        d = self.dimension
        if c.ndim == 0 or c.shape == m.shape:
            self._variances = c
        elif tuple(c.shape) == (d, d):
            if not torch.allclose(c, c.mT, rtol=1e-8, atol=1e-12 * float(c.abs().max())):
                raise ArgumentError(
                    "the covariance must be symmetric; it differs from its transpose by "
                    f"{float((c - c.mT).abs().max())!r}"
                )
            self._variances, self._basis = torch.linalg.eigh((c + c.mT) / 2)
            # Rounding leaves a singular matrix with eigenvalues a little below zero.
            floor = -1e-10 * float(self._variances.abs().max())
            self._variances = torch.where(
                self._variances >= floor, self._variances.clamp_min(0.0), self._variances
            )
        else:
            raise ArgumentError(
                f"the covariance has shape {tuple(c.shape)}; for samples of shape "
                f"{self.event_shape} it is a number, variances of shape "
                f"{self.event_shape}, or a matrix of shape {(d, d)}"
            )
        if float(self._variances.min()) < 0.0:
            raise ArgumentError(
                f"the covariance has the negative variance {float(self._variances.min())!r}; "
                "every variance must be >= 0"
            )

    def moments(
        self, process: ForwardProcess | None = None, t: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean alpha m and covariance alpha^2 C + sigma^2 at own time `t`, float64 on the CPU.

        Arguments:
            process: a linear process; without it, the moments of the data.
            t: a time in the process's own time.

        Returns:
            The mean, of shape `event`, and the covariance in the form in which it was given: shape
            (), `event` or (d, d).
        """
        level = plain_level(process, t)
        noise: Tensor | float = level.sigma**2
        if self._basis is not None:
            noise = level.sigma**2 * torch.eye(self.dimension, dtype=torch.float64)
        return level.alpha * self.mean, level.alpha**2 * self.covariance + noise

    @property
    def axes(self) -> tuple[Tensor, Tensor | None]:
        """The variances along the axes of the covariance, and the axes where it is a matrix."""
        return self._variances, self._basis

    def full_covariance(self) -> Tensor:
        """The covariance as a matrix (d, d) over the flattened event, float64 on the CPU."""
        if self._basis is not None:
            return (self._basis * self._variances) @ self._basis.mT
        return self._variances.reshape(-1).expand(self.dimension).diag()

    def posterior(self, measurement: LinearGaussian) -> Gaussian:
        """The distribution of the data given a linear measurement with Gaussian noise.

        Arguments:
            measurement: a `srk.posterior.Measurement`.

        Returns:
            A Gaussian with a full covariance, of the same event shape.

        Examples:
            >>> import srk, torch
            >>> A = torch.tensor([[1.0, 0.0]])
            >>> measurement = srk.posterior.Measurement(A, torch.tensor([1.0]), noise_std=1.0)
            >>> Gaussian([0.0, 0.0], 1.0).posterior(measurement).mean
            tensor([0.5000, 0.0000], dtype=torch.float64)
        """
        system = system_of(measurement, self.event_shape)
        return self._changed(condition(self.mean.flatten(), self.full_covariance(), *system))

    def log_evidence(self, measurement: LinearGaussian) -> float:
        """log p(y) of a linear measurement with Gaussian noise, in nats."""
        system = system_of(measurement, self.event_shape)
        return condition(self.mean.flatten(), self.full_covariance(), *system).log_weight

    def tilted(self, linear: object, quadratic: object = None) -> Gaussian:
        """The distribution with density proportional to that of the data times a tilt.

        The tilt is exp(b.x - x.C x/2) over the flattened event.

        Arguments:
            linear: b, shape (d,), or a number for all coordinates.
            quadratic: C, a number, (d,) for a diagonal, or a symmetric matrix (d, d); default 0.

        Raises:
            ArgumentError: shapes that do not match, or a product without a finite integral.
        """
        b, c = tilt_of(linear, quadratic, self.dimension)
        return self._changed(tilt(self.mean.flatten(), self.full_covariance(), b, c))

    def log_tilt(self, linear: object, quadratic: object = None) -> float:
        """log E exp(b.x - x.C x/2) over the data, the normaliser of `tilted`."""
        b, c = tilt_of(linear, quadratic, self.dimension)
        return tilt(self.mean.flatten(), self.full_covariance(), b, c).log_weight

    def _changed(self, made: Conditioned) -> Gaussian:
        if self.event_shape == (1,):
            return Gaussian(made.mean, made.covariance[0])
        return Gaussian(made.mean.reshape(self.event_shape), made.covariance)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        z, total, variances = self._residual(x, level)
        gain = level.alpha * variances / total.clamp_min(torch.finfo(total.dtype).tiny)
        return self._apply(gain, z).add(self._on("mean", x, z.dtype)).to(x.dtype)

    def score_at(self, x: Tensor, level: Level) -> Tensor:
        """The score -(alpha^2 C + sigma^2)^-1 (x - alpha m); nothing cancels at small sigma."""
        z, total, _ = self._residual(x, level)
        self._need_density(level)
        return self._apply(-1.0 / total, z).to(x.dtype)

    def log_density(
        self, x: Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        level = level_of(process, t)
        x = signal(x, level, process)
        z, total, _ = self._residual(x, level)
        self._need_density(level)
        whitened = self._apply(total.rsqrt(), z).flatten(1)
        volume = torch.log(2.0 * math.pi * total).sum() * (self.dimension / total.numel())
        return (-0.5 * (whitened.square().sum(1) + volume.to(z.dtype))).to(x.dtype)

    def draw(
        self, n: int, *, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=dtype, device=device)
        work = z.to(torch.promote_types(dtype, torch.float32))
        return (
            self._apply(self._on("_variances", work).sqrt(), work)
            .add(self._on("mean", work, work.dtype))
            .to(dtype)
        )

    def _residual(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """x - alpha m; the variances at `level` and those of the data, along the axes."""
        z = self._checked(x)
        variances = self._on("_variances", x)
        return (
            z.sub(self._on("mean", x, z.dtype), alpha=level.alpha),
            level.alpha**2 * variances + level.sigma**2,
            variances,
        )

    def _apply(self, diagonal: Tensor, z: Tensor) -> Tensor:
        """The function of the covariance with eigenvalues `diagonal`, times `z` (batch, *event)."""
        diagonal = diagonal.to(z.dtype)
        if self._basis is None:
            return z * diagonal
        basis = self._on("_basis", z, z.dtype)
        return (((z.flatten(1) @ basis) * diagonal) @ basis.mT).reshape(z.shape)

    def _need_density(self, level: Level) -> None:
        if level.sigma == 0.0 and float(self._variances.min()) == 0.0:
            raise IncompatibleError(
                f"{self!r} has a variance of 0, so that it has no density without noise; choose t "
                "with sigma(t) > 0"
            )

    def __repr__(self) -> str:
        kind = (
            "full"
            if self._basis is not None
            else "isotropic"
            if self.covariance.ndim == 0
            else "diagonal"
        )
        return f"Gaussian(event_shape={self.event_shape}, {kind} covariance)"
