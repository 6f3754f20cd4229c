"""Steps that adapt to an estimate of their error."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import attrs
import torch

from srk.errors import ArgumentError, IncompatibleError
from srk.plans.step import Step
from srk.processes.phase import statistic
from srk.steps.base import Decision, Problem, Range, Report, StepController

_positive = attrs.validators.and_(attrs.validators.gt(0.0), attrs.validators.lt(math.inf))
_SOLVERS = "'srk2', 'sra1' or 'sosra'"


@attrs.define
class Adaptive(StepController):
    """`adaptive`: steps as long as their error estimate allows; needs a solver that has one, and noise="brownian" unless eta = 0.

    A step is accepted if the norm of error/(atol + rtol |u|) is at most 1, with u the state after it and `error` the difference between the solver's
    update and a lower-order one from the same network calls. For a linear process u = x/alpha, the units of the data at every noise level (and so is the
    error), so that processes that differ only in their scaling take the same steps; otherwise u = x.

    Steps are chosen in half log-SNR for linear processes, in own time otherwise. The length is multiplied by

        factor = safety (e1^-(p + i + d) e2^(p + 2d) e3^-d)^(1/q)        e1, e2, e3: this step's norm and the two accepted before

    with q = 3/2 (2 at eta = 0) the order of the estimate, and kept between the factors; after a rejection by safety e1^(-1/q) <= safety. The run
    ends exactly at t_min. A step from alpha = 0, of infinite length, ends at sigma/alpha = 80 and is accepted, as is one without an estimate (to sigma = 0).

    A rejected step is retried on the same Brownian path, so that a run discretizes a path that its own decisions do not bend. A source that draws
    afresh would prefer paths on which steps look good, and is refused. With norm="batch" (default) and "worst" alike all samples take the same steps: a
    sample's result depends on the batch it is in. On a GPU a decision waits for the device, once per step.

    Arguments:
        rtol: relative tolerance, may be 0.
        atol: absolute tolerance in units of the data, positive.
        norm: "batch": root mean square over all coordinates of all samples; "worst": the largest of the samples' root mean squares, so that one hard sample
            keeps its accuracy; "sample": each sample's own decides about it. A step that most samples pass counts for them, and those that do not pass go the same way
            again in shorter steps, as a smaller batch; a step that most do not pass is rejected for all.
        estimate: "embedded": the solver's own estimate; "doubling": each step is two of half the length, and the error their difference from one of the whole, which
            serves any solver whose draws a path keeps, at three times the calls.
        proportional, integral, derivative: the coefficients p, i, d of the PID controller.
        safety: factor below 1.
        min_factor, max_factor: limits of the change of a step's length.
        first_step: length of the first step, in half log-SNR or own time for a process that is not linear; None takes 1/4, or a hundredth of the range.
        max_nfe: stop before this number of network calls is exceeded; `Solution.status` then says so, x is the state reached, and no final denoising
            (one call more in a run that ends) takes place.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> control = srk.steps.Adaptive(rtol=0.05, atol=0.05)
        >>> sol = srk.solve(process, target.score(process), shape=(64, 1), controller=control, noise="brownian", seed=0)
        >>> sol.status, sol.times[-1] == process.t_min
        ('done', True)
    """

    name = "adaptive"

    rtol: float = attrs.field(default=1e-2, validator=attrs.validators.ge(0.0))
    atol: float = attrs.field(default=1e-2, validator=_positive)
    norm: Literal["batch", "worst", "sample"] = attrs.field(
        default="batch", validator=attrs.validators.in_(("batch", "worst", "sample"))
    )
    estimate: Literal["embedded", "doubling"] = attrs.field(
        default="embedded", validator=attrs.validators.in_(("embedded", "doubling"))
    )
    proportional: float = 0.2
    integral: float = attrs.field(default=0.7, validator=_positive)
    derivative: float = 0.0
    safety: float = attrs.field(
        default=0.9, validator=[attrs.validators.gt(0.0), attrs.validators.lt(1.0)]
    )
    min_factor: float = attrs.field(
        default=0.2, validator=[attrs.validators.gt(0.0), attrs.validators.lt(1.0)]
    )
    max_factor: float = attrs.field(default=2.0, validator=attrs.validators.gt(1.0))
    first_step: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    max_nfe: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )

    # the run that `first` began
    _axis: _Axis = attrs.field(init=False, repr=False, eq=False)
    _order: float = attrs.field(init=False, default=1.5, repr=False, eq=False)
    _length: float = attrs.field(init=False, default=0.0, repr=False, eq=False)
    _norms: tuple[float, float] = attrs.field(init=False, default=(1.0, 1.0), repr=False, eq=False)
    _before: int = attrs.field(init=False, default=0, repr=False, eq=False)
    _short: float = attrs.field(
        init=False, default=0.0, repr=False, eq=False
    )  # first length of those that go the same way again

    @property
    def doubling(self) -> bool:
        return self.estimate == "doubling"

    def fork(self) -> Adaptive:
        fork = copy.copy(self)
        fork._length, fork._norms = self._short, (1.0, 1.0)
        return fork

    def first(self, problem: Problem) -> tuple[float, float]:
        if problem.steps is not None:
            raise ArgumentError(
                "an adaptive run decides how many steps it takes; leave steps and nfe out, "
                "and bound its cost with controller=srk.steps.Adaptive(max_nfe=100)"
            )
        process = problem.process
        self._axis = axis = _Axis.of(process)
        self._order = 1.5 if problem.eta > 0 else 2.0
        self._norms = (1.0, 1.0)
        self._before = 0
        length = self.first_step
        if length is None:
            length = 0.25 if axis.linear else 0.01 * (axis.stop - axis.start)
        self._length = min(length, axis.stop - axis.start)
        self._check(problem)
        return process.t_max, axis.time(axis.start) if axis.infinite else self._target(axis.start)

    def _check(self, problem: Problem) -> None:
        """Raise if the solver has no error estimate, or the noise cannot be retried."""
        process, solver, axis = problem.process, problem.solver, self._axis
        start, stop = axis.time(axis.start), self._target(axis.start)
        plan = solver.plan_step(
            Step(process, process.level(start), process.level(stop), problem.eta, error=True)
        )
        if plan.error is None and not self.doubling:
            raise IncompatibleError(
                f"controller='adaptive' needs a solver with an error estimate, which {solver.name} has not; use solver={_SOLVERS}, "
                "controller=srk.steps.Adaptive(estimate='doubling'), or a fixed grid: steps=50"
            )
        if self.norm == "sample" and plan.keep:
            raise IncompatibleError(
                f"norm='sample' retries some samples alone, but {solver.name} keeps its last steps for all alike; use a one-step solver such as {_SOLVERS}"
            )
        if problem.eta == 0:
            return
        if problem.noise is not None and not problem.noise.refines:
            raise IncompatibleError(
                f"controller='adaptive' retries a rejected step on the same path, but the noise source {problem.noise.name or type(problem.noise).__name__!r} "
                "draws afresh, which would prefer the paths that look easy and bias the samples; use noise='brownian' (or eta=0)"
            )
        if any(len(slot.weights) > 2 for slot in plan.slots):
            raise IncompatibleError(
                f"{solver.name} draws noise beyond the increment and the Levy area, which no path keeps when a step is retried; use solver={_SOLVERS}"
            )

    def next(self, report: Report) -> Decision:
        used, self._before = report.nfe - self._before, report.nfe
        here, there = self._axis.value(report.start), self._axis.value(report.stop)
        accept = True
        passed: torch.Tensor | None = None
        if report.error is not None and math.isfinite(here):
            squares = self._squares(report)
            if self.norm == "sample":
                norm, passed = self._own(squares)
            else:
                norm = math.sqrt(float(squares.mean() if self.norm == "batch" else squares.max()))
            if not math.isfinite(norm):
                return Decision(
                    False,
                    None,
                    f"stopped: the error estimate is not finite at t = {report.start:.6g}",
                )
            accept = norm <= 1.0
            if passed is not None:
                failed = math.sqrt(float(squares[~passed].max()))
                self._short = (there - here) * self._shorter(failed)
            self._length = (there - here) * self._factor(max(norm, 1e-10), accept)
        at, t = (there, report.stop) if accept else (here, report.start)
        if accept and passed is None and report.stop == self._axis.process.t_min:
            return Decision(True, None)
        if self.max_nfe is not None and report.nfe + used > self.max_nfe:
            return Decision(
                accept,
                None,
                f"stopped: {report.nfe} of max_nfe={self.max_nfe} network calls reached at t = {t:.6g}",
            )
        if min(self._length, math.inf if passed is None else self._short) < 1e-9 * (
            self._axis.stop - self._axis.start
        ):
            return Decision(
                accept,
                None,
                f"stopped: no step meets the tolerance at t = {t:.6g}; is the score smooth there?",
            )
        after = None if report.stop == self._axis.process.t_min and accept else self._target(at)
        if passed is None:
            return Decision(accept, after)
        return Decision(passed, after, retry=self._target(here, self._short))

    def _target(self, at: float, length: float | None = None) -> float:
        """Own time at which the next step from `at` ends; the last two share what is left, so that no sliver remains."""
        process, left = self._axis.process, self._axis.stop - at
        length = self._length if length is None else length
        if left <= 1e-9 * abs(
            self._axis.stop - self._axis.start
        ):  # beyond it only the step to sigma = 0
            return float(process.t_min)
        if left <= 1.01 * length:
            return self._axis.time(self._axis.stop)
        return self._axis.time(at + min(length, 0.5 * left if left < 2.0 * length else math.inf))

    def _squares(self, report: Report) -> torch.Tensor:
        """Each sample's mean square of the error in units of the tolerance, (batch,)."""
        assert report.error is not None
        scale = self._axis.scale(report.stop)
        ratio = (report.error * scale) / (report.candidate.abs() * (scale * self.rtol) + self.atol)
        square = ratio.to(torch.float32 if ratio.dtype != torch.float64 else ratio.dtype).square()
        return square.flatten(1).mean(1) if square.ndim > 1 else square

    def _own(self, squares: torch.Tensor) -> tuple[float, torch.Tensor | None]:
        """The norm of the samples that pass, and which those are; of all samples, and None, where all pass or most do not."""
        passed = squares <= 1.0
        count = int(passed.sum())
        if count == len(squares) or 2 * count < len(squares):
            # what most do not pass is rejected, even if the mean square should be small
            norm = math.sqrt(float(squares.mean()))
            return norm if count == len(squares) else max(norm, 1.0 + 1e-9), None
        return math.sqrt(float(squares[passed].mean())), passed

    def _shorter(self, norm: float) -> float:
        return max(self.min_factor, self.safety * math.pow(norm, -1.0 / self._order))

    def _factor(self, norm: float, accept: bool) -> float:
        if not accept:
            return self._shorter(norm)
        p, i, d = self.proportional, self.integral, self.derivative
        one, two = self._norms
        log = -(p + i + d) * math.log(norm) + (p + 2.0 * d) * math.log(one) - d * math.log(two)
        factor = self.safety * math.exp(log / self._order)
        self._norms = (norm, one)
        return min(self.max_factor, max(self.min_factor, factor))


@attrs.frozen
class _Axis:
    """What steps are measured on, increasing from noise to data: half log-SNR, or -t for a process that has none.

    Arguments:
        process: the forward process.
        linear: whether it has a log-SNR.
        start, stop: the ends; where the process starts at alpha = 0 (`infinite`), the start is sigma/alpha = 80.
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
