"""What a tableau must look like before its order can be asked.

Finite entries, shapes that fit, explicit stages.
"""

from __future__ import annotations

from srk.errors import ArgumentError, ArgumentTypeError, TableauError
from srk.tableaus.entries import check_entries
from srk.tableaus.fields import TableauFields

__all__ = ["check_shape"]

_PER_NODE = "one weight per node of g, len(c1)"


def check_shape(tableau: TableauFields) -> None:
    """Refuse, by where it stands, what no tableau can be made of.

    Raises:
        TableauError: an entry that is not finite or not a fraction, shapes that do not fit each
            other, an implicit stage.
        ArgumentError: the name is empty.
        ArgumentTypeError: an entry that is not a number, a text that is not a string.
    """
    for text in ("name", "reference", "advice"):
        if not isinstance(getattr(tableau, text), str):
            raise ArgumentTypeError(f"{text} must be a string, not {getattr(tableau, text)!r}")
    if not tableau.name:
        raise ArgumentError("a tableau needs a name: a non-empty string")
    for field in ("alpha", "c", "c1", "bw", "bk", "alpha_hat", "bw_error", "bk_error"):
        if getattr(tableau, field) is not None:
            check_entries(getattr(tableau, field), field, 1)
    for field in ("A", "w", "k"):
        check_entries(getattr(tableau, field), field, 2)
    for field in ("strong_order", "weak_order"):
        check_entries(getattr(tableau, field), field)
        if getattr(tableau, field) < 0:
            raise TableauError(
                f"{field} is {getattr(tableau, field):g}: an order is not negative (0: "
                "nothing is claimed)"
            )
    _check_lengths(tableau)
    _check_explicit(tableau)
    if (tableau.bw_error is None) != (tableau.bk_error is None):
        raise TableauError(
            f"tableau {tableau.name!r}: give bw_error and bk_error together, or neither"
        )


def _check_lengths(tableau: TableauFields) -> None:
    s, m = len(tableau.alpha), len(tableau.c1)
    if s == 0 or m == 0:
        raise TableauError(
            f"tableau {tableau.name!r} has {s} stages (len(alpha)) and {m} nodes of g "
            "(len(c1)): it needs at least one of each"
        )
    for field, length, why in (
        ("c", s, "one abscissa per stage"),
        ("bw", m, _PER_NODE),
        ("bk", m, _PER_NODE),
        ("alpha_hat", s, "one weight per stage"),
        ("bw_error", m, _PER_NODE),
        ("bk_error", m, _PER_NODE),
    ):
        value = getattr(tableau, field)
        if value is not None and len(value) != length:
            raise TableauError(
                f"tableau {tableau.name!r}: {field} has {len(value)} entries, it needs "
                f"{length} ({why})"
            )
    for field, width in (("A", s), ("w", m), ("k", m)):
        rows = getattr(tableau, field)
        if len(rows) != s or any(len(row) != width for row in rows):
            found = f"{len(rows)} rows of lengths {[len(row) for row in rows]}"
            raise TableauError(
                f"tableau {tableau.name!r}: {field} has {found}, it needs {s} rows (stages) "
                f"of {width} entries"
            )


def _check_explicit(tableau: TableauFields) -> None:
    for i, row in enumerate(tableau.A):
        for j, weight in enumerate(row[i:], start=i):
            if weight != 0:
                raise TableauError(
                    f"tableau {tableau.name!r} is implicit: A[{i}][{j}] = {weight} although "
                    f"stage {i} may only use earlier stages; "
                    "srk runs explicit tableaus, A strictly lower triangular (sort the "
                    "stages, or check for a transposed A)"
                )
