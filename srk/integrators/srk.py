"""The house methods: stochastic Runge-Kutta in the gauge clock, with one or two network calls a step."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs

from srk.errors import ArgumentError
from srk.integrators.base import Integrator, Step, exponential_step
from srk.integrators.gauge import GaugeStep, check_variance, exponential_coefficients, remainder
from srk.integrators.matching import GaussianStep, Moments
from srk.integrators.plan import ZERO, Draft, LinearForm, StepPlan

#: Default variance of the Gaussian reference. Measured, see docs (How to choose a solver): for data scaled to [-1, 1] values between
#: 0.1 and 1 differ by little.
DATA_VARIANCE = 0.5


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
        cx, cd, cz, interval = exponential_coefficients(step.start, step.stop, self.data_variance, step.eta)
        board = step.draft(GaugeStep(step.start, step.stop, self.data_variance, step.eta).clock)
        node = board.evaluate(board.state, step.start)
        return board.finish(board.state * cx + node.value * cd + board.normal(*interval) * cz)


def _fraction(value: Any) -> float | None:
    if value is None:
        return None
    c = float(value)
    if not 0.25 <= c < 1:
        raise ArgumentError(f"the node must lie in [1/4, 1) of the step (Cauchy-Schwarz: Var J = c H, Cov(J, B) = H/2), not at {value!r}")
    return c


@attrs.frozen(kw_only=True)
class _GaugeNode(Integrator):
    """What srk2s and srk2m share: one stage inside the step, on its own noise level, whose R carries the whole step."""

    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    infinite_noise = True
    reference = "srk (docs: The mathematics, gauge clock)"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)
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

    def _stage(self, step: Step, board: Draft, gauge: GaugeStep, predicted: LinearForm) -> tuple[LinearForm, LinearForm, Any]:
        """The new state, the node's R, and the node's level, from the R predicted for the way to the node."""
        c = self._c(step.eta)
        level = gauge.node(step.process, c)
        b = board.normal(*gauge.interval)
        area = board.normal(*gauge.interval, (0.0, 1.0))
        # J = B/2 + sqrt(c - 1/4) z': Var J = c (the node's own noise level) and Cov(J, B) = 1/2, in units of the step
        j = b * 0.5 + area * math.sqrt(max(c - 0.25, 0.0))
        x = gauge.carry(board.state, predicted, level, c) + j * gauge.noise_std(level, c)
        node = board.evaluate(x, level)
        R = remainder(level, self.data_variance, node.x, node.value)
        new = gauge.carry(board.state, R, step.stop) + b * gauge.noise_std(step.stop)
        return new, R, level


@attrs.frozen(kw_only=True)
class SRK2S(_GaugeNode):
    """`srk2s` = `srk2`: two-stage stochastic Runge-Kutta in the gauge clock.

    Two network calls per step, weak order 2 (3 on linear problems), strong order 1 with the default node c = 1/4 and 1.5 with
    `strong=True` (c = 1/3, which costs about 1.7x in KL). Update, with H the step and B its Brownian increment on the clock:

        Xc = X + c H R(X) + J,    X' = X + H R(Xc) + B,    Var J = c H,  Cov(J, B) = H/2

    Its sibling with one call per step is `srk2m`.

    Arguments:
        data_variance: v, the variance of the Gaussian reference in the units of the data squared.
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
    """

    name = "srk2s"
    evaluations_per_step = 2
    advice = "two calls, order 2; single step, so nothing to start up"

    def plan(self, step: Step) -> StepPlan:
        if step.start.alpha == 0.0 and step.eta == 0.0:
            return exponential_step(step)  # the midpoint of an infinite step on log(s + v) is at infinity itself
        gauge = GaugeStep(step.start, step.stop, self.data_variance, step.eta)
        board = step.draft(gauge.clock)
        first = board.evaluate(board.state, step.start)
        R0 = remainder(step.start, self.data_variance, first.x, first.value)
        new, R, _ = self._stage(step, board, gauge, R0)
        # what srk1 would have made of the first evaluation, with the same noise
        return board.finish(new, error=gauge.carry(board.state, R, step.stop) - gauge.carry(board.state, R0, step.stop))


@attrs.frozen(slots=True)
class _Kept:
    """What srk2m knows of a stage it kept: the length of its step on the clock T, its place Q = (s + v)^(-(1 + eta^2)/2), and the moments after its step."""

    H: float
    Q: float
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
        strong: put the node at 1/3 and draw the Levy area, for strong order 1.5.
        node: the node c itself, in [1/4, 1); overrides `strong`.
        beta: weight of the correction for the lag; default 1, or 1/2 where v = 0.
        first: prediction on the first step: "mean" takes `data_mean` (no call), "evaluate" makes one more network call.
        data_mean: mean of the Gaussian reference, used by the first step only.
        weights: "beta" (the rule above); "matched" (eta = 1: three stages, weights near that rule under which the law of the state is as exact as it can be on
            Gaussian data of every variance, see `srk.integrators.matching`; better from 10 calls on); or "q1" (three stages, fixed weights; uniform steps).
    """

    name = "srk2m"
    advice = "one call, order 2; the first choice at any budget"

    beta: float | None = None
    first: Literal["mean", "evaluate"] = attrs.field(default="mean", validator=attrs.validators.in_(("mean", "evaluate")))
    weights: Literal["beta", "matched", "q1"] = attrs.field(default="beta", validator=attrs.validators.in_(("beta", "matched", "q1")))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        object.__setattr__(self, "startup_evaluations", int(self.first == "evaluate"))

    def plan(self, step: Step) -> StepPlan:
        if step.start.alpha == 0.0 and step.eta == 0.0:
            return exponential_step(step)
        v = self.data_variance
        gauge = GaugeStep(step.start, step.stop, v, step.eta)
        board = step.draft(gauge.clock)
        kept: tuple[_Kept, ...] = step.memory
        matched = self.weights == "matched" and step.eta == 1.0 and v > 0.0
        moments: Moments | None = None
        if matched:
            predicted, moments = self._match(step, board, gauge, kept)
        elif kept:
            predicted = self._predict(board, gauge, kept, step.eta)
        elif self.first == "evaluate":
            node = board.evaluate(board.state, step.start)
            predicted = remainder(step.start, v, node.x, node.value)
        else:
            predicted = ZERO
        new, R, level = self._stage(step, board, gauge, predicted)
        start, stop = gauge.interval
        q = ((level.sigma / level.alpha) ** 2 + v) ** (-0.5 * (1.0 + step.eta**2))
        depth = 3 if matched or self.weights == "q1" else 2
        history = [(R, _Kept(stop - start, q, moments))] + [(board.memory(i), note) for i, note in enumerate(kept)]
        return board.finish(new, keep=history[:depth])

    def _match(self, step: Step, board: Draft, gauge: GaugeStep, kept: tuple[_Kept, ...]) -> tuple[LinearForm, Moments]:
        """The prediction with matched weights, and the moments after the step."""
        before = kept[0].moments if kept else None
        if before is None:
            before, kept = Moments.at(step.start, self.data_variance), ()
        c = self._c(step.eta)
        law = GaussianStep(gauge, gauge.node(step.process, c), c, before)
        rule = [1.0] * len(kept)
        if len(kept) > 1:
            one, two = kept[0].H, kept[1].H
            slope = (1.0 if self.beta is None else self.beta) * one / (one + two)
            rule = [1.0 + slope, -slope, 0.0][: len(kept)]
        end = step.process.level(step.process.t_min)
        weights = law.weights(rule, step.h, (end.sigma / end.alpha) ** 2)
        predicted = sum((board.memory(i) * a for i, a in enumerate(weights)), ZERO)
        return predicted, law.after(weights, 3)

    def _predict(self, board: Draft, gauge: GaugeStep, kept: tuple[_Kept, ...], eta: float) -> LinearForm:
        R = [board.memory(i) for i in range(len(kept))]
        if len(kept) == 1:
            return R[0]
        e = eta**2
        if self.weights == "q1" and len(kept) >= 3 and e == 1.0:
            a3 = (1.0 + self._c(eta)) / 4.0
            a2 = -0.5 - 2.0 * a3
            return R[0] * (1.5 + a3) + R[1] * a2 + R[2] * a3
        one, two = kept[0], kept[1]
        slope = 0.0
        if e > 0.0:
            beta = self.beta if self.beta is not None else (1.0 if self.data_variance > 0 else 0.5)
            slope += e * beta * (one.H / (one.H + two.H) if math.isfinite(two.H) else 0.0)
        if e < 1.0:
            # R at the middle of [start, node], extrapolated in Q through the two stages
            a = 1.0 + e
            s1 = (gauge.stop.sigma / gauge.stop.alpha) ** 2 + self.data_variance
            q_node = (s1 * math.exp(gauge._to_stop(self._c(eta)))) ** (-0.5 * a)
            q_start = (s1 * math.exp(gauge.L)) ** (-0.5 * a)
            slope += (1.0 - e) * (0.5 * (q_start + q_node) - one.Q) / (one.Q - two.Q)
        return R[0] * (1.0 + slope) - R[1] * slope
