"""`srk find`: a sampler under the name that it has elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def find(
    name: Annotated[
        str, typer.Argument(help="As in diffusers, A1111 or ComfyUI: 'DPM++ 2M Karras'.")
    ],
) -> None:
    """Say which solver, grid and options a sampler of another program is here."""
    from srk.ecosystem.names import find as found

    Console(soft_wrap=True).print(Text(repr(found(name))))
