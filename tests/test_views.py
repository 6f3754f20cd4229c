"""Plots, animations and notebook tables of solutions, registries and profiles."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import srk
from srk.errors import ArgumentError, MissingExtraError

pytest.importorskip("matplotlib")
image = pytest.importorskip("PIL.Image")

PROCESS = srk.VP()
EVENTS = [(1,), (2,), (5,), (8, 8), (1, 8, 8), (3, 8, 8), (6, 3)]


def run(event: tuple[int, ...], **options: object) -> srk.Solution:
    return srk.solve(
        PROCESS, srk.Data(lambda x, t: 0.5 * x), shape=(10, *event), steps=4, seed=0, **options
    )  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("save", [(), ("x",)])
def test_every_kind_of_sample_has_a_plot(event: tuple[int, ...], save: tuple[str, ...]) -> None:
    figure = run(event, save=list(save)).plot()
    assert len(figure.axes) == 1 and "auto" in figure.axes[0].get_title()


def test_a_scatter_plot_shows_the_samples() -> None:
    sol = run((2,))
    points = sol.plot().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, sol.x.numpy(), rtol=1e-6)


@pytest.mark.parametrize("event", [(1,), (2,), (1, 8, 8), (3, 8, 8)])
@pytest.mark.parametrize("ending", [".webp", ".gif"])
def test_an_animation_has_a_frame_a_state_and_ends_at_the_samples(
    event: tuple[int, ...], ending: str, tmp_path: Path
) -> None:
    path = run(event, save=["x"]).animate(tmp_path / f"run{ending}", seconds=1)
    with image.open(path) as moving:
        assert moving.n_frames == 6  # five states and the samples


def test_the_last_frame_is_the_sample_that_was_returned(tmp_path: Path) -> None:
    sol = run((1, 8, 8), save=["x"])
    assert not torch.equal(sol.trajectory.values[-1], sol.x)  # type: ignore[union-attr]
    with image.open(sol.animate(tmp_path / "run.png")) as moving:
        moving.seek(moving.n_frames - 1)
        found = np.asarray(moving.convert("L"), dtype=float)
    x = sol.x[0, 0]
    shade = ((x - sol.x.min()) / (sol.x.max() - sol.x.min()) * 255).round().numpy()
    np.testing.assert_array_equal(found[1:33:4, 1:33:4], shade)


def test_an_animation_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=re.escape("save=['x']")):
        run((2,)).animate(tmp_path / "run.webp")
    with pytest.raises(ArgumentError, match=r"\.webp, \.gif, \.png, not 'run\.mp4'"):
        run((2,), save=["x"]).animate(tmp_path / "run.mp4")
    with pytest.raises(ArgumentError, match="seconds must be above 0"):
        run((2,), save=["x"]).animate(tmp_path / "run.webp", seconds=0)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot says how to install it; a notebook shows the words alone."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    sol = run((2,))
    with pytest.raises(MissingExtraError, match=r"srk\[plot\]"):
        sol.plot()
    assert "NFE" in sol._repr_html_() and "<img" not in sol._repr_html_()


def test_notebooks_show_tables_and_pictures() -> None:
    sol = run((2,))
    shown = sol._repr_html_()
    assert "10x2 float32" in shown
    png = base64.b64decode(re.search("base64,([^']*)'", shown)[1])  # type: ignore[index]
    assert image.open(io.BytesIO(png)).format == "PNG"
    for registry in (srk.solvers(), srk.processes(), srk.tableaus(), srk.controllers()):
        table = registry._repr_html_()
        assert table.count("<tr>") == len(registry) + 1
        assert all(f">{name}<" in table for name in registry)
    profile = srk.Profile([0.0, 1.0, 2.0], [1.0, 2.0], process="<VP>")
    assert "&lt;VP&gt;" in profile._repr_html_() and "<img" in profile._repr_html_()
