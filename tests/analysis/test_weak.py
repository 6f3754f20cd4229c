"""Weak orders from means over common random numbers, on targets that are not Gaussian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import srk
from srk.analysis import GridPath, gaussian_distribution, weak_order
from srk.errors import ArgumentError

SHORT = srk.OU(t_min=0.1, horizon=1.0)
"""A start at moderate noise, where a mixture is far from Gaussian."""

SKEW = srk.targets.GaussianMixture([0.3, 0.7], [-1.2, 0.6], [0.5, 0.3])


@pytest.mark.parametrize(
    ("solver", "declared", "steps"),
    [
        ("euler-maruyama", 1, (16, 32, 64)),
        ("ddpm", 1, (16, 32, 64)),
        ("srk2s", 2, (8, 16, 32)),
        ("srk2m", 2, (8, 16, 32)),
        ("sra1", 2, (8, 16, 32)),
    ],
)
def test_weak_order_on_a_mixture(solver: str, declared: int, steps: tuple[int, ...]) -> None:
    """The 95 % interval of the noise meets the declared order +-0.15, and is narrow enough to tell
    1 from 2.
    """
    order = weak_order(solver, SHORT, SKEW, steps=steps, paths=8192)
    low, high = order.interval
    assert order.declared == declared
    assert low - 0.15 <= declared <= high + 0.15, order
    assert low < order.slope < high and high - low < 0.7, order
    assert (order.low < order.errors).all() and (order.errors < order.high).all()


def test_a_method_of_the_ode_needs_no_path() -> None:
    order = weak_order("dpmpp-2m", SHORT, SKEW, steps=(64, 128), paths=512)
    assert order.slope == pytest.approx(2.0, abs=0.1), order


def test_means_agree_with_the_exact_law_of_a_gaussian_target() -> None:
    """The differences of the means of x and x^2 are known there.

    Every error is within four standard errors of its exact value.
    """
    mean, variance, steps = 0.7, 0.3, (8, 16)
    target = srk.targets.Gaussian(mean, variance)
    order = weak_order(
        "ddpm", SHORT, target, observables=["mean", "square"], steps=steps, paths=8192
    )
    moments = {}
    for n in (8, 16, 32):
        law = gaussian_distribution("ddpm", SHORT, mean, variance, steps=n)
        m, v = float(law.mean[0]), float(law.variance[0])
        moments[n] = np.array([m, v + m * m])
    scale = np.array([math.sqrt(v), math.sqrt(2 * v * v + 4 * m * m * v)])
    exact = [(moments[n] - moments[2 * n]) / scale for n in steps]
    along = exact[0] / np.linalg.norm(exact[0]) / math.sqrt(2)
    errors = np.array([difference @ along for difference in exact])
    assert (np.abs(order.errors - errors) < 4.0 / 1.96 * (order.high - order.errors)).all(), (
        order,
        errors,
    )
    assert ((order.high - order.errors) < 0.1 * errors).all()


def test_the_type_of_the_target_chooses_the_route() -> None:
    process = srk.VP()
    by_numbers = weak_order("ddpm", process, mean=[0.5, -0.2], variance=[0.1, 0.4], steps=(16, 32))
    by_target = weak_order(
        "ddpm", process, srk.targets.Gaussian([0.5, -0.2], [0.1, 0.4]), steps=(16, 32)
    )
    np.testing.assert_allclose(by_target.errors, by_numbers.errors, rtol=1e-9)
    full = torch.tensor(
        [[0.25, 0.15], [0.15, 0.25]]
    )  # of the variances 0.1 and 0.4 along the diagonals
    turned = weak_order(
        "ddpm", process, srk.targets.Gaussian([0.15 * 2**0.5, 0.35 * 2**0.5], full), steps=(16, 32)
    )
    np.testing.assert_allclose(turned.errors, by_numbers.errors, rtol=1e-9)
    assert by_target.reference == "the exact Gaussian distribution"
    assert "observables" in weak_order("ddpm", SHORT, SKEW, steps=(4, 8), paths=512).reference
    one = weak_order("ddpm", SHORT, observables="square", variance=0.3, steps=(4, 8), paths=512)
    assert "1 observables" in one.reference


def test_observables_of_ones_own_in_several_dimensions(global_rng_untouched: None) -> None:
    target = srk.targets.GaussianMixture([0.3, 0.7], [[-1.2, 0.5], [0.6, 0.0]], [0.5, 0.3])
    options: dict[str, Any] = {
        "observables": {"product": lambda x: x[:, 0] * x[:, 1], "first": lambda x: x[:, 0].tanh()},
        "steps": (8, 16),
        "paths": 2048,
    }
    a, b, c = (weak_order("ddpm", SHORT, target, seed=seed, **options) for seed in (0, 0, 1))
    assert np.array_equal(a.errors, b.errors) and not np.array_equal(a.errors, c.errors)
    assert a.slope == pytest.approx(1.0, abs=0.2)


def test_the_result_plots() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = weak_order("ddpm", SHORT, SKEW, steps=(4, 8), paths=512).plot()
    assert axes.get_ylabel() == "weak error"
    matplotlib.pyplot.close(axes.figure)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ArgumentError, match="too noisy"):
        weak_order("srk2s", SHORT, SKEW, steps=(64, 128), paths=64)
    with pytest.raises(ArgumentError, match="at least 64"):
        weak_order("ddpm", SHORT, SKEW, steps=(4, 8), paths=10)
    with pytest.raises(ArgumentError, match="no observable 'cube'; choose out of mean"):
        weak_order("ddpm", SHORT, SKEW, observables=["cube"])
    with pytest.raises(ArgumentError, match="empty"):
        weak_order("ddpm", SHORT, SKEW, observables=[])
    with pytest.raises(ArgumentError, match=r"'x' must return one number for each state"):
        weak_order("ddpm", SHORT, SKEW, observables={"x": lambda x: x}, steps=(4, 8), paths=64)
    with pytest.raises(ArgumentError, match="constant"):
        weak_order(
            "ddpm",
            SHORT,
            SKEW,
            observables={"one": lambda x: torch.ones(len(x))},
            steps=(4, 8),
            paths=64,
        )
    with pytest.raises(ArgumentError, match="exact to rounding"):
        weak_order(
            srk.integrators.SRK1(data_variance=0.3),
            SHORT,
            variance=0.3,
            mean=0.0,
            observables="square",
            steps=(4, 8),
            paths=64,
        )


def started(n: int = 3) -> GridPath:
    path = GridPath({"clock": [0.0, 0.1, 0.5, 0.8, 2.0]}, seed=0)
    path.start((n,), torch.float64, torch.device("cpu"))
    return path


def test_the_mirror_image_keeps_increments_between_nodes_and_turns_areas() -> None:
    path = started()
    image = path.mirrored([0.0, 0.8, 2.0], "clock")
    for start, stop in ((0.0, 0.8), (0.8, 2.0)):
        (w, h), (w2, h2) = (
            path.increments(start, stop, "clock"),
            image.increments(start, stop, "clock"),
        )
        torch.testing.assert_close(w2, w, rtol=0, atol=1e-14)
        torch.testing.assert_close(h2, -h, rtol=0, atol=1e-14)
    # the deviation from the chord at 0.5 changes sign
    w, v, v2 = (
        p.increments(0.0, end, "clock")[0] for p, end in ((path, 0.8), (path, 0.5), (image, 0.5))
    )
    torch.testing.assert_close(v2 - 0.625 * w, 0.625 * w - v, rtol=0, atol=1e-14)
    back = image.mirrored([0.0, 0.8, 2.0], "clock")
    torch.testing.assert_close(
        back.increments(0.1, 0.5, "clock"), path.increments(0.1, 0.5, "clock"), rtol=0, atol=1e-14
    )
    with pytest.raises(ArgumentError, match="ends of the path"):
        path.mirrored([0.0, 0.8], "clock")


def test_the_mirror_image_is_a_brownian_path() -> None:
    """W and H of two neighbouring intervals between nodes.

    Covariance diag(h, h/12) within five standard errors.
    """
    n = 40_000
    image = started(n).mirrored([0.0, 2.0], "clock")
    draws = torch.cat(
        [
            torch.stack(image.increments(start, stop, "clock"))
            for start, stop in ((0.1, 0.5), (0.5, 0.8))
        ]
    )
    scale = torch.tensor([0.4, 0.4 / 12, 0.3, 0.3 / 12], dtype=torch.float64).sqrt()[:, None]
    unit = draws / scale
    torch.testing.assert_close(
        unit @ unit.T / n, torch.eye(4, dtype=torch.float64), rtol=0, atol=5.0 * math.sqrt(2.0 / n)
    )
