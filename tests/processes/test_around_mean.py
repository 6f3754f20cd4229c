"""Processes around a mean: their moments, SGMSE's sampler, and every solver."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes import AroundMean, Level
from srk.scores import Prediction

DOUBLE = torch.float64
Y = torch.tensor([[1.0, -2.0, 0.5], [0.2, 0.3, -0.1], [3.0, 0.0, 1.0], [-1.0, 2.0, 2.0]])
TARGET: Any = srk.targets.Gaussian([0.3, -0.2, 0.1], [0.1, 1.0, 0.5])
MIXTURE = srk.targets.GaussianMixture([0.3, 0.7], [[-1.0] * 3, [0.5] * 3], [0.3, 0.2])
PROCESSES = {
    "vp": srk.Shifted(srk.VP(), mean=Y),
    "flow": srk.Shifted(srk.Flow(), mean=Y),
    "ouve": srk.OUVE(mean=Y),
}


@attrs.frozen(eq=False)
class ByHand(Prediction):
    """E[x0 - y | z] for the process of z = x - y, written without any process around a mean."""

    mean: Tensor

    def select(self, rows: slice | Tensor, batch: int) -> ByHand:
        return ByHand(self.mean[rows])

    def denoise(self, x: Tensor, level: Level, process: Any) -> Tensor:
        y = self.mean.to(x)  # in this order, for adaptive steps go other ways by rounding alone
        denoised: Tensor = TARGET.denoise((x + y) - (1.0 - level.alpha) * y, level) - y
        return denoised


# -- the process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.0, 1.5, 4.0])
def test_moments_of_ouve_are_those_of_its_equation(theta: float) -> None:
    """d mean/dt = theta (y - mean), d var/dt = -2 theta var + g^2."""
    low, high, y, x0 = 0.05, 0.5, 2.0, -0.7
    process = srk.OUVE(theta=theta, sigma_min=low, sigma_max=high, mean=y, t_min=0.01)

    def rates(t: float, state: Any) -> list[float]:
        g = low * (high / low) ** t * math.sqrt(2.0 * math.log(high / low))
        return [theta * (y - state[0]), -2.0 * theta * state[1] + g * g]

    times = [0.01, 0.3, 0.77, 1.0]
    exact = solve_ivp(rates, (0.0, 1.0), [x0, 0.0], t_eval=times, rtol=1e-12, atol=1e-14)
    for t, mean, variance in zip(times, *exact.y, strict=True):
        level = process.level(t)
        assert y + level.alpha * (x0 - y) == pytest.approx(mean, rel=1e-10)
        assert level.sigma**2 == pytest.approx(variance, rel=1e-10)
        assert process.time(level.lam) == pytest.approx(t, rel=1e-12)
        g = low * (high / low) ** t * math.sqrt(2.0 * math.log(high / low))
        assert process.diffusion(t) == pytest.approx(g, rel=1e-13)
    assert process.drift(0.5, torch.tensor([3.0])).item() == pytest.approx(theta * (y - 3.0))


def test_sigma_of_ouve_is_that_of_sgmse() -> None:
    theta, low, high = 1.5, 0.05, 0.5
    log = math.log(high / low)
    process = srk.OUVE(theta=theta, sigma_min=low, sigma_max=high, mean=0.0)
    for t in (0.03, 0.5, 1.0):
        std = math.sqrt(
            low**2
            * math.exp(-2 * theta * t)
            * (math.exp(2 * (theta + log) * t) - 1)
            * log
            / (theta + log)
        )
        assert process.sigma(t) == pytest.approx(std, rel=1e-13)


@pytest.mark.parametrize("name", PROCESSES)
def test_perturbed_data_and_prior(name: str) -> None:
    process = PROCESSES[name].with_mean(Y[:1].double())
    x0 = torch.full((20_000, 3), 0.4, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(0)
    for t in (0.2, torch.full((20_000,), 0.2)):
        x = process.perturb(x0, t, generator=generator)
        alpha, sigma = process.alpha(0.2), process.sigma(0.2)
        expected = Y[0].double() + alpha * (x0[0] - Y[0].double())
        assert torch.allclose(x.mean(0), expected, atol=6 * sigma / math.sqrt(20_000))
        assert torch.allclose(x.std(0), torch.full((3,), float(sigma), dtype=DOUBLE), rtol=0.03)
    prior = process.sample_prior((20_000, 3), generator=generator, dtype=DOUBLE)
    std = float(process.sigma(process.t_max))
    assert torch.allclose(prior.mean(0), Y[0].double(), atol=6 * std / math.sqrt(20_000))
    assert torch.allclose(prior.std(0), torch.full((3,), std, dtype=DOUBLE), rtol=0.03)


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_scores_are_gradients_of_exact_densities(name: str) -> None:
    """Also for data that are no Gaussian, and for states and times of each sample."""
    process = PROCESSES[name]
    x = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for target in (TARGET, MIXTURE):
        score: Any = target.score(process)
        at = x.clone().requires_grad_()
        density = target.log_density(at, process, 0.4)
        (gradient,) = torch.autograd.grad(density.sum(), at)
        assert torch.allclose(score(x, 0.4), gradient, atol=1e-10)
        times = torch.tensor([0.4, 0.7, 0.4, 0.2], dtype=DOUBLE)
        each = torch.cat(
            [
                target.score(process.with_mean(y[None]))(state[None], t)
                for y, state, t in zip(Y, x, times.tolist(), strict=True)
            ]
        )
        assert torch.allclose(score(x, times), each, atol=1e-12)
    alone = process.with_mean(Y[0].double())
    drawn = TARGET.sample(40_000, alone, 0.4, seed=0, dtype=DOUBLE)
    level = alone.level(0.4)
    y, m = Y[0].double(), TARGET.mean
    assert torch.allclose(drawn.mean(0), y + level.alpha * (m - y), atol=0.03)


# -- solvers -------------------------------------------------------------------------------------


def test_the_predictor_of_sgmse_to_rounding() -> None:
    """Its reverse-diffusion predictor, transcribed, with the same draws: N = 30 from 1 to 0.03."""
    theta, low, high, n = 1.5, 0.05, 0.5, 30
    y = Y.double()
    log = math.log(high / low)
    times = torch.linspace(1.0, 0.03, n, dtype=DOUBLE).tolist()

    def score(x: Tensor, t: float) -> Tensor:
        """That of data N(0.3, 0.2) around y, from SGMSE's own mean and std."""
        mean = math.exp(-theta * t) * 0.3 + (1 - math.exp(-theta * t)) * y
        std2 = low**2 * math.exp(-2 * theta * t) * math.expm1(2 * (theta + log) * t)
        std2 *= log / (theta + log)
        return -(x - mean) / (std2 + math.exp(-2 * theta * t) * 0.2)

    process = srk.OUVE(theta=theta, sigma_min=low, sigma_max=high, mean=y)
    network = srk.Score(lambda x, t: score(x, float(t[0])))
    sol = srk.solve(
        process,
        network,
        "euler-maruyama",
        grid=times,
        shape=(4, 3),
        seed=7,
        dtype=DOUBLE,
        denoise_final=False,
        save="x",
    )
    generator = torch.Generator().manual_seed(7)

    def draw() -> Tensor:
        return torch.randn(4, 3, dtype=DOUBLE, generator=generator)

    std1 = low * math.sqrt(
        math.exp(-2 * theta) * math.expm1(2 * (theta + log)) * log / (theta + log)
    )
    x = y + draw() * std1
    assert sol.trajectory is not None
    for i in range(n - 1):
        assert torch.allclose(sol.trajectory.values[i], x, atol=1e-12, rtol=0)
        t, stepsize = times[i], times[i] - times[i + 1]
        drift = theta * (y - x)
        diffusion = low * (high / low) ** t * math.sqrt(2 * log)
        f, g = drift * stepsize, diffusion * math.sqrt(stepsize)
        reverse_f = f - g**2 * score(x, t)
        x = x - reverse_f + g * draw()
    assert torch.allclose(sol.x, x, atol=1e-10, rtol=0)


