"""Work-precision comparisons: table, files, plot, floor, resuming."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import srk
from srk.analysis import Comparison, compare
from srk.analysis.comparison import Cell
from srk.errors import ArgumentError, ArgumentTypeError, UnknownNameError

VP = srk.VP()
# The modes overlap, so that the distances are not those of how often each mode is drawn
TARGET = srk.targets.GaussianMixture([0.5, 0.5], [[-0.3, 0.0], [0.3, 0.0]], [0.1, 0.2])
SMALL: dict[str, Any] = {"nfe": [6, 12], "samples": 1000, "repeats": 2}


@pytest.fixture(scope="module")
def result() -> Comparison:
    return compare(["srk2m", "ddpm"], VP, TARGET.score(VP), TARGET, **SMALL)


def test_better_solvers_are_nearer_and_none_is_below_the_floor(result: Comparison) -> None:
    for metric in result.metrics:
        assert result.cell("srk2m", 6, metric).mean < result.cell("ddpm", 6, metric).mean
        assert result.cell("ddpm", 6, metric).mean > 2.0 * result.floor(metric).mean
    assert result.solvers == ("srk2m", "ddpm")
    assert result.budgets == (6, 12)
    assert {point.calls for point in result.points} == {6, 12}


def test_files(result: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    names = {path.name for path in result.save(tmp_path)}
    assert names == {"compare.json", "compare.csv", "compare.md", "compare.png"}
    assert Comparison.from_json((tmp_path / "compare.json").read_text()) == result
    rows = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text())))
    assert len(rows) == 2 * 2 * 2 + 2 * 4
    assert float(rows[0]["sliced-w2"]) == result.points[0].values["sliced-w2"]
    assert (tmp_path / "compare.md").read_text().count("\n") == 2 + 2 * 2 + 1
    assert result.table().row_count == 5
    assert "exact samples" in repr(result)


def test_the_plot_shows_curves_floor_and_labels(result: Comparison) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = result.plot()
    assert len(figure.axes) == 3
    for axis in figure.axes:
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
        assert axis.get_xlabel() == "network calls (NFE)"
    assert figure.axes[0].get_ylabel()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(legend) == {"srk2m", "ddpm", "exact samples"}
    matplotlib.pyplot.close(figure)


def test_a_stopped_comparison_continues(
    result: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after three runs.

    The next call makes the rest, and the result is that of one uninterrupted run.
    """
    place = tmp_path / "run" / "compare.json"
    module = pytest.importorskip("srk.analysis.work_precision")
    made = []
    original = module.solve

    def stop_after_three(*arguments: Any, **options: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(None)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "solve", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        compare(["srk2m", "ddpm"], VP, TARGET.score(VP), TARGET, resume=place, **SMALL)
    monkeypatch.setattr(module, "solve", lambda *a, **k: (made.append(None), original(*a, **k))[1])
    continued = compare(["srk2m", "ddpm"], VP, TARGET.score(VP), TARGET, resume=place, **SMALL)
    assert len(made) == 8  # three and the other five

    def values(comparison: Comparison) -> list[Any]:
        return [(p.solver, p.nfe, p.repeat, p.values) for p in comparison.points]

    assert values(continued) == values(result)
    assert continued.floors == result.floors
    # another solver and another budget join; other samples do not
    more = compare(["srk2m", "ddpm", "srk1"], VP, TARGET.score(VP), TARGET, resume=place, **SMALL)
    assert len(more.points) == 12
    with pytest.raises(ArgumentError, match=r"another comparison.*samples"):
        compare(["srk2m"], VP, TARGET.score(VP), TARGET, resume=place, nfe=[6], samples=300)
    place.write_text("{}")
    with pytest.raises(ArgumentError, match="not the JSON"):
        compare(["srk2m"], VP, TARGET.score(VP), TARGET, resume=place, nfe=[6], samples=300)


def test_samples_as_reference_are_split_for_the_floor() -> None:
    data = TARGET.sample(3000, seed=0)
    result = compare(
        {"mine": "srk2m"},
        VP,
        TARGET.score(VP),
        data,
        nfe=[12],
        samples=1000,
        repeats=2,
        metrics=["energy"],
    )
    assert result.solvers == ("mine",)
    assert result.floor("energy").mean < 0.1
    with pytest.raises(ArgumentError, match="held out"):
        compare(["srk2m"], VP, TARGET.score(VP), data, samples=2000)


def test_grids_and_metrics_of_ones_own() -> None:
    def spread(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x.std() - y.std()).abs())

    result = compare(
        ["ddpm"],
        VP,
        TARGET.score(VP),
        TARGET,
        nfe=[5],
        samples=200,
        repeats=1,
        metrics={"spread": spread},
        grids=["log-snr", "karras"],
    )
    assert result.solvers == ("ddpm [log-snr]", "ddpm [karras]")
    assert result.metrics == ("spread",)


def test_a_budget_too_small_is_left_out_and_a_failure_is_kept() -> None:
    result = compare(
        ["ddpm", "srk2"], VP, TARGET.score(VP), TARGET, nfe=[2, 5], samples=50, repeats=1
    )
    assert [(p.solver, p.nfe) for p in result.points] == [("ddpm", 2), ("ddpm", 5), ("srk2", 5)]

    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, float("nan"))

    failed = compare(["ddpm"], VP, broken, TARGET, nfe=[5], samples=50, repeats=1)
    assert failed.points[0].status.startswith("failed")
    assert failed.points[0].values == {}
    assert "-" in repr(failed)
    json.loads(failed.to_json(), parse_constant=pytest.fail)


def test_wrong_arguments_are_named() -> None:
    score = TARGET.score(VP)
    with pytest.raises(UnknownNameError, match="sliced-w2"):
        compare(["ddpm"], VP, score, TARGET, metrics=["sliced-w1"])
    with pytest.raises(ArgumentTypeError, match="list of solvers"):
        compare("ddpm", VP, score, TARGET)
    with pytest.raises(ArgumentError, match="two solvers"):
        compare([srk.solvers()["ddpm"], "ddpm"], VP, score, TARGET)
    with pytest.raises(ArgumentTypeError, match="list of grids"):
        compare(["ddpm"], VP, score, TARGET, grids="karras")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="budget"):
        compare(["ddpm"], VP, score, TARGET, nfe=[])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0123, 0.0131], "0.0127 ± 0.0004"),
        ([0.5], "0.5"),
        ([], "-"),
        ([0.0, 0.0], "0"),
        ([2.0, 2.0], "2.00 ± 0.00"),
    ],
)
def test_cells_show_the_digits_that_the_error_supports(values: list[float], shown: str) -> None:
    assert str(Cell.of(values)) == shown


def test_old_names_of_the_exact_distributions_warn() -> None:
    for old, new in (
        ("gaussian_law", "gaussian_distribution"),
        ("GaussianLaw", "GaussianDistribution"),
    ):
        with pytest.warns(DeprecationWarning, match=f"is now srk.analysis.{new}"):
            found = getattr(srk.analysis, old)
        assert found is getattr(srk.analysis, new)
