"""The executor with its arithmetic compiled: one kernel between two network calls, which draws the noise where it uses it if the source can."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import symbolic_trace

from srk.errors import IncompatibleError
from srk.executor import Columns, Executor, Outcome
from srk.integrators.plan import STATE, Column, Row, Slot, Stage, StepPlan
from srk.noise.base import NoiseSource
from srk.noise.counter import normals

UPDATE, ERROR = Column("update"), Column("error")


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
def segments(rows: tuple[Columns, ...], skipped: tuple[bool, ...], memory: int, error: bool, words: bool) -> tuple[Segment, ...]:
    """The segments of plans of one structure: one before each network call, and the last.

    Arguments:
        rows: the columns of each row: stages, update, kept rows, error.
        skipped: for each stage, whether its input is the state itself.
        memory: number of rows kept by the step before.
        error: whether the last row is an error estimate.
        words: whether the noise source gives bits, which the kernel turns into normals, rather than draws.
    """
    n = len(skipped)
    kept = len(rows) - n - 1 - error
    names = [*(Column("X", i) for i in range(n)), UPDATE, *(Column("keep", j) for j in range(kept)), *([ERROR] if error else [])]
    groups = [[] if skipped[i] else [i] for i in range(n)] + [list(range(n, len(rows)))]
    last = {Column("m", i): 0 for i in range(memory)} | {Column("X", i): i + 1 for i in range(n)}
    for s, group in enumerate(groups):
        for row in group:
            for column in rows[row]:
                last[column] = max(s, last.get(column, 0))
    last[STATE] = n
    known: set[Column] = set()  # draws made
    buffers = {STATE, *(Column("m", i) for i in range(memory))}  # columns that stand in buffers of ours
    made = []
    for s, group in enumerate(groups):
        reads = list(dict.fromkeys(column for row in group for column in rows[row]))
        draws = [column for column in reads if column.kind == "z" and column not in known]
        known |= set(draws)
        lines, count, targets = [], 0, [names[row] for row in group]
        if words:
            lines += [f"{_name(z)} = normals(w{z.number}, shape, dtype)" for z in draws]
            targets += [z for z in draws if last[z] > s]
            reads = [column for column in reads if column not in draws]
        else:
            buffers |= set(draws)
        for row in group:
            terms = [f"c[{count + k}] * {_name(column)}" for k, column in enumerate(rows[row])]
            count += len(terms)
            lines.append(f"{_name(names[row])} = {' + '.join(terms) or '0.0 * x0'}")
        lines += [f"out_{_name(target)}.copy_({_name(target)})" for target in targets]
        dying = [column for column in sorted(buffers) if last[column] <= s and (column != STATE or UPDATE in targets)]
        outputs: list[tuple[Column, Column | None]] = []
        spare = [column for column in dying if column != STATE]
        for target in targets:
            outputs.append((target, STATE if target == UPDATE else spare.pop(0) if spare else None))
        buffers = (buffers - set(dying)) | {target for target in targets if target.kind in ("X", "z")}
        arguments = [f"w{z.number}" for z in draws if words] + [_name(c) for c in reads] + [f"out_{_name(target)}" for target in targets]
        text = "\n    ".join([f"def segment({', '.join(['c', *arguments])}):", *lines]) + "\n" if group else ""
        made.append(Segment(text, tuple(group), tuple(draws), tuple(reads), tuple(outputs), tuple(spare)))
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
    """A segment made ready for one plan and place: registers are numbers."""

    kernel: Kernel | None
    numbers: Tensor | None
    draws: tuple[tuple[Slot, int], ...]
    reads: tuple[int, ...]
    outputs: tuple[tuple[int, int | None], ...]
    frees: tuple[int, ...]
    call: tuple[Stage, int, int] | None


class Ready(NamedTuple):
    """A plan made ready: its work, the number of registers, and where memory, new state, kept rows and error stand."""

    work: tuple[Work, ...]
    registers: int
    memory: tuple[int, ...]
    update: int
    keep: tuple[int, ...]
    error: int | None


class CompiledExecutor(Executor):
    """Runs plans with one compiled kernel between two network calls.

    Arguments:
        evaluate: (state, stage) -> what the network says.
        noise: a started noise source; if it has `words`, the kernels make normals of them.
        place: shape, dtype and device of the states.
    """

    def __init__(
        self, evaluate: Callable[[Tensor, Stage], Tensor], noise: NoiseSource, place: tuple[tuple[int, ...], torch.dtype, torch.device]
    ) -> None:
        super().__init__(evaluate, noise)
        self._place = place

    def walk(self, plan: StepPlan, state: Tensor, memory: list[Tensor]) -> Generator[tuple[Tensor, Stage], Tensor, Outcome]:
        source = self.noise.words
        key = (self._place, source is not None)
        ready = plan.programs.get(key)
        if ready is None:
            ready = plan.programs[key] = make_ready(plan, len(memory), self._place, source is not None)
        free = self._free
        values: list[Any] = [None] * ready.registers
        values[0] = state
        for register, tensor in zip(ready.memory, memory, strict=True):
            values[register] = tensor
        for kernel, numbers, draws, reads, outputs, frees, call in ready.work:
            if kernel is not None:
                arguments: list[Any] = [numbers]
                for slot, register in draws:
                    if source is not None:
                        arguments.append(source(slot, plan.clock))
                    else:
                        values[register] = free.pop() if free else torch.empty_like(state)
                        self.noise.draw(slot, plan.clock, values[register])
                arguments += [values[register] for register in reads]
                written = [
                    values[buffer] if buffer is not None else free.pop() if free else torch.empty_like(state) for _, buffer in outputs
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
        error = None if ready.error is None else values[ready.error]
        return Outcome(values[ready.update], [values[register] for register in ready.keep], error)


def make_ready(plan: StepPlan, memory: int, place: tuple[tuple[int, ...], torch.dtype, torch.device], words: bool) -> Ready:
    """The work of a plan for states of one shape, dtype and device; its coefficients go to the device here."""
    rows: list[Row] = [*(stage.row for stage in plan.stages), plan.update, *plan.keep, *([] if plan.error is None else [plan.error])]
    if not all(isinstance(value, float) for row in rows for _, value in row):
        raise IncompatibleError("compile='step' serves steps whose coefficients are numbers, not those of phase space; leave compile out")
    parts = segments(
        tuple(tuple(column for column, _ in row) for row in rows),
        tuple(stage.row == ((STATE, 1.0),) for stage in plan.stages),
        memory,
        plan.error is not None,
        words,
    )
    numbered: dict[Column, int] = {STATE: 0}

    def register(column: Column) -> int:
        return numbered.setdefault(column, len(numbered))

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
                torch.tensor(values or [0.0], dtype=torch.promote_types(dtype, torch.float32)).to(device, non_blocking=True),
                tuple((plan.slots[z.number], register(z)) for z in part.draws),
                tuple(register(column) for column in part.reads),
                tuple((register(column), None if buffer is None else register(buffer)) for column, buffer in part.outputs),
                tuple(register(column) for column in part.frees),
                None if stage is None else (stage, register(at), register(Column("E", number))),
            )
        )
    kept = tuple(register(Column("keep", j)) for j in range(len(plan.keep)))
    error = None if plan.error is None else register(ERROR)
    update = register(UPDATE)
    return Ready(tuple(work), len(numbered), before, update, kept, error)
