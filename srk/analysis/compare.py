"""Work and precision: the distance to the target that each solver reaches with equal numbers of network calls."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from srk import data
from srk.analysis.metrics import METRICS, Metric
from srk.analysis.plotting import MARKERS, PALETTE, pyplot
from srk.control import StepController, as_grid
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, UnknownNameError
from srk.integrators import Integrator, integrator
from srk.processes import process as make_process
from srk.processes.base import ForwardProcess, LinearProcess
from srk.scores import Prediction
from srk.solve import solve
from srk.tableaus import StochasticTableau
from srk.targets import Empirical, GaussianMixture
from srk.targets.base import Target

Solver = str | Integrator | StochasticTableau
FLOOR = "exact samples"
FLOORS = 4
"""Sets of exact samples for the floor, a repeat."""


@attrs.frozen(slots=True)
class Point:
    """One run.

    Arguments:
        solver: its label.
        nfe: the budget of network calls.
        calls: those made; a solver of two calls per step may leave one of the budget.
        repeat: number of the run, which has seed and reference of its own.
        values: metric -> distance; empty if the run failed.
        seconds: wall-clock time of the run.
        status: "done", or what went wrong.
    """

    solver: str
    nfe: int
    calls: int
    repeat: int
    values: dict[str, float]
    seconds: float
    status: str = "done"


@attrs.frozen(slots=True)
class Cell:
    """Mean over the repeats and its standard error (nan for a single repeat)."""

    mean: float
    error: float

    @staticmethod
    def of(values: Sequence[float]) -> Cell:
        if not values:
            return Cell(math.nan, math.nan)
        error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        return Cell(float(np.mean(values)), error)

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        if math.isnan(self.error) or self.mean == 0.0:
            return f"{self.mean:.3g}"
        # as many digits as the error supports, one of the error
        places = max(0, -math.floor(math.log10(max(self.error, 1e-2 * abs(self.mean)))))
        return f"{self.mean:.{places}f} ± {self.error:.{places}f}"


@attrs.frozen(slots=True, repr=False)
class Comparison:
    """What `compare` found.

    Arguments:
        points: all runs.
        floors: metric -> distance between exact samples (as many as a run has) and the reference; four sets of them a repeat.
        metrics: the names, in order.
        settings: what was compared, as text: process, samples and so on.
    """

    points: tuple[Point, ...]
    floors: tuple[dict[str, float], ...]
    metrics: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def solvers(self) -> tuple[str, ...]:
        """Labels, in order."""
        return tuple(dict.fromkeys(point.solver for point in self.points))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of network calls, increasing."""
        return tuple(sorted({point.nfe for point in self.points}))

    def cell(self, solver: str, nfe: int, metric: str) -> Cell:
        """Mean and standard error of a solver's distance at a budget."""
        runs = [point for point in self.points if point.solver == solver and point.nfe == nfe]
        return Cell.of([point.values[metric] for point in runs if metric in point.values])

    def floor(self, metric: str) -> Cell:
        """What exact samples give: mean and standard error."""
        return Cell.of([floor[metric] for floor in self.floors])

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table; the last row is the floor."""
        body = []
        for nfe in self.budgets:
            for solver in self.solvers:
                runs = [point for point in self.points if point.solver == solver and point.nfe == nfe]
                if runs:
                    seconds = float(np.mean([point.seconds for point in runs]))
                    cells = [str(self.cell(solver, nfe, metric)) for metric in self.metrics]
                    body.append([solver, str(runs[0].calls), *cells, f"{seconds:.2g}"])
        body.append([FLOOR, "", *(str(self.floor(metric)) for metric in self.metrics), ""])
        return ["solver", "NFE", *self.metrics, "s"], body

    def table(self) -> Table:
        """The table for a terminal, for `rich.print`."""
        header, body = self.rows()
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for i, row in enumerate(body):
            last = i == len(body) - 1
            ends = not last and (i == len(body) - 2 or row[0] == self.solvers[-1])
            table.add_row(*row, style="dim" if last else None, end_section=ends)
        return table

    @property
    def title(self) -> str:
        """What was compared, in a line."""
        s, runs = self.settings, 1 + max((point.repeat for point in self.points), default=0)
        return f"{s['process']}: {s['samples']} samples a run, {runs} runs each, mean ± standard error"

    def to_markdown(self) -> str:
        """The table in Markdown."""
        header, body = self.rows()
        rows = [header, ["---", *["---:"] * (len(header) - 1)], *body]
        return "".join("| " + " | ".join(row) + " |\n" for row in rows)

    def to_csv(self) -> str:
        """All runs, one line each; the floors are lines of the solver "exact samples"."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["solver", "nfe", "calls", "repeat", *self.metrics, "seconds", "status"])
        for point in self.points:
            values = [repr(point.values[m]) if m in point.values else "" for m in self.metrics]
            writer.writerow([point.solver, point.nfe, point.calls, point.repeat, *values, f"{point.seconds:.4g}", point.status])
        for repeat, floor in enumerate(self.floors):
            writer.writerow([FLOOR, "", "", repeat, *(repr(floor[m]) for m in self.metrics), "", ""])
        return out.getvalue()

    def to_json(self) -> str:
        """Everything, for `from_json` and for `compare(resume=...)`."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """The comparison that `to_json` wrote."""
        found = json.loads(text)
        points = tuple(Point(**point) for point in found["points"])
        return cls(points, tuple(found["floors"]), tuple(found["metrics"]), found["settings"])

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write compare.json, .csv, .md and, where matplotlib is installed, .png into `folder`; returns the files."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        files = []
        for suffix, text in (("json", self.to_json()), ("csv", self.to_csv()), ("md", self.to_markdown())):
            files.append(place / f"compare.{suffix}")
            files[-1].write_text(text, encoding="utf-8")
        figure = self.plot()
        files.append(place / "compare.png")
        figure.savefig(files[-1], dpi=130)
        pyplot("the plot of a comparison").close(figure)
        return files

    def plot(self, metrics: Sequence[str] | None = None) -> Any:
        """Error over network calls, a panel per metric, with error bars (two standard errors) and the floor; returns the matplotlib figure.

        Arguments:
            metrics: which ones; default the first three.
        """
        plt = pyplot("Comparison.plot()")
        chosen = self.metrics[:3] if metrics is None else tuple(metrics)
        # Room on the right for the legend, so that no curve hides behind it; at README width (about 800 pixels) the text stays legible
        figure, axes = plt.subplots(1, len(chosen), figsize=(2.0 + 3.0 * len(chosen), 3.4), layout="constrained", squeeze=False)
        for axis, metric in zip(axes[0], chosen, strict=True):
            for i, solver in enumerate(self.solvers):
                cells = [(nfe, self.cell(solver, nfe, metric)) for nfe in self.budgets]
                known = [(nfe, cell) for nfe, cell in cells if cell.mean > 0]
                x, y = [nfe for nfe, _ in known], np.array([cell.mean for _, cell in known])
                bars = 2.0 * np.nan_to_num([cell.error for _, cell in known])
                # A bar down to zero would fill a logarithmic axis
                axis.errorbar(
                    x,
                    y,
                    yerr=np.vstack([np.minimum(bars, 0.9 * y), bars]),
                    color=PALETTE[i % len(PALETTE)],
                    marker=MARKERS[i % len(MARKERS)],
                    markersize=5,
                    linewidth=1.4,
                    capsize=2.5,
                    label=solver,
                )
            floor = self.floor(metric)
            if floor.mean > 0:
                axis.axhline(floor.mean, color="0.35", linewidth=1.0, linestyle=":", label=FLOOR)
            axis.set(xscale="log", yscale="log", xlabel="network calls (NFE)", title=metric)
            axis.set_xticks(self.budgets, [str(n) for n in self.budgets])
            axis.xaxis.minorticks_off()
            axis.grid(True, which="major", color="0.9", linewidth=0.6)
            axis.set_axisbelow(True)
        axes[0][0].set_ylabel("distance to the target")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
        return figure

    def __repr__(self) -> str:
        header, body = self.rows()
        widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *body)]
        return "\n".join([self.title, *lines])


def compare(
    solvers: Sequence[Solver] | Mapping[str, Solver],
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    reference: Target | Tensor,
    *,
    nfe: Sequence[int] = (8, 16, 32, 64),
    metrics: Sequence[str] | Mapping[str, Metric] = ("sliced-w2", "energy", "covariance"),
    grids: Sequence[str | StepController] | None = None,
    repeats: int = 3,
    samples: int = 4000,
    reference_samples: int | None = None,
    eta: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Comparison:
    """Sample with every solver at every budget of network calls and measure the distance to the target.

    Each repeat has a seed and a reference of its own. A solver that a budget does not buy a step is left out there; a run whose network
    returned NaN or inf is kept with its status and without values.

    Arguments:
        solvers: names or solver objects, or label -> solver.
        process: the forward process.
        score: the network, as in `srk.solve`.
        reference: the target (fresh samples for each repeat), or samples of it, shape (m, *event), which are split at random for each
            repeat: `samples` of them for the floor, the rest as reference.
        nfe: budgets of network calls, the final denoising included.
        metrics: names out of `srk.analysis.metrics.METRICS`, or label -> function (samples, reference) -> distance.
        grids: names of grids or grid objects, each combined with each solver; default that of `srk.solve`.
        repeats: runs of each solver at each budget.
        samples: samples of a run.
        reference_samples: size of the reference where it is a target; default 4 times `samples`.
        eta: stochasticity; default that of the solver.
        seed: repeat i runs with seed + i.
        device, dtype: of the samples.
        resume: JSON file; written after every run, and read first if it is there, so that a long comparison continues where it was stopped.
        progress: show a progress bar.

    Raises:
        ArgumentError: an empty list, or a file to resume that belongs to another comparison.

    Examples:
        >>> import srk
        >>> vp, target = srk.VP(), srk.targets.GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.1, 0.2])
        >>> result = srk.analysis.compare(["srk2m", "ddpm"], vp, target.score(vp), target, nfe=[8, 16], samples=500, repeats=2)
        >>> result.cell("srk2m", 8, "sliced-w2").mean < result.cell("ddpm", 8, "sliced-w2").mean
        True
    """
    methods = _labelled(solvers)
    measures = _measures(metrics)
    variants = _variants(methods, grids)
    budgets = sorted(set(nfe))
    for name, value, least in (("nfe", len(budgets), 1), ("repeats", repeats, 1), ("samples", samples, 2)):
        if value < least:
            raise ArgumentError(
                f"{name} must be at least {least}, not {value!r}" if name != "nfe" else "nfe names no budget; e.g. nfe=[8, 16, 32]"
            )
    if isinstance(reference, Tensor) and len(reference) < 2 * samples:
        raise ArgumentError(
            f"the reference has {len(reference)} samples, which leaves too few once {samples} are held out for the floor; "
            f"use samples={len(reference) // 2} or fewer, or give a target"
        )
    size = reference_samples or 4 * samples
    settings: dict[str, Any] = {
        "process": repr(process),
        "score": _identity(score),
        "reference": _identity(reference),
        "solvers": [f"{label}: {method!r}, {grid!r}" for label, (method, grid) in variants.items()],
        "metrics": list(measures),
        "samples": samples,
        "reference_samples": size,
        "eta": eta,
        "seed": seed,
        "dtype": str(dtype),
    }
    points, floors = _resumed(resume, settings)
    made = {(point.solver, point.nfe, point.repeat) for point in points}
    place = torch.device(device) if device is not None else torch.device("cpu")
    kind = dtype or torch.float32

    def result() -> Comparison:
        order = {label: i for i, label in enumerate(variants)}
        ordered = sorted(points, key=lambda p: (p.nfe, order.get(p.solver, len(order)), p.repeat))
        return Comparison(tuple(ordered), tuple(floors), tuple(measures), settings)

    with _bar(progress, repeats * (1 + len(variants) * len(budgets))) as tick:
        for repeat in range(repeats):
            exact: Tensor | None = None
            known = len(floors) >= FLOORS * (repeat + 1)
            tick(f"floor, repeat {repeat + 1}", known)
            if not known:
                sets = [_reference(reference, samples, size, (seed + repeat, i), kind, place) for i in range(FLOORS)]
                exact = sets[0][1]
                floors += [{name: metric(*pair) for name, metric in measures.items()} for pair in sets]
                _write(resume, result())
            for budget in budgets:
                for label, (method, grid) in variants.items():
                    tick(f"{label}, NFE {budget}, repeat {repeat + 1}", (label, budget, repeat) in made)
                    if (label, budget, repeat) in made:
                        continue
                    if exact is None:
                        exact = _reference(reference, samples, size, (seed + repeat, 0), kind, place)[1]
                    point = _point(label, method, grid, process, score, exact, budget, repeat, samples, eta, seed, measures)
                    if point is not None:
                        points.append(point)
                        _write(resume, result())
    return result()


TARGETS = ("digits", "fashion", "mixture")


def named_problem(process: str, target: str) -> tuple[LinearProcess, Target]:
    """A process and a target with exact score by name, for the command line.

    Arguments:
        process: a registered linear process.
        target: "digits" (1797 x 64), "fashion" (10000 images of Fashion-MNIST x 784), or "mixture" (a ring of 8 Gaussians in 2-D).

    Raises:
        UnknownNameError, MissingExtraError, MissingDataError: no such process or target, or its data are not here.
        IncompatibleError: the process is not linear.
    """
    chosen = make_process(process)
    if not isinstance(chosen, LinearProcess):
        raise IncompatibleError(f"the exact score of a data set needs a linear process, not {process!r}; e.g. 'vp'")
    if target == "mixture":
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return chosen, GaussianMixture([1.0] * 8, torch.stack([angles.cos(), angles.sin()], 1), [0.05] * 8)
    if target == "digits":
        return chosen, Empirical(data.digits().flatten(1))
    if target == "fashion":
        return chosen, Empirical(data.fashion_mnist(10_000).flatten(1))
    raise UnknownNameError("target", target, TARGETS)


def numbers(text: str) -> list[int]:
    """The integers of a list with commas."""
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ArgumentError(f"{text!r} is not a list of whole numbers with commas; e.g. 8,16,32") from None


def _point(
    label: str,
    method: Integrator,
    grid: Any,
    process: ForwardProcess,
    score: Any,
    exact: Tensor,
    budget: int,
    repeat: int,
    samples: int,
    eta: float | None,
    seed: int,
    measures: Mapping[str, Metric],
) -> Point | None:
    if method.steps(budget - 1) < 1:
        return None
    began = time.perf_counter()
    sol = solve(
        process,
        score,
        method,
        shape=(samples, *exact.shape[1:]),
        nfe=budget,
        grid=grid,
        eta=eta,
        seed=seed + repeat,
        device=exact.device,
        dtype=exact.dtype,
        on_failure="return",
    )
    if exact.is_cuda:
        torch.cuda.synchronize(exact.device)
    seconds = time.perf_counter() - began
    values = {name: metric(sol.x, exact) for name, metric in measures.items()} if sol.success else {}
    return Point(label, budget, sol.nfe, repeat, {k: v for k, v in values.items() if math.isfinite(v)}, seconds, sol.status)


def _reference(
    reference: Target | Tensor, samples: int, size: int, seed: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(samples for the floor, reference), independent of the runs with the same seed."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
    if isinstance(reference, Target):
        drawn = reference.sample(samples + size, generator=generator, dtype=dtype)
    else:
        drawn = reference[torch.randperm(len(reference), generator=generator)].to(dtype)
    drawn = drawn.to(device)
    return drawn[:samples], drawn[samples:]


def _labelled(solvers: Any) -> dict[str, Integrator]:
    if isinstance(solvers, Mapping):
        named = {str(label): integrator(solver) for label, solver in solvers.items()}
    elif isinstance(solvers, str) or not isinstance(solvers, Sequence):
        raise ArgumentTypeError(f"solvers must be a list of solvers or a mapping label -> solver, not {solvers!r}; e.g. ['srk2m', 'ddpm']")
    else:
        named = {}
        for solver in solvers:
            method = integrator(solver)
            label = solver if isinstance(solver, str) else method.name
            if label in named:
                raise ArgumentError(f"two solvers are labelled {label!r}; give a mapping label -> solver to tell them apart")
            named[label] = method
    if not named:
        raise ArgumentError("solvers is empty; e.g. solvers=['srk2m', 'ddpm']")
    return named


def _variants(methods: Mapping[str, Integrator], grids: Any) -> dict[str, tuple[Integrator, Any]]:
    if grids is None:
        return {label: (method, None) for label, method in methods.items()}
    if isinstance(grids, str) or not isinstance(grids, Sequence) or not grids:
        raise ArgumentTypeError(f"grids must be a list of grids, not {grids!r}; e.g. grids=['log-snr', 'karras']")
    controls = [as_grid(grid) for grid in grids]
    if len(controls) == 1:
        return {label: (method, controls[0]) for label, method in methods.items()}
    return {f"{label} [{control.name}]": (method, control) for label, method in methods.items() for control in controls}


def _measures(metrics: Any) -> dict[str, Metric]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    if isinstance(metrics, str) or not metrics:
        raise ArgumentTypeError(f"metrics must be a list of names or a mapping, not {metrics!r}; e.g. metrics=['sliced-w2']")
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
    return {name: METRICS[name] for name in metrics}


def _identity(value: object) -> str:
    """What tells one score or reference from another across processes: its repr without addresses; tensors by their content."""
    if isinstance(value, Tensor):
        digest = hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
        return f"tensor {tuple(value.shape)} {digest}"
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


def _resumed(path: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> tuple[list[Point], list[dict[str, float]]]:
    if path is None or not Path(path).exists():
        return [], []
    try:
        earlier = Comparison.from_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{os.fspath(path)!r} is not the JSON of a comparison ({error}); remove it or name another file") from error
    # More solvers, budgets or repeats than last time are welcome; everything else must agree
    differ = [k for k, v in settings.items() if k != "solvers" and earlier.settings.get(k) != v]
    known = {entry.partition(": ")[0]: entry for entry in earlier.settings.get("solvers", [])}
    differ += [f"solver {e.partition(': ')[0]}" for e in settings["solvers"] if known.get(e.partition(": ")[0], e) != e]
    if differ:
        raise ArgumentError(f"{os.fspath(path)!r} holds another comparison (other {', '.join(differ)}); remove it or name another file")
    labels = {entry.partition(": ")[0] for entry in settings["solvers"]}
    return [point for point in earlier.points if point.solver in labels], list(earlier.floors)


def _write(path: str | os.PathLike[str] | None, result: Comparison) -> None:
    """Write the JSON whole or not at all, so that a run stopped at any time can be resumed."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    partial.write_text(result.to_json(), encoding="utf-8")
    partial.replace(target)


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[str, bool], None]]:
    """A progress bar; the function it gives announces a run (or one made earlier)."""
    if not show:
        yield lambda what, made: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=total)
        started = False

        def tick(what: str, made: bool) -> None:
            nonlocal started
            progress.update(task, description=what, advance=int(started))
            started = True

        yield tick
