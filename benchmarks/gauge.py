"""How much the gauge of the house methods matters: its variance on digits, and how it follows the noise on exact targets and on real networks.

    python benchmarks/gauge.py digits targets networks [--work ~/.cache/srk/networks]

Writes benchmarks/results/gauge-digits.md and so on. A minute, three minutes, and some ten minutes on one core, these after
`python benchmarks/networks.py`, whose fine solutions are used again and whose packages are needed.
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
import quality

VARIANCES = (0.05, 0.1, 0.3, 0.5, 1.0)
BUDGETS = (8, 10, 20)
SAMPLES = 6000
SAMPLES_OF_NETWORKS = 192

BOUND = 2.0
LOCAL = (0.1, 0.3, 1.0, 2.0, 4.0, math.inf)
CALLS = (6, 10, 20)

TARGETS = (
    "Gaussian, unit",
    "Gaussian, 9 scales",
    "Gaussian, 16-D",
    "mixture, 1-D",
    "ring, 2-D",
    "mixture, 16-D",
    "mixture, 64-D",
    "digits, 64-D",
)
TARGET_CALLS = (6, 8, 10, 14, 20)


def constant() -> Iterator[str]:
    """Sliced W2 to the digits for constant gauges."""
    images, process = digits(), srk.VP()
    score = srk.targets.Empirical(images).score(process)
    generator = torch.Generator().manual_seed(0)
    floors = [sliced_w2(images[torch.randint(len(images), (SAMPLES,), generator=generator)], images) for _ in range(5)]
    yield "`srk2m`, VP, log-SNR grid, exact score: sliced W2 to the data by the gauge variance v."
    yield f"{SAMPLES} samples, one seed; exact samples: {sum(floors) / len(floors):.4f}.\n"
    yield "| v | " + " | ".join(f"NFE {nfe}" for nfe in BUDGETS) + " |"
    yield "| ---: |" + " ---: |" * len(BUDGETS)
    for v in VARIANCES:
        cells = [sliced_w2(srk.solve(process, score, SRK2M(data_variance=v), shape=SAMPLES, nfe=nfe, seed=0).x, images) for nfe in BUDGETS]
        yield f"| {v:g} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |"


def on_targets() -> Iterator[str]:
    """Errors on targets with an exact score, as benchmarks/quality.py measures them, log-SNR grid."""
    solvers: dict[str, srk.Integrator] = {
        f"`srk2m`, matched, local {local:g}": SRK2M(data_variance=BOUND, local=local, weights="matched") for local in (0.3, 1.0, 2.0, 4.0)
    }
    solvers["`srk2m`, matched, v = 0.5"] = SRK2M(weights="matched")
    solvers["`srk2m`, by the rule, local 2"] = SRK2M(data_variance=BOUND, local=2.0)
    solvers["`srk2m`, by the rule, v = 0.5"] = SRK2M()
    solvers["`srk2`, local 2"] = SRK2S(data_variance=BOUND, local=2.0)
    solvers["`srk2`, v = 0.5"] = SRK2S()
    logs: dict[str, list[list[float]]] = {label: [] for label in solvers}
    header = "| | " + " | ".join(f"NFE {nfe}" for nfe in TARGET_CALLS) + " |\n|---|" + "---:|" * len(TARGET_CALLS)
    yield "Errors as in [the quality benchmark](quality.md), log-SNR grid; the bound of `local` is 2."
    for name in TARGETS:
        target = quality.targets()[name]
        yield f"\n## {name}\n\n{header}"
        for label, solver in solvers.items():
            errors = [max(target.error(solver, "log-snr", nfe), target.resolution) for nfe in TARGET_CALLS]
            logs[label].append([math.log(error) for error in errors])
            yield f"| {label} | " + " | ".join(f"{error:.2g}" for error in errors) + " |"
    yield f"\n## Geometric mean, relative to `srk2m`, matched, v = 0.5\n\n{header}"
    base = torch.tensor(logs["`srk2m`, matched, v = 0.5"]).mean(0)
    for label, rows in logs.items():
        yield f"| {label} | " + " | ".join(f"{ratio:.2f}" for ratio in (torch.tensor(rows).mean(0) - base).exp().tolist()) + " |"


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


def on_networks(work: Path) -> Iterator[str]:
    for make in networks.PROBLEMS.values():
        yield from following(make(SAMPLES_OF_NETWORKS), work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["digits", "targets", "networks"])
    parser.add_argument(
        "--work", type=Path, default=data.cache_folder() / "networks", help="where benchmarks/networks.py keeps its samples"
    )
    args = parser.parse_args()
    parts = {"digits": constant, "targets": on_targets, "networks": lambda: on_networks(args.work)}
    for what in args.what:
        lines = [f"# The gauge: {what}\n", f"Made by `python benchmarks/gauge.py {what}` on a 2-core x86-64 cloud machine, CPU.\n"]
        with torch.inference_mode():
            for line in parts[what]():
                print(line, flush=True)
                lines.append(line)
        (Path(__file__).parent / "results" / f"gauge-{what}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
