"""Solvers of the probability-flow ODE at equal numbers of network calls: which one `auto` takes at
eta = 0.

    python benchmarks/ode.py

Writes benchmarks/results/ode.md. Some ten minutes on one core; the networks need the packages that
benchmarks/networks.py names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import srk

sys.path.insert(0, str(Path(__file__).parent))

import networks
import quality

SOLVERS = ("auto", "srk2m", "dpmpp-2m", "dpmpp-3m", "unipc-2", "unipc-3", "deis-2", "deis-3")
TARGETS = (
    "Gaussian, 9 scales",
    "Gaussian, 16-D",
    "mixture, 1-D",
    "ring, 2-D",
    "mixture, 16-D",
    "digits, 64-D",
)
CALLS = (6, 8, 10, 14, 20, 30)
SAMPLES, SEED, FINE = 64, 5, 300


def on_targets() -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Errors on targets with an exact score, as benchmarks/quality.py measures them, log-SNR
    grid.
    """
    for name in TARGETS:
        target = quality.targets()[name]
        yield (
            name,
            {
                solver: [
                    max(target.error(solver, "log-snr", n, 0.0), target.resolution) for n in CALLS
                ]
                for solver in SOLVERS
            },
        )


def on_networks() -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Median distance to the fine solution from the same noise, in units of the spread of the
    samples.
    """
    for name, make in networks.PROBLEMS.items():
        problem = make(SAMPLES)

        def run(solver: str, nfe: int, problem: networks.Problem = problem) -> torch.Tensor:
            return srk.solve(
                problem.process,
                problem.prediction,
                solver,
                shape=SAMPLES,
                nfe=nfe,
                eta=0.0,
                seed=SEED,
            ).x

        fine = run("unipc-3", FINE)
        yield (
            name,
            {
                solver: [networks.path_error(run(solver, n), fine) for n in CALLS]
                for solver in SOLVERS
            },
        )


def main() -> None:
    header = "| | " + " | ".join(f"NFE {n}" for n in CALLS) + " |\n|---|" + "---:|" * len(CALLS)
    lines = [
        "# The probability-flow ODE\n",
        "Made by `python benchmarks/ode.py` on a 2-core x86-64 cloud machine, CPU. log-SNR "
        "grid, eta = 0.\n",
    ]
    lines.append(
        "Errors on targets with an exact score are those of [the quality "
        "benchmark](quality.md). On networks: median distance to a solution by `unipc-3` "
        "with"
    )
    lines.append(
        f"{FINE} calls from the same noise, {SAMPLES} samples, relative to the spread of the "
        "samples."
    )
    means = []
    with torch.inference_mode():
        for group in (on_targets(), on_networks()):
            logs: dict[str, list[np.ndarray]] = {solver: [] for solver in SOLVERS}
            for name, errors in group:
                lines += [f"\n## {name}\n", header]
                for solver, row in errors.items():
                    lines.append(
                        f"| `{solver}` | " + " | ".join(f"{error:.2g}" for error in row) + " |"
                    )
                    print(name, lines[-1], flush=True)
                    logs[solver].append(np.log(row))
            means.append(
                {
                    solver: np.exp(np.mean(rows, 0) - np.mean(logs["dpmpp-2m"], 0))
                    for solver, rows in logs.items()
                }
            )
    for title, mean in zip(
        (
            "Geometric mean over the exact targets, relative to `dpmpp-2m`",
            "Geometric mean over the two networks, relative to `dpmpp-2m`",
        ),
        means,
        strict=True,
    ):
        lines += [
            f"\n## {title}\n",
            header,
            *(
                f"| `{solver}` | " + " | ".join(f"{ratio:.2f}" for ratio in row) + " |"
                for solver, row in mean.items()
            ),
        ]
    (Path(__file__).parent / "results" / "ode.md").write_text(
        "\n".join(lines) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
