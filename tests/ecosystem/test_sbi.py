"""Posteriors of sbi: the process is that of the estimator, and Gaussian posteriors come out.

The estimators hold networks whose score is exact, so that nothing is trained here.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentTypeError

pytest.importorskip("sbi", reason="sbi is not installed")

from sbi.inference.posteriors import VectorFieldPosterior
from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
from sbi.neural_nets.estimators.score_estimator import (
    SubVPScoreEstimator,
    VEScoreEstimator,
    VPScoreEstimator,
)
from torch.distributions import MultivariateNormal

from srk.ecosystem.sbi import EstimatorProcess, from_sbi, sample

SHAPE = torch.Size([2])
PRIOR_VARIANCE, NOISE_VARIANCE = 1.0, 0.25
GAIN = PRIOR_VARIANCE / (PRIOR_VARIANCE + NOISE_VARIANCE)
VARIANCE = GAIN * NOISE_VARIANCE  # of theta given x = theta + noise; the mean is GAIN x
X = torch.tensor([[1.5, -0.5]])
KINDS: dict[str, Any] = {
    "vp": VPScoreEstimator,
    "ve": VEScoreEstimator,
    "subvp": SubVPScoreEstimator,
    "flow": FlowMatchingEstimator,
}


def exact(kind: str) -> Any:
    """An estimator of that kind with the exact posterior for its score."""
    made: Any = KINDS[kind]

    class Exact(made):  # type: ignore[misc]
        def forward(self, input: Tensor, condition: Tensor, time: Tensor) -> Tensor:
            mean = GAIN * condition
            if kind == "flow":
                t = time.reshape(*time.shape, 1) if time.ndim else time
                alpha, sigma = 1 - t, t + self.noise_scale
                total = alpha**2 * VARIANCE + sigma**2
                data = mean + alpha * VARIANCE / total * (input - alpha * mean)
                return ((1 + self.noise_scale) * -data + input) / sigma
            alpha, sigma = self.mean_t_fn(time), self.std_fn(time)
            return -(input - alpha * mean) / (alpha**2 * VARIANCE + sigma**2)

    return Exact(torch.nn.Linear(1, 1), SHAPE, SHAPE)


def posterior(kind: str, prior: Any = None) -> VectorFieldPosterior:
    if prior is None:
        prior = MultivariateNormal(torch.zeros(2), PRIOR_VARIANCE * torch.eye(2))
    return VectorFieldPosterior(exact(kind), prior)


@pytest.mark.parametrize("kind", KINDS)
def test_the_process_is_that_of_the_estimator(kind: str) -> None:
    estimator = exact(kind)
    process = EstimatorProcess(estimator)
    process.validate()
    for t in (0.05, 0.4, 0.9):
        time = torch.tensor([t], dtype=torch.float64)
        level = process.level(t)
        assert math.isclose(level.alpha, float(estimator.mean_t_fn(time)), rel_tol=1e-12)
        assert math.isclose(level.sigma, float(estimator.std_fn(time)), rel_tol=1e-12)
        x = torch.ones(1, 2, dtype=torch.float64)
        drift = float((estimator.drift_fn(x, time) / x).reshape(-1)[0])
        assert math.isclose(process.log_alpha_rate(t), drift, rel_tol=1e-6, abs_tol=1e-9)
        diffusion = float(estimator.diffusion_fn(x, time).reshape(-1)[0])
        wanted = process.diffusion(t)
        if kind == "flow":  # sbi's own has 2 (t + s)/(1 - t): ours adds the rate of s
            assert math.isclose(wanted, diffusion, rel_tol=0.02)
        else:
            assert math.isclose(wanted, diffusion, rel_tol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_moments_of_the_posterior(kind: str, eta: float) -> None:
    n = 4000
    theta = sample(posterior(kind), (n,), X, "srk2m", nfe=40, eta=eta, seed=0)
    assert theta.shape == (n, 2)
    assert (theta.mean(0) - GAIN * X[0]).abs().max() < 6 * math.sqrt(VARIANCE / n) + 0.01
    assert (theta.var(0) - VARIANCE).abs().max() < 6 * VARIANCE * math.sqrt(2 / n) + 0.01


def test_fewer_calls_than_the_sampler_of_sbi() -> None:
    """The variance with 10 calls of the network: 0.2 exactly, and 0.24 by Euler-Maruyama of sbi."""
    n, made = 20000, posterior("vp")
    ours = sample(made, (n,), X, "srk2m", nfe=10, seed=0)
    torch.manual_seed(0)
    theirs = made.sample((n,), x=X, steps=10, show_progress_bars=False)
    assert (ours.var(0) - VARIANCE).abs().max() < 6 * VARIANCE * math.sqrt(2 / n)
    assert (theirs.var(0) - VARIANCE).abs().min() > 0.03


def test_samples_belong_to_their_number() -> None:
    made = posterior("vp")
    run: dict[str, Any] = {"x": X, "nfe": 10, "seed": 3, "reject_outside_prior": False}
    whole = sample(made, (3, 5), **run)
    assert whole.shape == (3, 5, 2)
    assert torch.allclose(sample(made, 15, max_sampling_batch_size=4, **run), whole.reshape(15, 2))
    made.set_default_x(X)
    assert torch.allclose(sample(made, 15, **{**run, "x": None}), whole.reshape(15, 2))
    assert sample(made, (), **run).shape == (2,)


def test_samples_outside_the_prior_are_drawn_again() -> None:
    from sbi.utils import BoxUniform

    box = BoxUniform(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.0]))
    theta = sample(posterior("vp", box), (500,), X, nfe=20, seed=0)
    assert theta.shape == (500, 2)
    assert bool(torch.isfinite(box.log_prob(theta)).all())


@pytest.mark.parametrize("method", ["fnpe", "gauss", "auto_gauss"])
def test_several_observations_of_one_parameter(method: str) -> None:
    """The same distribution as the sampler of sbi with many steps, whose rule for the score is an
    approximation.
    """
    n, made, many = 2000, posterior("vp"), X.repeat(4, 1)
    theta = sample(made, (n,), many, "ddpm", steps=300, seed=0, iid_method=method)
    torch.manual_seed(0)
    theirs = made.sample((n,), x=many, iid_method=method, steps=300, show_progress_bars=False)
    assert (theta.mean(0) - theirs.mean(0)).abs().max() < 0.03
    assert (theta.var(0) / theirs.var(0) - 1).abs().max() < 0.2


def test_in_a_run_of_ones_own() -> None:
    process, score = from_sbi(posterior("vp"), X)
    picard = srk.Picard(window=8, tolerance=1e-6)
    options: dict[str, Any] = {"shape": (3, 2), "steps": 10, "seed": 0, "noise": "keyed"}
    one = srk.solve(process, score, "ddpm", **options).x
    assert torch.allclose(srk.solve(process, score, "ddpm", parallel=picard, **options).x, one,
                          atol=1e-4)  # fmt: skip


def test_mistakes() -> None:
    with pytest.raises(ArgumentTypeError, match="NPSE"):
        from_sbi(torch.nn.Identity(), X)
    with pytest.raises(ValueError):
        sample(posterior("vp"), (0,), X)
