"""What a profile does on networks: error along the trajectory and in distribution.

    pip install --no-deps galaxygrad==0.1.8     # the network of galaxies; that of garments is here
    python benchmarks/profiles.py garments galaxies cifar      # half an hour of one core

Every run is compared with a fine solution: one with noise with `srk2m-local` of the same bound on
the same Brownian paths, one of the ODE with `unipc-3` from the same noise. Trajectory: median
distance, relative to the root mean square distance of the fine samples from their mean.
Distribution: the sliced Cramer distance of `benchmarks/paired.py`, along 24 principal components of
the fine samples and 24 random directions, with its standard error; the mean over the pixels stands
beside it. Results go to benchmarks/results/profiles.json and profiles.md.
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

NFE = (6, 8, 10, 12, 20, 50)
FINE = 160
PILOT = 32
"""Samples of a calibration."""
SEED, LEVELS, SAMPLES = 20261126, 7, 48
PROFILED, NOISY = "auto, profile", "auto, profile, eta 1"
ODES = ("unipc-3", "deis-3", "dpmpp-2m")
OPEN = ", open end"
"""Follows the name of an ODE method that runs without the final denoising, whose call buys a step
more."""
LABELS = ("srk2m-local", "auto", NOISY, PROFILED, *ODES, *(name + OPEN for name in ODES))
OTHERS = LABELS[4:]
SHOWN = LABELS[: -len(ODES)]
"""Those with rows of their own."""


def garments(batch: int) -> tuple[Any, Any, tuple[int, ...]]:
    process, score = srk.targets.garments()
    return process, score, (1, 28, 28)


def galaxies(batch: int) -> tuple[Any, Any, tuple[int, ...]]:
    import galaxies as example

    return example.PROCESS, example.galaxy_score(), (1, 32, 32)


def cifar(batch: int) -> tuple[Any, Any, tuple[int, ...]]:
    """The network of examples/train_cifar.py, without guidance, of as many samples of every class
    as the batch has room for.
    """
    import train_cifar as example

    model = example.load_denoiser(example.WEIGHTS)
    return example.PROCESS, example.conditional(model, torch.arange(batch) % 10), (3, 16, 16)


def cifar_guided(batch: int) -> tuple[Any, Any, tuple[int, ...]]:
    """The same with the guidance of the example, whose two halves are one batch and one call."""
    import train_cifar as example

    model = example.load_denoiser(example.WEIGHTS)
    return example.PROCESS, example.prediction(model, torch.arange(batch) % 10), (3, 16, 16)


NETWORKS: dict[str, Callable[[int], tuple[Any, Any, tuple[int, ...]]]] = {
    "garments": garments,
    "galaxies": galaxies,
    "cifar": cifar,
    "cifar, guidance 2": cifar_guided,
}


def measure(name: str, samples: int, known: dict[str, list[float]]) -> dict[str, list[float]]:
    """Cells "solver|NFE": error along the trajectory, in distribution, its standard error, and of
    the mean; those that are known stay.
    """
    process, score, event = NETWORKS[name](samples)
    _, pilot, _ = NETWORKS[name](PILOT)
    profile = srk.calibrate(process, pilot, shape=(PILOT, *event), seed=0)
    calibrated = Auto().calibrated(profile)

    def solve(solver: Any, nfe: int, **options: Any) -> Tensor:
        noise = BrownianNoise(SEED, levels=LEVELS)
        shape = (samples, *event)
        x = srk.solve(process, score, solver, shape=shape, nfe=nfe, noise=noise, **options).x
        return x.flatten(1)

    def ode() -> Tensor:
        return fine(name, samples, 0.0, lambda: solve("unipc-3", FINE, grid="log-snr", eta=0.0))

    def sde(v: float) -> Tensor:
        return fine(name, samples, v, lambda: solve(SRK2MLocal(data_variance=v), FINE))

    cells = dict(known)
    for label in LABELS:
        given: dict[str, Any] = {"profile": profile} if "profile" in label else {}
        scale = 1.0
        if label in OTHERS:
            given |= {"grid": "log-snr", "eta": 0.0}
        if label.endswith(OPEN):
            given["denoise_final"] = False
            scale = process.alpha(process.t_min)
        if label == NOISY:
            given["eta"] = 1.0
        # with the bound of the profile, so that the two have the same paths
        solver: Any = label.split(",")[0]
        if label == LABELS[0]:
            solver = SRK2MLocal(data_variance=calibrated.data_variance)
        for nfe in NFE:
            if f"{label}|{nfe}" in known:
                continue
            if label in (*OTHERS, PROFILED):
                y = ode()
            else:
                method = calibrated if label == NOISY else Auto().choose(process, 1.0, nfe - 1)
                y = sde((method if label != LABELS[0] else calibrated).data_variance)
            cells[f"{label}|{nfe}"] = errors(solve(solver, nfe, **given) / scale, y)
            print(name, label, nfe, *(f"{e:.3f}" for e in cells[f"{label}|{nfe}"]), flush=True)
    if "apart" not in known:
        cells["apart"] = errors(ode(), sde(calibrated.data_variance))
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
        for label in SHOWN:
            lines.append(
                [f"`{label}`, trajectory", *(f"{cells[f'{label}|{n}'][0]:.3f}" for n in NFE)]
            )
        for label in (NOISY, PROFILED):
            ratios = [cells[f"{label}|{n}"][0] / cells[f"{LABELS[0]}|{n}"][0] for n in NFE]
            lines.append([f"`{label}` over `{LABELS[0]}`", *(f"{r:.2f}" for r in ratios)])
        found_of = [[cells.get(f"{label}|{n}") for label in OTHERS] for n in NFE]
        best = [min(cell[0] for cell in row if cell) for row in found_of]
        ratios = [cells[f"{PROFILED}|{n}"][0] / b for n, b in zip(NFE, best, strict=True)]
        lines.append(
            [f"`{PROFILED}` over the best of the other ODE", *(f"{r:.2f}" for r in ratios)]
        )
        for label in SHOWN:
            row = [cells[f"{label}|{n}"] for n in NFE]
            lines.append([f"`{label}`, distribution", *(f"{c[1]:.3f} ± {c[2]:.3f}" for c in row)])
        for label in LABELS[:4]:
            row = [cells[f"{label}|{n}"] for n in NFE]
            lines.append([f"`{label}`, mean", *(f"{c[3]:.3f}" for c in row)])
        text += (
            f"### {name[0].upper()}{name[1:]}\n\n{found['samples']} samples. The fine solutions "
        )
        text += f"of the ODE and of the SDE are {cells['apart'][1]:.3f} ± {cells['apart'][2]:.3f} "
        text += "apart in distribution.\n\n" + table(head, lines) + "\n"
    return text + "<!-- --8<-- [end:tables] -->\n"


HEADER = """# A profile on networks

