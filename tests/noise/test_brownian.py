"""The Brownian path: the law of (W, H), additivity, and one path for every grid."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError
from srk.integrators import SRK2S, Slot, integrator
from srk.noise import BrownianNoise
from srk.noise.brownian import _coarseness
from srk.sampling.planning import plan_grid

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def started(
    shape: tuple[int, ...] = (4, 3),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **options: object,
) -> BrownianNoise:
    noise = BrownianNoise(seed, **options)  # type: ignore[arg-type]
    noise.start(shape, dtype, torch.device("cpu"))
    return noise


def join(
    left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], s: float, u: float, t: float
) -> tuple[Tensor, Tensor]:
    """(W, H) of [s, t] from those of [s, u] and [u, t]: numerics note, section 7."""
    (w1, h1), (w2, h2) = left, right
    return w1 + w2, ((t - u) * (h2 + w1 / 2) + (u - s) * (h1 - w2 / 2)) / (t - s)


def refined(
    noise: BrownianNoise, clock: str, points: list[float], rng: np.random.Generator
) -> list[tuple[Tensor, Tensor]]:
    """(W, H) between neighbours, after asking for stretches between them in a random order."""
    for _ in range(3 * len(points)):
        i, j = sorted(rng.choice(len(points), 2, replace=False))
        noise.increment(clock, points[i], points[j])
    return [tuple(x.clone() for x in noise.increment(clock, a, b)) for a, b in pairwise(points)]


@pytest.mark.parametrize("levels", [0, 1, 4])
@pytest.mark.parametrize("span", ["around zero", "far out", "narrow", "wide"])
def test_the_law_of_w_and_h_after_random_refinements(levels: int, span: str) -> None:
    rng = np.random.default_rng(7)
    points = sorted(
        {
            "around zero": lambda: rng.normal(size=7),
            "far out": lambda: -1e4 + 1e3 * rng.random(7),
            "narrow": lambda: 1.5 + 1e-6 * rng.random(7),
            "wide": lambda: 10.0 ** rng.uniform(-9, 8, size=7),
        }[span]().tolist()
    )
    n = 20_000
    values = refined(started((n, 1), levels=levels), "clock", points, rng)
    columns = []
    for (w, h), a, b in zip(values, points, points[1:], strict=False):
        columns += [w[:, 0] / math.sqrt(b - a), h[:, 0] * math.sqrt(12 / (b - a))]
    for column in columns:
        assert scipy.stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    z = torch.stack(columns, 1)
    covariance = z.T @ z / n  # of W and H, and across intervals
    assert (covariance - torch.eye(z.shape[1], dtype=torch.float64)).abs().max() < 4.5 * math.sqrt(
        2 / n
    )


def test_increments_and_areas_add_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    points = sorted((10.0 ** rng.uniform(-6, 3, size=12)).tolist())
    noise = started()
    parts = refined(noise, "clock", points, rng)
    for i in range(len(points) - 1):
        total = parts[i]
        for j in range(i + 1, len(points) - 1):
            total = join(total, parts[j], points[i], points[j], points[j + 1])
            w, h = noise.increment("clock", points[i], points[j + 1])
            scale = math.sqrt(points[j + 1] - points[i])
            torch.testing.assert_close(total, (w, h), rtol=0, atol=1e-13 * scale)


def test_a_question_repeated_after_others_has_the_same_answer() -> None:
    noise = started(dtype=torch.float32)
    first = [x.clone() for x in noise.increment("clock", 0.3, 0.7)]
    for a, b in [(0.7, 2.0), (0.1, 0.31), (0.3, 0.65), (5.0, 9.0), (0.5, 0.6)]:
        noise.increment("clock", a, b)
    torch.testing.assert_close(list(noise.increment("clock", 0.3, 0.7)), first, rtol=0, atol=1e-6)


def test_what_is_drawn_on_a_step_does_not_depend_on_asking_for_the_area() -> None:
    w = torch.empty(4, 3, dtype=torch.float64)
    started().draw(Slot(0.3, 0.7), "clock", w)
    torch.testing.assert_close(w * math.sqrt(0.4), started().increment("clock", 0.3, 0.7)[0])


def test_beyond_w_and_h_draws_are_independent_and_agree_between_slots() -> None:
    n = 50_000
    noise = started((n, 1))
    s = math.sqrt(0.5)
    out = [torch.empty(n, 1, dtype=torch.float64) for _ in range(4)]
    for slot, z in zip(
        [Slot(1, 2), Slot(1, 2, (0, 1)), Slot(1, 2, (0, s, s)), Slot(1, 2, (0, 0, 1))],
        out,
        strict=True,
    ):
        noise.draw(slot, "clock", z)
    torch.testing.assert_close(out[2], s * out[1] + s * out[3])
    z = torch.cat([out[0], out[1], out[3]], 1)
    assert (z.T @ z / n - torch.eye(3, dtype=torch.float64)).abs().max() < 4.5 * math.sqrt(2 / n)


def test_clocks_and_samples_have_paths_of_their_own() -> None:
    noise = started((1000, 50))
    a, b = noise.increment("one", 0, 1)[0], noise.increment("two", 0, 1)[0]
    assert abs(float((a * b).mean())) < 5 / math.sqrt(a.numel())
    assert abs(float((a[1:] * a[:-1]).mean())) < 5 / math.sqrt(a.numel())


def test_a_point_off_by_rounding_is_the_same_point() -> None:
    noise = started()
    w, _ = noise.increment("clock", 0.3, 0.7)
    w = w.clone()
    torch.testing.assert_close(
        noise.increment("clock", math.nextafter(0.3, 1), math.nextafter(0.7, 1))[0], w
    )
    for end in (1.0, 0.25, -0.5):  # ends of octaves
        for t in (math.nextafter(end, -9), math.nextafter(end, 9)):
            torch.testing.assert_close(
                noise.increment("clock", t, end + 3)[0],
                noise.increment("clock", end, end + 3)[0].clone(),
            )


def test_intervals_without_length_or_end_are_still_unit_normals() -> None:
    noise = started((20_000, 1))
    out = torch.empty(20_000, 1, dtype=torch.float64)
    for start, stop in [(1.0, 1.0), (1.0, math.nextafter(1.0, 0)), (-math.inf, -3.0)]:
        noise.draw(Slot(start, stop), "clock", out)
        assert scipy.stats.kstest(out[:, 0].numpy(), "norm").pvalue > 1e-4
    assert not noise.increment("clock", 2.0, 2.0)[0].any()


def test_an_interval_that_runs_backwards_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="backwards"):
        started().draw(Slot(2.0, 1.0), "clock", torch.empty(4, 3))
    with pytest.raises(ArgumentError, match="start <= stop"):
        started().increment("clock", 2.0, 1.0)


def test_coarse_points_come_first() -> None:
    assert _coarseness(12) == [2, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 2]
    assert _coarseness(3) == [0, 0, 0, 0]


def path_on(
    steps: int, solver: object = "ddpm", levels: int = 1, grid: str = "log-snr"
) -> tuple[list[float], list[Tensor]]:
    """The clock's points and the path at them, in the order in which a run asks."""
    process, method = srk.VP(), integrator(solver)  # type: ignore[arg-type]
    plans = plan_grid(
        process,
        method,
        srk.steps.as_grid(grid).times(srk.steps.RunInfo(process, method, steps)),
    )
    noise = started((2, 2), levels=levels)
    noise.prepare(plans)
    points, values = [plans[0].slots[0].start], [torch.zeros(2, 2, dtype=torch.float64)]
    for plan in plans:
        z = torch.empty(2, 2, dtype=torch.float64)
        for slot in plan.slots:
            noise.draw(slot, plan.clock, z)
            if slot.weights == (1.0,):
                points.append(slot.stop)
                values.append(values[-1] + z * math.sqrt(slot.stop - slot.start))
    return points, values


