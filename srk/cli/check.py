"""`srk check`: the order conditions of a tableau in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def check(
    file: Annotated[
        Path,
        typer.Argument(help="TOML file with the tableau; its fields: StochasticTableau.from_dict."),
    ],
) -> None:
    """Check the order conditions of a tableau.

    The exit status is 1 if they do not support the orders that it declares.
    """
    from srk.tableaus import StochasticTableau, check_tableau, require_order

    tableau = StochasticTableau.from_toml(file)
    report = check_tableau(tableau)
    # Text: a condition may hold "[", which rich takes for markup in a str.
    Console(soft_wrap=True).print(Text(repr(report)))
    require_order(tableau)  # raises what is wrong, which is then the message
