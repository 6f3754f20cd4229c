"""`srk demo`: digits sampled with an exact score, and garments with a trained network.

Several solvers spend equal numbers of network calls. The first target is uniform on scikit-learn's
1797 digits of 8 x 8 pixels, whose score is known exactly (`srk.targets.Empirical`), so that every
error in the table is the solver's. The garments are drawn by a network that comes with the package
(`srk.targets.garments`): the same network and the same number of calls in every row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from srk._progress import progress_bar
from srk.analysis.metrics import chi_square_excess, sliced_w2
from srk.analysis.plotting import MARKERS, PALETTE, draw_floor, house_style, work_axes
from srk.processes import VP
from srk.sampling import solve
from srk.targets import Empirical, datasets, garments

SOLVERS = ("euler-maruyama", "ddpm", "sra1", "srk2", "srk2m")
SAMPLES = 5000
FAST_SAMPLES = 2500

GARMENT_CALLS = 10
GARMENT_ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ddim", "DDIM", {"eta": 0.0, "grid": "karras"}),
    ("euler-ancestral", "Euler a", {"grid": "karras"}),
    ("dpmpp-2m-sde", "DPM++ 2M SDE", {"grid": "karras"}),
    ("auto", "srk", {}),
)
"""Solver, label and options of each row of garments: samplers that people use, and ours."""
FINE_CALLS = 100


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the picture and the table.", file_okay=False)
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    nfe: Annotated[
        list[int] | None,
        typer.Option(help="Network evaluations, repeatable. Else 10, 20, 50.", min=1),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Fewer samples with 10 evaluations: 20 seconds.")
    ] = False,
) -> None:
    """Sample digits and garments with several solvers, in under two minutes.

    Prints a table of errors on handwritten digits, whose score is known exactly, and writes a
    picture of them and of garments that a small trained network draws. Nothing is downloaded.
    """
    main(
        out=out,
        seed=seed,
        nfe=nfe or ([10] if fast else [10, 20, 50]),
        samples=FAST_SAMPLES if fast else SAMPLES,
    )


@attrs.frozen
class Result:
    """One run: its cost and its errors (see `measure`)."""

    solver: str
    nfe: int
    seconds: float
    distance: float
    counts: float
    spread: float
    x: Tensor


def digits() -> Tensor:
    """The 1797 digits as vectors, shape (1797, 64), in [-1, 1]."""
    return datasets.digits().flatten(1)


def measure(
    target: Empirical, process: VP, solver: str, nfe: int, seed: int, samples: int = SAMPLES
) -> Result:
    """Draw samples and measure them.

    distance: sliced 2-Wasserstein distance of the samples to the data. counts: chi-square of how
    often each digit of the data is the nearest one, per degree of freedom, less 1. spread: relative
    error of the total variance over the pixels.
    """
    began = time.perf_counter()
    sol = solve(process, target.score(process), solver, shape=samples, nfe=nfe, seed=seed)
    seconds = time.perf_counter() - began
    counts = torch.bincount(target.nearest(sol.x), minlength=len(target))
    return Result(
        solver,
        sol.nfe,
        seconds,
        sliced_w2(sol.x, target.data),
        chi_square_excess(counts),
        spread(sol.x, target.data),
        sol.x,
    )


def spread(x: Tensor, data: Tensor) -> float:
    """Relative error of the total variance of `x`, (n, d), against that of `data`, (m, d)."""
    return float(x.var(0).sum() / data.var(0).sum() - 1)


@attrs.frozen
class Floor:
    """What exact samples give: mean distance, and standard deviations of the other two errors."""

    distance: float
    counts: float
    spread: float


def floor_of(data: Tensor, seed: int, samples: int = SAMPLES) -> Floor:
    """The floor, from ten sets of exact samples."""
    generator = torch.Generator().manual_seed(seed)
    draws = [data[torch.randint(len(data), (samples,), generator=generator)] for _ in range(10)]
    return Floor(
        sum(sliced_w2(draw, data) for draw in draws) / len(draws),
        math.sqrt(2 / (len(data) - 1)),
        torch.tensor([spread(draw, data) for draw in draws]).square().mean().sqrt().item(),
    )


def main(
    *, out: Path, seed: int = 0, nfe: Sequence[int] = (10, 20, 50), samples: int = SAMPLES
) -> list[Result]:
    """Run the demo: print the table, write `demo.png` and `demo.md` into the folder `out`.

    Arguments:
        out: folder for the picture and the table; made if it is not there.
        seed: of all runs.
        nfe: numbers of network calls to spend.
        samples: of digits in each run.

    Returns:
        One `Result` per solver and number of calls.
    """
    console = Console()
    data = digits()
    process, target = VP(), Empirical(data)
    floor = floor_of(data, seed, samples)
    results = []
    with progress_bar("sampling", len(nfe) * len(SOLVERS) + 1, console=console) as advance:
        for budget in nfe:
            for solver in SOLVERS:
                advance(0, description=f"digits: {solver}, NFE {budget}")
                results.append(measure(target, process, solver, budget, seed, samples))
                advance()
        advance(0, description="garments")
        drawn = draw_garments(seed)
        advance()
    console.print(_table(results, floor, samples))
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo.md").write_text(_markdown(results, floor), encoding="utf-8")
    _picture(results, data, floor, drawn, out / "demo.png")
    console.print(f"wrote {out / 'demo.png'} and {out / 'demo.md'}")
    return results


def draw_garments(seed: int, columns: int = 16) -> dict[str, Tensor]:
    """Garments of the trained network by label of the row, (columns, 28, 28) each.

    The last row is drawn with ten times the calls, to show what the network itself can do.
    """
    process, score = garments()
    rows = {}
    for solver, label, options in GARMENT_ROWS:
        sol = solve(process, score, solver, shape=columns, nfe=GARMENT_CALLS, seed=seed, **options)
        rows[label] = sol.x[:, 0]
    sol = solve(process, score, shape=columns, nfe=FINE_CALLS, seed=seed)
    rows[f"srk, {FINE_CALLS} calls"] = sol.x[:, 0]
    return rows


HEADER = ("solver", "NFE", "seconds", "sliced W2", "chi-square", "spread")


def _rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    return [
        (
            r.solver,
            str(r.nfe),
            f"{r.seconds:.1f}",
            f"{r.distance:.4f}",
            f"{r.counts:+.3f}",
            f"{100 * r.spread:+.2f}%",
        )
        for r in results
    ]


def _floor(floor: Floor) -> tuple[str, ...]:
    return (
        "exact samples",
        "",
        "",
        f"{floor.distance:.4f}",
        f"0 +- {floor.counts:.3f}",
        f"0 +- {100 * floor.spread:.2f}%",
    )


def _table(results: Sequence[Result], floor: Floor, samples: int) -> Table:
    table = Table(
        title=f"{samples} samples of the digits, VP process, exact score", title_justify="left"
    )
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for i, row in enumerate(_rows(results)):
        table.add_row(*row, end_section=(i + 1) % len(SOLVERS) == 0)
    table.add_row(*_floor(floor), style="dim")
    return table


def _markdown(results: Sequence[Result], floor: Floor) -> str:
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *_rows(results), _floor(floor)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _picture(
    results: Sequence[Result],
    data: Tensor,
    floor: Floor,
    drawn: Mapping[str, Tensor],
    path: Path,
) -> None:
    # A two-call solver leaves one call of an even budget unspent; it is drawn at the budget
    budgets = sorted({r.nfe for r in results if r.solver == SOLVERS[0]})
    least = min(budgets)
    shown = {r.solver: r for r in results if r.nfe <= least}
    with house_style("the demo's picture") as plt:
        figure = plt.figure(figsize=(11, 8.2))
        above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
        left, right = above.subfigures(1, 2, width_ratios=(1.15, 1))
        rows = [("data", data)] + [(name, shown[name].x) for name in SOLVERS if name in shown]
        _strips(left, [(name, x[:18].reshape(-1, 8, 8)) for name, x in rows])
        left.suptitle(f"digits, exact score, {least} network calls")
        panels = (
            ("sliced W2 to the data", "distance"),
            ("|error of the total variance|", "spread"),
        )
        for axis, (title, quantity) in zip(right.subplots(1, 2), panels, strict=True):
            for name, colour, marker in zip(SOLVERS, PALETTE, MARKERS, strict=False):
                errors = [abs(getattr(r, quantity)) for r in results if r.solver == name]
                axis.plot(budgets, errors, color=colour, marker=marker, label=name)
            draw_floor(axis, getattr(floor, quantity))
            work_axes(axis, budgets)
            axis.set_title(title)
        right.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        _strips(below, list(drawn.items()))
        below.suptitle(f"garments, one trained network, {GARMENT_CALLS} network calls")
        figure.savefig(path)
        plt.close(figure)


def _strips(figure: Any, rows: Sequence[tuple[str, Tensor]]) -> None:
    """Rows of images in [-1, 1], each with its label."""
    for axis, (name, images) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        # a frame of one pixel around every image
        strip = torch.nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
        axis.imshow(torch.cat(list(strip), dim=1), cmap="gray_r", vmin=-1, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
