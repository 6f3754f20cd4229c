"""What a run needs before it starts, made once: checks, times and plans depend on numbers only, and the last ones are remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from srk.integrators.base import Integrator
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess
from srk.steps import Grid, Problem

REMEMBERED = 256
_remembered: OrderedDict[Hashable, Any] = OrderedDict()


def validate(process: ForwardProcess) -> None:
    """`process.validate()`, once for each value of its attributes."""
    _remember(process.validate, "valid", process)


def grid_times(grid: Grid, problem: Problem) -> list[float]:
    """The times of a grid; those of a grid that depends on nothing but numbers are remembered."""
    if not grid.remembered:
        return grid.times(problem)
    return list(
        _remember(
            lambda: grid.times(problem),
            "times",
            grid,
            problem.process,
            problem.solver,
            problem.steps,
            problem.eta,
        )
    )


def plan_grid(
    process: ForwardProcess, method: Integrator, times: Sequence[float], eta: float = 1.0
) -> list[StepPlan]:
    """The plans of all steps of a fixed grid of own times, in order.

    Plans are numbers that depend on nothing but the arguments, so the last grids are remembered, by the values of process and method (an object whose values
    cannot be compared is planned afresh each time).
    """
    return list(
        _remember(
            lambda: _plan(process, method, times, eta), "plans", process, method, tuple(times), eta
        )
    )


def forget() -> None:
    """Drop all that is remembered (benchmarks that time planning need it)."""
    _remembered.clear()


def _plan(
    process: ForwardProcess, method: Integrator, times: Sequence[float], eta: float
) -> list[StepPlan]:
    levels = [process.level(t) for t in times]
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    for index, (start, stop) in enumerate(pairwise(levels)):
        plan = method.plan_step(Step(process, start, stop, eta, index, notes, len(levels) - 1))
        notes = plan.notes
        plans.append(plan)
    return plans


def _remember(make: Callable[[], Any], *what: Any) -> Any:
    """The result of `make`, remembered under the values of `what`; made afresh where those cannot be compared."""
    try:
        key = tuple(map(_value, what))
        hash(key)
    except TypeError:
        return make()
    if key in _remembered:
        _remembered.move_to_end(key)
        return _remembered[key]
    made = _remembered[key] = make()
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return made


@cache
def _slots(cls: Hashable) -> tuple[str, ...]:
    assert isinstance(cls, type)
    # attrs keeps fields in slots, of which vars() knows nothing
    return tuple(
        sorted(
            {
                name
                for c in cls.__mro__
                for name in getattr(c, "__slots__", ())
                if not name.startswith("__")
            }
        )
    )


def _value(thing: Any) -> Hashable:
    """What a process, grid or method is, by value: its class and attributes, so that a changed attribute is another thing."""
    if thing is None or isinstance(thing, float | int | str | tuple):
        return type(thing), thing
    values = [
        (name, getattr(thing, name)) for name in _slots(thing.__class__) if hasattr(thing, name)
    ]
    values += sorted(getattr(thing, "__dict__", {}).items())
    return type(thing), tuple(values)
