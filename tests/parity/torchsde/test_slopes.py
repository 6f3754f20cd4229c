"""Strong orders of torchsde's solvers and of ours, side by side on the same paths."""

from __future__ import annotations

import sys

import attrs
import pytest
from typer.testing import CliRunner

from srk import cli
from srk.analysis import Slopes, torchsde_slopes
from srk.analysis.slopes import EQUAL, TOLERANCE
from srk.analysis.validation import METHODS
from srk.errors import ArgumentError, MissingExtraError

pytestmark = pytest.mark.parity


def test_both_have_the_declared_order_and_the_same_slope(global_rng_untouched: None) -> None:
    pytest.importorskip("torchsde")
    slopes = torchsde_slopes(
        ["vp"], methods=["euler", "srk", "heun", "midpoint"], steps=(24, 96), reference_steps=480
    )
    assert len(slopes.rows) == 2 * 4
    for row in slopes.rows:
        declared = 1.5 if row.method == "srk" else 1.0
        assert row.ours.declared == declared
        assert row.ours.slope == pytest.approx(declared, abs=TOLERANCE), slopes
        assert row.theirs.slope == pytest.approx(declared, abs=TOLERANCE), slopes
        assert row.difference <= EQUAL, slopes
    assert slopes.success
    assert max(row.difference for row in slopes.rows) > 0.0  # two codes, not one
    # A row that is off fails the whole
    first = slopes.rows[0]
    for wrong in (first.ours.slope + 2 * EQUAL, first.ours.slope + 2 * TOLERANCE):
        off = attrs.evolve(first, theirs=attrs.evolve(first.theirs, slope=wrong))
        assert not Slopes((*slopes.rows[1:], off), "").success


@pytest.mark.slow
def test_the_table_of_the_command_line() -> None:
    """`srk validate --slopes`: every method, frame and process; exit status 0."""
    pytest.importorskip("torchsde")
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, ["validate", "--slopes"]
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("localization") == 2 * len(METHODS)
    assert "bounds 1e-06, and 0.25 of the declared order" in result.output


def test_what_is_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchsde")
    with pytest.raises(ArgumentError, match="'edm' here; choose out of ou, vp"):
        torchsde_slopes(["edm"])
    with pytest.raises(ArgumentError, match="'rk4' here; choose out of euler"):
        torchsde_slopes(methods=["rk4"])
    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(MissingExtraError, match=r"srk\[validation\]"):
        torchsde_slopes()
