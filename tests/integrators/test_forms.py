"""Linear forms take what is linear and refuse the rest.

Plans are plans; kept rows fit half precision.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
import torch

import srk
from srk.integrators import Column, LinearForm, Step, StepPlan
from srk.plans.plan import Notes

X = LinearForm({Column("x"): 1.0})
WRONG = [3.0, 1, "a", None, [1.0], torch.ones(()), np.ones(2), True, 1j]


@pytest.mark.parametrize("other", WRONG, ids=repr)
def test_only_forms_and_zero_are_added(other: Any) -> None:
    for wrong in (
        lambda: X + other,
        lambda: other + X,
        lambda: X - other,
        lambda: other - X,
        lambda: sum([X, other]),
    ):
        with pytest.raises(TypeError, match=r"linear|unsupported operand|can only concatenate"):
            wrong()


@pytest.mark.parametrize(
    "scale", ["a", None, [1.0], torch.ones(()), np.ones(2), True, 1j, X], ids=repr
)
def test_forms_are_scaled_by_numbers(scale: Any) -> None:
    for wrong in (lambda: X * scale, lambda: scale * X, lambda: X / scale):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(srk.errors.ArgumentTypeError, match="scaled by a number"):
        X * scale


def test_what_is_linear_works() -> None:
    number = dict((sum([X, X]) - 0 - X * np.float32(0.5) + np.int64(2) * X / 4).terms)
    assert number == {Column("x"): 2.0}
    assert (np.float64(2.0) * X).terms == {Column("x"): 2.0}
    assert (0 - X).terms == {Column("x"): -1.0}
    with pytest.raises(srk.errors.ArgumentError, match="divided by zero"):
        X / 0.0
    assert isinstance(np.eye(2) * X, LinearForm)


@pytest.mark.parametrize("returned", [None, 3.0, X, "plan"], ids=repr)
def test_a_solver_whose_plan_returns_something_else_is_told_so(returned: Any) -> None:
    @attrs.frozen
    class Forgetful(srk.Integrator):
        name = "forgetful"

        def plan(self, step: Step) -> StepPlan:
            return returned  # type: ignore[no-any-return]

    with pytest.raises(srk.errors.ArgumentTypeError, match=r"returned .*`return draft\.finish"):
        srk.solve(srk.EDM(), lambda x, t: -x, Forgetful(), shape=(2, 1), steps=3)


def test_a_coefficient_that_is_not_finite_is_an_error_of_ours() -> None:
    step = Step(srk.VP(), srk.VP().level(1.0), srk.VP().level(0.5))
    draft = step.draft()
    draft.evaluate(draft.state, step.start)
    with pytest.raises(srk.errors.ArgumentError, match="overflows"):
        draft.finish(draft.state * math.inf)


def test_kept_rows_come_back_as_they_were() -> None:
    """What a step keeps is divided by a power of two, and `draft.memory` restores it."""
    step = Step(srk.VP(), srk.VP().level(1.0), srk.VP().level(0.5))
    draft = step.draft()
    node = draft.evaluate(draft.state, step.start)
    plan = draft.finish(draft.state, keep=[(node.value * 3e5 - node.x * 7.0, "a"), (node.x, "b")])
    assert plan.notes == ("a", "b") and isinstance(plan.notes, Notes)
    assert max(abs(value) for row in plan.keep for _, value in row) < 2.0
    after = attrs.evolve(step, memory=plan.notes).draft()
    assert after.memory(0).number(Column("m", 0)) * dict(plan.keep[0])[Column("E", 0)] == 3e5
    assert after.memory(1).number(Column("m", 1)) == 1.0
    assert plan.notes[:1].factors == plan.notes.factors[:1]


@pytest.mark.parametrize("process", ["edm", "flow", "sub-vp", "vp"])
@pytest.mark.parametrize("solver", list(srk.solvers()))
def test_no_kept_row_exceeds_half_precision(process: str, solver: str) -> None:
    forward, method = srk.process(process), srk.solvers()[solver]
    for eta in {method.default_eta, method.eta_range[0]}:
        method.check(forward, eta)
        for plan in srk.Sampler(
            forward, srk.Data(lambda x, t: x), method, steps=12, eta=eta
        ).plans():
            largest = max((abs(value) for row in plan.keep for _, value in row), default=0.0)
            assert largest < 2.0
