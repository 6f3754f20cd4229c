"""`srk calibrate`: the file, what it says, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import srk
from srk import cli
from srk.errors import ArgumentError, ScoreError


def invoke(*arguments: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    return runner.invoke(cli.app, ["calibrate", *arguments])


def test_it_writes_what_calibrate_measures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "profile.json"
    result = invoke(str(out), "--target", "mixture", "--samples", "40", "--seed", "1")
    assert result.exit_code == 0, result.output
    profile = srk.Profile.load(out)
    assert profile.calls == 40 * 99
    assert "99 network calls, each of 40 samples" in result.output
    again = invoke(str(out), "--target", "mixture")
    assert isinstance(again.exception, ArgumentError) and "--force" in str(again.exception)
    assert srk.Profile.load(out) == profile


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    out = str(tmp_path / "p.json")
    for arguments, message in (
        ([], "--model or --target"),
        (["--target", "digits", "--model", "a:b"], "--model or --target"),
        (["--target", "mixture", "--shape", "3,x"], "e.g. --shape 3,32,32"),
    ):
        result = invoke(out, *arguments)
        assert isinstance(result.exception, ArgumentError) and message in str(result.exception)


NETWORK = """
import torch

def network(x, step):  # noise, exact for data of variance 1; told the training step
    assert step.dtype == torch.long
    betas = torch.linspace(1e-4, 0.02, 1000)
    return (1 - torch.cumprod(1 - betas, 0)).sqrt()[step][:, None] * x

def narrow(x, t):
    return x @ torch.ones(5, 2)
"""


def test_a_network_is_called_as_srk_sample_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options that say what a network returns and which time it wants are those of both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("calibrated_network.py").write_text(NETWORK)
    wrapped = ("--model", "calibrated_network:network", "--prediction", "noise", "--shape", "2")
    timed = ("--time", "index-rounded", "--num-timesteps", "1000", "--process", "vp-discrete")
    result = invoke("p.json", *wrapped, *timed, "--samples", "8")
    assert result.exit_code == 0, (result.output, result.exception)
    assert srk.Profile.load("p.json").calls == 8 * 99
    other = ("--model", "calibrated_network:narrow", "--prediction", "noise", "--shape", "2")
    result = invoke("q.json", *other, "--samples", "8")
    assert isinstance(result.exception, ScoreError)
    assert "the network raised RuntimeError" in str(result.exception)
    assert "--shape" in str(result.exception)
    result = invoke("q.json", *other[:4], "--samples", "8")
    assert isinstance(result.exception, ArgumentError)
    assert "give --shape, e.g. --shape 3,32,32" in str(result.exception)


def test_parameters_of_the_process_and_what_a_target_has_already(tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    mixture = ("--target", "mixture", "--samples", "8")
    result = invoke(str(out), *mixture, "--process-args", '{"beta_max": 12.0}')
    assert result.exit_code == 0 and "beta_max=12.0" in result.output
    result = invoke(str(tmp_path / "q.json"), *mixture, "--time", "sigma")
    assert isinstance(result.exception, ArgumentError)
    assert str(result.exception).endswith("leave out --time")
