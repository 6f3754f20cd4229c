"""Planning a fixed grid ahead, and remembering the plans."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

from srk.integrators.base import Integrator, Step
from srk.integrators.plan import StepPlan
from srk.processes.base import ForwardProcess

REMEMBERED = 64
_plans: OrderedDict[Hashable, list[StepPlan]] = OrderedDict()


def plan_grid(process: ForwardProcess, method: Integrator, times: Sequence[float], eta: float = 1.0) -> list[StepPlan]:
    """The plans of all steps of a fixed grid of own times, in order.

    Plans are numbers that depend on nothing but the arguments, so the last grids are remembered, by the values of process and method (an object whose values
    cannot be compared is planned afresh each time).
    """
    key = _key(process, method, times, eta)
    if key is not None and key in _plans:
        _plans.move_to_end(key)
        return _plans[key]
    levels = [process.level(t) for t in times]
    plans: list[StepPlan] = []
    notes: tuple[Any, ...] = ()
    for index, (start, stop) in enumerate(pairwise(levels)):
        plan = method.plan_step(Step(process, start, stop, eta, index, notes, len(levels) - 1))
        notes = plan.notes
        plans.append(plan)
    if key is not None:
        _plans[key] = plans
        if len(_plans) > REMEMBERED:
            _plans.popitem(last=False)
    return plans


def _key(process: ForwardProcess, method: Integrator, times: Sequence[float], eta: float) -> Hashable | None:
    try:
        key = (_value(process), _value(method), tuple(times), eta)
        hash(key)
    except TypeError:
        return None
    return key


def _value(thing: Any) -> Hashable:
    """What a process or method is, by value: its class and attributes, so that a changed attribute is another thing."""
    # attrs keeps fields in slots, of which vars() knows nothing
    slots = {name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ()) if not name.startswith("__")}
    values = {name: getattr(thing, name) for name in slots if hasattr(thing, name)} | getattr(thing, "__dict__", {})
    return type(thing), tuple(sorted(values.items()))