def test_the_sampler_of_sgmse_to_rounding() -> None:
    """Its default: an annealed Langevin step, then the predictor; the last mean is the result."""
    theta, low, high, n, snr = 1.5, 0.05, 0.5, 30, 0.5
    y = Y.double()
    log = math.log(high / low)
    times = torch.linspace(1.0, 0.03, n, dtype=DOUBLE).tolist()

    def std(t: float) -> float:
        growth = math.exp(-2 * theta * t) * math.expm1(2 * (theta + log) * t)
        return low * math.sqrt(growth * log / (theta + log))

    def score(x: Tensor, t: float) -> Tensor:
        mean = math.exp(-theta * t) * 0.3 + (1 - math.exp(-theta * t)) * y
        return -(x - mean) / (std(t) ** 2 + math.exp(-2 * theta * t) * 0.2)

    process = srk.OUVE(theta=theta, sigma_min=low, sigma_max=high, mean=y, t_min=0.0)
    sol = srk.solve(
        process,
        srk.Score(lambda x, t: score(x, float(t[0]))),
        srk.integrators.PredictorCorrector.sgmse(),
        grid=[*times, 0.0],
        shape=(4, 3),
        seed=7,
        dtype=DOUBLE,
        denoise_final=False,
    )
    generator = torch.Generator().manual_seed(7)

    def draw() -> Tensor:
        return torch.randn(4, 3, dtype=DOUBLE, generator=generator)

    x = y + draw() * std(1.0)
    for i, t in enumerate(times):
        size = 2 * (snr * std(t)) ** 2
        x = x + size * score(x, t) + math.sqrt(2 * size) * draw()
        stepsize = t - times[i + 1] if i + 1 < n else t
        g = low * (high / low) ** t * math.sqrt(2 * log) * math.sqrt(stepsize)
        mean = x - (theta * (y - x) * stepsize - g**2 * score(x, t))
        x = mean + g * draw() if i + 1 < n else mean
    assert sol.nfe == 60
    assert torch.allclose(sol.x, x, atol=1e-10, rtol=0)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"eta": 0.0},
    {"eta": 0.5, "denoise_final": False},
    {"noise": "keyed", "microbatch": 3},
    {"noise": "brownian"},
    {"parallel": srk.Picard()},
]


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_runs_around_the_mean(solver: str) -> None:
    """The run of x is that of x - y with the same draws, to rounding, however it is made."""
    adaptive: list[dict[str, Any]] = [
        {"grid": srk.steps.Adaptive(norm="batch", rtol=0.2, atol=0.2), "steps": None},
        {"grid": srk.steps.Adaptive(norm="sample", rtol=0.2, atol=0.2), "steps": None},
    ]
    for options in OPTIONS + (adaptive if solver in ("sra1", "srk2s") else []):
        common = {"steps": 4, "shape": (4, 3), "seed": 1, "dtype": DOUBLE, **options}
        if "grid" in options:
            common["noise"] = "brownian"
        process = PROCESSES["vp"]
        try:
            centred = srk.solve(process.centred, ByHand(Y), solver, **common)
        except IncompatibleError as error:
            with pytest.raises(type(error)):
                srk.solve(process, TARGET.score(process), solver, **common)
            continue
        around = srk.solve(process, TARGET.score(process), solver, **common)
        assert torch.allclose(around.x, centred.x + Y, atol=1e-9, rtol=0), options
        assert around.nfe == centred.nfe and around.times == centred.times


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "heun"])
def test_compiled_steps_run_around_the_mean(solver: str) -> None:
    process = PROCESSES["ouve"]
    options: dict[str, Any] = {"shape": (4, 3), "steps": 4, "seed": 1, "dtype": DOUBLE}
    one, other = (
        srk.solve(process, TARGET.score(process), solver, compile=compile, **options).x
        for compile in (False, "step")  # type: ignore[arg-type]
    )
    assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_reaches_the_exact_distribution(solver: str) -> None:
    """On Gaussian data, as steps grow, started exactly; a floor where noise does not end at 0."""
    process: Any = srk.OUVE(mean=1.3)
    if solver in ("lcm", "tcd", "consistency", "gencast", "boltz1", "boltz2"):
        pytest.skip("its noise is not that of the reverse process, however small the steps")
    found = [
        srk.analysis.gaussian_distribution(solver, process, 0.4, 0.3, steps=n) for n in (12, 96)
    ]
    level = process.level(process.t_min)
    assert found[1].target_mean[0] == pytest.approx(1.3 + level.alpha * (0.4 - 1.3))
    assert found[1].target_variance[0] == pytest.approx(level.alpha**2 * 0.3 + level.sigma**2)
    assert found[1].kl < max(0.2 * found[0].kl, 1e-12), (found[0].kl, found[1].kl)
    assert found[1].kl < 0.02


