"""The draft, and the executor against a literal reading of the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import srk
from srk._engine.eager import Executor
from srk.integrators import Column, LinearForm, Slot, Stage, Step, StepPlan
from srk.noise import NoiseSource
from srk.plans.plan import Row
from srk.processes.base import Level

LEVEL = Level(0.5, 1.0, 1.0, 0.0)


class Sequential(NoiseSource):
    name = "sequential"

    def __init__(self) -> None:
        self.values = torch.randn(
            64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None: ...

    def prior(self, out: torch.Tensor) -> None: ...

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        out.copy_(self.values[int(slot.start)])


def network(x: torch.Tensor, stage: Stage) -> torch.Tensor:
    return torch.tanh(x) + stage.level.t


def literal(
    plan: StepPlan, x: torch.Tensor, memory: list[torch.Tensor], noise: Sequential
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What a plan means, without sharing a line with the executor."""
    values = {Column("x"): x} | {Column("m", i): m for i, m in enumerate(memory)}
    for i, slot in enumerate(plan.slots):
        values[Column("z", i)] = noise.values[int(slot.start)]

    def total(row: Row) -> torch.Tensor:
        return sum((c * values[k] for k, c in row), torch.zeros_like(x))

    for i, stage in enumerate(plan.stages):
        values[Column("X", i)] = total(stage.row)
        values[Column("E", i)] = network(values[Column("X", i)], stage)
    return total(plan.update), [total(row) for row in plan.keep]


@st.composite
def plans(draw: st.DrawFn, memory: int) -> StepPlan:
    slots = draw(st.integers(0, 3))
    stages = draw(st.integers(1, 3))
    always = [
        Column("x"),
        *(Column("m", i) for i in range(memory)),
        *(Column("z", i) for i in range(slots)),
    ]

    def row(stage: int) -> Row:
        columns = always + [Column(kind, i) for i in range(stage) for kind in "XE"]
        chosen = draw(st.lists(st.sampled_from(columns), unique=True, max_size=len(columns)))
        return tuple((column, draw(st.sampled_from([1.0, 1.0, -0.5, 0.3]))) for column in chosen)

    rows = []
    for i in range(stages):
        # a stage whose input is the state itself has no column X (the draft never refers to it)
        r = row(i)
        rows.append(r if r != ((Column("x"), 1.0),) else ((Column("x"), 0.3),))
    keep = tuple(row(stages) for _ in range(draw(st.integers(0, 3))))
    numbers = draw(st.lists(st.integers(0, 63), min_size=slots, max_size=slots, unique=True))
    return StepPlan(
        LEVEL,
        LEVEL,
        tuple(Stage(LEVEL, r) for r in rows),
        row(stages),
        keep,
        tuple(range(len(keep))),
        tuple(Slot(float(n), float(n) + 1) for n in numbers),
    )


