"""How much the gauge of the house methods matters: its variance on digits, and how it follows the noise on real networks.

    python benchmarks/gauge.py [--work ~/.cache/srk/networks]

Writes benchmarks/results/gauge.md. Some ten minutes on one core after `python benchmarks/networks.py`, whose fine solutions are used again, and whose packages are needed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import srk
from srk import data
from srk.analysis.metrics import sliced_w2
from srk.demo import digits
from srk.integrators import SRK2M, SRK2S
from srk.noise import BrownianNoise

sys.path.insert(0, str(Path(__file__).parent))

import networks

VARIANCES = (0.05, 0.1, 0.3, 0.5, 1.0)
BUDGETS = (8, 10, 20)
SAMPLES = 6000

BOUND = 2.0
LOCAL = (0.1, 0.3, 1.0, 2.0, 4.0, math.inf)
CALLS = (6, 10, 20)


def constant() -> Iterator[str]:
    """Sliced W2 to the digits for constant gauges."""
    images, process = digits(), srk.VP()
    score = srk.targets.Empirical(images).score(process)
    generator = torch.Generator().manual_seed(0)
    floors = [sliced_w2(images[torch.randint(len(images), (SAMPLES,), generator=generator)], images) for _ in range(5)]
    yield "## A constant gauge, on digits\n"
    yield "`srk2m`, VP, log-SNR grid, exact score: sliced W2 to the data by the gauge variance v."
    yield f"{SAMPLES} samples, one seed; exact samples: {sum(floors) / len(floors):.4f}.\n"
    yield "| v | " + " | ".join(f"NFE {nfe}" for nfe in BUDGETS) + " |"
    yield "| ---: |" + " ---: |" * len(BUDGETS)
    for v in VARIANCES:
        cells = [sliced_w2(srk.solve(process, score, SRK2M(data_variance=v), shape=SAMPLES, nfe=nfe, seed=0).x, images) for nfe in BUDGETS]
        yield f"| {v:g} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |"


def following(problem: networks.Problem, work: Path) -> Iterator[str]:
    """Errors on a network, path and law, by `local` under the bound 2, on the paths of the clock of that bound."""
    fine = networks.run(problem, networks.FINE["gauge(2,1)"], networks.FINE_NFE, work)
    features = networks.features(problem.image(fine))

    def cell(solver: srk.Integrator, nfe: int) -> str:
        parts = []
        for first in range(0, problem.samples, networks.CHUNK):
            noise = BrownianNoise(networks.SEED, levels=5, first_index=first)
            count = min(networks.CHUNK, problem.samples - first)
            parts.append(srk.solve(problem.process, problem.prediction, solver, shape=count, nfe=nfe, noise=noise).x)
        x = torch.cat(parts)
        law, error = networks.law_error(networks.features(problem.image(x)), features)
        return f"{networks.path_error(x, fine):.3f}, {law:.3f} ± {error:.3f}"

    yield f"\n## Following the noise: {problem.name}\n"
    yield f"{problem.samples} samples, log-SNR grid; path error, error in law as in [the comparison of networks](networks.md). inf is the constant gauge {BOUND:g}.\n"
    yield "| local | " + " | ".join(f"`srk2m`, matched, NFE {nfe}" for nfe in CALLS) + " | `srk2`, NFE 20 |"
    yield "| ---: |" + " ---: |" * (len(CALLS) + 1)
    for local in LOCAL:
        cells = [cell(SRK2M(data_variance=BOUND, local=local, weights="matched"), nfe) for nfe in CALLS]
        cells.append(cell(SRK2S(data_variance=BOUND, local=local), 20))
        yield f"| {local:g} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument(
        "--work", type=Path, default=data.cache_folder() / "networks", help="where benchmarks/networks.py keeps its samples"
    )
    args = parser.parse_args()
    lines = ["# The gauge\n", "Made by `python benchmarks/gauge.py` on a 2-core x86-64 cloud machine, CPU.\n"]
    with torch.inference_mode():
        for part in (constant(), *(following(make(args.samples), args.work) for make in networks.PROBLEMS.values())):
            for line in part:
                print(line, flush=True)
                lines.append(line)
    (Path(__file__).parent / "results" / "gauge.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
