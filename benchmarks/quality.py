"""Error at equal numbers of network calls: every registered solver on every sensible grid, on
targets whose score is exact.

    python benchmarks/quality.py            # all of it: half an hour on two cores; resumes
    python benchmarks/quality.py --quick    # a smoke test of a minute; writes nothing
    python benchmarks/quality.py --report   # only the tables, from the cells that are there

Results go to benchmarks/results/quality.json (one cell per target, solver, grid and NFE) and
benchmarks/results/quality.md.

The error of a cell is in units of a distance:

- Gaussian targets: sqrt(KL), exact (srk.analysis.gaussian_kl), of the state at t_min;
- mixtures: W1 of one-dimensional projections to the exact law at t_min, mean over fixed directions
(sliced W1; W2 would weigh a wrong share of
  mass between distant modes by its square root, and its floor falls as n^(-1/4) only);
- images: the same for the denoised samples (what `solve` returns) against the data set, along
principal components and random directions.

The sampling floor f, measured on exact samples, is taken off: sqrt(W1^2 - f^2). An excess of W1^2
below two standard deviations of f^2 counts as those ("resolution"), so that no ratio is better than
the samples can show.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

import srk
import srk.targets.datasets
from srk.analysis import gaussian_kl
from srk.errors import MissingDataError, SRKError
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.scores import Prediction
from srk.targets.base import Target

RESULTS = Path(__file__).parent / "results"
NFE = (6, 8, 10, 14, 20, 30, 50, 100)
LATE = 100
"""From here on most errors of sampled targets are below the resolution.

Only the leaders of the budget before are run.
"""
GRIDS = ("log-snr", "karras", "uniform", "gauge")
HOUSE = ("auto", "srk2m", "srk2m matched", "srk2m-local", "srk2s", "srk1")
HALF = "srk2m, eta 0.5"
BUDGET_PEERS = ("dpmpp-2m-sde", "sa-solver", "er-sde-3")
"""Peers that are run on the budget grid as well, up to NFE 20."""
SOLVERS: dict[str, tuple[Any, float | None]] = {
    "srk2m matched": (srk.integrators.SRK2M(weights="matched"), None),
    HALF: ("srk2m", 0.5),
}
"""Labels that are not registered names.

