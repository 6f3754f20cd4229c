"""A step as a table of numbers: the plan.

Every explicit solver of this field is linear in the state, the network evaluations and the Gaussian
draws. A `StepPlan` is
that linear map for one step: rows of coefficients over columns

    x      the state at the start of the step
    m[i]   what earlier steps kept
    X[i]   the input of this step's i-th evaluation
    E[i]   the result of this step's i-th evaluation (denoiser, or reverse drift)
    z[i]   unit Gaussian draws
    q[i]   quantities that the step forms on the way (`Quantity`)

A quantity may be multiplied by a number that is known on the device only, such as a ratio of norms
(`Ratio`). That is where a step stops being linear: see `StepPlan.linear`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, SupportsIndex, overload

import attrs

from srk.errors import IncompatibleError
from srk.plans.matrix import Coefficient
from srk.processes.base import Level

Kind = Literal["denoiser", "drift"]


class Column(NamedTuple):
    """A quantity that rows refer to: `kind` is one of x, m, X, E, z, q."""

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
        number: which of the step's draws on the interval this is, where the weights follow from an
            integration; None where they are whole numbers. A source that names draws takes it in
            place of the weights, whose last bits depend on the machine.
    """

    start: float
    stop: float
    weights: tuple[float, ...] = (1.0,)
    number: int | None = None

    @property
    def name(self) -> tuple[str | float, ...]:
        """What the draw is called on its clock: the interval, and what is drawn there."""
        if self.number is None:
            return self.start, self.stop, *self.weights
        return self.start, self.stop, "computed", float(self.number)


@attrs.frozen(slots=True)
class Stage:
    """One evaluation of the network.

    Where (level), at which state (row), and of what (denoiser or reverse drift).
    """

    level: Level
    row: Row
    kind: Kind = "denoiser"


Over = Literal["sample", "batch", "auto"]
"""Whose norms a ratio is of; see `Ratio`."""

FEW = 5
"""For Gaussian states of fewer numbers (|z|/|score|)^2 has no finite variance."""


@attrs.frozen(slots=True)
class Ratio:
    """The ratio of the norms of two columns, which is computed where the states are.

    It is taken in float32 or more, and is 0 where the denominator is 0. Nothing waits for it.

    Arguments:
        numerator, denominator: what the Euclidean norms are of, over all but the batch axis.
        over: "sample" gives each sample its own ratio; "batch" gives all of them the ratio of the
            means of both norms over the batch; "auto" is "batch" for states of fewer than five
            numbers, for which the ratio of a sample has no finite variance, else "sample".
    """

    numerator: Column
    denominator: Column
    over: Over = "sample"


