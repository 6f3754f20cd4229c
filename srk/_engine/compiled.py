"""The executor with its arithmetic compiled: one kernel between two network calls, which draws the noise where it uses it if the source can."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import symbolic_trace

from srk._engine.executor import Columns, Executor, Outcome
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.noise.counter import normals
from srk.plans.plan import STATE, Column, Row, Slot, Stage, StepPlan

UPDATE, ERROR, AHEAD = Column("update"), Column("error"), Column("ahead")


class Segment(NamedTuple):
    """What happens between two network calls: one kernel, `segment(c, *words, *reads, *outputs)`.

    Arguments:
        text: its Python source; empty if there is nothing to do.
        rows: numbers of the rows it forms (stages, then update, kept rows, error).
        draws: the draws that are new here.
        reads: the columns it reads, but for those draws if the source gives words.
        outputs: the columns it writes, each with the dying column whose buffer it takes, or None.
        frees: columns whose buffers are free afterwards.
    """

    text: str
    rows: tuple[int, ...]
    draws: tuple[Column, ...]
    reads: tuple[Column, ...]
    outputs: tuple[tuple[Column, Column | None], ...]
    frees: tuple[Column, ...]


@lru_cache(maxsize=512)
def segments(
    rows: tuple[Columns, ...],
    skipped: tuple[bool, ...],
    memory: int,
    error: bool,
    words: bool,
    passed: tuple[Column | None, ...] = (),
    entered: bool = False,
    ahead: Columns | None = None,
    later: tuple[Column, ...] = (),
) -> tuple[Segment, ...]:
    """The segments of plans of one structure: one before each network call, and the last.

    Arguments:
        rows: the columns of each row: stages, update, kept rows, error.
        skipped: for each stage, whether its input is the state itself.
        memory: number of rows kept by the step before.
        error: whether the last row is an error estimate.
        words: whether the noise source gives bits, which the kernel turns into normals, rather than draws.
        passed: for each kept row, the remembered row or stage whose buffer it takes over as it is, or None.
        entered: whether the step before has formed the input of the first stage.
        ahead: the columns of the input of the next step's first stage, if it is to be formed with this one's last rows; its draws are y columns.
        later: those of its draws that the next step needs again.
    """
    n = len(skipped)
    kept = len(rows) - n - 1 - error
    names = [
        *(Column("X", i) for i in range(n)),
        UPDATE,
        *(Column("keep", j) for j in range(kept)),
        *([ERROR] if error else []),
    ]
    if ahead is not None:
        rows, names = (*rows, ahead), [*names, AHEAD]
    groups = [[] if skipped[i] or (entered and i == 0) else [i] for i in range(n)]
    groups.append(
        [
            row
            for row in range(n, len(rows))
            if not (n < row <= n + kept and passed and passed[row - n - 1])
        ]
    )
    last = {Column("m", i): 0 for i in range(memory)} | {Column("X", i): i + 1 for i in range(n)}
    for s, group in enumerate(groups):
        for row in group:
            for column in rows[row]:
                last[column] = max(s, last.get(column, 0))
    last[STATE] = n
    last |= {column: n + 1 for column in (*passed, *later) if column is not None}
    known: set[Column] = set()  # draws made
    buffers = {
        STATE,
        *(Column("m", i) for i in range(memory)),
    }  # columns that stand in buffers of ours
    if entered:
        known |= {column for column in rows[0] if column.kind == "z"}
        buffers |= {column for column in known if column in last} | {Column("X", 0)}
    made = []
    for s, group in enumerate(groups):
        formed = {names[row] for row in group}
        reads = [
            column
            for column in dict.fromkeys(column for row in group for column in rows[row])
            if column not in formed
        ]
        draws = [column for column in reads if column.kind in ("z", "y") and column not in known]
        known |= set(draws)
        lines, count, targets = [], 0, [names[row] for row in group]
        if words:
            lines += [f"{_name(z)} = normals(w{_name(z)}, shape, dtype)" for z in draws]
            targets += [z for z in draws if last[z] > s]
            reads = [column for column in reads if column not in draws]
        else:
            buffers |= set(draws)
        for row in group:
            terms = [f"c[{count + k}] * {_name(column)}" for k, column in enumerate(rows[row])]
            count += len(terms)
            lines.append(f"{_name(names[row])} = {' + '.join(terms) or '0.0 * x0'}")
        lines += [f"out_{_name(target)}.copy_({_name(target)})" for target in targets]
        dying = [
            column
            for column in sorted(buffers)
            if last[column] <= s and (column != STATE or UPDATE in targets)
        ]
        outputs: list[tuple[Column, Column | None]] = []
        spare = [column for column in dying if column != STATE]
        for target in targets:
            outputs.append((target, STATE if target == UPDATE else spare.pop(0) if spare else None))
        buffers = (buffers - set(dying)) | {
            target for target in targets if target.kind in ("X", "z")
        }
        arguments = (
            [f"w{_name(z)}" for z in draws if words]
            + [_name(c) for c in reads]
            + [f"out_{_name(target)}" for target in targets]
        )
        # which output stands where is part of the text, for the kernel is compiled for it
        places = ", ".join(
            f"{_name(target)} in {_name(place) if place else 'a new buffer'}"
            for target, place in outputs
        )
        text = (
            "\n    ".join([f"def segment({', '.join(['c', *arguments])}):  # {places}", *lines])
            + "\n"
            if group
            else ""
        )
        made.append(
            Segment(text, tuple(group), tuple(draws), tuple(reads), tuple(outputs), tuple(spare))
        )
    return tuple(made)


def _name(column: Column) -> str:
    return f"{column.kind}{column.number}"


@cache
def _kernel(text: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Kernel:
    """The kernel of a segment for one place. It is compiled when first called, without guards: the executor calls it for that place only."""
    space: dict[str, Any] = {"torch": torch, "normals": normals, "shape": shape, "dtype": dtype}
    exec(compile(text, "<srk segment>", "exec"), space)
    return Kernel(space["segment"])


class Kernel:
    """A function of tensors, compiled by TorchInductor at its first call."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.compiled: Callable[..., Any] | None = None

    def __call__(self, *tensors: Tensor) -> None:
        if self.compiled is None:
            import torch._inductor as inductor  # seconds to import

            try:
                self.compiled = inductor.compile(symbolic_trace(self.function), list(tensors))
            except RuntimeError as error:
                raise IncompatibleError(
                    f"compile='step' could not build its kernel ({type(error).__name__}: {str(error).strip().splitlines()[0]}); on the CPU it needs a C++ "
                    "compiler (g++ or clang++), on a GPU Triton; or leave compile out"
                ) from error
        self.compiled(*tensors)