def test_samples_of_each_mean_have_the_posterior_distribution() -> None:
    """Two means in one batch: samples of the same data, up to what the start leaves out."""
    mean = torch.tensor([[0.9], [-0.2]]).repeat(4000, 1)
    process = srk.OUVE(theta=4.0, sigma_max=1.0, mean=mean, t_min=1e-3)
    target = srk.targets.Gaussian(0.4, 0.04)
    x = srk.solve(process, target.score(process), "srk2m", shape=(8000, 1), nfe=24, seed=0).x
    for part in (x[::2], x[1::2]):
        assert part.mean().item() == pytest.approx(0.4, abs=0.02)
        assert part.var().item() == pytest.approx(0.04, rel=0.08)


# -- networks ------------------------------------------------------------------------------------


def networks(process: AroundMean) -> dict[str, Prediction]:
    """Exact networks of each kind. All see x; what they say is of x - y, but for the data."""
    y = process.mean.double()

    def denoised(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Level]:
        level = process.level(float(t[0]))
        data = TARGET.denoise(x - (1 - level.alpha) * y, level)
        return data, (x - y - level.alpha * (data - y)) / level.sigma, level

    def score(x: Tensor, t: Tensor) -> Tensor:
        _, noise, level = denoised(x, t)
        return -noise / level.sigma

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        data, noise, level = denoised(x, t)
        return level.alpha * noise - level.sigma * (data - y)

    def flow(x: Tensor, t: Tensor) -> Tensor:
        data, noise, _ = denoised(x, t)
        return noise - (data - y)

    def edm(u: Tensor, r: Tensor) -> Tensor:
        level = process.level_at(-math.log(float(r[0])))
        data: Tensor = TARGET.denoise(level.alpha * u - (1 - level.alpha) * y, level)
        return data

    return {
        "score": srk.Score(score),
        "noise": srk.NoisePrediction(lambda x, t: denoised(x, t)[1]),
        "velocity": srk.Velocity(velocity),
        "flow": srk.FlowVelocity(flow),
        "data": srk.Data(lambda x, t: denoised(x, t)[0]),
        "edm": srk.EDMDenoiser(edm),
    }


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["score", "noise", "velocity", "flow", "data", "edm"])
def test_networks_of_each_kind_are_understood(kind: str, process: str) -> None:
    around = PROCESSES[process]
    if process == "flow":  # alpha is 0 at its end, where no score or noise tells the data
        around = srk.Shifted(srk.Flow(t_max=0.999), mean=Y)
    options: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 2, "dtype": DOUBLE}
    for solver, more in (("ddpm", {}), ("sra1", {"eta": 0.0})):
        exact = srk.solve(around, TARGET.score(around), solver, **{**options, **more}).x
        network = networks(around)[kind]
        x = srk.solve(around, network, solver, check_network=False, **{**options, **more}).x
        assert torch.allclose(x, exact, atol=1e-8, rtol=0)


