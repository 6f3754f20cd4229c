"""The noise weights of a tableau out of the two shorter forms of the literature.

Roessler's SRA form, and W and H for constant g.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from srk.errors import TableauError
from srk.tableaus.entries import Entry, add_once, check_entries, to_matrix, to_vector

__all__ = ["HALF", "sra_weights", "wh_weights"]

HALF = Fraction(1, 2)


def sra_weights(
    name: str, B: Sequence[Sequence[Entry]], beta1: Sequence[Entry], beta2: Sequence[Entry]
) -> dict[str, Any]:
    """Field name -> noise weights of a tableau that is written with `I10/h = W/2 + H`.

    See `StochasticTableau.from_sra`.
    """
    matrix, first, second = to_matrix(B), to_vector(beta1), to_vector(beta2)
    check_entries(matrix, "B", 2)
    check_entries(first, "beta1", 1)
    check_entries(second, "beta2", 1)
    if len(first) != len(second):
        raise TableauError(
            f"tableau {name!r}: beta1 has {len(first)} entries and beta2 {len(second)}; both "
            "need one per node of g, len(c1)"
        )
    halves = tuple(b * HALF for b in second)
    weights = {
        "w": tuple(tuple(b * HALF for b in row) for row in matrix),
        "k": matrix,
        "bw": tuple(add_once(b, half) for b, half in zip(first, halves, strict=True)),
        "bk": second,
    }
    embedded = {"bw_error": halves, "bk_error": second} if any(b != 0 for b in second) else {}
    return weights | embedded


def wh_weights(w: Sequence[Entry], k: Sequence[Entry]) -> dict[str, Any]:
    """Field name -> noise weights of a tableau that is written with W and H for constant g.

    See `StochasticTableau.from_wh`.
    """
    stage_w, stage_k = to_vector(w), to_vector(k)
    check_entries(stage_w, "w", 1)
    check_entries(stage_k, "k", 1)
    levy = int(any(x != 0 for x in stage_k))
    return {
        "w": tuple((x, 0) for x in stage_w),
        "k": tuple((x, 0) for x in stage_k),
        "c1": (0, 1),
        "bw": ("1/2", "1/2"),
        "bk": (levy, -levy),
        "bw_error": ("-1/2", "1/2"),
        "bk_error": (levy, -levy),
    }
