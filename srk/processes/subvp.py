"""The sub-variance-preserving process."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs

from srk.processes.elementwise import library, log
from srk.processes.vp import LinearBeta


@attrs.frozen
class SubVP(LinearBeta):
    r"""Sub-VP: the drift of VP with less noise, sigma = 1 - alpha^2.

    For networks trained with it (better likelihoods than VP).

    $$dx = -\tfrac12 \beta\, x\, dt + \sqrt{\beta\, (1 - \alpha^4)}\, dW, \qquad
    \sigma = 1 - \alpha^2,$$

    with beta and alpha those of `VP`.

    Arguments:
        beta_min: beta at t = 0, per unit of own time.
        beta_max: beta at t = 1, per unit of own time.
        t_min: own time at which the reversal ends; 0 is allowed (sigma = 0, lam = inf).
        t_max: own time at which the reversal starts.

    Source: Song et al. 2021, "Score-based generative modeling through SDEs", arXiv 2011.13456, eq.
    27-29.

    Examples:
        >>> from srk.processes import SubVP
        >>> level = SubVP().level(0.1)
        >>> abs(level.sigma - (1 - level.alpha**2)) < 1e-15
        True
    """

    name: ClassVar[str] = "sub-vp"

    def sigma(self, t: Any) -> Any:
        return -library(t).expm1(-2.0 * self.depth(t))

    def lam(self, t: Any) -> Any:
        return -self.depth(t) - log(self.sigma(t))

    def _inverse(self, lam: float) -> float:
        # sigma/alpha = 2 sinh(depth); beyond lam = -20 the difference between depth and -lam is
        # below rounding
        return self.time_at_depth(math.asinh(0.5 * math.exp(-lam)) if lam > -20.0 else -lam)

    def lam_rate(self, t: float) -> float:
        sigma = float(self.sigma(t))
        if sigma == 0.0:
            return -math.inf
        return self.log_alpha_rate(t) * (1.0 + math.exp(-2.0 * self.depth(t))) / sigma

    def diffusion(self, t: Any) -> Any:
        """g(t) = sqrt(beta (1 - alpha^4))."""
        m = library(t)
        return m.sqrt(-self.beta(t) * m.expm1(-4.0 * self.depth(t)))