Solver and eta. `HALF` has rows of its own and is not among `house()`, which runs at eta = 1.
"""
ALIASES = {
    "srk2",
    "euler-ancestral",
    "ddim",
    "euler",
}  # the same numbers as srk2s, ddpm, ddpm, euler-maruyama at eta = 1
SEED = 20260801
AHEAD, REPEATS = 1.3, 4
"""A cell of a sampled target in which another house solver has less than 1/AHEAD of the error of
`auto` is repeated with so many fresh seeds.
"""
WORST = 100.0
"""Errors are capped here: a run that overflows counts as this."""

VP = srk.VP()
EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)


# -- targets
# ------------------------------------------------------------


@attrs.frozen
class Gaussians:
    """sqrt of the mean exact KL over Gaussian targets: `variances` is a tuple of spectra."""

    name: str
    process: LinearProcess
    variances: tuple[tuple[float, ...], ...]
    mean: float = 0.0
    perturbed: bool = False
    grids: tuple[str, ...] = GRIDS
    exact: tuple[str, ...] = ()
    budgets: tuple[int, ...] = NFE
    solvers: tuple[str, ...] = ()
    note: str = ""

    @property
    def largest_variance(self) -> float:
        return max(max(v) for v in self.variances)

    @property
    def resolution(self) -> float:
        return 1e-9

    def pilot(self) -> None:
        """Exact, and cheap: there is nothing to try first."""

    def error(
        self, solver: Any, grid: Any, nfe: int, eta: float | None = None, seed: int = SEED
    ) -> float:
        kl = [
            gaussian_kl(
                solver, self.process, variance=v, mean=self.mean, nfe=nfe, grid=grid, eta=eta
            )
            for v in self.variances
        ]
        return math.sqrt(max(float(np.mean(kl)), 0.0))


@attrs.frozen(eq=False, slots=False)
class Sampled:
    """Sliced W1 to the exact law above the sampling floor.

    Arguments:
        target: the data.
        n: samples.
        directions: shape (d, m).
        quantiles: exact quantiles of the projected law, averaged over `bins` equal masses, shape
            (bins, m).
        denoise: measure the denoised samples (a call of the budget).
        perturb: size of the error of the denoiser, relative to the posterior deviation.
        budgets: the NFE that it is run at.
        solvers: if given, these alone are run, all of them with all samples.
    """

    name: str
    target: Target
    process: LinearProcess
    n: int
    directions: Tensor
    quantiles: Tensor
    denoise: bool = False
    perturb: float = 0.0
    dtype: torch.dtype = torch.float32
    grids: tuple[str, ...] = GRIDS
    budgets: tuple[int, ...] = NFE
    solvers: tuple[str, ...] = ()
    note: str = ""
    _floor: tuple[float, float] = attrs.field(init=False)

    def pilot(self) -> Sampled:
        """The same with a sixteenth of the samples."""
        n = self.n // 16
        return attrs.evolve(
            self,
            n=n,
            quantiles=self.quantiles.reshape(
                -1, max(1, len(self.quantiles) * 16 // self.n), self.quantiles.shape[1]
            ).mean(1)
            if len(self.quantiles) > n
            else self.quantiles,
        )

    @functools.cached_property
    def largest_variance(self) -> float:
        """Of the data, in any direction: what a user measures for the grid `gauge`."""
        x = self.target.sample(20_000, seed=SEED, dtype=torch.float64).flatten(1)
        return float(torch.linalg.eigvalsh(x.T.cov().reshape(x.shape[1], -1))[-1])

    @property
    def perturbed(self) -> bool:
        return self.perturb > 0.0

    @_floor.default
    def _measure_floor(self) -> tuple[float, float]:
        t = None if self.denoise else self.process.t_min
        process = None if self.denoise else self.process
        values = [
            self._square(
                self.target.sample(self.n, process, t, seed=SEED + 1 + i, dtype=self.dtype)
            )
            for i in range(12)
        ]
        return float(np.mean(values)), float(np.std(values, ddof=1))

    @property
    def resolution(self) -> float:
        """The smallest error that counts: two standard deviations of the squared floor."""
        return math.sqrt(2.0 * self._floor[1])

    def _square(self, x: Tensor) -> float:
        projected = (x.flatten(1) @ self.directions.to(x.dtype)).to(torch.float64).sort(0).values
        means = projected.reshape(len(self.quantiles), -1, projected.shape[1]).mean(1)
        return float((means - self.quantiles).abs().mean()) ** 2

    def error(
        self, solver: Any, grid: Any, nfe: int, eta: float | None = None, seed: int = SEED
    ) -> float:
        start = self.target.sample(
            self.n, self.process, self.process.t_max, seed=seed, dtype=self.dtype
        )
        score: Prediction = self.target.score(self.process)
        if self.perturb:
            score = Perturbed(score, self.perturb)
        sol = srk.solve(
            self.process,
            score,
            solver,
            x_init=start,
            nfe=nfe,
            grid=grid,
            eta=eta,
            seed=seed,
            denoise_final=self.denoise,
            on_failure="return",
        )
        square = (
            self._square(sol.x) if sol.success and bool(torch.isfinite(sol.x).all()) else WORST**2
        )
        return math.sqrt(max(square - self._floor[0], 0.0))


@attrs.frozen(eq=False)
class Perturbed(Prediction):
    """A denoiser with an error that is smooth in state and level.

    Size `scale` relative to the posterior deviation of N(0, w) data, w = 0.3.
    """

    inner: Prediction
    scale: float

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        return self.inner.event_shape

    def bind(self, process: ForwardProcess) -> Prediction:
        return attrs.evolve(self, inner=self.inner.bind(process))

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        w, s = 0.3, level.r**2
        rows, phases = _waves(x.shape[1])
        angle = (
            (x @ rows.to(x.dtype)) / (level.alpha * math.sqrt(w + s))
            + phases.to(x.dtype)
            + 0.7 * level.lam
        )
        return self.inner.denoise(x, level, process).add_(
            torch.sin(angle), alpha=self.scale * math.sqrt(2.0 * w * s / (w + s))
        )

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return (self.denoise(x, level, process) * level.alpha - x) / level.sigma**2


@functools.cache
def _waves(d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return 1.5 * rows / rows.norm(dim=0), 2 * math.pi * torch.rand(
        d, generator=generator, dtype=torch.float64
    )


def _mixture(
    name: str,
    target: srk.targets.GaussianMixture,
    n: int,
    directions: Tensor,
    bins: int = 500,
    **options: Any,
) -> Sampled:
    """A mixture of isotropic components.

    Every projection is a mixture in one dimension with exact quantiles.
    """
    q = (np.arange(4 * bins) + 0.5) / (4 * bins)
    columns = []
    for p in directions.T:
        line = srk.targets.GaussianMixture(target.weights, target.means @ p, target.stds)
        columns.append(line.quantile(q, VP, VP.t_min).reshape(bins, 4).mean(1))
    return Sampled(name, target, VP, n, directions, torch.stack(columns, 1), **options)


def _directions(d: int, m: int) -> Tensor:
    p = torch.randn(d, m, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return p / p.norm(dim=0)


def _ring(n: int, name: str = "ring, 2-D", **options: Any) -> Sampled:
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    target = srk.targets.GaussianMixture(
        [1.0] * 8, torch.stack([angle.cos(), angle.sin()], 1), [0.1] * 8
    )
    turn = (torch.arange(8, dtype=torch.float64) + 0.5) * (math.pi / 8)
    return _mixture(name, target, n, torch.stack([turn.cos(), turn.sin()]), **options)


def _mixture16(n: int, name: str = "mixture, 16-D", **options: Any) -> Sampled:
    g = torch.Generator().manual_seed(5)
    means = 0.7 * torch.randn(8, 16, generator=g, dtype=torch.float64)
    weights = [0.05, 0.08, 0.1, 0.12, 0.14, 0.15, 0.16, 0.2]
    stds = [0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.15, 0.1]
    return _mixture(
        name, srk.targets.GaussianMixture(weights, means, stds), n, _directions(16, 16), **options
    )


def _mixture64(n: int) -> Sampled:
    g = torch.Generator().manual_seed(6)
    means = 0.5 * torch.randn(8, 64, generator=g, dtype=torch.float64)
    stds = [0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.15, 0.1]
    target = srk.targets.GaussianMixture(
        [0.05, 0.08, 0.1, 0.12, 0.14, 0.15, 0.16, 0.2], means, stds
    )
    return _mixture(
        "mixture, 64-D",
        target,
        n,
        _directions(64, 32),
        note="VP, 8 components of deviations 0.1 to 0.3",
    )


def _images(name: str, data: Tensor, n: int, **options: Any) -> Sampled:
    """The exact score of a data set, along 12 principal components and 12 random directions."""
    data = data.flatten(1)
    wide = data.to(torch.float64)
    _, axes = torch.linalg.eigh((wide - wide.mean(0)).T @ (wide - wide.mean(0)))
    directions = torch.cat([axes[:, -12:], _directions(data.shape[1], 12)], 1)
    q = ((np.arange(n) + 0.5) / n * len(data)).astype(int)
    quantiles = (wide @ directions).sort(0).values[torch.from_numpy(q)]
    return Sampled(
        name, srk.targets.Empirical(data), VP, n, directions, quantiles, denoise=True, **options
    )


FASHION = "Fashion-MNIST, 784-D"


def _fashion() -> Sampled:
    """The first 2000 images: a call costs 2048 x 2000 x 784 products."""
    return _images(
        FASHION,
        srk.targets.datasets.fashion_mnist(2000),
        2048,
        budgets=(6, 8, 10, 14, 20),
        grids=("log-snr", "uniform"),
        solvers=(
            "auto",
            "srk2m",
            "srk2m-local",
            "ddpm",
            "euler-maruyama",
            "dpmpp-2m-sde",
            "sa-solver",
            "er-sde-3",
            "deis-3",
            HALF,
        ),
        note="VP, exact score of the first 2000 images",
    )


@functools.cache
def targets(quick: bool = False) -> dict[str, Gaussians | Sampled]:
    """All targets by name."""
    scales = tuple((float(v),) for v in np.logspace(-3, 1, 9))
    edm = ("log-snr", "karras", "gauge")
    if quick:
        made: list[Gaussians | Sampled] = [
            Gaussians("Gaussian, unit", EDM, ((1.0,),), grids=edm),
            _ring(4000),
        ]
        return {target.name: target for target in made}
    line = srk.targets.GaussianMixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])
    made = [
        Gaussians(
            "Gaussian, unit",
            EDM,
            ((1.0,),),
            grids=edm,
            exact=("wcw",),
            note="EDM, sigma 80 to 0.01",
        ),
        Gaussians(
            "Gaussian, 9 scales",
            EDM,
            scales,
            grids=edm,
            note="EDM, variances logspace(-3, 1, 9), mean KL",
        ),
        Gaussians(
            "Gaussian, 16-D",
            VP,
            (tuple(np.logspace(-2, 0.5, 16)),),
            mean=1.0,
            note="VP, eigenvalues logspace(-2, 0.5), mean 1",
        ),
        _mixture(
            "mixture, 1-D",
            line,
            160_000,
            torch.ones(1, 1, dtype=torch.float64),
            note="VP, 3 components",
        ),
        _ring(96_000, note="VP, 8 components of deviation 0.1 on the unit circle"),
        _mixture16(48_000, note="VP, 8 components of deviations 0.1 to 0.3"),
        _mixture64(8000),
        _images("digits, 64-D", srk.targets.datasets.digits(), 4096),
        _ring(48_000, "ring, score error 1%", perturb=0.01),
        _ring(48_000, "ring, score error 3%", perturb=0.03),
        _ring(48_000, "ring, score error 10%", perturb=0.1),
        _mixture16(32_000, "mixture 16-D, score error 10%", perturb=0.1),
    ]
    try:
        made.insert(7, _fashion())
    except MissingDataError as error:
        print(f"{FASHION} is left out: {error}", file=sys.stderr)
    return {target.name: target for target in made}


# -- what is run
# ------------------------------------------------------------


def stochastic_peers() -> list[str]:
    """Registered solvers that are not ours and run at eta = 1."""
    return [
        name
        for name, solver in srk.solvers().items()
        if name not in HOUSE and name not in ALIASES and solver.eta_range[1] >= 1.0
    ]


def ode_peers() -> list[str]:
    """Solvers of the probability-flow ODE alone."""
    return [name for name, solver in srk.solvers().items() if solver.eta_range[1] == 0.0]


def house() -> list[str]:
    return [name for name in HOUSE if name in srk.solvers() or name in SOLVERS]


@attrs.frozen
class Job:
    """One solver on one grid and target, at several budgets."""

    target: str
    solver: str
    grid: str
    nfe: tuple[int, ...]
    pilot: bool = False
    quick: bool = False
    repeat: int = 0

    def key(self, nfe: int) -> str:
        stage = f"repeat {self.repeat}" if self.repeat else "pilot" if self.pilot else "full"
        return "|".join((self.target, self.solver, self.grid, str(nfe), stage))


@functools.cache
def _target(name: str, pilot: bool, quick: bool) -> Gaussians | Sampled:
    target = targets(quick)[name]
    return (target.pilot() or target) if pilot else target


@functools.cache
def _budget(name: str, quick: bool) -> srk.steps.Budget:
    """One pilot for all runs of a target."""
    target = _target(name, True, quick)
    if not isinstance(target, Sampled):
        return srk.steps.Budget()
    return srk.steps.Budget(srk.calibrate(target.process, target.target.score(target.process)))


def run(job: Job) -> dict[str, float]:
    """Errors of the cells of a job; a budget that buys no step has none."""
    torch.set_num_threads(1)
    target = _target(job.target, job.pilot, job.quick)
    grid: Any = job.grid
    if job.grid == "gauge":
        grid = srk.steps.Gauge(data_variance=target.largest_variance)
    elif job.grid == "budget":
        grid = _budget(job.target, job.quick)
    out = {}
    for nfe in job.nfe:
        try:
            solver, eta = SOLVERS.get(job.solver, (job.solver, None))
            error = target.error(solver, grid, nfe, eta, seed=SEED + 1000 * job.repeat)
        except (SRKError, OverflowError, FloatingPointError, ZeroDivisionError):
            error = math.nan
        out[job.key(nfe)] = min(error, WORST) if math.isfinite(error) else math.nan
    return out


class Cells:
    """The results, kept on disk after every job."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.values: dict[str, float | None] = (
            json.loads(path.read_text()) if path is not None and path.exists() else {}
        )

    def save(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.values, indent=0, sort_keys=True))
            part.replace(self.path)

    def get(self, key: str) -> float:
        value = self.values.get(key)
        return math.nan if value is None else value

    def run(self, jobs: Iterable[Job], workers: int, label: str) -> None:
        """Run what is missing."""
        missing = [
            attrs.evolve(job, nfe=tuple(n for n in job.nfe if job.key(n) not in self.values))
            for job in jobs
        ]
        missing = [job for job in missing if job.nfe]
        began = time.perf_counter()
        saved = began
        with ProcessPoolExecutor(workers) as pool:
            futures = [pool.submit(run, job) for job in missing]
            for i, future in enumerate(as_completed(futures)):
                self.values.update(
                    {
                        key: None if math.isnan(value) else float(f"{value:.5g}")
                        for key, value in future.result().items()
                    }
                )
                if time.perf_counter() - saved > 5.0:
                    self.save()
                    saved = time.perf_counter()
                    print(
                        f"{label}: {i + 1}/{len(missing)} jobs, {saved - began:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
        self.save()


def collect(
    cells: Cells, names: Sequence[str], nfe: Sequence[int], workers: int, quick: bool
) -> None:
    """All cells.

    Pilots of every solver on sampled targets, then the serious runs of ours and of the best peers.
    """
    all_targets = targets(quick)
    peers, odes, ours = stochastic_peers(), ode_peers(), house()
    if quick:
        peers, odes, ours = ["ddpm", "dpmpp-2m-sde", "sa-solver"], ["dpmpp-2m"], ["srk2m"]
    full, pilots = [], []
    for name in names:
        target = all_targets[name]
        early = tuple(n for n in nfe if n < LATE and n in target.budgets)
        exact = isinstance(target, Gaussians)
        full += (
            [Job(name, HALF, "log-snr", early, quick=quick)]
            if HALF in (target.solvers or (HALF,))
            else []
        )
        if not exact:
            full.append(Job(name, "auto", "budget", early, quick=quick))
        if not exact and not target.perturbed:
            full += [
                Job(name, solver, "budget", tuple(n for n in early if n <= 20), quick=quick)
                for solver in BUDGET_PEERS
            ]
        for grid in target.grids:
            mine = [
                solver for solver in ours if grid == "log-snr" or solver not in ("srk1", "srk2s")
            ]  # those two only for the record
            if target.solvers:
                full += [
                    Job(name, solver, grid, early, quick=quick)
                    for solver in mine + peers + odes
                    if solver in target.solvers
                ]
            elif exact:
                full += [
                    Job(name, solver, grid, tuple(nfe), quick=quick)
                    for solver in mine + peers + odes
                ]
            else:
                full += [Job(name, solver, grid, early, quick=quick) for solver in mine]
                pilots += [
                    Job(name, solver, grid, early, pilot=True, quick=quick)
                    for solver in peers + odes
                ]
    cells.run(full, workers, "ours, and exact laws")
    cells.run(pilots, workers, "pilots")
    chosen = []
    sampled = [
        name
        for name in names
        if isinstance(all_targets[name], Sampled) and not all_targets[name].solvers
    ]
    for name in sampled:
        least = _target(name, True, quick).resolution
        for n in nfe:
            for group, count in ((peers, 6), (odes, 2)):
                jobs = [
                    Job(name, solver, grid, (n,), quick=quick)
                    for solver in group
                    for grid in all_targets[name].grids
                ]
                tried = [(cells.get(attrs.evolve(job, pilot=True).key(n)), job) for job in jobs]
                # what a pilot cannot tell apart is ranked by the exact laws
                found = [
                    ((max(error, least), _rank(cells, all_targets, job)), job)
                    for error, job in tried
                    if not math.isnan(error)
                ]
                chosen += [job for _, job in sorted(found, key=lambda f: f[0])[:count]]
    cells.run(chosen, workers, "the best peers")
    last = []
    for name in sampled:
        least = all_targets[name].resolution
        for n in (n for n in nfe if n >= LATE and nfe.index(n) > 0):
            last += [
                Job(name, solver, "log-snr", (n,), quick=quick)
                for solver in ("auto", "srk2m", "srk2m-local")
            ]
            before = nfe[nfe.index(n) - 1]
            for group, count in ((peers, 3), (odes, 1)):
                jobs = [
                    Job(name, solver, grid, (n,), quick=quick)
                    for solver in group
                    for grid in all_targets[name].grids
                ]
                tried = [(cells.get(job.key(before)), job) for job in jobs]
                found = [
                    ((max(error, least), _rank(cells, all_targets, job)), job)
                    for error, job in tried
                    if not math.isnan(error)
                ]
                last += [job for _, job in sorted(found, key=lambda f: f[0])[:count]]
    cells.run(last, workers, f"NFE {LATE}")
    again = [
        Job(name, solver, "log-snr", (n,), quick=quick, repeat=i + 1)
        for name in sampled
        for n in nfe
        if (rival := _ahead_of_auto(cells, all_targets[name], n)) is not None
        for solver in ("auto", rival.solver)
        for i in range(REPEATS)
    ]
    cells.run(again, workers, "cells in which auto is behind")


def _ahead_of_auto(cells: Cells, target: Gaussians | Sampled, nfe: int) -> Best | None:
    """The best of our other solvers on the log-SNR grid, if `auto` has more than 1.3 times its
    error.
    """
    rest = best(cells, target, [name for name in house() if name != "auto"], nfe, ["log-snr"])
    ours = best(cells, target, ["auto"], nfe, ["log-snr"])
    return rest if ours.error > AHEAD * rest.error else None


def _rank(cells: Cells, all_targets: Mapping[str, Gaussians | Sampled], job: Job) -> float:
    """Mean log error of a solver on the Gaussian targets, on the same grid where they have it."""
    errors = []
    for target in all_targets.values():
        if isinstance(target, Gaussians) and job.solver not in target.exact:
            grid = job.grid if job.grid in target.grids else "log-snr"
            errors.append(
                cells.get(attrs.evolve(job, target=target.name, grid=grid).key(job.nfe[0]))
            )
    errors = [math.log(max(e, 1e-9)) for e in errors if not math.isnan(e)]
    return float(np.mean(errors)) if errors else math.inf


# -- tables
# ------------------------------------------------------------


@attrs.frozen
class Best:
    """The smallest error of a group of solvers, and where."""

    error: float
    solver: str = ""
    grid: str = ""


def best(
    cells: Cells,
    target: Gaussians | Sampled,
    group: Iterable[str],
    nfe: int,
    grids: Sequence[str] | None = None,
) -> Best:
    """The best of a group on any of `grids`, from serious runs."""
    found = [
        Best(max(error, target.resolution), solver, grid)
        for solver in group
        for grid in (grids or target.grids)
        if not math.isnan(error := cells.get(Job(target.name, solver, grid, (nfe,)).key(nfe)))
        # a solver whose Gaussian reference is this very law (wcw: N(0, 1)) is exact by
        # construction, which says nothing
        and not (isinstance(target, Gaussians) and solver in target.exact)
    ]
    return min(found, key=lambda b: b.error) if found else Best(math.nan)


def _at_floor(
    cells: Cells,
    target: Gaussians | Sampled,
    group: Iterable[str],
    nfe: int,
    grids: Sequence[str] | None = None,
) -> bool:
    return best(cells, target, group, nfe, grids).error <= target.resolution


def _mean(ratios: Sequence[float]) -> float:
    ratios = [r for r in ratios if math.isfinite(r)]
    return math.exp(float(np.mean(np.log(ratios)))) if ratios else math.nan


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}" if value >= 0.01 else f"{value:.1e}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def report(cells: Cells, names: Sequence[str], nfe: Sequence[int], quick: bool) -> str:
    """The tables, in Markdown."""
    chosen = [targets(quick)[name] for name in names]
    peers, odes, ours = stochastic_peers(), ode_peers(), house()
    exact = [t for t in chosen if not t.perturbed]
    disturbed = [t for t in chosen if t.perturbed]

    def ratios(
        group: Sequence[Gaussians | Sampled],
        mine: Sequence[str],
        n: int,
        grids: Sequence[str] | None = None,
        exponent: float = 1.0,
    ) -> list[float]:
        out = []
        for t in group:
            a, b = (
                best(
                    cells, t, mine, n, grids and [g for g in grids if g in (*t.grids, "budget")]
                ).error,
                best(cells, t, peers, n).error,
            )
            if math.isfinite(a / b):
                out.append((a / b) ** exponent)
        return out

    head = ["", *(f"NFE {n}" for n in nfe)]
    lines: list[list[str]] = []
    single: list[str] = [name for name in ("auto", "srk2m", "srk2s", "srk1") if name in ours]
    for name in single:
        lines.append(
            [
                f"`{name}`, log-SNR grid, geometric mean",
                *(_number(_mean(ratios(exact, [name], n, ["log-snr"]))) for n in nfe),
            ]
        )
        if name in single[:2]:
            lines.append(
                [
                    f"`{name}`, log-SNR grid, worst target",
                    *(
                        _number(max(ratios(exact, [name], n, ["log-snr"]), default=math.nan))
                        for n in nfe
                    ),
                ]
            )
            lines.append(
                [
                    f"`{name}`, its best grid, geometric mean",
                    *(_number(_mean(ratios(exact, [name], n))) for n in nfe),
                ]
            )
    for label, kind in (("Gaussian targets", Gaussians), ("mixtures and images", Sampled)):
        part = [t for t in exact if isinstance(t, kind)]
        lines.append(
            [
                f"`{single[0]}`, log-SNR grid, {label} only",
                *(_number(_mean(ratios(part, single[:1], n, ["log-snr"]))) for n in nfe),
            ]
        )
        if kind is Sampled:
            told = [
                [
                    t
                    for t in part
                    if not (
                        _at_floor(cells, t, single[:1], n, ["log-snr"])
                        and _at_floor(cells, t, peers, n)
                    )
                ]
                for n in nfe
            ]
            shares = [
                ratios(ts, single[:1], n, ["log-snr"]) for ts, n in zip(told, nfe, strict=True)
            ]
            lines.append(
                [
                    "the same without those where both are at the resolution of the samples "
                    "(how many are left)",
                    *(f"{_number(_mean(f))} ({len(f)})" for f in shares),
                ]
            )
        lines.append(
            [
                f"best of ours, any grid, {label} only",
                *(_number(_mean(ratios(part, ours, n))) for n in nfe),
            ]
        )
        if kind is Sampled:
            lines.append(
                [
                    f"`auto`, budget grid, {label} only",
                    *(_number(_mean(ratios(part, ["auto"], n, ["budget"]))) for n in nfe),
                ]
            )
            level = [
                _mean(
                    [
                        best(cells, t, ["auto"], n, ["budget"]).error
                        / best(cells, t, BUDGET_PEERS, n, ["budget"]).error
                        for t in part
                    ]
                )
                for n in nfe
            ]
            lines.append(
                [
                    f"the same over the best of `{'`, `'.join(BUDGET_PEERS)}` on this grid too",
                    *map(_number, level),
                ]
            )
            lines.append(
                [
                    f"`{HALF}`, log-SNR grid, {label} only",
                    *(_number(_mean(ratios(part, [HALF], n, ["log-snr"]))) for n in nfe),
                ]
            )
    lines.append(
        [
            "best of ours, any grid, geometric mean",
            *(_number(_mean(ratios(exact, ours, n))) for n in nfe),
        ]
    )
    lines.append(
        [
            "best of ours, any grid, worst target",
            *(_number(max(ratios(exact, ours, n), default=math.nan)) for n in nfe),
        ]
    )
    if disturbed:
        lines.append(
            [
                f"perturbed scores: `{single[0]}`, log-SNR grid",
                *(_number(_mean(ratios(disturbed, single[:1], n, ["log-snr"]))) for n in nfe),
            ]
        )
        lines.append(
            [
                "perturbed scores: `auto`, budget grid",
                *(_number(_mean(ratios(disturbed, ["auto"], n, ["budget"]))) for n in nfe),
            ]
        )
        lines.append(
            [
                f"perturbed scores: `{HALF}`, log-SNR grid",
                *(_number(_mean(ratios(disturbed, [HALF], n, ["log-snr"]))) for n in nfe),
            ]
        )
        lines.append(
            [
                "perturbed scores: best of ours, any grid",
                *(_number(_mean(ratios(disturbed, ours, n))) for n in nfe),
            ]
        )
    text = (
        "## Error relative to the best stochastic peer, on its best grid\n\n"
        + table(head, lines)
        + "\n"
    )
    if "auto" in ours:
        text += _own(cells, chosen, nfe)
    for t in chosen:
        rows = []
        for label, group in (("ours", ours), ("stochastic peer", peers), ("ODE peer", odes)):
            found = [best(cells, t, group, n) for n in nfe]
            rows.append([f"best {label}", *(_number(b.error) for b in found)])
            rows.append(["", *(f"{b.solver}, {b.grid}" if b.solver else "" for b in found)])
        for name in [*single, HALF]:
            found = [best(cells, t, [name], n, ["log-snr"]) for n in nfe]
            rows.append([f"`{name}`, log-SNR", *(_number(b.error) for b in found)])
        if isinstance(t, Sampled):
            rows.append(
                [
                    "`auto`, budget",
                    *(_number(best(cells, t, ["auto"], n, ["budget"]).error) for n in nfe),
                ]
            )
        for name in (
            "ddpm",
            "euler-maruyama",
            "dpmpp-2m-sde",
            "dpmpp-3m-sde",
            "sa-solver",
            "seeds-2",
            "er-sde-3",
            "dpmpp-sde",
        ):
            found = [best(cells, t, [name], n) for n in nfe]
            if any(b.solver for b in found):
                rows.append([f"`{name}`, best grid", *(_number(b.error) for b in found)])
        note = f" ({t.note})" if t.note else ""
        floor = (
            f" Resolution {t.resolution:.2g}; a dash is a cell that was not run"
            + ("." if t.solvers else ": a peer that was not among the best in the pilot.")
            if isinstance(t, Sampled)
            else ""
        )
        measure = "sqrt(KL)" if isinstance(t, Gaussians) else "sliced W1 above the floor"
        text += f"### {t.name}{note}\n\n{measure}.{floor}\n\n" + table(head, rows) + "\n"
    return text


