"""The eager run of a plan: one tensor operation after another, in as few buffers as it takes.

A plan is bound once: its schedule becomes a list of registers and numbers (`Program`), in which
every buffer is used again as soon as its content is dead. Nothing here waits for the device.
"""

from __future__ import annotations

import math
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
from srk._engine.schedule import ERROR, UPDATE, Form, last_reads, rows_of, schedule
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import STATE, Column, Slot, Stage, StepPlan

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