class Work(NamedTuple):
    """A segment made ready for one plan and place: registers are numbers, and a draw is of this plan or of the next."""

    kernel: Kernel | None
    numbers: Tensor | None
    draws: tuple[tuple[Slot, str, int], ...]
    reads: tuple[int, ...]
    outputs: tuple[tuple[int, int | None], ...]
    frees: tuple[int, ...]
    call: tuple[Stage, int, int] | None


class Ready(NamedTuple):
    """A plan made ready: its work, the number of registers, and where things stand.

    Arguments:
        work: the segments.
        registers: how many there are.
        memory, update, keep, error: where memory comes, and where new state, kept rows and error are in the end.
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


class CompiledExecutor(Executor):
    """Runs plans with one compiled kernel between two network calls.

    Arguments:
        evaluate: (state, stage) -> what the network says.
        noise: a started noise source; if it has `words`, the kernels make normals of them.
        place: shape, dtype and device of the states.
        plans: the steps in order, if nobody writes to the states between them: the end of a step and the beginning of the next are then one kernel.
    """

    def __init__(
        self,
        evaluate: Callable[[Tensor, Stage], Tensor],
        noise: NoiseSource,
        place: tuple[tuple[int, ...], torch.dtype, torch.device],
        plans: Sequence[StepPlan] = (),
    ) -> None:
        super().__init__(evaluate, noise)
        self._place = place
        self._following = {
            id(plan): following
            for plan, following in pairwise(plans)
            if following.stages[0].row != ((STATE, 1.0),)
        }
        self._ahead: tuple[StepPlan, list[Tensor]] | None = None

    def walk(
        self, plan: StepPlan, state: Tensor, memory: list[Tensor]
    ) -> Generator[tuple[Tensor, Stage], Tensor, Outcome]:
        source = self.noise.words
        ahead, self._ahead = self._ahead, None
        entered, following = ahead is not None and ahead[0] is plan, self._following.get(id(plan))
        key = (self._place, source is not None, entered, id(following))
        ready = plan.programs.get(key)
        if ready is None:
            ready = plan.programs[key] = make_ready(
                plan, len(memory), self._place, source is not None, entered, following
            )
        free = self._free
        values: list[Any] = [None] * ready.registers
        values[0] = state
        for register, tensor in zip(ready.memory, memory, strict=True):
            values[register] = tensor
        if ahead is not None and entered:
            for register, tensor in zip(ready.entry, ahead[1], strict=True):
                values[register] = tensor
        for kernel, numbers, draws, reads, outputs, frees, call in ready.work:
            if kernel is not None:
                arguments: list[Any] = [numbers]
                for slot, clock, register in draws:
                    if source is not None:
                        arguments.append(source(slot, clock))
                    else:
                        values[register] = free.pop() if free else torch.empty_like(state)
                        self.noise.draw(slot, clock, values[register])
                arguments += [values[register] for register in reads]
                written = [
                    values[buffer]
                    if buffer is not None
                    else free.pop()
                    if free
                    else torch.empty_like(state)
                    for _, buffer in outputs
                ]
                kernel(*arguments, *written)
                for (register, _), tensor in zip(outputs, written, strict=True):
                    values[register] = tensor
            for register in frees:
                free.append(values[register])
            if call is not None:
                stage, at, out = call
                x = values[at]
                result = (yield x, stage).contiguous()
                values[out] = result.clone() if result.data_ptr() == x.data_ptr() else result
        if ready.following is not None:
            self._ahead = ready.following, [values[register] for register in ready.ahead]
        error = None if ready.error is None else values[ready.error]
        return Outcome(values[ready.update], [values[register] for register in ready.keep], error)


def make_ready(
    plan: StepPlan,
    memory: int,
    place: tuple[tuple[int, ...], torch.dtype, torch.device],
    words: bool,
    entered: bool = False,
    following: StepPlan | None = None,
) -> Ready:
    """The work of a plan for states of one shape, dtype and device; its coefficients go to the device here. For `entered` and `following` see `Ready`."""
    rows: list[Row] = [
        *(stage.row for stage in plan.stages),
        plan.update,
        *plan.keep,
        *([] if plan.error is None else [plan.error]),
    ]
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
    later: tuple[Column, ...] = ()
    if following is not None:
        ahead = tuple((_seen(column, passed), value) for column, value in following.stages[0].row)
        later = tuple(Column("y", z.number) for z in _needed_again(following))
    if not all(isinstance(value, float) for row in (*rows, ahead) for _, value in row):
        raise IncompatibleError(
            "compile='step' serves steps whose coefficients are numbers, not those of phase space; leave compile out"
        )
    parts = segments(
        tuple(tuple(column for column, _ in row) for row in rows),
        tuple(stage.row == ((STATE, 1.0),) for stage in plan.stages),
        memory,
        plan.error is not None,
        words,
        tuple(passed),
        entered,
        None if following is None else tuple(column for column, _ in ahead),
        later,
    )
    if following is not None:
        rows.append(ahead)
    numbered: dict[Column, int] = {STATE: 0}

    def register(column: Column) -> int:
        return numbered.setdefault(column, len(numbered))

    def drawn(column: Column) -> tuple[Slot, str, int]:
        owner = following if column.kind == "y" and following is not None else plan
        return owner.slots[column.number], owner.clock, register(column)

    before = tuple(register(Column("m", i)) for i in range(memory))
    shape, dtype, device = place
    work = []
    for number, part in enumerate(parts):
        values = [float(value) for row in part.rows for _, value in rows[row]]  # type: ignore[arg-type]  # checked above
        stage = plan.stages[number] if number < len(plan.stages) else None
        at = STATE if stage is None or stage.row == ((STATE, 1.0),) else Column("X", number)
        work.append(
            Work(
                _kernel(part.text, shape, dtype, device) if part.text else None,
                torch.tensor(values or [0.0], dtype=torch.promote_types(dtype, torch.float32)).to(
                    device, non_blocking=True
                ),
                tuple(map(drawn, part.draws)),
                tuple(register(column) for column in part.reads),
                tuple(
                    (register(column), None if buffer is None else register(buffer))
                    for column, buffer in part.outputs
                ),
                tuple(register(column) for column in part.frees),
                None if stage is None else (stage, register(at), register(Column("E", number))),
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
