"""How much the gauge of the house methods and their matched weights matter: the variance on digits,
how the gauge follows the noise on exact targets and on real networks, and the constants of the
matching on Gaussian targets.

    python benchmarks/gauge.py digits targets networks weights [--work ~/.cache/srk/networks]

Writes benchmarks/results/gauge-digits.md and so on. A minute, three minutes, some ten minutes and
half a minute on one core, `networks` after `python benchmarks/networks.py`, whose fine solutions
are used again and whose packages are needed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import srk
from srk.analysis.metrics import sliced_w2
from srk.cli.demo import digits
from srk.integrators import SRK2M, SRK2S
from srk.sampling import planning
from srk.targets import datasets

sys.path.insert(0, str(Path(__file__).parent))

import networks
import quality

VARIANCES = (0.05, 0.1, 0.3, 0.5, 1.0)
BUDGETS = (8, 10, 20)
SAMPLES = 6000
SAMPLES_OF_NETWORKS = 192

BOUND = 2.0
LOCAL = (0.02, 0.1, 0.3, 1.5, 4.0, math.inf)
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
WEIGHT_CALLS = (6, 8, 10, 14, 20, 30, 50, 100)


def constant() -> Iterator[str]:
    """Sliced W2 to the digits for constant gauges."""
    images, process = digits(), srk.VP()
    score = srk.targets.Empirical(images).score(process)
    generator = torch.Generator().manual_seed(0)
    floors = [
        sliced_w2(images[torch.randint(len(images), (SAMPLES,), generator=generator)], images)
        for _ in range(5)
    ]
    yield "`srk2m`, VP, log-SNR grid, exact score: sliced W2 to the data by the gauge variance v."
    yield f"{SAMPLES} samples, one seed; exact samples: {sum(floors) / len(floors):.4f}.\n"
    yield "| v | " + " | ".join(f"NFE {nfe}" for nfe in BUDGETS) + " |"
    yield "| ---: |" + " ---: |" * len(BUDGETS)
    for v in VARIANCES:
        cells = [
            sliced_w2(
                srk.solve(process, score, SRK2M(data_variance=v), shape=SAMPLES, nfe=nfe, seed=0).x,
                images,
            )
            for nfe in BUDGETS
        ]
        yield f"| {v:g} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |"


def on_targets() -> Iterator[str]:
    """Errors on targets with an exact score, as benchmarks/quality.py measures them, log-SNR
    grid.
    """
    solvers: dict[str, srk.Integrator] = {
        f"`srk2m`, matched, local {local:g}": SRK2M(
            data_variance=BOUND, local=local, weights="matched"
        )
        for local in (0.3, 1.0, 1.5, 2.0, 4.0)
    }
    solvers["`srk2m`, matched, v = 0.5"] = SRK2M(weights="matched")
    solvers["`srk2m`, matched, local 1.5, node 1/3"] = SRK2M(
        data_variance=BOUND, local=1.5, weights="matched", strong=True
    )
    solvers["`srk2m`, matched, local 0.1, node 1/3"] = SRK2M(
        data_variance=BOUND, local=0.1, weights="matched", strong=True
    )
    solvers["`srk2m`, matched, v = 0.5, node 1/3"] = SRK2M(weights="matched", strong=True)
    solvers["`srk2m`, by the rule, local 2"] = SRK2M(data_variance=BOUND, local=2.0)
    solvers["`srk2m`, by the rule, v = 0.5"] = SRK2M()
    solvers["`srk2`, local 2"] = SRK2S(data_variance=BOUND, local=2.0)
    solvers["`srk2`, v = 0.5"] = SRK2S()
    logs: dict[str, list[list[float]]] = {label: [] for label in solvers}
    header = (
        "| | "
        + " | ".join(f"NFE {nfe}" for nfe in TARGET_CALLS)
        + " |\n|---|"
        + "---:|" * len(TARGET_CALLS)
    )
    yield (
        "Errors as in [the quality benchmark](quality.md), log-SNR grid; the bound of `local` is 2."
    )
    for name in TARGETS:
        target = quality.targets()[name]
        yield f"\n## {name}\n\n{header}"
        for label, solver in solvers.items():
            errors = [
                max(target.error(solver, "log-snr", nfe), target.resolution) for nfe in TARGET_CALLS
            ]
            logs[label].append([math.log(error) for error in errors])
            yield f"| {label} | " + " | ".join(f"{error:.2g}" for error in errors) + " |"
    yield f"\n## Geometric mean, relative to `srk2m`, matched, v = 0.5\n\n{header}"
    base = torch.tensor(logs["`srk2m`, matched, v = 0.5"]).mean(0)
    for label, rows in logs.items():
        yield (
            f"| {label} | "
            + " | ".join(
                f"{ratio:.2f}" for ratio in (torch.tensor(rows).mean(0) - base).exp().tolist()
            )
            + " |"
        )


def weights() -> Iterator[str]:
    """sqrt(KL) on the Gaussian targets by the constants of `srk.plans.matching`."""
    base = "srk.plans.matching."
    changes: dict[str, dict[str, Any]] = {
        "three stages": {base + "DEPTH": 3, "srk.integrators.srk2m.DEPTH": 3},
        "five stages": {base + "DEPTH": 5, "srk.integrators.srk2m.DEPTH": 5},
        "ridge 1e-3": {base + "RIDGE": 1e-3},
        "ridge 1e-1": {base + "RIDGE": 1e-1},
        "ridge that shrinks with the square of a step": {base + "POWER": 2},
        "a ridge that shrinks without end": {base + "SHORTEST": 0.0},
        "change of a weight up to 1": {base + "LARGEST": 1.0},
        "change of a weight up to 0.25": {base + "LARGEST": 0.25},
        "family from 1e-4": {base + "FAMILY": np.logspace(-4.0, 3.0, 29)},
        "family from 1e-2": {base + "FAMILY": np.logspace(-2.0, 3.0, 21)},
        "family to 30": {base + "FAMILY": np.logspace(-3.0, 1.5, 19)},
        "family to the noise after the first step": {base + "COVERED": 1.0},
        "family to a 32nd of it": {base + "COVERED": 32.0},
        "family not cut": {base + "COVERED": 0.0},
    }
    solver = SRK2M(data_variance=BOUND, local=1.5, weights="matched")

    narrow = quality.Gaussians(
        "", srk.EDM(sigma_min=0.01, sigma_max=20.0), tuple((v,) for v in np.logspace(-3, 1, 9))
    )

    def errors(changed: dict[str, Any]) -> torch.Tensor:
        with ExitStack() as stack:
            for name, value in changed.items():
                stack.enter_context(patch(name, value))
            planning.forget()
            targets = [*(quality.targets()[name] for name in TARGETS[:3]), narrow]
            rows = [
                [target.error(solver, "log-snr", nfe) for nfe in WEIGHT_CALLS] for target in targets
            ]
        return torch.tensor(rows).log()

    yield (
        "`srk2m`, bound 2, local 1.5, matched weights, log-SNR grid. sqrt(KL), geometric "
        "mean over three Gaussian targets of [the quality benchmark](quality.md) and"
    )
    yield "the nine scales from sigma 20 in place of 80, relative to the constants as they are.\n"
    yield (
        "| | "
        + " | ".join(f"NFE {nfe}" for nfe in WEIGHT_CALLS)
        + " |\n|---|"
        + "---:|" * len(WEIGHT_CALLS)
    )
    reference = errors({})
    yield (
        "| as they are: sqrt(KL) | "
        + " | ".join(f"{error:.2g}" for error in reference.mean(0).exp().tolist())
        + " |"
    )
    for label, changed in changes.items():
        yield (
            f"| {label} | "
            + " | ".join(
                f"{ratio:.2g}" for ratio in (errors(changed) - reference).mean(0).exp().tolist()
            )
            + " |"
        )


def following(problem: networks.Problem, work: Path) -> Iterator[str]:
    """Errors on a network, path and law, by `local` under the bound 2, on the paths of the clock of
    that bound.
    """
    fine = networks.run(problem, networks.FINE["gauge(2,1)"], networks.FINE_NFE, work)
    features = networks.features(problem.image(fine))

    def cell(solver: srk.Integrator, nfe: int) -> str:
        parts = []
        for first in range(0, problem.samples, networks.CHUNK):
            noise = networks.SharedPaths(
                problem.process, networks.clock(problem.process, solver), first
            )
            count = min(networks.CHUNK, problem.samples - first)
            parts.append(
                srk.solve(
                    problem.process, problem.prediction, solver, shape=count, nfe=nfe, noise=noise
                ).x
            )
        x = torch.cat(parts)
        law, error = networks.law_error(networks.features(problem.image(x)), features)
        return f"{networks.path_error(x, fine):.3f}, {law:.3f} ± {error:.3f}"

    yield f"\n## Following the noise: {problem.name}\n"
    yield (
        f"{problem.samples} samples, log-SNR grid; path error, error in law as in [the "
        f"comparison of networks](networks.md). inf is the constant gauge {BOUND:g}.\n"
    )
    yield (
        "| local | node | "
        + " | ".join(f"`srk2m`, matched, NFE {nfe}" for nfe in CALLS)
        + " | `srk2`, NFE 20 |"
    )
    yield "| ---: | ---: |" + " ---: |" * (len(CALLS) + 1)
    for strong in (False, True):
        for local in LOCAL:
            cells = [
                cell(SRK2M(data_variance=BOUND, local=local, weights="matched", strong=strong), nfe)
                for nfe in CALLS
            ]
            cells.append(cell(SRK2S(data_variance=BOUND, local=local, strong=strong), 20))
            yield f"| {local:g} | {'1/3' if strong else '1/4'} | " + " | ".join(cells) + " |"


def on_networks(work: Path) -> Iterator[str]:
    for make in networks.PROBLEMS.values():
        yield from following(make(SAMPLES_OF_NETWORKS), work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["digits", "targets", "networks", "weights"])
    parser.add_argument(
        "--work",
        type=Path,
        default=datasets.cache_folder() / "networks",
        help="where benchmarks/networks.py keeps its samples",
    )
    args = parser.parse_args()
    parts = {
        "digits": constant,
        "targets": on_targets,
        "networks": lambda: on_networks(args.work),
        "weights": weights,
    }
    for what in args.what:
        lines = [
            f"# The gauge: {what}\n",
            f"Made by `python benchmarks/gauge.py {what}` on a 2-core x86-64 cloud machine, CPU.\n",
        ]
        with torch.inference_mode():
            for line in parts[what]():
                print(line, flush=True)
                lines.append(line)
        (Path(__file__).parent / "results" / f"gauge-{what}.md").write_text(
            "\n".join(lines) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
