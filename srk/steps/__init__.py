"""Step controllers: where the steps go."""

from __future__ import annotations

from typing import Any

from srk.errors import ArgumentTypeError
from srk.registry import Registry
from srk.steps.adaptive import Adaptive
from srk.steps.base import Decision, Grid, Problem, Report, StepController
from srk.steps.budget import Budget, Criterion, Profile
from srk.steps.grids import Gauge, Karras, LogSNR, Quadratic, Times, Uniform, as_grid

CONTROLLERS: Registry[type[StepController]] = Registry(
    "controller",
    listed_by="srk.controllers()",
    columns={
        "what": lambda name, controller: (
            (controller.__doc__ or "").strip().splitlines()[0].split(": ", 1)[-1]
        )
    },
)


def register_controller(controller: Any, name: str | None = None) -> Any:
    """Make a controller class usable by name in `srk.solve(grid=...)` or `controller=...`; may be used as a class decorator.

    Raises:
        DuplicateNameError: the name is taken.
        ArgumentTypeError: not a subclass of `StepController`.
    """
    if not (isinstance(controller, type) and issubclass(controller, StepController)):
        raise ArgumentTypeError(
            f"a controller is a subclass of srk.StepController, not {controller!r}"
        )
    CONTROLLERS.register(name or controller.name, controller)
    return controller


for _controller in (LogSNR, Uniform, Karras, Quadratic, Gauge, Budget, Adaptive):
    register_controller(_controller)

__all__ = [
    "CONTROLLERS",
    "Adaptive",
    "Budget",
    "Criterion",
    "Decision",
    "Gauge",
    "Grid",
    "Karras",
    "LogSNR",
    "Problem",
    "Profile",
    "Quadratic",
    "Report",
    "StepController",
    "Times",
    "Uniform",
    "as_grid",
    "register_controller",
]
