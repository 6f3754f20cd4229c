"""The eager run of a plan: one tensor operation after another, in as few buffers as it takes.

A plan is bound once: its schedule becomes a list of registers and numbers (`Program`), in which
every buffer is used again as soon as its content is dead. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srk._engine.cache import PlanCache
from srk._engine.memory import (
    changed_in_place,
    copy_of,
    empty_like,
    owners,
    version,
)
from srk._engine.program import Program, bind
from srk.noise.base import NoiseSource
from srk.plans.matrix import Coefficient, Matrix
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


class Executor:
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
        self.evaluate = evaluate
        self.noise = noise
        self.reuse = reuse
        self.remember = remember
        self._free: list[Tensor] = []

    def run(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Outcome:
        """One step from `state` with what the last one kept. With `reuse`, both are consumed."""
        return drive(self.walk(plan, state, memory), self.evaluate)

    def follow(self, plans: Iterable[StepPlan], state: Tensor) -> Iterator[Outcome]:
        """The outcome of each plan in turn, the first from `state`."""
        for _, _, _, outcome in steps(plans, self.run, state):
            yield outcome

    def walk(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Walk:
        """The same step with the control turned around: see `Walk`.

        Whoever drives it drops the input it was given before it sends the result, so that the walk
        can tell whether the network keeps it.
        """

        given = plan, len(memory), self.reuse, state.dtype
        if not self.remember:
            return self._walk(bind(*given), state, memory)
        return self._walk(_programs.get(plan, given[1:], bind, *given), state, memory)

    def _walk(self, program: Program, state: Tensor, memory: Sequence[Tensor]) -> Walk:
        parts, registers, before, update, keep, error, left, clock = program
        free, draw, reuse = self._free, self.noise.draw, self.reuse
        functional = not reuse and torch.is_grad_enabled()
        values: list[Any] = [None] * registers
        values[0] = state
        for register, tensor in zip(before, memory, strict=True):
            values[register] = tensor
        for draws, rows, stage, at, out, outlives in parts:
            for slot, register in draws:
                values[register] = z = free.pop() if free else empty_like(state)
                draw(slot, clock, z)
            for target, how, first, scale, second, factor, rest, frees, ratio, power in rows:
                if how == "in place":
                    total = values[first]
                    if scale is not None:
                        total.mul_(scale)
                elif how == "take":
                    total = values[first]
                elif how == "norms":
                    total = norm_ratio(values[first], values[second], scale)
                else:
                    into = None
                    if not functional:
                        into = free.pop() if free else empty_like(state)
                    if how == "add":
                        total = torch.add(values[first], values[second], alpha=factor, out=into)
                    elif how == "scale":
                        total = torch.mul(values[first], scale, out=into)
                    else:
                        total = torch.zeros_like(state) if into is None else into.zero_()
                        for source, value in rest:
                            add_mixed(total, values[source], value)
                        rest = ()
                for source, value in rest:
                    total.add_(values[source], alpha=value)
                if ratio is not None:
                    factors = values[ratio] if power == 1.0 else values[ratio] ** power
                    total = total * factors if functional else total.mul_(factors)
                values[target] = total
                for register in frees:
                    free.append(values[register])
            if stage is not None:
                x = values[at]
                held = owners(x) if reuse else 0
                result = yield x, stage
                # The memory of a result is the network's, and its layout may be any.
                values[out] = copy_of(result) if outlives or not result.is_contiguous() else result
                if reuse and owners(x) > held:  # somebody keeps it, and may look at it later
                    values[at] = copy_of(x)
                del x, result
        for register in left:
            free.append(values[register])
        return Outcome(
            values[update],
            [values[register] for register in keep],
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


def add_mixed(total: Tensor, source: Tensor, factor: Coefficient) -> None:
    """total += factor * source, where a `Matrix` acts on the component axis (1)."""
    if not isinstance(factor, Matrix):
        total.add_(source, alpha=factor)
        return
    for i, row in enumerate(factor.rows):
        for j, value in enumerate(row):
            if value != 0.0:
                total[:, i].add_(source[:, j], alpha=value)


def norm_ratio(numerator: Tensor, denominator: Tensor, over: str) -> Tensor:
    """|numerator|/|denominator| for each sample or of the batch's means, with the axes of a state.

    In float32 or more; 0 where the denominator is 0.
    """
    wide = torch.promote_types(numerator.dtype, torch.float32)
    above, below = (
        torch.linalg.vector_norm(tensor.reshape(len(tensor), -1), dim=1, dtype=wide)
        for tensor in (numerator, denominator)
    )
    if over == "batch":
        above, below = above.mean(), below.mean()
    ratio = torch.where(below > 0.0, above / below, 0.0)
    return ratio.reshape(-1, *[1] * (numerator.ndim - 1))
