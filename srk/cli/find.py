"""`srk find`: a sampler under the name that it has elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

OPTIONS = ("solver", "grid", "eta")
"""Keywords of `srk.solve` that are options of `srk sample` too."""


def find(
    name: Annotated[
        str, typer.Argument(help="As in diffusers, A1111 or ComfyUI: 'DPM++ 2M Karras'.")
    ],
) -> None:
    """Say which solver, grid and options a sampler of another program is here."""
    from srk.ecosystem.names import find as look_up

    found = look_up(name)
    keywords = ", ".join(f"{key}={value!r}" for key, value in found.items())
    lines = [f"{name} of {found.host} is here:", f"  srk.solve(process, score, {keywords}, ...)"]
    typed = [f"--{key} {value}" for key, value in found.items() if key in OPTIONS]
    if all(key in OPTIONS and isinstance(value, str | float) for key, value in found.items()):
        lines.append(f"  srk sample {' '.join(typed)} ...")
    if found.note:
        lines.append(found.note)
    Console(soft_wrap=True, highlight=False).print(Text("\n".join(lines)))
