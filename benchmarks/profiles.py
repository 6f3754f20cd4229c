"""What a profile does on networks: error along the trajectory and in distribution.

    pip install --no-deps galaxygrad==0.1.8     # the network of galaxies; that of garments is here
    python benchmarks/profiles.py garments galaxies      # ten minutes of one core

Every run is compared with a fine solution (`srk2m-local` with the same bound) on the same Brownian
paths. Trajectory: median distance, relative to the root mean square distance of the fine samples
from their mean. Distribution: the sliced Cramer distance of `benchmarks/paired.py`, along 24
principal components of the fine samples and 24 random directions, with its standard error; the mean
over the pixels stands beside it. Results go to benchmarks/results/profiles.json and profiles.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import srk
from srk.integrators import SRK2MLocal
from srk.integrators.auto import Auto
from srk.noise import BrownianNoise

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]

from paired import distance, table  # noqa: E402

NFE = (6, 8, 12, 20, 50)
FINE = 160
SEED, LEVELS, SAMPLES = 20261126, 7, 48
LABELS = ("srk2m-local", "auto", "auto, profile")


def garments() -> tuple[Any, Any, tuple[int, ...]]:
    process, score = srk.targets.garments()
    return process, score, (1, 28, 28)


def galaxies() -> tuple[Any, Any, tuple[int, ...]]:
    import galaxies as example

    return example.PROCESS, example.galaxy_score(), (1, 32, 32)


NETWORKS: dict[str, Callable[[], tuple[Any, Any, tuple[int, ...]]]] = {
    "garments": garments,
    "galaxies": galaxies,
}


def measure(name: str, samples: int) -> dict[str, list[float]]:
    """Cells "solver|NFE": error along the trajectory, in distribution, its standard error, and of
    the mean.
    """
    process, score, event = NETWORKS[name]()
    profile = srk.calibrate(process, score, shape=(32, *event), seed=0)
    calibrated = Auto().calibrated(profile)

    def solve(solver: Any, nfe: int, **options: Any) -> Tensor:
        noise = BrownianNoise(SEED, levels=LEVELS)
        shape = (samples, *event)
        return srk.solve(
            process, score, solver, shape=shape, nfe=nfe, noise=noise, **options
        ).x.flatten(1)

    cells = {}
    for label in LABELS:
        given: dict[str, Any] = {"profile": profile} if label == LABELS[2] else {}
        # with the bound of the profile, so that the two have the same paths
        solver = (
            SRK2MLocal(data_variance=calibrated.data_variance) if label == LABELS[0] else "auto"
        )
        for nfe in NFE:
            method = Auto().choose(process, 1.0, nfe - 1) if label == LABELS[1] else calibrated
            v = method.data_variance
            y = fine(name, samples, v, lambda v=v: solve(SRK2MLocal(data_variance=v), FINE))
            cells[f"{label}|{nfe}"] = errors(solve(solver, nfe, **given), y)
            print(name, label, nfe, *(f"{e:.3f}" for e in cells[f"{label}|{nfe}"]), flush=True)
    return cells


_fine: dict[tuple[str, float], Tensor] = {}


def fine(name: str, samples: int, v: float, make: Callable[[], Tensor]) -> Tensor:
    if (name, v) not in _fine:
        _fine[name, v] = make()
    return _fine[name, v]


def errors(x: Tensor, y: Tensor) -> list[float]:
    spread = (y - y.mean(0)).norm(dim=1).square().mean().sqrt()
    path = float((x - y).norm(dim=1).median() / spread)
    _, _, axes = torch.linalg.svd(y - y.mean(0), full_matrices=False)
    wild = torch.randn(y.shape[1], 24, generator=torch.Generator().manual_seed(3))
    directions = torch.cat([axes[: min(24, len(y) // 2)].T, wild / wild.norm(dim=0)], 1)
    apart, error = distance(x @ directions, y @ directions)
    d = x - y
    square = float((d.sum(0).square().sum() - d.square().sum()) / (len(d) * (len(d) - 1)))
    mean = math.copysign(math.sqrt(abs(square)), square) / float(spread)
    return [round(v, 5) for v in (path, apart, error, mean)]


def report(results: dict[str, Any]) -> str:
    head = ["", *(f"NFE {n}" for n in NFE)]
    text = HEADER + "<!-- --8<-- [start:tables] -->\n\n"
    for name, found in results.items():
        cells, lines = found["cells"], []
        for label in LABELS:
            lines.append(
                [f"`{label}`, trajectory", *(f"{cells[f'{label}|{n}'][0]:.3f}" for n in NFE)]
            )
        for label in LABELS[1:]:
            ratios = [cells[f"{label}|{n}"][0] / cells[f"{LABELS[0]}|{n}"][0] for n in NFE]
            lines.append([f"`{label}` over `{LABELS[0]}`", *(f"{r:.2f}" for r in ratios)])
        for label in LABELS:
            row = [cells[f"{label}|{n}"] for n in NFE]
            lines.append([f"`{label}`, distribution", *(f"{c[1]:.3f} ± {c[2]:.3f}" for c in row)])
        for label in LABELS:
            row = [cells[f"{label}|{n}"] for n in NFE]
            lines.append([f"`{label}`, mean", *(f"{c[3]:.3f}" for c in row)])
        text += f"### {name}\n\n{found['samples']} samples.\n\n" + table(head, lines) + "\n"
    return text + "<!-- --8<-- [end:tables] -->\n"


HEADER = """# A profile on networks

Made by `python benchmarks/profiles.py garments galaxies` on a 2-core x86-64 cloud machine, CPU,
float32, eta = 1. Errors against a fine solution (160 calls) on the same Brownian paths:
along the trajectory (median, relative to the spread of the samples), in distribution (sliced
Cramer distance ± its standard error) and of the mean (unbiased squares; a minus sign is that of a
square below 0, which is zero within its error). `srk2m-local`, with the bound that the profile
measured, and `auto` run on `log-snr`; the profile is one calibration with 32 samples and 65 calls,
seed 0. `auto` without a profile is on paths of another clock than the other two, so that its
ratios are less certain.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = args.folder / "profiles.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in args.names:
        results[name] = {"samples": args.samples, "cells": measure(name, args.samples)}
        path.write_text(json.dumps(results, indent=1) + "\n")
    (args.folder / "profiles.md").write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
