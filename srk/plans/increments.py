"""Steps that move a state by an increment, which a process with a retraction can make."""

from __future__ import annotations

from srk.errors import IncompatibleError
from srk.plans.plan import STATE, Row, StepPlan


def increment(row: Row) -> Row | None:
    """What a row adds to the state at the start of the step; None where it does something else.

    An increment is made of results of the network and of draws alone.
    """
    rest = tuple(term for term in row if term[0] != STATE)
    factor = sum(value for column, value in row if column == STATE)
    if not isinstance(factor, float | int) or factor != 1.0:
        return None
    if any(column.kind not in "Ez" or not isinstance(value, float) for column, value in rest):
        return None
    return rest


def check_increments(plan: StepPlan, process: object, flat: bool) -> list[Row]:
    """What each stage of a step, and at last its end, adds to the state.

    Arguments:
        plan: the step.
        process: whose states it moves, for the message.
        flat: whether increments from different points may be added.

    Raises:
        IncompatibleError: the step does not move its state by increments.
    """
    cure = "use solver='euler-maruyama', whose step is one increment"
    rows = [stage.row for stage in plan.stages]
    increments = [increment(row) for row in [*rows, plan.update]]
    made = [terms for terms in increments if terms is not None]
    if plan.keep or plan.quantities or len(made) < len(increments):
        raise IncompatibleError(
            f"the states of {process!r} are moved by increments, but a step of this solver scales "
            f"or mixes states, or remembers earlier steps; {cure}"
        )
    if not flat and (len(plan.stages) > 1 or any(row != ((STATE, 1.0),) for row in rows)):
        raise IncompatibleError(
            f"a step of this solver adds increments from {len(plan.stages)} states, but those of "
            f"{process!r} belong to different points of a curved space; {cure}"
        )
    return made