Made by `python benchmarks/profiles.py garments galaxies cifar` on a 2-core x86-64 cloud machine,
CPU, float32. Errors against a fine solution (160 calls): along the trajectory (median, relative
to the spread of the samples), in distribution (sliced Cramer distance ± its standard error) and
of the mean (unbiased squares; a minus sign is that of a square below 0, which is zero within its
error). Runs with noise (`srk2m-local`, `auto`, and `auto` with a profile at eta = 1) are compared
with a fine solution on the same Brownian paths, those of the ODE (`auto` with a profile, and
others) with one of the ODE from the same noise: each with what it would give with very many
calls. `srk2m-local`, with the bound that the profile measured, `auto` and the other methods of
the ODE run on `log-snr`; the profile is one calibration with 32 samples and 99 calls, seed 0.
`auto` without a profile is on paths of another clock than `srk2m-local`, so that its ratios are
less certain. The best of the other ODE is also looked for with an open end: without the final
denoising, whose call then buys one more step.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--forget", nargs="*", default=[], help="solvers that are run anew")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = args.folder / "profiles.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in args.names:
        before = results.get(name, {})
        known = before.get("cells", {}) if before.get("samples") == args.samples else {}
        known = {key: v for key, v in known.items() if key.split("|")[0] not in args.forget}
        results[name] = {"samples": args.samples, "cells": measure(name, args.samples, known)}
        path.write_text(json.dumps(results, indent=1) + "\n")
    (args.folder / "profiles.md").write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
