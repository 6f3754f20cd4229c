"""The executor: runs any plan on tensors.

A plan is compiled once per structure (which columns each row has, not the numbers) into a short list of instructions that re-use every buffer whose
content is dead; the same instructions then run with each step's coefficients. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from srk.integrators.plan import STATE, Column, Row, Stage, StepPlan
from srk.noise.base import NoiseSource

Evaluate = Callable[[Tensor, Stage], Tensor]

_UPDATE, _ERROR = Column("update"), Column("error")


class Draw(NamedTuple):
    """Fill z[number] with its draw."""

    number: int


class Call(NamedTuple):
    """Evaluate the network at stage `number`; its input stands in `at`."""

    number: int
    at: Column


class Combine(NamedTuple):
    """out = sum of coefficients times `sources`; `order` permutes the row's terms so that a source that dies here, if any, comes first."""

    out: Column
    row: int
    order: tuple[int, ...]
    sources: tuple[Column, ...]
    overwrite: bool
    frees: tuple[Column, ...]


class Take(NamedTuple):
    """The kept row `out` is the column `source` itself."""

    out: Column
    source: Column
    copy: bool


Instruction = Draw | Call | Combine | Take
Columns = tuple[Column, ...]


@lru_cache(maxsize=512)
def compile_structure(
    stages: tuple[tuple[Columns, bool], ...],
    keep: tuple[tuple[Columns, bool], ...],
    update: Columns,
    error: Columns | None,
    fresh: bool,
    reuse: bool,
) -> tuple[Instruction, ...]:
    """Instructions for plans whose rows have these columns.

    Arguments:
        stages, keep: the columns of each row, and whether the row is one column with coefficient 1.
        update, error: the columns of the row.
        fresh: True if the network's results are ours to keep and overwrite.
        reuse: False leaves every input intact (rejectable or differentiable steps).
    """
    # 1. the order of events, without buffers
    events: list[tuple[Literal["draw", "call", "row"], int, Column, Columns]] = []
    drawn: set[Column] = set()

    def draw_for(columns: Columns) -> None:
        for column in columns:
            if column.kind == "z" and column not in drawn:
                drawn.add(column)
                events.append(("draw", column.number, column, ()))

    for i, (columns, identity) in enumerate(stages):
        if identity and columns == (STATE,):
            events.append(("call", i, STATE, (STATE,)))
            continue
        draw_for(columns)
        events.append(("row", i, Column("X", i), columns))
        events.append(("call", i, Column("X", i), (Column("X", i),)))
    n = len(stages)
    kept_last: list[tuple[Literal["draw", "call", "row"], int, Column, Columns]] = []
    for j, (columns, _) in enumerate(keep):
        draw_for(columns)
        kept_last.append(("row", n + 1 + j, Column("keep", j), columns))
    if error is not None:
        draw_for(error)
        kept_last.append(("row", n + 1 + len(keep), _ERROR, error))
    # The update comes before what is kept unless a kept row still needs the old state: its draws are then free to hold the kept rows.
    needs_state = any(STATE in columns for _, _, _, columns in kept_last)
    draw_for(update)
    last: tuple[Literal["draw", "call", "row"], int, Column, Columns] = ("row", n, _UPDATE, update)
    events += [*kept_last, last] if needs_state else [last, *kept_last]

    # 2. the last time each column is read
    final: dict[Column, int] = {}
    for time, (_, _, _, columns) in enumerate(events):
        for column in columns:
            final[column] = time
    kept_as_is = {columns[0] for columns, identity in keep if identity}

    def owned(column: Column) -> bool:
        return column.kind in ("x", "m", "X", "z") or (column.kind == "E" and fresh)

    # 3. instructions
    program: list[Instruction] = []
    taken: set[Column] = set()
    for time, (what, index, out, columns) in enumerate(events):
        if what == "draw":
            program.append(Draw(index))
        elif what == "call":
            program.append(Call(index, out))
        else:
            if out.kind == "keep" and keep[out.number][1]:
                source = columns[0]
                program.append(Take(out, source, copy=not owned(source) or source in taken or source.kind == "x"))
                taken.add(source)
                continue
            dying = [c for c in columns if reuse and owned(c) and final[c] == time and c not in kept_as_is]
            # the state's buffer is the state's: only the update overwrites it
            dying = [c for c in dying if c.kind != "x" or out == _UPDATE]
            first = next((c for c in dying if c.kind == "x"), dying[0] if dying else None)
            order = sorted(range(len(columns)), key=lambda k: columns[k] != first)
            program.append(
                Combine(
                    out,
                    index,
                    tuple(order),
                    tuple(columns[k] for k in order),
                    first is not None,
                    tuple(c for c in dying if c != first and c.kind != "x"),
                )
            )
    return tuple(program)


