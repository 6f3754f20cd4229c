"""What an error of the score leaves, with noise and without: the distance from the exact
distribution of runs whose score is wrong.

    python benchmarks/score_error.py        # five minutes of one core

The denoiser of exact targets gets an error that is smooth in state and noise level
(`Perturbed` of benchmarks/quality.py), of a size relative to the posterior deviation. A run is
compared with a fine solution of the exact score from the same start (sliced Cramer distance of
benchmarks/paired.py, or its standard error where that is larger). Results go to
benchmarks/results/score_error.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import srk
from srk.noise import BrownianNoise

sys.path.insert(0, str(Path(__file__).parent))

from paired import LEVELS, RESULTS, SEED, cases, distance, table
from quality import Perturbed

SIZES = (0.1, 0.3)
NFE = (8, 14, 30, 60)
FINE = 150
CASES = {
    "three modes, 1-D": 32768,
    "ring, 2-D": 16384,
    "narrow ring, 2-D": 16384,
    "narrow and broad, 16-D": 4096,
    "ten classes, 64-D": 2048,
}
"""Cases of `paired` and the samples of each."""
PROFILED, NOISY = "`auto` with a profile", "the same with eta = 1"
RUNS: dict[str, dict[str, Any]] = {
    PROFILED: {},
    NOISY: {"eta": 1.0},
    "`auto`": {},
    "`srk2m-local`": {"solver": "srk2m-local"},
    "`unipc-3`": {"solver": "unipc-3", "grid": "log-snr"},
}


def measure(size: float) -> dict[str, dict[int, list[float]]]:
    """Errors of each run at each number of calls, one for each case."""
    found: dict[str, dict[int, list[float]]] = {label: {n: [] for n in NFE} for label in RUNS}
    for name, samples in CASES.items():
        case = cases()[name]

        def solve(
            score: Any, samples: int = samples, case: Any = case, **options: Any
        ) -> torch.Tensor:
            noise, shape = BrownianNoise(SEED, levels=LEVELS), (samples, case.d)
            x = srk.solve(case.process, score, shape=shape, noise=noise, **options).x
            return x @ case.directions

        fine = solve(case.score, solver="unipc-3", grid="log-snr", nfe=FINE)
        wrong = Perturbed(case.make(case.process), size).bind(case.process)
        profile = srk.calibrate(case.process, wrong, shape=(32, case.d), seed=0)
        for label, options in RUNS.items():
            given = {"profile": profile} if label in (PROFILED, NOISY) else {}
            for n in NFE:
                found[label][n].append(max(distance(solve(wrong, nfe=n, **options, **given), fine)))
    return found


HEADER = f"""# What an error of the score leaves

Made by `python benchmarks/score_error.py` on a 2-core x86-64 cloud machine, CPU, float32. Distance
from the exact distribution (sliced Cramer distance in units of the standard deviation of a
projection), geometric mean over {len(CASES)} cases:
{"; ".join(CASES)}.
The error of the denoiser is smooth in state and noise level; its size is relative to the posterior
deviation.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    text = HEADER + "<!-- --8<-- [start:tables] -->\n\n"
    for size in SIZES:
        found = measure(size)
        rows = [
            [label, *(f"{math.exp(float(np.mean(np.log(cells[n])))):.4f}" for n in NFE)]
            for label, cells in found.items()
        ]
        head = [f"size {size:g}", *(f"NFE {n}" for n in NFE)]
        text += table(head, rows) + "\n"
    text += "<!-- --8<-- [end:tables] -->\n"
    (args.folder / "score_error.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
