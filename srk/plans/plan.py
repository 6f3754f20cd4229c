"""A step as a table of numbers: the plan.

Every explicit solver of this field is linear in the state, the network evaluations and the Gaussian
draws. A `StepPlan` is
that linear map for one step: rows of coefficients over columns

    x      the state at the start of the step
    m[i]   what earlier steps kept
    X[i]   the input of this step's i-th evaluation
    E[i]   the result of this step's i-th evaluation (denoiser, or reverse drift)
    z[i]   unit Gaussian draws
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, SupportsIndex, overload

import attrs

from srk.plans.matrix import Coefficient
from srk.processes.base import Level

Kind = Literal["denoiser", "drift"]


class Column(NamedTuple):
    """A quantity that rows refer to: `kind` is one of x, m, X, E, z."""

    kind: str
    number: int = 0


Row = tuple[tuple[Column, Coefficient], ...]

STATE = Column("x")


@attrs.frozen(slots=True)
class Slot:
    """One unit Gaussian draw, and what it means on the driving path.

    It is independent of the other slots of the step.

    On the interval [start, stop] of the integrator's clock let W be the Brownian increment and H
    the space-time Levy area, scaled to unit variance. The draw is weights[0] W + weights[1] H +
    sum_j weights[2 + j] Z_j with fresh Z; the weights have norm 1. A plain generator ignores all of
    that and draws N(0, 1); a source that holds a path answers from it.

    Arguments:
        start, stop: ends of the interval on the integrator's clock (increasing).
        weights: coordinates over (W, H, Z_1, ...), of norm 1.
    """

    start: float
    stop: float
    weights: tuple[float, ...] = (1.0,)


@attrs.frozen(slots=True)
class Stage:
    """One evaluation of the network.

    Where (level), at which state (row), and of what (denoiser or reverse drift).
    """

    level: Level
    row: Row
    kind: Kind = "denoiser"


class Notes(tuple[Any, ...]):
    """One value per kept row, and the factor that each row is to be multiplied by.

    A row whose coefficients are large (1/sigma, or v/sigma^2 near the data) is kept smaller by a
    power of two, so that half precision holds it; `Draft.memory` gives the form with the factor
    restored.

    Arguments:
        notes: the values.
        factors: as many powers of two; default 1 each.
    """

    factors: tuple[float, ...]

    def __new__(cls, notes: Iterable[Any] = (), factors: Iterable[float] | None = None) -> Notes:
        made = super().__new__(cls, notes)
        made.factors = (1.0,) * len(made) if factors is None else tuple(factors)
        return made

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Any: ...
    @overload
    def __getitem__(self, index: slice, /) -> Notes: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> Any:
        if isinstance(index, slice):  # some of the rows, with their factors
            return Notes(super().__getitem__(index), self.factors[index])
        return super().__getitem__(index)


@attrs.frozen(slots=True)
class StepPlan:
    """One step of a solver as numbers; what `Integrator.plan` returns and the executor runs.

    Arguments:
        start, stop: the noise levels at both ends.
        stages: the evaluations, in order; stage i may refer to x, m, z and to X, E of earlier
            stages.
        update: the new state.
        keep: what the next step may refer to as m[0], m[1], ...
        notes: one value per kept row (`Notes`), handed to the next step's planner as `step.memory`.
        slots: the Gaussian draws.
        error: an estimate of the local error, or None.
        clock: the clock that the slots' intervals are measured on, by name; equal names mean the
            same path.
    """

    start: Level
    stop: Level
    stages: tuple[Stage, ...]
    update: Row
    keep: tuple[Row, ...] = ()
    notes: tuple[Any, ...] = ()
    slots: tuple[Slot, ...] = ()
    error: Row | None = None
    clock: str = ""

    @property
    def evaluations(self) -> int:
        """Network evaluations that this step makes."""
        return len(self.stages)


def fold(plan: StepPlan, pairs: tuple[tuple[float, float], ...]) -> StepPlan:
    """The same step in terms of what a network says rather than of the denoiser.

    With E_i = a_i X_i + b_i O_i for (a_i, b_i) = pairs[i], every row is rewritten over the inputs
    X_i and the outputs O_i, which then stand in the E
    columns: the conversion costs no pass over memory of its own, and its cancellations happen in
        float64.
    """

    def rewrite(row: Row) -> Row:
        terms: dict[Column, Coefficient] = {}
        for column, value in row:
            if column.kind == "E":
                a, b = pairs[column.number]
                terms[column] = terms.get(column, 0.0) + value * b
                if a != 0.0:
                    column, value = inputs[column.number], value * a
                else:
                    continue
            terms[column] = terms.get(column, 0.0) + value
        return tuple(terms.items())

    inputs = [
        STATE if stage.row == ((STATE, 1.0),) else Column("X", i)
        for i, stage in enumerate(plan.stages)
    ]
    return attrs.evolve(
        plan,
        stages=tuple(attrs.evolve(stage, row=rewrite(stage.row)) for stage in plan.stages),
        update=rewrite(plan.update),
        keep=tuple(map(rewrite, plan.keep)),
        error=None if plan.error is None else rewrite(plan.error),
    )


def without_noise(plan: StepPlan) -> StepPlan:
    """The same step with all its draws 0.

    It is the mean of the step where that is linear in one draw after its calls.
    """

    def still(row: Row) -> Row:
        return tuple(term for term in row if term[0].kind != "z")

    return attrs.evolve(
        plan,
        stages=tuple(attrs.evolve(stage, row=still(stage.row)) for stage in plan.stages),
        update=still(plan.update),
        keep=tuple(map(still, plan.keep)),
        slots=(),
        error=None if plan.error is None else still(plan.error),
    )