@attrs.define
class Outcome:
    """What one step gives: the new state, what it keeps, the error estimate, the network's results."""

    state: Tensor
    keep: list[Tensor]
    error: Tensor | None
    results: list[Tensor]


class Executor:
    """Runs plans: forms a stage, calls the network, forms the next, draws noise, updates.

    Arguments:
        evaluate: (state, stage) -> denoiser or reverse drift.
        noise: a started noise source.
        fresh: True if what `evaluate` returns is never written by anyone else.
        reuse: True to overwrite the state and dead buffers; False leaves a step's inputs intact.
    """

    def __init__(self, evaluate: Evaluate, noise: NoiseSource, *, fresh: bool = False, reuse: bool = True) -> None:
        self.evaluate = evaluate
        self.noise = noise
        self.fresh = fresh
        self.reuse = reuse
        self._free: list[Tensor] = []

    def _take(self, like: Tensor) -> Tensor:
        return self._free.pop() if self._free else torch.empty_like(like)

    def run(self, plan: StepPlan, state: Tensor, memory: list[Tensor]) -> Outcome:
        """One step from `state` with what the last one kept. With `reuse`, both are consumed."""
        walk = self.walk(plan, state, memory)
        result: Any = None
        while True:
            try:
                x, stage = walk.send(result)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            result = self.evaluate(x, stage)

    def walk(self, plan: StepPlan, state: Tensor, memory: list[Tensor]) -> Generator[tuple[Tensor, Stage], Tensor, Outcome]:
        """The same step with the control turned around: yields each network input with its stage, takes the result by `send`, returns the outcome."""
        rows: list[Row] = [stage.row for stage in plan.stages]
        rows += [plan.update, *plan.keep]
        if plan.error is not None:
            rows.append(plan.error)
        program = plan.programs.get((self.fresh, self.reuse))
        if program is None:
            program = plan.programs[self.fresh, self.reuse] = compile_structure(
                tuple(_shape(stage.row) for stage in plan.stages),
                tuple(_shape(row) for row in plan.keep),
                _columns(plan.update),
                None if plan.error is None else _columns(plan.error),
                self.fresh,
                self.reuse,
            )
        registers: dict[Column, Tensor] = {STATE: state}
        for i, tensor in enumerate(memory):
            registers[Column("m", i)] = tensor
        results: list[Tensor] = []
        for op in program:
            if isinstance(op, Combine):
                out = self._combine(op, rows[op.row], registers, state)
                if op.overwrite:
                    del registers[op.sources[0]]  # its buffer has a new name now
                registers[op.out] = out
                for column in op.frees:
                    self._free.append(registers.pop(column))
            elif isinstance(op, Call):
                result = yield registers[op.at], plan.stages[op.number]
                if result.data_ptr() == registers[op.at].data_ptr():
                    result = result.clone()  # a network that returns its input: that buffer is ours
                registers[Column("E", op.number)] = result
                results.append(result)
            elif isinstance(op, Draw):
                draw = self._take(state)
                self.noise.draw(plan.slots[op.number], plan.clock, draw)
                registers[Column("z", op.number)] = draw
            else:
                source = registers[op.source]
                registers[op.out] = self._take(state).copy_(source) if op.copy else source
        keep = [registers[Column("keep", j)] for j in range(len(plan.keep))]
        new = registers[_UPDATE]
        if self.reuse:
            live = {tensor.data_ptr() for tensor in keep} | {new.data_ptr()}
            if plan.error is not None:
                live.add(registers[_ERROR].data_ptr())
            for column, tensor in registers.items():
                if column.kind in ("m", "X", "z") and tensor.data_ptr() not in live:
                    live.add(tensor.data_ptr())
                    self._free.append(tensor)
        return Outcome(new, keep, registers.get(_ERROR), results)

    def _combine(self, op: Combine, row: Row, registers: dict[Column, Tensor], state: Tensor) -> Tensor:
        if not row:
            return self._take(state).zero_()
        first = registers[op.sources[0]]
        scale = row[op.order[0]][1]
        if op.overwrite:
            out = first if scale == 1.0 else first.mul_(scale)
        elif self.reuse:
            out = torch.mul(first, scale, out=self._take(state))
        else:
            out = first * scale
        for source, k in zip(op.sources[1:], op.order[1:], strict=True):
            # out of place where gradients may flow: add_ on our own fresh tensor is as good
            out.add_(registers[source], alpha=row[k][1])
        return out


def _shape(row: Row) -> tuple[Columns, bool]:
    return _columns(row), len(row) == 1 and row[0][1] == 1.0


def _columns(row: Row) -> Columns:
    return tuple(column for column, _ in row)
