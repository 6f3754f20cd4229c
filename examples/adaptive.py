"""Work and precision of adaptive steps against fixed grids, on a mixture whose exact score is
known.

    python examples/adaptive.py > benchmarks/results/adaptive.md

The target is a two-dimensional mixture of four Gaussians of unequal weights and widths. The error
is the Wasserstein-1 distance of the first coordinate to its exact distribution. About a minute on
one core.
"""

from __future__ import annotations

import numpy as np
import torch

import srk
from srk.steps import Adaptive

PROCESS = srk.VP()
TARGET = srk.targets.GaussianMixture(
    [0.4, 0.3, 0.2, 0.1],
    [[-1.0, 0.5], [0.0, -0.7], [0.6, 0.3], [1.1, -0.4]],
    [0.2, 0.1, 0.05, 0.02],
)
MARGINAL = srk.targets.GaussianMixture(
    [0.4, 0.3, 0.2, 0.1], [[-1.0], [0.0], [0.6], [1.1]], [0.2, 0.1, 0.05, 0.02]
)
SAMPLES = 20_000
QUANTILES = MARGINAL.quantile((np.arange(SAMPLES) + 0.5) / SAMPLES).double()


def error(x: torch.Tensor) -> float:
    """W1 of the first coordinate to its exact distribution."""
    return float((x[:, 0].double().sort().values - QUANTILES).abs().mean())


def main() -> None:
    score, options = TARGET.score(PROCESS), {"shape": SAMPLES, "noise": "brownian", "seed": 0}
    exact = TARGET.sample(SAMPLES, seed=1)
    print("# Adaptive steps against fixed grids\n")
    print(
        "Made by `python examples/adaptive.py`, CPU. Wasserstein-1 distance of the first "
        "coordinate to its exact distribution,"
    )
    print(
        f"{SAMPLES} samples, one seed; exact samples have {error(exact):.4f}. Rejected steps "
        "are paid for in NFE.\n"
    )
    for solver, tolerances in (("srk2", (0.3, 0.1, 0.03, 0.01)), ("sra1", (0.3, 0.1, 0.03))):
        print(f"## {solver}\n")
        print(
            "| rtol = atol | NFE | steps | rejected | W1 adaptive | W1 log-snr grid | W1 "
            "karras grid |"
        )
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for tol in tolerances:
            sol = srk.solve(PROCESS, score, solver, grid=Adaptive(rtol=tol, atol=tol), **options)
            fixed = [
                error(srk.solve(PROCESS, score, solver, nfe=sol.nfe, grid=grid, **options).x)
                for grid in ("log-snr", "karras")
            ]
            print(
                f"| {tol:g} | {sol.nfe} | {sol.steps} | {sol.rejected} | {error(sol.x):.4f} "
                f"| {fixed[0]:.4f} | {fixed[1]:.4f} |"
            )
        print()


if __name__ == "__main__":
    main()
