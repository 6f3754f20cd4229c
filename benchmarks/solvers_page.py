"""The page of all solvers, docs/solvers.md, from the registry and the measured orders.

python benchmarks/solvers_page.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import srk
from srk.integrators import TableauSolver

OUT = Path(__file__).parents[1] / "docs" / "solvers.md"

HEAD = """# All solvers

<!-- written by benchmarks/solvers_page.py from the registry; not to be edited -->

After this page you know what each of the {count} registered solvers costs, which order
it has, and where it comes from. `srk solvers` prints the same table; [How to choose a
solver](choosing.md) is shorter.

- **calls**: network calls a step. `+n` are calls before the first step. The final
  denoising, where there is one, is one call more.
- **strong**, **weak**: the order that the solver declares on a linear process at its
  default `eta`, then the measured one in brackets (`python benchmarks/orders.py`). `-`:
  none is
  claimed. A measured order above the declared one holds for the measurement's target
  alone: strong orders are taken on a mixture along one Brownian path,
  weak orders from exact distributions on Gaussian data.
- **eta**: the values it takes; 1 is the reverse SDE, 0 the probability-flow ODE. The
  default is 1, or the value nearest to it.
- `srk cite NAME` prints the BibTeX of a solver's source ([Citing](citing.md)).
"""

SECTIONS = {
    "SDE and ODE": "With noise at `eta > 0`, the probability-flow ODE at `eta = 0`.",
    "SDE only": "These need noise.",
    "ODE only": "Samples are determined by the initial noise.",
    "Tableaus": (
        "[Stochastic Butcher tableaus](tableaus.md), each a solver in the raw frame. They "
        "reverse nonlinear processes too. **noise**: what a step draws, the increment W "
        "alone or "
        "with the space-time Levy area H."
    ),
}


def section(solver: srk.Integrator) -> str:
    """The section that a solver belongs to."""
    if isinstance(solver, TableauSolver):
        return "Tableaus"
    low, high = solver.eta_range
    return "ODE only" if high == 0 else "SDE and ODE" if low == 0 else "SDE only"


def link(name: str, solver: srk.Integrator) -> str:
    """The name, linked to the reference."""
    kind = type(solver).__name__
    return (
        f"`{name}`"
        if section(solver) == "Tableaus"
        else f"[`{name}`](reference/integrators.md#srk.integrators.{kind})"
    )


def words(text: str) -> str:
    """Text for a cell."""
    return re.sub(
        r"arXiv[ :](\d{4}\.\d{5})",
        r"[arXiv \1](https://arxiv.org/abs/\1)",
        text.replace("|", "\\|").replace("_", "\\_"),
    )


def table(names: Iterable[str]) -> str:
    """The table of some solvers."""
    solvers = srk.solvers()
    cells = {name: dict(zip(solvers.columns, row, strict=True)) for name, *row in solvers.rows()}
    tableaus = {
        name: dict(zip(srk.tableaus.TABLEAUS.columns, row, strict=True))
        for name, *row in srk.tableaus.TABLEAUS.rows()
    }
    names = list(names)
    extra = "noise" if names[0] in tableaus else "eta"
    lines = [
        f"| solver | calls | strong | weak | {extra} | when, and source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        solver, row = solvers[name], cells[name]
        strong, weak = (row[kind].replace(" ", "&nbsp;") for kind in ("strong", "weak"))
        calls = row["NFE/step"] + (
            f"&nbsp;+{solver.startup_evaluations}" if solver.startup_evaluations else ""
        )
        last = tableaus[name]["draws"] if extra == "noise" else row["eta"]
        source = f"{words(solver.advice)}. <small>{words(solver.reference)}</small>"
        lines.append(f"| {link(name, solver)} | {calls} | {strong} | {weak} | {last} | {source} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    solvers = srk.solvers()
    parts = [HEAD.format(count=len(solvers))]
    for title, text in SECTIONS.items():
        names = [name for name, solver in solvers.items() if section(solver) == title]
        parts.append(f"## {title}\n\n{text}\n\n{table(names)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
