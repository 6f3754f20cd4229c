"""The picture of docs/product.md: how noisy each element is after each step, for every maker.

    python benchmarks/level_matrices.py

Writes docs/assets/levels.png. Two seconds; it needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import srk

ELEMENTS, STEPS = 10, 12
ASSETS = Path(__file__).parents[1] / "docs" / "assets"


def matrices() -> dict[str, srk.Levels]:
    """A matrix of each maker, by its call."""
    times = [1.0 - k / STEPS for k in range(STEPS + 1)]
    return {
        "prefix(fixed=3)": srk.Levels.prefix(times, ELEMENTS, 3),
        "pyramid(delay=2)": srk.Levels.pyramid(times, ELEMENTS, 2),
        "blocks(size=4)": srk.Levels.blocks(times, ELEMENTS, 4),
        "rolling(window=3)": srk.Levels.rolling(times, ELEMENTS, 3),
    }


def draw(path: Path) -> None:
    """All matrices side by side, one row for each step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, (name, levels) in zip(axes, matrices().items(), strict=True):
        image = axis.imshow(levels.schedule, aspect="auto", cmap="cividis", vmin=0.0, vmax=1.0)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("element", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("step", fontsize=8)
    bar = figure.colorbar(image, ax=axes, ticks=[0.0, 1.0], aspect=30, pad=0.01)
    bar.ax.set_yticklabels(["data", "noise"], fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=ASSETS / "levels.png")
    args = parser.parse_args(argv)
    draw(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
