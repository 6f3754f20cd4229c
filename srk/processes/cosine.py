"""The variance-preserving process with cosine alpha."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.errors import ArgumentError
from srk.processes.elementwise import library, log
from srk.processes.parameters import check_range, parameter
from srk.processes.preserving import VariancePreserving, scales_at


@attrs.frozen
class VPCosine(VariancePreserving):
    r"""Variance preserving, cosine alpha: spends more time at middle noise than `VP`.

    Ends in pure noise exactly (alpha = 0).

    $$\alpha(t) = \frac{\cos \varphi(t)}{\cos \varphi(0)}, \qquad
    \varphi(t) = \frac{\pi}{2}\, \frac{t + s}{1 + s}, \qquad \sigma^2 = 1 - \alpha^2.$$

    At t = 1 alpha is exactly 0, lam = -inf, and drift and diffusion are infinite (the published
    discretization clips beta at 0.999).

    Arguments:
        s: offset that keeps the noise of the first steps from being too small; dimensionless.
        t_min: own time at which the reversal ends; 0 is allowed (sigma = 0, lam = inf).
        t_max: own time at which the reversal starts, at most 1.

    Source: Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models", arXiv
    2102.09672, eq. 17.

    Examples:
        >>> from srk.processes import VPCosine
        >>> VPCosine().level(1.0)
        Level(t=1.0, alpha=0.0, sigma=1.0, lam=-inf)
    """

    name: ClassVar[str] = "vp-cosine"

    s: float = parameter(0.008)
    t_min: float = parameter(1e-3)
    t_max: float = parameter(1.0)

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        if self.t_max > 1.0:
            raise ArgumentError(
                f"VPCosine needs t_max <= 1, where alpha reaches 0, not t_max = {self.t_max!r}"
            )
        if self.s < 0.0:
            raise ArgumentError(
                f"VPCosine needs an offset s >= 0, not s = {self.s!r}; the usual value is 0.008"
            )

    @property
    def _k(self) -> float:
        return 0.5 * math.pi / (1.0 + self.s)  # d phi/dt; phi = k (t + s), pi/2 - phi = k (1 - t)

    def alpha(self, t: Any) -> Any:
        k = self._k
        return library(t).sin(k * (1.0 - t)) / math.sin(k)

    def sigma(self, t: Any) -> Any:
        # sin(k) sin(k (1 + 2s)) is cos^2(phi0), written so that sigma(1) is 1 exactly
        k, m, s2 = self._k, library(t), 2.0 * self.s
        return m.sqrt(
            (m.sin(k * t) / math.sin(k)) * (m.sin(k * (t + s2)) / math.sin(k * (1.0 + s2)))
        )

    def lam(self, t: Any) -> Any:
        return log(self.alpha(t)) - log(self.sigma(t))

    def _inverse(self, lam: float) -> float:
        k = self._k
        alpha, sigma = scales_at(lam)
        cos0 = math.sin(k)
        if lam < 0.0:
            return 1.0 - math.asin(cos0 * alpha) / k
        sin0 = math.sin(k * self.s)
        # sin(phi - phi0) = (sin^2 phi - sin^2 phi0)/(sin phi cos phi0 + cos phi sin phi0), all of
        # it in sigma and alpha
        return math.asin(cos0 * sigma**2 / (math.hypot(sin0, cos0 * sigma) + alpha * sin0)) / k

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = -(d phi/dt) tan(phi); -inf at t = 1."""
        if t == 1.0:
            return -math.inf
        k = self._k
        return -k * math.sin(k * (t + self.s)) / math.sin(k * (1.0 - t))
