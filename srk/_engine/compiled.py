"""compile="step": one kernel between two network calls.

The kernel forms all rows between two calls, and draws the noise where it uses it if the source can.
Where nobody writes to the state between two steps, the end of a step and the beginning of the next
are one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srk._engine.cache import PlanCache
from srk._engine.eager import Evaluate, Outcome, Stepper, Walk
from srk._engine.kernels import Arithmetic, Kernel, Place, kernel
from srk._engine.memory import copy_of, empty_like, owners
from srk._engine.program import check_range
from srk._engine.schedule import (
    ERROR,
    UPDATE,
    Columns,
    Form,
    last_reads,
    rows_of,
    schedule,
)
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import STATE, Column, Row, Slot, Stage, StepPlan

AHEAD = Column("ahead")
"""The input of the next step's first stage, formed with this step's last rows."""


class Group(NamedTuple):
    """What stands between two calls: an arithmetic, and what becomes of the buffers.

    Arguments:
        arithmetic: the rows to form; None if there are none.
        rows: the numbers of those rows.
        draws: draws that are needed here for the first time.
        frees: columns whose buffers are free afterwards.
        call, asked, outlives: the call that ends the group, as in `schedule.Segment`.
    """

    arithmetic: Arithmetic | None
    rows: tuple[int, ...]
    draws: Columns
    frees: Columns
    call: int | None
    asked: Column
    outlives: bool


def group(
    plan: StepPlan,
    memory: int,
    words: bool,
    passed: Sequence[Column | None],
    entered: bool,
    ahead: Columns | None,
    later: Columns,
) -> list[Group]:
    """The groups of a plan: the segments of its schedule, with all rows of each formed together.

    Arguments:
        plan: the plan.
        memory: number of rows kept by the step before.
        words: whether the noise source gives bits, which the kernel turns into draws.
        passed: for each kept row, the remembered row or stage whose buffer it takes over, or None.
        entered: whether the step before has formed the input of the first stage.
        ahead: the columns of the input of the next step's first stage, if it is to be formed with
            this step's last rows; its draws are columns of kind y.
        later: those of its draws that the next step needs again.
    """
    # What each segment forms: the segments of the schedule without what is formed elsewhere.
    parts = schedule(plan)
    formed: list[list[tuple[Column, int, Columns, Any]]] = []
    for part in parts:
        forms = [
            (form.target, form.row, form.reads, _factor(plan, form))
            for form in part.forms
            if not (form.target.kind == "keep" and passed[form.target.number])
            and not (entered and form.target == Column("X", 0))
        ]
        formed.append(forms)
    if ahead is not None:
        formed[-1].append((AHEAD, len(rows_of(plan)), ahead, None))
    # When a buffer of ours is read for the last time; a call reads its input after the rows.
    units: list[list[Column]] = []
    for forms, part in zip(formed, parts, strict=True):
        units.append([column for _, _, reads, _ in forms for column in reads])
        units.append([] if part.call is None else [part.asked])
    last = last_reads(units)
    stays = {column for column in (*passed, *later) if column is not None}
    buffers = {STATE, *(Column("m", i) for i in range(memory))}
    known: set[Column] = set()
    if entered:
        known = {column for column, _ in plan.stages[0].row if column.kind == "z"}
        buffers |= {Column("X", 0), *(column for column in known if column in last)}
    made = []
    for number, (forms, part) in enumerate(zip(formed, parts, strict=True)):
        time = 2 * number
        targets = {target for target, *_ in forms}
        ratios = any(target.kind == "ratio" for target in targets)
        reads = [c for c in dict.fromkeys(units[time]) if c not in targets]
        wanted = dict.fromkeys([*part.draws, *(c for c in reads if c.kind in ("z", "y"))])
        draws = [column for column in wanted if column in reads and column not in known]
        known.update(draws)
        outputs = [
            target
            for target, *_ in forms
            if target.kind != "ratio" and not (target.kind == "q" and last.get(target, 0) <= time)
        ]
        if words:
            reads = [column for column in reads if column not in draws]
            outputs += [z for z in draws if last[z] > time or z in stays]
        else:
            buffers.update(draws)
        dying = [
            column
            for column in sorted(buffers)
            if last.get(column, -1) <= time
            and column not in stays
            and (column != STATE or UPDATE in targets)
        ]
        spare = [column for column in dying if column != STATE]
        places = tuple(
            # what a norm is taken of is read twice, so that nothing may be written over it
            None if ratios else STATE if target == UPDATE else spare.pop(0) if spare else None
            for target in outputs
        )
        buffers = buffers.difference(dying) | {c for c in outputs if c.kind in "Xqz"}
        arithmetic = Arithmetic(
            tuple(draws) if words else (),
            tuple(reads),
            tuple((target, columns, factor) for target, _, columns, factor in forms),
            tuple(outputs),
            places,
        )
        made.append(
            Group(
                arithmetic if forms else None,
                tuple(row for target, row, *_ in forms if target.kind != "ratio"),
                tuple(draws),
                tuple(spare),
                part.call,
                part.asked,
                part.outlives,
            )
        )
        if part.outlives and part.call is not None:
            buffers.add(Column("E", part.call))
    return made


def _factor(plan: StepPlan, form: Form) -> Any:
    """What an arithmetic multiplies a row by, or takes the norms of a ratio over."""
    if form.target.kind == "ratio":
        return plan.ratios[form.row].over
    if form.ratio is None:
        return None
    return form.ratio, plan.quantities[form.target.number].power


class Work(NamedTuple):
    """A group made ready: registers are numbers, and a draw is of this plan or of the next."""

    kernel: Kernel | None
    numbers: Tensor | None
    draws: tuple[tuple[Slot, str, int], ...]
    reads: tuple[int, ...]
    outputs: tuple[tuple[int, int | None], ...]
    frees: tuple[int, ...]
    call: tuple[Stage, int, int, bool] | None


class Ready(NamedTuple):
    """A plan made ready.

    Arguments:
        work: the groups.
        registers: how many there are.
        memory, update, keep, error: where memory comes, and where new state, kept rows and error
            are in the end.
        entry: where the first stage's input and its draws come if the step before has formed them.
        following: the next plan, if the input of its first stage is formed here.
        ahead: where that input and its draws are in the end.
    """

    work: tuple[Work, ...]
    registers: int
    memory: tuple[int, ...]
    update: int
    keep: tuple[int, ...]
    error: int | None
    entry: tuple[int, ...]
    following: StepPlan | None
    ahead: tuple[int, ...]


_ready = PlanCache(4096)


class CompiledExecutor(Stepper):
    """Runs plans with one compiled kernel between two network calls.

    Arguments:
        evaluate: (state, stage) -> what the network says.
        noise: a started noise source; if it has `words`, the kernels make normals of them.
        place: shape, dtype and device of the states.
        plans: the steps in order, if nobody writes to the states between them: the end of a step
            and the beginning of the next are then one kernel.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        noise: NoiseSource,
        place: Place,
        plans: Sequence[StepPlan] = (),
    ) -> None:
        super().__init__(evaluate, noise)
        self._free: list[Tensor] = []
        self._place = place
        self._following = {
            id(plan): following
            for plan, following in pairwise(plans)
            if following.stages and following.stages[0].row != ((STATE, 1.0),)
        }
        self._ahead: tuple[StepPlan, list[Tensor]] | None = None

    def walk(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor] = ()) -> Walk:
        source = self.noise.words
        ahead, self._ahead = self._ahead, None
        entered = ahead is not None and ahead[0] is plan
        following = self._following.get(id(plan))

        def make() -> Ready:
            words = source is not None
            return make_ready(plan, len(memory), self._place, words, entered, following)

        how = self._place, source is not None, entered, id(following), len(memory)
        ready = _ready.get(plan, how, make)
        free = self._free
        values: list[Any] = [None] * ready.registers
        values[0] = state
        for register, tensor in zip(ready.memory, memory, strict=True):
            values[register] = tensor
        if ahead is not None and entered:
            for register, tensor in zip(ready.entry, ahead[1], strict=True):
                values[register] = tensor
        del ahead
        for run, numbers, draws, reads, outputs, frees, call in ready.work:
            if run is not None:
                arguments: list[Any] = [numbers]
                for slot, clock, register in draws:
                    if source is not None:
                        arguments.append(source(slot, clock))
                    else:
                        values[register] = free.pop() if free else empty_like(state)
                        self.noise.draw(slot, clock, values[register])
                arguments += [values[register] for register in reads]
                for register, buffer in outputs:
                    if buffer is not None:
                        values[register] = values[buffer]
                    else:
                        values[register] = free.pop() if free else empty_like(state)
                    arguments.append(values[register])
                run(*arguments)
                del arguments
            for register in frees:
                free.append(values[register])
            if call is not None:
                stage, at, out, outlives = call
                x = values[at]
                held = owners(x)
                result = yield x, stage
                # kernels are compiled for aligned, contiguous tensors
                ragged = not result.is_contiguous() or result.data_ptr() % 16 != 0
                values[out] = copy_of(result) if outlives or ragged else result
                if owners(x) > held:  # somebody keeps it, and may look at it later
                    values[at] = copy_of(x)
                del x, result
        if ready.following is not None:
            self._ahead = ready.following, [values[register] for register in ready.ahead]
        error = None if ready.error is None else values[ready.error]
        return Outcome(values[ready.update], [values[register] for register in ready.keep], error)


