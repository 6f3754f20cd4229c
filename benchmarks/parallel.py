"""Rounds, calls and distance of runs that are parallel in time, on the network of garments.

    python benchmarks/parallel.py    # five minutes of one core

prints the table of docs/parallel.md and draws docs/assets/parallel.svg.

Each run has one sample. It is compared with the sequential run of the same noise. The distance is
the root mean square difference relative to the standard deviation of all numbers of the sample.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import srk
from srk.analysis.plotting import MARKERS, house_style

SOLVERS = ("ddpm", "srk2m", "auto", "sa-solver")
STEPS = (20, 50, 100, 200)
SEEDS = range(1, 7)
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "parallel.svg"

Numbers = tuple[float, int, float, float, float]
"""Median and most rounds, calls, median and largest distance."""


def measure(solver: str, steps: int, tolerance: float) -> Numbers:
    process, score = srk.targets.garments()
    rounds, calls, distances = [], [], []
    for seed in SEEDS:
        options = {"shape": 1, "steps": steps, "noise": "keyed", "seed": seed}
        one = srk.solve(process, score, solver, **options).x
        picard = srk.Picard(window=32, tolerance=tolerance)
        many = srk.solve(process, score, solver, parallel=picard, **options)
        assert many.rounds is not None
        rounds.append(many.rounds)
        calls.append(many.nfe)
        distances.append(((many.x - one).square().mean().sqrt() / one.std()).item())
    middle = [statistics.median(values) for values in (rounds, calls, distances)]
    return middle[0], max(rounds), middle[1], middle[2], max(distances)


def draw(made: dict[tuple[str, int], Numbers]) -> None:
    with house_style("the plot of parallel runs") as plt:
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2))
        for axes, column, name in ((left, 0, "calls one after the other"), (right, 2, "calls")):
            axes.plot(STEPS, [n + 1 for n in STEPS], color="0.6", label="sequential")
            for solver, marker in zip(SOLVERS, MARKERS, strict=False):
                values = [made[solver, n][column] for n in STEPS]
                axes.plot(STEPS, values, marker=marker, label=solver)
            axes.set(xscale="log", yscale="log", xlabel="steps", ylabel=name)
            axes.set_xticks(STEPS, map(str, STEPS))
            axes.minorticks_off()
            ticks = (10, 20, 50, 100, 200) if axes is left else (20, 50, 100, 200, 500)
            axes.set_yticks(ticks, map(str, ticks))
        left.legend()
        figure.savefig(PICTURE, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    print("| Steps | Solver | Tolerance | Rounds | Most | Calls | Distance | Largest |")
    print("|---|---|---|---|---|---|---|---|")
    made = {}
    for steps in STEPS:
        for solver in SOLVERS:
            for tolerance in (1e-3, 2e-3) if steps in (50, 100) else (1e-3,):
                numbers = measure(solver, steps, tolerance)
                rounds, most, calls, distance, largest = numbers
                made.setdefault((solver, steps), numbers)
                print(
                    f"| {steps} | `{solver}` | {tolerance:g} | {rounds:g} | {most} | {calls:.0f} "
                    f"| {distance:.1g} | {largest:.1g} |",
                    flush=True,
                )
    draw(made)


if __name__ == "__main__":
    main()
