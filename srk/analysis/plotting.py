"""What the plots of this room share: matplotlib on demand, and a palette that colour-blind readers can tell apart."""

from __future__ import annotations

from typing import Any

from srk.errors import MissingExtraError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's eight colours; yellow last, for it is faint on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def pyplot(what: str) -> Any:
    """`matplotlib.pyplot`, or `MissingExtraError` that says `what` needs it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError(what, "matplotlib", "plot") from None
    return plt
