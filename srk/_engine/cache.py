"""What the engine has made of plans, by plan: bounded, and safe for threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

from srk.plans.plan import StepPlan

Made = TypeVar("Made")


class PlanCache:
    """The last things made of plans. A plan counts as the object that it is, and is kept alive.

    Arguments:
        size: how many to remember; one takes a few kilobytes, its plan included.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: OrderedDict[Hashable, tuple[StepPlan, Any]] = OrderedDict()
        self._lock = Lock()

    def get(self, plan: StepPlan, how: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives for `plan`, remembered under the plan and the key `how`."""
        key = id(plan), how
        with self._lock:
            found = self._made.get(key)
            if found is not None:
                self._made.move_to_end(key)
                made: Made = found[1]
                return made
        made = make()
        with self._lock:
            self._made[key] = plan, made
            if len(self._made) > self._size:
                self._made.popitem(last=False)
        return made
