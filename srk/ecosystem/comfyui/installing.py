"""Puts the custom node into a ComfyUI."""

from __future__ import annotations

import shutil
from pathlib import Path

from srk.errors import ArgumentError

#: The file that ComfyUI loads.
NODE = Path(__file__).parent / "custom_nodes" / "srk_samplers.py"


def install(comfyui: str | Path) -> Path:
    """Copy the custom node into a ComfyUI; from a shell: `python -m srk.ecosystem.comfyui PATH`.

    Arguments:
        comfyui: the folder of ComfyUI, which has a folder `custom_nodes`.

    Returns:
        The file written. To uninstall, delete it.

    Raises:
        ArgumentError: there is no folder `custom_nodes` in `comfyui`.
    """
    folder = Path(comfyui) / "custom_nodes"
    if not folder.is_dir():
        raise ArgumentError(
            f"{str(comfyui)!r} has no folder 'custom_nodes', so it is not a ComfyUI; "
            "give the folder in which ComfyUI's main.py stands"
        )
    return Path(shutil.copyfile(NODE, folder / NODE.name))
