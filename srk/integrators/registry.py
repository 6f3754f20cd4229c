"""The registry of solvers, and the decorator that enters one."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from srk.errors import ArgumentTypeError
from srk.integrators.base import Integrator
from srk.registry import Registry


@cache
def _measured() -> dict[str, dict[str, float]]:
    """Orders as benchmarks/orders.py measured them, by solver."""
    values: dict[str, dict[str, float]] = json.loads(
        files(__package__).joinpath("measured.json").read_text(encoding="utf-8")
    )
    return values


def _order(name: str, kind: str, value: float | None) -> str:
    """The declared order, with the measured one behind it."""
    if value is None:
        return "-"
    measured = _measured().get(name, {}).get(kind)
    return f"{value:g}" + ("" if measured is None else f" ({measured:.2f})")


def _eta(solver: Integrator) -> str:
    low, high = solver.eta_range
    return (
        f"{low:g}" if low == high else f"{low:g}.." + ("" if high == float("inf") else f"{high:g}")
    )


SOLVERS: Registry[Integrator] = Registry(
    "solver",
    listed_by="srk.solvers()",
    columns={
        "NFE/step": lambda name, solver: str(solver.evaluations_per_step),
        "strong": lambda name, solver: _order(name, "strong", solver.strong_order),
        "weak": lambda name, solver: _order(name, "weak", solver.weak_order),
        "eta": lambda name, solver: _eta(solver),
        "when": lambda name, solver: solver.advice,
    },
)


def register_solver(solver: Integrator | type[Integrator], name: str | None = None) -> Any:
    """Make a solver usable by name in `srk.solve`.

    Arguments:
        solver: an `Integrator`, or a class whose instance without arguments is the default; may be
            used as a class decorator.
        name: the name; default is the integrator's own.

    Returns:
        `solver`, unchanged.

    Raises:
        DuplicateNameError: the name is taken.
        ArgumentTypeError: `solver` is not an integrator.
    """
    instance = solver() if isinstance(solver, type) and issubclass(solver, Integrator) else solver
    if not isinstance(instance, Integrator):
        raise ArgumentTypeError(
            f"a solver is an srk.Integrator (an instance or a class), not {solver!r}; "
            "subclass srk.Integrator and write plan(step)"
        )
    SOLVERS.register(name or instance.name, instance)
    return solver
