"""Predictor-corrector methods: literal transcriptions, exact distributions, every solver."""

from __future__ import annotations

import math
import shutil
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk._engine import compiled
from srk.analysis import gaussian_distribution
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.integrators import PredictorCorrector, ReverseDiffusion
from srk.plans.plan import Column, Ratio, join
from srk.sampling.planning import plan_grid

SHAPE = (3, 6)
TARGET = srk.targets.GaussianMixture([0.3, 0.7], [[-0.6] * 6, [0.4] * 6], [0.3, 0.2])
VP = srk.VP()


def draws(count: int) -> Tensor:
    return torch.randn(
        count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def score_at(process: srk.LinearProcess, x: Tensor, t: float) -> Tensor:
    return TARGET.score(process)(x, torch.full((len(x),), t, dtype=x.dtype))


def mean_norm(x: Tensor) -> Tensor:
    """As both codes take it: the mean over the batch of the norm of each sample."""
    return torch.norm(x.reshape(x.shape[0], -1), dim=-1).mean()


def test_score_sde_for_ve_written_out() -> None:
    """`get_pc_sampler` with reverse_diffusion, langevin, snr 0.16, eps 0, and denoising."""
    n, low, high = 12, 0.01, 5.0
    process = srk.VE(sigma_min=low, sigma_max=high)
    sigmas = np.exp(np.linspace(math.log(low), math.log(high), n))
    noise = draws(2 * n)
    x = high * draws(2 * n + 1)[-1]
    start, left, states = x.clone(), iter(noise), []
    for i in range(n):
        t = 1.0 - i / (n - 1)
        grad, z = score_at(process, x, t), next(left)
        step = (0.16 * mean_norm(z) / mean_norm(grad)) ** 2 * 2
        x = x + step * grad + torch.sqrt(step * 2) * z
        index = n - 1 - i
        before = sigmas[index - 1] if index else 0.0
        g2 = sigmas[index] ** 2 - before**2
        mean = x + g2 * score_at(process, x, t)
        x = mean + math.sqrt(g2) * next(left)
        states.append(x)
    ours = srk.solve(
        process,
        TARGET.score(process),
        PredictorCorrector.score_sde("ve"),
        grid="uniform",
        steps=n - 1,
        x_init=start,
        noise=srk.noise.ReplayNoise(noise),
        save="x",
    )
    assert ours.nfe == 2 * n
    assert ours.trajectory is not None
    for got, expected in zip(ours.trajectory.values[1:], states, strict=False):
        assert (got - expected).abs().max() < 1e-10
    assert (ours.x - mean).abs().max() < 1e-10


def test_score_sde_for_vp_written_out() -> None:
    """Discrete betas: the predictor is DDPM's discretization, the corrector's alpha is 1 - beta."""
    n, snr = 12, 0.01
    betas = np.linspace(0.1 / n, 0.8, n)
    process = srk.VPDiscrete(betas=betas)
    noise = draws(2 * n)
    x, left = draws(2 * n + 1)[-1], iter(noise)
    start, states = x.clone(), []
    for i in range(n - 1, 0, -1):
        beta, alpha = betas[i], 1.0 - betas[i]
        grad, z = score_at(process, x, i), next(left)
        step = (snr * mean_norm(z) / mean_norm(grad)) ** 2 * 2 * alpha
        x = x + step * grad + torch.sqrt(step * 2) * z
        f = math.sqrt(alpha) * x - x - beta * score_at(process, x, i)
        x = x - f + math.sqrt(beta) * next(left)
        states.append(x)
    ours = srk.solve(
        process,
        TARGET.score(process),
        PredictorCorrector.score_sde("vp"),
        grid="uniform",
        steps=n - 1,
        x_init=start,
        noise=srk.noise.ReplayNoise(noise),
        save="x",
        denoise_final=False,
    )
    assert ours.trajectory is not None
    for got, expected in zip(ours.trajectory.values[1:], states, strict=True):
        assert (got - expected).abs().max() < 1e-10


class OUVE(srk.LinearProcess):
    """SGMSE's process in x - y, written out."""

    name = "ouve-in-the-test"
    t_min, t_max = 0.0, 1.0
    theta, low, high = 1.5, 0.05, 0.5

    def alpha(self, t: Any) -> Any:
        return np.exp(-self.theta * t)

    def sigma(self, t: Any) -> Any:
        rate = math.log(self.high / self.low)
        growth = np.exp(-2 * self.theta * t) * np.expm1(2 * (self.theta + rate) * t)
        return np.sqrt(self.low**2 * growth * rate / (self.theta + rate))

    def drift(self, t: Any, x: Tensor) -> Tensor:
        return -self.theta * x

    def log_alpha_rate(self, t: float) -> float:
        return -self.theta

    def diffusion(self, t: float) -> float:  # type: ignore[override]
        rate = math.log(self.high / self.low)
        return self.low * (self.high / self.low) ** t * math.sqrt(2 * rate)


@pytest.mark.parametrize("corrector", ["ald", "langevin"])
def test_sgmse_written_out(corrector: str) -> None:
    """`get_pc_sampler` of SGMSE: corrector, reverse_diffusion, from 1 to 0.03 and then 0."""
    process, n, eps, snr = OUVE(), 30, 0.03, 0.5
    score = TARGET.score(process)
    times = np.linspace(1.0, eps, n)
    noise = draws(2 * n)
    x, left = float(process.sigma(1.0)) * draws(2 * n + 1)[-1], iter(noise)
    start, states = x.clone(), []
    for i, t in enumerate(times):
        dt = t - times[i + 1] if i != n - 1 else times[-1]
        std = float(process.sigma(t))
        grad, z = score_at(process, x, t), next(left)
        step = torch.tensor((snr * std) ** 2 * 2, dtype=torch.float64)
        if corrector == "langevin":
            step = (snr * mean_norm(z) / mean_norm(grad)) ** 2 * 2
        x = x + step * grad + z * torch.sqrt(step * 2)
        f, g = -process.theta * x * dt, process.diffusion(t) * math.sqrt(dt)
        mean = x - (f - g**2 * score_at(process, x, t))
        x = mean + g * next(left)
        states.append(x)
    solver = PredictorCorrector.sgmse()
    if corrector == "langevin":
        solver = PredictorCorrector(
            ReverseDiffusion(forward="euler"), corrector="langevin", snr=snr, norms="batch"
        )
    ours = srk.solve(
        process,
        score,
        solver,
        grid=[*times, 0.0],
        x_init=start,
        noise=srk.noise.ReplayNoise(noise),
        save="x",
    )
    assert ours.nfe == 2 * n
    assert ours.trajectory is not None
    for got, expected in zip(ours.trajectory.values[1:-1], states[:-1], strict=True):
        assert (got - expected).abs().max() < 1e-10
    assert (ours.x - mean).abs().max() < 1e-10


def test_each_sample_by_itself_written_out() -> None:
    process, times = VP, [1.0, 0.6, 0.3]
    noise = draws(6)
    x, left = draws(7)[-1], iter(noise)
    start = x.clone()
    for t, t_next in [(1.0, 0.6), (0.6, 0.3)]:
        for _ in range(2):
            grad, z = score_at(process, x, t), next(left)
            norms = z.flatten(1).norm(dim=1) / grad.flatten(1).norm(dim=1)
            step = 2 * (0.1 * norms[:, None]) ** 2
            x = x + step * grad + torch.sqrt(2 * step) * z
        g = float(process.diffusion(t))
        drift = process.drift(t, x) - g**2 * score_at(process, x, t)
        x = x - drift * (t - t_next) + g * math.sqrt(t - t_next) * next(left)
    ours = srk.solve(
        process,
        TARGET.score(process),
        PredictorCorrector("euler-maruyama", snr=0.1, steps=2),
        grid=times,
        x_init=start,
        noise=srk.noise.ReplayNoise(noise),
        denoise_final=False,
    )
    assert (ours.x - x).abs().max() < 1e-10


@pytest.mark.parametrize("noise", ["keyed", "brownian"])
def test_a_sample_does_not_depend_on_its_batch(noise: str) -> None:
    solver = PredictorCorrector("srk2m", snr=0.1)
    options: dict[str, Any] = {"steps": 8, "dtype": torch.float64, "seed": 3, "noise": noise}
    whole = srk.solve(VP, TARGET.score(VP), solver, shape=(7, 6), **options)
    parts = srk.solve(VP, TARGET.score(VP), solver, shape=(7, 6), microbatch=3, **options)
    assert (whole.x - parts.x).abs().max() < 1e-12
    assert whole.nfe == parts.nfe == 18


def test_the_predictors_path_is_that_of_a_run_without_corrector() -> None:
    """With noise="brownian" the corrector draws beside the path, not from it."""
    asked: dict[str, list[Any]] = {}

    def record(name: str) -> Any:
        def draw(slot: Any, clock: str, out: Tensor) -> None:
            asked.setdefault(name, []).append(slot)
            out.zero_()

        return draw

    for name, solver in [("plain", "ddpm"), ("pc", PredictorCorrector("ddpm", steps=2))]:
        srk.solve(
            VP, TARGET.score(VP), solver, shape=(1, 6), steps=3, noise=record(name), seed=None
        )
    on_path = [slot for slot in asked["pc"] if slot is None or any(slot.weights[:2])]
    assert on_path == asked["plain"]
    beside = [slot for slot in asked["pc"] if slot is not None and not any(slot.weights[:2])]
    assert len(set(beside)) == len(beside) == 2 * 4  # the final denoising has a corrector too


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
@pytest.mark.parametrize("corrector", ["ald", "langevin"])
def test_over_every_solver(solver: str, corrector: Any) -> None:
    """It runs, counts its calls, and a vanishing snr leaves the predictor's own numbers."""
    ends = solver != "gauge-adams"  # which needs no call at the end, as a corrector there does
    run: dict[str, Any] = {"shape": SHAPE, "seed": 2, "denoise_final": ends}
    four = {**run, "steps": 4, "noise": "keyed", "dtype": torch.float64}
    plain = srk.solve(VP, TARGET.score(VP), solver, **four)
    method = PredictorCorrector(solver, corrector=corrector, snr=1e-13, steps=2)
    sol = srk.solve(VP, TARGET.score(VP), method, **four)
    assert sol.nfe == plain.nfe + 2 * (4 + ends)
    assert (sol.x - plain.x).abs().max() < 1e-8
    bought = srk.solve(VP, TARGET.score(VP), method, nfe=29, **run)
    assert 29 - method.evaluations_per_step < bought.nfe <= 29


@pytest.mark.parametrize("process", [srk.Flow(), srk.EDM(), srk.VE(), srk.SubVP()])
def test_on_every_kind_of_end(process: srk.LinearProcess) -> None:
    """From alpha = 0 and to sigma = 0 there is a corrector too, and nfe buys whole steps."""
    score = TARGET.score(process)
    for corrector in ("ald", "langevin"):
        solver = PredictorCorrector("ddpm", corrector=corrector, snr=0.1)
        sol = srk.solve(process, score, solver, shape=SHAPE, nfe=20, seed=0)
        assert sol.nfe == 20
        assert bool(sol.x.isfinite().all())


def test_ald_settles_where_it_is_said_to() -> None:
    """One level, many corrector steps: variance V/(1 - e/(2 V)), e = 2 (snr sigma)^2."""
    process = srk.EDM()
    level, v, snr = process.level(1.0), 0.25, 0.4
    total, e = v + 1.0, 2 * snr**2
    solver = PredictorCorrector("ddpm", corrector="ald", snr=snr, steps=60)
    times = [1.0, 1.0 - 1e-9]
    law = gaussian_distribution(solver, process, 0.0, v, grid=times)
    assert level.alpha == 1.0
    assert law.variance == pytest.approx(total / (1 - e / (2 * total)), rel=1e-6)


def test_ald_reaches_the_exact_distribution() -> None:
    """KL falls at the order of Euler-Maruyama, squared, to the floor that snr leaves."""
    process = srk.VP(t_min=1e-4)
    kls, v = [], np.array([0.05, 1.0])
    for steps in (100, 200, 400):
        solver = PredictorCorrector("euler-maruyama", corrector="ald", snr=0.05)
        kls.append(gaussian_distribution(solver, process, 0.3, v, steps=steps).kl)
    assert math.log2(kls[1] / kls[2]) > 1.7
    assert kls[2] < 1e-3


def test_langevin_reaches_the_exact_distribution() -> None:
    """Gaussian data in 64 dimensions: the variance of the samples comes to that of the data."""
    target = srk.targets.Gaussian(0.5, 0.25, event_shape=(64,))
    solver = PredictorCorrector("reverse-diffusion", snr=0.05, norms="batch")
    errors = []
    for steps in (25, 100, 400):
        sol = srk.solve(VP, target.score(VP), solver, shape=500, steps=steps, seed=0)
        errors.append(abs(float(sol.x.var()) / 0.25 - 1.0))
    assert errors[1] < 0.3 * errors[0]
    assert errors[2] < 0.4 * errors[1]
    assert errors[2] < 0.025


@pytest.mark.parametrize("snr", [0.1, 0.16])
@pytest.mark.parametrize(("norms", "share"), [("batch", 0.0), ("sample", 4.0)])
def test_langevin_settles_where_it_is_said_to(snr: float, norms: Any, share: float) -> None:
    """One level, many corrector steps, d = 64: too much variance by snr^2, and by 4/d more with
    norms of each sample.
    """
    process, target = srk.EDM(), srk.targets.Gaussian(0.0, 1.0, event_shape=(64,))
    generator = torch.Generator().manual_seed(0)
    sol = srk.solve(
        process,
        target.score(process),
        PredictorCorrector("ddpm", snr=snr, norms=norms, steps=150),
        x_init=math.sqrt(2.0) * torch.randn(2000, 64, generator=generator),
        grid=[1.0, 1.0 - 1e-6],
        denoise_final=False,
        seed=0,
    )
    assert float(sol.x.var()) / 2.0 - 1.0 == pytest.approx(snr**2 + share / 64, abs=0.012)


def test_the_mean_keeps_the_correctors_noise() -> None:
    """denoise_final="mean" is the last predictor step without noise, as both codes end."""
    noise, start = draws(4), draws(5)[-1]
    solver = PredictorCorrector("ddpm", corrector="ald", snr=0.3)

    def end(last: Tensor, final: Any) -> Tensor:
        replay = srk.noise.ReplayNoise([*noise[:3], last])
        return srk.solve(
            VP, TARGET.score(VP), solver, x_init=start, grid=[1.0, 0.5, 0.2], noise=replay,
            denoise_final=final,
        ).x  # fmt: skip

    assert torch.equal(end(torch.zeros(SHAPE), False), end(noise[3], "mean"))
    law = gaussian_distribution(solver, VP, 0.0, 0.25, grid=[1.0, 0.5, 0.2], denoise_final="mean")
    assert (
        law.variance < gaussian_distribution(solver, VP, 0.0, 0.25, grid=[1.0, 0.5, 0.2]).variance
    )


@pytest.mark.parametrize("corrector", ["ald", "langevin"])
def test_gradients_and_half_precision(corrector: Any) -> None:
    solver = PredictorCorrector("srk2m", corrector=corrector, snr=0.1)
    start = draws(1)[0].requires_grad_()
    results = []
    for grad in (True, "checkpoint"):
        sol = srk.solve(
            VP, TARGET.score(VP), solver, x_init=start, steps=4, seed=1, grad=grad, noise="keyed"
        )
        results.append(torch.autograd.grad(sol.x.sum(), start)[0])
    assert (results[0] - results[1]).abs().max() < 1e-12
    assert bool(results[0].isfinite().all())
    half = srk.solve(
        VP, TARGET.score(VP), solver, shape=(4, 6), steps=20, seed=1,
        dtype=torch.float16, noise="keyed",
    ).x  # fmt: skip
    full = srk.solve(VP, TARGET.score(VP), solver, shape=(4, 6), steps=20, seed=1, noise="keyed").x
    assert half.dtype == torch.float16
    assert (half - full).abs().max() < 0.1


def test_guidance_and_hooks() -> None:
    base = TARGET.score(VP)
    guided = srk.scores.Hooked(base, srk.scores.hooks.Clip(-0.2, 0.2))
    sol = srk.solve(
        VP, guided, PredictorCorrector("ddpm", snr=0.1), shape=(50, 6), steps=10, seed=0
    )
    assert sol.x.abs().max() <= 0.2


def test_adaptive_steps() -> None:
    """A retried step keeps the corrector's draws."""
    solver = PredictorCorrector("srk2s", corrector="ald", snr=0.05)
    options: dict[str, Any] = {"shape": SHAPE, "grid": "adaptive"}
    sol = srk.solve(VP, TARGET.score(VP), solver, noise="brownian", seed=0, **options)
    assert sol.status == "done"
    assert bool(sol.x.isfinite().all())
    plans = [
        solver.plan_step(srk.integrators.Step(VP, VP.level(0.5), VP.level(t))) for t in (0.4, 0.3)
    ]
    assert plans[0].slots[0] == plans[1].slots[0]
    ode = PredictorCorrector("srk2s", corrector="ald")
    with pytest.raises(IncompatibleError, match="brownian"):
        srk.solve(VP, TARGET.score(VP), ode, eta=0.0, noise="keyed", **options)


PREDICTORS = [
    PredictorCorrector("ddpm", corrector="ald", snr=0.1, steps=2),
    PredictorCorrector("srk2s", corrector="langevin", snr=0.1, steps=2),
    PredictorCorrector("srk2m", corrector="langevin", snr=0.1),
    PredictorCorrector("heun", corrector="langevin", snr=0.1, norms="batch"),
    PredictorCorrector("dpmpp-2m-sde", corrector="ald", snr=0.1),
]


def compiled_and_eager(solver: PredictorCorrector, noise: str, dtype: torch.dtype) -> float:
    """The largest difference between a compiled run and one that is not."""
    eager, fused = (
        srk.solve(
            VP, TARGET.score(VP), solver, shape=SHAPE, steps=5, seed=1, noise=noise, dtype=dtype,
            compile=how,
        ).x
        for how in (False, "step")
    )  # fmt: skip
    return float((eager - fused).abs().max())


@pytest.mark.parametrize("solver", PREDICTORS)
@pytest.mark.parametrize("noise", ["keyed", "generator"])
def test_the_text_of_the_kernels(
    solver: PredictorCorrector, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled, run as it is: quantities and ratios of norms included."""
    monkeypatch.setattr(
        compiled.Kernel,
        "__call__",
        lambda self, numbers, *tensors: self.interpret(numbers, *tensors),
    )
    assert compiled_and_eager(solver, noise, torch.float64) < 1e-12


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="compile='step' needs a C++ compiler; none here",
)
def test_compiled() -> None:
    solver = PredictorCorrector("ddpm", corrector="langevin", snr=0.1)
    assert compiled_and_eager(solver, "keyed", torch.float32) < 2e-5


def test_log_densities() -> None:
    """The corrector's draws enter the network, so that no step is Gaussian given the state; with
    the inputs kept, "ald" has the densities of its parts.
    """
    score = TARGET.score(VP)
    for corrector in ("ald", "langevin"):
        solver = PredictorCorrector("ddpm", corrector=corrector, snr=0.3)
        with pytest.raises(IncompatibleError, match="not Gaussian"):
            srk.solve(VP, score, solver, shape=SHAPE, save="log_prob")
    sampler = srk.Sampler(
        VP,
        score,
        PredictorCorrector("ddpm", corrector="ald", snr=0.3),
        grid=[1.0, 0.5],
        denoise_final=False,
    )
    sol = sampler(SHAPE, seed=0, dtype=torch.float64, save=("x", "inputs"))
    ours = sampler.log_prob(sol).values.sum(0)
    assert sol.trajectory is not None
    start, stop, level = sol.trajectory.values[0], sol.x, VP.level(1.0)
    assert sol.inputs is not None
    corrected = sol.inputs.values[1]
    e = 2 * (0.3 * level.sigma) ** 2
    first = torch.distributions.Normal(
        start + e * score_at(VP, start, 1.0), math.sqrt(2 * e)
    ).log_prob(corrected)
    plain = srk.Sampler(VP, score, "ddpm", grid=[1.0, 0.5], denoise_final=False)
    saved = srk.solution.Saved((1.0, 0.5), torch.stack([corrected, stop]))
    second = plain.log_prob(saved).values[0]
    assert (ours - first.sum(1) - second).abs().max() < 1e-10
    for solver in (PredictorCorrector("srk2m", corrector="ald"), PredictorCorrector("ddpm")):
        other = srk.Sampler(VP, score, solver, steps=4, denoise_final=False)
        made = other(SHAPE, seed=0, dtype=torch.float64, save=("x", "inputs"))
        if solver.corrector == "langevin":
            with pytest.raises(IncompatibleError, match="corrector='ald'"):
                other.log_prob(made)
        else:
            assert bool(other.log_prob(made).values.isfinite().all())


@pytest.mark.parametrize(("size", "norms"), [(1, "batch"), (4, "batch"), (5, "sample")])
def test_states_of_few_numbers_take_the_norms_of_the_batch(size: int, norms: Any) -> None:
    score = srk.targets.Gaussian(0.0, 0.5, event_shape=(size,)).score(VP)
    made = [
        srk.solve(VP, score, PredictorCorrector("ddpm", norms=n), shape=9, steps=6, seed=1).x
        for n in ("auto", norms)
    ]
    assert torch.equal(*made)


def test_refusals() -> None:
    score = TARGET.score(VP)
    with pytest.raises(IncompatibleError, match="corrector='ald'"):
        gaussian_distribution(PredictorCorrector("ddpm"), VP, steps=5)
    few = srk.targets.Gaussian(0.0, 1.0).score(VP)
    with pytest.raises(IncompatibleError, match="norms='batch'"):
        srk.solve(VP, few, PredictorCorrector("ddpm", norms="sample"), shape=(4, 1))
    with pytest.raises(IncompatibleError, match="microbatch"):
        srk.solve(VP, few, PredictorCorrector("ddpm"), shape=(4, 1), microbatch=2)
    whole = PredictorCorrector("ddpm", norms="batch")
    with pytest.raises(IncompatibleError, match="norms='sample'"):
        srk.solve(VP, score, whole, shape=(4, 6), microbatch=2)
    with pytest.raises(IncompatibleError, match="linear process"):
        srk.solve(
            srk.CLD(), lambda x, t: -x, PredictorCorrector("ddpm"), shape=(4, 2, 6),
        )  # fmt: skip
    with pytest.raises(ArgumentTypeError, match="steps=2"):
        PredictorCorrector(PredictorCorrector("ddpm"))
    with pytest.raises(ArgumentError, match="euler-maruyama"):
        PredictorCorrector.score_sde("sub-vp")  # type: ignore[arg-type]
    wrong: dict[str, Any]
    for wrong, said in (
        ({"snr": 0.0}, "above 0"),
        ({"snr": math.nan}, "finite"),
        ({"snr": "high"}, "finite"),
        ({"steps": 0}, "positive int"),
        ({"steps": 1.5}, "positive int"),
        ({"corrector": "hmc"}, "'langevin' or 'ald'"),
        ({"norms": "all"}, "'sample', 'batch' or 'auto'"),
        ({"decay": 1}, "True or False"),
    ):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=said):
            PredictorCorrector("ddpm", **wrong)
    with pytest.raises(IncompatibleError, match="defined for eta = 0"):
        srk.solve(VP, score, PredictorCorrector("heun"), shape=(4, 6), eta=1.0)


def test_joined_steps_are_the_steps_one_after_the_other() -> None:
    """`join` of two plans moves every column to its place, whether the network sees the state
    between them or not.
    """
    for solver in ("ddpm", "srk2s", "srk2m", "heun", "sra1"):
        times = [1.0, 0.6, 0.3]
        first, second = plan_grid(
            VP, srk.solvers()[solver], times, srk.solvers()[solver].default_eta
        )
        if second.notes:  # multistep: the second step needs what the first keeps
            continue
        both = join(first, second)
        assert both.evaluations == first.evaluations + second.evaluations
        assert both.inner_slots == len(first.slots)
        assert (both.start, both.stop) == (first.start, second.stop)
    ratio = Ratio(Column("z", 0), Column("q", 0), "auto")
    pc = PredictorCorrector("srk2m", steps=2).plan_step(
        srk.integrators.Step(VP, VP.level(0.5), VP.level(0.4))
    )
    assert pc.ratios[0] == ratio
    assert pc.ratios[1] == Ratio(Column("z", 1), Column("q", 3), "auto")
    assert not pc.linear


@attrs.frozen
class Normalized(srk.Integrator):
    """A solver of a user, whose draw is needed for its norm alone."""

    name = "normalized"
    eta_range = (0.0, 0.0)

    def plan(self, step: srk.integrators.Step) -> srk.integrators.StepPlan:
        draft = step.draft("example")
        draft.normal(0.0, 1.0)  # a draw that nothing needs is left out
        value = draft.evaluate(draft.state, step.start).value
        eps = draft.formed((draft.state - value * step.start.alpha) / step.start.sigma)
        ratio = draft.norms(draft.normal(step.start.lam, step.stop.lam), eps)
        return draft.finish(value * step.stop.alpha + draft.formed(eps, ratio) * step.stop.sigma)


def test_a_solver_of_a_user_with_norms() -> None:
    """The noise of each step has the length of a draw."""
    noise = draws(2)
    sol = srk.solve(
        VP,
        TARGET.score(VP),
        Normalized(),
        grid=[1.0, 0.5],
        x_init=noise[0],
        noise=srk.noise.ReplayNoise(noise[1:]),
        denoise_final=False,
    )
    start, stop = VP.level(1.0), VP.level(0.5)
    score = score_at(VP, noise[0], 1.0)
    eps = -start.sigma * score
    value = (noise[0] + start.sigma**2 * score) / start.alpha
    length = noise[1].norm(dim=1, keepdim=True) / eps.norm(dim=1, keepdim=True)
    assert (sol.x - value * stop.alpha - eps * length * stop.sigma).abs().max() < 1e-12
    with pytest.raises(IncompatibleError, match="norm of its draw"):
        srk.solve(VP, TARGET.score(VP), Normalized(), shape=SHAPE, steps=3, denoise_final="mean")
