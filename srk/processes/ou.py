"""The Ornstein-Uhlenbeck process."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from srk.processes.elementwise import library, log
from srk.processes.parameters import check_range, parameter
from srk.processes.preserving import VariancePreserving, depth_at


@attrs.frozen
class OU(VariancePreserving):
    r"""Ornstein-Uhlenbeck, constant rates.

    The clock of the theory papers, in which steps and error bounds are stated.

    $$dx = -x\, dt + \sqrt{2}\, dW, \qquad \alpha = e^{-t}, \qquad \sigma^2 = 1 - e^{-2t}.$$

    It is `VP` with beta = 2.

    Arguments:
        horizon: own time at which the reversal starts (t_max); the data's mean is left with weight
            e^{-horizon} there.
        t_min: own time at which the reversal ends (early stopping); 0 is allowed (sigma = 0, lam =
            inf).

    Source: the seed paper of this package, arXiv 2410.04760.

    Examples:
        >>> import math
        >>> from srk.processes import OU
        >>> OU(horizon=3.0).level(3.0).alpha == math.exp(-3.0)
        True
        >>> OU().diffusion(1.0) == math.sqrt(2.0)
        True
    """

    name: ClassVar[str] = "ou"

    horizon: float = parameter(5.0)
    t_min: float = parameter(5e-5)
    t_max: float = attrs.field(init=False, repr=False)

    @t_max.default
    def _t_max(self) -> float:
        return self.horizon

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)

    def alpha(self, t: Any) -> Any:
        return library(t).exp(-t)

    def sigma(self, t: Any) -> Any:
        m = library(t)
        return m.sqrt(-m.expm1(-2.0 * t))

    def lam(self, t: Any) -> Any:
        return -t - 0.5 * log(-library(t).expm1(-2.0 * t))

    def _inverse(self, lam: float) -> float:
        return depth_at(lam)

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = -1."""
        return -1.0
