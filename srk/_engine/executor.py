"""The executor: runs any plan on tensors.

A plan is compiled once per structure (which columns each row has, not the numbers) into a short list of instructions that re-use every buffer whose
content is dead; those become a Python function of the plan's numbers, so that a step costs its tensor operations and little else. Nothing here waits
for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from srk.noise.base import NoiseSource
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import STATE, Column, Row, Stage, StepPlan

Evaluate = Callable[[Tensor, Stage], Tensor]
Columns = tuple[Column, ...]

_UPDATE, _ERROR = Column("update"), Column("error")


class Draw(NamedTuple):
    """Fill the buffer of z[number] with its draw."""

    number: int
    out: int


class Call(NamedTuple):
    """Evaluate the network at stage `number`; its input stands in register `at`, its result goes to register `out`."""

    number: int
    at: int
    out: int


class Combine(NamedTuple):
    """Register out = sum of a row's coefficients times `sources`; `order` permutes the row's terms so that a source that dies here, if any, comes first."""

    out: int
    row: int
    order: tuple[int, ...]
    sources: tuple[int, ...]
    overwrite: bool
    frees: tuple[int, ...]


class Take(NamedTuple):
    """The kept row in register `out` is that of `source` itself."""

    out: int
    source: int
    copy: bool


Instruction = Draw | Call | Combine | Take


class Program(NamedTuple):
    """Instructions, and where things stand: registers of memory, of the new state, of the kept rows and of the error; and what is free at the end."""

    instructions: tuple[Instruction, ...]
    registers: int
    memory: tuple[tuple[int, int], ...]
    update: int
    keep: tuple[int, ...]
    error: int | None
    free: tuple[int, ...]


@lru_cache(maxsize=512)
def compile_structure(
    stages: tuple[tuple[Columns, bool], ...],
    keep: tuple[tuple[Columns, bool], ...],
    update: Columns,
    error: Columns | None,
    memory: int,
    fresh: bool,
    reuse: bool,
) -> Program:
    """The program of plans whose rows have these columns.

    Arguments:
        stages, keep: the columns of each row, and whether the row is one column with coefficient 1.
        update, error: the columns of the row.
        memory: number of rows kept by the step before.
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

    # 3. instructions; a register is a number, and `holds` says which column's buffer stands there
    registers: dict[Column, int] = {STATE: 0}

    def register(column: Column) -> int:
        return registers.setdefault(column, len(registers))

    before = tuple((register(Column("m", i)), i) for i in range(memory))
    program: list[Instruction] = []
    taken: set[Column] = set()
    live = {Column("m", i) for i in range(memory)}
    for time, (what, index, out, columns) in enumerate(events):
        if what == "draw":
            program.append(Draw(index, register(out)))
            live.add(out)
        elif what == "call":
            program.append(Call(index, register(out), register(Column("E", index))))
        else:
            if out.kind == "keep" and keep[out.number][1]:
                source = columns[0]
                copy = not owned(source) or source in taken or source.kind == "x"
                program.append(Take(register(out), register(source), copy))
                taken.add(source)
                if not copy:
                    live.discard(source)
                continue
            dying = [
                c
                for c in columns
                if reuse and owned(c) and final[c] == time and c not in kept_as_is
            ]
            # the state's buffer is the state's: only the update overwrites it
            dying = [c for c in dying if c.kind != "x" or out == _UPDATE]
            first = next((c for c in dying if c.kind == "x"), dying[0] if dying else None)
            order = sorted(range(len(columns)), key=lambda k: columns[k] != first)
            freed = [c for c in dying if c != first and c.kind != "x"]
            program.append(
                Combine(
                    register(out),
                    index,
                    tuple(order),
                    tuple(register(columns[k]) for k in order),
                    first is not None,
                    tuple(register(c) for c in freed),
                )
            )
            live -= {*freed, first} if first is not None else set(freed)
            if out.kind == "X":
                live.add(out)
    return Program(
        tuple(program),
        len(registers),
        before,
        registers[_UPDATE],
        tuple(registers[Column("keep", j)] for j in range(len(keep))),
        registers.get(_ERROR),
        tuple(sorted(registers[column] for column in live)) if reuse else (),
    )


class Outcome(NamedTuple):
    """What one step gives: the new state, what it keeps, the error estimate."""

    state: Tensor
    keep: list[Tensor]
    error: Tensor | None


class Executor:
    """Runs plans: forms a stage, calls the network, forms the next, draws noise, updates.

    Arguments:
        evaluate: (state, stage) -> denoiser or reverse drift.
        noise: a started noise source.
        fresh: True if what `evaluate` returns is never written by anyone else.
        reuse: True to overwrite the state and dead buffers; False leaves a step's inputs intact, as gradients and rejected steps need.
    """

    def __init__(
        self, evaluate: Evaluate, noise: NoiseSource, *, fresh: bool = False, reuse: bool = True
    ) -> None:
        self.evaluate = evaluate
        self.noise = noise
        self.fresh = fresh
        self.reuse = reuse
        self._free: list[Tensor] = []

    def run(self, plan: StepPlan, state: Tensor, memory: list[Tensor]) -> Outcome:
        """One step from `state` with what the last one kept. With `reuse`, both are consumed."""
        walk = self.walk(plan, state, memory)
        evaluate, result = self.evaluate, None
        while True:
            try:
                x, stage = walk.send(result)  # type: ignore[arg-type]  # the first send of a generator is None
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            result = evaluate(x, stage)

    def walk(
        self, plan: StepPlan, state: Tensor, memory: list[Tensor]
    ) -> Generator[tuple[Tensor, Stage], Tensor, Outcome]:
        """The same step with the control turned around: yields each network input with its stage, takes the result by `send`, returns the outcome."""
        key = (self.fresh, self.reuse, state.dtype)
        bound = plan.programs.get(key)
        if bound is None:
            bound = plan.programs[key] = bind(plan, len(memory), *key)
        function, numbers = bound
        steps: Generator[tuple[Tensor, Stage], Tensor, Outcome] = function(
            plan, numbers, state, memory, self.noise.draw, self._free
        )
        return steps


