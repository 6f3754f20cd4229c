"""Error at equal numbers of network calls against every other method, on targets that look like
data: modes of very different width, spectra of images, flows on the grids of hosts, guidance.

    python benchmarks/paired.py                # all of it: an hour of one core; resumes
    python benchmarks/paired.py --quick        # a smoke test of seconds; writes nothing
    python benchmarks/paired.py --report       # only the tables, from the cells that are there

Results go to benchmarks/results/paired.json (one cell for each case, solver, grid and NFE) and
benchmarks/results/paired.md.

`benchmarks/quality.py` compares samples with the exact distribution, and from some 14 calls on most
errors are below what its samples resolve. Here every run is compared with a fine solution that
starts from the same noise and follows the same Brownian path (of the same clock; a method of the
probability-flow ODE: with a fine solution of that ODE), so that the sampling errors of the two
cancel. With F and G the distribution functions of a projection of the run and of the fine solution,

    error^2 = mean over directions of the integral of (F - G)^2

in units of the standard deviation of the projection: Cramer's distance, the sliced form of the
energy distance. The samples are cut into groups, and (F - G)^2 is the mean of the products of two
different groups: that is unbiased, and has a standard error (a jackknife over the groups).
The reference is what the process and the score define, with guidance too, where no
distribution is known.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

import srk
from srk.integrators import SRK2M
from srk.noise import BrownianNoise
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.scores import Prediction

RESULTS = Path(__file__).parent / "results"
NFE = (6, 8, 10, 14, 20, 30)
GROUPS = 8
"""Groups of samples, of which different ones are multiplied."""
POINTS = 256
"""Points at which the distribution functions of a projection are compared."""
LEVELS = 4
"""Halvings of an octave of a clock at whose ends all runs have the same path."""
SEED = 20261126
FINE = 400
"""Network calls of a fine solution."""
LIMIT = 10.0
"""Errors are capped here: a run that overflows counts as this."""
PROFILED, NOISY = "auto, profile", "auto, profile, eta 1"
OURS = ("auto", PROFILED, NOISY, "srk2m-local", "srk2m", "srk2")
MORE = 2
"""Times as many samples of mixtures for our own methods, whose errors of the sampling would hide
the rest; the others, of which most follow the ODE, have small ones."""
OWN = ("srk2m-local", "srk2m", "srk2")
"""Of ours, those that `auto` stands for; on the grid that it takes too."""
PEERS = (
    "ddpm",
    "dpmpp-2m-sde",
    "dpmpp-3m-sde",
    "sa-solver",
    "seeds-2",
    "er-sde-3",
    "edm-heun",
)
FRONT = ("dpmpp-2m-sde", "er-sde-3")
ODES = (
    "euler",
    "heun",
    "dpmpp-2m",
    "dpmpp-3m",
    "deis-2",
    "deis-3",
    "unipc-2",
    "unipc-3",
    "lms",
)
GRIDS = ("log-snr", "karras", "uniform", "kl-optimal", "gauge")
OPEN = ", open end"
"""Follows the grid of runs of others without the final denoising, whose call buys a step more."""
FINEST = {
    "ode": "deis-3",
    "gauge(0,1)": SRK2M(data_variance=0.0, strong=True),
    "time": "sra1",
    "er-sde(1)": "er-sde-3",
    "half-log-snr": "edm-heun",
}
"""Clock -> solver of the fine solution; on the clock of a gauge v it is `srk2m-local` with v."""


# -- targets ---------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Sparse(Prediction):
    """Independent coordinates with heavy tails: sum_k w_k N(0, (a_k c_i)^2) in coordinate i.

    Such are the coefficients of images in a basis of wavelets.
    """

    scales: Tensor
    weights: tuple[float, ...] = (0.8, 0.2)
    widths: tuple[float, ...] = (0.3, 2.1)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.scales.shape)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        a, s2 = level.alpha, level.sigma**2
        scales = self.scales.to(x.dtype)
        logs, means = [], []
        for w, width in zip(self.weights, self.widths, strict=True):
            v = (width * scales).square()
            n = a * a * v + s2
            logs.append(math.log(w) - 0.5 * (x.square() / n + n.log()))
            means.append(x * (a * v / n))
        share = torch.stack(logs).softmax(0)
        return (share * torch.stack(means)).sum(0)

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return (self.denoise(x, level, process) * level.alpha - x) / level.sigma**2


@attrs.frozen(eq=False)
class OneCall(Prediction):
    """D = D_0 + w (D_1 - D_0), counted as one call: guidance whose two halves are one batch."""

    condition: Prediction
    reference: Prediction
    scale: float

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        return self.reference.event_shape

    def bind(self, process: ForwardProcess) -> Prediction:
        return attrs.evolve(
            self, condition=self.condition.bind(process), reference=self.reference.bind(process)
        )

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        base = self.reference.denoise(x, level, process)
        return base + self.scale * (self.condition.denoise(x, level, process) - base)

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return (self.denoise(x, level, process) * level.alpha - x) / level.sigma**2


def mixture(
    weights: Sequence[float], means: Any, stds: Any
) -> Callable[[LinearProcess], Prediction]:
    target = srk.targets.GaussianMixture(weights, means, stds)
    return lambda process: target.score(process)


def spectrum(d: int, power: float = 2.0, top: float = 1.0) -> Tensor:
    """Standard deviations of the coordinates of a sqrt(d) x sqrt(d) image with amplitude
    1/frequency^(power/2), largest first; their mean square is top^2/8.
    """
    side = round(math.sqrt(d))
    k = torch.arange(side, dtype=torch.float64)
    frequency = (k[:, None] ** 2 + k[None] ** 2).sqrt().flatten() + 1.0
    stds = frequency.pow(-power / 2.0).sort(descending=True).values
    return stds * (top / math.sqrt(8.0) / stds.square().mean().sqrt())


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_images(d: int) -> Callable[[LinearProcess], Prediction]:
    target = srk.targets.Gaussian(torch.zeros(d, dtype=torch.float64), spectrum(d).square())
    return lambda process: target.score(process)


def classes(d: int, k: int = 10) -> srk.targets.GaussianMixture:
    """Ten classes: means and spreads with the spectrum of images, spreads of different size."""
    stds = spectrum(d)
    means = 0.8 * stds * _random(k, d, seed=11)
    sizes = torch.linspace(0.25, 0.8, k, dtype=torch.float64)
    return srk.targets.GaussianMixture([1.0] * k, means, sizes[:, None] * stds)


def class_images(d: int) -> Callable[[LinearProcess], Prediction]:
    target = classes(d)
    return lambda process: target.score(process)


def guided(d: int, scale: float = 3.0) -> Callable[[LinearProcess], Prediction]:
    """Three of the ten classes, with guidance."""
    whole = classes(d)
    part = srk.targets.GaussianMixture([1.0] * 3, torch.as_tensor(whole.means)[:3], _stds(d)[:3])
    return lambda process: OneCall(part.score(process), whole.score(process), scale)


def _stds(d: int) -> Tensor:
    return torch.linspace(0.25, 0.8, 10, dtype=torch.float64)[:, None] * spectrum(d)


def sparse_images(d: int) -> Callable[[LinearProcess], Prediction]:
    return lambda process: Sparse(spectrum(d))


def narrow_and_broad(d: int) -> Callable[[LinearProcess], Prediction]:
    if d == 1:
        return mixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3])
    means = _random(6, d, seed=12) * (0.9 / math.sqrt(d) * 2.0)
    return mixture([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], means, [0.02, 0.4, 0.05, 0.3, 0.1, 0.6])


def three_modes() -> Callable[[LinearProcess], Prediction]:
    return mixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])


def many_modes(d: int) -> Callable[[LinearProcess], Prediction]:
    stds = [0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.15, 0.1]
    return mixture(
        [0.05, 0.08, 0.1, 0.12, 0.14, 0.15, 0.16, 0.2], 0.7 * _random(8, d, seed=5), stds
    )


def ring(width: float = 0.1) -> Callable[[LinearProcess], Prediction]:
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return mixture([1.0] * 8, torch.stack([angle.cos(), angle.sin()], 1), [width] * 8)


def lattice() -> Callable[[LinearProcess], Prediction]:
    points = torch.cartesian_prod(*[torch.tensor([-0.8, 0.0, 0.8], dtype=torch.float64)] * 2)
    return mixture([1.0] * 9, points, [0.06] * 9)


# -- cases -----------------------------------------------------------------------------------------


def shifted(shift: float) -> Callable[[int], list[float]]:
    """The grid of flow models: n equal steps of t from 1 to 0, shifted towards noise."""

    def times(steps: int) -> list[float]:
        t = np.linspace(1.0, 0.0, steps + 1)
        found: list[float] = (shift * t / (1.0 + (shift - 1.0) * t)).tolist()
        return found

    return times


@attrs.frozen(eq=False)
class Case:
    """A score with its process.

    Arguments:
        name, kind: of the tables.
        process: what is reversed.
        make: its score, of the process.
        d, n: coordinates and samples.
        shift: of the host's grid, on which every method is run; 0: on grids of its own.
        variance: the largest variance of the data in any direction, for the grid `gauge`.
        dtype: of the states.
    """

    name: str
    kind: str
    process: LinearProcess
    make: Callable[[LinearProcess], Prediction]
    d: int
    n: int
    shift: float = 0.0
    variance: float = 1.0
    dtype: torch.dtype = torch.float32

    @functools.cached_property
    def score(self) -> Prediction:
        return self.make(self.process).bind(self.process)

    @functools.cached_property
    def profile(self) -> srk.Profile:
        return self.calibrated(0)

    def calibrated(self, seed: int) -> srk.Profile:
        process = srk.Flow() if self.shift else self.process
        return srk.calibrate(process, self.make(process).bind(process), shape=32, seed=seed)

    @functools.cached_property
    def directions(self) -> Tensor:
        """Shape (d, m): of small states random ones, of large ones half of them coordinates."""
        if self.d == 1:
            return torch.ones(1, 1)
        wild = _random(self.d, 12, seed=3)
        wild = wild / wild.norm(dim=0)
        if self.d < 64:
            return wild.float()
        axes = np.unique(np.geomspace(1, self.d, 12).round().astype(int) - 1)
        return torch.cat([wild, torch.eye(self.d, dtype=torch.float64)[:, axes]], 1).float()

    def grids(self) -> tuple[str, ...]:
        if self.shift:
            return ("host",)
        return tuple(g for g in GRIDS if g != "uniform" or not isinstance(self.process, srk.EDM))

    def grid(self, name: str) -> Any:
        return srk.steps.Gauge(self.variance) if name == "gauge" else name

    @functools.cached_property
    def ours(self) -> Case:
        """The case for our own methods: with more samples of mixtures in few dimensions."""
        many = self.kind == "mixtures" and self.d < 64
        return attrs.evolve(self, n=MORE * self.n) if many else self

    @functools.cached_property
    def free(self) -> Case:
        """The case without a host, whose steps a profile places."""
        return attrs.evolve(self, shift=0.0) if self.shift else self

    def forget(self) -> None:
        """Drop the fine solutions."""
        for case in (self, self.ours, self.free):
            case.kept.clear()

    def solve(
        self,
        solver: Any,
        nfe: int,
        grid: Any,
        eta: float | None = None,
        open_end: bool = False,
        **options: Any,
    ) -> Tensor:
        """Samples, shape (n, d); with an open end the scaled states at the end of the process."""
        if solver in ODES or solver == FINEST["ode"]:
            eta = 0.0
        process, more = self.process, {"nfe": nfe}
        if grid == "host":
            # one call a step, and none at the end of the schedule, which is 0
            calls = 2 if solver in ("srk2", "heun", "seeds-2", "edm-heun") else 1
            process = srk.Flow(0.0)
            grid, more = shifted(self.shift)(nfe // calls), {"denoise_final": False}
        elif open_end:
            more = {"nfe": nfe, "denoise_final": False}
        sol = srk.solve(
            process,
            self.make(process).bind(process),
            solver,
            shape=(self.n, self.d),
            grid=grid,
            eta=eta,
            noise=BrownianNoise(SEED, levels=LEVELS),
            dtype=self.dtype,
            on_failure="return",
            **more,
            **options,
        )
        if not sol.success:
            return torch.full_like(sol.x, math.nan)
        return sol.x / process.alpha(process.t_min) if open_end else sol.x

    def clock(self, solver: Any) -> str:
        """The name of the clock that the solver's Brownian path lives on."""
        if solver in ODES:
            return "ode"
        method = srk.solvers()[solver] if isinstance(solver, str) else solver
        method = method.choose(self.process, 1.0, 10)
        ends = [self.process.lam(self.process.t_min), -2.0]
        lam = float(np.mean(ends))
        step = Step(
            self.process, self.process.level_at(lam), self.process.level_at(lam + 0.1), 1.0, 0
        )
        return method.plan_step(step).clock

    def fine(self, clock: str) -> Tensor:
        """Projections of the fine solution on a clock, shape (n, m)."""
        if clock not in self.kept:
            solver: Any = FINEST.get(clock)
            if solver is None:
                v = float(clock.removeprefix("gauge(").removesuffix(",1)"))
                solver = srk.integrators.SRK2MLocal(data_variance=v)
            self.kept[clock] = self.solve(solver, FINE, "log-snr") @ self.directions.to(self.dtype)
        return self.kept[clock]

    kept: dict[str, Tensor] = attrs.field(factory=dict, init=False)

    def error(self, solver: Any, nfe: int, grid: Any, **options: Any) -> tuple[float, float]:
        """Error of a run and its standard error."""
        y = self.fine(self.clock(solver))
        x = self.solve(solver, nfe, grid, **options) @ self.directions.to(self.dtype)
        return distance(x, y)


def distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Cramer's distance of paired projections, shape (n, m), and its standard error."""
    if not bool(torch.isfinite(x).all()):
        return LIMIT, 0.0
    centre, spread = y.mean(0), y.std(0)
    x, y = ((z - centre) / spread for z in (x, y))
    inner = y.sort(0).values[:: max(1, len(y) // (POINTS - 2))]
    # between samples: at one of them a run that is all but equal would count as one apart
    inner = 0.5 * (inner[1:] + inner[:-1])
    wide = (inner[-1] - inner[0]) * 0.5
    points = torch.cat([inner[:1] - wide, inner, inner[-1:] + wide]).T.contiguous()
    weights = torch.diff(points, dim=1)

    def cdf(z: Tensor) -> Tensor:
        return torch.searchsorted(z.T.contiguous().sort(1).values, points).double() / len(z)

    gaps = torch.stack(
        [cdf(a) - cdf(b) for a, b in zip(x.chunk(GROUPS), y.chunk(GROUPS), strict=True)]
    )
    gaps = 0.5 * (gaps[:, :, 1:] + gaps[:, :, :-1]) * weights.sqrt()
    gaps = gaps.flatten(1) / math.sqrt(points.shape[0])
    products = gaps @ gaps.T
    whole = products.sum() - products.diagonal().sum()

    def without(g: int) -> float:
        left = [i for i in range(GROUPS) if i != g]
        part = products[left][:, left]
        return float(part.sum() - part.diagonal().sum()) / (len(left) * (len(left) - 1))

    value = float(whole) / (GROUPS * (GROUPS - 1))
    left = np.array([without(g) for g in range(GROUPS)])
    error = math.sqrt((GROUPS - 1) / GROUPS * float(((left - left.mean()) ** 2).sum()))
    root = math.sqrt(max(value, 0.0))
    return root, error / (2.0 * root) if value > error else math.sqrt(error)


@functools.cache
def cases(quick: bool = False) -> dict[str, Case]:
    edm, vp, flow = srk.EDM(0.002, 80.0), srk.VP(), srk.Flow()
    mix, image = "mixtures", "like images"
    if quick:
        made = [Case("three modes, 1-D", mix, vp, three_modes(), 1, 512)]
        return {case.name: case for case in made}
    made = [
        Case("narrow and broad, 1-D", mix, edm, narrow_and_broad(1), 1, 16384, variance=0.23),
        Case("narrow and broad, 16-D", mix, vp, narrow_and_broad(16), 16, 4096, variance=0.8),
        Case("narrow and broad, 64-D", mix, flow, narrow_and_broad(64), 64, 2048, variance=0.8),
        Case("three modes, 1-D", mix, vp, three_modes(), 1, 16384, variance=0.7),
        Case("many modes, 16-D", mix, edm, many_modes(16), 16, 4096, variance=2.0),
        Case("ring, 2-D", mix, vp, ring(), 2, 8192, variance=0.5),
        Case("narrow ring, 2-D", mix, edm, ring(0.05), 2, 8192, variance=0.5),
        Case("lattice, 2-D", mix, flow, lattice(), 2, 8192, variance=0.43),
        Case("Gaussian spectrum, 256-D", image, vp, gaussian_images(256), 256, 512, variance=20.0),
        Case("sparse spectrum, 64-D", image, edm, sparse_images(64), 64, 4096, variance=2.0),
        Case("sparse spectrum, 1024-D", image, vp, sparse_images(1024), 1024, 512, variance=30.0),
        Case("ten classes, 64-D", image, vp, class_images(64), 64, 4096, variance=2.0),
        Case("ten classes, 256-D", image, edm, class_images(256), 256, 512, variance=20.0),
        Case("ten classes, 256-D, flow", image, flow, class_images(256), 256, 512, variance=20.0),
        Case("ten classes, guidance 3, 64-D", image, edm, guided(64), 64, 2048, variance=2.0),
        Case("ten classes, guidance 3, 256-D", image, flow, guided(256), 256, 512, variance=20.0),
    ]
    for shift in (1.0, 3.0, 5.0):
        name, kind = f"shift {shift:g}", "hosts' flows"
        made += [
            Case(f"three modes, {name}", kind, flow, three_modes(), 1, 16384, shift),
            Case(f"ten classes, 64-D, {name}", kind, flow, class_images(64), 64, 2048, shift),
            Case(
                f"sparse spectrum, 256-D, {name}", kind, flow, sparse_images(256), 256, 512, shift
            ),
        ]
    return {case.name: case for case in made}


# -- runs ------------------------------------------------------------------------------------------


@attrs.define
class Cells:
    """Errors and standard errors, kept in a file after every one of them that is new."""

    path: Path | None
    values: dict[str, list[float]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            self.values = json.loads(self.path.read_text())

    def get(self, case: Case, label: str, nfe: int, grid: str) -> list[float]:
        key = f"{case.name}|{label}|{grid}|{nfe}"
        if key not in self.values:
            self.values[key] = [round(v, 6) for v in run(case, label, nfe, grid)]
        return self.values[key]

    def error(self, case: Case, label: str, nfe: int, grid: str) -> float:
        """The error, or its standard error where that is larger; nan for cells not run."""
        found = self.values.get(f"{case.name}|{label}|{grid}|{nfe}")
        return max(found) if found else math.nan

    def save(self) -> None:
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.values, indent=0) + "\n")
            os.replace(part, self.path)


def run(case: Case, label: str, nfe: int, grid: str) -> tuple[float, float]:
    case = case.ours if label in OURS else case
    if label in (PROFILED, NOISY):
        free = case.free
        chosen = srk.integrators.Auto().calibrated(free.profile)
        eta = 1.0 if label == NOISY else chosen.default_eta
        y = free.fine("ode" if eta == 0.0 else free.clock(chosen))
        placed = srk.steps.Budget(free.profile)
        x = free.solve(chosen, nfe, placed, eta=eta) @ free.directions.to(free.dtype)
        return distance(x, y)
    open_end = grid.endswith(OPEN)
    return case.error(label, nfe, case.grid(grid.removesuffix(OPEN)), open_end=open_end)


def fixed(case: Case) -> list[tuple[str, str]]:
    """Every other method on every fixed grid; of the stochastic ones, which led no mixture but for
    `er-sde-3`, two for the larger states. Those of the ODE with and without a final denoising.
    """
    peers = PEERS if case.kind == "mixtures" else FRONT
    made = [(solver, grid) for grid in case.grids() for solver in (*peers, *ODES)]
    if not case.shift:  # whose runs end where the host's schedule does
        made += [(solver, grid + OPEN) for grid in case.grids() for solver in ODES]
    return made


NEAR = {8: (6, 8, 10), 20: (14, 20, 30)}
"""Budgets at which every method is tried, and those at which its leaders are run then."""
LEADERS = 6


def collect(cells: Cells, names: Sequence[str], limit: float) -> bool:
    """Run what is missing; False if the time was up before the end."""
    began = time.monotonic()
    for name in sorted(names, key=lambda name: cases()[name].d * cases()[name].n):
        case = cases()[name]
        own = "host" if case.shift else "log-snr"
        before = len(cells.values)
        for nfe in NFE:
            for label in OURS:
                cells.get(case, label, nfe, "profile" if label in (PROFILED, NOISY) else own)
            cells.save()
        for tried, budgets in NEAR.items():
            found = sorted((max(cells.get(case, s, tried, g)), s, g) for s, g in fixed(case))
            cells.save()
            for nfe in budgets:
                for _, s, g in found[:LEADERS]:
                    cells.get(case, s, nfe, g)
        case.forget()
        cells.save()
        if len(cells.values) > before:
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        if time.monotonic() - began > limit:
            return False
    return True


# -- tables ----------------------------------------------------------------------------------------


@attrs.frozen
class Best:
    """The smallest error of a group, and whose it is."""

    error: float
    label: str = ""


def best(cells: Cells, case: Case, labels: Sequence[str], nfe: int) -> Best:
    """The best cell of a group of solvers on any grid."""
    found = [
        Best(max(value), f"{parts[1]}, {parts[2]}")
        for key, value in cells.values.items()
        if (parts := key.split("|"))[0] == case.name and parts[1] in labels and parts[3] == str(nfe)
    ]
    return min(found, key=lambda b: b.error) if found else Best(math.nan)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def ratio_rows(cells: Cells, group: Sequence[Case]) -> list[list[str]]:
    """Geometric means and worst cases of the ratios that the text speaks of."""
    others = (*PEERS, *ODES)
    rows: list[list[str]] = []
    pairs = [
        ("`auto` over the best of the others", ["auto"], others),
        ("`auto` with a profile over the best of the others", [PROFILED], others),
        ("the same with eta = 1", [NOISY], others),
        ("`auto` with a profile over `auto`", [PROFILED], ["auto"]),
        ("`auto` over the best of our own", ["auto"], OWN),
    ]
    for name, mine, theirs in pairs:
        ratios = [
            [best(cells, c, mine, n).error / best(cells, c, theirs, n).error for c in group]
            for n in NFE
        ]
        means = [float(np.exp(np.nanmean(np.log(r)))) if r else math.nan for r in ratios]
        rows.append([name, *(number(mean) for mean in means)])
        rows.append(["worst case", *(number(float(np.nanmax(r))) for r in ratios)])
    return rows


def report(cells: Cells) -> str:
    # a case counts where the others and all of ours were run
    there = {
        case.name
        for case in cases().values()
        if best(cells, case, (*PEERS, *ODES), NFE[-1]).label
        and all(best(cells, case, [label], NFE[-1]).label for label in OURS)
    }
    run_cases = [case for case in cases().values() if case.name in there]
    head = ["", *(f"NFE {n}" for n in NFE)]
    text = HEADER
    left = [case.name for case in cases().values() if case.name not in there]
    text += "<!-- --8<-- [start:ratios] -->\n\n"
    for kind in dict.fromkeys(case.kind for case in run_cases):
        group = [case for case in run_cases if case.kind == kind]
        text += f"### {kind[0].upper()}{kind[1:]}, {len(group)} cases\n\n"
        text += "; ".join(case.name for case in group) + ".\n\n"
        text += table(head, ratio_rows(cells, group)) + "\n"
    if left:
        text += "Not run: " + "; ".join(left) + ".\n\n"
    text += "<!-- --8<-- [end:ratios] -->\n\n"
    for case in run_cases:
        lines = []
        for name, labels in (("best other", (*PEERS, *ODES)), ("best other SDE", PEERS)):
            found = [best(cells, case, labels, n) for n in NFE]
            lines.append([name, *(f"{b.error:.4f}" for b in found)])
            lines.append(["", *(b.label for b in found)])
        for label in OURS:
            grid = "profile" if label in (PROFILED, NOISY) else "host" if case.shift else "log-snr"
            found_cells = [cells.values.get(f"{case.name}|{label}|{grid}|{n}") for n in NFE]
            lines.append(
                [f"`{label}`", *(f"{v[0]:.4f} ± {v[1]:.4f}" if v else "-" for v in found_cells)]
            )
        text += f"### {case.name}\n\n{case.process!r}, {case.n} samples.\n\n"
        text += table(head, lines) + "\n"
    return text


HEADER = """# Error at equal numbers of network calls, paired

Made by `python benchmarks/paired.py` on a 2-core x86-64 cloud machine, CPU, float32.

Sliced Cramer distance between a run and a fine solution on the same noise, in units of the
standard deviation of a projection; a cell is its estimate ± the standard error, and ratios take
the larger of the two. Below 1 the first is better. The others are `"""
HEADER += "`, `".join((*PEERS, *ODES))
HEADER += """` on the grids `"""
HEADER += "`, `".join(GRIDS)
HEADER += """`
(the largest variance of the data is told to `gauge`; EDM without `uniform`), each tried at 8 and
20 calls, of which the best six are then run at all budgets; stochastic ones at eta = 1, and other
than on mixtures `dpmpp-2m-sde` and `er-sde-3` only. Methods of the ODE are also tried with an open
end: without the final denoising, whose call then buys one more step. The best of the others is
picked afterwards for each case and budget, which flatters it. `auto`, `srk2m`, `srk2m-local` and
`srk2` run on `log-snr`. For the hosts' flows all run on the host's uniform grid with its shift, one
call a step and none at the end, but for the row with a profile, which places its own steps. A
profile is one calibration (32 samples, 99 calls) for all budgets of a case; its calls are not in
NFE.

From some 14 calls on the standard error of stochastic methods is no smaller than the error of the
best methods of the ODE, so that their ratios there are upper bounds. With a profile `auto` follows
the ODE; its row with eta = 1 has noise. Our own methods run mixtures in few dimensions with twice
the samples that are named.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case; writes nothing")
    parser.add_argument("--report", action="store_true", help="only the tables")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--forget", nargs="*", default=[], help="solvers that are run anew")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds; then stop")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", srk.errors.GridWarning)
    if args.quick:
        (case,) = cases(True).values()
        for label in ("auto", PROFILED, "dpmpp-2m"):
            value, error = run(case, label, 8, "log-snr")
            print(f"{case.name}, {label}, NFE 8: {value:.4f} ± {error:.4f}")
        return
    cells = Cells(args.folder / "paired.json")
    cells.values = {
        key: value for key, value in cells.values.items() if key.split("|")[1] not in args.forget
    }
    if not args.report:
        collect(cells, args.only or list(cases()), args.limit)
    (args.folder / "paired.md").write_text(report(cells), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
