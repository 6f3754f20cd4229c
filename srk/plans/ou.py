"""The Ornstein-Uhlenbeck clock, and the score in its variance-preserving scale."""

from __future__ import annotations

import math

from srk.plans.form import LinearForm
from srk.plans.step import Node
from srk.processes.base import Level


def ou_time(level: Level) -> float:
    """The Ornstein-Uhlenbeck time of a noise level.

    T with alpha = e^-t after scaling to alpha^2 + sigma^2 = 1; (1/2) log(1 + r^2).
    """
    if level.lam < -300.0:
        return -level.lam
    return 0.5 * math.log1p(math.exp(-2.0 * level.lam))


def ou_step(start: Level, stop: Level) -> float:
    """The step in Ornstein-Uhlenbeck time, without cancellation.

    It is (1/2) log((1 + r^2)/(1 + r'^2)).
    """
    return 0.5 * math.log1p(
        stop.sigma**2 * math.expm1(2.0 * (stop.lam - start.lam)) / (stop.alpha**2 + stop.sigma**2)
    )


def preserving_score(node: Node, level: Level) -> LinearForm:
    """The score of Y = x/sqrt(alpha^2 + sigma^2) from an evaluation at `level`."""
    return (node.value * level.alpha - node.x) * (
        math.hypot(level.alpha, level.sigma) / level.sigma**2
    )
