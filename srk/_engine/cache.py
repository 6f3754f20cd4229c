"""What the engine has made of plans, by plan: bounded, and safe for threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any, TypeVar

from srk.plans.plan import StepPlan

Made = TypeVar("Made")


class PlanCache:
    """The last things made of plans. A plan counts as the object that it is, and is kept alive.

    Looking up takes no lock: it is one step of a dictionary.

    Arguments:
        size: of how many plans to remember what was made; one takes a few kilobytes, the plan
            included.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._plans = 0
        self._made: dict[Hashable, tuple[Sequence[StepPlan], Any]] = {}
        self._lock = Lock()

    def get(self, plan: StepPlan, how: Hashable, make: Callable[..., Made], *given: Any) -> Made:
        """What `make(*given)` gives for `plan`, remembered under the plan and the key `how`."""
        key = id(plan), how
        found = self._made.get(key)
        if found is not None:
            made: Made = found[1]
            return made
        made = make(*given)
        self._keep(key, (plan,), made)
        return made

    def get_all(
        self, plans: Sequence[StepPlan], how: Hashable, make: Callable[..., Made], *given: Any
    ) -> Made:
        """What `make(*given)` gives for all steps of a run together, which is one look-up.

        A tuple counts as the object that it is: whoever has the same steps again gives it again.
        """
        key = id(plans) if type(plans) is tuple else tuple(map(id, plans)), how
        found = self._made.get(key)
        if found is not None:
            made: Made = found[1]
            return made
        made = make(*given)
        self._keep(key, tuple(plans), made)
        return made

    def _keep(self, key: Hashable, plans: Sequence[StepPlan], made: Any) -> None:
        with self._lock:
            if key in self._made:  # another thread was faster
                return
            self._made[key] = plans, made
            self._plans += len(plans)
            while self._plans > self._size and len(self._made) > 1:
                self._plans -= len(self._made.pop(next(iter(self._made)))[0])  # the oldest
