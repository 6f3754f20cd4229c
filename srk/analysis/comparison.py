"""What a comparison of solvers found: points, their table and their plot."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from srk._columns import aligned
from srk.analysis.plotting import (
    FLOOR,
    MARKERS,
    PALETTE,
    draw_floor,
    house_style,
    pyplot,
    work_axes,
)

if TYPE_CHECKING:
    from rich.table import Table


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
        error = (
            float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        )
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
        floors: metric -> distance between exact samples (as many as a run has) and the reference;
            four sets of them a repeat.
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
                runs = [
                    point for point in self.points if point.solver == solver and point.nfe == nfe
                ]
                if runs:
                    seconds = float(np.mean([point.seconds for point in runs]))
                    cells = [str(self.cell(solver, nfe, metric)) for metric in self.metrics]
                    body.append([solver, str(runs[0].calls), *cells, f"{seconds:.2g}"])
        body.append([FLOOR, "", *(str(self.floor(metric)) for metric in self.metrics), ""])
        return ["solver", "NFE", *self.metrics, "s"], body

    def table(self) -> Table:
        """The table for a terminal, for `rich.print`."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        header, body = self.rows()
        table = Table(
            title=self.title,
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
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
        drawn = f"{s['samples']} samples a run, {runs} runs each"
        return f"{s['process']}: {drawn}, mean ± standard error"

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
            writer.writerow(
                [
                    point.solver,
                    point.nfe,
                    point.calls,
                    point.repeat,
                    *values,
                    f"{point.seconds:.4g}",
                    point.status,
                ]
            )
        for repeat, floor in enumerate(self.floors):
            writer.writerow(
                [FLOOR, "", "", repeat, *(repr(floor[m]) for m in self.metrics), "", ""]
            )
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
        """Write compare.json, .csv, .md and, where matplotlib is installed, .png into `folder`.

        Returns the files.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        files = []
        for suffix, text in (
            ("json", self.to_json()),
            ("csv", self.to_csv()),
            ("md", self.to_markdown()),
        ):
            files.append(place / f"compare.{suffix}")
            files[-1].write_text(text, encoding="utf-8")
        figure = self.plot()
        files.append(place / "compare.png")
        figure.savefig(files[-1], dpi=130)
        pyplot("the plot of a comparison").close(figure)
        return files

    def plot(self, metrics: Sequence[str] | None = None) -> Any:
        """Draw the error over network calls, a panel per metric.

        Error bars are two standard errors, and a line marks the floor. Returns the matplotlib
        figure.

        Arguments:
            metrics: which ones; default the first three.
        """
        chosen = self.metrics[:3] if metrics is None else tuple(metrics)
        with house_style("Comparison.plot()") as plt:
            # Room on the right for the legend, so that no curve hides behind it; at README width
            # (about 800 pixels) the text stays legible
            figure, axes = plt.subplots(
                1, len(chosen), figsize=(2.0 + 3.0 * len(chosen), 3.4), squeeze=False
            )
            for axis, metric in zip(axes[0], chosen, strict=True):
                for i, solver in enumerate(self.solvers):
                    cells = [(nfe, self.cell(solver, nfe, metric)) for nfe in self.budgets]
                    known = [(nfe, cell) for nfe, cell in cells if cell.mean > 0]
                    x, y = [nfe for nfe, _ in known], np.array([cell.mean for _, cell in known])
                    bars = 2.0 * np.nan_to_num([cell.error for _, cell in known])
                    # A bar down to zero would fill a logarithmic axis
                    lengths = np.vstack([np.minimum(bars, 0.9 * y), bars])
                    colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
                    axis.errorbar(x, y, yerr=lengths, color=colour, marker=marker, label=solver)
                floor = self.floor(metric)
                if floor.mean > 0:
                    draw_floor(axis, floor.mean)
                work_axes(axis, self.budgets)
                axis.set_title(metric)
            axes[0][0].set_ylabel("distance to the target")
            handles, labels = axes[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right center")
        return figure

    def __repr__(self) -> str:
        header, body = self.rows()
        lines = aligned([header, *body])
        return "\n".join([self.title, *lines])
