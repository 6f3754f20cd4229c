"""What all plots share.

Matplotlib on demand, one style, colours that colour-blind readers can tell apart, axes of work and
precision, floors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from srk.errors import MissingExtraError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's eight colours; yellow last, for it is faint on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": f"cycler('color', {list(PALETTE)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "errorbar.capsize": 2.5,
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
    "savefig.dpi": 130,
}
"""Settings of matplotlib for every figure of the library, its documentation and its examples."""

FLOOR = "exact samples"
"""Label of a floor."""


def pyplot(what: str) -> Any:
    """`matplotlib.pyplot`, or `MissingExtraError` that says `what` needs it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError(what, "matplotlib", "plot") from None
    return plt


@contextmanager
def house_style(what: str) -> Iterator[Any]:
    """`matplotlib.pyplot` in the style `STYLE`; the settings are put back at the end.

    Arguments:
        what: what needs matplotlib, for the message where it is missing.

    Raises:
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> with house_style("this example") as plt:
        ...     figure, axis = plt.subplots()
        >>> axis.spines["top"].get_visible()
        False
        >>> plt.close(figure)
    """
    plt = pyplot(what)
    with plt.rc_context(STYLE):
        yield plt


def work_axes(axis: Any, work: Sequence[int], label: str = "network calls (NFE)") -> None:
    """Logarithmic axes of error over work, with a tick at every number of `work`.

    Examples:
        >>> with house_style("this example") as plt:
        ...     figure, axis = plt.subplots()
        ...     work_axes(axis, [8, 16])
        >>> axis.get_xscale(), [tick.get_text() for tick in axis.get_xticklabels()]
        ('log', ['8', '16'])
        >>> plt.close(figure)
    """
    axis.set(xscale="log", yscale="log", xlabel=label)
    axis.set_xticks(work, [str(n) for n in work])
    axis.xaxis.minorticks_off()


def draw_floor(axis: Any, level: float, label: str = FLOOR) -> None:
    """A dotted line at the error that exact samples have.

    Below it a plot says nothing about solvers.
    """
    axis.axhline(level, color="0.35", linewidth=1.0, linestyle=":", label=label)
