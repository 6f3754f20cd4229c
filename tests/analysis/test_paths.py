"""The path that runs of different step counts share."""

from __future__ import annotations

import math

import pytest
import torch

from srk.analysis import GridPath
from srk.errors import ArgumentError, IncompatibleError
from srk.integrators import Slot

POINTS = [0.0, 0.1, 0.5, 0.8, 2.0]


def path(paths: int = 4, seed: int = 0) -> GridPath:
    made = GridPath({"clock": POINTS}, seed)
    made.start((paths,), torch.float64, torch.device("cpu"))
    return made


def drawn(
    source: GridPath, start: float, stop: float, weights: tuple[float, ...], paths: int
) -> torch.Tensor:
    out = torch.empty(paths, dtype=torch.float64)
    source.draw(Slot(start, stop, weights), "clock", out)
    return out


def test_two_intervals_join_as_the_formula_says() -> None:
    """numerics.md: H = [(t - u)(H2 + W1/2) + (u - s)(H1 - W2/2)]/(t - s) over [s, u, t]."""
    p = path()
    s, u, t = 0.1, 0.5, 0.8
    (w1, h1), (w2, h2), (w, h) = (
        p.increments(s, u, "clock"),
        p.increments(u, t, "clock"),
        p.increments(s, t, "clock"),
    )
    torch.testing.assert_close(w, w1 + w2, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        h, ((t - u) * (h2 + 0.5 * w1) + (u - s) * (h1 - 0.5 * w2)) / (t - s), rtol=0, atol=1e-14
    )


def test_draws_are_unit_normals_jointly() -> None:
    """W, H and a further coordinate of a joined interval.

    Identity covariance within 5 standard errors of 40,000 paths.
    """
    n = 40_000
    p = path(n)
    draws = torch.stack(
        [
            drawn(p, 0.0, 2.0, weights, n)
            for weights in ((1.0,), (0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0))
        ]
    )
    covariance = draws @ draws.T / n
    torch.testing.assert_close(
        covariance, torch.eye(4, dtype=torch.float64), rtol=0, atol=5.0 * math.sqrt(2.0 / n)
    )


def test_coordinates_beyond_w_and_h_are_shared_within_an_interval() -> None:
    """Two draws of one interval that use Z_1 see the same Z_1, else their joint law would be
    wrong.
    """
    p = path()
    r = math.sqrt(0.5)
    a, b = drawn(p, 0.0, 0.5, (r, 0.0, r), 4), drawn(p, 0.0, 0.5, (r, 0.0, -r), 4)
    torch.testing.assert_close((a + b) * r, drawn(p, 0.0, 0.5, (1.0,), 4))


def test_the_same_seed_is_the_same_path_and_another_is_another(global_rng_untouched: None) -> None:
    a, b, c = path(seed=1), path(seed=1), path(seed=2)
    assert torch.equal(a.increments(0.0, 2.0, "clock")[0], b.increments(0.0, 2.0, "clock")[0])
    assert not torch.equal(a.increments(0.0, 2.0, "clock")[0], c.increments(0.0, 2.0, "clock")[0])
    assert a.seed == 1


def test_ends_that_differ_by_rounding_are_one_point() -> None:
    p = GridPath({"clock": [0.3, 0.1 + 0.2, 1.0]})
    assert len(p.points["clock"]) == 2


def test_a_foreign_point_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"0\.3 is not one of the points"):
        path().increments(0.0, 0.3, "clock")
    with pytest.raises(ArgumentError, match="other"):
        path().increments(0.0, 0.5, "other")
    with pytest.raises(IncompatibleError, match="alpha = 0"):
        GridPath({"clock": [-math.inf, 1.0]})