def test_networks_are_asked_for_many_levels_at_once() -> None:
    """Picard's rounds call a network once for rows of several levels and samples."""
    process = PROCESSES["vp"]
    calls = []

    def noise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return 0.3 * torch.tanh(x) + 0.1 * t[:, None]

    options: dict[str, Any] = {"shape": (4, 3), "steps": 12, "seed": 2, "noise": "keyed"}
    for network in (
        srk.NoisePrediction(noise),
        srk.Data(noise),
        srk.Guided(srk.NoisePrediction(noise), srk.Data(noise), 1.5),
        srk.Guided(
            srk.NoisePrediction(lambda x, t, k: k * x, model_kwargs={"k": 0.5}),
            srk.NoisePrediction(lambda x, t, k: k * x, model_kwargs={"k": 0.4}),
            1.5,
        ),
        srk.Hooked(srk.Data(noise), srk.scores.hooks.Clip(-0.2, 0.2)),
    ):
        one = srk.solve(process, network, "srk2m", dtype=DOUBLE, **options)
        picard = srk.Picard(tolerance=1e-12)
        many = srk.solve(process, network, "srk2m", dtype=DOUBLE, parallel=picard, **options)
        assert torch.allclose(one.x, many.x, atol=1e-8)
    assert max(calls) > 8


