"""The command line.

Each command is in the file of its name; those that list what is registered are in `lists`.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from srk._version import __version__
from srk.cli import calibrate, check, cite, compare, demo, find, grid, lists, sample, validate
from srk.cli.command import as_command
from srk.errors import SRKError

app = typer.Typer(
    name="srk",
    help="Reverse diffusion processes. `srk demo` shows what it does, `srk sample` draws samples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


for command in (
    lists.solvers,
    lists.processes,
    lists.tableaus,
    lists.controllers,
    demo.demo,
    check.check,
    validate.validate,
    compare.compare,
    sample.sample,
    grid.grid,
    calibrate.calibrate,
    find.find,
    cite.cite,
):
    app.command()(as_command(command))


def main() -> None:
    """The `srk` command: our own errors are a message and exit status 1, not a traceback."""
    try:
        app()
    except SRKError as error:
        Console(stderr=True, soft_wrap=True).print(
            Text.assemble(("error: ", "bold red"), str(error))
        )
        raise SystemExit(1) from None
