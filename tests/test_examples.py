"""Every example runs, on small numbers, and what it prints or draws is what it says."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from repository import script

import srk
from srk.analysis import Comparison
from srk.analysis.comparison import Point

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

HERE = {
    "adaptive",
    "animation",
    "cld",
    "custom_network",
    "custom_process",
    "custom_tableau",
    "diffusers_pipeline",
    "galaxies",
    "paper_rates",
    "quickstart",
    "reproducibility",
    "solver_comparison",
}
"""The examples that this file runs."""

ELSEWHERE = {
    "inverse_problems": "posterior/test_example.py",
    "policy_gradient": "ecosystem/test_diffusers_densities.py",
    "poses": "sampling/test_examples_of_parts.py",
    "rolling_window": "sampling/test_examples_of_parts.py",
    "spectrogram": "sampling/test_complex_states.py",
    "spherical_noise": "noise/test_spherical.py",
    "train_cifar": "test_example_cifar.py",
    "train_fashion": "test_examples_networks.py",
    "two_parts": "sampling/test_examples_of_parts.py",
}
"""The others, and the tests that run them."""


def example(name: str) -> ModuleType:
    return script(f"examples/{name}.py")


@pytest.fixture(autouse=True)
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, draw without a screen, and leave the global random state as it was.

    A training may seed it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with torch.random.fork_rng():
        yield


def numbers(text: str, line: str) -> list[float]:
    """The numbers after `line`, which is where a line of `text` begins."""
    found = re.search(rf"^\s*\|?\s*{re.escape(line)}(?![\w-])(.*)$", text, re.MULTILINE)
    assert found is not None, text
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[-+]\d+)?", found[1])]


def test_every_example_is_run_and_shown() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == HERE | set(ELSEWHERE)
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{name}")' in source for name in HERE)
    assert all(
        name in (ROOT / "tests" / file).read_text(encoding="utf-8")
        for name, file in ELSEWHERE.items()
    )
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for name in names:
        assert (
            f'--8<-- "examples/{name}.py"' in page
        )  # the include as it stands: a formatter took it for Python once
        assert (example_doc := (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")).startswith(
            '"""'
        )
        assert (
            "def main(" not in example_doc
            or f"python examples/{name}.py" in example_doc.split('"""')[1]
        )


# -- those of this page
# ------------------------------------------------------------


def is_png(path: Path, width: int) -> bool:
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        return picture.format == "PNG" and abs(picture.width - width) <= 2


def test_quickstart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    module = example("quickstart")
    monkeypatch.setattr(module, "SAMPLES", 4000)
    module.main([])
    out = capsys.readouterr().out
    errors = {
        solver: numbers(out, solver) for solver in ("euler-maruyama", "ddpm", "srk2", "srk2m")
    }
    assert all(a > b for a, b in zip(errors["ddpm"], errors["srk2m"], strict=True))
    assert all(values[0] > values[2] for values in errors.values())
    assert is_png(Path("quickstart.png"), 1040)
    # the distance of the target moved by 0.1 is 0.1
    assert module.distance(module.target.sample(20_000, seed=0) + 0.1) == pytest.approx(
        0.1, abs=0.02
    )