def _own(cells: Cells, chosen: Sequence[Gaussians | Sampled], nfe: Sequence[int]) -> str:
    """`auto` against the other house solvers, cell by cell, and what the fresh seeds say where it
    is behind.
    """
    rest = [name for name in house() if name != "auto"]
    means, worst, where, repeated = [], [], [], []
    for n in nfe:
        pairs = [
            (
                best(cells, t, ["auto"], n, ["log-snr"]).error
                / best(cells, t, rest, n, ["log-snr"]).error,
                t.name,
            )
            for t in chosen
        ]
        pairs = [pair for pair in pairs if math.isfinite(pair[0])]
        means.append(_number(_mean([ratio for ratio, _ in pairs])))
        worst.append(_number(max(pairs)[0] if pairs else math.nan))
        where.append(max(pairs)[1] if pairs else "")
        for t in chosen:
            rival = _ahead_of_auto(cells, t, n)
            if rival is None or not isinstance(t, Sampled):
                continue
            found = []
            for solver in ("auto", rival.solver):
                jobs = [Job(t.name, solver, "log-snr", (n,), repeat=i + 1) for i in range(REPEATS)]
                found.append([max(cells.get(job.key(n)), t.resolution) for job in jobs])
            a, b = (float(np.mean(f)) for f in found)
            low, high = min(min(f) for f in found), max(max(f) for f in found)
            if math.isfinite(a / b):
                repeated.append(
                    [
                        t.name,
                        str(n),
                        f"{a:.2g}",
                        f"{rival.solver}: {b:.2g}",
                        f"{low:.2g} to {high:.2g}",
                        f"{a / b:.2g}",
                    ]
                )
    text = "## `auto` over the best of the other house solvers, log-SNR grid\n\n" + table(
        ["", *(f"NFE {n}" for n in nfe)],
        [["geometric mean over all targets", *means], ["worst target", *worst], ["", *where]],
    )
    if repeated:
        text += (
            f"\nCells of sampled targets above {AHEAD}, with {REPEATS} fresh seeds:\n\n"
            + table(
                [
                    "target",
                    "NFE",
                    "`auto`, mean",
                    "the other, mean",
                    "all runs",
                    "ratio of the means",
                ],
                repeated,
            )
        )
    return text + "\n## Target by target\n\n"


