"""`srk compare`: solvers at equal numbers of network calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from srk.cli.command import ProcessName
from srk.errors import ArgumentError

if TYPE_CHECKING:
    from srk.analysis.comparison import Comparison


def compare(
    out: Annotated[
        Path,
        typer.Option(help="Folder for table and plot; a stopped run continues.", file_okay=False),
    ] = Path("compare"),
    process: ProcessName = "vp",
    target: Annotated[
        str, typer.Option(help="digits, fashion or mixture: data whose score is exact.")
    ] = "digits",
    solvers: Annotated[
        str, typer.Option(help="Solvers of `srk solvers`, with commas.")
    ] = "srk2m,srk2,ddpm",
    nfe: Annotated[str, typer.Option(help="Budgets of network calls, with commas.")] = "8,16,32",
    metrics: Annotated[
        str, typer.Option(help="Out of sliced-w2, energy, mmd, mean, covariance.")
    ] = "sliced-w2,energy,covariance",
    grids: Annotated[
        str, typer.Option(help="Grids of `srk controllers`, with commas; each with each solver.")
    ] = "",
    samples: Annotated[int, typer.Option(help="Samples of each run.", min=2)] = 2000,
    repeats: Annotated[int, typer.Option(help="Runs of each solver and budget.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first repeat.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    posterior: Annotated[
        str,
        typer.Option(
            help="Compare posterior samplers on two-modes, ring or profile, instead of a target."
        ),
    ] = "",
    methods: Annotated[
        str, typer.Option(help="With --posterior: methods of `srk.posterior`, with commas.")
    ] = "MMPS,TMPD,PiGDM,SDA,DPS",
) -> None:
    """Compare solvers at equal numbers of network calls.

    Writes the table (JSON, CSV, Markdown) and a plot.
    """
    from srk.analysis.work_precision import compare as run
    from srk.targets.problems import named_problem

    if posterior:
        _posteriors(out, posterior, methods, solvers, nfe, samples, repeats, seed, device)
        return
    chosen, exact = named_problem(process, target)
    result = run(
        _names(solvers),
        chosen,
        exact.score(chosen),
        exact,
        nfe=_numbers(nfe),
        metrics=_names(metrics),
        grids=_names(grids) or None,
        repeats=repeats,
        samples=samples,
        seed=seed,
        device=device,
        resume=out / "compare.json",
        progress=True,
    )
    _report(result, out)


def _posteriors(
    out: Path,
    problem: str,
    methods: str,
    solvers: str,
    nfe: str,
    samples: int,
    repeats: int,
    seed: int,
    device: str,
) -> None:
    """The comparison of posterior samplers on a problem with an exact posterior."""
    from srk.analysis.posteriors import compare_posteriors

    result = compare_posteriors(
        problem,
        _names(methods),
        _names(solvers),
        nfe=_numbers(nfe),
        repeats=repeats,
        samples=samples,
        seed=seed,
        device=device,
        resume=out / "compare.json",
        progress=True,
    )
    _report(result, out)


def _report(result: Comparison, out: Path) -> None:
    console = Console()
    console.print(result.table())
    console.print(f"wrote {', '.join(path.name for path in result.save(out))} into {out}")


def _numbers(text: str) -> list[int]:
    """The integers of a list with commas."""
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ArgumentError(
            f"{text!r} is not a list of whole numbers with commas; e.g. 8,16,32"
        ) from None


def _names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
