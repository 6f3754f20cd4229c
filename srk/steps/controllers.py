"""The names of step controllers, and what a user may write for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srk._checks import shown
from srk.errors import ArgumentTypeError
from srk.registry import Registry
from srk.steps.base import StepController
from srk.steps.grids import Times


def _what(name: str, controller: type[StepController]) -> str:
    """The first sentence of the docstring, without the name."""
    first = (controller.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(first.split()).split(": ", 1)[-1]


CONTROLLERS: Registry[type[StepController]] = Registry("controller", {"what": _what})


def register_controller(controller: Any, name: str | None = None) -> Any:
    """Make a controller class usable by name in `srk.solve(grid=...)`; a class decorator too.

    Raises:
        DuplicateNameError: the name is taken.
        ArgumentTypeError: not a subclass of `StepController`.
    """
    if not (isinstance(controller, type) and issubclass(controller, StepController)):
        raise ArgumentTypeError(
            f"a controller is a subclass of srk.StepController, not {shown(controller)}"
        )
    CONTROLLERS.register(name or controller.name, controller)
    return controller


def as_grid(grid: Any) -> Any:
    """A controller from what a user writes: a registered name, a list of times, or a
    `StepController`.
    """
    if isinstance(grid, StepController):
        return grid
    if isinstance(grid, str):
        return CONTROLLERS[grid]()
    given = grid.tolist() if hasattr(grid, "tolist") else grid
    if isinstance(given, Sequence) and not isinstance(given, bytes):
        return Times(given)
    raise ArgumentTypeError(
        f"a grid is a name, a decreasing list of times or an srk.StepController, not {shown(grid)}"
    )
