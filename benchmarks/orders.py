"""The measured orders of all registered solvers, which `srk solvers` shows beside the declared
ones.

    python benchmarks/orders.py
    python benchmarks/orders.py my-solver my-tableau

Writes srk/integrators/measured.json; with names, the orders of these solvers beside what it holds.
Strong: one Brownian path at 40, 80 and 160 steps of a smooth one-dimensional mixture, median over
256 paths (Ornstein-Uhlenbeck process from t = 1 to 0.1). Weak: the exact distribution on a Gaussian
target at 128 and 256 steps (VP to t = 0.01), where some methods are better than their declared
order, which counts for nonlinear problems too. All solvers take about three minutes of processor
time, one takes seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path

import srk
from srk.analysis import strong_orders, weak_order

OUT = Path(srk.__file__).parent / "integrators" / "measured.json"
MIXTURE = srk.targets.GaussianMixture([0.3, 0.4, 0.3], [-1.5, 0.0, 1.5], [0.3, 0.3, 0.3])


def main(names: Collection[str] = ()) -> None:
    known = srk.solvers()
    if unknown := set(names) - set(known):
        raise SystemExit(
            f"no solver is called {', '.join(sorted(unknown))}; `srk solvers` lists them"
        )
    solvers = {
        name: solver
        for name, solver in known.items()
        if name != "auto" and (not names or name in names)
    }
    noisy = {
        name: solver
        for name, solver in solvers.items()
        if solver.strong_order is not None and solver.default_eta > 0
    }
    strong = (
        strong_orders(
            noisy,
            srk.OU(t_min=0.1, horizon=1.0),
            MIXTURE,
            steps=(40, 80, 160),
            paths=256,
            reference_steps=960,
        )
        if noisy
        else {}
    )
    result: dict[str, dict[str, float]] = {}
    for name, solver in solvers.items():
        entry = result[name] = {}
        if name in strong:
            entry["strong"] = round(strong[name].slope, 2)
        if solver.weak_order is not None:
            entry["weak"] = round(weak_order(name, srk.VP(t_min=0.01), steps=(128, 256)).slope, 2)
        print(name, entry, flush=True)
    if names:  # in the order in which the solvers are listed
        held = json.loads(OUT.read_text(encoding="utf-8")) | result
        result = {name: held[name] for name in known if name in held}
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
