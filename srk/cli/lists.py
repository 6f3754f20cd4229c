"""`srk solvers`, `processes`, `tableaus`, `controllers`: what is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from srk.registry import Registry

WORDS = 24
"""A column with a cell longer than this holds words, which wrap.

Any other holds names and numbers, which do not.
"""


def solvers() -> None:
    """List the solvers: cost, orders, eta, when to use."""
    from srk.integrators import SOLVERS

    Console().print(registry_lines(SOLVERS))


def processes() -> None:
    """List the forward processes."""
    from srk.processes import PROCESSES

    Console().print(registry_lines(PROCESSES))


def tableaus() -> None:
    """List the stochastic Runge-Kutta tableaus; each is also a solver."""
    from srk.tableaus import TABLEAUS

    Console().print(registry_lines(TABLEAUS))


def controllers() -> None:
    """List the step controllers: fixed grids and adaptive."""
    from srk.steps import CONTROLLERS

    Console().print(registry_lines(CONTROLLERS))


def registry_lines(registry: Registry[Any]) -> Group:
    """The registry for a terminal of any width.

    Each entry is a line of short cells, with its words indented below.
    """
    table = [["name", *registry.columns], *registry.rows()]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    header, *rows = (
        [(cell, width) for cell, width in zip(row, widths, strict=True)] for row in table
    )

    def line(row: list[tuple[str, int]], style: str) -> Text:
        return Text(
            "  ".join(cell.ljust(width) for cell, width in row if width <= WORDS).rstrip(), style
        )

    # Text, not str: a cell may hold "[0, 1]", which rich takes for markup in a str.
    lines: list[RenderableType] = [line(header, "bold")]
    for row in rows:
        lines.append(line(row, "cyan"))
        lines.extend(
            Padding(Text(cell), (0, 0, 0, 4)) for cell, width in row if width > WORDS and cell
        )
    return Group(*lines)
