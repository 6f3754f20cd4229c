"""The EDM process: time is the noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.errors import ArgumentError
from srk.processes.elementwise import library, log
from srk.processes.parameters import parameter
from srk.processes.ve import VarianceExploding


@attrs.frozen
class EDM(VarianceExploding):
    r"""EDM: variance exploding with time = sigma.

    For EDM, EDM2 and k-diffusion networks, and wherever sigma is the natural variable.

    $$dx = \sqrt{2 t}\, dW, \qquad \alpha = 1, \qquad \sigma(t) = t.$$

    Own time runs from sigma_min to sigma_max.

    Arguments:
        sigma_min: noise at which the reversal ends, in units of the data; 0 is allowed (lam = inf).
        sigma_max: noise at which the reversal starts, in units of the data.

    Source: Karras et al. 2022, "Elucidating the design space of diffusion-based generative models",
    arXiv 2206.00364, table 1.

    Examples:
        >>> from srk.processes import EDM
        >>> EDM().level(0.5)
        Level(t=0.5, alpha=1.0, sigma=0.5, lam=0.6931471805599453)
    """

    name: ClassVar[str] = "edm"

    sigma_min: float = parameter(0.002)
    sigma_max: float = parameter(80.0)
    t_min: float = attrs.field(init=False, repr=False)
    t_max: float = attrs.field(init=False, repr=False)

    @t_min.default
    def _t_min(self) -> float:
        return self.sigma_min

    @t_max.default
    def _t_max(self) -> float:
        return self.sigma_max

    def __attrs_post_init__(self) -> None:
        if not 0.0 <= self.sigma_min < self.sigma_max:
            raise ArgumentError(
                f"EDM needs 0 <= sigma_min < sigma_max, not sigma_min = {self.sigma_min!r}, "
                f"sigma_max = {self.sigma_max!r}"
            )

    def sigma(self, t: Any) -> Any:
        return 1.0 * t  # a new array

    def lam(self, t: Any) -> Any:
        return -log(t)

    def _inverse(self, lam: float) -> float:
        return math.exp(-lam)

    def lam_rate(self, t: float) -> float:
        return -1.0 / t if t > 0.0 else -math.inf

    def diffusion(self, t: Any) -> Any:
        """g(t) = sqrt(2 t)."""
        return library(t).sqrt(2.0 * t)
