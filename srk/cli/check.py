"""`srk check`: the order conditions of a tableau, in a file or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def check(
    tableau: Annotated[
        str,
        typer.Argument(
            help="A TOML file with the fields of StochasticTableau.from_dict, or a name of "
            "`srk tableaus`.",
            metavar="FILE|NAME",
        ),
    ],
) -> None:
    """Check the order conditions of a tableau.

    The exit status is 1 if they do not support the orders that it declares.
    """
    from srk.tableaus import TABLEAUS, StochasticTableau, check_tableau, require_order

    file = Path(tableau)
    named = tableau in TABLEAUS or not (file.suffix or file.exists())
    found = TABLEAUS[tableau] if named else StochasticTableau.from_toml(file)
    report = check_tableau(found)
    # Text: a condition may hold "[", which rich takes for markup in a str.
    Console(soft_wrap=True).print(Text(repr(report)))
    require_order(found)  # raises what is wrong, which is then the message
