"""`srk demo`: the library on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the picture and the table.", file_okay=False)
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    nfe: Annotated[
        list[int] | None,
        typer.Option(help="Network evaluations, repeatable. Else 10, 20, 50.", min=1),
    ] = None,
) -> None:
    """Sample handwritten digits with several solvers; print a table, write a picture (under two minutes, nothing downloaded)."""
    from srk.demo import main as run

    run(out=out, seed=seed, nfe=nfe or [10, 20, 50])
