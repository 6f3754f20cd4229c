"""The Gaussian mixture target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root
from scipy.special import ndtr, ndtri
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import Level, LinearProcess
from srk.targets.base import Target, level_of, parameter

ELEMENTS = 2**24
"""Numbers of one intermediate array (64 MiB in float32); larger batches are computed in pieces."""


class GaussianMixture(Target):
    r"""Data from sum_k w_k N(m_k, diag(s_k^2)): D is the mean of the components' denoisers, weighted by their responsibilities.

    With S_k = alpha^2 s_k^2 + sigma^2 and p_k proportional to w_k N(x; alpha m_k, S_k):

        D = sum_k p_k [m_k + (alpha s_k^2/S_k) (x - alpha m_k)]         s = -sum_k p_k (x - alpha m_k)/S_k

    Arguments:
        weights: w, shape (K,), positive; normalized to sum 1.
        means: m, shape (K, d); (K,) is read as (K, 1).
        stds: standard deviations, shape (K,) (isotropic components) or (K, d) (diagonal), positive. For points use `Empirical`.

    Raises:
        ArgumentError: shapes that do not match, a weight or standard deviation that is not positive.

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

    def __init__(self, weights: Sequence[float] | Tensor, means: object, stds: object) -> None:
        w, m, s = (
            parameter(weights, "the weights"),
            parameter(means, "the means"),
            parameter(stds, "the standard deviations"),
        )
        if w.ndim != 1 or w.numel() == 0 or float(w.min()) <= 0.0:
            raise ArgumentError(
                f"the weights are K positive numbers, not {weights!r}; leave out components of weight 0"
            )
        k = w.numel()
        if m.ndim == 1:
            m = m[:, None]
        if m.ndim != 2 or m.shape[0] != k:
            raise ArgumentError(
                f"the means have shape {tuple(m.shape)}; for {k} weights it is ({k}, d)"
            )
        if tuple(s.shape) not in ((k,), tuple(m.shape)):
            raise ArgumentError(
                f"the standard deviations have shape {tuple(s.shape)}; for means of shape {tuple(m.shape)} it is ({k},) or that"
            )
        if float(s.min()) <= 0.0:
            raise ArgumentError(
                f"the standard deviations must be positive, not {stds!r}; for points of no width use srk.targets.Empirical"
            )
        super().__init__((m.shape[1],))
        self.weights, self.means, self.stds = w / w.sum(), m, s
        self._variances = (s if s.ndim == 2 else s[:, None]).square()
        self._log_weights = self.weights.log()

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        means = self._on("means", x, self._checked(x).dtype)
        gains = (level.alpha * self._on("_variances", x) / self._totals(x, level)).to(means.dtype)
        parts = [
            p @ means + (p[:, :, None] * gains * z).sum(1)
            for p, z in self._responsibilities(x, level)
        ]
        return torch.cat(parts).to(x.dtype)

    def score_at(self, x: Tensor, level: Level) -> Tensor:
        """The score -sum_k p_k (x - alpha m_k)/S_k, without cancellation at small sigma."""
        rates = self._totals(x, level).reciprocal().to(self._checked(x).dtype)
        return torch.cat(
            [-(p[:, :, None] * rates * z).sum(1) for p, z in self._responsibilities(x, level)]
        ).to(x.dtype)

    def log_density(
        self, x: Tensor, process: LinearProcess | None = None, t: float | None = None
    ) -> Tensor:
        parts = [
            torch.logsumexp(logits, 1) + shift
            for logits, shift, _ in self._logits(x, level_of(process, t))
        ]
        return torch.cat(parts).to(x.dtype)

    def cdf(
        self, x: ArrayLike | Tensor, process: LinearProcess | None = None, t: float | None = None
    ) -> Tensor:
        """Distribution function in one dimension, at own time `t` of `process` (of the data without them).

        Arguments:
            x: points, any shape.
            process, t: as in `log_density`.

        Returns:
            float64 tensor of the shape of `x`, on the CPU.

        Raises:
            IncompatibleError: more than one dimension.
        """
        centres, widths = self._components(level_of(process, t))
        points = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64)
        return torch.as_tensor(ndtr((points[..., None] - centres) / widths) @ self.weights.numpy())

    def quantile(
        self, q: ArrayLike | Tensor, process: LinearProcess | None = None, t: float | None = None
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
        centres, widths = self._components(level_of(process, t))
        q = np.asarray(q.detach().cpu() if isinstance(q, Tensor) else q, dtype=np.float64)
        if not bool(np.all((q >= 0.0) & (q <= 1.0))):
            raise ArgumentError("quantile needs probabilities in [0, 1]; some are outside or NaN")
        weights = self.weights.numpy()

        def excess(x: Any, q: Any) -> Any:
            z = (
                x[..., None] - centres
            ) / widths  # from the nearer tail, where the probability has all its digits
            return np.where(q < 0.5, ndtr(z) @ weights - q, (1.0 - q) - ndtr(-z) @ weights)

        inside = q[(q > 0.0) & (q < 1.0)]
        out = np.where(q > 0.5, np.inf, -np.inf)
        if inside.size:
            # The mixture's quantile lies between the least and the largest of its components'; a little room for rounding.
            ends = centres + widths * ndtri(inside)[..., None]
            room = 1e-6 * float(widths.max())
            out[(q > 0.0) & (q < 1.0)] = find_root(
                excess,
                (ends.min(-1) - room, ends.max(-1) + room),
                args=(inside,),
                tolerances={"fatol": 0.0},
            ).x
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
        return torch.addcmul(
            self._on("means", z, dtype)[k], self._on("_variances", z).sqrt().to(dtype)[k], z
        )

    def _totals(self, x: Tensor, level: Level) -> Tensor:
        return level.alpha**2 * self._on("_variances", x) + level.sigma**2

    def _responsibilities(self, x: Tensor, level: Level) -> Iterator[tuple[Tensor, Tensor]]:
        for logits, _, z in self._logits(x, level):
            yield torch.softmax(logits, 1), z

    def _logits(self, x: Tensor, level: Level) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pieces of the batch: log(w_k N(x; alpha m_k, S_k)) less a shift, (batch, K); the shift; x - alpha m_k, (batch, K, d)."""
        x = self._checked(x)
        totals = self._totals(x, level)
        constants = self._on("_log_weights", x) - 0.5 * torch.log(2.0 * math.pi * totals).sum(1) * (
            self.dimension / totals.shape[1]
        )
        shift = constants.max()
        constants, shift = (constants - shift).to(x.dtype), shift.to(x.dtype)
        rates = totals.reciprocal().to(x.dtype)
        centres = (level.alpha * self._on("means", x)).to(x.dtype)
        for piece in torch.split(x, max(1, ELEMENTS // centres.numel())):
            z = piece[:, None, :] - centres
            yield constants - 0.5 * (z.square() * rates).sum(2), shift, z

    def _components(self, level: Level) -> tuple[Any, Any]:
        """Means and standard deviations of the components at `level`, in one dimension."""
        if self.event_shape != (1,):
            raise IncompatibleError(
                f"{self!r} has {self.dimension} dimensions; cdf and quantile exist in one dimension only"
            )
        centres, totals = (
            level.alpha * self.means[:, 0],
            level.alpha**2 * self._variances[:, 0] + level.sigma**2,
        )
        return centres.numpy(), totals.sqrt().numpy()

    def __repr__(self) -> str:
        return f"GaussianMixture({self.weights.numel()} components, event_shape={self.event_shape})"
