"""What a step does in which order, and how long each of its tensors is needed.

This is the one analysis of a plan: the eager and the compiled run both follow it. It looks at the
columns of a plan's rows and never at the numbers, so that all steps of one structure share it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from srk.plans.plan import STATE, Column, Row, StepPlan

Columns = tuple[Column, ...]

UPDATE, ERROR = Column("update"), Column("error")


class Form(NamedTuple):
    """A row to be formed: column `target` from the columns `reads`.

    Arguments:
        target: the column that the row gives.
        row: number of the row in `rows_of(plan)`; for a ratio that of the ratio in the plan.
        reads: its columns, in the order of its terms; for a ratio numerator and denominator.
        alone: True if the row is one column with the coefficient 1.
        ratio: the ratio that the row is multiplied by, a column of kind "ratio"; None for none.
    """

    target: Column
    row: int
    reads: Columns
    alone: bool
    ratio: Column | None = None


class Segment(NamedTuple):
    """What happens up to a network call, that call included; in the last segment there is none.

    Arguments:
        draws: the draws that are needed here for the first time, in the order of drawing.
        forms: the rows to form, in order.
        call: number of the stage whose network call ends the segment; None in the last one.
        asked: the column that the network sees.
        outlives: True if the result of the call is read after the next call too. The memory of a
            result is the network's, which may use it again at the next call, so that such a result
            has to be copied.
    """

    draws: Columns
    forms: tuple[Form, ...]
    call: int | None
    asked: Column
    outlives: bool


def rows_of(plan: StepPlan) -> list[Row]:
    """All rows of a plan: inputs of the stages, update, kept rows, error, quantities."""
    return plan.rows()


def schedule(plan: StepPlan) -> tuple[Segment, ...]:
    """The segments of a plan; there is one more than it has stages."""
    shapes = tuple(
        (tuple(column for column, _ in row), len(row) == 1 and row[0][1] == 1.0)
        for row in rows_of(plan)
    )
    factors = tuple(quantity.ratio for quantity in plan.quantities)
    ratios = tuple((ratio.numerator, ratio.denominator) for ratio in plan.ratios)
    return segments(shapes, len(plan.stages), plan.error is not None, factors, ratios)


@lru_cache(maxsize=1024)
def segments(
    shapes: tuple[tuple[Columns, bool], ...],
    stages: int,
    error: bool,
    factors: tuple[int | None, ...] = (),
    ratios: tuple[tuple[Column, Column], ...] = (),
) -> tuple[Segment, ...]:
    """The segments of all plans of one structure.

    Arguments:
        shapes: for each row its columns, and whether it is one column with the coefficient 1.
        stages: how many of the rows are inputs of stages; the update follows, then the kept rows.
        error: whether an error estimate follows.
        factors: the last rows are as many quantities; the number of the ratio of each, if any.
        ratios: numerator and denominator of each ratio.
    """
    count = len(shapes) - len(factors)
    kept = count - stages - 1 - error
    names = [Column("X", i) for i in range(stages)]
    names += [UPDATE, *(Column("keep", j) for j in range(kept)), *[ERROR][:error]]
    forms = [Form(names[i], i, *shape) for i, shape in enumerate(shapes[:count])]
    inner = {
        Column("ratio", i): Form(Column("ratio", i), i, r, False) for i, r in enumerate(ratios)
    }
    for i, factor in enumerate(factors):
        ratio = None if factor is None else Column("ratio", factor)
        reads, alone = shapes[count + i]
        inner[Column("q", i)] = Form(Column("q", i), count + i, reads, alone, ratio)
    drawn: set[Column] = set()

    def with_inner(group: Sequence[Form]) -> tuple[Form, ...]:
        """The group, and before it the quantities and ratios that it needs for the first time."""
        made: list[Form] = []

        def need(form: Form) -> None:
            for column in (*form.reads, form.ratio):
                if column in inner:
                    need(inner.pop(column))
            made.append(form)

        for form in group:
            need(form)
        # a row of the group may be needed after a quantity that a later row of it needs
        wanted = {form.target for form in group}
        return (*(f for f in made if f.target not in wanted), *group)

    def new_draws(group: Sequence[Form]) -> Columns:
        wanted = dict.fromkeys(c for form in group for c in form.reads if c.kind == "z")
        new = tuple(column for column in wanted if column not in drawn)
        drawn.update(new)
        return new

    made: list[Segment] = []
    for i, form in enumerate(forms[:stages]):
        sees_state = form.alone and form.reads == (STATE,)
        group = () if sees_state else with_inner((form,))
        asked = STATE if sees_state else form.target
        made.append(Segment(new_draws(group), group, i, asked, False))
    # The update comes first, because its draws are then free to hold the kept rows; but not where a
    # kept row still needs the old state.
    update, last = forms[stages], forms[stages + 1 :]
    needs_state = any(STATE in form.reads for form in last)
    ordered = [*last, update] if needs_state else [update, *last]
    group = with_inner(ordered)
    draws = new_draws([*group[: -len(ordered)], *last, update])
    made.append(Segment(draws, group, None, STATE, False))
    for i in range(stages):
        later = (form for part in made[i + 2 :] for form in part.forms)
        if any(Column("E", i) in form.reads for form in later):
            made[i] = made[i]._replace(outlives=True)
    return tuple(made)


def last_reads(units: Sequence[Collection[Column]]) -> dict[Column, int]:
    """The number of the last unit of work that reads each column.

    A unit is a row where rows are formed one by one, and all rows between two calls where one
    kernel forms them together.
    """
    return {column: i for i, unit in enumerate(units) for column in unit}
