"""The density of each network input given all before it, for any solver.

Between two network calls everything that a solver does is linear in the states and in the Gaussian
draws. So what the network is asked next is Gaussian given the inputs and results so far, also where
draws enter an input and are used again after the call (`srk2m`, Runge-Kutta methods). Its mean and
variance follow by conditioning the draws on the inputs that were seen, as a Kalman filter does; one
set of numbers serves all coordinates.

    q = mean_q + sum_j a_qj z_j,  z ~ N(0, P)       every quantity: state, kept rows, inputs
    an input is seen at value y:   S = a P a',  K = P a / S
        mean_q += (a_q . K) (y - mean),   P -= K S K'                 for all others
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.errors import IncompatibleError
from srk.plans.plan import STATE, Column, Row, StepPlan

#: The row that is the state itself.
ITSELF: Row = ((STATE, 1.0),)
#: A variance below this, relative to the squares of its coefficients, is rounding.
NOTHING = 1e-12


@attrs.frozen(eq=False)
class _Known:
    """What is known of a quantity: its mean, and its coefficients on the draws not yet settled."""

    mean: Tensor | None
    draws: np.ndarray

    def plus(self, surprise: Tensor, share: float) -> _Known:
        """The same once an input was seen, of whose surprise it has a share."""
        if share == 0.0:
            return self
        more = surprise * share
        return _Known(more if self.mean is None else self.mean + more, self.draws)


@attrs.frozen(eq=False)
class Gaussian:
    """A Gaussian with independent coordinates of one standard deviation (0: a number).

    Arguments:
        mean: (batch, *event).
        std: the standard deviation.
    """

    mean: Tensor
    std: float

    def log_density(self, value: Tensor) -> Tensor:
        """The sum over coordinates of the log-density at `value`, shape (batch,), in nats."""
        return log_normal(value, self.mean, self.std)


def log_normal(value: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(value; mean, std^2), summed over all but the batch; no gradient through `value`."""
    n = math.prod(mean.shape[1:])
    square = ((value.detach().to(mean.dtype) - mean) / std).square()
    normalization = n * (math.log(std) + 0.5 * math.log(2 * math.pi))
    return square.reshape(mean.shape[0], -1).sum(1) * -0.5 - normalization


def forgets(plan: StepPlan) -> bool:
    """Whether a step sees the state alone: one call, there, and nothing of earlier steps."""
    rows = [plan.update, *(stage.row for stage in plan.stages)]
    return (
        len(plan.stages) == 1
        and plan.stages[0].row == ITSELF
        and not any(column.kind == "m" for row in rows for column, _ in row)
    )