def make_ready(
    plan: StepPlan,
    memory: int,
    place: Place,
    words: bool,
    entered: bool = False,
    following: StepPlan | None = None,
) -> Ready:
    """The work of a plan for states of one place; its coefficients go to the device here.

    For `entered` and `following` see `Ready`.
    """
    rows = rows_of(plan)
    passed: list[Column | None] = []
    for row in plan.keep:
        as_it_is = (
            len(row) == 1
            and row[0][0].kind in ("m", "X")
            and row[0][1] == 1.0
            and row[0][0] not in passed
        )
        passed.append(row[0][0] if as_it_is else None)
    ahead: Row = ()
    later: Columns = ()
    if following is not None:
        ahead = tuple((_seen(column, passed), value) for column, value in following.stages[0].row)
        later = tuple(Column("y", z.number) for z in _needed_again(following))
    if not all(isinstance(value, float) for row in (*rows, ahead) for _, value in row):
        raise IncompatibleError(
            "compile='step' serves steps whose coefficients are numbers, not those of phase space; "
            "leave compile out"
        )
    columns = None if following is None else tuple(column for column, _ in ahead)
    groups = group(plan, memory, words, passed, entered, columns, later)
    if following is not None:
        rows.append(ahead)
    _, dtype, device = place
    check_range(rows, dtype)
    numbered: dict[Column, int] = {STATE: 0}

    def register(column: Column) -> int:
        return numbered.setdefault(column, len(numbered))

    def drawn(column: Column) -> tuple[Slot, str, int]:
        owner = following if column.kind == "y" and following is not None else plan
        return owner.slots[column.number], owner.clock, register(column)

    before = tuple(register(Column("m", i)) for i in range(memory))
    work = []
    for part in groups:
        numbers = [value for row in part.rows for _, value in rows[row]]
        wide = torch.promote_types(dtype, torch.float32)
        arithmetic = part.arithmetic
        run = None if arithmetic is None else kernel(arithmetic, place)
        outputs = (
            () if arithmetic is None else zip(arithmetic.outputs, arithmetic.buffers, strict=True)
        )
        call = None
        if part.call is not None:
            out = register(Column("E", part.call))
            call = plan.stages[part.call], register(part.asked), out, part.outlives
        with torch.inference_mode(False):
            coefficients = torch.tensor(numbers or [0.0], dtype=wide)
            coefficients = coefficients.to(device, non_blocking=True)
        work.append(
            Work(
                run,
                coefficients,
                tuple(map(drawn, part.draws)),
                () if arithmetic is None else tuple(map(register, arithmetic.reads)),
                tuple(
                    (register(column), None if buffer is None else register(buffer))
                    for column, buffer in outputs
                ),
                tuple(map(register, part.frees)),
                call,
            )
        )
    kept = tuple(register(passed[j] or Column("keep", j)) for j in range(len(plan.keep)))
    error = None if plan.error is None else register(ERROR)
    update = register(UPDATE)
    entry = tuple(map(register, (Column("X", 0), *_needed_again(plan)))) if entered else ()
    over = tuple(map(register, (AHEAD, *later))) if following is not None else ()
    return Ready(tuple(work), len(numbered), before, update, kept, error, entry, following, over)


def _seen(column: Column, passed: list[Column | None]) -> Column:
    """A column of the next step's first stage as this step sees it."""
    if column == STATE:
        return UPDATE
    if column.kind == "m":
        return passed[column.number] or Column("keep", column.number)
    return Column("y", column.number)


def _needed_again(plan: StepPlan) -> list[Column]:
    """The draws of a plan's first stage that later rows use too."""
    rows = [*(stage.row for stage in plan.stages[1:]), plan.update, *plan.keep]
    used = {column for row in rows for column, _ in row}
    return [column for column, _ in plan.stages[0].row if column.kind == "z" and column in used]
