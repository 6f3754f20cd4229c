"""The runs of a comparison: read from a file, continued, written and announced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srk._progress import progress_bar
from srk.analysis.comparison import Comparison, Point
from srk.errors import ArgumentError

FLOORS = 4
"""Sets of exact samples for the floor, a repeat."""


def resumed(
    path: str | os.PathLike[str] | None, settings: Mapping[str, Any]
) -> tuple[list[Point], list[dict[str, float]]]:
    if path is None or not Path(path).exists():
        return [], []
    try:
        earlier = Comparison.from_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"{os.fspath(path)!r} is not the JSON of a comparison ({error}); remove it or "
            "name another file"
        ) from error
    # More solvers, budgets or repeats than last time are welcome; everything else must agree
    differ = [k for k, v in settings.items() if k != "solvers" and earlier.settings.get(k) != v]
    known = {entry.partition(": ")[0]: entry for entry in earlier.settings.get("solvers", [])}
    differ += [
        f"solver {e.partition(': ')[0]}"
        for e in settings["solvers"]
        if known.get(e.partition(": ")[0], e) != e
    ]
    if differ:
        raise ArgumentError(
            f"{os.fspath(path)!r} holds another comparison (other {', '.join(differ)}); "
            "remove it or name another file"
        )
    labels = {entry.partition(": ")[0] for entry in settings["solvers"]}
    return [point for point in earlier.points if point.solver in labels], list(earlier.floors)


def write(path: str | os.PathLike[str] | None, result: Comparison) -> None:
    """Write the JSON whole or not at all, so that a run stopped at any time can be resumed."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    partial.write_text(result.to_json(), encoding="utf-8")
    partial.replace(target)


@contextmanager
def bar(show: bool, total: int) -> Iterator[Callable[[str, bool], None]]:
    """A progress bar; the function it gives announces a run (or one made earlier)."""
    if not show:
        yield lambda what, made: None
        return
    with progress_bar("", total) as advance:
        started = False

        def tick(what: str, made: bool) -> None:
            nonlocal started
            advance(int(started), description=what)
            started = True

        yield tick
