"""A plan made ready for the eager run: registers, numbers, and where each buffer is free again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srk._engine.schedule import ERROR, UPDATE, Form, last_reads, rows_of, schedule
from srk.errors import IncompatibleError
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import STATE, Column, Slot, Stage, StepPlan


class Combine(NamedTuple):
    """Register `out` becomes the sum of factors times registers.

    Arguments:
        out: the register of the result.
        how: what is done with the first term: "in place" (its buffer is dead and takes the result),
            "scale", "add" (the first two terms at once), "take" (the tensor itself) or "matrices"
            (a row with coefficients that are matrices, or without terms); "norms" is the ratio of
            the norms of `first` and `second`, over what `scale` says.
        first, scale: register and factor of the first term; None for a factor of 1 in place.
        second, factor: register and factor of the second term, for "add".
        rest: registers and factors of the other terms.
        frees: registers whose buffers are free afterwards.
        ratio, power: register and power of the ratio that the result is multiplied by; no register
            for none.
    """

    out: int
    how: str
    first: int
    scale: Any
    second: int
    factor: float
    rest: tuple[tuple[int, Any], ...]
    frees: tuple[int, ...]
    ratio: int | None = None
    power: float = 1.0


class Part(NamedTuple):
    """A segment made ready: draws with their registers, rows, and the call that ends it.

    Arguments:
        draws: slots and the registers of their draws.
        rows: the rows to form.
        stage: the stage whose call ends the segment; None in the last segment.
        at, out: registers of its input and of its result.
        outlives: whether the result must be copied, since the next call may overwrite it.
    """

    draws: tuple[tuple[Slot, int], ...]
    rows: tuple[Combine, ...]
    stage: Stage | None
    at: int
    out: int
    outlives: bool


class Program(NamedTuple):
    """A plan made ready: its parts, how many registers, and where things stand in the end."""

    parts: tuple[Part, ...]
    registers: int
    memory: tuple[int, ...]
    update: int
    keep: tuple[int, ...]
    error: int | None
    free: tuple[int, ...]
    clock: str


def bind(plan: StepPlan, memory: int, reuse: bool, dtype: torch.dtype) -> Program:
    """The program of a plan for states of `dtype`, after a step that kept `memory` rows."""
    rows = rows_of(plan)
    check_range(rows, dtype)
    parts = schedule(plan)
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
    registers: dict[Column, int] = {STATE: 0}

    def register(column: Column) -> int:
        return registers.setdefault(column, len(registers))

    before = tuple(register(Column("m", i)) for i in range(memory))
    live = {Column("m", i) for i in range(memory)}
    taken: set[Column] = set()
    made: list[Part] = []
    time = 0

    def ours(column: Column) -> bool:
        return column.kind != "E" or column in copied

    def combine(form: Form) -> Combine:
        """How a row is formed, or a ratio taken."""
        target = register(form.target)
        if form.target.kind == "ratio":
            given = plan.ratios[form.row]
            frees = [c for c in dict.fromkeys(form.reads) if c != STATE and dies(c)]
            live.difference_update(frees)
            above, below = map(register, form.reads)
            freed = tuple(map(register, frees))
            return Combine(target, "norms", above, given.over, below, 0.0, (), freed)
        made = formed_row(form, target)
        if form.ratio is None:
            return made
        power = plan.quantities[form.target.number].power
        return made._replace(ratio=register(form.ratio), power=power)

    def dies(column: Column) -> bool:
        """Whether a buffer of ours is read here for the last time."""
        return reuse and ours(column) and last[column] == time and column not in kept_as_is

    def formed_row(form: Form, target: int) -> Combine:
        terms = list(rows[form.row])
        if form.target.kind == "keep" and form.alone:
            source = form.reads[0]
            copy = not ours(source) or source in taken or source == STATE
            taken.add(source)
            if copy:
                return Combine(
                    target, "scale", register(source), _scalar(1.0, dtype), 0, 0.0, (), ()
                )
            live.discard(source)
            return Combine(target, "take", register(source), None, 0, 0.0, (), ())
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
        terms.sort(key=lambda term: term[0] != first)
        if not terms or any(isinstance(value, Matrix) for _, value in terms):
            # Never in place: what would have taken the result is free afterwards.
            frees += [first] if first is not None else []
            mixed = tuple((register(column), value) for column, value in terms)
            freed = tuple(map(register, frees))
            return Combine(target, "matrices", 0, None, 0, 0.0, mixed, freed)
        if first is None:
            terms.sort(key=lambda term: term[1] != 1.0)
        numbers = [(register(column), value) for column, value in terms]
        (one, scale), rest = numbers[0], numbers[1:]
        freed = tuple(map(register, frees))
        if first is not None:
            factor = None if scale == 1.0 else _scalar(scale, dtype)
            return Combine(target, "in place", one, factor, 0, 0.0, tuple(rest), freed)
        if scale == 1.0 and rest:
            (two, alpha), *rest = rest
            added = float(alpha)  # type: ignore[arg-type]  # matrices are served above
            return Combine(target, "add", one, None, two, added, tuple(rest), freed)
        exact = _scalar(scale, dtype) if reuse else scale
        return Combine(target, "scale", one, exact, 0, 0.0, tuple(rest), freed)

    for part in parts:
        draws = tuple((plan.slots[z.number], register(z)) for z in part.draws)
        live.update(part.draws)
        formed = []
        for form in part.forms:
            formed.append(combine(form))
            time += 1
        time += 1
        stage = None if part.call is None else plan.stages[part.call]
        result = 0 if part.call is None else register(Column("E", part.call))
        if part.outlives and part.call is not None:
            live.add(Column("E", part.call))
        made.append(Part(draws, tuple(formed), stage, register(part.asked), result, part.outlives))
    return Program(
        tuple(made),
        len(registers),
        before,
        register(UPDATE),
        tuple(register(Column("keep", j)) for j in range(len(plan.keep))),
        None if plan.error is None else register(ERROR),
        tuple(sorted(register(column) for column in live)) if reuse else (),
        plan.clock,
    )


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
