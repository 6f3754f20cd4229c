"""Solvers with their network calls at the times of a given schedule, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import attrs

from srk.errors import IncompatibleError
from srk.integrators.auto import Auto
from srk.integrators.base import Integrator
from srk.integrators.scheduled_srk2m import ScheduledSRK2M
from srk.integrators.srk2m import SRK2M
from srk.integrators.srk2s import SRK2S
from srk.plans.gauge_node import LONG
from srk.plans.plan import StepPlan
from srk.plans.schedule import place
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level
from srk.processes.phase import statistic

#: Number of calls from which `auto` takes the second of the gauges below. The first is the more
#: exact with few calls; the second keeps the samples of a Brownian path nearest to those of more
#: calls.
MANY = 20
#: `local` with fewer calls, and from there on (measured, docs/schedule.md).
FEW_LOCAL, MANY_LOCAL = 0.2, 2.0
#: What makes a schedule uneven, as those that hosts take at equal times are: its longest step in
#: log-SNR over their mean, or the noise sigma/alpha at its last call. With few calls `auto` then
#: takes the gauge of `srk2m`, which is the more exact there.
UNEVEN, NOISY_END = 1.8, 0.1


@attrs.frozen
class OnSchedule(Integrator):
    """Any solver with its network calls at the times of the grid; what `calls="schedule"` means.

    One network call at each time of the grid but the last. `srk2m`, `srk2m-local` and the `srk2m`
    that `auto` chooses run in the form of this module; `srk2` runs as `srk2m`, which predicts the
    stage for which `srk2` makes a second call. Solvers that call the network once a step, at its
    start, run as they are. Others raise `IncompatibleError`.

    The grid must be known before the run, because where a step ends depends on the calls after it.

    Arguments:
        method: the solver.

    Examples:
        >>> import srk
        >>> solver = srk.integrators.OnSchedule(srk.solvers()["srk2m"])
        >>> law = srk.analysis.gaussian_distribution(solver, srk.EDM(), steps=24)
        >>> law.nfe, law.kl < 1e-5
        (24, True)
    """

    infinite_noise = True
    noise_free = True
    advice = "calls at the times of the grid"

    method: Integrator

    @property
    def name(self) -> str:  # type: ignore[override]  # that of its solver
        return self.method.name

    @property
    def weak_order(self) -> float | None:  # type: ignore[override]
        return self.method.weak_order

    @property
    def strong_order(self) -> float | None:  # type: ignore[override]
        return None if self.method.strong_order is None else min(1.0, self.method.strong_order)

    @property
    def eta_range(self) -> tuple[float, float]:  # type: ignore[override]
        return self.method.eta_range

    @property
    def core(self) -> Integrator:
        return self.method.core

    @property
    def default_eta(self) -> float:
        return self.method.default_eta

    @property
    def linear_only(self) -> bool:  # type: ignore[override]
        return self.method.linear_only

    def closing(
        self, process: ForwardProcess, eta: float, steps: int | None
    ) -> Callable[[StepPlan], StepPlan] | None:
        return self.method.closing(process, eta, steps)

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        return f"{self.method.label(process, eta, steps)} on the schedule"

    def check(self, process: ForwardProcess, eta: float) -> None:
        self.method.check(process, eta)

    def on_grid(self, process: ForwardProcess, times: Sequence[float], eta: float) -> Integrator:
        calls = len(times) - 1
        chosen, linear = self.method.choose(process, eta, calls), statistic(process)
        levels = () if linear is None else tuple(linear.level(t) for t in times)
        form = _form(chosen, self.method, calls, uneven=_uneven(levels))
        if not isinstance(form, SRK2M) or linear is None or len(times) < 2:
            return _AtStarts(form)
        placed = place(linear, levels, _variances(form, levels), eta, form.stage.c(eta))
        times = tuple(level.t for level in levels)
        return ScheduledSRK2M(form, times, placed, self._variance(form))

    def _variance(self, form: SRK2M) -> float:
        """The variance of the data that the options speak of."""
        if isinstance(self.method, Auto):
            return self.method.data_variance / 4.0
        # where the gauge follows the noise, v is a bound some four times above
        return form.data_variance / (4.0 if form.stage.follows else 1.0)

    def plan(self, step: Step) -> StepPlan:
        raise IncompatibleError(
            "calls='schedule' needs a grid that is known before the run; "
            "use grid='log-snr' or a list of times, or calls='free'"
        )


def _uneven(levels: Sequence[Level]) -> bool:
    """Whether a schedule has one step that is much longer than the others, or ends in much noise.

    Steps from alpha = 0 and to sigma = 0, which are infinitely long, do not count.
    """
    finite = [level for level in levels if level.alpha > 0.0 and level.sigma > 0.0]
    if len(finite) < 2:
        return False
    steps = [b.lam - a.lam for a, b in pairwise(finite)]
    end = finite[-1]
    longest = max(steps) * len(steps) / sum(steps)
    return longest > UNEVEN or end.sigma > NOISY_END * end.alpha


def _form(chosen: Integrator, asked: Integrator, calls: int, *, uneven: bool) -> Integrator:
    """The solver that serves for `chosen`, which was chosen by `asked`, on a schedule.

    Arguments:
        chosen, asked: the solvers.
        calls: how many times the schedule has.
        uneven: see `_uneven`.
    """
    if isinstance(chosen, SRK2S):
        return SRK2M(
            data_variance=chosen.data_variance,
            local=chosen.local,
            strong=chosen.strong,
            node=chosen.node,
        )
    if not isinstance(chosen, SRK2M) or not isinstance(asked, Auto):
        return chosen
    if chosen.weights == "matched" and chosen.curve is None and asked.local != math.inf:
        # what `auto` varies with the number of steps was measured with free calls only
        v, few = asked.data_variance, calls < MANY
        if uneven and few and asked.local is None and asked.node is None:
            return SRK2M(data_variance=v / 4.0, strong=True)
        return attrs.evolve(
            chosen,
            data_variance=v / 4.0 if few and asked.local is None else v,
            bound=None,
            local=(FEW_LOCAL if few else MANY_LOCAL) if asked.local is None else asked.local,
            node=asked.node,
            strong=True,
        )
    return chosen


@attrs.frozen
class _AtStarts(Integrator):
    """A solver that must call the network at the start of each step, and nowhere else."""

    method: Integrator

    def plan(self, step: Step) -> StepPlan:
        return self.method.plan(step)

    def plan_step(self, step: Step) -> StepPlan:
        plan = self.method.plan_step(step)
        called = [stage.level.t for stage in plan.stages]
        if called != [plan.start.t]:
            listed = ", ".join(format(t, ".6g") for t in called)
            raise IncompatibleError(
                "calls='schedule' asks for one network call in each step, at its start, but step "
                f"{step.index} of {self.method.name}, which starts at t = {plan.start.t:.6g}, "
                f"calls at t = {listed}; use calls='free', or a solver that can: 'auto', "
                "'srk2', 'srk2m', 'srk2m-local', 'dpmpp-2m', 'dpmpp-2m-sde', 'ddpm'"
            )
        return plan


def _variances(method: SRK2M, levels: Sequence[Level]) -> list[float]:
    """The variance of each step's gauge.

    It is v, or where the gauge follows the noise that in the middle (of the half log-SNR) between
    the call of the step and the call before it. Where the way from a call to the next level is
    longer than `LONG`, it is v as in free steps.
    """
    values = []
    for i in range(len(levels) - 1):
        way = levels[i + 1].lam - levels[i].lam
        if method.curve is None and i > 0 and way > LONG and levels[i + 1].sigma > 0.0:
            values.append(method.data_variance)
        else:
            values.append(method.stage.variance(-(levels[max(i - 1, 0)].lam + levels[i].lam)))
    return values
