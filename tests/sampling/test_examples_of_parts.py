"""The examples of products and of levels: examples/two_parts.py and rolling_window.py."""

from __future__ import annotations

import re

import pytest
from repository import script


def test_two_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """Position and size agree with one network for both, and by chance with one for each."""
    script("examples/two_parts.py").main(["-n", "500"])
    joint, alone = re.findall(r"agree in ([\d.]+)%", capsys.readouterr().out)
    assert float(joint) > 99.0
    assert 40.0 < float(alone) < 60.0


def test_rolling_window(capsys: pytest.CaptureFixture[str]) -> None:
    """The sequence has its autocovariance."""
    script("examples/rolling_window.py").main(["-n", "1000"])
    lines = re.findall(r"found (\S+)  exact (\S+)", capsys.readouterr().out)
    assert len(lines) == 4
    for found, exact in lines:
        assert abs(float(found) - float(exact)) < 0.05
