"""Tables in plain text: cells in columns of one width each."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, two spaces between its columns.

    Examples:
        >>> aligned([["solver", "order"], ["srk1", "1"]])
        ['solver  order', 'srk1    1']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
