"""The registered processes by kind, for tests that go through all of them."""

from __future__ import annotations

import srk

BY_PARAMETERS = {"ouve"}
"""Processes that have no defaults; files of tests/processes test them."""


def made_processes() -> dict[str, srk.ForwardProcess]:
    """Every registered process that can be made without parameters."""
    return {name: srk.process(name) for name in srk.processes() if name not in BY_PARAMETERS}


def processes_with_denoiser() -> dict[str, srk.ForwardProcess]:
    """Those of them that see the data through a linear process; angles and rotations do not."""
    made = made_processes()
    return {name: process for name, process in made.items() if process.statistic is not None}
