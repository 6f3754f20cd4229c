"""`srk calibrate`: the file, what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

import srk
from srk import cli
from srk.errors import ArgumentError


def invoke(*arguments: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    return runner.invoke(cli.app, ["calibrate", *arguments])


def test_it_writes_what_calibrate_measures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "profile.json"
    result = invoke(str(out), "--target", "mixture", "--samples", "40", "--seed", "1")
    assert result.exit_code == 0, result.output
    profile = srk.Profile.load(out)
    assert profile.calls == 40 * 65
    assert "65 network calls, each of 40 samples" in result.output
    again = invoke(str(out), "--target", "mixture")
    assert isinstance(again.exception, ArgumentError) and "--force" in str(again.exception)
    assert srk.Profile.load(out) == profile


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    out = str(tmp_path / "p.json")
    for arguments, message in (
        ([], "--model or --target"),
        (["--target", "digits", "--model", "a:b"], "--model or --target"),
        (["--target", "mixture", "--shape", "3,x"], "such as 3,32,32"),
    ):
        result = invoke(out, *arguments)
        assert isinstance(result.exception, ArgumentError) and message in str(result.exception)