def add_mixed(total: Tensor, source: Tensor, factor: Coefficient) -> None:
    """total += factor * source, where a `Matrix` acts on the component axis (1)."""
    if not isinstance(factor, Matrix):
        total.add_(source, alpha=factor)
        return
    for i, row in enumerate(factor.rows):
        for j, value in enumerate(row):
            if value != 0.0:
                total[:, i].add_(source[:, j], alpha=value)


def bind(
    plan: StepPlan, memory: int, fresh: bool, reuse: bool, dtype: torch.dtype
) -> tuple[Callable[..., Generator[tuple[Tensor, Stage], Tensor, Outcome]], tuple[Any, ...]]:
    """The function of a plan's structure, `function(plan, numbers, state, memory, draw, free)`, and the plan's own numbers for it."""
    rows: list[Row] = [stage.row for stage in plan.stages]
    rows += [plan.update, *plan.keep]
    if plan.error is not None:
        rows.append(plan.error)
    program = compile_structure(
        tuple(_shape(stage.row) for stage in plan.stages),
        tuple(_shape(row) for row in plan.keep),
        _columns(plan.update),
        None if plan.error is None else _columns(plan.error),
        memory,
        fresh,
        reuse,
    )
    lines: list[str] = [f"r{register} = memory[{i}]" for register, i in program.memory]
    numbers: list[Any] = []
    into = f", out={_BUFFER}" if reuse else ""

    def number(value: Any) -> str:
        numbers.append(value)
        return f"c[{len(numbers) - 1}]"

    for op in program.instructions:
        if isinstance(op, Draw):
            lines += [
                f"r{op.out} = {_BUFFER}",
                f"draw(plan.slots[{op.number}], plan.clock, r{op.out})",
            ]
        elif isinstance(op, Call):
            lines.append(f"r{op.out} = yield r{op.at}, plan.stages[{op.number}]")
            # a network that returns its input: that buffer is ours
            lines.append(
                f"if r{op.out}.data_ptr() == r{op.at}.data_ptr(): r{op.out} = r{op.out}.clone()"
            )
        elif isinstance(op, Take):
            lines.append(
                f"r{op.out} = {_BUFFER}.copy_(r{op.source})"
                if op.copy
                else f"r{op.out} = r{op.source}"
            )
        else:
            terms = [
                (f"r{source}", rows[op.row][k][1])
                for source, k in zip(op.sources, op.order, strict=True)
            ]
            out, freed = f"r{op.out}", op.frees
            if not terms or any(isinstance(value, Matrix) for _, value in terms):
                lines.append(f"{out} = {_BUFFER}.zero_()")
                lines += [f"add_mixed({out}, {source}, {number(value)})" for source, value in terms]
                freed += op.sources[
                    : op.overwrite
                ]  # never in place: a source that dies here is free afterwards
            else:
                if not op.overwrite:
                    terms.sort(key=lambda term: term[1] != 1.0)
                (first, scale), *rest = terms
                if op.overwrite:
                    start = (
                        first if scale == 1.0 else f"{first}.mul_({number(_scalar(scale, dtype))})"
                    )
                elif scale == 1.0 and rest:
                    second, factor = rest.pop(0)
                    start = f"torch.add({first}, {second}, alpha={number(factor)}{into})"
                else:
                    start = f"torch.mul({first}, {number(_scalar(scale, dtype) if reuse else scale)}{into})"
                lines.append(
                    f"{out} = ({start})"
                    + "".join(f".add_({source}, alpha={number(value)})" for source, value in rest)
                )
            lines += [f"free.append(r{register})" for register in freed]
    lines += [f"free.append(r{register})" for register in program.free]
    error = None if program.error is None else f"r{program.error}"
    lines.append(
        f"return Outcome(r{program.update}, [{', '.join(f'r{k}' for k in program.keep)}], {error})"
    )
    return _function("\n    ".join(["def walk(plan, c, r0, memory, draw, free):", *lines])), tuple(
        numbers
    )


_BUFFER = "(free.pop() if free else torch.empty_like(r0))"


@lru_cache(maxsize=512)
def _function(text: str) -> Callable[..., Any]:
    space: dict[str, Any] = {"torch": torch, "Outcome": Outcome, "add_mixed": add_mixed}
    exec(compile(text, "<srk step>", "exec"), space)
    function: Callable[..., Any] = space["walk"]
    return function


def _scalar(value: Any, dtype: torch.dtype) -> Tensor:
    """A factor as a tensor of its own on the CPU, by which `mul` takes half the time that it takes by a float."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=torch.promote_types(dtype, torch.float32), device="cpu")


def _shape(row: Row) -> tuple[Columns, bool]:
    return _columns(row), len(row) == 1 and row[0][1] == 1.0


def _columns(row: Row) -> Columns:
    return tuple(column for column, _ in row)
