"""How much the gauge variance of srk2m matters, on the demo's digits.

    python benchmarks/gauge_variance.py

Writes benchmarks/results/gauge_variance.md: sliced W2 to the data of 6000 samples, VP, log-SNR grid, exact score. About a minute.
"""

from __future__ import annotations

from pathlib import Path

import torch

import srk
from srk.analysis.metrics import sliced_w2
from srk.demo import digits

VARIANCES = (0.05, 0.1, 0.3, 0.5, 1.0)
BUDGETS = (8, 10, 20)
SAMPLES = 6000


def main() -> None:
    data, process = digits(), srk.VP()
    score = srk.targets.Empirical(data).score(process)
    generator = torch.Generator().manual_seed(0)
    floors = [sliced_w2(data[torch.randint(len(data), (SAMPLES,), generator=generator)], data) for _ in range(5)]
    lines = [
        "Sliced W2 to the digits by gauge variance of `srk2m`; made by `python benchmarks/gauge_variance.py` on a 2-core x86-64 cloud machine, CPU.",
        f"{SAMPLES} samples, one seed; exact samples: {sum(floors) / len(floors):.4f}.",
        "",
        "| v | " + " | ".join(f"NFE {nfe}" for nfe in BUDGETS) + " |",
        "| ---: |" + " ---: |" * len(BUDGETS),
    ]
    for v in VARIANCES:
        solver = srk.integrators.SRK2M(data_variance=v)
        cells = [sliced_w2(srk.solve(process, score, solver, shape=SAMPLES, nfe=nfe, seed=0).x, data) for nfe in BUDGETS]
        lines.append(f"| {v:g} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
        print(lines[-1], flush=True)
    (Path(__file__).parent / "results" / "gauge_variance.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
