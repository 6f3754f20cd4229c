"""`python -m srk.ecosystem.comfyui PATH` installs the custom node."""

from __future__ import annotations

import sys

from srk.ecosystem.comfyui.installing import install
from srk.errors import ArgumentError


def main(arguments: list[str]) -> int:
    """Install into the ComfyUI at the one path given; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m srk.ecosystem.comfyui PATH-OF-COMFYUI\n")
        return 2
    try:
        sys.stdout.write(f"wrote {install(arguments[0])}; start ComfyUI again\n")
    except ArgumentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
