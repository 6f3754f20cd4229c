"""The variance-preserving process of DDPM in continuous time, with linear beta."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.errors import ArgumentError
from srk.processes.base import LinearProcess
from srk.processes.elementwise import library, log
from srk.processes.parameters import check_range, parameter
from srk.processes.preserving import VariancePreserving, depth_at


@attrs.frozen
class LinearBeta(LinearProcess):
    """What VP and sub-VP share.

    Beta(t) = beta_min + (beta_max - beta_min) t and log(alpha) = -(1/2) int_0^t beta.
    """

    beta_min: float = parameter(0.1)
    beta_max: float = parameter(20.0)
    t_min: float = parameter(1e-3)
    t_max: float = parameter(1.0)

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        if not (0.0 <= self.beta_min <= self.beta_max and self.beta_max > 0.0):
            raise ArgumentError(
                f"{type(self).__name__} needs 0 <= beta_min <= beta_max and beta_max > 0 (noise "
                "rates per unit of own time), "
                f"not beta_min = {self.beta_min!r}, beta_max = {self.beta_max!r}; the usual "
                "values are 0.1 and 20"
            )

    def beta(self, t: Any) -> Any:
        """The noise rate beta(t)."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def depth(self, t: Any) -> Any:
        """-log(alpha(t)) = (1/2) int_0^t beta."""
        return t * (0.5 * self.beta_min + 0.25 * (self.beta_max - self.beta_min) * t)

    def time_at_depth(self, depth: float) -> float:
        """The inverse of `depth`.

        The positive root of a quadratic, in the form that does not cancel.
        """
        slope = self.beta_max - self.beta_min
        return (
            4.0 * depth / (self.beta_min + math.sqrt(self.beta_min**2 + 4.0 * slope * depth))
            if depth > 0.0
            else 0.0
        )

    def alpha(self, t: Any) -> Any:
        return library(t).exp(-self.depth(t))

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = -beta(t)/2."""
        return -0.5 * float(self.beta(t))


@attrs.frozen
class VP(LinearBeta, VariancePreserving):
    r"""Variance preserving, linear beta: the continuous limit of DDPM.

    For networks trained with a continuous VP time.

    $$dx = -\tfrac12 \beta(t)\, x\, dt + \sqrt{\beta(t)}\, dW, \qquad
    \beta(t) = \beta_{min} + (\beta_{max} - \beta_{min})\, t,$$

    $$\alpha(t) = \exp\Big(-\tfrac12 \int_0^t \beta\Big), \qquad \sigma^2 = 1 - \alpha^2.$$

    Arguments:
        beta_min: beta at t = 0, per unit of own time.
        beta_max: beta at t = 1, per unit of own time.
        t_min: own time at which the reversal ends; 0 is allowed (sigma = 0, lam = inf).
        t_max: own time at which the reversal starts.

    Source: Song et al. 2021, "Score-based generative modeling through SDEs", arXiv 2011.13456, eq.
    32-33.

    Examples:
        >>> from srk.processes import VP
        >>> process = VP()
        >>> level = process.level(1.0)
        >>> round(level.alpha, 6), round(level.sigma, 6), round(level.lam, 4)
        (0.006572, 0.999978, -5.025)
        >>> process.time(level.lam)
        1.0
    """

    name: ClassVar[str] = "vp"

    def sigma(self, t: Any) -> Any:
        m = library(t)
        return m.sqrt(-m.expm1(-2.0 * self.depth(t)))

    def lam(self, t: Any) -> Any:
        depth = self.depth(t)
        return -depth - 0.5 * log(-library(t).expm1(-2.0 * depth))

    def _inverse(self, lam: float) -> float:
        return self.time_at_depth(depth_at(lam))
