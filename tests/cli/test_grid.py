"""`srk grid`: the table, the files, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import srk
from srk import cli
from srk.errors import ArgumentError, UnknownNameError
from srk.steps import Budget, Profile

pytest.importorskip("matplotlib")


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, ["grid", *arguments]
    )


def rows(output: str) -> np.ndarray:
    """The numbers of the table."""
    return np.array(
        [
            [float(word) for word in line.split()]
            for line in output.splitlines()
            if line[:4].strip().isdigit()
        ]
    )


def test_pilot_table_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("new")
    result = invoke(
        "--target", "mixture", "--solver", "dpmpp-2m-sde", "--nfe", "12", "--out", str(out)
    )
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert sorted(file.name for file in out.iterdir()) == ["grid.png", "profile.json"]
    assert (out / "grid.png").read_bytes()[:4] == b"\x89PNG"
    # the table is what solve does with the profile that was written
    process = srk.VP()
    budget = Budget(profile=Profile.load(out / "profile.json"))
    score = srk.targets.Gaussian([0.0, 0.0]).score(process)
    table = rows(result.output)
    for column, grid in ((1, budget), (4, "log-snr"), (5, "karras")):
        times = srk.solve(process, score, "dpmpp-2m-sde", grid=grid, nfe=12, seed=0).times
        assert np.allclose(table[:, column], times, rtol=1e-5)
    assert np.allclose(table[:, 2], [process.level(t).r for t in table[:, 1]], rtol=2e-4)
    assert np.allclose(np.log(table[:, 2]), -table[:, 3], atol=2e-4)


def test_a_profile_saves_the_pilot(tmp_path: Path) -> None:
    process = srk.VP()
    profile = srk.calibrate(process, srk.targets.Gaussian(0.0, 0.25).score(process), shape=100)
    path = profile.save(tmp_path / "p.json")
    result = invoke(
        "--profile", str(path), "--nfe", "9", "--criterion", "kl", "--out", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    assert len(rows(result.output)) == 10 and "pilot: " not in result.output
    assert not (tmp_path / "profile.json").exists()
    pilot = invoke("--profile", str(path), "--seed", "1", "--out", str(tmp_path), "--force")
    assert isinstance(pilot.exception, ArgumentError) and "leave them out" in str(pilot.exception)


def test_auto_is_placed_as_in_a_run_with_the_profile(tmp_path: Path) -> None:
    process, target = srk.VP(), srk.targets.GaussianMixture([0.8, 0.2], [-0.2, 0.9], [0.02, 0.3])
    profile = srk.calibrate(process, target.score(process), shape=100)
    path = profile.save(tmp_path / "p.json")
    result = invoke("--profile", str(path), "--nfe", "9", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "auto: gauge-adams (calibrated)" in result.output
    sol = srk.solve(process, target.score(process), profile=profile, nfe=9, shape=(2, 1), seed=0)
    assert sol.solver == "auto: gauge-adams (calibrated)"
    assert np.allclose(rows(result.output)[:, 1], sol.times, rtol=1e-5)


def test_files_are_not_overwritten_unless_forced(tmp_path: Path) -> None:
    arguments = ["--target", "mixture", "--nfe", "6", "--samples", "20", "--out", str(tmp_path)]
    (tmp_path / "profile.json").write_text("mine")
    refused = invoke(*arguments)
    assert isinstance(refused.exception, ArgumentError) and "--force" in str(refused.exception)
    assert (tmp_path / "profile.json").read_text() == "mine" and not (
        tmp_path / "grid.png"
    ).exists()
    assert invoke(*arguments, "--force").exit_code == 0
    assert Profile.load(tmp_path / "profile.json").calls == 20 * 99


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    for arguments, error, message in (
        (["--target", "birds"], UnknownNameError, "no target named 'birds'"),
        (["--process", "vpp"], UnknownNameError, "no process named 'vpp'"),
        (
            ["--target", "mixture", "--samples", "20", "--criterion", "l3"],
            ArgumentError,
            "'concentrated', 'broad', 'network', 'bend', 'kl', 'l2'",
        ),
        (
            ["--target", "mixture", "--samples", "20", "--solver", "srk2m", "--nfe", "1"],
            ArgumentError,
            "buys no step",
        ),
    ):
        result = invoke(*arguments, *out)
        assert isinstance(result.exception, error) and message in str(result.exception)
    assert list(tmp_path.iterdir()) == []
