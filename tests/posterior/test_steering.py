"""Steering: weighted particles of the tilted distribution, whatever the solver and the proposal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.analysis import gaussian_distribution
from srk.errors import ArgumentError, IncompatibleError, ScoreError, SolveError
from srk.posterior import MMPS, Linear, Measurement, effective_size, steer, systematic

PROCESS = srk.EDM(0.02, 20.0)
PRIOR = srk.targets.GaussianMixture(
    [0.5, 0.3, 0.2], [[-1.0, 0.0], [1.0, 0.5], [0.5, -1.0]], [0.3, 0.2, 0.4]
)
B = torch.tensor([1.2, 0.4])


def reward(x: Tensor) -> Tensor:
    return (x * B.to(x)).sum(1)


TILTED = PRIOR.tilted(B)
LOG_Z = PRIOR.log_tilt(B)


def estimates(sol: srk.Solution) -> tuple[Tensor, Tensor]:
    """Weighted mean and weights of the modes."""
    assert sol.log_weights is not None
    w = sol.log_weights.exp()
    x = sol.x.double()
    return w @ x, w @ TILTED.assign(x)


def test_systematic_resampling_copies_floor_or_ceil_of_the_weights() -> None:
    torch.manual_seed(0)
    log = torch.randn(50, dtype=torch.float64)
    expected = 50 * torch.softmax(log, 0)
    counts = torch.zeros(50, dtype=torch.float64)
    for u in torch.linspace(0.0, 0.999, 100).tolist():
        times = torch.bincount(systematic(log, u), minlength=50).double()
        assert bool(((times - expected).abs() < 1.0 + 1e-9).all())
        counts += times / 100
    torch.testing.assert_close(counts, expected, rtol=0.0, atol=0.02)
    assert float(effective_size(log)) < 50.0


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("ddpm", {"steps": 150}),
        ("ddpm", {"steps": 150, "twist": True}),
        ("dpmpp-2m-sde", {"steps": 50, "twist": True}),
        ("dpmpp-2m-sde", {"steps": 50, "resample": 5}),
        ("srk2m", {"steps": 40}),
        ("srk2m-local", {"steps": 40, "noise": "brownian"}),
        ("srk2", {"steps": 25}),
        ("dpmpp-3m-sde", {"steps": 60, "resample": [10, 20, 30, 40, 50], "threshold": 2.0}),
        ("euler-maruyama", {"steps": 400, "twist": True}),
        ("dpmpp-2m", {"steps": 40, "threshold": 0.0}),
    ],
)
def test_the_tilted_mixture_is_reached(solver: str, options: dict[str, Any]) -> None:
    """Mean, weights of the modes and normalizer, with any solver, memory and noise source."""
    n = 8000
    sol = steer(PROCESS, PRIOR.score(PROCESS), reward, solver, shape=n, seed=3, **options)
    mean, modes = estimates(sol)
    exact = TILTED.moments()[0]
    # resampling adds up: about twice the standard error of as many independent samples
    assert float((mean - exact).abs().max()) < 0.06
    assert float((modes - TILTED.weights).abs().max()) < 0.04
    assert sol.log_normalizer == pytest.approx(LOG_Z, abs=0.06)
    assert sol.ess is not None
    assert sol.ess.shape == (options["steps"],)
    assert sol.log_weights is not None
    assert float(torch.logsumexp(sol.log_weights, 0)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("twist", [False, True])
@pytest.mark.parametrize("solver", ["ddpm", "dpmpp-2m-sde", "srk1"])
def test_the_normalizer_is_that_of_the_solver_itself(solver: str, twist: bool) -> None:
    """With few steps the solver's own distribution is tilted: exact, as it is Gaussian.

    E exp(b x) = exp(b m + b^2 v/2) for the output N(m, v), which differs from that of the data.
    """
    b, steps = 1.5, 6
    exact = gaussian_distribution(
        solver, PROCESS, 0.4, 0.5, steps=steps, start="prior", denoise_final=True
    )
    m, v = float(exact.mean[0]), float(exact.variance[0])
    wanted = b * m + b * b * v / 2
    prior = srk.targets.Gaussian(0.4, 0.5)

    def linear(x: Tensor) -> Tensor:
        return b * x[:, 0]

    values = [
        steer(
            PROCESS,
            prior.score(PROCESS),
            linear,
            solver,
            shape=2000,
            steps=steps,
            seed=seed,
            twist=twist,
            grid="log-snr",
        ).log_normalizer
        for seed in range(20)
    ]
    ratios = torch.tensor([math.exp(value - wanted) for value in values if value is not None])
    error = float(ratios.std()) / math.sqrt(len(ratios))
    assert abs(float(ratios.mean()) - 1.0) < 4 * error + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("twist", [False, True])
def test_the_mean_square_error_falls_as_one_over_the_particles(twist: bool) -> None:
    """Rate 1/particles of the mean square error, over 16 to 1024 particles."""
    exact = TILTED.moments()[0]
    sizes = [16, 64, 256, 1024]
    errors = []
    for n in sizes:
        total = 0.0
        for seed in range(60):
            sol = steer(
                PROCESS, PRIOR.score(PROCESS), reward, shape=n, steps=40, seed=seed, twist=twist
            )
            total += float((estimates(sol)[0] - exact).square().sum())
        errors.append(total / 60)
    x = torch.tensor(sizes).double().log()
    y = torch.tensor(errors).double().log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert -1.25 < slope < -0.8


@pytest.mark.parametrize("twist", [False, True])
@pytest.mark.parametrize("noise", ["keyed", "generator", "brownian"])
def test_the_same_samples_for_one_and_four_microbatches(noise: str, twist: bool) -> None:
    options: dict[str, Any] = {"shape": 64, "steps": 20, "seed": 5, "noise": noise, "twist": twist}
    options |= {"dtype": torch.float64, "resample": 3, "threshold": 2.0}
    whole = steer(PROCESS, PRIOR.score(PROCESS), reward, **options)
    parts = steer(PROCESS, PRIOR.score(PROCESS), reward, microbatch=16, **options)
    torch.testing.assert_close(parts.x, whole.x, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(parts.log_weights, whole.log_weights, rtol=0.0, atol=1e-10)


def test_a_seed_repeats_the_run_and_another_does_not() -> None:
    options: dict[str, Any] = {"shape": 32, "steps": 10}
    a, b, c = (
        steer(PROCESS, PRIOR.score(PROCESS), reward, seed=seed, **options).x for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_without_reward_the_samples_are_those_of_solve() -> None:
    """Weights stay equal, nothing is resampled, and every solver's numbers are its own."""
    for solver in ("ddpm", "srk2m", "dpmpp-3m-sde", "heun"):
        options: dict[str, Any] = {"shape": 8, "steps": 12, "seed": 2, "dtype": torch.float64}
        sol = steer(PROCESS, PRIOR.score(PROCESS), lambda x: torch.zeros(len(x)), solver, **options)
        usual = srk.solve(PROCESS, PRIOR.score(PROCESS), solver, noise="keyed", **options)
        torch.testing.assert_close(sol.x, usual.x, rtol=0.0, atol=1e-12)
        assert sol.nfe == usual.nfe
        assert sol.log_normalizer == pytest.approx(0.0, abs=1e-12)


