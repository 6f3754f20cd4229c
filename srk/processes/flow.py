"""The linear interpolation between data and noise of rectified flow and flow matching."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.errors import ArgumentError
from srk.processes.base import LinearProcess
from srk.processes.elementwise import elementwise, is_number, log
from srk.processes.parameters import check_range, parameter


@attrs.frozen
class Flow(LinearProcess):
    r"""Rectified flow: the straight line from data (t = 0) to noise (t = 1).

    For flow-matching networks (SD3, Flux and their kin).

    $$\alpha = 1 - t, \qquad \sigma = t, \qquad
    dx = -\frac{x}{1 - t}\, dt + \sqrt{\frac{2 t}{1 - t}}\; dW.$$

    At t = 1 alpha is exactly 0, lam = -inf, and drift and diffusion are infinite.

    Arguments:
        t_min: own time at which the reversal ends; 0 is allowed (sigma = 0, lam = inf).
        t_max: own time at which the reversal starts, at most 1.

    Source: Liu et al. 2022, "Flow straight and fast", arXiv 2209.03003; Lipman et al. 2022, "Flow
    matching for generative modeling", arXiv 2210.02747 (with time reversed there: data at t = 1).

    Examples:
        >>> from srk.processes import Flow
        >>> Flow().level(0.25)
        Level(t=0.25, alpha=0.75, sigma=0.25, lam=1.0986122886681096)
        >>> Flow().level(1.0)
        Level(t=1.0, alpha=0.0, sigma=1.0, lam=-inf)
    """

    name: ClassVar[str] = "flow"

    t_min: float = parameter(1e-3)
    t_max: float = parameter(1.0)

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        if self.t_max > 1.0:
            raise ArgumentError(
                f"Flow needs t_max <= 1, where alpha reaches 0, not t_max = {self.t_max!r}"
            )

    def alpha(self, t: Any) -> Any:
        return 1.0 - t

    def sigma(self, t: Any) -> Any:
        return 1.0 * t  # a new array

    def lam(self, t: Any) -> Any:
        return log(1.0 - t) - log(t)

    def _inverse(self, lam: float) -> float:
        ratio = math.exp(-abs(lam))
        return ratio / (1.0 + ratio) if lam >= 0.0 else 1.0 / (1.0 + ratio)

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = -1/(1 - t); -inf at t = 1."""
        return -1.0 / (1.0 - t) if t < 1.0 else -math.inf

    def lam_rate(self, t: float) -> float:
        return -1.0 / (t * (1.0 - t)) if 0.0 < t < 1.0 else -math.inf

    def diffusion(self, t: Any) -> Any:
        """g(t) = sqrt(2 t/(1 - t)); inf at t = 1."""
        if not is_number(t):
            return elementwise(self.diffusion, t)
        return math.sqrt(2.0 * t / (1.0 - t)) if t < 1.0 else math.inf
