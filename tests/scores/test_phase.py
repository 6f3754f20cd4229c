"""Predictions in phase space.

Exact scores against automatic differentiation, networks of the velocity's score, networks of scalar
processes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.errors import IncompatibleError, ScoreError
from srk.scores import PhaseScore, Reduced

pytestmark = pytest.mark.filterwarnings("error")

PROCESS = srk.CLD()
WEIGHTS, MEANS, STDS = (
    torch.tensor([0.3, 0.5, 0.2]).double(),
    torch.tensor([-1.0, 0.3, 1.2]).double(),
    torch.tensor([0.1, 0.05, 0.2]).double(),
)
TARGET = srk.targets.GaussianMixture(WEIGHTS, MEANS, STDS)


def components(t: float) -> tuple[Tensor, Tensor]:
    """Means (K, 2) and covariances (K, 2, 2) of the components of z_t, written down directly."""
    psi, q = PROCESS.transition(0.0, t)
    variance = PROCESS.velocity_scale * PROCESS.mass
    start = [np.diag([s**2, variance]) for s in STDS.tolist()]
    return MEANS[:, None] * torch.from_numpy(psi[:, 0]), torch.stack(
        [torch.from_numpy(psi @ c @ psi.T + q) for c in start]
    )


def log_density(z: Tensor, t: float) -> Tensor:
    means, covariances = components(t)
    parts = torch.distributions.MultivariateNormal(means, covariances)
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(WEIGHTS), parts
    ).log_prob(z)


def states(t: float, n: int = 50) -> Tensor:
    x0 = TARGET.sample(n, seed=0, dtype=torch.float64)
    return PROCESS.perturb(x0, t, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("t", [1e-3, 0.05, 0.3, 1.0])
def test_the_exact_score_is_the_gradient_of_the_log_density(t: float) -> None:
    z = states(t)
    flat = z[:, :, 0].clone().requires_grad_()
    (exact,) = torch.autograd.grad(log_density(flat, t).sum(), flat)
    score = TARGET.score(PROCESS).score(z, PROCESS.level(t), PROCESS)
    assert score.shape == z.shape
    assert torch.allclose(score[:, :, 0], exact, rtol=1e-7, atol=1e-8 * float(exact.abs().max()))


@pytest.mark.parametrize("t", [1e-3, 0.3])
def test_the_denoiser_is_the_posterior_mean_of_the_initial_state(t: float) -> None:
    """By conditioning each component of the mixture on z."""
    z = states(t)
    psi, _ = PROCESS.transition(0.0, t)
    means, covariances = components(t)
    logits = (
        torch.distributions.MultivariateNormal(means, covariances).log_prob(z[:, None, :, 0])
        + WEIGHTS.log()
    )
    weights = torch.softmax(logits, 1)
    expected = torch.zeros_like(z[:, :, 0])
    for k, (m, s) in enumerate(zip(MEANS.tolist(), STDS.tolist(), strict=True)):
        prior = np.diag([s**2, PROCESS.velocity_scale * PROCESS.mass])
        gain = torch.from_numpy(prior @ psi.T @ np.linalg.inv(covariances[k].numpy()))
        expected += weights[:, k, None] * (
            torch.tensor([m, 0.0]).double() + (z[:, :, 0] - means[k]) @ gain.T
        )
    out = TARGET.score(PROCESS).denoise(z, PROCESS.level(t), PROCESS)
    assert (out[:, :, 0] - expected).abs().max() < 1e-8


def network(output: slice | int) -> object:
    exact = TARGET.score(PROCESS)
    return lambda z, t: exact.score(z, PROCESS.level(float(t[0])), PROCESS)[:, output]


@pytest.mark.parametrize("output", [1, slice(None)], ids=["velocity", "whole"])
@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0])
def test_a_network_of_the_score_gives_the_denoiser(output: slice | int, t: float) -> None:
    prediction = srk.Score(network(output)).bind(PROCESS)
    assert isinstance(prediction, PhaseScore)
    z, level = states(t), PROCESS.level(t)
    exact = TARGET.score(PROCESS)
    assert (
        prediction.denoise(z, level, PROCESS) - exact.denoise(z, level, PROCESS)
    ).abs().max() < 1e-9
    scale = exact.score(z, level, PROCESS).abs().max()
    assert (
        prediction.score(z, level, PROCESS) - exact.score(z, level, PROCESS)
    ).abs().max() < 1e-9 * scale


def test_a_bare_callable_is_a_score_of_the_state() -> None:
    options = {"shape": (64, 2, 1), "steps": 20, "seed": 0, "dtype": torch.float64}
    exact = srk.solve(PROCESS, TARGET.score(PROCESS), "gddim", **options)
    for output in (1, slice(None)):
        sol = srk.solve(PROCESS, network(output), "gddim", **options)
        assert (sol.x - exact.x).abs().max() < 1e-7


def test_a_network_of_a_variance_preserving_process_serves_phase_space() -> None:
    vp, level = srk.VP(t_min=1e-9), PROCESS.level(0.4)
    exact = TARGET.score(vp)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        at = vp.level(float(t[0]))
        return (x - at.alpha * exact.denoise(x, at, vp)) / at.sigma

    adapter = srk.NoisePrediction(
        noise, input_scale="vp", time=lambda level: vp.time(level.lam), event_shape=(1,)
    )
    prediction = Reduced(adapter).bind(PROCESS)
    assert prediction.event_shape == (2, 1)
    z = states(0.4)
    assert (
        prediction.denoise(z, level, PROCESS) - TARGET.score(PROCESS).denoise(z, level, PROCESS)
    ).abs().max() < 1e-10


def test_conditions_are_cut_with_the_batch() -> None:
    seen = []

    def conditional(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label.tolist())
        return -x

    labels = torch.arange(5)
    for score in (
        srk.Score(conditional, model_kwargs={"label": labels}),
        Reduced(srk.Score(conditional, model_kwargs={"label": labels})),
    ):
        seen.clear()
        srk.solve(
            PROCESS,
            score,
            "ddpm",
            shape=(5, 2, 1),
            steps=1,
            microbatch=3,
            seed=0,
            denoise_final=False,
        )
        assert seen == [[0, 1, 2], [3, 4]]


def test_what_is_refused() -> None:
    with pytest.raises(
        IncompatibleError,
        match=r"have 2 components; .*use srk\.Reduced\(srk\.NoisePrediction\(\.\.\.\)\)",
    ):
        srk.solve(PROCESS, srk.NoisePrediction(lambda z, t: z), shape=(4, 2, 1))
    with pytest.raises(IncompatibleError, match=r"phase-space process such as srk\.CLD\(\)"):
        srk.solve(srk.VP(), Reduced(srk.Score(lambda x, t: -x)), shape=(4, 1))
    with pytest.raises(IncompatibleError, match=r"leave out input_scale='vp'"):
        srk.solve(PROCESS, srk.Score(lambda z, t: -z, input_scale="vp"), shape=(4, 2, 1))
    with pytest.raises(
        ScoreError, match=r"returned shape \(4, 2, 3\) for a state of shape \(4, 2, 1\)"
    ):
        srk.solve(PROCESS, lambda z, t: z.expand(4, 2, 3), shape=(4, 2, 1))
    with pytest.raises(ScoreError, match=r"returned shape \(4, 3\)"):
        srk.solve(PROCESS, lambda z, t: z[:, 1].expand(4, 3), shape=(4, 2, 1))
