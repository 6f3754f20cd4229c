"""The Gaussian mixture target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import ForwardProcess, Level
from srk.targets.base import DATA, Target, level_of, parameter, plain_level, signal
from srk.targets.conditioning import (
    Conditioned,
    LinearGaussian,
    condition,
    system_of,
    tilt,
    tilt_of,
)
from srk.targets.mixture_quantiles import distribution_function, quantiles

ELEMENTS = 2**24
"""Numbers of one intermediate array (64 MiB in float32); larger batches are computed in pieces."""


class GaussianMixture(Target):
    r"""Data from sum_k w_k N(m_k, C_k): D is the mean of the components' denoisers.

    With S_k = alpha^2 C_k + sigma^2 I and p_k proportional to w_k N(x; alpha m_k, S_k):

    $$
    D = \sum_k p_k \big[m_k + \alpha C_k S_k^{-1} (x - \alpha m_k)\big], \qquad
    s = -\sum_k p_k S_k^{-1} (x - \alpha m_k)
    $$

    Arguments:
        weights: w, shape (K,), positive; normalized to sum 1.
        means: m, shape (K, d); (K,) is read as (K, 1).
        stds: standard deviations, shape (K,) (isotropic components) or (K, d) (diagonal),
            positive. For points use `Empirical`.
        covariances: C, full matrices (K, d, d), symmetric and positive semi-definite, instead of
            `stds`.

    Raises:
        ArgumentError: shapes that do not match; a weight, standard deviation or variance that is
            not positive.

    Examples:
        >>> import torch
        >>> from srk.processes import VP
        >>> target = GaussianMixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])
        >>> x = target.sample(4, VP(), t=1.0, seed=0)
        >>> target.denoise(x, VP().level(1.0)).shape
        torch.Size([4, 1])
        >>> float(target.quantile(target.cdf(0.3)).round(decimals=12))
        0.3
    """

    def __init__(
        self,
        weights: Sequence[float] | Tensor,
        means: object,
        stds: object = None,
        *,
        covariances: object = None,
    ) -> None:
        w, m = parameter(weights, "the weights"), parameter(means, "the means")
        if w.ndim != 1 or w.numel() == 0 or float(w.min()) <= 0.0:
            raise ArgumentError(
                f"the weights are K positive numbers, not {weights!r}; leave out components of "
                "weight 0"
            )
        k = w.numel()
        if m.ndim == 1:
            m = m[:, None]
        if m.ndim != 2 or m.shape[0] != k:
            raise ArgumentError(
                f"the means have shape {tuple(m.shape)}; for {k} weights it is ({k}, d)"
            )
        if (stds is None) == (covariances is None):
            raise ArgumentError(
                "the widths of the components are given by stds or by covariances, one of them; "
                "e.g. GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.2, 0.2])"
            )
        self._bases: Tensor | None = None
        if covariances is None:
            s = self._check_stds(stds, m)
            self._variances = (s if s.ndim == 2 else s[:, None]).square()
        else:
            c = parameter(covariances, "the covariances")
            self._variances, self._bases = self._check_covariances(c, m)
            s = self._variances.sqrt()
        super().__init__((m.shape[1],))
        self.weights, self.means, self.stds = w / w.sum(), m, s
        self._log_weights = self.weights.log()

    @staticmethod
    def _check_stds(stds: object, means: Tensor) -> Tensor:
        s = parameter(stds, "the standard deviations")
        k = len(means)
        if tuple(s.shape) not in ((k,), tuple(means.shape)):
            raise ArgumentError(
                f"the standard deviations have shape {tuple(s.shape)}; for means of shape "
                f"{tuple(means.shape)} it is ({k},) or that"
            )
        if float(s.min()) <= 0.0:
            raise ArgumentError(
                f"the standard deviations must be positive, not {stds!r}; for points of no width "
                "use srk.targets.Empirical"
            )
        return s

    @staticmethod
    def _check_covariances(c: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        k, d = means.shape
        if tuple(c.shape) != (k, d, d):
            raise ArgumentError(
                f"the covariances have shape {tuple(c.shape)}; for means of shape {(k, d)} it is "
                f"{(k, d, d)}"
            )
        if not torch.allclose(c, c.mT, rtol=1e-8, atol=1e-12 * float(c.abs().max())):
            raise ArgumentError("the covariances must be symmetric matrices")
        variances, bases = torch.linalg.eigh((c + c.mT) / 2)
        if float(variances.min()) < -1e-10 * float(variances.max()):
            raise ArgumentError(
                f"a covariance has the negative variance {float(variances.min())!r}; every "
                "variance must be >= 0"
            )
        return variances.clamp_min(0.0), bases

    def full_covariances(self) -> Tensor:
        """The covariances of the components as matrices (K, d, d), float64 on the CPU."""
        variances = self._variances.expand(len(self.weights), self.dimension)
        if self._bases is None:
            return torch.diag_embed(variances)
        return (self._bases * variances[:, None, :]) @ self._bases.mT

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of the data, float64 on the CPU.

        Examples:
            >>> mean, covariance = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.5, 0.5]).moments()
            >>> mean, covariance
            (tensor([0.], dtype=torch.float64), tensor([[1.2500]], dtype=torch.float64))
        """
        mean = self.weights @ self.means
        apart = self.means - mean
        between = (self.weights[:, None] * apart).mT @ apart
        within = (self.weights[:, None, None] * self.full_covariances()).sum(0)
        return mean, within + between

    def assign(self, x: Tensor) -> Tensor:
        """Probabilities of the components given samples `x` (n, d) of the data, shape (n, K)."""
        return torch.cat([p for p, _ in self._responsibilities(x, DATA)])

    def posterior(self, measurement: LinearGaussian) -> GaussianMixture:
        """The distribution of the data given a linear measurement with Gaussian noise.

        It is a mixture again, of as many components; those whose weight is 0 in float64 are left
        out.

        Arguments:
            measurement: a `srk.posterior.Measurement`.

        Returns:
            A mixture with full covariances.

        Examples:
            >>> import srk, torch
            >>> prior = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.3, 0.3])
            >>> y = torch.tensor([0.9])
            >>> measurement = srk.posterior.Measurement(torch.eye(1), y, noise_std=0.1)
            >>> prior.posterior(measurement).means.round(decimals=3)
            tensor([[0.7100],
                    [0.9100]], dtype=torch.float64)
        """
        return self._changed(self._conditioned(measurement))

    def log_evidence(self, measurement: LinearGaussian) -> float:
        """log p(y) of a linear measurement with Gaussian noise, in nats."""
        return float(torch.logsumexp(self._joint(self._conditioned(measurement)), 0))

    def tilted(self, linear: object, quadratic: object = None) -> GaussianMixture:
        """The distribution with density proportional to that of the data times a tilt.

        The tilt is exp(b.x - x.C x/2); the result is a mixture again.

        Arguments:
            linear: b, shape (d,), or a number for all coordinates.
            quadratic: C, a number, (d,) for a diagonal, or a symmetric matrix (d, d); default 0.

        Raises:
            ArgumentError: shapes that do not match, or a product without a finite integral.

        Examples:
            >>> prior = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.5, 0.5])
            >>> prior.tilted(2.0).weights.round(decimals=3)
            tensor([0.0180, 0.9820], dtype=torch.float64)
        """
        return self._changed(self._tilted(linear, quadratic))

    def log_tilt(self, linear: object, quadratic: object = None) -> float:
        """log E exp(b.x - x.C x/2) over the data, the normaliser of `tilted`."""
        return float(torch.logsumexp(self._joint(self._tilted(linear, quadratic)), 0))

    def _conditioned(self, measurement: LinearGaussian) -> list[Conditioned]:
        system = system_of(measurement, self.event_shape)
        return [
            condition(m, c, *system)
            for m, c in zip(self.means, self.full_covariances(), strict=True)
        ]

    def _tilted(self, linear: object, quadratic: object) -> list[Conditioned]:
        b, c = tilt_of(linear, quadratic, self.dimension)
        return [tilt(m, s, b, c) for m, s in zip(self.means, self.full_covariances(), strict=True)]

    def _joint(self, parts: list[Conditioned]) -> Tensor:
        changes = torch.tensor([part.log_weight for part in parts], dtype=torch.float64)
        return self._log_weights + changes

    def _changed(self, parts: list[Conditioned]) -> GaussianMixture:
        weights = torch.softmax(self._joint(parts), 0)
        kept = [k for k in range(len(parts)) if float(weights[k]) > 0.0]
        return GaussianMixture(
            weights[kept],
            torch.stack([parts[k].mean for k in kept]),
            covariances=torch.stack([parts[k].covariance for k in kept]),
        )

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        means = self._on("means", x, self._checked(x).dtype)
        totals = self._totals(x, level).clamp_min(torch.finfo(torch.float64).tiny)
        gains = (level.alpha * self._on("_variances", x) / totals).to(means.dtype)
        parts = [
            p @ means + self._back(p[:, :, None] * gains * z)
            for p, z in self._responsibilities(x, level)
        ]
        return torch.cat(parts).to(x.dtype)

    def score_at(self, x: Tensor, level: Level) -> Tensor:
        """The score -sum_k p_k S_k^-1 (x - alpha m_k), without cancellation at small sigma."""
        self._need_density(level)
        rates = self._totals(x, level).reciprocal().to(self._checked(x).dtype)
        return torch.cat(
            [-self._back(p[:, :, None] * rates * z) for p, z in self._responsibilities(x, level)]
        ).to(x.dtype)

    def log_density(
        self, x: Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        level = level_of(process, t)
        x = signal(x, level, process)
        self._need_density(level)
        parts = [torch.logsumexp(logits, 1) + shift for logits, shift, _ in self._logits(x, level)]
        return torch.cat(parts).to(x.dtype)

    def _need_density(self, level: Level) -> None:
        if level.sigma == 0.0 and float(self._variances.min()) == 0.0:
            raise IncompatibleError(
                f"{self!r} has a component with a variance of 0, so it has no density without "
                "noise; choose t with sigma(t) > 0"
            )

    def _back(self, z: Tensor) -> Tensor:
        """The sum over components of vectors (batch, K, d) along their axes, as (batch, d)."""
        if self._bases is None:
            return z.sum(1)
        return torch.einsum("bke,kde->bd", z, self._on("_bases", z, z.dtype))

    def cdf(
        self, x: ArrayLike | Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        """Distribution function in one dimension, at own time `t` (of the data without it).

        Arguments:
            x: points, any shape.
            process, t: as in `log_density`.

        Returns:
            float64 tensor of the shape of `x`, on the CPU.

        Raises:
            IncompatibleError: more than one dimension.
        """
        centres, widths = self._components(plain_level(process, t))
        points = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64)
        below = distribution_function(points, centres, widths, self.weights.numpy())
        return torch.as_tensor(below)

    def quantile(
        self, q: ArrayLike | Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        """Inverse of `cdf`, for exact Wasserstein distances to samples; infinite at 0 and 1.

        Arguments:
            q: probabilities in [0, 1], any shape.
            process, t: as in `log_density`.

        Returns:
            float64 tensor of the shape of `q`, on the CPU.

        Raises:
            ArgumentError: a probability outside [0, 1].
            IncompatibleError: more than one dimension.
        """
        centres, widths = self._components(plain_level(process, t))
        q = np.asarray(q.detach().cpu() if isinstance(q, Tensor) else q, dtype=np.float64)
        if not bool(np.all((q >= 0.0) & (q <= 1.0))):
            raise ArgumentError("quantile needs probabilities in [0, 1]; some are outside or NaN")
        out = quantiles(q, centres, widths, self.weights.numpy())
        return torch.as_tensor(out)

    def draw(
        self, n: int, *, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=dtype, device=device)
        u = torch.rand(
            (n,),
            generator=generator,
            dtype=torch.float64 if device.type != "mps" else torch.float32,
            device=device,
        )
        k = torch.searchsorted(self._on("weights", u).cumsum(0), u, right=True).clamp_max(
            self.weights.numel() - 1
        )
        means, stds = self._on("means", z, dtype)[k], self._on("_variances", z).sqrt().to(dtype)[k]
        if self._bases is None:
            return torch.addcmul(means, stds, z)
        turned = torch.stack([(stds * z) @ basis.mT for basis in self._on("_bases", z, dtype)])
        return means + turned[k, torch.arange(n, device=device)]

    def _totals(self, x: Tensor, level: Level) -> Tensor:
        return level.alpha**2 * self._on("_variances", x) + level.sigma**2

    def _responsibilities(self, x: Tensor, level: Level) -> Iterator[tuple[Tensor, Tensor]]:
        for logits, _, z in self._logits(x, level):
            yield torch.softmax(logits, 1), z

    def _logits(self, x: Tensor, level: Level) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pieces of the batch: log(w_k N(x; alpha m_k, S_k)) less a shift, (batch, K); the shift;
        x - alpha m_k along the axes of component k, (batch, K, d).
        """
        x = self._checked(x)
        totals = self._totals(x, level)
        constants = self._on("_log_weights", x) - 0.5 * torch.log(2.0 * math.pi * totals).sum(1) * (
            self.dimension / totals.shape[1]
        )
        shift = constants.max()
        constants, shift = (constants - shift).to(x.dtype), shift.to(x.dtype)
        rates = totals.reciprocal().to(x.dtype)
        centres = (level.alpha * self._on("means", x)).to(x.dtype)
        bases = None if self._bases is None else self._on("_bases", x, x.dtype)
        for piece in torch.split(x, max(1, ELEMENTS // centres.numel())):
            z = piece[:, None, :] - centres
            if bases is not None:
                z = torch.einsum("bkd,kde->bke", z, bases)
            yield constants - 0.5 * (z.square() * rates).sum(2), shift, z

    def _components(self, level: Level) -> tuple[Any, Any]:
        """Means and standard deviations of the components at `level`, in one dimension."""
        if self.event_shape != (1,):
            raise IncompatibleError(
                f"{self!r} has {self.dimension} dimensions; cdf and quantile exist in one "
                "dimension only"
            )
        centres, totals = (
            level.alpha * self.means[:, 0],
            level.alpha**2 * self._variances[:, 0] + level.sigma**2,
        )
        return centres.numpy(), totals.sqrt().numpy()

    def __repr__(self) -> str:
        return f"GaussianMixture({self.weights.numel()} components, event_shape={self.event_shape})"
