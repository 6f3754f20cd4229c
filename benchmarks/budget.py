"""The budget grid against the best fixed grid at equal numbers of network calls, on the exact-score
targets of `quality.py`.

    python benchmarks/budget.py            # about six minutes of one core; resumes
    python benchmarks/budget.py --report   # only the tables, from the cells that are there

Results go to benchmarks/results/budget.json (one cell per target, solver, grid and NFE) and
benchmarks/results/budget.md. Errors are those of `quality.py`. The pilot has its default size, and
one profile serves all solvers and budgets of a target. Its calls are not in NFE.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import quality
import torch
from quality import Gaussians, Sampled, _number, table

import srk
from srk.analysis import gaussian_kl
from srk.errors import SRKError
from srk.steps import Budget, Profile

RESULTS = Path(__file__).parent / "results"
NFE = (8, 10, 14, 20)
SOLVERS = ("ddpm", "dpmpp-2m-sde", "srk2m")
OTHERS = ("dpmpp-2m", "dpmpp-3m-sde", "sa-solver", "seeds-2", "srk2s", "auto")
FIXED = ("log-snr", "karras", "uniform", "quadratic", "gauge")
CHEAP = ("Gaussian, unit", "Gaussian, 9 scales", "Gaussian, 16-D", "mixture, 1-D")
CRITERIA = ("concentrated", "broad", "kl", "l2")


@functools.cache
def targets() -> dict[str, Gaussians | Sampled]:
    """The targets of `quality.py` with an exact score on which the criteria were chosen.

    Two came later.
    """
    later = ("mixture, 64-D", quality.FASHION)
    return {
        name: target
        for name, target in quality.targets().items()
        if not target.perturbed and name not in later
    }


@functools.cache
def held_out() -> dict[str, Gaussians | Sampled]:
    """Targets that had no part in the choice of the criteria."""
    generator = torch.Generator().manual_seed(11)
    places = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 2)
    lattice = srk.targets.GaussianMixture(
        [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0], places, [0.06] * 9
    )
    means = 0.5 * torch.randn(20, 32, generator=generator, dtype=torch.float64)
    mixture = srk.targets.GaussianMixture([1.0] * 20, means, [0.05, 0.1, 0.15, 0.2] * 5)
    spectrum = tuple(float(v) for v in np.logspace(-3.0, 0.0, 8))
    made: list[Gaussians | Sampled] = [
        Gaussians("Gaussian, 8-D", quality.VP, (spectrum,), note="VP, eigenvalues logspace(-3, 0)"),
        Gaussians("Gaussian, 2-D", quality.EDM, ((4.0, 0.01),), note="EDM, variances 4 and 0.01"),
        quality._mixture(
            "lattice, 2-D",
            lattice,
            64_000,
            quality._directions(2, 8),
            note="VP, 9 components of deviation 0.06",
        ),
        quality._mixture(
            "mixture, 32-D", mixture, 24_000, quality._directions(32, 16), note="VP, 20 components"
        ),
    ]
    return {target.name: target for target in made}


@functools.cache
def profiles(name: str) -> tuple[Profile, ...]:
    """One pilot for each data distribution of a target."""
    target = {**targets(), **held_out()}[name]
    if isinstance(target, Sampled):
        return (srk.calibrate(target.process, target.target.score(target.process)),)
    data = [srk.targets.Gaussian([target.mean] * len(v), list(v)) for v in target.variances]
    return tuple(srk.calibrate(target.process, each.score(target.process)) for each in data)


def error(target: Gaussians | Sampled, solver: str, grid: str, nfe: int) -> float:
    """The error of a cell, nan where the budget buys no step.

    Not below the resolution of the samples.
    """
    try:
        if not grid.startswith("budget"):
            fixed = (
                srk.steps.Gauge(data_variance=target.largest_variance) if grid == "gauge" else grid
            )
            value = target.error(solver, fixed, nfe)
        else:
            criterion: Any = grid.partition(" ")[2] or None
            grids = [
                Budget(profile=profile, criterion=criterion) for profile in profiles(target.name)
            ]
            if isinstance(target, Sampled):
                value = target.error(solver, grids[0], nfe)
            else:
                pairs = zip(target.variances, grids, strict=True)
                kl = [
                    gaussian_kl(
                        solver, target.process, variance=v, mean=target.mean, nfe=nfe, grid=g
                    )
                    for v, g in pairs
                ]
                value = math.sqrt(max(float(np.mean(kl)), 0.0))
    except (SRKError, OverflowError, FloatingPointError, ZeroDivisionError):
        return math.nan
    return min(max(value, target.resolution), quality.WORST) if math.isfinite(value) else math.nan


def cells() -> list[tuple[str, str, str]]:
    """(target, solver, grid) of everything that is run."""
    sets = [(name, s, g) for name in targets() for s in SOLVERS for g in (*FIXED, "budget")]
    sets += [(name, s, g) for name in CHEAP for s in OTHERS for g in ("log-snr", "budget")]
    sets += [(name, s, f"budget {c}") for name in CHEAP for s in SOLVERS for c in CRITERIA]
    sets += [(name, s, g) for name in held_out() for s in SOLVERS for g in (*FIXED, "budget")]
    return sets


def collect(path: Path) -> dict[str, float]:
    """Run what is missing; the file is written every few seconds."""
    values: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    every = {**targets(), **held_out()}
    saved = began = time.perf_counter()
    todo = [(*c, n) for c in cells() for n in NFE if "|".join((*c, str(n))) not in values]

    def save() -> None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(values, indent=0, sort_keys=True))
        part.replace(path)

    for i, (name, solver, grid, nfe) in enumerate(todo):
        value = error(every[name], solver, grid, nfe)
        values[f"{name}|{solver}|{grid}|{nfe}"] = float(f"{value:.5g}")
        if time.perf_counter() - saved > 5.0:
            save()
            saved = time.perf_counter()
            print(f"{i + 1}/{len(todo)} cells, {saved - began:.0f} s", file=sys.stderr, flush=True)
    save()
    return values


def report(values: dict[str, float]) -> str:
    """The tables, in Markdown."""

    def best(name: str, solver: str, nfe: int, grids: Sequence[str]) -> float:
        found = [values.get(f"{name}|{solver}|{grid}|{nfe}", math.nan) for grid in grids]
        return min((e for e in found if not math.isnan(e)), default=math.nan)

    def mean(
        names: Sequence[str],
        solver: str,
        grid: str,
        against: Sequence[str],
        budgets: Sequence[int] = NFE,
    ) -> str:
        ratios = [
            best(name, solver, n, [grid]) / best(name, solver, n, against)
            for name in names
            for n in budgets
        ]
        return (
            _number(math.exp(float(np.mean(np.log(ratios))))) if np.isfinite(ratios).all() else "-"
        )

    chosen, others = list(targets()), list(held_out())
    head = ["", *(f"NFE {n}" for n in NFE), "all"]

    def lines(
        names: Sequence[str], against: Sequence[str], solvers: Sequence[str] = SOLVERS
    ) -> list[list[str]]:
        return [
            [
                f"`{s}`",
                *(mean(names, s, "budget", against, [n]) for n in NFE),
                mean(names, s, "budget", against),
            ]
            for s in solvers
        ]

    text = HEADER
    text += (
        "## Error on the budget grid over that on the best fixed grid, geometric mean of "
        "seven targets\n\n"
    )
    text += (
        "The best fixed grid is chosen afterwards, for each target, solver and NFE: "
        "log-snr, karras, uniform, quadratic, and `gauge`, which is told the\n"
    )
    text += "largest variance of the data.\n\n" + table(head, lines(chosen, FIXED))
    text += "\nWithout `gauge`:\n\n" + table(head, lines(chosen, FIXED[:-1]))
    text += "\nOver log-snr, the default grid:\n\n" + table(head, lines(chosen, FIXED[:1]))
    text += "\n## The same on targets that had no part in choosing the criteria\n\n"
    text += (
        "; ".join(f"{t.name} ({t.note})" for t in held_out().values())
        + ".\n\nOver the best fixed grid, `gauge` included:\n\n"
    )
    text += (
        table(head, lines(others, FIXED))
        + "\nOver log-snr:\n\n"
        + table(head, lines(others, FIXED[:1]))
    )
    text += "\n## By criterion, over the best fixed grid, on the first four targets\n\n"
    text += table(
        ["", *(f"`{c}`" for c in CRITERIA)],
        [[f"`{s}`", *(mean(CHEAP, s, f"budget {c}", FIXED) for c in CRITERIA)] for s in SOLVERS],
    )
    text += "\n## By target, over the best fixed grid\n\n"
    every = [*chosen, *others]
    text += table(
        ["", *(f"`{s}`" for s in SOLVERS)],
        [[name, *(mean([name], s, "budget", FIXED) for s in SOLVERS)] for name in every],
    )
    text += "\n## Other solvers, over log-snr, on the first four targets\n\n" + table(
        head, lines(CHEAP, FIXED[:1], OTHERS)
    )
    text += "\n## The pilot\n" + pilots() + "\n## Errors\n"
    for name, target in {**targets(), **held_out()}.items():
        text += f"\n### {name}{f' ({target.note})' if target.note else ''}\n\n"
        rows = [
            [f"`{s}`, {g}", *(_number(best(name, s, n, [g])) for n in NFE)]
            for s in SOLVERS
            for g in (*FIXED, "budget")
        ]
        text += table(head[:-1], rows)
    return text


def pilots(n: int = 20_000) -> str:
    """How far q, measured with different solvers, is from the closed form on N(0, v) data.

    A table of ratios.
    """
    rows = []
    for solver, steps in (("ddpm", 64), ("seeds-2", 32), ("dpmpp-sde", 32), ("srk2s", 32)):
        ratios = []
        for v in (0.01, 0.25, 4.0):
            seen: list[torch.Tensor] = []
            score = srk.targets.Gaussian(0.0, v).score(quality.VP)
            sol = srk.solve(
                quality.VP,
                score,
                solver,
                shape=n,
                steps=steps,
                seed=1,
                callback=lambda info, seen=seen: seen.append(info.denoised),
            )
            moved = np.array([float((b - a).square().mean()) for a, b in pairwise([*seen, sol.x])])
            s = np.array([quality.VP.level(t).r ** 2 for t in sol.times])
            ratios.append(moved / -np.diff(v * s / (v + s)))
        rows.append(
            [
                f"`{solver}`, {steps} steps",
                *(
                    f"{r:.3f}"
                    for r in (np.min(ratios), np.max(ratios), np.mean([x[-1] for x in ratios]))
                ),
            ]
        )
    text = (
        f"\nMeasured q over the closed form on N(0, v) data, v = 0.01, 0.25 and 4, VP, {n} "
        f"samples (one standard deviation: {math.sqrt(2 / n):.3f}),\n"
    )
    return text + "64 calls each:\n\n" + table(["", "smallest", "largest", "last step"], rows)


HEADER = """# The budget grid at equal numbers of network calls

Made by `python benchmarks/budget.py` on a 2-core x86-64 cloud machine, CPU.

Below 1 the budget grid is better. Errors as in [quality.md](quality.md): sqrt(KL),
exact, for Gaussian targets, sliced W1 above the sampling floor for the
others, never below the resolution of the samples (a ratio of 1 may be two errors that
the samples cannot tell from none). All at eta = 1. The pilot has its
default size: 32 steps of `srk2s`, 1024 coordinates in all; its calls are not in NFE.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--report", action="store_true", help="write the tables from the cells that are there"
    )
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = args.folder / "budget.json"
    values = json.loads(path.read_text()) if args.report else collect(path)
    text = report(values)
    (args.folder / "budget.md").write_text(text)
    print(text[: text.index("## Errors")])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
