r"""`srk2m` with its network calls at the times of a given schedule, and nowhere else.

`srk2m` calls its network inside each step. Hosts that make the schedule themselves (ComfyUI,
diffusers) expect the calls at their own noise levels $n_0, n_1, \dots$, the first included:
patches are indexed by them, and networks of discrete times know no others. `OnSchedule` takes the
n_i as the nodes of steps whose ends are free (see `srk.plans.schedule`). With H_i the length of
step i on the clock of the gauge, c_i the fraction at which its node lies, and Rp_i the remainder
predicted from earlier calls,

    X_i      = Y_i + c_i H_i Rp_i + J_i      what the network sees: Var J_i = c_i H_i
    Y_{i+1}  = Y_i + H_i R_i + B_i           the path at the ends: Cov(J_i, B_i) = rho_i H_i

The run hands over X_i, the state at the schedule's own level, and keeps beside it what is needed to
go back from X_i to Y_i. So whoever changes the state between two calls (a mask, a callback) changes
the path.

**Order.** At eta = 1 the remainder R is a martingale, and every c_i >= 1/4 with rho_i = 1/2 gives
weak order 2, as for `srk2m`. For eta < 1 it has a drift, by which R_i is extrapolated from the node
to the middle of the step,

    R_i + k_i (R_i - R_{i-1}),      rho_i = (1/2 - k_i (1 - rho_{i-1}) H_{i-1}/H_i)/(1 + k_i);

this rho_i takes back the covariance that the extrapolation adds. The extrapolation is taken in
full at eta = 0 and fades with (1 - eta^2)^2, because the noise in it costs more than it brings.

**Prediction.** Rp_i = R_{i-1} + b (R_{i-1} - R_{i-2}). The weight b for which the lag does not
correlate with the state is (1 - rho_{i-1}) H_{i-1}/(rho_{i-1} H_{i-1} + (1 - rho_{i-2}) H_{i-2}),
which is H_1/(H_1 + H_2) of `srk2m` for rho = 1/2. With matched weights four calls are combined, see
`srk.plans.matching`.

**The end.** Where a schedule ends at 0, its last call may be at much noise: with ten steps of
ComfyUI's "simple" a flow with shift 3 makes it at sigma = 0.25. The denoiser D_n there varies less
than the data, by its mean squared error m_n. D is a martingale along the reverse process, so that
its last increment is uncorrelated with the past and D_n + k (D_n - D_{n-1}) varies more, by
(2k + k^2)(m_{n-1} - m_n). The k that gives back m_n on data N(0, w), for which m = w s/(w + s) at
s = (sigma/alpha)^2, is

    k = sqrt(1 + m_n/(m_{n-1} - m_n)) - 1,      but at most 0.3

On schedules whose last call is near the data k is 0. w is 0.6 of the variance of the reference:
much of the variance of real data is that between its modes, of which the last calls are sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.srk2m import SRK2M
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import remainder
from srk.plans.matching import DEPTH, GaussianStep, Moments
from srk.plans.plan import STATE, Column, StepPlan
from srk.plans.schedule import NodeStep, path_draws
from srk.plans.step import Draft, Step
from srk.processes.base import Level

#: The largest weight of the last increment of the denoiser at the end.
MOST = 0.3
#: The variance w of the end over that of the reference.
END = 0.6
#: Rows that a step keeps before the pairs (denoiser, state) of the calls.
ROWS = 2


@attrs.frozen(slots=True)
class _Call:
    """What is known of a call whose denoiser and state are kept: its step and correlation."""

    step: NodeStep
    rho: float

    @property
    def level(self) -> Level:
        return self.step.node


@attrs.frozen(slots=True)
class _Last:
    """The last call but one, whose denoiser is kept for the end."""

    level: Level


def _error(level: Level, w: float) -> float:
    """The mean squared error of the denoiser on data N(0, w)."""
    if level.alpha == 0.0:
        return w
    s = (level.sigma / level.alpha) ** 2
    return w * s / (w + s)


@attrs.frozen(slots=True, eq=False)
class _Begun:
    """A step that is begun: its draws are made, and the network is asked next."""

    rho: float
    law: _ScheduledGaussianStep | None
    weights: tuple[float, ...]


@attrs.frozen(slots=True, eq=False)
class _ScheduledGaussianStep(GaussianStep):
    """A step with a prescribed node on Gaussian data: J = rho B + sqrt(c - rho^2) z'."""

    rho: float = 0.5

    def _maps(
        self,
    ) -> tuple[float, float, float, float, float, float, np.ndarray, float, np.ndarray]:
        x, R = LinearForm({STATE: 1.0}), LinearForm({Column("E"): 1.0})
        node, noise = x, 0.0  # a call at the start sees the state itself
        if self.c > 0.0:
            node = self.gauge.carry(x, R, self.level, self.c)
            noise = self.gauge.noise_std(self.level, self.c)
        step = self.gauge.carry(x, R, self.gauge.stop)
        past = [self._slope(level) for level in self.nodes]
        return (
            node.number(STATE), node.number(Column("E")),
            step.number(STATE), step.number(Column("E")),
            self.rho * noise, math.sqrt(max(self.c - self.rho**2, 0.0)) * noise,
            self._slope(self.level), self.gauge.noise_std(self.gauge.stop),
            np.array(past).reshape(-1, len(self.before.variances)).T,
        )  # fmt: skip


