r"""Steps around given nodes: where the steps of a run end when its network calls are prescribed.

A schedule $n_0, n_1, \dots$ of noise levels says where the network is called. The steps between
the calls end at levels $e_i$ that are free to choose,

    e_0 = n_0,    n_{i-1} <= e_i <= n_i <= e_{i+1}        on a clock that grows towards the data

so that step i, from e_i to e_{i+1}, has its one call at n_i, at the fraction c_i of its length
(0 for the first step). On a schedule whose steps grow by one factor, every node lies at the
fraction c if

    1/(n_i - e_i) = 1/(n_i - n_{i-1}) + (1/c - 1)/(n_{i+1} - n_i).

That rule places the ends on any schedule. Where a node would then lie before a quarter of its
step, which the methods of weak order 2 need, the ends are moved towards the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep, log_ratio
from srk.plans.step import Draft
from srk.processes.base import Level, LinearProcess

#: The earliest node of a step of weak order 2, as a fraction of the step.
EARLIEST = 0.25


@attrs.frozen(slots=True)
class NodeStep:
    """A step with one network call at a prescribed level.

    Arguments:
        gauge: the step, from one end to the next.
        node: the level of the call.
        c: the fraction of the step at which the node lies on the gauge's clock; 0 where the call is
            at the start of the step, 1 where it is at its end.
    """

    gauge: GaugeStep
    node: Level
    c: float

    @property
    def start(self) -> Level:
        """The level at which the step starts."""
        return self.gauge.start

    @property
    def stop(self) -> Level:
        """The level at which the step ends."""
        return self.gauge.stop

    def from_node(self) -> NodeStep:
        """The same step for a run that begins at its node."""
        return NodeStep(attrs.evolve(self.gauge, start=self.node), self.node, 0.0)


def place(
    process: LinearProcess,
    levels: Sequence[Level],
    variances: Sequence[float],
    eta: float,
    c: float,
) -> tuple[NodeStep, ...]:
    """The steps whose calls lie at `levels[0]`, `levels[1]`, ...

    Arguments:
        process: the linear process of the levels.
        levels: the schedule, from noise to data. Its last level is where the run ends. If that is
            free of noise, the last step of the schedule is the denoiser, and the last step here is
            the way to its call, with c = 1 (or 0 where nothing is left of it).
        variances: of the gauge of each step, one for each level but the last.
        eta: stochasticity.
        c: the fraction at which the nodes are to lie.

    Returns:
        One step for each call.
    """
    count = len(levels) - 1
    noise_free = levels[-1].sigma == 0.0
    clocks = [_NodeClock(process, levels[i], variances[i], eta**2) for i in range(count)]
    ends = [levels[0]]
    for i in range(1, count):
        if noise_free and i == count - 1:
            ends.append(levels[i])
            continue
        back, ahead = clocks[i].back(levels[i - 1]), clocks[i].ahead(levels[i + 1])
        ends.append(clocks[i].before(1.0 / (1.0 / back + (1.0 / c - 1.0) / ahead), levels[i - 1]))
    ends.append(levels[-1])
    if eta**2 > 0.5:
        _leave_room(clocks, levels, ends, count - 1 if noise_free else count)
    steps = []
    for i in range(count):
        start, node, stop = ends[i], levels[i], ends[i + 1]
        if noise_free and i == count - 1:
            stop, fraction = node, 0.0 if start == node else 1.0
        elif start == node:
            fraction = 0.0
        else:
            back, ahead = clocks[i].back(start), clocks[i].ahead(stop)
            fraction = back / (back + ahead) if math.isfinite(back) else 1.0
        steps.append(NodeStep(GaugeStep(start, stop, variances[i], eta), node, fraction))
    return tuple(steps)


def _leave_room(
    clocks: Sequence[_NodeClock], levels: Sequence[Level], ends: list[Level], steps: int
) -> None:
    """Move the ends towards the noise until every node lies at a quarter of its step or later."""
    ratio = 1.0 / EARLIEST - 1.0
    for i in range(steps - 1, 0, -1):
        clock, before = clocks[i], levels[i - 1]
        # the first step, which has its call at the start, keeps some length
        back, ahead = clock.back(before) * (0.98 if i == 1 else 1.0), clock.ahead(ends[i + 1])
        if ahead > ratio * back and i + 1 < len(ends) - 1:
            # even a step that starts at the node before would be too long
            ends[i + 1] = clock.after(ratio * back)
            ahead = ratio * back
        ends[i] = clock.before(min(max(clock.back(ends[i]), ahead / ratio), back), before)


@attrs.frozen(slots=True)
class _NodeClock:
    """Lengths on the clock T = (s + v)^(-e)/e around a node, in units of (s_node + v)^(-e)."""

    process: LinearProcess
    node: Level
    v: float
    e: float

    def back(self, level: Level) -> float:
        """From a noisier level to the node."""
        way = 0.0 if level == self.node else log_ratio(level, self.node, self.v)
        return way if self.e == 0.0 else -math.expm1(-self.e * way) / self.e

    def ahead(self, level: Level) -> float:
        """From the node to a cleaner level."""
        way = 0.0 if level == self.node else log_ratio(self.node, level, self.v)
        return way if self.e == 0.0 else math.expm1(min(self.e * way, 700.0)) / self.e

    def before(self, length: float, limit: Level) -> Level:
        """The level `length` before the node, but not before `limit`."""
        return limit if length >= self.back(limit) else self._level(length)

    def after(self, length: float) -> Level:
        """The level `length` after the node."""
        return self._level(-length)

    def _level(self, back: float) -> Level:
        way = back if self.e == 0.0 else -math.log1p(-self.e * back) / self.e
        s = (self.node.sigma / self.node.alpha) ** 2
        return self.process.level_at(-0.5 * math.log(s + (s + self.v) * math.expm1(way)))


def path_draws(
    draft: Draft, gauge: GaugeStep, v: float, *, area: bool
) -> tuple[LinearForm, LinearForm]:
    """Unit draws of a step: the increment of its gauge's clock, and its space-time area.

    A path lives on the clock of the gauge `v` of the whole run. In a step whose gauge is another,
    the increment is an integral along that path, with a kernel.

    Arguments:
        draft: where the draws go.
        gauge: the step.
        v: variance of the gauge on whose clock the path lives.
        area: whether the second draw is needed.
    """
    e, path = gauge.eta**2, attrs.evolve(gauge, v=v)
    if e == 0.0:
        return ZERO, ZERO
    if gauge.v == v:
        first = draft.normal(*path.interval)
        return first, draft.normal(*path.interval, (0.0, 1.0)) if area else ZERO
    start, stop = gauge.interval

    def kernel(clock: np.ndarray) -> np.ndarray:
        # dT_gauge/dT, T = (s + v)^-e / e, is ((s + v)/(s + gauge.v))^(1 + e)
        return (1.0 + (gauge.v - v) * (e * clock) ** (1.0 / e)) ** (-0.5 * (1.0 + e))

    def centred(clock: np.ndarray) -> np.ndarray:
        s = (e * clock) ** (-1.0 / e) - v
        return kernel(clock) * (0.5 - ((s + gauge.v) ** -e / e - start) / (stop - start))

    first, *rest = draft.orthonormal(*path.interval, [kernel, centred] if area else [kernel])
    return first, rest[0] if rest else ZERO
