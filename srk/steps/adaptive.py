"""Steps that adapt to an estimate of their error."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import attrs
import torch

from srk._fields import ge, gt, in_, lt
from srk.errors import ArgumentError, IncompatibleError
from srk.plans import Step
from srk.processes.phase import statistic
from srk.steps.base import Decision, Range, Report, RunInfo, StepController

_positive = attrs.validators.and_(gt(0.0), lt(math.inf))
_SOLVERS = "'srk2', 'sra1' or 'sosra'"


@attrs.frozen
class Adaptive(StepController):
    r"""`adaptive`: steps as long as their error estimate allows.

    It needs a solver that has an estimate, and noise="brownian" unless eta = 0.

    A step is accepted if the norm of error/(atol + rtol |u|) is at most 1, with u the state after
    it and `error` the difference between the solver's update and a lower-order one from the same
    network calls. For a linear process u = x/alpha, which is in the units of the data at every
    noise level (and so is the error): processes that differ only in their scaling take the same
    steps. Otherwise u = x.

    Steps are chosen in half log-SNR for linear processes, in own time otherwise. The length is
    multiplied by

    $$
    \mathrm{factor} = \mathrm{safety}\,
    \big(e_1^{-(p + i + d)}\, e_2^{p + 2d}\, e_3^{-d}\big)^{1/q}
    $$

    where e1, e2, e3 are this step's norm and the two accepted before it, and q = 3/2 (2 at
    eta = 0) is the order of the estimate; it is kept between `min_factor` and `max_factor`, and
    after a rejection it is safety e1^(-1/q) <= safety. The run ends exactly at t_min. A step from
    alpha = 0, of infinite length, ends at sigma/alpha = 80 and is accepted, as is one without an
    estimate (to sigma = 0).

    A rejected step is retried on the same Brownian path, so that a run discretizes a path that its
    own decisions do not bend. A source that draws afresh would prefer paths on which steps look
    good, and is refused. With norm="batch" (default) and "worst" alike all samples take the same
    steps: a sample's result depends on the batch it is in. On a GPU a decision waits for the
    device, once per step.

    Arguments:
        rtol: relative tolerance, may be 0.
        atol: absolute tolerance in units of the data, positive.
        norm: "batch": root mean square over all coordinates of all samples. "worst": the largest
            of the samples' root mean squares, so that one hard sample keeps its accuracy.
            "sample": each sample's own decides about it. A step that most samples pass counts for
            them, and those that do not pass take it again in shorter steps, as a smaller batch; a
            step that most do not pass is rejected for all.
        estimate: "embedded": the solver's own estimate. "doubling": each step is two of half the
            length, and the error their difference from one of the whole, which serves any solver
            whose draws a path keeps, at three times the calls.
        proportional, integral, derivative: the coefficients p, i, d of the PID controller.
        safety: factor below 1.
        min_factor, max_factor: limits of the change of a step's length.
        first_step: length of the first step, in half log-SNR, or own time for a process that is
            not linear; None takes 1/4, or a hundredth of the range.
        max_nfe: stop before this number of network calls is exceeded. `Solution.status` then says
            so, x is the state reached, and no final denoising (one call more in a run that ends)
            takes place.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> sol = srk.solve(
        ...     process,
        ...     target.score(process),
        ...     "srk2",
        ...     shape=(64, 1),
        ...     grid=srk.steps.Adaptive(rtol=0.05, atol=0.05),
        ...     noise="brownian",
        ...     seed=0,
        ... )
        >>> sol.status, sol.times[-1] == process.t_min
        ('done', True)
    """

    name = "adaptive"

    rtol: float = attrs.field(default=1e-2, validator=ge(0.0))
    atol: float = attrs.field(default=1e-2, validator=_positive)
    norm: Literal["batch", "worst", "sample"] = attrs.field(
        default="batch", validator=in_(("batch", "worst", "sample"))
    )
    estimate: Literal["embedded", "doubling"] = attrs.field(
        default="embedded", validator=in_(("embedded", "doubling"))
    )
    proportional: float = 0.2
    integral: float = attrs.field(default=0.7, validator=_positive)
    derivative: float = 0.0
    safety: float = attrs.field(default=0.9, validator=[gt(0.0), lt(1.0)])
    min_factor: float = attrs.field(default=0.2, validator=[gt(0.0), lt(1.0)])
    max_factor: float = attrs.field(default=2.0, validator=gt(1.0))
    first_step: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    max_nfe: int | None = attrs.field(default=None, validator=attrs.validators.optional(ge(1)))

    @property
    def doubling(self) -> bool:
        return self.estimate == "doubling"

    def fresh(self) -> StepController:
        return _AdaptiveRun(self)

    def first(self, info: RunInfo) -> tuple[float, float]:
        return self.fresh().first(info)

    def next(self, report: Report) -> Decision:
        raise IncompatibleError(
            "this Adaptive is shared by runs and remembers none; call next on Adaptive().fresh()"
        )


class _AdaptiveRun(StepController):
    """One run of `Adaptive`: the options, and what the steps so far have taught.

    Arguments:
        options: the tolerances and coefficients.
    """

    name = Adaptive.name

    def __init__(self, options: Adaptive) -> None:
        self.options = options
        self.length = 0.0
        """Length of the next step."""
        self.short = 0.0
        """First length of samples that take a step again by themselves."""
        self.norms = (1.0, 1.0)
        """Norms of the errors of the last two accepted steps, the last one first."""
        self.before = 0
        """Network calls up to the report before."""

    @property
    def doubling(self) -> bool:
        return self.options.doubling

    def fork(self) -> StepController:
        fork = copy.copy(self)
        fork.length, fork.norms = self.short, (1.0, 1.0)
        return fork

    def first(self, info: RunInfo) -> tuple[float, float]:
        if info.steps is not None:
            raise ArgumentError(
                "an adaptive run decides how many steps it takes; leave steps and nfe out, "
                "and bound its cost with grid=srk.steps.Adaptive(max_nfe=100)"
            )
        self.axis = axis = _Axis.of(info.process)
        self.order = 1.5 if info.eta > 0 else 2.0
        length = self.options.first_step
        if length is None:
            length = 0.25 if axis.linear else 0.01 * (axis.stop - axis.start)
        self.length = min(length, axis.stop - axis.start)
        self._check(info)
        first = axis.time(axis.start) if axis.infinite else self._target(axis.start)
        return float(info.process.t_max), first

    def _check(self, info: RunInfo) -> None:
        """Raise if the solver has no error estimate, or the noise cannot be retried."""
        process, solver, axis = info.process, info.solver, self.axis
        start, stop = axis.time(axis.start), self._target(axis.start)
        plan = solver.plan_step(
            Step(process, process.level(start), process.level(stop), info.eta, error=True)
        )
        if plan.error is None and not self.doubling:
            raise IncompatibleError(
                "grid='adaptive' needs a solver with an error estimate, which "
                f"{solver.name} has not; use solver={_SOLVERS}, "
                "grid=srk.steps.Adaptive(estimate='doubling'), or a fixed grid: steps=50"
            )
        if self.options.norm == "sample" and plan.keep:
            raise IncompatibleError(
                f"norm='sample' retries some samples alone, but {solver.name} keeps its last "
                f"steps for all alike; use a one-step solver such as {_SOLVERS}"
            )
        if info.eta == 0 and not plan.slots:
            return
        if info.noise is not None and not info.noise.refines:
            source = info.noise.name or type(info.noise).__name__
            raise IncompatibleError(
                "grid='adaptive' retries a rejected step on the same path, but the noise source "
                f"{source!r} draws afresh, which would prefer the paths that look easy and bias "
                "the samples; use noise='brownian' (or eta=0)"
            )
        # what is drawn at a point of the clock, as by a corrector, stays when a step is retried
        if any(len(slot.weights) > 2 and slot.start < slot.stop for slot in plan.slots):
            raise IncompatibleError(
                f"{solver.name} draws noise beyond the increment and the Levy area, which no path "
                f"keeps when a step is retried; use solver={_SOLVERS}"
            )

    def next(self, report: Report) -> Decision:
        used, self.before = report.nfe - self.before, report.nfe
        axis, options = self.axis, self.options
        here, there = axis.value(report.start), axis.value(report.stop)
        accept = True
        passed: torch.Tensor | None = None
        if report.error is not None and math.isfinite(here):
            squares = self._squares(report)
            if options.norm == "sample":
                norm, passed = _own(squares)
            else:
                mean = squares.mean() if options.norm == "batch" else squares.max()
                norm = math.sqrt(float(mean))
            if not math.isfinite(norm):
                why = f"the error estimate is not finite at t = {report.start:.6g}"
                return Decision(False, None, f"stopped: {why}")
            accept = norm <= 1.0
            if passed is not None:
                failed = math.sqrt(float(squares[~passed].max()))
                self.short = (there - here) * self._shorter(failed)
            self.length = (there - here) * self._factor(max(norm, 1e-10), accept)
        at, t = (there, report.stop) if accept else (here, report.start)
        ended = report.stop == axis.process.t_min
        if accept and passed is None and ended:
            return Decision(True, None)
        if options.max_nfe is not None and report.nfe + used > options.max_nfe:
            why = f"{report.nfe} of max_nfe={options.max_nfe} network calls reached at t = {t:.6g}"
            return Decision(accept, None, f"stopped: {why}")
        if min(self.length, math.inf if passed is None else self.short) < axis.least:
            why = f"no step meets the tolerance at t = {t:.6g}; is the score smooth there?"
            return Decision(accept, None, f"stopped: {why}")
        after = None if ended and accept else self._target(at)
        if passed is None:
            return Decision(accept, after)
        return Decision(passed, after, retry=self._target(here, self.short))

    def _target(self, at: float, length: float | None = None) -> float:
        """Own time at which the next step from `at` ends; the last two share what is left, so that
        the last is never a sliver.
        """
        axis, left = self.axis, self.axis.stop - at
        length = self.length if length is None else length
        if left <= axis.least:  # beyond it only the step to sigma = 0
            return float(axis.process.t_min)
        if left <= 1.01 * length:
            return axis.time(axis.stop)
        return axis.time(at + min(length, 0.5 * left if left < 2.0 * length else math.inf))

    def _squares(self, report: Report) -> torch.Tensor:
        """Each sample's mean square of the error in units of the tolerance, (batch,)."""
        assert report.error is not None
        scale = self.axis.scale(report.stop)
        kind = report.error.dtype
        kind = kind if kind == torch.float64 else torch.float32  # squares overflow in less
        error, candidate = report.error.to(kind), report.candidate.to(kind)
        allowed = candidate.abs() * (scale * self.options.rtol) + self.options.atol
        square = (error * scale / allowed).square()
        return square.flatten(1).mean(1) if square.ndim > 1 else square

    def _shorter(self, norm: float) -> float:
        options = self.options
        return max(options.min_factor, options.safety * math.pow(norm, -1.0 / self.order))

    def _factor(self, norm: float, accept: bool) -> float:
        if not accept:
            return self._shorter(norm)
        options = self.options
        p, i, d = options.proportional, options.integral, options.derivative
        one, two = self.norms
        log = -(p + i + d) * math.log(norm) + (p + 2.0 * d) * math.log(one) - d * math.log(two)
        factor = options.safety * math.exp(log / self.order)
        self.norms = (norm, one)
        return min(options.max_factor, max(options.min_factor, factor))


