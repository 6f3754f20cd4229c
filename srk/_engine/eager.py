"""The eager run of a plan: one tensor operation after another, in as few buffers as it takes.

A plan is bound once: its schedule becomes a list of registers and numbers (`Program`), in which
every buffer is used again as soon as its content is dead. Nothing here waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srk._engine.cache import PlanCache
from srk._engine.memory import (
    Shown,
    changed_in_place,
    copy_of,
    empty_like,
    owners,
    version,
)
from srk._engine.program import Layout, Part, Program, bind, bind_all
from srk.noise.base import NoiseSource
from srk.plans.plan import Stage, StepPlan

Evaluate = Callable[[Tensor, Stage], Tensor]
Request = tuple[Tensor, Stage]
"""What a network is asked: its input, and the stage that says where and of what."""


class Outcome(NamedTuple):
    """What one step gives: the new state, what it keeps for later steps, the error estimate."""

    state: Tensor
    keep: list[Tensor]
    error: Tensor | None


Walk = Generator[Request, Tensor, Outcome]
"""A step that yields what it asks of the network, takes the result by `send`, and returns."""


_programs = PlanCache(4096)


class Stepper(ABC):
    """Takes steps; subclasses say how.

    Arguments:
        evaluate: (state, stage) -> denoiser or reverse drift.
        noise: a started noise source.

    Attributes:
        reuse: whether it writes over the state that a step begins from.
    """

    reuse: bool = False

    def __init__(self, evaluate: Evaluate, noise: NoiseSource) -> None:
        self.evaluate = evaluate
        self.noise = noise

    def prepare(self, plans: Sequence[StepPlan], dtype: torch.dtype) -> None:  # noqa: B027
        """Make the steps of a run ready together, in order, for states of `dtype`."""

    def run(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Outcome:
        """One step from `state` with what the last one kept."""
        return drive(self.walk(plan, state, memory), self.evaluate)

    def follow(self, plans: Iterable[StepPlan], state: Tensor) -> Iterator[Outcome]:
        """The outcome of each plan in turn, the first from `state`."""
        for _, _, _, outcome in steps(plans, self.run, state):
            yield outcome

    @abstractmethod
    def walk(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Walk:
        """The same step with the control turned around: see `Walk`.

        Whoever drives it looks whether the network writes to its input, and drops the input before
        it sends the result, so that the walk can tell whether the network keeps it.
        """


class Executor(Stepper):
    """Runs plans: forms the input of a stage, asks the network, draws noise, forms the new state.

    Arguments:
        evaluate: (state, stage) -> denoiser or reverse drift.
        noise: a started noise source.
        reuse: True to overwrite the state and dead buffers. False leaves a step's inputs intact, as
            gradients and rejected steps need.
        remember: False for plans that are made for one step and never seen again.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        noise: NoiseSource,
        *,
        reuse: bool = True,
        remember: bool = True,
    ) -> None:
        super().__init__(evaluate, noise)
        self.reuse = reuse
        self.remember = remember
        self._free: list[Tensor] = []
        self._ready: dict[int, tuple[StepPlan, Program]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": {}}  # it is found by the identity of plans

    def prepare(self, plans: Sequence[StepPlan], dtype: torch.dtype) -> None:
        how = self.reuse, dtype
        self._ready = _programs.get_all(plans, how, bind_all, plans, *how)

    def share(self, other: Executor) -> None:
        """Use the spare buffers of another, whose states are of the same shape, dtype and device.

        What one has just read is still in the processor's cache when the other writes to it.
        """
        self._free = other._free

    def run(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Outcome:
        """One step from `state` with what the last one kept. With `reuse`, both are consumed.

        What `drive` makes of `walk`, without the cost of a generator.
        """
        layout, numbers = self._program(plan, state, memory)
        values: list[Any] = [state, *memory, *layout.blank]
        evaluate, shown = self.evaluate, None if self.reuse else Shown(state, *memory)
        for part in layout.parts:
            held = self._form(part, plan, numbers, values)
            call, at = part.call, part.at
            if call is None:
                break
            # Nothing but the registers holds the input, so that its owners can be counted.
            written = version(values[at])
            result = evaluate(values[at], plan.stages[call])
            if version(values[at]) != written:
                raise changed_in_place()
            if shown is not None:
                shown.see(values[at])
            self._take(part, values, held, result)
            del result
        return self._end(layout, values)

    def walk(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Walk:
        layout, numbers = self._program(plan, state, memory)
        values: list[Any] = [state, *memory, *layout.blank]
        shown = None if self.reuse else Shown(state, *memory)
        for part in layout.parts:
            held = self._form(part, plan, numbers, values)
            if part.call is None:
                break
            result = yield values[part.at], plan.stages[part.call]
            if shown is not None:
                shown.see(values[part.at])
            self._take(part, values, held, result)
            del result
        return self._end(layout, values)

    def _form(self, part: Part, plan: StepPlan, numbers: Sequence[Any], values: list[Any]) -> int:
        """Draw and form the rows of a segment; returns how many hold the input of its call."""
        draws, rows, call, at, _, _ = part
        free = self._free
        for slot, register in draws:
            # No name of its own, which would count as an owner below.
            values[register] = free.pop() if free else empty_like(values[0])
            self.noise.draw(plan.slots[slot], plan.clock, values[register])
        for row in rows:
            row(values, free, numbers)
        return owners(values[at]) if self.reuse and call is not None else 0

    def _take(self, part: Part, values: list[Any], held: int, result: Tensor) -> None:
        """Put the result of the call that ends a segment into its register.

        Arguments:
            part: the segment.
            values: the registers.
            held: how many held the call's input before it.
            result: what the network returned.
        """
        _, _, _, at, out, outlives = part
        # The memory of a result is the network's, and its layout may be any.
        if outlives or not result.is_contiguous():
            free = self._free
            result = free.pop().copy_(result) if free and self.reuse else copy_of(result)
        values[out] = result
        if self.reuse and owners(values[at]) > held:  # somebody keeps it, and may look at it later
            values[at] = copy_of(values[at])

    def _program(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor]) -> Program:
        known = self._ready.get(id(plan))
        if known is not None and known[0] is plan and known[1].layout.memory == len(memory):
            return known[1]
        given = plan, len(memory), self.reuse, state.dtype
        if not self.remember:
            return bind(*given)
        return _programs.get(plan, given[1:], bind, *given)

    def _end(self, layout: Layout, values: list[Any]) -> Outcome:
        for register in layout.free:
            self._free.append(values[register])
        error = layout.error
        return Outcome(
            values[layout.update],
            [values[register] for register in layout.keep],
            None if error is None else values[error],
        )


Taken = tuple[StepPlan, Tensor, Sequence[Tensor], Outcome]
"""A step that was taken: its plan, the state and memory that it began from, and what it gave."""


def steps(
    plans: Iterable[StepPlan],
    step: Callable[[StepPlan, Tensor, Sequence[Tensor]], Outcome],
    state: Tensor,
) -> Generator[Taken, Outcome | None, None]:
    """The loop of a run whose plans are made: yields each step when it is taken.

    Whoever drives it may send an outcome to go on from instead, such as resampled states.

    Arguments:
        plans: the steps in order.
        step: takes a plan, the state and what the last step kept, and gives the outcome.
        state: the state at the start.
    """
    memory: Sequence[Tensor] = ()
    for plan in plans:
        outcome = step(plan, state, memory)
        other = yield plan, state, memory, outcome
        state, memory, _ = outcome if other is None else other


def drive(walk: Walk, evaluate: Evaluate) -> Outcome:
    """Take a walk to its end with the results of `evaluate`."""
    result: Any = None
    while True:
        try:
            request = walk.send(result)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        x, stage = request
        before = version(x)
        result = evaluate(x, stage)
        if version(x) != before:
            raise changed_in_place()
        del request, x