@attrs.frozen
class ScheduledSRK2M(Integrator):
    """`srk2m` on one schedule: a network call at each of its times, weak order 2.

    `OnSchedule.on_grid` makes it for one process and eta. A run may begin at any time of the
    schedule; its first call is then the start of a step of its own.

    Arguments:
        method: the options.
        times: the schedule in own time, from noise to data.
        placed: the step around each call.
        variance: that of the data per coordinate, for which steps and end are exact.
    """

    name = "srk2m"
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    infinite_noise = True
    noise_free = True
    reference = SRK2M.reference
    advice = "srk2m whose calls are at the times of a given schedule"

    method: SRK2M
    times: tuple[float, ...]
    placed: tuple[NodeStep, ...]
    variance: float

    def plan(self, step: Step) -> StepPlan:
        if step.stop.sigma == 0.0:
            return self._end(step)
        index = self._index(step)
        e = step.eta**2
        draft = step.draft(f"gauge({self.method.data_variance:g},{step.eta:g})")
        here = self.placed[index] if step.memory else self.placed[index].from_node()
        calls: tuple[_Call, ...] = step.memory[ROWS::2]
        pairs = [
            (draft.memory(ROWS + 2 * j), draft.memory(ROWS + 2 * j + 1)) for j in range(len(calls))
        ]
        node = draft.evaluate(draft.state, here.node)

        # Back from what the network saw to the path, and the draw that the step was begun with
        moments: Moments | None = None
        if step.memory:
            begun: _Begun = step.memory[0]
            rho, b = begun.rho, draft.memory(0)
            share = (
                here.gauge.carry(draft.state, ZERO, here.node, here.c) if here.c else draft.state
            )
            path = (draft.state - draft.memory(1)) / share.number(STATE)
            if begun.law is not None:
                moments = begun.law.after(begun.weights, DEPTH)
        else:
            rho, path = 0.0, draft.state
            b, _ = path_draws(draft, here.gauge, self.method.data_variance, area=False)
            if self._matches(here, e):
                moments = self._first_moments(here)

        # Finish the step
        R = remainder(here.node, here.gauge.v, node.x, node.value)
        if calls:
            k = _extrapolation(here, calls[0].level, e)
            last = remainder(calls[0].level, here.gauge.v, pairs[0][1], pairs[0][0])
            R = R + (R - last) * k
        end = here.gauge.carry(path, R, here.stop) + b * here.gauge.noise_std(here.stop)
        if index + 1 == len(self.placed):
            return draft.finish(end)

        # Begin the next
        calls = (_Call(here, rho), *calls)
        pairs = [(node.value, node.x), *pairs]
        return self._begin(step, draft, index + 1, end, calls, pairs, moments)

    def _begin(
        self,
        step: Step,
        draft: Draft,
        index: int,
        path: LinearForm,
        calls: tuple[_Call, ...],
        pairs: list[tuple[LinearForm, LinearForm]],
        moments: Moments | None,
    ) -> StepPlan:
        """The plan that ends with what the network sees at the next call."""
        e = step.eta**2
        there = self.placed[index]
        gauge, rule = there.gauge, _rule(there, calls, e, self.method.beta)
        rho, law = 1.0, None
        to_last_call = there.stop == there.node  # the way to the call whose denoiser ends the run
        if not to_last_call:
            rho = _correlation(there, calls[0], e)
            if moments is not None:
                levels = tuple(call.level for call in calls[:DEPTH])
                law = _ScheduledGaussianStep(gauge, there.node, there.c, moments, levels, rho)
                last = step.process.level(self.times[-1])
                rule = law.weights(rule[:DEPTH], (last.sigma / last.alpha) ** 2)
        # the denoiser of this call, for the end
        kept: list[tuple[LinearForm, Any]] = []
        if to_last_call and index + 1 == len(self.placed):
            kept.append((pairs[0][0], _Last(calls[0].level)))
        if there.c == 0.0:
            return draft.finish(path, keep=kept)
        b, area = path_draws(
            draft, gauge, self.method.data_variance, area=there.c > rho**2 * (1.0 + 1e-9)
        )
        predicted = ZERO
        for call, (denoised, at), weight in zip(calls, pairs, rule, strict=False):
            predicted = predicted + remainder(call.level, gauge.v, at, denoised) * weight
        j = b * rho + area * math.sqrt(max(there.c - rho**2, 0.0))
        beyond = gauge.carry(ZERO, predicted, there.node, there.c)
        beyond = beyond + j * gauge.noise_std(there.node, there.c)
        x = gauge.carry(path, ZERO, there.node, there.c) + beyond
        if to_last_call:
            return draft.finish(x, keep=kept)
        kept += [(b, _Begun(rho, law, tuple(rule))), (beyond, None)]
        depth = DEPTH if moments is not None else 2
        for call, (denoised, at) in list(zip(calls, pairs, strict=True))[:depth]:
            kept += [(denoised, call), (at, None)]
        return draft.finish(x, keep=kept)

    def _end(self, step: Step) -> StepPlan:
        """The step to sigma = 0."""
        draft = step.draft()
        denoised = draft.evaluate(draft.state, step.start).value
        if step.memory and isinstance(step.memory[0], _Last):
            before, here = (
                _error(level, END * self.variance) for level in (step.memory[0].level, step.start)
            )
            if before > here:
                k = min(math.sqrt(1.0 + here / (before - here)) - 1.0, MOST) * step.eta**2
                denoised = denoised + (denoised - draft.memory(0)) * k
        return draft.finish(denoised * step.stop.alpha)

    def _index(self, step: Step) -> int:
        if step.start.t not in self.times[:-1]:
            raise ArgumentError(
                f"this solver was made for the schedule {self.times!r}, of which "
                f"t = {step.start.t!r} is not a time; make it anew with OnSchedule.on_grid"
            )
        return self.times.index(step.start.t)

    def _matches(self, here: NodeStep, e: float) -> bool:
        return self.method.weights == "matched" and e == 1.0 and here.gauge.v > 0.0

    def _first_moments(self, here: NodeStep) -> Moments:
        """The moments after the first step, whose call is at its start."""
        before = Moments.at(here.node, self.variance, here.stop)
        first = _ScheduledGaussianStep(here.gauge, here.node, 0.0, before, (), 0.0)
        moments = first.after([], DEPTH)
        w = before.variances
        # Weights cannot take back what the first step got wrong, and later steps forget it
        moments.covariance[:, 0, 0] = here.stop.alpha**2 * w + here.stop.sigma**2
        return moments


