"""Work and precision: the distance to the target that solvers reach with equal numbers of network
calls, and where they meet exact samples.

    python examples/solver_comparison.py mixture
    python examples/solver_comparison.py digits

The score is exact, so that every error is the solver's: `mixture` is a ring of eight narrow
Gaussians in 2-D, `digits` the 1797 handwritten digits of scikit-learn, 8 x 8 pixels. Writes
compare-TARGET.png, .csv (every run) and .md (the table). One to two minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import srk
from srk.analysis.plotting import pyplot
from srk.targets.problems import TARGETS, named_problem

SOLVERS = ("srk2m", "srk2", "sra1", "dpmpp-2m-sde", "dpmpp-2m", "ddpm", "euler-maruyama")
METRICS = ("sliced-w2", "covariance")
SAMPLES = {"mixture": 4000, "digits": 2000, "fashion": 1000}

CUT = 20.0
"""The top of the picture, in floors."""


def calls_to_the_floor(
    result: srk.analysis.Comparison, solver: str, metric: str, factor: float = 1.25
) -> int | None:
    """The smallest budget from which on the mean distance stays below `factor` times the floor.

    None if there is none.
    """
    good = [
        nfe
        for nfe in result.budgets
        if not result.cell(solver, nfe, metric).mean > factor * result.floor(metric).mean
    ]
    bad = [nfe for nfe in result.budgets if nfe not in good]
    return min((nfe for nfe in good if nfe > max(bad, default=0)), default=None)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", choices=TARGETS, default="mixture")
    parser.add_argument(
        "--nfe", type=int, nargs="+", default=(6, 10, 16, 24, 40), help="budgets of network calls"
    )
    parser.add_argument("--samples", type=int, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each solver at each budget")
    parser.add_argument(
        "--results", type=Path, default=Path(), help="folder for the table and the CSV"
    )
    parser.add_argument("--pictures", type=Path, default=Path(), help="folder for the picture")
    args = parser.parse_args(argv)

    process, target = named_problem("vp", args.target)
    samples = args.samples or SAMPLES[args.target]
    result = srk.analysis.compare(
        SOLVERS,
        process,
        target.score(process),
        target,
        nfe=args.nfe,
        metrics=METRICS,
        samples=samples,
        repeats=args.repeats,
    )
    print(result)
    print(f"\nnetwork calls from which on {METRICS[0]} is within 25 % of exact samples:")
    for solver in SOLVERS:
        print(
            f"  {solver:15s} "
            f"{calls_to_the_floor(result, solver, METRICS[0]) or f'more than {max(args.nfe)}'}"
        )

    name = f"compare-{args.target}"
    for folder in (args.results, args.pictures):
        folder.mkdir(parents=True, exist_ok=True)
    (args.results / f"{name}.csv").write_text(result.to_csv(), encoding="utf-8")
    (args.results / f"{name}.md").write_text(result.to_markdown(), encoding="utf-8")
    figure = result.plot()
    for axis, metric in zip(figure.axes, METRICS, strict=True):
        # a solver that is unstable with few calls would flatten all others; the table has its
        # numbers
        axis.set_ylim(top=min(axis.get_ylim()[1], CUT * result.floor(metric).mean))
    figure.savefig(args.pictures / f"{name}.png", dpi=130)
    pyplot("examples/solver_comparison.py").close(figure)


if __name__ == "__main__":
    main()
