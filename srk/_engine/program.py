"""A plan made ready for the eager run: registers, numbers, and where each buffer is free again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from srk._engine.rows import Row, added, in_place, mixed, norms, scaled, taken, times_ratio
from srk._engine.schedule import ERROR, UPDATE, Form, last_reads, rows_of, segments
from srk.errors import IncompatibleError
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import STATE, Column, StepPlan


class Part(NamedTuple):
    """A segment made ready: draws with their registers, rows, and the call that ends it.

    Arguments:
        draws: numbers of the draws and their registers.
        rows: forms the rows, one after the other.
        call: number of the stage whose call ends the segment; None in the last segment.
        at, out: registers of its input and of its result.
        outlives: whether the result must be copied, since the next call may overwrite it.
    """

    draws: tuple[tuple[int, int], ...]
    rows: tuple[Row, ...]
    call: int | None
    at: int
    out: int
    outlives: bool


class Pick(NamedTuple):
    """A coefficient of a plan: the number of its row, its place there, and whether `mul` takes it
    as a tensor.
    """

    row: int
    term: int
    tensor: bool


class Layout(NamedTuple):
    """What all plans of one structure do: parts, and where things stand in the end.

    Arguments:
        parts: the segments.
        memory: how many rows the last step kept; they stand behind the state.
        blank: the registers that follow, empty.
        update, keep, error: registers of the new state, of the kept rows and of the error.
        free: registers whose buffers are free after the step.
        picks: the coefficients that the rows take, in their order.
    """

    parts: tuple[Part, ...]
    memory: int
    blank: tuple[None, ...]
    update: int
    keep: tuple[int, ...]
    error: int | None
    free: tuple[int, ...]
    picks: tuple[Pick, ...]


class Program(NamedTuple):
    """A plan made ready: the layout of its structure, and its own numbers for it."""

    layout: Layout
    numbers: tuple[Any, ...]


def bind(plan: StepPlan, memory: int, reuse: bool, dtype: torch.dtype) -> Program:
    """The program of a plan for states of `dtype`, after a step that kept `memory` rows."""
    rows = rows_of(plan)
    check_range(rows, dtype)
    kinds = tuple(tuple((column, _kind(value)) for column, value in row) for row in rows)
    quantities = tuple((quantity.ratio, quantity.power) for quantity in plan.quantities)
    ratios = tuple((ratio.numerator, ratio.denominator, ratio.over) for ratio in plan.ratios)
    error = plan.error is not None
    layout = lay_out(kinds, len(plan.stages), error, memory, reuse, quantities, ratios)
    numbers = [
        _scalar(rows[row][term][1], dtype) if tensor else rows[row][term][1]
        for row, term, tensor in layout.picks
    ]
    return Program(layout, (*numbers, _scalar(1.0, dtype)))


Kind = Literal["one", "number", "matrix"]
"""What a coefficient is: 1, another number, or a matrix over the components of the state."""


def _kind(value: Coefficient) -> Kind:
    return "matrix" if isinstance(value, Matrix) else "one" if value == 1.0 else "number"


@lru_cache(maxsize=1024)
def lay_out(
    rows: tuple[tuple[tuple[Column, Kind], ...], ...],
    stages: int,
    error: bool,
    memory: int,
    reuse: bool,
    quantities: tuple[tuple[int | None, float], ...] = (),
    ratios: tuple[tuple[Column, Column, str], ...] = (),
) -> Layout:
    """The layout of all plans of one structure.

    Arguments:
        rows: for each row of the plan (`rows_of`) its columns, and what their coefficients are.
        stages: how many of the rows are inputs of stages; the update follows, then the kept rows.
        error: whether an error estimate follows.
        memory: how many rows the step before has kept.
        reuse: whether dead buffers and the state's are written over.
        quantities: for each quantity the number of the ratio that it is multiplied by, or None, and
            the power of that. Their rows are the last.
        ratios: numerator, denominator and what they are taken over.
    """
    shapes = [(tuple(c for c, _ in row), len(row) == 1 and row[0][1] == "one") for row in rows]
    pairs = tuple((above, below) for above, below, _ in ratios)
    parts = segments(tuple(shapes), stages, error, tuple(n for n, _ in quantities), pairs)
    # Eager rows are formed one by one, so that a buffer may die at each.
    units: list[Sequence[Column]] = []
    for part in parts:
        units += [form.reads for form in part.forms]
        units.append(() if part.call is None else (part.asked,))
    last = last_reads(units)
    copied = {Column("E", part.call) for part in parts if part.outlives and part.call is not None}
    kept_as_is = {
        form.reads[0] for form in parts[-1].forms if form.alone and form.target.kind == "keep"
    }
    registers = {STATE: 0, **{Column("m", i): 1 + i for i in range(memory)}}
    picks: list[Pick] = []

    def register(column: Column) -> int:
        return registers.setdefault(column, len(registers))

    live = {Column("m", i) for i in range(memory)}
    shared: set[Column] = set()
    made: list[Part] = []
    time = 0

    def ours(column: Column) -> bool:
        return column.kind != "E" or column in copied

    def dies(column: Column) -> bool:
        """Whether a buffer of ours is read here for the last time."""
        return reuse and ours(column) and last[column] == time and column not in kept_as_is

    def combine(form: Form) -> Row:
        """How a row is formed, or a ratio taken."""
        target = register(form.target)
        if form.target.kind == "ratio":
            frees = [c for c in dict.fromkeys(form.reads) if c != STATE and dies(c)]
            live.difference_update(frees)
            above, below = map(register, form.reads)
            over = ratios[form.row][2]
            return norms(target, above, below, over, tuple(map(register, frees)))
        made = formed_row(form, target)
        if form.ratio is None:
            return made
        power = quantities[form.target.number][1]
        return times_ratio(made, target, register(form.ratio), power, reuse)

    def formed_row(form: Form, target: int) -> Row:
        row = rows[form.row]
        if form.target.kind == "keep" and form.alone:
            source = form.reads[0]
            copy = not ours(source) or source in shared or source == STATE
            shared.add(source)
            if copy:  # times the 1 that stands behind all numbers
                return scaled(target, (register(source), -1), (), (), reuse)
            live.discard(source)
            return taken(target, register(source))
        dying = [column for column in form.reads if dies(column)]
        # The state's buffer is the state's: only the update overwrites it.
        dying = [column for column in dying if column != STATE or form.target == UPDATE]
        # The result of a call is never written over: it may be our copy, or may not.
        heirs = [column for column in dying if column.kind != "E"]
        first = STATE if STATE in heirs else heirs[0] if heirs else None
        frees = [column for column in dying if column not in (first, STATE)]
        live.difference_update(dying)
        if form.target.kind in ("X", "q"):
            live.add(form.target)

        def pick(term: int, tensor: bool = False) -> tuple[int, int]:
            picks.append(Pick(form.row, term, tensor))
            return register(row[term][0]), len(picks) - 1

        order = sorted(range(len(row)), key=lambda term: row[term][0] != first)
        if not row or any(kind == "matrix" for _, kind in row):
            # Never in place: what would have taken the result is free afterwards.
            frees += [first] if first is not None else []
            return mixed(target, tuple(map(pick, order)), tuple(map(register, frees)), reuse)
        freed = tuple(map(register, frees))
        if first is None:
            order.sort(key=lambda term: row[term][1] != "one")
        one, *rest = order
        column, kind = row[one]
        if first is not None:
            begun = (register(column), None) if kind == "one" else pick(one, True)
            return in_place(target, begun, tuple(map(pick, rest)), freed)
        if kind == "one" and rest:
            two, *rest = rest
            return added(target, register(column), pick(two), tuple(map(pick, rest)), freed, reuse)
        return scaled(target, pick(one, reuse), tuple(map(pick, rest)), freed, reuse)

    for part in parts:
        draws = tuple((z.number, register(z)) for z in part.draws)
        live.update(part.draws)
        formed = []
        for form in part.forms:
            formed.append(combine(form))
            time += 1
        time += 1
        result = 0 if part.call is None else register(Column("E", part.call))
        if part.outlives and part.call is not None:
            live.add(Column("E", part.call))
        at = register(part.asked)
        made.append(Part(draws, tuple(formed), part.call, at, result, part.outlives))
    kept = len(rows) - stages - 1 - error - len(quantities)
    keep = tuple(register(Column("keep", j)) for j in range(kept))
    update, wrong = register(UPDATE), register(ERROR) if error else None
    return Layout(
        tuple(made),
        memory,
        (None,) * (len(registers) - 1 - memory),
        update,
        keep,
        wrong,
        tuple(sorted(register(column) for column in live)) if reuse else (),
        tuple(picks),
    )


def bind_all(
    plans: Sequence[StepPlan], reuse: bool, dtype: torch.dtype
) -> dict[int, tuple[StepPlan, Program]]:
    """The programs of the steps of a run, the first without memory, by the ids of the plans."""
    kept = [0, *(len(plan.keep) for plan in plans)]
    return {
        id(plan): (plan, bind(plan, memory, reuse, dtype))
        for plan, memory in zip(plans, kept, strict=False)
    }


def check_range(rows: Iterable[Sequence[tuple[Column, Coefficient]]], dtype: torch.dtype) -> None:
    """Raise `IncompatibleError` if a coefficient is too large for `dtype`."""
    largest = torch.finfo(dtype).max
    for row in rows:
        for _, value in row:
            if isinstance(value, Matrix) or abs(value) <= largest:
                continue
            if math.isfinite(value):
                raise IncompatibleError(
                    f"a step has the coefficient {value:.4g}, but {dtype} holds numbers up to "
                    f"{largest:.4g}; keep the state in float32, dtype=torch.float32, and let the "
                    "network alone be in half precision (network_dtype= of the adapters)"
                )
            raise IncompatibleError(
                f"a step has the coefficient {value}; the levels at its ends are too far apart or "
                "too close for its solver: use another grid or number of steps"
            )


def _scalar(value: Any, dtype: torch.dtype) -> Tensor:
    """A factor as a tensor on the CPU, by which `mul` takes half the time that it takes by a
    float.
    """
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=torch.promote_types(dtype, torch.float32), device="cpu")
