"""From noise to data: the reverse process of a mixture of three Gaussians, and what a network call
buys.

    python examples/quickstart.py --out quickstart.png

Draws paths of the reverse process between the distributions at its two ends, and prints the
Wasserstein-1 distance of the samples to the exact distribution for four solvers and three budgets
of network calls. A few seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import srk
from srk.analysis.plotting import PALETTE, house_style

SAMPLES = 20_000

process = srk.VP()  # dx = -beta(t)/2 x dt + sqrt(beta(t)) dW, t in [0.001, 1]
target = srk.targets.GaussianMixture(
    weights=[0.3, 0.5, 0.2], means=[[-1.0], [0.3], [1.2]], stds=[0.1, 0.05, 0.2]
)
score = target.score(process)  # exact; your network goes here


def distance(x: torch.Tensor) -> float:
    """Wasserstein-1 distance of the samples `x`, (n, 1), to the target."""
    quantiles = target.quantile((np.arange(len(x)) + 0.5) / len(x))
    return float((x[:, 0].double().sort().values - quantiles.double()).abs().mean())


def picture(path: Path) -> None:
    """Sixty paths of the reverse process.

    The exact distribution of the start and of the end at the sides, with histograms of the samples.
    """
    sol = srk.solve(
        process, score, "srk2m", shape=SAMPLES, steps=200, grid="uniform", seed=0, save="x"
    )
    assert sol.trajectory is not None
    x, grid = sol.trajectory.values[:, :, 0], np.linspace(-3, 3, 1201)
    start = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    end = np.gradient(target.cdf(grid).double().numpy(), grid)
    with house_style("examples/quickstart.py") as plt:
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(8.0, 3.2), sharey=True, width_ratios=(1, 5, 1)
        )
        middle.plot(sol.trajectory.times, x[:, :60], color=PALETTE[0], linewidth=0.5, alpha=0.6)
        middle.set(
            xlabel="t of the forward process",
            title="60 paths of the reverse process, from noise to data",
            xlim=(1, 0),
        )
        for axis, values, density, title in (
            (left, x[0], start, f"t = {process.t_max:g}"),
            (right, sol.x[:, 0], end, "samples"),
        ):
            axis.hist(
                values.numpy(),
                bins=120,
                range=(-3, 3),
                density=True,
                orientation="horizontal",
                color=PALETTE[5],
                label="samples",
            )
            axis.plot(density, grid, color=PALETTE[1], linewidth=1.0, label="exact distribution")
            axis.set(title=title, xticks=[], xlabel="density", ylim=(-3, 3))
        left.set_ylabel("x")
        left.invert_xaxis()
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.savefig(path)
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart.png"))
    args = parser.parse_args(argv)

    sol = srk.solve(process, score, solver="srk2", shape=SAMPLES, nfe=24, seed=0)
    print(sol, "\n")

    budgets = (6, 12, 24)
    print(
        f"Wasserstein-1 distance to the target, {SAMPLES} samples; exact samples have "
        f"{distance(target.sample(SAMPLES, seed=1)):.4f}"
    )
    print(f"{'solver':16s}" + "".join(f"{f'NFE {nfe}':>10s}" for nfe in budgets))
    for solver in ("euler-maruyama", "ddpm", "srk2", "srk2m"):
        errors = [
            distance(srk.solve(process, score, solver, shape=SAMPLES, nfe=nfe, seed=0).x)
            for nfe in budgets
        ]
        print(f"{solver:16s}" + "".join(f"{error:10.4f}" for error in errors))

    picture(args.out)
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    main()
