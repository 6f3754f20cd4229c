"""`srk grid`: where the steps of a budget go, as a table, a plot and a profile to use again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from srk.cli.command import ProcessName, SolverName
from srk.errors import ArgumentError

if TYPE_CHECKING:
    from srk.processes import LinearProcess
    from srk.steps import Profile

FIXED = ("log-snr", "karras")
"""Grids to compare with."""

PICTURE = "the plot of srk grid"


def grid(
    process: ProcessName = "vp",
    target: Annotated[
        str,
        typer.Option(help="digits, fashion or mixture: data whose score is exact, for the pilot."),
    ] = "digits",
    solver: SolverName = "auto",
    nfe: Annotated[
        int, typer.Option(help="Network calls to spend, the final denoising included.", min=1)
    ] = 20,
    criterion: Annotated[
        str,
        typer.Option(help="concentrated, broad, network, bend, kl, l2, even; else the solver's."),
    ] = "",
    profile: Annotated[
        Path | None,
        typer.Option(help="Profile to use instead of a pilot.", exists=True, dir_okay=False),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples of the pilot.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the pilot.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for plot and profile.", file_okay=False)] = Path(
        "grid"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Place the steps of a budget by a pilot run.

    Prints their times; writes a plot and the profile that the pilot measured.
    """
    from srk.analysis.plotting import pyplot
    from srk.integrators import integrator
    from srk.processes import LinearProcess
    from srk.processes import process as named_process
    from srk.sampling import Sampler, calibrate
    from srk.steps import Budget, Profile
    from srk.targets.problems import named_problem

    if profile is not None and (samples, seed) != (None, None):
        raise ArgumentError(
            "--samples and --seed are those of the pilot, and with --profile there is none; leave "
            "them out"
        )
    pyplot(PICTURE)  # before the pilot, not after it
    files = [out / "grid.png", *([out / "profile.json"] if profile is None else [])]
    there = [str(file) for file in files if file.exists()]
    if there and not force:
        raise ArgumentError(
            f"{' and '.join(there)} would be overwritten; choose another --out, or say --force"
        )
    score: Any = lambda x, t: -x  # noqa: E731  # with a profile the network is never called
    if profile is None:
        chosen, exact = named_problem(process, target)
        score = exact.score(chosen)
        measured = calibrate(chosen, score, shape=samples, seed=seed or 0)
    else:
        made = named_process(process)
        if not isinstance(made, LinearProcess):
            raise ArgumentError(
                f"the grid 'budget' needs a linear process, not {process!r}; e.g. vp"
            )
        chosen, measured = made, Profile.load(profile)
    budget = Budget(profile=measured, criterion=criterion or None)
    method = integrator(solver).calibrated(measured)  # as in a run with this profile
    sampler = Sampler(chosen, score, method, nfe=nfe, grid=budget)
    steps = sampler.steps
    samplers = {name: Sampler(chosen, score, method, steps=steps, grid=name) for name in FIXED} | {
        "budget": sampler
    }
    grids = {
        name: [plan.start.t for plan in each.plans()] + [each.plans()[-1].stop.t]
        for name, each in samplers.items()
    }

    out.mkdir(parents=True, exist_ok=True)
    if profile is None:
        measured.save(out / "profile.json")
    _draw(out / "grid.png", chosen, measured, grids)

    lines = [repr(chosen), f"{sampler.label}, nfe = {nfe}: {steps} steps"]
    lines += [
        "",
        f"{'step':>4}  {'t':>12}  {'sigma/alpha':>12}  {'half log-SNR':>12}  {'log-snr':>12}  "
        f"{'karras':>12}",
    ]
    for i, t in enumerate(grids["budget"]):
        level = chosen.level(t)
        others = "  ".join(f"{grids[name][i]:12.6g}" for name in FIXED)
        lines.append(f"{i:4d}  {t:12.6g}  {level.r:12.5g}  {level.lam:12.5g}  {others}")
    lines += ["", "The last two columns are the times t of those grids."]
    if profile is None:
        lines.append(f"pilot: {measured.calls} network calls, counted for each sample")
    lines.append(f"wrote {', '.join(file.name for file in files)} into {out}")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("\n".join(lines))


def _draw(
    file: Path, process: LinearProcess, profile: Profile, grids: dict[str, list[float]]
) -> None:
    """q and the denoiser's error over the half log-SNR, above the points of each grid."""
    import numpy as np

    from srk.analysis.plotting import PALETTE, house_style
    from srk.steps.base import Range

    ends = Range.of(process)
    x = np.linspace(ends.noisy, ends.clean, 400)
    density, mmse = profile.density(x), profile.mmse(x)
    top = float(max(density.max(), mmse.max()))
    with house_style(PICTURE) as plt:
        figure, (upper, lower) = plt.subplots(
            2, 1, figsize=(7.0, 4.6), sharex=True, height_ratios=(2.2, 1.0)
        )
        upper.plot(x, density, color=PALETTE[0], label="q, quadratic variation of the denoiser")
        upper.plot(
            x, mmse, color=PALETTE[1], linestyle="--", label="mean squared error of the denoiser"
        )
        upper.set(yscale="log", ylim=(1e-5 * top, 3.0 * top), ylabel="per coordinate")
        upper.legend()
        for row, times in enumerate(grids.values()):
            lams = [lam for lam in (process.level(t).lam for t in times) if np.isfinite(lam)]
            lower.plot(
                lams,
                [row] * len(lams),
                "|",
                color=PALETTE[row + 2],
                markersize=14,
                markeredgewidth=1.6,
            )
        lower.grid(False)
        lower.set(
            yticks=range(len(grids)),
            yticklabels=list(grids),
            ylim=(-0.6, len(grids) - 0.4),
            xlabel="half log-SNR",
        )
        figure.savefig(file)
        plt.close(figure)
