"""Variance-preserving processes: alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import math
from typing import Any

from srk.processes.base import LinearProcess
from srk.processes.elementwise import elementwise, is_number, library


class VariancePreserving(LinearProcess):
    """A process `x_t = alpha(t) x_0 + sqrt(1 - alpha(t)^2) eps`, given by its `alpha` alone.

    Data of unit variance keep it. The forward SDE is dx = f x dt + sqrt(-2 f) dW with f = d
    log(alpha)/dt, and dlam/dt = f/sigma^2. Override `sigma` where 1 - alpha^2 cancels.

    Examples:
        >>> from srk.processes import VariancePreserving
        >>> class Linear(VariancePreserving):
        ...     t_min, t_max = 0.0, 1.0
        ...
        ...     def alpha(self, t):
        ...         return 1.0 - t
        >>> Linear().level(1.0)
        Level(t=1.0, alpha=0.0, sigma=1.0, lam=-inf)
    """

    def sigma(self, t: Any) -> Any:
        alpha = self.alpha(t)
        variance = (1.0 - alpha) * (1.0 + alpha)
        if is_number(variance):
            return math.sqrt(max(0.0, variance))  # alpha may exceed 1 by rounding
        return library(t).sqrt(variance.clip(0.0))

    def lam_rate(self, t: float) -> float:
        variance = float(self.sigma(t)) ** 2
        return self.log_alpha_rate(t) / variance if variance > 0.0 else -math.inf

    def diffusion(self, t: Any) -> Any:
        """g(t) = sqrt(-2 f(t)); inf where alpha = 0."""
        if not is_number(t):
            return elementwise(self.diffusion, t)
        return math.sqrt(max(0.0, -2.0 * self.log_alpha_rate(t)))


def scales_at(lam: float) -> tuple[float, float]:
    """(alpha, sigma) of a variance-preserving process at half log-SNR `lam`, without overflow.

    Examples:
        >>> import math
        >>> from srk.processes.preserving import scales_at
        >>> scales_at(-math.inf), scales_at(math.inf)
        ((0.0, 1.0), (1.0, 0.0))
    """
    ratio = math.exp(-abs(lam))
    large = 1.0 / math.hypot(1.0, ratio)
    return (large, ratio * large) if lam >= 0.0 else (ratio * large, large)


def depth_at(lam: float) -> float:
    """-log(alpha) of a variance-preserving process at half log-SNR `lam`.

    Log(1 + e^{-2 lam})/2, stable at both ends.

    Examples:
        >>> import math
        >>> from srk.processes.preserving import depth_at
        >>> depth_at(0.0) == math.log(2) / 2, depth_at(-500.0)
        (True, 500.0)
    """
    return max(-lam, 0.0) + 0.5 * math.log1p(math.exp(-2.0 * abs(lam)))
