"""What all plots share: matplotlib on demand, one style, axes of work and precision, floors."""

from srk._plotting import (
    FLOOR,
    MARKERS,
    PALETTE,
    STYLE,
    draw_floor,
    house_style,
    pyplot,
    work_axes,
)

__all__ = [
    "FLOOR",
    "MARKERS",
    "PALETTE",
    "STYLE",
    "draw_floor",
    "house_style",
    "pyplot",
    "work_axes",
]