def test_guidance_in_one_batch_repeats_the_mean() -> None:
    process = PROCESSES["ouve"]

    def network(x: Tensor, t: Tensor, k: Tensor) -> Tensor:
        return k.to(x)[:, None] * torch.sin(x)

    a, b = (
        srk.NoisePrediction(network, model_kwargs={"k": torch.linspace(0.1, c, 4)})
        for c in (1.0, -1.0)
    )
    options: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 3, "dtype": DOUBLE}
    options["check_network"] = False
    for more in ({}, {"noise": "keyed", "parallel": srk.Picard(tolerance=1e-13)}):
        one, other = (
            srk.solve(process, srk.Guided(a, b, 2.0, batched=batched), "ddpm", **options, **more).x
            for batched in (False, True)
        )
        assert torch.allclose(one, other, atol=1e-10)


def test_hooks_act_on_the_data_in_x() -> None:
    process = PROCESSES["ouve"]
    levels = []

    def look(denoised: Tensor, level: Level) -> Tensor:
        levels.append(denoised.clone())
        return denoised.clamp(0.0, 0.25)

    hooked = srk.Hooked(TARGET.score(process), look)
    sol = srk.solve(process, hooked, "ddpm", shape=(4, 3), nfe=10, seed=0, save="x")
    assert sol.x.min() > -1e-6 and sol.x.max() < 0.25 + 1e-6
    level = process.level(process.t_max)
    assert sol.trajectory is not None
    exact = TARGET.denoise(sol.trajectory.values[0] - (1 - level.alpha) * Y, level)
    assert torch.allclose(levels[0], exact, atol=1e-5)


# -- what a run gives back -----------------------------------------------------------------------


def test_saves_callbacks_and_results_are_states_of_x() -> None:
    process, score = PROCESSES["ouve"], TARGET.score(PROCESSES["ouve"])
    common: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 3, "dtype": DOUBLE}
    saved = srk.solve(process, score, "ddpm", save=("x", "denoised"), **common)
    centred = srk.solve(process.centred, ByHand(Y), "ddpm", save=("x", "denoised"), **common)
    for ours, by_hand in (
        (saved.trajectory, centred.trajectory),
        (saved.denoised, centred.denoised),
    ):
        assert ours is not None and by_hand is not None
        assert torch.allclose(ours.values, by_hand.values + Y, atol=1e-12)
        assert ours.times == by_hand.times
    seen: list[tuple[Tensor, Tensor]] = []

    def look(info: srk.StepInfo) -> None:
        assert info.denoised is not None
        seen.append((info.x.clone(), info.denoised.clone()))

    srk.solve(process, score, "ddpm", callback=look, **common)
    assert saved.trajectory is not None and saved.denoised is not None
    assert torch.allclose(torch.stack([x for x, _ in seen]), saved.trajectory.values[1:])
    assert torch.allclose(torch.stack([d for _, d in seen]), saved.denoised.values[:-1])

    # A state that the callback writes is that of the next step
    def write(info: srk.StepInfo) -> None:
        if info.index == 2:
            info.x.fill_(0.5)

    def write_centred(info: srk.StepInfo) -> None:
        if info.index == 2:
            info.x.copy_(0.5 - Y)

    one = srk.solve(process, score, "ddpm", callback=write, **common)
    two = srk.solve(process.centred, ByHand(Y), "ddpm", callback=write_centred, **common)
    assert torch.allclose(one.x, two.x + Y, atol=1e-12)
    stopped = srk.solve(process, score, "ddpm", callback=lambda info: info.index == 1, **common)
    assert torch.equal(stopped.x, seen[1][0])


