"""A noise level: one point of a process, in every coordinate that a coefficient may need."""

from __future__ import annotations

import math

import attrs


@attrs.frozen(slots=True)
class Level:
    """A noise level.

    One point of a linear process, in every coordinate that a coefficient may need.

    Arguments:
        t: the process's own time.
        alpha: signal scale.
        sigma: noise scale.
        lam: half log-SNR, log(alpha/sigma); -inf where alpha = 0, +inf where sigma = 0.

    Examples:
        >>> from srk.processes import Level
        >>> Level(t=0.5, alpha=0.8, sigma=0.6, lam=0.2876820724517809).r
        0.7499999999999999
    """

    t: float
    alpha: float
    sigma: float
    lam: float

    @property
    def r(self) -> float:
        """Noise-to-signal ratio sigma/alpha (the EDM sigma); inf where alpha = 0."""
        return self.sigma / self.alpha if self.alpha else math.inf
