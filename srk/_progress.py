"""Progress bars, drawn where somebody looks at a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    *,
    columns: tuple[str, ...] = (),
    show: bool = True,
    console: Console | None = None,
) -> Iterator[Callable[..., None]]:
    """A progress bar that disappears when it ends.

    Nothing at all is written where the output is neither a terminal nor a notebook.

    Arguments:
        description: the words before the bar.
        total: how many steps there are; None if that is not known.
        columns: further columns as templates of rich, such as "NFE {task.fields[nfe]}".
        show: False for no bar.
        console: where to draw; by default the standard output.

    Returns:
        A context manager whose value is a function: `advance(by=1, **fields)` moves the bar on and
        sets a new `description` or the fields that the columns name.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = console or Console()
    if not (show and (console.is_terminal or console.is_jupyter)):
        yield lambda by=1, **fields: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *map(TextColumn, columns),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        fields: dict[str, Any] = dict.fromkeys(
            (name for column in columns for name in _fields(column)), ""
        )
        task = bar.add_task(description, total=total, **fields)

        def advance(by: int = 1, **fields: Any) -> None:
            bar.update(task, advance=by, **fields)

        yield advance


def _fields(template: str) -> list[str]:
    """The names that a column's template takes from the fields of its task."""
    parts = template.split("task.fields[")[1:]
    return [part.split("]")[0] for part in parts]
