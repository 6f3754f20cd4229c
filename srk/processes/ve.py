"""The variance-exploding process with geometric sigma."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.errors import ArgumentError
from srk.processes.base import LinearProcess
from srk.processes.elementwise import ones_like
from srk.processes.parameters import parameter


class VarianceExploding(LinearProcess):
    """A process `x_t = x_0 + sigma(t) eps`, given by its `sigma` alone: alpha = 1, no drift.

    Examples:
        >>> from srk.processes import VarianceExploding
        >>> class Heat(VarianceExploding):
        ...     t_min, t_max = 0.0, 100.0
        ...
        ...     def sigma(self, t):
        ...         return t**0.5
        >>> round(Heat().diffusion(4.0), 10), round(Heat().diffusion(0.0), 10)
        (1.0, 1.0)
    """

    def alpha(self, t: Any) -> Any:
        return ones_like(t)

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = 0."""
        return 0.0


@attrs.frozen
class VE(VarianceExploding):
    r"""Variance exploding, sigma geometric in time: noise is added, data never shrink.

    For NCSN and score-SDE "ve" networks.

    $$dx = \sigma(t) \sqrt{2 \log(\sigma_{max}/\sigma_{min})}\; dW, \qquad
    \sigma(t) = \sigma_{min}\, (\sigma_{max}/\sigma_{min})^t, \qquad \alpha = 1.$$

    Own time runs from 0 to 1.

    Arguments:
        sigma_min: noise at t = 0, in units of the data.
        sigma_max: noise at t = 1, in units of the data: larger than the largest distance between
            data.

    Source: Song et al. 2021, "Score-based generative modeling through SDEs", arXiv 2011.13456, eq.
    30-31.

    Examples:
        >>> from srk.processes import VE
        >>> VE().level(1.0).sigma, VE().prior_std
        (50.0, 50.0)
    """

    name: ClassVar[str] = "ve"

    sigma_min: float = parameter(0.01)
    sigma_max: float = parameter(50.0)
    t_min: float = attrs.field(default=0.0, init=False, repr=False)
    t_max: float = attrs.field(default=1.0, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ArgumentError(
                f"VE needs 0 < sigma_min < sigma_max, not sigma_min = {self.sigma_min!r}, "
                f"sigma_max = {self.sigma_max!r}"
            )

    def sigma(self, t: Any) -> Any:
        return self.sigma_min ** (1.0 - t) * self.sigma_max**t  # exact at both ends

    def lam(self, t: Any) -> Any:
        return -((1.0 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def _inverse(self, lam: float) -> float:
        return -(lam + math.log(self.sigma_min)) / self._rate

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max) - math.log(self.sigma_min)

    def lam_rate(self, t: float) -> float:
        return -self._rate
