"""What the engine has made of plans, by plan: bounded, and safe for threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

from srk.plans.plan import StepPlan

Made = TypeVar("Made")


class PlanCache:
    """The last things made of plans. A plan counts as the object that it is, and is kept alive.

    Looking up takes no lock: it is one step of a dictionary.

    Arguments:
        size: how many to remember; one takes a few kilobytes, its plan included.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: dict[Hashable, tuple[StepPlan, Any]] = {}
        self._lock = Lock()

    def get(self, plan: StepPlan, how: Hashable, make: Callable[..., Made], *given: Any) -> Made:
        """What `make(*given)` gives for `plan`, remembered under the plan and the key `how`."""
        key = id(plan), how
        found = self._made.get(key)
        if found is not None:
            made: Made = found[1]
            return made
        made = make(*given)
        with self._lock:
            self._made[key] = plan, made
            while len(self._made) > self._size:
                del self._made[next(iter(self._made))]  # the oldest
        return made