@given(st.data(), st.booleans())
def test_executor_is_a_literal_reading_of_the_plan(data: st.DataObject, reuse: bool) -> None:
    """Three random plans in a row, with buffers re-used or not.

    Equal to the literal meaning of the rows, to rounding.
    """
    noise = Sequential()
    executor = Executor(network, noise, reuse=reuse)
    x = torch.linspace(-1, 1, 3, dtype=torch.float64)
    memory: list[torch.Tensor] = []
    expected, expected_memory = x.clone(), []
    for _ in range(3):
        plan = data.draw(plans(len(memory)))
        expected, expected_memory = literal(plan, expected, expected_memory, noise)
        outcome = executor.run(plan, x, memory)
        x, memory = outcome.state, outcome.keep
        assert torch.allclose(x, expected, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(memory, expected_memory, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        pointers = [t.data_ptr() for t in [x, *memory]]
        assert len(set(pointers)) == len(pointers) or not reuse


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_step_keeps_the_dtype(dtype: torch.dtype) -> None:
    """The same plan in one dtype after another.

    In each to its own rounding, and no factor of one is left for the next.
    """
    row = ((Column("x"), 0.3), (Column("E", 0), -0.7))
    plan = StepPlan(
        LEVEL,
        LEVEL,
        (Stage(LEVEL, ((Column("x"), 0.9),)),),
        row,
        (((Column("E", 0), 1 / 3),),),
        (None,),
    )
    values = torch.linspace(-1, 1, 40, dtype=torch.float64)
    result = {}
    for each in (torch.float64, dtype):
        outcome = Executor(network, Sequential()).run(plan, values.to(each, copy=True), [])
        result[each] = outcome.state, *outcome.keep
        assert {tensor.dtype for tensor in result[each]} == {each}
    for ours, exact in zip(result[dtype], result[torch.float64], strict=True):
        assert torch.allclose(
            ours.double(), exact, rtol=0, atol=4 * torch.finfo(dtype).eps
        )  # four roundings of numbers below 1


def test_srk2m_needs_four_states() -> None:
    """Beside the state itself, a step of srk2m has at most four tensors of its size alive.

    Two kept, the draw, and the network's result.
    """
    from srk.sampling.planning import plan_grid

    process = srk.VP()
    alive: set[int] = set()

    def evaluate(x: torch.Tensor, stage: Stage) -> torch.Tensor:
        alive.add(x.data_ptr())
        return torch.zeros_like(x)

    class Watched(srk.noise.GeneratorNoise):
        def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
            alive.add(out.data_ptr())
            super().draw(slot, clock, out)

    noise = Watched(0)
    noise.start((4,), torch.float32, torch.device("cpu"))
    executor = Executor(evaluate, noise)
    x, memory = torch.zeros(4), []
    alive.add(x.data_ptr())
    for plan in plan_grid(process, srk.solvers()["srk2m"], torch.linspace(1.0, 0.1, 20).tolist()):
        outcome = executor.run(plan, x, memory)
        x, memory = outcome.state, outcome.keep
        alive |= {t.data_ptr() for t in (x, *memory)}
    assert len(alive) <= 4  # the state, two kept, the draw; the network's own result comes on top


def test_forms_are_linear() -> None:
    a, b = LinearForm({Column("x"): 1.0}), LinearForm({Column("E"): 2.0})
    assert (2 * (a + b) - a / 2).terms == {Column("x"): 1.5, Column("E"): 4.0}
    assert (a * 0).terms == {}
    assert (-a).terms == {Column("x"): -1.0}


@pytest.mark.parametrize("kernels", [["1", "t"], ["1", "exp"], ["exp", "1", "t"], ["1", "1"]])
def test_functionals_have_their_covariance(kernels: list[str]) -> None:
    """Cov(int k dB, int l dB) = int k l, and the draws are orthonormal in the space of W, H and
    fresh draws.
    """
    functions = {"1": np.ones_like, "t": lambda t: t, "exp": lambda t: np.exp(-t)}
    a, b = 0.5, 2.0
    step = Step(srk.VP(), srk.VP().level(1.0), srk.VP().level(0.5))
    draft = step.draft("test")
    forms = draft.functionals(a, b, [functions[k] for k in kernels])
    t = np.linspace(a, b, 200_001)
    for i, k in enumerate(kernels):
        for j, m in enumerate(kernels):
            ours = sum(
                value * forms[j].terms.get(column, 0.0) for column, value in forms[i].terms.items()
            )
            exact = np.trapezoid(functions[k](t) * functions[m](t), t)
            assert ours == pytest.approx(exact, rel=1e-9)
    plan = draft.finish(draft.evaluate(sum(forms, start=LinearForm({})), LEVEL).value)
    rows = [np.pad(slot.weights, (0, 5 - len(slot.weights))) for slot in plan.slots]
    assert np.allclose(np.array(rows) @ np.array(rows).T, np.eye(len(rows)), atol=1e-10)
    assert len(plan.slots) == len(set(kernels))


def test_orthonormal_functionals_are_unit_normals() -> None:
    """Independent and of variance 1 to rounding, also where the quadrature of a kernel is not.

    The first two span what the integrals span, in order.
    """
    step = Step(srk.VP(), srk.VP().level(1.0), srk.VP().level(0.5))
    draft = step.draft("test")
    kernels = [lambda t: 1.0 / (t - 0.49999), np.ones_like]
    units, forms = draft.orthonormal(0.5, 2.0, kernels), draft.functionals(0.5, 2.0, kernels)

    def vector(form: LinearForm) -> np.ndarray:
        weights = [
            (draft._slots[column.number].weights, form.number(column)) for column in form.terms
        ]
        return np.sum([np.pad(w, (0, 6 - len(w))) * c for w, c in weights], axis=0)

    u, f = np.array([vector(x) for x in units]), np.array([vector(x) for x in forms])
    assert np.allclose(u @ u.T, np.eye(2), atol=1e-14)
    assert (f @ u.T)[0, 1] == pytest.approx(0.0, abs=1e-12) and np.all(np.diag(f @ u.T) > 0.0)


def test_unused_draws_are_not_drawn() -> None:
    process = srk.VP()
    plan = srk.solvers()["ddpm"].plan_step(
        Step(process, process.level(1.0), process.level(0.5), eta=0.0)
    )
    assert plan.slots == ()
    assert math.isclose(
        sum(c for k, c in plan.update if k == Column("E")),
        process.level(0.5).alpha
        - process.level(1.0).alpha * process.level(0.5).sigma / process.level(1.0).sigma,
    )
