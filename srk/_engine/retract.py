"""Steps of processes whose states are moved by increments: angles, rotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from srk._engine.cache import PlanCache
from srk._engine.eager import Evaluate, Executor, Outcome, Stepper, Walk
from srk._engine.memory import Shown, copy_of
from srk._engine.program import check_range
from srk._modes import ordinary_tensors
from srk.noise.base import NoiseSource
from srk.plans.increments import check_increments
from srk.plans.plan import Row, StepPlan
from srk.processes.base import ForwardProcess
from srk.processes.manifold import retraction


def executor_for(
    process: ForwardProcess,
    evaluate: Evaluate,
    noise: NoiseSource,
    *,
    reuse: bool = True,
    remember: bool = True,
) -> Stepper:
    """The executor for the steps of `process`; arguments as for `Executor`."""
    retract = retraction(process)
    if retract is None:
        return Executor(evaluate, noise, reuse=reuse, remember=remember)
    return Retracting(evaluate, noise, process, retract)


class Retracting(Stepper):
    """Runs plans whose rows are increments: the process says where an increment leads.

    A plan is checked when it is first seen, and its increments are remembered. A state is never
    written over, so that gradients may flow through every step.

    Arguments:
        evaluate: (state, stage) -> reverse drift, a tangent vector.
        noise: a started noise source.
        process: the process, for messages.
        retract: moves a state by an increment.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        noise: NoiseSource,
        process: ForwardProcess,
        retract: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__(evaluate, noise)
        self.process, self.retract = process, retract

    def prepare(self, plans: Sequence[StepPlan], dtype: torch.dtype) -> None:
        for plan in plans:
            self._moves(plan, dtype)

    def walk(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Walk:
        return self._walk(plan, self._moves(plan, state.dtype), state)

    def _moves(self, plan: StepPlan, dtype: torch.dtype) -> Moves:
        flat = getattr(self.process, "flat", False)
        return _moves.get(plan, (flat, dtype), moves_of, plan, self.process, flat, dtype)

    def _walk(self, plan: StepPlan, moves: Moves, state: Tensor) -> Walk:
        draws = []
        for slot in plan.slots:
            draws.append(z := torch.empty_like(state))
            self.noise.draw(slot, plan.clock, z)
        results: list[Tensor] = []
        shown = Shown(state)
        for stage, terms in zip(plan.stages, moves.stages, strict=True):
            x = self._moved(terms, state, results, draws)
            result = yield x, stage
            shown.see(x)
            # The memory of a result is the network's, which may write to it in the next call.
            results.append(copy_of(result) if len(plan.stages) > 1 else result)
            del x, result
        return Outcome(self._moved(moves.update, state, results, draws), [], None)

    def _moved(
        self, terms: Row, state: Tensor, results: Sequence[Tensor], draws: Sequence[Tensor]
    ) -> Tensor:
        total: Tensor | None = None
        for column, value in terms:
            vector = (results if column.kind == "E" else draws)[column.number]
            assert isinstance(value, float)
            total = vector * value if total is None else total.add(vector, alpha=value)
        if total is None:
            return state
        with ordinary_tensors():  # a network that writes to it is to be seen
            return self.retract(state, total)


class Moves(NamedTuple):
    """A step as increments: what is added to its first state for each stage, and at its end."""

    stages: tuple[Row, ...]
    update: Row


def moves_of(plan: StepPlan, process: ForwardProcess, flat: bool, dtype: torch.dtype) -> Moves:
    """The increments of a step.

    Raises:
        IncompatibleError: the step does not move its state by increments, or a coefficient is too
            large for `dtype`.
    """
    increments = check_increments(plan, process, flat)
    check_range([*(stage.row for stage in plan.stages), plan.update], dtype)
    return Moves(tuple(increments[:-1]), increments[-1])


_moves = PlanCache(4096)
