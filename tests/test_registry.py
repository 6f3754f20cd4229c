"""Registries: readable, mapping-like, closed to duplicates."""

from __future__ import annotations

import pytest

import srk
from srk.registry import Registry


def test_mapping_and_table() -> None:
    registry: Registry[int] = Registry("box", {"twice": lambda name, value: str(2 * value)})
    registry.register("a", 1)
    registry.register("long name", 2)
    assert dict(registry) == {"a": 1, "long name": 2} and "a" in registry and len(registry) == 2
    assert repr(registry).splitlines() == [
        "2 boxs",
        "name       twice",
        "a          2",
        "long name  4",
    ]
    with pytest.raises(
        srk.errors.DuplicateNameError, match="a box named 'a' is registered already"
    ):
        registry.register("a", 3)
    with pytest.raises(KeyError, match="there is no box named 'b'"):
        registry["b"]
    with pytest.raises(TypeError, match="non-empty string"):
        registry.register("", 3)


@pytest.mark.parametrize(
    "call", [srk.processes, srk.solvers, srk.tableaus, srk.controllers, srk.noise]
)
def test_public_tables(call: object) -> None:
    registry = call()  # type: ignore[operator]
    assert isinstance(registry, Registry) and len(registry) >= 1
    lines = repr(registry).splitlines()
    assert len(lines) == len(registry) + 2


def test_every_solver_says_what_it_is() -> None:
    for name, solver in srk.solvers().items():
        assert solver.advice and solver.reference, name
        assert solver.evaluations_per_step >= 1
        assert type(solver).__doc__


@pytest.mark.usefixtures("registries_restored")
def test_a_tableau_is_a_solver_at_once_and_names_are_unique() -> None:
    tableau = srk.StochasticTableau.from_wh(
        "my-euler", alpha=[1], A=[[0]], c=[0], w=[0], k=[0], strong_order=1, weak_order=1
    )
    srk.register_tableau(tableau)
    assert "my-euler" in srk.solvers() and "my-euler" in srk.tableaus()
    with pytest.raises(srk.errors.DuplicateNameError):
        srk.register_tableau(tableau)
    with pytest.raises(
        srk.errors.DuplicateNameError, match="a solver named 'ddpm' is registered already"
    ):
        srk.register_tableau(tableau, "ddpm")
    with pytest.raises(srk.errors.DuplicateNameError):
        srk.register_solver(srk.integrators.DDPM())
    with pytest.raises(TypeError, match=r"a solver is an srk\.Integrator"):
        srk.register_solver(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a controller is a subclass"):
        srk.register_controller(object())