class Conditional:
    """Follows the network inputs of a run, and tells the distribution of each before it is seen.

    It computes in float32 or more, and keeps the graph, so that densities are differentiable in
    the results that it was told.

    Arguments:
        plans: the steps.
        state: the state at the start of the first, (batch, *event).
        memory: what the step before kept, if the run does not start here.
    """

    def __init__(
        self, plans: Sequence[StepPlan], state: Tensor, memory: Sequence[Tensor] = ()
    ) -> None:
        if not all(plan.linear for plan in plans):
            raise IncompatibleError(
                "a corrector whose step follows from norms (corrector='langevin') is not Gaussian, "
                "and has no log-density; use corrector='ald'"
            )
        self._shape, self._device = state.shape, state.device
        self._dtype = torch.promote_types(state.dtype, torch.float32)
        none = np.zeros(0)
        self._state = _Known(state.to(self._dtype), none)
        self._memory = [_Known(kept.to(self._dtype), none) for kept in memory]
        self._covariance = np.zeros((0, 0))
        self._waiting = iter(plans)
        self._plan: StepPlan | None = None
        self._ahead = self._state
        self._enter()

    @property
    def next(self) -> Gaussian:
        """The next input of the network given all before it; after the last call the result."""
        mean = self._ahead.mean
        if mean is None:  # draws alone, as where a step from infinite noise forgets the state
            mean = torch.zeros(self._shape, dtype=self._dtype, device=self._device)
        return Gaussian(mean, math.sqrt(self._variance(self._ahead)))

    def tell(self, seen: Tensor, result: Tensor) -> None:
        """The next input was `seen`, and the network's `result` there."""
        assert self._plan is not None
        self._see(seen)
        self._inputs.append(self._ahead)
        self._results.append(result.to(self._dtype))
        if len(self._inputs) < len(self._plan.stages):
            self._ahead = self._form(self._plan.stages[len(self._inputs)].row)
            return
        state = self._form(self._plan.update)
        self._memory = [self._form(row) for row in self._plan.keep]
        self._state = state
        self._enter()

    def _enter(self) -> None:
        """Begin the next step: its draws are new, those that nothing depends on are forgotten."""
        held = [self._state, *self._memory]
        used = np.abs(np.array([known.draws for known in held])).sum(0) > 0.0
        self._plan = next(self._waiting, None)
        count, new = int(used.sum()), 0 if self._plan is None else len(self._plan.slots)
        covariance = np.eye(count + new)
        covariance[:count, :count] = self._covariance[np.ix_(used, used)]
        self._covariance = covariance
        self._state, *self._memory = [
            _Known(known.mean, np.concatenate([known.draws[used], np.zeros(new)])) for known in held
        ]
        self._new = [_Known(None, unit) for unit in np.eye(count + new)[count:]]
        self._inputs: list[_Known] = []
        self._results: list[Tensor] = []
        if self._plan is None:
            self._ahead = self._state
        elif self._plan.stages:
            self._ahead = self._form(self._plan.stages[0].row)
        else:  # nothing is asked in a step up
            self._state = self._form(self._plan.update)
            self._memory = []
            self._enter()

    def _form(self, row: Row) -> _Known:
        """A row of the step at hand."""
        if row == ITSELF:
            return self._state
        mean: Tensor | None = None
        draws = np.zeros(len(self._covariance))
        for column, factor in row:
            if not isinstance(factor, float):
                raise IncompatibleError(
                    "a step in phase space draws position and velocity together, and has no "
                    "log-density here; use a linear process"
                )
            known = self._known(column)
            draws = draws + factor * known.draws
            if known.mean is not None:
                term = known.mean * factor
                mean = term if mean is None else mean + term
        return _Known(mean, draws)

    def _known(self, column: Column) -> _Known:
        if column.kind == "x":
            return self._state
        if column.kind == "q":
            assert self._plan is not None
            return self._form(self._plan.quantities[column.number].row)
        if column.kind == "E":
            return _Known(self._results[column.number], np.zeros(len(self._covariance)))
        lists = {"m": self._memory, "X": self._inputs, "z": self._new}
        return lists[column.kind][column.number]

    def _variance(self, known: _Known) -> float:
        a = known.draws
        variance = float(a @ self._covariance @ a)
        return variance if variance > NOTHING * float(a @ a) else 0.0

    def _see(self, seen: Tensor) -> None:
        """Condition all on what is ahead having the value `seen`."""
        value, ahead, state = seen.to(self._dtype), self._ahead, self._state
        settled = _Known(value, np.zeros(len(self._covariance)))
        variance = self._variance(ahead)
        if variance > 0.0:
            gain = self._covariance @ ahead.draws / variance
            surprise = value if ahead.mean is None else value - ahead.mean

            def conditioned(all_known: list[_Known]) -> list[_Known]:
                return [known.plus(surprise, float(known.draws @ gain)) for known in all_known]

            self._state, *self._memory = conditioned([self._state, *self._memory])
            self._inputs, self._new = conditioned(self._inputs), conditioned(self._new)
            self._covariance = self._covariance - np.outer(gain, gain) * variance
        if ahead is state:
            self._state = settled
        self._ahead = settled
