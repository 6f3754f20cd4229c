"""The bias of each posterior method on three mixtures, without the noise of Monte Carlo.

    python benchmarks/posteriors.py          # about ten minutes on one core; writes the results

Every method and the exact posterior's own score run with the same solver, steps and draws, so that
the difference of their moments is the method's bias, with a small standard error; what the solver
does wrong cancels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import srk
from srk.analysis import sliced_w2
from srk.posterior import Exact, PosteriorProblem, methods, posterior_problem
from srk.posterior.problems import PROBLEMS

RESULTS = Path(__file__).parent / "results" / "posteriors"
PROCESS = srk.EDM(0.01, 40.0)
SOLVER, STEPS, SAMPLES = "srk2m", 40, 20_000


def draw(problem: PosteriorProblem, method: Any, seed: int, samples: int) -> tuple[Tensor, int]:
    """Samples of a method, and the network calls that they cost."""
    prediction = method(problem.prior.score(PROCESS), problem.measurement)
    sol = srk.solve(PROCESS, prediction, SOLVER, shape=samples, steps=STEPS, seed=seed)
    return sol.x.double(), sol.nfe


def differences(problem: PosteriorProblem, x: Tensor, exact: Tensor) -> dict[str, Tensor]:
    """How the moments of two sets of samples on the same draws differ."""
    posterior = problem.posterior
    return {
        "mean": x.mean(0) - exact.mean(0),
        "covariance": torch.cov(x.mT) - torch.cov(exact.mT),
        "modes": posterior.assign(x).mean(0) - posterior.assign(exact).mean(0),
    }


def sizes(problem: PosteriorProblem, found: dict[str, Tensor]) -> dict[str, float]:
    """Their sizes, in the units of `srk.analysis.posterior_errors`."""
    covariance = problem.posterior.moments()[1]
    return {
        "mean": float(found["mean"].norm() / covariance.trace().sqrt()),
        "covariance": float(found["covariance"].norm() / covariance.norm()),
        "modes": 0.5 * float(found["modes"].abs().sum()),
    }


def measure(
    problem: PosteriorProblem, method: Any, seeds: range, samples: int = SAMPLES
) -> dict[str, float]:
    """The biases of a method, their standard error ("± mean" and so on) and its cost."""
    runs, distances, nfe = [], [], 0
    for seed in seeds:
        exact, _ = draw(problem, Exact, seed, samples)
        x, nfe = draw(problem, method, seed, samples)
        runs.append(differences(problem, x, exact))
        distances.append(sliced_w2(x, problem.posterior.sample(samples, seed=seed + 1000)))
    whole = {key: torch.stack([run[key] for run in runs]) for key in runs[0]}
    found = sizes(problem, {key: values.mean(0) for key, values in whole.items()})
    if len(runs) > 1:
        spread = {
            key: (values - values.mean(0)).square().sum(0).div(len(runs) * (len(runs) - 1)).sqrt()
            for key, values in whole.items()
        }
        found |= {f"± {key}": value for key, value in sizes(problem, spread).items()}
    found["sliced-w2"] = math.fsum(distances) / len(distances)
    return {**found, "nfe": nfe}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The biases as Markdown, a block of columns for each problem."""
    keys = ("mean", "covariance", "modes", "sliced-w2")
    head = "| method | calls | " + " | ".join(f"{p}: {' / '.join(keys)}" for p in results) + " |\n"
    lines = [head, "| --- | ---: |" + " ---: |" * len(results) + "\n"]
    for name in next(iter(results.values())):
        cells = [" / ".join(f"{found[name][k]:.3f}" for k in keys) for found in results.values()]
        calls = next(iter(results.values()))[name]["nfe"]
        lines.append(f"| {name} | {calls:.0f} | " + " | ".join(cells) + " |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in PROBLEMS:
        problem = posterior_problem(name)
        results[name] = {}
        for label, method in methods().items():
            results[name][label] = measure(problem, method, range(args.seeds))
            print(name, label, results[name][label], file=sys.stderr, flush=True)
    RESULTS.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
