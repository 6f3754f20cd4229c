"""`srk cite`: BibTeX of what a method rests on."""

from __future__ import annotations

from typing import Annotated

import typer


def cite(
    names: Annotated[
        list[str], typer.Argument(help="Solvers, tableaus, processes, or srk itself.")
    ],
) -> None:
    """Print the BibTeX entries to cite for solvers, tableaus and processes."""
    from srk.citations import cite as entries

    unique = dict.fromkeys(entry for name in names for entry in entries(name).split("\n\n"))
    typer.echo("\n\n".join(unique))