@attrs.frozen(slots=True)
class Quantity:
    """A row that is formed on the way, for other rows to refer to as q[i].

    Arguments:
        row: over any columns; of other quantities only over those before it.
        ratio: number of the `StepPlan.ratios` that the row is multiplied by; None for none.
        power: of that ratio.
    """

    row: Row
    ratio: int | None = None
    power: float = 1.0


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
        quantities: what is formed on the way, for the other rows to refer to as q[0], q[1], ...
        ratios: numbers of the device that quantities are multiplied by.
        inner_slots: how many of the slots, the first ones, belong to what comes before the step
            proper, such as a corrector. The mean of the step (`without_noise`) keeps their draws.
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
    quantities: tuple[Quantity, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    inner_slots: int = 0

    @property
    def linear(self) -> bool:
        """Whether the step is linear in the state, the network's results and the draws."""
        return not self.ratios

    def rows(self) -> list[Row]:
        """All rows: inputs of the stages, update, kept rows, error if any, quantities."""
        rows = [*(stage.row for stage in self.stages), self.update, *self.keep]
        if self.error is not None:
            rows.append(self.error)
        return [*rows, *(quantity.row for quantity in self.quantities)]

    def each_row(self, rewrite: Callable[[Row], Row]) -> StepPlan:
        """The same step with every row replaced by what `rewrite` makes of it."""
        return attrs.evolve(
            self,
            stages=tuple(attrs.evolve(stage, row=rewrite(stage.row)) for stage in self.stages),
            update=rewrite(self.update),
            keep=tuple(map(rewrite, self.keep)),
            error=None if self.error is None else rewrite(self.error),
            quantities=tuple(attrs.evolve(q, row=rewrite(q.row)) for q in self.quantities),
        )

    @property
    def asked(self) -> float:
        """Own time of the first evaluation; that of the start where there is none."""
        return self.stages[0].level.t if self.stages else self.start.t

    @property
    def evaluations(self) -> int:
        """Network evaluations that this step makes."""
        return len(self.stages)


def fold(plan: StepPlan, pairs: tuple[tuple[float, float], ...]) -> StepPlan:
    """The same step in terms of what a network says rather than of the denoiser.

    With E_i = a_i X_i + b_i O_i for (a_i, b_i) = pairs[i], every row is rewritten over the inputs
    X_i and the outputs O_i, which then stand in the E columns: the conversion costs no pass over
    memory of its own, and its cancellations happen in float64.
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
    return plan.each_row(rewrite)


def without_noise(plan: StepPlan) -> StepPlan:
    """The same step with its draws 0, but for those that belong to what comes before it.

    It is the mean of the step where that is linear in one draw after its calls.

    Raises:
        IncompatibleError: a ratio of norms is that of a draw that would be 0.
    """
    for ratio in plan.ratios:
        for column in (ratio.numerator, ratio.denominator):
            if column.kind == "z" and column.number >= plan.inner_slots:
                raise IncompatibleError(
                    "a step whose numbers follow from the norm of its draw has no mean without it; "
                    "use denoise_final=True or False"
                )

    def still(row: Row) -> Row:
        return tuple(
            term for term in row if term[0].kind != "z" or term[0].number < plan.inner_slots
        )

    made = plan.each_row(still)
    # a call that saw the state and a draw now sees the state itself, which rows call by its name
    seen = {Column("X", i) for i, stage in enumerate(made.stages) if stage.row == ((STATE, 1.0),)}

    def named(row: Row) -> Row:
        terms: dict[Column, Coefficient] = {}
        for column, value in row:
            name = STATE if column in seen else column
            terms[name] = terms.get(name, 0.0) + value
        return tuple(terms.items())

    return attrs.evolve(made.each_row(named), slots=plan.slots[: plan.inner_slots])


def join(first: StepPlan, second: StepPlan) -> StepPlan:
    """One step that makes `first` and then `second`, which starts where `first` stops.

    What earlier steps kept is remembered through `first` for `second`; what `first` would keep is
    not. The draws of `first` are inner ones. Where both draw, they do it on one clock.

    Arguments:
        first, second: the two steps.
    """
    stages, slots, ratios = len(first.stages), len(first.slots), len(first.ratios)
    quantities = first.quantities
    asks = second.stages[0].row == ((STATE, 1.0),) if second.stages else False
    if first.update == ((STATE, 1.0),):
        between = STATE
    elif asks:  # the state between the two is what the network is asked about
        between = Column("X", stages)
    else:
        between = Column("q", len(quantities))
        quantities = (*quantities, Quantity(first.update))
    moved = {"X": stages, "E": stages, "z": slots, "q": len(quantities)}

    def place(column: Column) -> Column:
        if column == STATE:
            return between
        return Column(column.kind, column.number + moved.get(column.kind, 0))

    def renamed(row: Row) -> Row:
        return tuple((place(column), value) for column, value in row)

    then = second.each_row(renamed)
    if asks:
        opening = attrs.evolve(then.stages[0], row=first.update)
        then = attrs.evolve(then, stages=(opening, *then.stages[1:]))
    return attrs.evolve(
        then,
        start=first.start,
        stages=(*first.stages, *then.stages),
        slots=(*first.slots, *second.slots),
        clock=second.clock if second.slots else first.clock,
        quantities=(
            *quantities,
            *(
                q if q.ratio is None else attrs.evolve(q, ratio=q.ratio + ratios)
                for q in then.quantities
            ),
        ),
        ratios=(
            *first.ratios,
            *(Ratio(place(r.numerator), place(r.denominator), r.over) for r in second.ratios),
        ),
        inner_slots=slots + second.inner_slots,
    )
