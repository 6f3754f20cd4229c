"""The examples of products and of levels: two_parts.py, poses.py and rolling_window.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import script


def test_two_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """Position and size agree with one network for both, and by chance with one for each."""
    script("examples/two_parts.py").main(["-n", "500"])
    joint, alone = re.findall(r"agree in ([\d.]+)%", capsys.readouterr().out)
    assert float(joint) > 99.0
    assert 40.0 < float(alone) < 60.0


def test_poses(capsys: pytest.CaptureFixture[str]) -> None:
    """Position, rotation and torsions agree, and each pose comes as often as it should."""
    script("examples/poses.py").main(["-n", "600", "--nfe", "150"])
    printed = capsys.readouterr().out
    (agree,) = re.findall(r"same pose in ([\d.]+)%", printed)
    assert float(agree) > 99.0
    shares = re.findall(r"pose \d: (\S+) of the samples, exact (\S+)", printed)
    assert len(shares) == 3
    for found, exact in shares:
        error = (float(exact) * (1.0 - float(exact)) / 600) ** 0.5
        assert abs(float(found) - float(exact)) < 6 * error
    (turned,) = re.findall(r"rotation: (\S+) from", printed)
    assert abs(float(turned) - 0.1785) < 0.02  # the mean of chi_3 times sqrt(0.1^2 + 0.05^2)


def test_rolling_window(capsys: pytest.CaptureFixture[str]) -> None:
    """The sequence has its autocovariance."""
    script("examples/rolling_window.py").main(["-n", "500", "--frames", "20"])
    printed = capsys.readouterr().out
    assert "frame  10   112 calls" in printed
    lines = re.findall(r"found (\S+)  exact (\S+)", printed)
    assert len(lines) == 5
    for found, exact in lines:
        assert abs(float(found) - float(exact)) < 0.06


def test_the_picture_of_levels(tmp_path: Path) -> None:
    """It is drawn from the matrices of the makers."""
    pytest.importorskip("matplotlib")
    module = script("benchmarks/level_matrices.py")
    module.main(["-o", str(tmp_path / "levels.png")])
    assert (tmp_path / "levels.png").stat().st_size > 5000
    assert {levels.elements for levels in module.matrices().values()} == {10}
