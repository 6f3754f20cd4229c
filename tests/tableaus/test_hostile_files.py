"""A tableau file of any content is read, or refused in words of ours, at once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from srk.errors import SRKError, TableauError
from srk.tableaus import StochasticTableau, check_tableau

FIELDS = {"name": '"a"', "alpha": "[1]", "A": "[[0]]", "c": "[0]", "w": "[0.5]", "k": "[1]"}

ENDLESS = (
    '"1e100000000"',
    '"-1e-100000000"',
    '"1_0e1_0_0_0_0"',
    f'"1e{"9" * 40}"',
    f'"{"1" * 5000}"',
    f'"1/{"3" * 1500}"',
    "1" * 5000,
    "[" * 5000,
    "1e300",
    '"1e300"',
    '"1e350"',
    "1e400",
    "nan",
)


@pytest.mark.parametrize("field", ["alpha", "A", "w", "strong_order"])
@pytest.mark.parametrize("entry", ENDLESS, ids=lambda entry: entry[:16])
def test_hostile_entries(tmp_path: Path, field: str, entry: str) -> None:
    nested = {"A": f"[[{entry}]]", "strong_order": entry}.get(field, f"[{entry}]")
    file = tmp_path / "tableau.toml"
    file.write_text("\n".join(f"{k} = {v}" for k, v in {**FIELDS, field: nested}.items()))
    said = ""
    try:
        check_tableau(StochasticTableau.from_toml(file))
    except SRKError as error:
        said = str(error)
    # A number may be a strong order even if it is no coefficient.
    assert len(said) < 1000 and (said or field == "strong_order")


def test_long_fractions_are_refused_by_their_name() -> None:
    with pytest.raises(TableauError, match=r"alpha\[0\] is .* exact number of more than 1000"):
        StochasticTableau.from_wh("a", [Fraction(1, 3**3000)], [[0]], [0], [0.5], [1])
    # A long but harmless decimal is as exact as it ever was.
    long = "0." + "1" * 300
    tableau = StochasticTableau.from_wh("a", [long], [[0]], [0], [0.5], [1])
    assert tableau.alpha[0] == Fraction(long)
