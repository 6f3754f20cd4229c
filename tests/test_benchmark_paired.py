"""benchmarks/paired.py: its distance against a closed form, its targets against the package's."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from repository import script
from scipy.stats import norm

import srk


@pytest.fixture(scope="module")
def paired() -> ModuleType:
    return script("benchmarks/paired.py")


def test_the_distance_of_shifted_normals(paired: ModuleType) -> None:
    """The integral of (F - G)^2 is E|X - Y| - E|X - X'|/2 - E|Y - Y'|/2; here all three are means
    of |N(m, 2)|. Pairs resolve a shift of 0.02 with 8000 samples, whose own error is 0.011.
    """
    y = torch.randn(8000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(8000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def absolute(m: float) -> float:
        s = math.sqrt(2.0)
        return 2.0 * s * norm.pdf(m / s) + m * (1.0 - 2.0 * norm.cdf(-m / s))

    for shift in (0.02, 0.3):
        exact = math.sqrt(absolute(shift) - absolute(0.0))
        # some of the pairing is lost
        x = (y + 0.05 * noise) / math.sqrt(1.0025) + shift
        found, error = paired.distance(x, y)
        assert error < 0.12 * exact and abs(found - exact) < 4.0 * error
    found, error = paired.distance((y + 0.05 * noise) / math.sqrt(1.0025), y)
    assert found < 3.0 * error < 0.01
    assert paired.distance(x * math.nan, y) == (paired.LIMIT, 0.0)


def test_the_sparse_target_is_a_mixture_in_each_coordinate(paired: ModuleType) -> None:
    process, scales = srk.VP(), torch.tensor([0.5, 2.0], dtype=torch.float64)
    sparse = paired.Sparse(scales)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for lam in (-1.0, 0.5, 3.0):
        level = process.level_at(lam)
        found = sparse.denoise(x, level, process)
        for i, c in enumerate(scales.tolist()):
            stds = [width * c for width in sparse.widths]
            line = srk.targets.GaussianMixture(sparse.weights, [[0.0], [0.0]], stds)
            assert torch.allclose(found[:, i : i + 1], line.denoise(x[:, i : i + 1], level))


def test_the_spectra_of_images_fall_and_have_one_size(paired: ModuleType) -> None:
    for d in (64, 256, 1024):
        stds = paired.spectrum(d)
        assert len(stds) == d and bool((stds.diff() <= 0).all())
        assert float(stds.square().mean()) == pytest.approx(1 / 8)


def test_guidance_is_one_call(paired: ModuleType) -> None:
    (case,) = (c for c in paired.cases().values() if c.name == "ten classes, guidance 3, 64-D")
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    level, score = case.process.level_at(0.0), case.score
    parts = [p.denoise(x, level, case.process) for p in (score.condition, score.reference)]
    assert torch.allclose(
        score.denoise(x, level, case.process), parts[1] + 3.0 * (parts[0] - parts[1])
    )
    assert score.calls() == 1 and case.process.name == "edm"


def test_a_small_case_runs_as_the_tables_do(paired: ModuleType) -> None:
    (case,) = paired.cases(quick=True).values()
    for label in ("auto", paired.PROFILED, "deis-3"):
        value, error = paired.run(case, label, 8, "log-snr")
        assert 0.0 <= value < 0.3 and 0.0 <= error < 0.1
    host = srk.Flow(), paired.shifted(3.0)(4)
    assert host[1] == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
