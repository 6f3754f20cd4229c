"""Our own method: stochastic Runge-Kutta in the gauge clock with one network call a step."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.exponential import exponential_step
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep, check_variance, log_ratio, remainder
from srk.plans.gauge_node import (
    DATA_VARIANCE,
    FARTHEST,
    Curve,
    GaugeNode,
    check_curve,
    check_fraction,
    check_slope,
)
from srk.plans.matching import DEPTH, GaussianStep, Moments
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import Level


@attrs.frozen(slots=True)
class _Kept:
    """What srk2m knows of a stage that it kept.

    The two ends of its step, its own level, and the moments after its step.

    The stage is kept as its R, or where the gauge changes from step to step (`local`) as its
    denoiser and, in the row after that, its state.
    """

    start: Level
    stop: Level
    level: Level
    moments: Moments | None = None


@register_solver
@attrs.frozen(kw_only=True)
class SRK2M(Integrator):
    r"""`srk2m`: the multistep sibling of `srk2s`, one network call per step.

    Weak order 2, strong order 1 (1.5 with `strong=True`). R on the way to the node is predicted
    from the stages of earlier steps:

    $$
    \begin{aligned}
    R_p &= R_1 + \beta \frac{H_1}{H_1 + H_2} (R_1 - R_2) \\
    X_c &= X + c H R_p + J, \qquad X' = X + H R(X_c) + B
    \end{aligned}
    $$

    R is a martingale along the exact reverse process, so that nothing systematic is lost by
    predicting it. For eta < 1 the prediction is eta^2 times this rule plus (1 - eta^2) times linear
    extrapolation of R in (s + v)^{-(1+eta^2)/2}.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
        local: let the gauge follow the noise, 1/(1/v + 1/(local s)) at s = (sigma/alpha)^2: what is
            still open of an image at a noise level is detail of about that scale. v is then a
            bound, best some four times the variance of the data; 1.5 is a good value, 0.1 with
            `strong` on networks of images. inf (the default): v at all levels.
        curve: instead of `local`, v itself along the half log-SNR: pairs (half log-SNR, log v),
            between which log v is linear and beyond which it is constant. `srk.Profile.curve()`
            makes it of what was measured. `data_variance` is then its bound, some four times the
            variance of the data.
        bound: the largest gauge of a step shorter than 2.5 half log-SNR, where it is not
            `data_variance` itself; that one is then the gauge of longer steps only, and says on
            which clock the Brownian path is.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
        beta: weight of the correction for the lag; default 1, or 1/2 where v = 0.
        first: prediction on the first step: "mean" takes `data_mean` (no call), "evaluate" makes
            one more network call.
        data_mean: mean of the Gaussian reference, used by the first step only.
        weights: "beta" (the rule above); "matched" (eta = 1: four stages, weights near that rule
            under which the distribution of the state is as exact as it can be on Gaussian data of
            every variance, see `srk.plans.matching`; the choice with `local`, and from 10 calls on
            without it); or "q1" (three stages, fixed weights; uniform steps).
    """

    name = "srk2m"
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"
    advice = "one call, order 2; what auto is made of, with the scale of the data as an option"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)
    local: float = attrs.field(default=math.inf, converter=check_slope)
    curve: Curve | None = attrs.field(
        default=None,
        converter=check_curve,
        repr=lambda curve: "None" if curve is None else f"<{len(curve)} points>",
    )
    bound: float | None = attrs.field(
        default=None, converter=attrs.converters.optional(check_variance)
    )
    strong: bool = False
    node: float | None = attrs.field(default=None, converter=check_fraction)
    beta: float | None = None
    first: Literal["mean", "evaluate"] = attrs.field(
        default="mean", validator=in_(("mean", "evaluate"))
    )
    weights: Literal["beta", "matched", "q1"] = attrs.field(
        default="beta", validator=in_(("beta", "matched", "q1"))
    )

    @property
    def strong_order(self) -> float:  # type: ignore[override]
        return 1.5 if self.strong and self.node is None else 1.0

    @property
    def stage(self) -> GaugeNode:
        """The stage of a step."""
        return GaugeNode(
            self.data_variance, self.local, self.strong, self.node, self.curve, self.bound
        )

    @property
    def startup_evaluations(self) -> int:  # type: ignore[override]
        return int(self.first == "evaluate")

    def plan(self, step: Step) -> StepPlan:
        stage = self.stage
        gauge = stage.gauge(step)
        if gauge.to_stop(stage.c(step.eta)) > FARTHEST:
            return exponential_step(step)
        level = gauge.node(step.process, stage.c(step.eta))
        draft, *draws = stage.draws(step, gauge)
        rows = 2 if stage.follows else 1
        kept: tuple[_Kept, ...] = step.memory[::rows]
        if rows == 1:
            R = [draft.memory(i) for i in range(len(kept))]
        else:
            R = [
                remainder(note.level, gauge.v, draft.memory(2 * i + 1), draft.memory(2 * i))
                for i, note in enumerate(kept)
            ]
        # The moments are followed at every eta, so that a later step at eta = 1 can match its
        # weights
        follows = self.weights == "matched" and gauge.v > 0.0
        depth = DEPTH if follows and step.eta == 1.0 else 3 if self.weights == "q1" else 2
        moments: Moments | None = None
        if follows:
            weights, moments = self._match(step, gauge, level, kept, depth)
        elif kept:
            weights = self._weights(gauge, kept, step.eta)
        if kept:
            predicted = sum((r * a for r, a in zip(R, weights, strict=False)), ZERO)
        elif self.first == "evaluate":
            first = draft.evaluate(draft.state, step.start)
            predicted = remainder(step.start, gauge.v, first.x, first.value)
        else:
            predicted = ZERO
        new, node, last = stage.stage(step, draft, gauge, level, draws, predicted)
        note = _Kept(step.start, step.stop, level, moments)
        keep: list[tuple[LinearForm, Any]] = (
            [(last, note)] if rows == 1 else [(node.value, note), (node.x, None)]
        )
        keep += [
            (draft.memory(i), step.memory[i])
            for i in range(min(len(step.memory), (depth - 1) * rows))
        ]
        return draft.finish(new, keep=keep)

    def _match(
        self, step: Step, gauge: GaugeStep, level: Level, kept: tuple[_Kept, ...], depth: int
    ) -> tuple[list[float], Moments]:
        """Weights, matched at eta = 1, and the moments after the step."""
        before = kept[0].moments if kept else None
        if before is None:
            # where the gauge follows the noise, v stands above the variances of the data
            before, kept = (
                Moments.at(
                    step.start,
                    self.data_variance / (4.0 if self.stage.follows else 1.0),
                    step.stop,
                ),
                (),
            )
        law = GaussianStep(
            gauge, level, self.stage.c(step.eta), before, tuple(note.level for note in kept)
        )
        if step.eta == 1.0:
            end = step.process.level(step.process.t_min)
            weights = law.weights(self._rule(gauge, kept), (end.sigma / end.alpha) ** 2)
        else:
            weights = self._weights(gauge, kept, step.eta) if kept else []
            weights += [0.0] * (len(kept) - len(weights))
        return weights, law.after(weights, depth)

    def _rule(self, gauge: GaugeStep, kept: tuple[_Kept, ...]) -> list[float]:
        """The weights of the reverse SDE before they are matched."""
        if len(kept) < 2:
            return [1.0] * len(kept)
        one, two = (gauge.length(note.start, note.stop) for note in kept[:2])
        slope = 0.0
        if math.isfinite(one + two):
            beta = self.beta if self.beta is not None else (1.0 if gauge.v > 0 else 0.5)
            slope = beta * one / (one + two)
        return [1.0 + slope, -slope, *[0.0] * (len(kept) - 2)]

    def _weights(self, gauge: GaugeStep, kept: tuple[_Kept, ...], eta: float) -> list[float]:
        """Weights of the R kept, the latest first."""
        e, c = eta**2, self.stage.c(eta)
        if self.weights == "q1" and len(kept) >= 3 and e == 1.0:
            a3 = (1.0 + c) / 4.0
            a2 = -0.5 - 2.0 * a3
            return [1.5 + a3, a2, a3]
        weights = self._rule(gauge, kept)
        if e < 1.0 and len(kept) > 1:
            # R at the middle of [start, node], extrapolated in Q = (s + v)^(-(1 + eta^2)/2) through
            # the two stages
            a = 1.0 + e
            # (Q less that of the end of the step, over it: so short steps far below v do not
            # cancel)
            ways = [gauge.to_stop(c), gauge.L]
            ways += [log_ratio(note.level, gauge.stop, gauge.v) for note in kept[:2]]
            q_node, q_start, q1, q2 = (math.expm1(-0.5 * a * way) for way in ways)
            slope = -e * weights[1] + (1.0 - e) * (0.5 * (q_start + q_node) - q1) / (q1 - q2)
            weights = [1.0 + slope, -slope]
        return weights


@register_solver
@attrs.frozen(kw_only=True)
class SRK2MLocal(SRK2M):
    """`srk2m-local`: `srk2m` in a gauge that follows the noise.

    It has matched weights and the node at 1/3, and is for networks of images and other data with
    detail at all scales.

    One network call per step, weak order 2, strong order 1.5; two normals per coordinate and step.
    R of a step belongs to the variance 1/(1/v + 1/(local s)) at the middle of that step, so that
    the denoiser and the state of each stage are kept in place of its R. On two networks of images
    it is ahead of ten other solvers on their best grids from 10 calls on, along the path by far, in
    distribution or within the standard errors (docs: Real networks); on low-dimensional smooth
    densities `auto`, the same method with local = 1.5 and the node at 1/4, is better.

    Arguments:
        data_variance: v, a bound; some four times the variance of the data (2: for data scaled to
            [-1, 1]).
        local: size of what is open at a noise level, in units of (sigma/alpha)^2.
        strong: False puts the node at 1/4: better on smooth densities, worse along the path on
            networks.
        node, beta, first, weights: as of `SRK2M`.
    """

    name = "srk2m-local"
    reference = "srk (docs: Research notes, a gauge that follows the noise)"
    advice = "one call, order 2; strong order 1.5, for one sample at every number of steps"

    data_variance: float = attrs.field(default=2.0, converter=check_variance)
    local: float = attrs.field(default=0.1, converter=check_slope)
    strong: bool = True
    weights: Literal["beta", "matched", "q1"] = attrs.field(
        default="matched", validator=in_(("beta", "matched", "q1"))
    )
