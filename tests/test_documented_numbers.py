"""Numbers on the pages are those of the committed results.

A result that is measured anew shows which pages to change.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import srk

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")

TABLES = [
    *(
        ("../README.md", f"| {solver} |", "output/demo.txt")
        for solver in ("euler-maruyama", "ddpm", "sra1", "srk2", "srk2m")
    ),
    ("adaptive.md", "| 0.3 |", "adaptive.md"),
    ("adaptive.md", "| 0.1 |", "adaptive.md"),
    ("adaptive.md", "| 0.03 |", "adaptive.md"),
    ("adaptive.md", "| 0.01 |", "adaptive.md"),
    ("diffusers.md", "| diffusers ", "output/diffusers_pipeline.txt"),
    ("diffusers.md", "| srk `", "output/diffusers_pipeline.txt"),
    ("likelihood.md", "| VP, ", "output/likelihood.txt"),
    ("likelihood.md", "| EDM, ", "output/likelihood.txt"),
    ("likelihood.md", "| flow, ", "output/likelihood.txt"),
    ("paper.md", "| `", "output/paper_rates.txt"),
    ("phase-space.md", "| `", "phase-space.md"),
    ("phase-space.md", "| 50 |", "output/custom_process.txt"),
    ("phase-space.md", "| 100 |", "output/custom_process.txt"),
    ("phase-space.md", "| 200 |", "output/custom_process.txt"),
    ("phase-space.md", "| 400 |", "output/custom_process.txt"),
    ("validation.md", "| `", "output/validate-slopes.txt"),
    ("research-notes.md", "| `auto`, exact targets |", "ode.md"),
    ("research-notes.md", "| `auto`, networks |", "ode.md"),
]
"""A page, the start of rows of its tables, and the result that holds the numbers of these rows."""

SENTENCES = [
    (
        "examples.md",
        "(Wasserstein-1 distance 0.068) than Euler-Maruyama with 12 (0.092)",
        "output/quickstart.txt",
        ["srk2m 0.0681 0.0114", "0.3206 0.0917"],
    ),
    (
        "examples.md",
        "it has the distance of exact samples (0.0114)",
        "output/quickstart.txt",
        ["exact samples have 0.0114"],
    ),
    (
        "examples.md",
        "strong 1.72, weak 2.03 for the new tableau",
        "output/custom_tableau.txt",
        ["even-levy strong 1.72 (declared 1.5) weak 2.03"],
    ),
    (
        "examples.md",
        "1.68 and 2.01 for SRA1",
        "output/custom_tableau.txt",
        ["sra1 strong 1.68 (declared 1.5) weak 2.01"],
    ),
    (
        "examples.md",
        "(0.017 ± 0.004; exact samples have 0.019 ± 0.002) and stays at 0.026 ± 0.004 with "
        "the network",
        "output/custom_network.txt",
        ["srk2m 24 0.017 ± 0.004", "exact samples 0.019 ± 0.002", "srk2m 24 0.026 ± 0.004"],
    ),
    (
        "examples.md",
        "has the same distance with both, 0.08",
        "output/custom_network.txt",
        ["ddpm 24 0.076 ± 0.003", "ddpm 24 0.080 ± 0.003"],
    ),
    (
        "examples.md",
        "80 and 160 steps agree to three decimals",
        "output/reproducibility.txt",
        ["80 steps 0.000"],
    ),
    (
        "comparing.md",
        "(0.032 and 0.030; exact samples have 0.019 ± 0.003)",
        "compare-mixture.md",
        [
            "ddpm | 16 | 0.038 ± 0.004 | 0.032 ±",
            "dpmpp-2m-sde | 16 | 0.040 ± 0.003 | 0.0303 ±",
            "exact samples | | 0.044 ± 0.002 | 0.019 ± 0.003",
        ],
    ),
    (
        "comparing.md",
        "only `srk2m` is there (0.037 ± 0.007; exact samples have 0.044 ± 0.002); "
        "`euler-maruyama` comes next (0.056)",
        "compare-mixture.md",
        ["srk2m | 6 | 0.037 ± 0.007", "euler-maruyama | 6 | 0.056"],
    ),
    (
        "comparing.md",
        "Wasserstein-2 distance of 0.146, more than that of `ddpm`",
        "compare-mixture.md",
        ["srk2 | 5 | 0.146", "ddpm | 6 | 0.082"],
    ),
    ("comparing.md", "its 22 at 5 calls is cut off", "compare-mixture.md", ["sra1 | 5 | 21.9"]),
    (
        "comparing.md",
        "`srk2` (0.028, 5 calls) and `srk2m` (0.030) are within a third of the floor (0.0226)",
        "compare-digits.md",
        ["srk2 | 5 | 0.028", "srk2m | 6 | 0.030", "exact samples | | 0.0226"],
    ),
    (
        "comparing.md",
        "is behind them with 6 calls (0.058)",
        "compare-digits.md",
        ["dpmpp-2m | 6 | 0.058"],
    ),
    (
        "comparing.md",
        "`ddpm` has not arrived with 40 calls (0.029)",
        "compare-digits.md",
        ["ddpm | 40 | 0.029"],
    ),
    ("adaptive.md", "exact samples have 0.0069", "adaptive.md", ["exact samples have 0.0069"]),
    (
        "diffusers.md",
        "0.0060 for exact samples",
        "output/diffusers_pipeline.txt",
        ["exact samples have 0.0060"],
    ),
    (
        "phase-space.md",
        "of which exact ones have 0.0023",
        "phase-space.md",
        ["exact samples have 0.0023"],
    ),
    (
        "phase-space.md",
        "exact samples have 0.0054",
        "output/custom_process.txt",
        ["exact samples have 0.0054"],
    ),
    ("paper.md", "ratio 0.86, 0.93, 0.96", "output/paper_rates.txt", ["0.8564, 0.9253, 0.9619"]),
    (
        "paper.md",
        "3.7e-2 (`ddpm`), 6.9e-4 (`wcw`), 5.5e-5 (`srk2`), 5.7e-5 (`srk2m`",
        "output/paper_rates.txt",
        [
            "8.04e-02, 3.73e-02 |",
            "2.65e-03, 6.88e-04 |",
            "2.72e-04, 5.48e-05 |",
            "2.86e-04, 5.72e-05 |",
        ],
    ),
    (
        "likelihood.md",
        "takes 122 calls for 4.4e-4 (1-D) and 68 for 5.8e-4 (16-D) on VP",
        "output/likelihood.txt",
        [
            "vp 1-D scipy in own time 1e-05 122 4.4e-04",
            "vp 16-D scipy in own time 1e-05 68 5.8e-04",
        ],
    ),
    (
        "likelihood.md",
        "199 to 223 calls (1-D) and 115 to 127 (16-D)",
        "output/likelihood.txt",
        ["0.25 199 ", "0.25 223 ", "0.25 115 ", "0.25 127 "],
    ),
    (
        "likelihood.md",
        "has 1.0e-2, 2.2e-2 and 3.3e-2 on VP",
        "output/likelihood.txt",
        ["48 1.0e-02", "48 2.2e-02", "48 3.3e-02"],
    ),
    (
        "likelihood.md",
        "against 1.2e-2, 1.8e-1 and 1.3e-1 for `rk45`",
        "output/likelihood.txt",
        ["48 1.2e-02", "48 1.8e-01", "48 1.3e-01"],
    ),
    (
        "likelihood.md",
        "`rk45` has 2.4e-4, 1.2e-3 and 4.0e-3",
        "output/likelihood.txt",
        ["96 2.4e-04", "96 1.2e-03", "96 4.0e-03"],
    ),
    (
        "../README.md",
        "with 10 calls, has 0.31 and 0.51 of the error along the trajectory of the best of "
        "seven other stochastic solvers, and 0.60 and 0.67 of its error in distribution",
        "networks.md",
        [
            "| path, `srk2m-local`, log-SNR grid | 0.54 | 0.31 |",
            "| path, `srk2m-local`, log-SNR grid | 0.83 | 0.51 |",
            "| distribution, `srk2m-local`, log-SNR grid | 0.56 | 0.60 |",
            "| distribution, `srk2m-local`, log-SNR grid | 1.37 | 0.67 |",
        ],
    ),
    (
        "real-networks.md",
        "`srk2m-local` has 0.54 (galaxies) and 0.83 (garments) of the best other solver's error at "
        "6 calls, 0.31 and 0.51 at 10, 0.18 and 0.27 at 20, 0.12 and 0.15 at 100",
        "networks.md",
        [
            "| path, `srk2m-local`, log-SNR grid | 0.54 | 0.31 | 0.18 | 0.15 | 0.12 |",
            "| path, `srk2m-local`, log-SNR grid | 0.83 | 0.51 | 0.27 | 0.17 | 0.15 |",
        ],
    ),
    (
        "real-networks.md",
        "`auto`, of order 1, has 0.59 and 1.04 at 6 calls, 0.53 and 0.77 at 10, 0.53 and "
        "0.81 at 20, 0.72 and 0.77 at 100",
        "networks.md",
        [
            "| path, `auto`, log-SNR grid | 0.59 | 0.53 | 0.53 | 0.66 | 0.72 |",
            "| path, `auto`, log-SNR grid | 1.04 | 0.77 | 0.81 | 0.64 | 0.77 |",
        ],
    ),
    (
        "real-networks.md",
        "`srk2m-local` has 0.56 (galaxies) and 1.37 (garments) at 6 calls, 0.60 and 0.67 at "
        "10, 0.43 and 0.76 at 20, 0.33 and 0.52 at 50",
        "networks.md",
        [
            "| distribution, `srk2m-local`, log-SNR grid | 0.56 | 0.60 | 0.43 | 0.33 |",
            "| distribution, `srk2m-local`, log-SNR grid | 1.37 | 0.67 | 0.76 | 0.52 |",
        ],
    ),
    (
        "real-networks.md",
        "has 0.92 and 1.74 at 6 calls, 0.79 and 1.47 at 10, 0.77 and 1.93 at 20",
        "networks.md",
        [
            "| distribution, `auto`, log-SNR grid | 0.92 | 0.79 | 0.77 |",
            "| distribution, `auto`, log-SNR grid | 1.74 | 1.47 | 1.93 |",
        ],
    ),
    (
        "research-notes.md",
        "| three stages in place of four | 1.3 | 2.3 | 5 | 8.9 | 10 | 11 | 8.4 | 12 | "
        "| five stages | 0.94 | 1.1 | 1.6 | 2.6 | 2.7 | 3.2 | 1.7 | 1.2 | "
        "| $\\mu$ that shrinks with the square of a step | "
        "1 | 1 | 1.2 | 2.6 | 4.5 | 8.8 | 9.7 | 19 |",
        "gauge-weights.md",
        [
            "| three stages | 1.3 | 2.3 | 5 | 8.9 | 10 | 11 | 8.4 | 12 |",
            "| five stages | 0.94 | 1.1 | 1.6 | 2.6 | 2.7 | 3.2 | 1.7 | 1.2 |",
            "| ridge that shrinks with the square of a step | "
            "1 | 1 | 1.2 | 2.6 | 4.5 | 8.8 | 9.7 | 19 |",
        ],
    ),
    (
        "research-notes.md",
        "from 0.211 to 0.099 at 10 calls and from 0.104 to 0.029 at 20 (galaxies), from "
        "0.427 to 0.258 and from 0.222 to 0.064 (garments)",
        "gauge-networks.md",
        [
            "0.211, 0.037 ± 0.047 | 0.104,",
            "0.099, 0.049 ± 0.013 | 0.029,",
            "0.427, 0.079 ± 0.015 | 0.222,",
            "0.258, 0.090 ± 0.008 | 0.064,",
        ],
    ),
    (
        "research-notes.md",
        "| 0.3 | 3.77 | 2.20 | 1.10 | 1.86 | 0.99 | | 1 | 1.33 | 1.10 | 0.69 | 1.04 | 0.62 | "
        "| 1.5 | 1.09 | 0.85 | 0.52 | 0.82 | 0.56 |",
        "gauge-targets.md",
        [
            "| 1.09 | 0.85 | 0.52 | 0.82 | 0.56 |",
            "| 1.33 | 1.10 | 0.69 | 1.04 | 0.62 |",
            "| 3.77 | 2.20 | 1.10 | 1.86 | 0.99 |",
        ],
    ),
    (
        "research-notes.md",
        "| all targets, `auto` on the log-SNR grid | 0.34 | 0.22 | 0.16 | 0.13 | 0.14 | 0.19 | "
        "0.06 |",
        "quality.md",
        [
            "| `auto`, log-SNR grid, geometric mean | 0.34 | 0.22 | 0.16 | 0.13 | 0.14 | "
            "0.19 | 0.06 |"
        ],
    ),
    (
        "research-notes.md",
        "| all targets, best of ours on any grid | 0.15 | 0.1 | 0.12 | 0.084 | 0.12 | 0.17 | "
        "0.059 |",
        "quality.md",
        [
            "| best of ours, any grid, geometric mean | 0.15 | 0.1 | 0.12 | 0.084 | 0.12 | "
            "0.17 | 0.059 |"
        ],
    ),
    (
        "research-notes.md",
        "| mixtures and images, `auto` on the log-SNR grid | 0.54 | 0.51 | 0.6 | 0.92 | 0.85 | "
        "0.98 | 1 | | mixtures and images, `auto` on the budget grid | 0.39 | 0.31 | 0.36 | 0.63 | "
        "0.82 | 0.89 | 1 |",
        "quality.md",
        [
            "| `auto`, log-SNR grid, mixtures and images only | 0.54 | 0.51 | 0.6 | 0.92 | 0.85 | "
            "0.98 | 1 |",
            "| `auto`, budget grid, mixtures and images only | 0.39 | 0.31 | 0.36 | 0.63 | 0.82 | "
            "0.89 | 1 |",
        ],
    ),
    (
        "research-notes.md",
        "| `auto` | 1.2 | 0.97 | 0.72 | 0.94 | 0.74 | 0.99 | 0.76 | 0.70 |",
        "quality.md",
        [
            "| geometric mean over all targets | 1.2 | 0.97 | 0.72 | 0.94 | 0.74 | 0.99 | "
            "0.76 | 0.7 |"
        ],
    ),
    (
        "speed.md",
        "`srk2m` takes 1.17 times the step of `ddpm` (hand-written loops: 1.20), 1.06 compiled",
        "speed-cpu.md",
        [
            "| bare loops | 2.14 | 1.20 |",
            "| eager | 1.49 | 1.17 |",
            "| compile=step | 1.17 | 1.06 |",
        ],
    ),
    (
        "noise.md",
        "`keyed` 1.12 to 1.46, `brownian` 1.9 to 7.5",
        "noise.md",
        ["| 0.49 | 1.46 |", "| 1.12 | 1.90 |", "| 1.23 | 7.46 |"],
    ),
    ("speed.md", "NumPy takes 278 us, the loop 38 us", "noise.md", ["NumPy 278, compiled loop 38"]),
    (
        "validation.md",
        "All 504 runs agree to 1.1e-13",
        "output/validate.txt",
        ["of 504 runs", "worst 1.1e-13"],
    ),
    (
        "validation.md",
        "they differ by 1.2e-10 at most",
        "output/validate-slopes.txt",
        ["largest difference 1.2e-10"],
    ),
    (
        "budget.md",
        "within 2.3% of the closed form",
        "budget.md",
        ["| `srk2s`, 32 steps | 0.983 | 1.023 | 0.994 |"],
    ),
    (
        "budget.md",
        "at the last of 64 steps 25% too low",
        "budget.md",
        ["| `ddpm`, 64 steps | 0.728 | 1.023 | 0.751 |"],
    ),
    (
        "budget.md",
        "| `ddpm`, seven targets | 0.47 | 0.62 | 0.72 |",
        "budget.md",
        ["| 0.48 | 0.47 |", "| 0.63 | 0.62 |", "| 0.73 | 0.72 |"],
    ),
    (
        "budget.md",
        "| `dpmpp-2m-sde`, seven targets | 0.37 | 0.43 | 0.58 |",
        "budget.md",
        ["| 0.37 | 0.37 |", "| 0.38 | 0.43 |", "| 0.45 | 0.58 |"],
    ),
    (
        "budget.md",
        "| `srk2m`, seven targets | 0.43 | 0.71 | 0.91 |",
        "budget.md",
        ["| 0.43 | 0.43 |", "| 0.49 | 0.71 |", "| 0.85 | 0.91 |"],
    ),
    (
        "budget.md",
        "| `ddpm`, four others | 0.62 | | 0.90 |",
        "budget.md",
        ["| 0.61 | 0.62 |", "| 0.89 | 0.9 |"],
    ),
    (
        "budget.md",
        "| `dpmpp-2m-sde`, four others | 0.67 | | 0.73 |",
        "budget.md",
        ["| 0.64 | 0.67 |", "| 0.65 | 0.73 |"],
    ),
    (
        "budget.md",
        "| `srk2m`, four others | 0.66 | | 1.3 |",
        "budget.md",
        ["| 0.59 | 0.66 |", "| 1.4 | 1.3 |"],
    ),
    (
        "budget.md",
        "over `log-snr` with their default criterion: 0.15, 0.23, 0.25 and 0.57",
        "budget.md",
        [
            "| `sa-solver` | 0.36 | 0.18 | 0.08 | 0.1 | 0.15 |",
            "| 0.17 | 0.23 |",
            "| 0.25 | 0.25 |",
            "| 0.46 | 0.57 |",
        ],
    ),
]
"""A page, words on it, a result, and words of the result that say the same."""


def words(text: str) -> str:
    """Text with single spaces."""
    return " ".join(text.split())


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def numbers(line: str) -> list[float]:
    """The numbers of a row; those in its first cell are names."""
    return [float(number) for number in NUMBER.findall(line)]


def occur_in_order(few: list[float], many: list[float]) -> bool:
    rest = iter(many)
    return all(number in rest for number in few)


@pytest.mark.parametrize(("name", "start", "result"), TABLES)
def test_rows_of_tables_are_rows_of_results(name: str, start: str, result: str) -> None:
    text = (RESULTS / result).read_text(encoding="utf-8")
    rows = [
        row
        for row in page(name).splitlines()
        if row.startswith(start) and re.fullmatch(r"[-\d.e+%/| ]+", row.split("|", 2)[2])
    ]
    assert rows, "no such table"
    if (
        name in {"../README.md", "adaptive.md", "diffusers.md", "paper.md"}
        or result == "phase-space.md"
    ):
        lines = [numbers(line) for line in text.splitlines()]
        missing = [
            row
            for row in rows
            if not any(occur_in_order(numbers(row.split("|", 2)[2]), line) for line in lines)
        ]
    else:  # the page turns the table: each number is on a line of its own
        known = {number for line in text.splitlines() for number in numbers(line)}
        missing = [row for row in rows if not set(numbers(row.split("|", 2)[2])) <= known]
    assert not missing, f"not in benchmarks/results/{result}"


@pytest.mark.parametrize(("name", "said", "result", "found"), SENTENCES)
def test_sentences_say_what_results_say(
    name: str, said: str, result: str, found: list[str]
) -> None:
    assert words(said) in words(page(name)), "the page has changed: change this test with it"
    text = words((RESULTS / result).read_text(encoding="utf-8"))
    assert not [part for part in found if words(part) not in text], (
        f"benchmarks/results/{result} has changed: change docs/{name}"
    )


def test_tables_of_correctors_and_steps_that_go_up() -> None:
    text = (RESULTS / "restart.md").read_text(encoding="utf-8")
    rows = [row for row in page("correctors.md").splitlines() if re.match(r"\|.*\d\.\d{3} \|", row)]
    assert len(rows) == 20
    assert not [row for row in rows if row not in text]
    assert "the floor is 0.029" in text and "floor 0.029" in page("correctors.md")


def test_tests_named_on_the_page_of_validation_exist() -> None:
    """A name behind a comma is one of the file that was named last."""
    text = page("validation.md").partition("## Formulas of other codes")[2]
    file = ""
    names = re.findall(r"`((?:tests/[\w/]+\.py::)?test_\w+)`", text)
    assert len(names) > 20
    for name in names:
        path, _, test = name.rpartition("::")
        file = path or file
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_measured_strong_orders_of_the_validation_page() -> None:
    process = srk.OU(t_min=0.1, horizon=1.0)
    target = srk.targets.GaussianMixture([0.3, 0.4, 0.3], [-1.5, 0.0, 1.5], [0.3, 0.3, 0.3])
    said = re.search(
        r"Measured on that problem with `steps=\(24, 48, 96, 192\)`.*?\n\n|$",
        page("validation.md"),
        re.DOTALL,
    )
    assert said is not None
    orders = {
        name: float(order) for name, order in re.findall(r"`([a-z0-9-]+)` (\d\.\d\d)", said[0])
    }
    assert len(orders) == 17
    for name, order in orders.items():
        measured = srk.analysis.strong_order(name, process, target, steps=(24, 48, 96, 192))
        assert abs(measured.slope - order) < 0.02, name


@pytest.mark.slow
def test_measured_norms_of_the_page_on_adaptive_steps() -> None:
    """One sample of a narrow mixture among 63 of a Gaussian.

    The table of calls and errors by norm.
    """
    process, narrow = (
        srk.VP(),
        srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.05, 0.1]),
    )

    def score(x: Tensor, t: Tensor, *, hard: Tensor) -> Tensor:
        level = process.level(float(t[0]))
        return torch.where(
            hard[:, None], narrow.score_at(x, level), -x / (0.5 * level.alpha**2 + level.sigma**2)
        )

    network = srk.Score(score, model_kwargs={"hard": torch.arange(64) < 1})
    same = {"shape": (64, 1), "noise": "brownian", "seed": 0, "dtype": torch.float64}
    fine = srk.solve(process, network, "srk2", steps=1024, **same)  # type: ignore[arg-type]
    for norm in ("batch", "worst", "sample"):
        control = srk.steps.Adaptive(norm=norm, rtol=0.01, atol=0.01)
        sol = srk.solve(process, network, "srk2", grid=control, **same)
        error = (sol.x - fine.x).abs()[:, 0]
        row = next(row for row in page("adaptive.md").splitlines() if row.startswith(f"| `{norm}`"))
        calls, mean_calls, hard, others = numbers(row)
        assert calls == sol.nfe and abs(mean_calls - sol.mean_nfe) < 0.1
        assert hard == pytest.approx(float(error[0]), rel=0.05)
        assert others == pytest.approx(float(error[1:].square().mean().sqrt()), rel=0.05)


@pytest.mark.slow
def test_measured_weak_orders_of_the_validation_page() -> None:
    process = srk.OU(t_min=0.1, horizon=1.0)
    target = srk.targets.GaussianMixture([0.3, 0.7], [-1.2, 0.6], [0.5, 0.3])
    said = re.search(r"This block gives .*?\. A difference", page("validation.md"), re.DOTALL)
    assert said is not None
    first, second = said[0].split("`steps=(16, 32, 64)`")
    for text, steps in (first, (8, 16, 32)), (second, (16, 32, 64)):
        orders = re.findall(r"`([a-z0-9-]+)` (\d\.\d\d) \[(\d\.\d\d), (\d\.\d\d)\]", text)
        assert len(orders) >= 3
        for name, *stated in orders:
            measured = srk.analysis.weak_order(name, process, target, steps=steps, paths=8192)
            assert [measured.slope, *measured.interval] == pytest.approx(
                [float(number) for number in stated], abs=0.02
            ), name
