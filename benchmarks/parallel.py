"""Rounds, calls and distance of runs that are parallel in time, on the network of garments.

    python benchmarks/parallel.py    # two minutes of one core; prints the table of docs/parallel.md

Each run has one sample. It is compared with the sequential run of the same noise. The distance is
the root mean square difference relative to the standard deviation of all numbers of the sample.
"""

from __future__ import annotations

import statistics

from networks import fashion_problem

import srk

SOLVERS = ("ddpm", "srk2m", "auto", "sa-solver")
SEEDS = range(1, 7)


def main() -> None:
    problem = fashion_problem(1)
    print("| Steps | Solver | Tolerance | Rounds | Most | Calls | Distance | Largest |")
    print("|---|---|---|---|---|---|---|---|")
    for steps in (100, 50):
        for solver in SOLVERS:
            options = {"shape": 1, "steps": steps, "noise": "keyed"}
            args = problem.process, problem.prediction, solver
            ones = [srk.solve(*args, seed=seed, **options) for seed in SEEDS]
            for tolerance in (1e-3, 2e-3):
                rounds, calls, distances = [], [], []
                for seed, one in zip(SEEDS, ones, strict=True):
                    picard = srk.Picard(window=32, tolerance=tolerance)
                    many = srk.solve(*args, seed=seed, parallel=picard, **options)
                    assert many.rounds is not None
                    rounds.append(many.rounds)
                    calls.append(many.nfe)
                    rms = (many.x - one.x).square().mean().sqrt()
                    distances.append((rms / one.x.std()).item())
                middle = [statistics.median(values) for values in (rounds, calls, distances)]
                print(
                    f"| {steps} | `{solver}` | {tolerance:g} | {middle[0]:g} | {max(rounds)} "
                    f"| {middle[1]:.0f} | {middle[2]:.1g} | {max(distances):.1g} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