@pytest.mark.parametrize("levels", [0, 1, 5])
@pytest.mark.parametrize("solver", ["ddpm", SRK2S(strong=True)], ids=["W", "W and H"])
def test_grids_of_twice_the_steps_follow_the_same_path(levels: int, solver: object) -> None:
    coarse, b = path_on(25, solver, levels)
    for steps in (50, 100):
        fine, w = path_on(steps, solver, levels)
        every = steps // 25
        np.testing.assert_allclose(fine[::every], coarse, rtol=1e-12)
        for x, y in zip(w[::every], b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_other_grids_share_the_path_more_closely_with_more_levels() -> None:
    def gap(levels: int) -> float:
        # the path at the same place within a step's bridge, through nearest points
        a, b = path_on(60, levels=levels), path_on(77, levels=levels)
        gaps = []
        for t, w in zip(*a, strict=True):
            i = min(range(len(b[0])), key=lambda i: abs(b[0][i] - t))
            gaps.append(float((w - b[1][i]).abs().mean()) / math.sqrt(t))
        return float(np.mean(gaps[5:-1]))

    assert gap(8) < 0.75 * gap(0)


@pytest.mark.parametrize("make", [srk.noise.KeyedNoise, BrownianNoise])
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "srk2s", "dpmpp-sde", "etd-sra1", "sra1"])
def test_a_batch_of_64_is_eight_batches_of_8_bit_for_bit(make: type, solver: str) -> None:
    process = srk.VP()
    score = srk.targets.GaussianMixture([0.4, 0.6], [[-1.0] * 3, [0.5] * 3], [0.3, 0.3]).score(
        process
    )

    def run(batch: int, first: int) -> Tensor:
        return srk.solve(
            process, score, solver, shape=(batch, 3), steps=6, noise=make(3, first_index=first)
        ).x

    whole = run(64, 0)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([run(8, first) for first in range(0, 64, 8)]))
    assert torch.equal(
        whole[[5, 3]],
        srk.solve(process, score, solver, shape=(2, 3), steps=6, noise=make(3, indices=[5, 3])).x,
    )