def test_a_posterior_method_as_proposal_is_corrected() -> None:
    """MMPS proposes; the weights make it exact: the posterior and the evidence of y."""
    a = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    measurement = Measurement(Linear(a), torch.tensor([0.6]), 0.3)
    posterior = PRIOR.posterior(measurement)
    method = MMPS(PRIOR.score(PROCESS), measurement, iterations=1)
    sol = steer(
        PROCESS,
        PRIOR.score(PROCESS),
        measurement.log_likelihood,
        "ddpm",
        shape=8000,
        steps=120,
        seed=0,
        twist=method,
    )
    assert sol.log_weights is not None
    w = sol.log_weights.exp()
    modes = w @ posterior.assign(sol.x.double())
    assert float((w @ sol.x.double() - posterior.moments()[0]).abs().max()) < 0.05
    assert float((modes - posterior.weights).abs().max()) < 0.05
    assert sol.log_normalizer == pytest.approx(PRIOR.log_evidence(measurement), abs=0.06)
    assert sol.nfe == 121 + 2 * 120  # the last denoising is the model's own


def test_twisting_raises_the_effective_size() -> None:
    """Without resampling, which hides the difference: what the proposal alone is worth."""
    options: dict[str, Any] = {"shape": 500, "steps": 60, "seed": 0, "threshold": 0.0}
    plain, twisted = (
        steer(PROCESS, PRIOR.score(PROCESS), reward, "ddpm", twist=twist, **options)
        for twist in (False, True)
    )
    assert plain.log_weights is not None
    assert twisted.log_weights is not None
    assert float(effective_size(twisted.log_weights)) > 1.2 * float(
        effective_size(plain.log_weights)
    )


def test_equal_weights_end_with_a_resampling() -> None:
    sol = steer(
        PROCESS,
        PRIOR.score(PROCESS),
        reward,
        shape=4000,
        steps=40,
        seed=0,
        threshold=0.0,
        equal_weights=True,
    )
    assert sol.log_weights is not None
    assert float(sol.log_weights.max() - sol.log_weights.min()) == 0.0
    assert float((sol.x.double().mean(0) - TILTED.moments()[0]).abs().max()) < 0.08
    assert sol.log_normalizer == pytest.approx(LOG_Z, abs=0.1)


def test_networks_with_folded_outputs() -> None:
    """A noise-prediction network, whose plan `solve` folds, gives the exact score's samples."""

    def eps(x: Tensor, t: Tensor) -> Tensor:
        level = PROCESS.level(float(t[0]))
        return (x - level.alpha * PRIOR.denoise(x, level)) / level.sigma

    options: dict[str, Any] = {"shape": (16, 2), "steps": 10, "seed": 0, "dtype": torch.float64}
    a = steer(PROCESS, PRIOR.score(PROCESS), reward, "srk2m", **options)
    b = steer(PROCESS, srk.NoisePrediction(eps), reward, "srk2m", **options)
    torch.testing.assert_close(a.x, b.x, rtol=0.0, atol=1e-8)


def test_what_steering_refuses() -> None:
    score = PRIOR.score(PROCESS)
    with pytest.raises(IncompatibleError, match="Gaussian given the state"):
        steer(PROCESS, score, reward, "srk2m", shape=4, steps=4, twist=True)
    with pytest.raises(IncompatibleError, match="stochastic"):
        steer(PROCESS, score, reward, "ddim", shape=4, steps=4, twist=True, eta=0.0)
    with pytest.raises(ScoreError, match="one number for each sample"):
        steer(PROCESS, score, lambda x: x, shape=4, steps=4)
    with pytest.raises(ScoreError, match="differentiable"):
        steer(PROCESS, score, lambda x: x.detach()[:, 0], shape=4, steps=4, twist=True)
    with pytest.raises(ArgumentError, match="from 0 to 3"):
        steer(PROCESS, score, reward, shape=4, steps=4, resample=[4])
    with pytest.raises(IncompatibleError, match="fixed grid"):
        steer(PROCESS, score, reward, "srk2", shape=4, grid="adaptive")
    with pytest.raises(SolveError, match="NaN"):
        steer(PROCESS, score, lambda x: x[:, 0] * math.nan, shape=4, steps=4)
