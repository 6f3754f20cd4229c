"""Integrators: planners of steps, by family, and their registry."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from srk.errors import ArgumentTypeError, DuplicateNameError
from srk.integrators.accelerated import AcceleratedDDPM
from srk.integrators.ancestral import DDIM, DPM2Ancestral, DPMpp2SAncestral, EulerAncestral
from srk.integrators.auto import Auto
from srk.integrators.base import Integrator
from srk.integrators.ddram import DDRaM
from srk.integrators.deis import DEIS2, DEIS3
from srk.integrators.dpm_solver import DPMSolver2, DPMSolver3
from srk.integrators.dpmpp_sde import DPMppSDE
from srk.integrators.edm import DPM2, EDMDPM2, EDMEuler, EDMHeun, Heun
from srk.integrators.er_sde import ERSDE1, ERSDE2, ERSDE3
from srk.integrators.euler import Euler
from srk.integrators.exponential import DDPM, ETDSRA1
from srk.integrators.lms import LMS
from srk.integrators.multistep import DPMpp2M, DPMpp2MSDE, DPMpp3M, DPMpp3MSDE, DPMpp3MSDECorrected
from srk.integrators.on_schedule import OnSchedule
from srk.integrators.ou import WCW
from srk.integrators.phase import GDDIM, SSCS
from srk.integrators.raw import EulerMaruyama
from srk.integrators.sa import SASolver
from srk.integrators.seeds import SEEDS2, SEEDS3
from srk.integrators.srk import SRK1, SRK2M, SRK2S, SRK2MLocal
from srk.integrators.tableau import TableauSolver
from srk.integrators.unipc import UniPC2, UniPC3
from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeClock, GaugeStep
from srk.plans.matrix import Matrix
from srk.plans.plan import Column, Slot, Stage, StepPlan
from srk.plans.step import Draft, Node, Step
from srk.registry import Registry
from srk.tableaus import TABLEAUS, StochasticTableau
from srk.tableaus import register_tableau as _register_tableau


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
        solver: an `Integrator`, or a class whose instance without arguments is the default; may be used as a class decorator.
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
            f"a solver is an srk.Integrator (an instance or a class), not {solver!r}; subclass srk.Integrator and write plan(step)"
        )
    SOLVERS.register(name or instance.name, instance)
    return solver


def register_tableau(tableau: StochasticTableau, name: str | None = None) -> StochasticTableau:
    """Check a tableau, register it, and make it usable at once as a solver in the raw frame.

    Arguments:
        tableau: the `StochasticTableau`.
        name: the name; default is the tableau's own.

    Returns:
        The tableau as registered, renamed if `name` is given.

    Raises:
        TableauError: the coefficients do not support the declared order; the message lists the residuals.
        DuplicateNameError: a tableau or a solver of that name exists.
    """
    key = name or tableau.name
    if key in SOLVERS:
        raise DuplicateNameError(
            f"a solver named {key!r} is registered already ({SOLVERS[key]!r}); choose another name for the tableau"
        )
    tableau = _register_tableau(tableau, name)
    SOLVERS.register(key, TableauSolver(tableau))
    return tableau


def integrator(solver: str | Integrator | StochasticTableau) -> Integrator:
    """The integrator that a user means: a registered name, an `Integrator`, or a tableau (in the raw frame)."""
    if isinstance(solver, Integrator):
        return solver
    if isinstance(solver, StochasticTableau):
        return TableauSolver(solver)
    if isinstance(solver, str):
        return SOLVERS[solver]
    raise ArgumentTypeError(
        f"solver must be a name, an srk.Integrator or an srk.StochasticTableau, not {solver!r}"
    )


_solver: type[Integrator]
for _solver in (Auto, SRK2M, SRK2MLocal, SRK2S, SRK1, DDPM, EulerMaruyama, ETDSRA1, WCW):
    register_solver(_solver)
SOLVERS.register("srk2", SOLVERS["srk2s"])
# The k-diffusion family, under its own names
for _solver in (
    DPMpp2MSDE,
    DPMpp3MSDE,
    DPMpp3MSDECorrected,
    DPMppSDE,
    DPMpp2SAncestral,
    EulerAncestral,
    DPM2Ancestral,
    EDMHeun,
    EDMEuler,
    EDMDPM2,
    DDIM,
    DPMpp2M,
    DPMpp3M,
    DPMSolver2,
    DPMSolver3,
    Euler,
    Heun,
    DPM2,
    LMS,
):
    register_solver(_solver)
# Multistep and single-step methods of the papers and of diffusers
for _solver in (
    SASolver,
    SEEDS2,
    SEEDS3,
    ERSDE1,
    ERSDE2,
    ERSDE3,
    DDRaM,
    AcceleratedDDPM,
    UniPC2,
    UniPC3,
    DEIS2,
    DEIS3,
    GDDIM,
):
    register_solver(_solver)
for _name, _tableau in TABLEAUS.items():
    if _name not in SOLVERS:  # the tableau "euler" is the solver "euler-maruyama"
        SOLVERS.register(_name, TableauSolver(_tableau))

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS2",
    "DEIS3",
    "DPM2",
    "EDMDPM2",
    "ERSDE1",
    "ERSDE2",
    "ERSDE3",
    "ETDSRA1",
    "GDDIM",
    "LMS",
    "SEEDS2",
    "SEEDS3",
    "SOLVERS",
    "SRK1",
    "SRK2M",
    "SRK2S",
    "SSCS",
    "WCW",
    "AcceleratedDDPM",
    "Auto",
    "Column",
    "DDRaM",
    "DPM2Ancestral",
    "DPMSolver2",
    "DPMSolver3",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp2SAncestral",
    "DPMpp3M",
    "DPMpp3MSDE",
    "DPMpp3MSDECorrected",
    "DPMppSDE",
    "Draft",
    "EDMEuler",
    "EDMHeun",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "GaugeClock",
    "GaugeStep",
    "Heun",
    "Integrator",
    "LinearForm",
    "Matrix",
    "Node",
    "OnSchedule",
    "SASolver",
    "SRK2MLocal",
    "Slot",
    "Stage",
    "Step",
    "StepPlan",
    "TableauSolver",
    "UniPC2",
    "UniPC3",
    "integrator",
    "register_solver",
    "register_tableau",
]