@pytest.mark.usefixtures("registries_restored")
def test_custom_tableau(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    example("custom_tableau").main(["--steps", "32", "64", "128", "--paths", "64"])
    out = capsys.readouterr().out
    # 2/5 + 3/5 1/2 = 7/10 instead of 1; 3/5 (5/6)^2 + (2/5 + 3/5 1/4)/12 = 37/80 instead of 1/2
    assert "alpha.k = 1: value 7/10, residual -3/10" in out and "value 37/80, residual -3/80" in out
    assert "Solution: done, even-levy" in out
    for solver, orders in (
        ("even-levy", (1.5, 2.0)),
        ("sra1", (1.5, 2.0)),
        ("euler-maruyama", (1.0, 1.0)),
    ):
        strong, declared_strong, weak, declared_weak = numbers(out, solver)
        assert (declared_strong, declared_weak) == orders
        assert strong > orders[0] - 0.2 and weak == pytest.approx(orders[1], abs=0.15)
    assert "wrong" not in srk.tableaus()
    assert is_png(Path("custom_tableau.png"), 1040)


def test_custom_network(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    module = example("custom_network")
    module.main(["--steps", "250", "--samples", "300", "--repeats", "2"])
    exact, network = capsys.readouterr().out.split("\nnetwork\n")
    # an untrained network is hundreds away, the prior 0.34; with the exact score what is left is
    # the noise of 300 samples
    far = srk.analysis.sliced_w2(torch.randn(2000, 2), module.TARGET.sample(2000, seed=0))
    nfe, distance, *_ = [
        numbers(line, "srk2m") for line in network.splitlines() if line.startswith("srk2m")
    ][-1]
    assert nfe == 24 and distance < 0.5 * far
    assert [numbers(line, "srk2m") for line in exact.splitlines() if line.startswith("srk2m")][-1][
        1
    ] < 0.12
    assert is_png(Path("custom_network.png"), 1300)


def test_solver_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    module = example("solver_comparison")
    module.main(["mixture", "--nfe", "6", "24", "--samples", "400", "--repeats", "2"])
    out = capsys.readouterr().out
    rows = Path("compare-mixture.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(module.SOLVERS) * 2 * 2 + 2 * 4  # header, runs, floors
    assert (
        Path("compare-mixture.md").read_text(encoding="utf-8").count("\n")
        == 2 + len(module.SOLVERS) * 2 + 1
    )
    assert "dpmpp-2m-sde" in out.split("exact samples:")[1]
    assert is_png(Path("compare-mixture.png"), 1040)


def test_calls_to_the_floor_are_those_from_which_on_all_budgets_are_good() -> None:
    module = example("solver_comparison")

    def result(*distances: float) -> Comparison:
        points = tuple(
            Point("s", n, n, 0, {"m": d}, 0.0) for n, d in zip((4, 8, 16), distances, strict=True)
        )
        return Comparison(points, ({"m": 1.0},), ("m",), {})

    for distances, expected in (
        ((3.0, 1.2, 1.1), 8),
        ((1.0, 2.0, 1.0), 16),
        ((1.0, 1.0, 1.0), 4),
        ((1.0, 1.0, 1.3), None),
    ):
        assert module.calls_to_the_floor(result(*distances), "s", "m") == expected


def test_reproducibility(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    module = example("reproducibility")
    monkeypatch.setattr(module, "STEPS", (10, 40, 80))
    module.main(["-n", "6"])
    out = capsys.readouterr().out
    for noise, equal in (("generator", 1), ("keyed", 2), ("brownian", 2)):
        line = next(line for line in out.splitlines() if line.strip().startswith(noise))
        assert line.count("the same to the last bit") == equal
    distances = {
        noise: numbers(out.split("root mean square")[1], noise)[1::2]
        for noise in ("generator", "brownian")
    }
    assert distances["brownian"][-1] < 0.7 * distances["generator"][-1]
    assert is_png(Path("reproducibility.png"), 1170)


def test_animation(capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    module = example("animation")
    means = module.letters("I", 200).means
    width, height = (means.max(0).values - means.min(0).values).tolist()
    assert width == pytest.approx(4.0, rel=0.05) and height > 3 * width  # an I is a bar
    module.main(["--frames", "4", "--samples", "40"])
    assert "5 frames" in capsys.readouterr().out
    with image.open("reverse.webp") as movie:
        frames = []
        for i in range(movie.n_frames):
            movie.seek(i)
            frames.append(np.asarray(movie.convert("RGBA")))
    assert len(frames) == 5
    ink = [frame[40:, :, 3] > 128 for frame in frames]  # below the titles
    middle = ink[0].shape[0] // 2
    # noise fills the panel, letters its middle
    outside = [float(np.delete(i, slice(middle - 80, middle + 80), axis=0).mean()) for i in ink]
    assert outside[0] > 0 and outside[-1] < 0.2 * outside[0]
    assert is_png(Path("reverse.png"), 720)


# -- those of other pages
# ------------------------------------------------------------


def table(out: str, first: str) -> list[float]:
    """The cells of the row of a Markdown table that begins with `first`."""
    row = next(line for line in out.splitlines() if line.startswith(f"| {first} |"))
    return [float(cell) for cell in row.split("|")[2:-1]]


def test_adaptive(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, n = example("adaptive"), 500
    monkeypatch.setattr(module, "SAMPLES", n)
    monkeypatch.setattr(
        module, "QUANTILES", module.MARGINAL.quantile((np.arange(n) + 0.5) / n).double()
    )
    module.main()
    loose, tight = (
        table(capsys_out, tol)
        for capsys_out in [capsys.readouterr().out.split("## sra1")[0]]
        for tol in ("0.3", "0.01")
    )
    assert tight[0] > 2 * loose[0] and tight[3] < 0.1  # NFE, W1


def test_diffusers_pipeline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    module, n = example("diffusers_pipeline"), 1000
    monkeypatch.setattr(module, "SAMPLES", n)
    monkeypatch.setattr(module, "SEEDS", 1)
    monkeypatch.setattr(
        module, "QUANTILES", module.MARGINAL.quantile((np.arange(n) + 0.5) / n).float()
    )
    module.main()
    out = capsys.readouterr().out
    assert all(
        a > b for a, b in zip(table(out, "srk ddpm"), table(out, "srk srk2m, log-snr"), strict=True)
    )


def test_paper_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    module = example("paper_rates")
    monkeypatch.setattr(module, "STEPS", (16, 32, 64))
    monkeypatch.setattr(module, "DIMENSIONS", (1, 4, 16))
    monkeypatch.setattr(module, "PATHS", 16)
    module.main(["--out", str(tmp_path / "paper_rates.png")])
    out = capsys.readouterr().out
    assert (
        table(out, "ddpm")[1] == pytest.approx(-1.0, abs=0.15) and table(out, "srk2")[2] < -3.0
    )  # path, law of the output
    assert (tmp_path / "paper_rates.png").stat().st_size > 10_000


def test_cld(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("cld")
    train = module.train
    monkeypatch.setattr(module, "SAMPLES", 500)
    monkeypatch.setattr(module, "BUDGETS", (12, 24))
    monkeypatch.setattr(
        module,
        "SOLVERS",
        {name: module.SOLVERS[name] for name in ("euler-maruyama", "gddim", "srk2m")},
    )
    monkeypatch.setattr(module, "train", lambda: train(steps=20, batch=64))
    module.main()
    out = capsys.readouterr().out
    kl, exact, _ = out.split("## ")[1:]
    assert all(a > b for a, b in zip(table(kl, "euler-maruyama"), table(kl, "srk2m"), strict=True))
    assert table(exact, "srk2m")[-1] < 0.2


def test_galaxies(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("galaxygrad") is None:
        pytest.skip("needs galaxygrad: pip install --no-deps galaxygrad==0.1.8")
    example("galaxies").main(["--nfe", "6", "-n", "2", "--solvers", "srk2m", "ddpm"])
    assert "srk2m" in capsys.readouterr().out
    assert Path("galaxies.png").stat().st_size > 1000


@pytest.mark.slow
def test_custom_process(capsys: pytest.CaptureFixture[str]) -> None:
    example("custom_process").main()
    out = capsys.readouterr().out
    runs = re.findall(r"^(\S+) +\d+ steps +\d+ NFE +W1 ([\d.]+)$", out, re.MULTILINE)
    last = {solver: float(w1) for solver, w1 in runs}
    assert set(last) == {"euler-maruyama", "sra1"} and max(last.values()) < 0.02
