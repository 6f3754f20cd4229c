"""Progress bars: drawn on a terminal, silent elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from srk._progress import progress_bar


@pytest.mark.parametrize(("terminal", "show"), [(True, True), (True, False), (False, True)])
def test_a_bar_is_drawn_only_where_somebody_looks(terminal: bool, show: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with progress_bar(
        "solve", 3, columns=("NFE {task.fields[nfe]}",), show=show, console=console
    ) as advance:
        advance(nfe=7)
        advance(by=2, description="ends", nfe=9)
    assert ("NFE 9" in out.getvalue()) == (terminal and show)
    assert bool(out.getvalue()) == (terminal and show)
