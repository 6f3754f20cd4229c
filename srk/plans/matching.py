r"""Moment matching: weights of past stages.

Under them a step is as exact as it can be on Gaussian data of every variance at once.

On data N(0, w) every plan is linear, so that the planner itself can follow the exact covariance of
the state x and the kept stages x_1, x_2, ..., whose remainders are R_j = g_j x_j, for a family of
w, with matrices of 5 x 5. The weights a of the prediction sum a_j R_j of the next step are then
chosen, sum a_j = 1, so that

    sum_w omega(w) (Var(x')/(alpha'^2 w + sigma'^2) - 1)^2 + mu |a - a_0|^2

is least, a_0 the rule of `srk2m`. What an earlier step got wrong enters the covariance, so that
later steps correct it. omega is the square of (w + s_min)/(w + s'), the part of an error at the
level s' = (sigma'/alpha')^2 that is not forgotten until s_min. The ridge mu shrinks with the fourth
power of a short step, so that the weights are free to take out the next order of the error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.plan import STATE, Column
from srk.processes.base import Level

#: Stages whose weights are matched.
DEPTH = 4
#: Variances of the family over that of the gauge.
FAMILY = np.logspace(-3.0, 3.0, 25)
# : Noise after the first step over the largest variance of the family: of a larger one that step,
# whose R is not known, gets more wrong than weights can take back.
COVERED = 4.0
# : mu over the trace of the normal equations is RIDGE q, q = h^POWER with h the longest step so far
# in half log-SNR, the first left out, but SHORTEST <= h <= 1.
# : What a long step got wrong, the weights of short ones cannot take back; they would swing between
# their bounds.
RIDGE, POWER, SHORTEST = 1e-2, 4, 0.1
LARGEST = 0.5  # change of a weight
_x, _R = LinearForm({STATE: 1.0}), LinearForm({Column("E"): 1.0})


@attrs.frozen(slots=True, eq=False)
class Moments:
    """Covariance of (x, x_1, ..., x_n) for each variance of the data, and the longest step.

    The covariance has shape (k, 1 + n, 1 + n). The longest step before is in half log-SNR, the
    first left out.
    """

    variances: np.ndarray
    covariance: np.ndarray
    longest: float = 0.0

    @staticmethod
    def at(level: Level, v: float, stop: Level) -> Moments:
        """Of the exact distribution at a level, with nothing kept, before a first step to `stop`.

        For the family around the gauge `v`.
        """
        w = v * FAMILY
        w = w[: max(1, int((COVERED * stop.alpha**2 * w <= stop.sigma**2).sum()))]
        return Moments(w, (level.alpha**2 * w + level.sigma**2)[:, None, None])


@attrs.frozen(slots=True, eq=False)
class GaussianStep:
    """One step of the multistep method as a linear map, for each variance of the data.

    x_c = A x + B sum_j a_j g_j x_j + s_c (z/2 + sqrt(c - 1/4) z'),    x' = A' x + B' g x_c + s' z

    Arguments:
        gauge: the step.
        level: its node, at the fraction `c`.
        before: the moments at its start.
        nodes: levels of the stages kept, the latest first.
    """

    gauge: GaugeStep
    level: Level
    c: float
    before: Moments
    nodes: tuple[Level, ...] = ()

    @property
    def _longest(self) -> float:
        """The longest step so far but for the first, which may start at infinite noise."""
        return (
            max(self.before.longest, self.gauge.stop.lam - self.gauge.start.lam)
            if self.nodes
            else 0.0
        )

    def _slope(self, level: Level) -> np.ndarray:
        """g in R = g x at a level.

        (n D - v alpha x)/sigma^2 with D = alpha w/(alpha^2 w + sigma^2) x.
        """
        w = self.before.variances
        return level.alpha * (w - self.gauge.v) / (level.alpha**2 * w + level.sigma**2)

    def _maps(
        self,
    ) -> tuple[float, float, float, float, float, float, np.ndarray, float, np.ndarray]:
        node, step = (
            self.gauge.carry(_x, _R, self.level, self.c),
            self.gauge.carry(_x, _R, self.gauge.stop),
        )
        noise, area = self.gauge.noise_std(self.level, self.c), math.sqrt(max(self.c - 0.25, 0.0))
        get = STATE, Column("E")
        slopes = np.array([self._slope(node) for node in self.nodes])
        return (
            node.number(get[0]),
            node.number(get[1]),
            step.number(get[0]),
            step.number(get[1]),
            0.5 * noise,
            area * noise,
            self._slope(self.level),
            self.gauge.noise_std(self.gauge.stop),
            slopes.reshape(-1, len(self.before.variances)).T,
        )

    def weights(self, start: Sequence[float], s_min: float) -> list[float]:
        """The matched weights near `start`; s_min is the level at which the run ends."""
        n = len(start)
        if n < 2:
            return list(start)
        A, B, A1, B1, half, area, g, std, past = self._maps()
        stop, w, C = self.gauge.stop, self.before.variances, self.before.covariance
        target = stop.alpha**2 * w + stop.sigma**2
        root = (w + s_min) / (w + (stop.sigma / stop.alpha) ** 2)
        noise = (B1 * g * half + std) ** 2 + (B1 * g * area) ** 2
        # a = start + change t keeps the sum
        change = np.zeros((n, n - 1))
        for i in range(n - 1):
            change[i, i], change[i + 1, i] = 1.0, -1.0
        effect = (B1 * g * B)[:, None] * past  # of a weight on the coefficient of its stage in x'
        rows = np.concatenate([np.zeros((len(w), 1, n - 1)), effect[:, :, None] * change], axis=1)
        first = np.concatenate([(A1 + B1 * g * A)[:, None], effect * np.asarray(start)], axis=1)
        t = np.zeros(n - 1)
        ridge = RIDGE * min(1.0, max(SHORTEST, self._longest)) ** POWER
        for _ in range(4):
            y = first + rows @ t
            Cy = (C @ y[:, :, None])[:, :, 0]
            error = ((y * Cy).sum(1) + noise) / target - 1.0
            jacobian = (Cy[:, None, :] @ rows)[:, 0] * (2.0 * root / target)[:, None]
            normal = jacobian.T @ jacobian
            mu = ridge * float(np.trace(normal))
            if not (math.isfinite(mu) and mu > 0.0):
                break  # nothing depends on the weights
            t = np.clip(
                t
                + np.linalg.solve(
                    normal + mu * np.eye(n - 1), -jacobian.T @ (root * error) - mu * t
                ),
                -LARGEST,
                LARGEST,
            )
        return [float(a) for a in np.asarray(start) + change @ t]

    def after(self, weights: Sequence[float], depth: int) -> Moments:
        """The moments of (x', x_c, x_1, ...), at most `depth` stages, under these weights."""
        n = len(weights)
        A, B, A1, B1, half, area, g, std, past = self._maps()
        k, kept = len(g), min(depth, n + 1)
        T = np.zeros((k, 1 + kept, 1 + n))
        T[:, 1, 0] = A
        T[:, 1, 1:] = B * past * np.asarray(weights, dtype=float)
        T[:, 0] = (B1 * g)[:, None] * T[:, 1]
        T[:, 0, 0] += A1
        for i in range(1, kept):
            T[:, 1 + i, i] = 1.0
        covariance = T @ self.before.covariance @ T.transpose(0, 2, 1)
        for node, state in ((half, std), (area, 0.0)):
            z = np.zeros((k, 1 + kept))
            z[:, 0], z[:, 1] = B1 * g * node + state, node
            covariance += z[:, :, None] * z[:, None, :]
        return Moments(self.before.variances, covariance, self._longest)
