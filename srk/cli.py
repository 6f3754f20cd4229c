"""The command line: `srk solvers` and its siblings print what is registered, `srk demo` runs the library on real data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from srk._version import __version__
from srk.errors import SRKError

if TYPE_CHECKING:
    from srk.registry import Registry

WORDS = 20  # a column with a cell longer than this holds words, which wrap; any other holds names and numbers, which do not

app = typer.Typer(
    name="srk",
    help="Reverse diffusion processes: solvers, processes, tableaus, and a demo on real data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


@app.command()
def solvers() -> None:
    """List the solvers: cost, orders, eta, when to use."""
    from srk.integrators import SOLVERS

    Console().print(registry_lines(SOLVERS))


@app.command()
def processes() -> None:
    """List the forward processes."""
    from srk.processes import PROCESSES

    Console().print(registry_lines(PROCESSES))


@app.command()
def tableaus() -> None:
    """List the stochastic Runge-Kutta tableaus; each is also a solver."""
    from srk.tableaus import TABLEAUS

    Console().print(registry_lines(TABLEAUS))


@app.command()
def controllers() -> None:
    """List the step controllers: fixed grids and adaptive."""
    from srk.control import CONTROLLERS

    Console().print(registry_lines(CONTROLLERS))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the table.", file_okay=False)] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    nfe: Annotated[list[int] | None, typer.Option(help="Network evaluations, repeatable. Else 10, 20, 50.", min=1)] = None,
) -> None:
    """Sample handwritten digits with several solvers; print a table, write a picture (under two minutes, nothing downloaded)."""
    from srk.demo import main as run

    run(out=out, seed=seed, nfe=nfe or [10, 20, 50])


def registry_lines(registry: Registry[Any]) -> Group:
    """The registry for a terminal of any width: a line of short cells per entry, its words indented below."""
    table = [["name", *registry.columns], *registry.rows()]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    header, *rows = ([(cell, width) for cell, width in zip(row, widths, strict=True)] for row in table)

    def line(row: list[tuple[str, int]], style: str) -> Text:
        return Text("  ".join(cell.ljust(width) for cell, width in row if width <= WORDS).rstrip(), style)

    # Text, not str: a cell may hold "[0, 1]", which rich takes for markup in a str.
    lines: list[RenderableType] = [line(header, "bold")]
    for row in rows:
        lines.append(line(row, "cyan"))
        lines.extend(Padding(Text(cell), (0, 0, 0, 4)) for cell, width in row if width > WORDS and cell)
    return Group(*lines)


def main() -> None:
    """Entry point of the `srk` command: our own errors are a message and exit status 1, not a traceback."""
    try:
        app()
    except SRKError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