def test_the_sample_is_the_same_up_to_rounding_in_float64() -> None:
    process = srk.VP()
    score = srk.targets.Gaussian([0.5] * 3, 0.04).score(process)
    single, double = (
        srk.solve(
            process, score, shape=(4, 3), steps=10, noise="brownian", seed=0, dtype=d
        ).x.double()
        for d in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single, double, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "order"), [("ddpm", 1.0), (SRK2S(strong=True), 1.5)], ids=["ddpm", "srk2s(strong)"]
)
def test_images_of_one_seed_approach_each_other_at_the_strong_order(
    solver: object, order: float
) -> None:
    # An overlapping mixture, so that no sample switches mode; sigma from 20 to 0.1, where the step
    # count is in the asymptotic range
    process = srk.EDM(sigma_min=0.1, sigma_max=20.0)
    score = srk.targets.GaussianMixture([0.5, 0.5], [[-0.4], [0.4]], [0.5, 0.6]).score(process)

    def run(steps: int, seed: int = 1) -> Tensor:
        options = {
            "steps": steps,
            "noise": "brownian",
            "seed": seed,
            "dtype": torch.float64,
            "denoise_final": False,
        }
        return srk.solve(process, score, solver, shape=(2000, 1), **options).x

    x = {n: run(n) for n in (25, 50, 100, 200)}
    distance = [float((x[n] - x[2 * n]).abs().median()) for n in (25, 50, 100)]
    slope = math.log2(distance[0] / distance[2]) / 2
    assert slope == pytest.approx(order, abs=0.15)
    # ... and other step counts give the same image too, to within the path's bridge
    other, stranger = run(90), run(90, seed=2)
    assert (other - x[100]).abs().median() < 0.25 * (stranger - x[100]).abs().median()


def test_every_solver_draws_each_functional_once_per_step() -> None:
    # A source that names a draw by (clock, interval, weights) would give the same numbers twice
    process = srk.VP()
    times = [1.0, 0.6, 0.3, 0.1]
    for name, solver in srk.solvers().items():
        seen: set[tuple[object, ...]] = set()
        for plan in plan_grid(process, solver, times):
            for slot in plan.slots:
                entry = (plan.clock, slot)
                assert entry not in seen, f"{name} draws {slot} twice"
                seen.add(entry)
                assert slot.start < slot.stop, f"{name}: {slot}"


def test_the_torchsde_view() -> None:
    torchsde = pytest.importorskip("torchsde")

    class SDE(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return -y

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.ones_like(y)

    noise = started((5, 2))
    path = noise.as_torchsde("time", 0.0, 1.0)
    y = torchsde.sdeint(
        SDE(),
        torch.zeros(5, 2, dtype=torch.float64),
        torch.tensor([0.0, 1.0]),
        bm=path,
        method="euler",
        dt=0.125,
    )[-1]
    expected = torch.zeros(5, 2, dtype=torch.float64)
    for k in range(8):
        expected = expected - expected / 8 + noise.increment("time", k / 8, (k + 1) / 8)[0]
    torch.testing.assert_close(y, expected)
    w, u = path(0.25, 0.5, return_U=True)
    h = noise.increment("time", 0.25, 0.5)[1]
    torch.testing.assert_close(u, 0.25 * (w / 2 + h))
    assert path.levy_area_approximation == "space-time"
    path(-1e-9, 1 + 1e-9)  # an overshoot by rounding
    with pytest.raises(ArgumentError, match="defined on"):
        path(0.5, 1.1)
    with pytest.raises(ArgumentError, match="space-space"):
        path(0.5, 0.6, return_A=True)
