"""Grids that go up: Restart, RePaint, lists of times; literal transcriptions and exact results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk._engine import compiled
from srk.analysis import gaussian_distribution
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, TimeError
from srk.integrators import EDMHeun, PredictorCorrector
from srk.plans.renoise import forward_coefficients
from srk.sampling.planning import plan_grid
from srk.steps import RePaint, Restart, Rising, RunInfo
from srk.steps.restart import _PUBLISHED
from srk.steps.rising import lowest

VP = srk.VP()
EDM = srk.EDM(0.002, 80.0)
SHAPE = (3, 2)
TARGET = srk.targets.GaussianMixture([0.4, 0.6], [[-0.5, 0.2], [0.4, -0.3]], [0.25, 0.3])


def draws(count: int) -> Tensor:
    return torch.randn(
        count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


# -- Restart --------------------------------------------------------------------------------------


def karras(high: float, low: float, points: int) -> list[float]:
    a, b = high ** (1 / 7), low ** (1 / 7)
    return [float((a + i / (points - 1) * (b - a)) ** 7) for i in range(points)]


def restart_written_out(
    x: Tensor,
    noise: Iterator[Tensor],
    steps: int,
    intervals: list[Any],
    s_noise: float,
    gamma: float,
) -> Tensor:
    """`restart_sampler` of the official code, in float64 throughout."""
    score = TARGET.score(EDM)

    def denoise(x: Tensor, t: float) -> Tensor:
        return x + t**2 * score(x, torch.full((len(x),), t, dtype=x.dtype))

    def heun(x: Tensor, t: float, t_next: float, churn: float) -> Tensor:
        hat = t
        if churn and 0.01 <= t <= 1.0:
            hat = t + churn * t
            x = x + math.sqrt(hat**2 - t**2) * s_noise * next(noise)
        d = (x - denoise(x, hat)) / hat
        made = x + (t_next - hat) * d
        if t_next > 0.0:
            made = x + (t_next - hat) * (0.5 * d + 0.5 * (made - denoise(made, t_next)) / t_next)
        return made

    main = [*karras(80.0, 0.002, steps), 0.0]
    start = {int(np.argmin([abs(t - v[2]) for t in main])): v for v in intervals}
    for i, (t, t_next) in enumerate(pairwise(main)):
        x = heun(x, t, t_next, 0.0)
        if i + 1 in start:
            points, times, _, high = start[i + 1]
            for _ in range(times):
                inner = karras(high, main[i + 1], points)
                x = x + next(noise) * math.sqrt(inner[0] ** 2 - inner[-1] ** 2) * s_noise
                for t_inner, t_after in pairwise(inner):
                    x = heun(x, t_inner, t_after, gamma)
    return x


@pytest.mark.parametrize(
    ("data", "nfe"), [("cifar10-vp", 43), ("cifar10-edm", 43), ("imagenet-64", 99)]
)
@pytest.mark.parametrize("gamma", [0.0, 0.05])
def test_restart_written_out(data: Any, nfe: int, gamma: float) -> None:
    """The published settings, as the paper has them and with the churn that its code has."""
    grid = Restart.published(data, nfe)
    start, noise = 80.0 * draws(1)[0], draws(100)[1:]
    assert grid.steps is not None
    expected = restart_written_out(
        start, iter(noise), grid.steps + 1, list(grid.intervals), grid.noise_scale, gamma
    )
    solver: Any = "heun"
    eta: Any = 0.0
    if gamma:
        solver = EDMHeun(gamma=gamma, s_min=0.01, s_max=1.0, s_noise=grid.noise_scale)
        eta = grid.inside(EDM)
    ours = srk.solve(
        EDM,
        TARGET.score(EDM),
        solver,
        eta=eta,
        grid=grid,
        x_init=start,
        noise=srk.noise.ReplayNoise(noise),
    )
    assert ours.nfe == nfe
    assert (ours.x - expected).abs().max() < 1e-10


@pytest.mark.parametrize("data", list(_PUBLISHED))
def test_published_settings_cost_what_they_say(data: Any) -> None:
    for steps, intervals in _PUBLISHED[data]:
        nfe = 2 * steps - 1 + sum(2 * k * (n - 1) for n, k, _, _ in intervals)
        grid = Restart.published(data, nfe)
        times = grid.times(RunInfo(EDM, None, None))
        plans = plan_grid(EDM, srk.solvers()["heun"], times, 0.0)
        assert sum(plan.evaluations for plan in plans) + 1 == nfe
        assert lowest(times) == grid.steps == steps - 1


def test_restart_takes_the_dict_of_the_official_code() -> None:
    given = {"0": [3, 2, 0.06, 0.30], "1": [4, 1, 1.09, 1.92]}
    assert Restart(given).intervals == ((3, 2, 0.06, 0.3), (4, 1, 1.09, 1.92))


# -- RePaint --------------------------------------------------------------------------------------


def test_repaint_has_the_timesteps_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.RePaintScheduler(num_train_timesteps=250)
    scheduler.set_timesteps(250, jump_length=10, jump_n_sample=10)
    process = srk.VPDiscrete(betas=np.linspace(1e-4, 0.02, 250))
    ours = RePaint().times(RunInfo(process, None, 249))
    single = [ours[0]]
    for t, t_next in pairwise(ours):
        single += np.linspace(t, t_next, round(abs(t_next - t)) + 1)[1:].tolist()
    assert single == pytest.approx(scheduler.timesteps.tolist(), abs=1e-9)


def test_repaint_written_out() -> None:
    """Algorithm 1 with jumps: known part freshly noised before each reverse step, DDPM step with
    the posterior's variance, jumps of single forward steps.
    """
    n, jump, times = 9, 2, 3
    betas = np.linspace(0.02, 0.5, n)
    process = srk.VPDiscrete(betas=betas)
    bars = np.cumprod(1.0 - betas)
    known, mask = torch.tensor([0.7, 0.0], dtype=torch.float64), torch.tensor([True, False])
    grid = RePaint(jump=jump, resamplings=times)
    levels = [int(t) for t in grid.times(RunInfo(process, None, n - 1))]
    source = iter(draws(1000))
    x = next(source)
    start, given = x.clone(), []
    for t, t_next in [*pairwise(levels), (0, -1)]:
        fresh = next(source)
        given.append(fresh)  # what the hook draws; in a step up it is not seen again
        if t_next > t:
            total, sigma2 = torch.zeros_like(x), 0.0
            for k in range(t + 1, t_next + 1):
                z = next(source)
                x = math.sqrt(1.0 - betas[k]) * x + math.sqrt(betas[k]) * z
                total = math.sqrt(1.0 - betas[k]) * total + math.sqrt(betas[k]) * z
                sigma2 = (1.0 - betas[k]) * sigma2 + betas[k]
            given.append(total / math.sqrt(sigma2))
            continue
        noised = math.sqrt(bars[t]) * known + math.sqrt(1.0 - bars[t]) * fresh
        x = torch.where(mask, noised, x)
        score = TARGET.score(process)(x, torch.full((3,), float(t), dtype=x.dtype))
        x0 = (x + (1.0 - bars[t]) * score) / math.sqrt(bars[t])
        before = bars[t - 1] if t else 1.0
        mean = (
            math.sqrt(before) * betas[t] * x0 + math.sqrt(1.0 - betas[t]) * (1.0 - before) * x
        ) / (1.0 - bars[t])
        if t:
            given.append(next(source))
            x = mean + math.sqrt(betas[t] * (1.0 - before) / (1.0 - bars[t])) * given[-1]
        else:
            x = mean
    ours = srk.solve(
        process,
        TARGET.score(process),
        "ddpm",
        grid=grid,
        steps=n - 1,
        x_init=start,
        hooks=[srk.scores.RePaint(known, mask)],
        noise=srk.noise.ReplayNoise(given),
    )
    assert (ours.x - x)[:, 1].abs().max() < 1e-10
    assert torch.equal(ours.x[:, 0], known[:1].expand(3))
    # a jump at 0, 2, 4 and 6 of the nine levels, each made twice, brings two steps down more
    assert ours.nfe == n + 4 * (times - 1) * jump


def test_repaint_of_complex_states_and_of_parts_of_a_batch() -> None:
    process = srk.VP()
    network = srk.Data(lambda x, t: x * 0.5)
    known = torch.tensor([1.0 + 1.0j, 0.0])
    hook = srk.scores.RePaint(known, torch.tensor([True, False]))
    options: dict[str, Any] = {
        "grid": RePaint(jump=2, resamplings=2), "steps": 6, "seed": 1, "noise": "keyed",
        "hooks": [hook],
    }  # fmt: skip
    whole = srk.solve(process, network, "ddpm", shape=(5, 2), dtype=torch.complex64, **options)
    assert (whole.x[:, 0] - known[0]).abs().max() < 1e-6
    parts = srk.solve(
        process, network, "ddpm", shape=(5, 2), dtype=torch.complex64, microbatch=2, **options
    )
    assert (whole.x - parts.x).abs().max() < 1e-6


# -- what holds for every grid that rises ---------------------------------------------------------

GRID = Rising([1.0, 0.6, 0.3, 0.7, 0.45, 0.3, 0.7, 0.3, 0.1])


def test_a_step_up_is_the_forward_process() -> None:
    """Data with the variance of the gauge are exact for srk1, and stay so on every detour."""
    solver = srk.integrators.SRK1(data_variance=0.25)
    for process in (VP, srk.Flow(), srk.SubVP(), srk.EDM()):
        ends = process.t_max, process.t_min
        between = [process.time(lam) for lam in (-1.0, 0.5, -0.5, 1.0, -0.9, 0.2)]
        grid = Rising([ends[0], *between, ends[1]])
        made = gaussian_distribution(solver, process, 0.0, 0.25, grid=grid)
        assert made.variance == pytest.approx(made.target_variance, rel=1e-11)
    a, c = forward_coefficients(VP.level(0.2), VP.level(0.7))
    low, high = VP.level(0.2), VP.level(0.7)
    assert a**2 * low.sigma**2 + c**2 == pytest.approx(high.sigma**2, rel=1e-12)
    assert a * low.alpha == pytest.approx(high.alpha, rel=1e-12)


@pytest.mark.parametrize("solver", [name for name in srk.solvers() if name != "auto"])
def test_every_solver_starts_anew_after_a_step_up(solver: str) -> None:
    """The run is the runs of its ways down, joined by forward noise."""
    method, score = srk.solvers()[solver], TARGET.score(VP)
    downs = [[1.0, 0.6, 0.3], [0.7, 0.45, 0.3], [0.7, 0.3, 0.1]]
    all_plans = plan_grid(VP, method, GRID.values, method.default_eta)
    if getattr(method, "s_churn", None) or solver == "ddram":
        pytest.skip("its steps depend on their number in the run")
    source = draws(200)
    x, used = source[-1], 0
    whole = srk.solve(
        VP, score, solver, grid=GRID, x_init=x, noise=srk.noise.ReplayNoise(source),
        denoise_final=False,
    )  # fmt: skip
    calls = 0
    for number, times in enumerate(downs):
        if number:
            a, c = forward_coefficients(VP.level(0.3), VP.level(0.7))
            x, used = a * x + c * source[used], used + 1
        part = srk.solve(
            VP, score, solver, grid=times, x_init=x, denoise_final=False,
            noise=srk.noise.ReplayNoise(source[used:]),
        )  # fmt: skip
        plans = plan_grid(VP, method, times, method.default_eta)
        x, used, calls = part.x, used + sum(len(p.slots) for p in plans), calls + part.nfe
    assert used == sum(len(plan.slots) for plan in all_plans)
    assert whole.nfe == calls
    assert whole.times == GRID.values
    assert (whole.x - x).abs().max() < 1e-11


@pytest.mark.parametrize("noise", ["keyed", "brownian"])
def test_detours_have_noise_of_their_own(noise: str) -> None:
    """Going twice through the same levels takes other draws, the same in any batch."""
    seen: list[Any] = []

    def record(slot: Any, clock: str, out: Tensor) -> None:
        seen.append((clock, slot))
        out.zero_()

    options: dict[str, Any] = {"grid": GRID, "dtype": torch.float64}
    score = TARGET.score(VP)
    srk.solve(VP, score, "srk2s", shape=(1, 2), noise=record, **options)
    assert len(set(seen)) == len(seen)
    whole = srk.solve(VP, score, "srk2s", shape=(5, 2), noise=noise, seed=0, **options)
    parts = srk.solve(
        VP, score, "srk2s", shape=(5, 2), noise=noise, seed=0, microbatch=2, **options
    )
    assert (whole.x - parts.x).abs().max() < 1e-12


def test_densities_gradients_callbacks_and_steps_at_once() -> None:
    score = TARGET.score(VP)
    options: dict[str, Any] = {
        "grid": GRID, "seed": 2, "noise": "keyed", "dtype": torch.float64, "denoise_final": False,
    }  # fmt: skip
    told: list[float] = []
    plain = srk.solve(
        VP, score, "ddpm", shape=SHAPE, save=["x", "log_prob", "denoised"],
        callback=lambda info: told.append(info.t), **options,
    )  # fmt: skip
    assert told == list(GRID.values[1:])
    assert plain.trajectory is not None and plain.log_prob is not None
    assert plain.trajectory.times == GRID.values
    assert plain.log_prob.values.shape == (8, 3)  # a step up is Gaussian too
    again = srk.Sampler(VP, score, "ddpm", grid=GRID, denoise_final=False).log_prob(plain)
    assert torch.equal(again.values, plain.log_prob.values)
    assert plain.denoised is not None and len(plain.denoised.times) == 6
    sampler = srk.Sampler(VP, score, "srk2s", grid=GRID, denoise_final=False)
    made = sampler(SHAPE, seed=0, dtype=torch.float64, save=("x", "inputs"))
    assert bool(sampler.log_prob(made).values.isfinite().all())
    start = draws(1)[0].requires_grad_()
    results = [
        torch.autograd.grad(
            srk.solve(VP, score, "ddpm", x_init=start, grad=how, **options).x.sum(), start
        )[0]
        for how in (True, "checkpoint")
    ]
    assert torch.equal(*results)
    at_once = srk.solve(
        VP, score, "ddpm", shape=SHAPE, parallel=srk.Picard(window=8, tolerance=1e-9), **options
    )
    assert (at_once.x - plain.x).abs().max() < 1e-8


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compiled.Kernel,
        "__call__",
        lambda self, numbers, *tensors: self.interpret(numbers, *tensors),
    )
    for solver in ("ddpm", "srk2m", "heun"):
        eager, fused = (
            srk.solve(
                VP, TARGET.score(VP), solver, shape=SHAPE, grid=GRID, seed=1, noise="keyed",
                dtype=torch.float64, compile=how,
            ).x
            for how in (False, "step")
        )  # fmt: skip
        assert (eager - fused).abs().max() < 1e-12


def test_parts_of_a_product_rise_together() -> None:
    product = srk.Product(a=srk.VP(), b=srk.VP())
    score = srk.scores.Independent(a=TARGET.score(VP), b=TARGET.score(VP))
    sol = srk.solve(
        product, score, "ddpm", shape={"a": SHAPE, "b": SHAPE}, grid=GRID, seed=0, noise="keyed"
    )
    alone = srk.solve(VP, TARGET.score(VP), "ddpm", shape=SHAPE, grid=GRID, seed=0, noise="keyed")
    assert sol.nfe == alone.nfe
    assert bool(sol.x["a"].isfinite().all())


def test_eta_by_level_and_a_list() -> None:
    """A rule is asked for the steps down; in a list the steps up have a number without meaning."""
    options: dict[str, Any] = {
        "shape": SHAPE, "grid": GRID, "seed": 0, "noise": "keyed", "dtype": torch.float64,
    }  # fmt: skip
    score = TARGET.score(VP)
    one = srk.solve(VP, score, "ddpm", eta=1.0, **options)
    assert torch.equal(srk.solve(VP, score, "ddpm", eta=lambda level: 1.0, **options).x, one.x)
    listed = [1.0, 1.0, 0.5, 1.0, 1.0, 0.7, 1.0, 1.0]
    assert torch.equal(srk.solve(VP, score, "ddpm", eta=listed, **options).x, one.x)
    srk.solve(VP, score, "ddpm", eta=srk.eta.cps(0.5), **options)
    corrected = PredictorCorrector("ddpm", corrector="ald", snr=0.1)
    by_level, plain = (
        srk.solve(VP, score, corrected, eta=eta, **options).x for eta in (lambda level: 1.0, 1.0)
    )
    assert torch.equal(by_level, plain)


def test_nfe_pays_for_the_detours() -> None:
    score = TARGET.score(EDM)
    grid = Restart([(3, 2, 0.06, 0.3)])
    for nfe in (30, 43, 60):
        sol = srk.solve(EDM, score, "heun", shape=SHAPE, grid=grid, nfe=nfe, seed=0)
        assert nfe - 2 < sol.nfe <= nfe
    sol = srk.solve(VP, TARGET.score(VP), "ddpm", shape=SHAPE, nfe=200, grid=RePaint(4, 3), seed=0)
    assert 190 < sol.nfe <= 200


def test_refusals() -> None:
    score = TARGET.score(VP)

    def run(**options: Any) -> None:
        srk.solve(VP, score, **{"solver": "ddpm", "shape": SHAPE, "steps": 10, **options})

    with pytest.raises(TimeError, match=r"srk.steps.Rising"):
        run(grid=[1.0, 0.5, 0.7, 0.1], steps=None)
    with pytest.raises(TimeError, match="repeats"):
        run(grid=Rising([1.0, 0.5, 0.5]), steps=None)
    with pytest.raises(TimeError, match="two entries"):
        run(grid=Rising([1.0]), steps=None)
    with pytest.raises(TimeError):
        run(grid=Rising([1.0, 0.5, 2.0, 0.5]), steps=None)
    with pytest.raises(IncompatibleError, match="calls='schedule'"):
        run(grid=GRID, steps=None, calls="schedule", solver="srk2m")
    with pytest.raises(IncompatibleError, match="linear process"):
        srk.solve(srk.CLD(), lambda x, t: -x, "gddim", shape=(2, 2, 2), grid=RePaint(2, 2), steps=8)
    with pytest.raises(ArgumentError, match="not pay"):
        run(grid=RePaint(2, 40), nfe=1, steps=None)
    with pytest.raises(ArgumentError, match="leave nfe out"):
        run(grid=GRID, nfe=30, steps=None)
    with pytest.raises(ArgumentError, match="leave one out"):
        run(grid=Restart([(3, 1, 0.1, 0.3)], steps=5))
    with pytest.raises(ArgumentError, match="start of the run"):
        run(grid=Restart([(3, 1, 200.0, 300.0)]))
    with pytest.raises(ArgumentError, match="that of another"):
        run(grid=Restart([(3, 1, 0.1, 0.3), (3, 1, 0.1001, 0.3)]))
    with pytest.raises(ArgumentError, match="not below its high"):
        run(grid=Restart([(3, 1, 0.001, 0.0011)], base="uniform"), steps=3)
    for wrong in ([(1, 1, 0.1, 0.2)], [(3, 0, 0.1, 0.2)], [(3, 1, 0.2, 0.1)], [(3, 1)], "x", 3):
        with pytest.raises((ArgumentError, ArgumentTypeError)):
            Restart(wrong)
    for arguments in ({"jump": 0}, {"resamplings": 0}, {"base": RePaint()}, {"noise_scale": 0.0}):
        with pytest.raises((ArgumentError, ArgumentTypeError)):
            RePaint(**arguments)
    assert Restart(torch.tensor([[3, 2, 0.0625, 0.25]])).intervals == ((3, 2, 0.0625, 0.25),)
    with pytest.raises(ArgumentError, match="imagenet-64"):
        Restart.published("cifar", 43)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="43, 55"):
        Restart.published("cifar10-vp", 44)
    with pytest.raises(IncompatibleError, match="falls"):
        srk.invert(VP, score, draws(1)[0], grid=GRID)