def test_a_failed_run_returns_its_last_state_in_x() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return x * (math.nan if float(t[0]) < 0.5 else 0.0)

    process = srk.OUVE(mean=Y)
    options: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 3, "save": "x"}
    sol = srk.solve(process, srk.Data(network), on_failure="return", solver="ddpm", **options)
    assert sol.trajectory is not None and torch.equal(sol.x, sol.trajectory.values[-1])
    with pytest.raises(srk.errors.SolveError) as error:
        srk.solve(process, srk.Data(network), solver="ddpm", **options)
    assert torch.equal(error.value.solution.x, sol.x)


def test_given_states_are_states_of_x() -> None:
    process, score = PROCESSES["ouve"], TARGET.score(PROCESSES["ouve"])
    x = process.sample_prior((4, 3), generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    before = x.clone()
    for options in ({}, {"microbatch": 3, "noise": "keyed"}):
        given: Any = {"x_init": x, "steps": 5, "seed": 2, **options}
        one = srk.solve(process, score, "ddpm", **given)
        two = srk.solve(
            process.centred,
            ByHand(Y),
            "ddpm",
            x_init=x - Y,
            steps=5,
            seed=2,
            **options,  # type: ignore[arg-type]
        )
        assert torch.allclose(one.x, two.x + Y, atol=1e-12)
        assert torch.equal(x, before)


def test_log_densities_are_those_of_x() -> None:
    process = PROCESSES["ouve"]
    sampler = srk.Sampler(process, TARGET.score(process), "ddpm", steps=5)
    sol = sampler((4, 3), seed=0, dtype=DOUBLE, save=("x", "log_prob"))
    again = sampler.log_prob(sol)
    assert sol.log_prob is not None
    assert torch.allclose(again.values, sol.log_prob.values, atol=1e-7)
    plans, x = sampler.plans(), sol.trajectory.values  # type: ignore[union-attr]
    plan = plans[1]  # by hand: x' = y + a (x - y) + b (D - y) + s z
    numbers = {column.kind: value for column, value in plan.update}
    y = Y.double()
    d = TARGET.denoise(x[1] - (1 - plan.start.alpha) * y, plan.start)
    mean = y + numbers["x"] * (x[1] - y) + numbers["E"] * (d - y)
    by_hand = torch.distributions.Normal(mean, numbers["z"]).log_prob(x[2]).sum(1)
    assert torch.allclose(sol.log_prob.values[1], by_hand, atol=1e-9)
    sampler = srk.Sampler(process, TARGET.score(process), "srk2m", steps=5)
    sol = sampler((4, 3), seed=0, dtype=DOUBLE, save=("x", "inputs"))
    centred = srk.Sampler(process.centred, ByHand(Y), "srk2m", steps=5)
    other = centred((4, 3), seed=0, dtype=DOUBLE, save=("x", "inputs"))
    assert torch.allclose(sampler.log_prob(sol).values, centred.log_prob(other).values, atol=1e-7)


def test_log_likelihoods_and_inversions_are_those_of_x() -> None:
    process = srk.OUVE(theta=4.0, sigma_max=1.0, mean=Y)
    score = TARGET.score(process)
    x = TARGET.sample(4, process, process.t_min, seed=0, dtype=DOUBLE)

    def prior(x: Tensor) -> Tensor:  # the true density at t_max, of x
        density: Tensor = TARGET.log_density(x, process, process.t_max)
        return density

    result = srk.log_likelihood(process, score, x, prior=prior, rtol=1e-9, atol=1e-9)
    exact = TARGET.log_density(x, process, process.t_min)
    assert torch.allclose(result.log_prob, exact, atol=1e-5)
    plain = srk.log_likelihood(process, score, x)
    centred = srk.log_likelihood(process.centred, ByHand(Y), x - Y)
    assert torch.allclose(plain.log_prob, centred.log_prob, atol=1e-9)
    assert torch.allclose(plain.latent, centred.latent + Y, atol=1e-9)
    up = srk.invert(process, score, x, "heun", steps=80)
    back = srk.solve(process, score, "heun", x_init=up.x, steps=80, eta=0.0, denoise_final=False)
    assert torch.allclose(back.x, x, atol=2e-3)
    assert torch.allclose(up.x, result.latent, atol=2e-2)


def test_gradients_flow_to_the_mean() -> None:
    y = Y.double().requires_grad_()
    process = srk.OUVE(mean=y)
    score = srk.Data(lambda x, t: 0.5 * x)
    options: dict[str, Any] = {"shape": (4, 3), "steps": 3, "seed": 0, "dtype": DOUBLE}

    def total(mean: Tensor) -> Tensor:
        around = srk.OUVE(mean=mean)
        return srk.solve(around, score, "ddpm", grad=True, **options).x.square().sum()

    (gradient,) = torch.autograd.grad(total(y), y)
    step = torch.zeros_like(y)
    step[1, 2] = 1e-5
    slope = (total(y.detach() + step) - total(y.detach() - step)) / 2e-5
    assert gradient[1, 2].item() == pytest.approx(slope.item(), rel=1e-6)
    assert not srk.solve(process, score, "ddpm", **options).x.requires_grad
    x = torch.zeros(4, 3, dtype=DOUBLE)
    assert not srk.solve(process, score, "ddpm", x_init=x, steps=3, seed=0).x.requires_grad


def test_profiles_and_budgets_do_not_see_the_mean() -> None:
    process, centred = PROCESSES["ouve"], PROCESSES["ouve"].centred
    one = srk.solve(
        process, TARGET.score(process), "srk2m", grid="budget", steps=6, shape=(4, 3), seed=0
    )
    two = srk.solve(centred, ByHand(Y), "srk2m", grid="budget", steps=6, shape=(4, 3), seed=0)
    assert one.times == pytest.approx(two.times, rel=1e-3)
    assert torch.allclose(one.x, two.x + Y, atol=1e-2)
    alone = process.with_mean(Y[0])
    profile = srk.calibrate(alone, TARGET.score(alone), shape=(8, 3), steps=8)
    x = srk.solve(alone, TARGET.score(alone), profile=profile, shape=(4, 3), nfe=8, seed=0).x
    assert bool(x.isfinite().all())


def test_a_set_of_samples_has_a_mean_for_each(tmp_path: Any) -> None:
    mean = torch.linspace(-1.0, 1.0, 10)[:, None].repeat(1, 3)
    process = srk.OUVE(mean=mean)
    score = TARGET.score(process)
    samples = srk.sample_to(
        tmp_path / "set", process, score, "ddpm", shape=(10, 3), batch=4, steps=4, seed=5
    )
    whole = srk.solve(process, score, "ddpm", shape=(10, 3), steps=4, seed=5, noise="keyed").x
    assert torch.allclose(samples.load(), whole, atol=1e-6)
    other = srk.OUVE(mean=mean + 1.0)
    with pytest.raises(ArgumentError):
        srk.sample_to(
            tmp_path / "set",
            other,
            TARGET.score(other),
            "ddpm",
            shape=(10, 3),
            batch=4,
            steps=4,
            seed=5,
        )


@pytest.mark.parametrize("mean", ["samples", "one", "real"])
def test_complex_states_have_complex_means(mean: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(4, 3, dtype=torch.complex128, generator=generator)
    y = y[0] if mean == "one" else y.real if mean == "real" else y
    process = srk.OUVE(mean=y)

    def network(x: Tensor, t: Tensor) -> Tensor:  # E[x0 | x] of data N(0.3 + 0.1i, 0.2)
        level = process.level(float(t[0]))
        m = 0.3 + 0.1j
        signal = x - (1 - level.alpha) * y
        gain = level.alpha * 0.2 / (level.alpha**2 * 0.2 + level.sigma**2)
        return m + gain * (signal - level.alpha * m)

    options: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 0, "save": "x"}
    sol = srk.solve(process, srk.Data(network), "ddpm", dtype=torch.complex128, **options)
    assert sol.trajectory is not None
    start = sol.trajectory.values[0] - y
    assert start.abs().square().mean() < 10 * process.sigma(1.0) ** 2

    def centred(z: Tensor, t: Tensor) -> Tensor:
        return network(z + y, t) - y

    other = srk.solve(process.centred, srk.Data(centred), "ddpm", dtype=torch.complex128, **options)
    assert torch.allclose(sol.x, other.x + y, atol=1e-12)
    again = srk.solve(
        process,
        srk.Data(network),
        "ddpm",
        x_init=sol.trajectory.values[0],
        steps=5,
        seed=1,
    )
    assert again.x.is_complex()


# -- errors --------------------------------------------------------------------------------------


def test_means_that_cannot_be_used() -> None:
    with pytest.raises(ArgumentTypeError, match="needs it: mean=y"):
        srk.OUVE()
    with pytest.raises(ArgumentTypeError, match="needs it: mean=y"):
        srk.Shifted(srk.VP())
    with pytest.raises(ArgumentError, match="NaN or inf in 1 of 3"):
        srk.OUVE(mean=torch.tensor([0.0, math.nan, 1.0]))
    with pytest.raises(ArgumentError, match="a dense tensor"):
        srk.OUVE(mean=torch.ones(3).to_sparse())
    for wrong in ("noisy", True, object()):
        with pytest.raises(ArgumentTypeError, match="mean is a tensor or a number"):
            srk.OUVE(mean=wrong)
    process = srk.OUVE(mean=torch.zeros(5, 3))
    with pytest.raises(ArgumentError, match=r"shape \(5, 3\).*states of shape \(4, 3\)"):
        srk.solve(process, srk.Data(lambda x, t: x), shape=(4, 3), steps=2)
    with pytest.raises(ArgumentError, match=r"shape \(2, 4, 3\)"):
        process.with_mean(torch.zeros(2, 4, 3)).sample_prior((4, 3))
    with pytest.raises(ArgumentError, match="draw complex states"):
        process.with_mean(torch.zeros(3, dtype=torch.complex64)).sample_prior((4, 3))
    with pytest.raises(ArgumentError, match="theta >= 0"):
        srk.OUVE(theta=-1.0, mean=0.0)
    with pytest.raises(ArgumentError, match="0 < sigma_min < sigma_max"):
        srk.OUVE(sigma_min=0.5, sigma_max=0.05, mean=0.0)
    with pytest.raises(ArgumentTypeError, match="linear process"):
        srk.Shifted(srk.CLD(), mean=0.0)  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="has a mean already"):
        srk.Shifted(srk.OUVE(mean=0.0), mean=0.0)  # type: ignore[arg-type]


