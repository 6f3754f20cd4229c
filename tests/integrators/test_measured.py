"""The measured orders that `srk solvers` shows."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

import srk

MEASURED = json.loads(
    files("srk.integrators").joinpath("measured.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", [name for name in srk.solvers() if name != "auto"])
def test_every_declared_order_has_a_measured_one_near_it(name: str) -> None:
    """`python benchmarks/orders.py` was run for every solver.

    A measured weak order may be above the declared one (linear problems).
    """
    solver = srk.solvers()[name]
    if solver.strong_order is not None and solver.default_eta > 0:
        assert MEASURED[name]["strong"] == pytest.approx(solver.strong_order, abs=0.25)
    if solver.weak_order is not None:
        assert MEASURED[name]["weak"] > solver.weak_order - 0.2


def test_the_table_shows_declared_and_measured() -> None:
    row = next(row for row in srk.solvers().rows() if row[0] == "ddpm")
    assert row[2].startswith("1 (") and row[3].startswith("1 (")
