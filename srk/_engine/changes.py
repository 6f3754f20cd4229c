"""What hooks do to the state before each step, with draws of the run's own noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from srk._engine.eager import Outcome
from srk._engine.memory import copy_of, empty_like, version
from srk.errors import ArgumentError, ScoreError
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.processes.base import Level
from srk.scores.state_hook_base import StateHook, check_returned

TakeStep = Callable[[StepPlan, Tensor, Sequence[Tensor]], Outcome]


class StateChanges:
    """Applies `before_step` of the hooks, in order.

    A hook's normals for a step are the first numbers of a draw of the source on a clock of the
    hook's own, on the interval from the step's number to the next. So a source whose noise belongs
    to the sample gives a sample the same numbers in any batch.

    Arguments:
        hooks: those that change the state.
        source: the started source of the run.
    """

    def __init__(self, hooks: Sequence[StateHook], source: NoiseSource) -> None:
        self.hooks, self.source = tuple(hooks), source

    def __call__(self, x: Tensor, level: Level, step: int) -> Tensor:
        """The state that step number `step` begins from, for the state `x` at its start."""
        for number, hook in enumerate(self.hooks):
            normals = self._normals(x, hook, number, step)
            before = version(x)
            made = hook.before_step(x, level, normals)
            if version(x) != before:
                raise ScoreError(
                    f"the hook {hook!r} wrote into the state; return a new tensor, e.g. x - "
                    "x.mean(1, keepdim=True)"
                )
            check_returned(made, x, f"before_step of the hook {hook!r}", "the state")
            # The run writes over its state, and what the hook returns may be its own memory.
            x = x if made is x else copy_of(made)
        return x

    def _normals(self, x: Tensor, hook: StateHook, number: int, step: int) -> Tensor:
        if hook.normals == 0:
            return x.new_empty((len(x), 0))
        size = math.prod(x.shape[1:])
        if hook.normals is not None and size < hook.normals:
            raise ArgumentError(
                f"the hook {hook!r} takes {hook.normals} normals a step of each sample's noise, "
                f"but a sample of shape {tuple(x.shape[1:])} has {size} numbers only"
            )
        out = empty_like(x)
        slot = Slot(float(step + 1), float(step + 2))
        self.source.draw(slot, f"hook {number}", out)
        return out.reshape(len(x), -1)[:, : hook.normals]

    def around(self, step: TakeStep, number: Callable[[], int]) -> TakeStep:
        """The step that begins from the changed state.

        Arguments:
            step: takes a step.
            number: says which step it is.
        """

        def take(plan: StepPlan, state: Tensor, memory: Sequence[Tensor]) -> Outcome:
            return step(plan, self(state, plan.start, number()), memory)

        return take
