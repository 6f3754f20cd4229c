"""`srk validate`: our solvers against torchsde's."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def validate(
    steps: Annotated[
        int, typer.Option(help="Steps of each run; --slopes has its own.", min=2)
    ] = 12,
    seed: Annotated[int, typer.Option(help="Seed of starts and paths.")] = 0,
    slopes: Annotated[
        bool,
        typer.Option(
            "--slopes", help="The strong orders of both instead, side by side on the same paths."
        ),
    ] = False,
) -> None:
    """Compare our solvers with those of torchsde on the same Brownian paths (needs torchsde).

    The exit status is 1 unless every step agrees to 1e-10.
    """
    from srk.analysis.slopes import EQUAL, TOLERANCE, torchsde_slopes
    from srk.analysis.validation import BOUND, torchsde_agreement

    console = Console()
    with console.status("running torchsde and srk on the same paths") as status:
        if slopes:
            orders = torchsde_slopes(
                seed=seed,
                watch=lambda row: status.update(f"{row.process}, {row.frame}, {row.method}"),
            )
        else:
            agreement = torchsde_agreement(
                steps=steps,
                seed=seed,
                watch=lambda row: status.update(
                    f"{row.process}, {row.frame}, {row.dimension}-D, {row.grid}"
                ),
            )
    if slopes:
        console.print(
            _table(
                f"strong orders of torchsde {orders.version} and of srk on the same paths",
                *orders.cells(),
                words=3,
            )
        )
        console.print(
            f"largest difference {max(row.difference for row in orders.rows):.1e}; bounds "
            f"{EQUAL:g}, and {TOLERANCE:g} of the declared order"
        )
        if not orders.success:
            raise typer.Exit(1)
        return
    title = (
        f"largest relative difference to torchsde {agreement.version} over all steps of "
        f"{len(agreement.rows)} runs"
    )
    console.print(_table(title, *agreement.cells(), words=2))
    worst = agreement.worst
    place = (
        f"{worst.method} and our {worst.ours}, {worst.process}, {worst.frame}, {worst.dimension}-D"
    )
    console.print(f"worst {worst.difference:.1e} ({place}); bound {BOUND:g}")
    if not agreement.success:
        raise typer.Exit(1)


def _table(title: str, header: list[str], body: list[list[str]], words: int) -> Table:
    """A table whose first `words` columns are words and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < words else "right")
    for row in body:
        table.add_row(
            *(Text(cell) for cell in row)
        )  # Text: a cell may hold "[0, 1]", which rich takes for markup in a str
    return table
