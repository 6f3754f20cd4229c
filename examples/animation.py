"""The front page's animation: the reverse process turns noise into letters, as a stochastic
equation and as an ordinary one.

    python examples/animation.py --out docs/assets/reverse.webp

The data are uniform on the letters of a word, as a mixture of narrow Gaussians, so that the score
is exact. Both panels start from the same noise, coloured
from left to right: with eta = 0 (the probability-flow ODE) each colour keeps its place, with eta =
    1 (the reverse SDE) the noise of the path mixes them.
Writes an animated WebP, and its last frame as PNG for readers who prefer no motion. Under a minute
on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import srk
from srk._pictures import pillow
from srk.analysis.plotting import house_style

PROCESS = srk.VP()
INK = "#888888"  # legible on white and on black: the background is transparent


def letters(word: str, points: int, seed: int = 0) -> srk.targets.GaussianMixture:
    """A mixture of `points` Gaussians whose means are uniform inside the letters, four units
    wide.
    """
    from matplotlib.textpath import TextPath

    outline = TextPath((0, 0), word, size=1.0, prop={"weight": "bold"})
    low, high = outline.get_extents().min, outline.get_extents().max
    drawn = low + (high - low) * np.random.default_rng(seed).random((20 * points, 2))
    inside = drawn[outline.contains_points(drawn)][:points]
    means = (inside - (low + high) / 2) * 4.0 / (high - low)[0]
    return srk.targets.GaussianMixture(
        [1.0] * len(means), torch.from_numpy(means), [0.04] * len(means)
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reverse.webp"))
    parser.add_argument("--word", default="srk")
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--frames", type=int, default=36)
    args = parser.parse_args(argv)
    image = pillow("examples/animation.py")

    score = letters(args.word, 400).score(PROCESS)
    x = PROCESS.sample_prior((args.samples, 2), generator=torch.Generator().manual_seed(0))
    runs = {
        "probability-flow ODE, $\\eta = 0$": srk.solve(
            PROCESS, score, "srk2m", x_init=x, steps=args.frames, eta=0.0, save="x"
        ),
        "reverse SDE, $\\eta = 1$": srk.solve(
            PROCESS, score, "srk2m", x_init=x, steps=args.frames, eta=1.0, seed=1, save="x"
        ),
    }
    paths = [sol.trajectory.values.numpy() for sol in runs.values() if sol.trajectory is not None]

    frames = []
    with house_style("examples/animation.py") as plt:
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), dpi=100)
        clouds = []
        for axis, title in zip(axes, runs, strict=True):
            axis.set_title(title, color=INK, fontsize=11)
            axis.set(xlim=(-3, 3), ylim=(-2.2, 2.2), aspect="equal", facecolor="none")
            axis.set_axis_off()
            # the ends of the colour map would be faint on a dark or on a white page
            clouds.append(
                axis.scatter(
                    *x.T,
                    c=x[:, 0].argsort().argsort(),
                    cmap="viridis",
                    vmin=-0.35 * len(x),
                    vmax=1.15 * len(x),
                    s=8,
                    linewidths=0,
                )
            )
        figure.patch.set_alpha(0.0)
        for i in range(args.frames + 1):
            for cloud, path in zip(clouds, paths, strict=True):
                cloud.set_offsets(path[i])
            figure.canvas.draw()
            frames.append(image.fromarray(np.array(figure.canvas.buffer_rgba())))
        plt.close(figure)

    durations = [500, *[80] * (len(frames) - 2), 2500]  # milliseconds
    frames[0].save(
        args.out,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=30,
        alpha_quality=30,
        method=4,
    )
    still = args.out.with_suffix(".png")
    frames[-1].save(still, optimize=True)
    print(
        f"{args.out}: {len(frames)} frames, {args.out.stat().st_size / 1e3:.0f} kB; {still}: "
        f"{still.stat().st_size / 1e3:.0f} kB"
    )


if __name__ == "__main__":
    main()