HEADER = """# Error at equal numbers of network calls

Made by `python benchmarks/quality.py` on a 2-core x86-64 cloud machine, CPU.

Below 1 ours is better. Every stochastic solver that is registered runs at eta = 1 (or
the noise of its own) on the grids log-SNR, Karras (rho = 7),
for VP uniform in t, and `gauge` with the largest variance of the data; the peer of a
column is the best of all of them on its best grid for that target.
Errors of Gaussian targets are sqrt(KL), exact; the others
are sliced W1 above the sampling floor, never below the resolution of the samples. On
sampled targets all peers are tried with a sixteenth of the samples, and
the six best cells (ties by the exact laws) are then run with all of them; at NFE 100
only `auto`, `srk2m` and the four leaders of NFE 50 are run.
A mean leaves out the targets on which its solver was not run.
Score errors are smooth in state and noise level, relative to the posterior deviation.
Fashion-MNIST: the solvers of its table alone, up to NFE 20, on two grids.
The budget grid (`grid="budget"`) comes from a pilot, once per target, whose calls
are not in NFE; it is in no row but its own.
`gddim` is, on these processes, `dpmpp-2m-sde` in its variant "heun".

Not run here: CIFAR-10 (its exact score costs 100 times that of 2000 images of
Fashion-MNIST), `restart` (the number of calls
depends on the grid, so that it cannot be put in a column), and networks:
`benchmarks/networks.py` makes `networks.md`.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few targets and solvers, under a minute; writes nothing",
    )
    parser.add_argument(
        "--report", action="store_true", help="write the tables from the cells that are there"
    )
    parser.add_argument("--only", nargs="*", help="names of targets")
    parser.add_argument("--forget", nargs="*", default=[], help="solvers whose cells are run anew")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    nfe = (8, 20) if args.quick else NFE
    names = args.only or list(targets(args.quick))
    cells = Cells(None if args.quick else args.folder / "quality.json")
    cells.values = {
        key: value for key, value in cells.values.items() if key.split("|")[1] not in args.forget
    }
    if not args.report:
        collect(cells, names, nfe, args.workers, args.quick)
    text = HEADER + report(cells, names, nfe, args.quick)
    if args.quick:
        print(text)
    else:
        (args.folder / "quality.md").write_text(text)
        print(text[: text.index("### ")])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
