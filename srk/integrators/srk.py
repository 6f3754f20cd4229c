"""The house methods: stochastic Runge-Kutta in the gauge clock, with one or two network calls a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import numpy as np

from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.plans.exponential import exponential_coefficients, exponential_step
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep, check_variance, log_ratio, remainder
from srk.plans.matching import DEPTH, GaussianStep, Moments
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Node, Step
from srk.processes.base import Level

#: Default variance of the Gaussian reference. Measured, see docs (How to choose a solver): for data scaled to [-1, 1] values between
#: 0.1 and 1 differ by little.
DATA_VARIANCE = 0.5

#: A node whose noise exceeds that of the end of its step by more than this, as log((s + v)/(s' + v)),
#: is at infinity: a step from alpha = 0 at a small eta is an exponential Euler step.
FARTHEST = 500.0


@attrs.frozen(kw_only=True)
class SRK1(Integrator):
    """`srk1`: Euler-Maruyama in the gauge clock; DDPM with the Gaussian part N(0, v) of the data solved exactly.

    One network call per step, weak order 1, strong order 1. With v = 0 it is `ddpm`; for N(0, v) data it is exact at any step.
    Update: X' = X + H R(X) + B.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
    """

    name = "srk1"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"
    advice = "one call, order 1; DDPM with the Gaussian part solved exactly"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)

    def plan(self, step: Step) -> StepPlan:
        cx, cd, cz, interval = exponential_coefficients(
            step.start, step.stop, self.data_variance, step.eta
        )
        board = step.draft(GaugeStep(step.start, step.stop, self.data_variance, step.eta).clock)
        node = board.evaluate(board.state, step.start)
        return board.finish(board.state * cx + node.value * cd + board.normal(*interval) * cz)


def _fraction(value: Any) -> float | None:
    if value is None:
        return None
    c = float(value)
    if not 0.25 <= c < 1:
        raise ArgumentError(
            f"the node must lie in [1/4, 1) of the step (Cauchy-Schwarz: Var J = c H, Cov(J, B) = H/2), not at {value!r}"
        )
    return c


def check_slope(value: Any) -> float:
    """`local` as a float > 0; raise `ArgumentError` otherwise."""
    slope = float(value)
    if not slope > 0.0:
        raise ArgumentError(
            f"local must be a positive number (inf: the gauge does not depend on the noise level), not {value!r}"
        )
    return slope


@attrs.frozen(kw_only=True)
class _GaugeNode(Integrator):
    """What srk2s and srk2m share: one stage inside the step, on its own noise level, whose R carries the whole step."""

    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)
    local: float = attrs.field(default=math.inf, converter=check_slope)
    strong: bool = False
    node: float | None = attrs.field(default=None, converter=_fraction)

    def __attrs_post_init__(self) -> None:
        if self.strong and self.node is None:
            object.__setattr__(self, "strong_order", 1.5)

    def _c(self, eta: float) -> float:
        """Fraction of the step at which the stage lies: 1/4 at eta = 1, or 1/3 for strong order 1.5; 1/2 at eta = 0.

        For eta < 1, R has a drift, (1 - eta^2) times that of the ODE, and weak order 2 asks for 1/2. Near eta = 1 that drift is so small that
        the lower variance of an earlier node wins up to some 100 steps, at weak order 1.
        """
        if self.node is not None:
            return self.node
        e = eta**2
        return 0.5 if e <= 0.5 else 0.5 - e * (1.0 / 6.0 if self.strong else 0.25)

    def _gauge(self, step: Step) -> GaugeStep:
        """The step in its gauge: v, or with `local` 1/(1/v + 1/(local s)), s in the middle of its log-SNR."""
        v, log_s = self.data_variance, -(step.start.lam + step.stop.lam)
        if math.isfinite(self.local) and v > 0.0 and log_s < 700.0:
            v = 1.0 / (1.0 / v + math.exp(-log_s) / self.local)
        return GaugeStep(step.start, step.stop, v, step.eta)

    def _draws(self, step: Step, gauge: GaugeStep) -> tuple[Draft, LinearForm, LinearForm]:
        """The board, and unit draws: the increment of the gauge's clock, and its space-time area.

        With `local` every step has a clock of its own, while a path lives on that of `data_variance`; there the increment is an integral with a kernel.
        """
        v, e = self.data_variance, step.eta**2
        path = attrs.evolve(gauge, v=v)
        board = step.draft(path.clock)
        if gauge.v == v or e == 0.0:
            return board, board.normal(*path.interval), board.normal(*path.interval, (0.0, 1.0))

        def kernel(c: np.ndarray) -> np.ndarray:
            # dT_v/dT, T the clock of data_variance, is ((s + data_variance)/(s + v))^(1 + e)
            s = path.noise(c)
            return np.asarray(((s + gauge.v) / (s + v)) ** (-0.5 * (1.0 + e)))

        def area(c: np.ndarray) -> np.ndarray:
            return np.asarray(kernel(c) * (0.5 - gauge.fraction(path.noise(c))))

        first, *rest = board.orthonormal(
            *path.interval, [kernel, area] if self._c(step.eta) > 0.25 else [kernel], fractions=True
        )
        return board, first, rest[0] if rest else ZERO

    def _stage(
        self,
        step: Step,
        board: Draft,
        gauge: GaugeStep,
        level: Level,
        draws: Sequence[LinearForm],
        predicted: LinearForm,
    ) -> tuple[LinearForm, Node, LinearForm]:
        """The new state, the evaluation at the node (noise level `level`) and its R, from the R predicted for the way there."""
        c = self._c(step.eta)
        b, area = draws
        # J = B/2 + sqrt(c - 1/4) z': Var J = c (the node's own noise level) and Cov(J, B) = 1/2, in units of the step
        j = b * 0.5 + area * math.sqrt(max(c - 0.25, 0.0))
        x = gauge.carry(board.state, predicted, level, c) + j * gauge.noise_std(level, c)
        node = board.evaluate(x, level)
        R = remainder(level, gauge.v, node.x, node.value)
        new = gauge.carry(board.state, R, step.stop) + b * gauge.noise_std(step.stop)
        return new, node, R


@attrs.frozen(kw_only=True)
class SRK2S(_GaugeNode):
    """`srk2s` = `srk2`: two-stage stochastic Runge-Kutta in the gauge clock.

    Two network calls per step, weak order 2 (3 on linear problems), strong order 1 with the default node c = 1/4 and 1.5 with
    `strong=True` (c = 1/3, which costs about 1.7x in KL). Update, with H the step and B its Brownian increment on the clock:

        Xc = X + c H R(X) + J,    X' = X + H R(Xc) + B,    Var J = c H,  Cov(J, B) = H/2

    Its sibling with one call per step is `srk2m`.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
        local: let the gauge follow the noise, 1/(1/v + 1/(local s)) at s = (sigma/alpha)^2: what is still open of an image at a noise level is detail of
            about that scale. v is then a bound, best some four times the variance of the data; 2 is a good value. inf (the default): v at all levels.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
    """

    name = "srk2s"
    evaluations_per_step = 2
    advice = "two calls, order 2; single step, so nothing to start up"

    def plan(self, step: Step) -> StepPlan:
        gauge = self._gauge(step)
        if gauge.to_stop(self._c(step.eta)) > FARTHEST:
            return exponential_step(step)
        board, *draws = self._draws(step, gauge)
        first = board.evaluate(board.state, step.start)
        R0 = remainder(step.start, gauge.v, first.x, first.value)
        new, _, R = self._stage(
            step, board, gauge, gauge.node(step.process, self._c(step.eta)), draws, R0
        )
        # what srk1 would have made of the first evaluation, with the same noise
        return board.finish(
            new,
            error=gauge.carry(board.state, R, step.stop) - gauge.carry(board.state, R0, step.stop),
        )


@attrs.frozen(slots=True)
class _Kept:
    """What srk2m knows of a stage it kept: the two ends of its step, its own level, and the moments after its step.

    The stage is kept as its R, or where the gauge changes from step to step (`local`) as its denoiser and, in the row after that, its state.
    """

    start: Level
    stop: Level
    level: Level
    moments: Moments | None = None


@attrs.frozen(kw_only=True)
class SRK2M(_GaugeNode):
    """`srk2m`: the multistep sibling of `srk2s`, one network call per step.

    Weak order 2, strong order 1 (1.5 with `strong=True`). R on the way to the node is predicted from the stages of earlier steps:

        Rp = R_1 + beta H_1/(H_1 + H_2) (R_1 - R_2)
        Xc = X + c H Rp + J,    X' = X + H R(Xc) + B

    R is a martingale along the exact reverse process, so that nothing systematic is lost by predicting it. For eta < 1 the prediction is
    eta^2 times this rule plus (1 - eta^2) times linear extrapolation of R in (s + v)^{-(1+eta^2)/2}.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
        local: let the gauge follow the noise, 1/(1/v + 1/(local s)) at s = (sigma/alpha)^2: what is still open of an image at a noise level is detail of
            about that scale. v is then a bound, best some four times the variance of the data; 1.5 is a good value, 0.1 with `strong` on networks of
            images. inf (the default): v at all levels.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
        beta: weight of the correction for the lag; default 1, or 1/2 where v = 0.
        first: prediction on the first step: "mean" takes `data_mean` (no call), "evaluate" makes one more network call.
        data_mean: mean of the Gaussian reference, used by the first step only.
        weights: "beta" (the rule above); "matched" (eta = 1: four stages, weights near that rule under which the law of the state is as exact as it can be on
            Gaussian data of every variance, see `srk.plans.matching`; the choice with `local`, and from 10 calls on without it); or "q1" (three
            stages, fixed weights; uniform steps).
    """

    name = "srk2m"
    advice = "one call, order 2; the first choice at any budget"

    beta: float | None = None
    first: Literal["mean", "evaluate"] = attrs.field(
        default="mean", validator=attrs.validators.in_(("mean", "evaluate"))
    )
    weights: Literal["beta", "matched", "q1"] = attrs.field(
        default="beta", validator=attrs.validators.in_(("beta", "matched", "q1"))
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        object.__setattr__(self, "startup_evaluations", int(self.first == "evaluate"))

    def plan(self, step: Step) -> StepPlan:
        gauge = self._gauge(step)
        if gauge.to_stop(self._c(step.eta)) > FARTHEST:
            return exponential_step(step)
        level = gauge.node(step.process, self._c(step.eta))
        board, *draws = self._draws(step, gauge)
        rows = 2 if math.isfinite(self.local) else 1
        kept: tuple[_Kept, ...] = step.memory[::rows]
        if rows == 1:
            R = [board.memory(i) for i in range(len(kept))]
        else:
            R = [
                remainder(note.level, gauge.v, board.memory(2 * i + 1), board.memory(2 * i))
                for i, note in enumerate(kept)
            ]
        matched = self.weights == "matched" and step.eta == 1.0 and gauge.v > 0.0
        moments: Moments | None = None
        if matched:
            weights, moments = self._match(step, gauge, level, kept)
        elif kept:
            weights = self._weights(gauge, kept, step.eta)
        if kept:
            predicted = sum((r * a for r, a in zip(R, weights, strict=False)), ZERO)
        elif self.first == "evaluate":
            first = board.evaluate(board.state, step.start)
            predicted = remainder(step.start, gauge.v, first.x, first.value)
        else:
            predicted = ZERO
        new, node, last = self._stage(step, board, gauge, level, draws, predicted)
        note = _Kept(step.start, step.stop, level, moments)
        depth = DEPTH if matched else 3 if self.weights == "q1" else 2
        keep: list[tuple[LinearForm, Any]] = (
            [(last, note)] if rows == 1 else [(node.value, note), (node.x, None)]
        )
        keep += [
            (board.memory(i), step.memory[i])
            for i in range(min(len(step.memory), (depth - 1) * rows))
        ]
        return board.finish(new, keep=keep)

    def _match(
        self, step: Step, gauge: GaugeStep, level: Level, kept: tuple[_Kept, ...]
    ) -> tuple[list[float], Moments]:
        """Matched weights, and the moments after the step."""
        before = kept[0].moments if kept else None
        if before is None:
            # with `local`, v stands above the variances of the data
            before, kept = (
                Moments.at(
                    step.start,
                    self.data_variance / (4.0 if math.isfinite(self.local) else 1.0),
                    step.stop,
                ),
                (),
            )
        law = GaussianStep(
            gauge, level, self._c(step.eta), before, tuple(note.level for note in kept)
        )
        end = step.process.level(step.process.t_min)
        weights = law.weights(self._rule(gauge, kept), (end.sigma / end.alpha) ** 2)
        return weights, law.after(weights, DEPTH)

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
        e, c = eta**2, self._c(eta)
        if self.weights == "q1" and len(kept) >= 3 and e == 1.0:
            a3 = (1.0 + c) / 4.0
            a2 = -0.5 - 2.0 * a3
            return [1.5 + a3, a2, a3]
        weights = self._rule(gauge, kept)
        if e < 1.0 and len(kept) > 1:
            # R at the middle of [start, node], extrapolated in Q = (s + v)^(-(1 + eta^2)/2) through the two stages
            a = 1.0 + e
            # (Q less that of the end of the step, over it: so short steps far below v do not cancel)
            ways = [gauge.to_stop(c), gauge.L]
            ways += [log_ratio(note.level, gauge.stop, gauge.v) for note in kept[:2]]
            q_node, q_start, q1, q2 = (math.expm1(-0.5 * a * way) for way in ways)
            slope = -e * weights[1] + (1.0 - e) * (0.5 * (q_start + q_node) - q1) / (q1 - q2)
            weights = [1.0 + slope, -slope]
        return weights


@attrs.frozen(kw_only=True)
class SRK2MLocal(SRK2M):
    """`srk2m-local`: `srk2m` in a gauge that follows the noise, with matched weights and the node at 1/3; for networks of images and other data with
    detail at all scales.

    One network call per step, weak order 2, strong order 1.5; two normals per coordinate and step. R of a step belongs to the variance
    1/(1/v + 1/(local s)) at the middle of that step, so that the denoiser and the state of each stage are kept in place of its R. On two networks of images
    it is ahead of ten other solvers on their best grids from 10 calls on, along the path by far, in law or within the standard errors (docs: Real
    networks); on low-dimensional smooth densities `auto`, the same method with local = 1.5 and the node at 1/4, is better.

    Arguments:
        data_variance: v, a bound; some four times the variance of the data (2: for data scaled to [-1, 1]).
        local: size of what is open at a noise level, in units of (sigma/alpha)^2.
        strong: False puts the node at 1/4: better on smooth densities, worse along the path on networks.
        node, beta, first, weights: as of `SRK2M`.
    """

    name = "srk2m-local"
    reference = "srk (docs: House methods, a gauge that follows the noise)"
    advice = "one call, order 2; the first choice for networks of images"

    data_variance: float = attrs.field(default=2.0, converter=check_variance)
    local: float = attrs.field(default=0.1, converter=check_slope)
    strong: bool = True
    weights: Literal["beta", "matched", "q1"] = attrs.field(
        default="matched", validator=attrs.validators.in_(("beta", "matched", "q1"))
    )
