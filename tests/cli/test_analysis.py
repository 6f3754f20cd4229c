"""The commands that measure: check, validate, compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from srk import cli
from srk.errors import ArgumentError, TableauError

GOOD = """
name = "ralston"
alpha = ["1/4", "3/4"]
A = [[], ["2/3"]]
c = [0, "2/3"]
w = [0, "2/3"]
k = [0, 0]
strong_order = 1
weak_order = 1
"""


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, arguments
    )


def test_check_prints_the_conditions(tmp_path: Path) -> None:
    file = tmp_path / "ralston.toml"
    file.write_text(GOOD)
    result = invoke("check", str(file))
    assert result.exit_code == 0, result.output
    assert "alpha.e = 1" in result.output
    assert "'ralston': ok" in result.output


def test_check_takes_the_name_of_a_tableau() -> None:
    result = invoke("check", "sra1")
    assert result.exit_code == 0, result.output
    assert "'sra1': ok" in result.output


def test_check_refuses_with_exit_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is printed, then the failed condition with its residual."""
    file = tmp_path / "wrong.toml"
    file.write_text(GOOD.replace("3/4", "4/5"))
    monkeypatch.setattr("sys.argv", ["srk", "check", str(file)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert "does not support the orders it declares" in out
    assert "alpha.e = 1: value 21/20, residual 1/20" in err
    assert isinstance(invoke("check", str(file)).exception, TableauError)
    assert isinstance(invoke("check", str(tmp_path / "absent.toml")).exception, ArgumentError)


def test_validate_prints_the_agreement() -> None:
    pytest.importorskip("torchsde")
    result = invoke("validate", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "sub-vp" in result.output
    assert "srk (g_prod)" in " ".join(result.output.split()) or "g_prod" in result.output
    assert "bound 1e-10" in result.output


def test_compare_writes_table_and_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    options = (
        "--target",
        "mixture",
        "--solvers",
        "srk2m,ddpm",
        "--nfe",
        "5,8",
        "--samples",
        "200",
        "--repeats",
        "2",
        "--out",
        str(tmp_path),
    )
    result = invoke("compare", *options)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "compare.json",
        "compare.csv",
        "compare.md",
        "compare.png",
    }
    assert "exact samples" in result.output
    assert isinstance(invoke("compare", "--nfe", "8;16").exception, ArgumentError)
    assert isinstance(invoke("compare", "--target", "cats").exception, KeyError)