def test_what_knows_no_mean_refuses_it() -> None:
    process: Any = srk.OUVE(mean=Y)
    score = TARGET.score(process)
    guided = srk.Guided(score, score, 2.0, rescale=0.5)
    for wrong in (guided, srk.scores.APG(score, score), srk.scores.CFGZero(score, score)):
        with pytest.raises(IncompatibleError, match=r"linear process|which OUVE"):
            srk.solve(process, wrong, shape=(4, 3), steps=2)
    with pytest.raises(IncompatibleError, match="not known around a mean"):
        TARGET.moments(process, 0.5)
    with pytest.raises(IncompatibleError, match=r"give its process\.centred"):
        srk.analysis.strong_orders(["ddpm"], process.with_mean(Y[0]), TARGET, paths=4)
    with pytest.raises(IncompatibleError, match=r"give its process\.centred"):
        srk.analysis.weak_order("ddpm", process.with_mean(Y[0]), MIXTURE, steps=(4, 8), paths=64)


def test_names_and_messages() -> None:
    process = srk.OUVE(mean=0.5)
    assert repr(process) == (
        "OUVE(theta=1.5, sigma_min=0.05, sigma_max=0.5, mean=0.5, t_min=0.03, t_max=1.0)"
    )
    assert "mean=tensor of shape (4, 3)" in repr(srk.OUVE(mean=Y))
    sampler = srk.Sampler(process, srk.Data(lambda x, t: x), "ddpm", steps=3)
    assert repr(sampler).startswith("Sampler(OUVE(")