def _scale(level: Level, v: float, e: float) -> float:
    """Q = (s + v)^(-(1 + e)/2), in which R of the probability-flow ODE is interpolated."""
    if level.alpha == 0.0:
        return 0.0
    return float(((level.sigma / level.alpha) ** 2 + v) ** (-0.5 * (1.0 + e)))


def _extrapolation(step: NodeStep, before: Level, e: float) -> float:
    """k: from the node of a step to its middle, in units of the way from the node before."""
    if e == 1.0:
        return 0.0
    ends = (_scale(level, step.gauge.v, e) for level in (step.start, step.stop))
    node = _scale(step.node, step.gauge.v, e)
    middle, last = 0.5 * sum(ends), _scale(before, step.gauge.v, e)
    return (1.0 - e) ** 2 * (middle - node) / (node - last)


def _correlation(step: NodeStep, call: _Call, e: float) -> float:
    """rho of a step, after the step of the latest call."""
    k = _extrapolation(step, call.level, e)
    ratio = 0.0
    if k != 0.0:
        lengths = (step.gauge.length(s.start, s.stop) for s in (call.step, step))
        before, length = lengths
        ratio = before / length if math.isfinite(before) else 0.0
    most = math.sqrt(step.c)
    return max(-most, min(most, (0.5 - k * (1.0 - call.rho) * ratio) / (1.0 + k)))


def _rule(step: NodeStep, calls: Sequence[_Call], e: float, beta: float | None) -> list[float]:
    """The weights of earlier remainders, the latest first, before they are matched."""
    if len(calls) < 2:
        return [1.0]
    gauge, (one, two) = step.gauge, calls[:2]
    first, second = (gauge.length(call.step.start, call.step.stop) for call in (one, two))
    slope = 0.0
    if math.isfinite(first + second):
        slope = beta if beta is not None else (1.0 if gauge.v > 0.0 else 0.5)
        slope *= (1.0 - one.rho) * first / (one.rho * first + (1.0 - two.rho) * second)
    if e < 1.0:
        # R at the middle of the way to the node, extrapolated through the two calls
        middle = 0.5 * (_scale(step.start, gauge.v, e) + _scale(step.node, gauge.v, e))
        q = [_scale(call.level, gauge.v, e) for call in (one, two)]
        slope = e * slope + (1.0 - e) * (middle - q[0]) / (q[0] - q[1])
    return [1.0 + slope, -slope, *[0.0] * (len(calls) - 2)]