def _own(squares: torch.Tensor) -> tuple[float, torch.Tensor | None]:
    """The norm of the samples that pass, and which those are; of all samples, and None, where all
    pass or most do not.
    """
    passed = squares <= 1.0
    count = int(passed.sum())
    if count == len(squares) or 2 * count < len(squares):
        # what most do not pass is rejected, even if the mean square should be small
        norm = math.sqrt(float(squares.mean()))
        return norm if count == len(squares) else max(norm, 1.0 + 1e-9), None
    return math.sqrt(float(squares[passed].mean())), passed


@attrs.frozen
class _Axis:
    """What steps are measured on, increasing from noise to data: half log-SNR, or -t for a process
    that has none.

    Arguments:
        process: the forward process.
        linear: whether it has a log-SNR.
        start, stop: the ends; where the process starts at alpha = 0 (`infinite`), the start is
            sigma/alpha = 80.
    """

    process: Any
    linear: bool
    start: float
    stop: float
    infinite: bool

    @staticmethod
    def of(process: Any) -> _Axis:
        if statistic(process) is None:
            return _Axis(process, False, -process.t_max, -process.t_min, False)
        ends = Range.of(process)
        return _Axis(process, True, ends.noisy, ends.clean, ends.start.alpha == 0.0)

    @property
    def least(self) -> float:
        """A step that is shorter than this has no length."""
        return 1e-9 * abs(self.stop - self.start)

    def value(self, t: float) -> float:
        return float(self.process.level(t).lam) if self.linear else -t

    def time(self, value: float) -> float:
        """Own time of a point, the ends exactly."""
        if value == self.start and not self.infinite:
            return float(self.process.t_max)
        if value == self.stop and (
            not self.linear or self.process.level(self.process.t_min).sigma > 0.0
        ):
            return float(self.process.t_min)
        return float(self.process.time(value)) if self.linear else -value

    def scale(self, t: float) -> float:
        """What brings a state to the units of the data."""
        return 1.0 / float(self.process.data_scale(t))
