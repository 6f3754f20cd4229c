"""The example of inverse problems: examples/inverse_problems.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from repository import ROOT, script


def test_inverse_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples agree with the measurement within its noise, and their mean with the truth."""
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    with torch.random.fork_rng():
        script("examples/inverse_problems.py").main(
            ["--out", str(tmp_path / "out.png"), "--samples", "4", "--steps", "12"]
        )
    out = capsys.readouterr().out
    lines = re.findall(r"residual (\S+) .*error of the mean (\S+), mean standard", out)
    assert len(lines) == 3
    for residual, error in lines:
        assert 0.07 < float(residual) < 0.15
        assert float(error) < 0.35
    assert (tmp_path / "out.png").stat().st_size > 10_000
