"""DDRaM and the accelerated DDPM sampler, against their papers' equations in Ornstein-Uhlenbeck
time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.analysis import gaussian_kl, weak_order
from srk.integrators import DDRaM, Integrator
from srk.noise import NoiseSource

OU = srk.OU(t_min=0.01, horizon=3.0)
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)
TIMES = [3.0 * 0.6**i for i in range(10)]

Replay = Callable[[Tensor], NoiseSource]
Normal = Callable[..., Tensor]


def score(y: Tensor, t: float) -> Tensor:
    return TARGET.score_at(y, OU.level(t))


def run(solver: str | Integrator, x: Tensor, noise: NoiseSource, **options: object) -> Tensor:
    return srk.solve(
        OU,
        TARGET.score(OU),
        solver,
        x_init=x,
        grid=TIMES,
        noise=noise,
        denoise_final=False,
        **options,  # type: ignore[arg-type]
    ).x


@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("seed", [0, 7, None])
def test_ddram(eta: float, seed: int | None, replay: Replay, normal: Normal) -> None:
    """The published form, with tau from the same seeded uniforms, or at the mean of its density."""
    x, draws = normal(3, 2, seed=1), normal(2 * len(TIMES), 3, 2, seed=2)
    ours = run(DDRaM(seed=seed), x, replay(draws), eta=eta)
    y, a = x, 1.0 + eta**2
    for k, (t0, t1) in enumerate(itertools.pairwise(TIMES)):
        d = t0 - t1
        if seed is None:
            tau = 1.0 - d * math.exp(-d) / (1.0 - math.exp(-d))
        else:
            tau = -math.log(
                1.0 - float(np.random.default_rng([seed, k]).random()) * (1.0 - math.exp(-d))
            )
        z1, z2 = draws[2 * k], draws[2 * k + 1]
        first = eta * math.sqrt(math.exp(2 * tau) - 1) * z1
        middle = math.exp(tau) * y + a * (math.exp(tau) - 1) * score(y, t0) + first
        y = (
            math.exp(d) * y
            + a * (math.exp(d) - 1) * score(middle, t0 - tau)
            + math.exp(d - tau) * first
        )
        y = y + eta * math.sqrt(math.exp(2 * (d - tau)) - 1) * z2
    assert torch.allclose(ours, y, rtol=1e-9, atol=1e-10)


def test_accelerated_ddpm(replay: Replay, normal: Normal) -> None:
    """Li et al. 2024, with a = e^{-2d}."""
    x, draws = normal(3, 2, seed=1), normal(2 * len(TIMES), 3, 2, seed=2)
    ours = run("accelerated-ddpm", x, replay(draws))
    y = x
    for k, (t0, t1) in enumerate(itertools.pairwise(TIMES)):
        a = math.exp(-2.0 * (t0 - t1))
        half = math.sqrt((1.0 - a) / 2.0)
        plus = y + half * draws[2 * k]
        y = (plus + (1.0 - a) * score(plus, t0)) / math.sqrt(a) + half * draws[2 * k + 1]
    assert torch.allclose(ours, y, rtol=1e-10, atol=1e-11)


def test_accelerated_ddpm_is_one_call_and_of_order_1() -> None:
    assert (
        srk.solve(
            OU, TARGET.score(OU), "accelerated-ddpm", shape=2, steps=7, denoise_final=False
        ).nfe
        == 7
    )
    assert weak_order("accelerated-ddpm", srk.VP(), steps=(256, 512)).slope == pytest.approx(
        1.0, abs=0.06
    )
    with pytest.raises(srk.errors.IncompatibleError):
        srk.solve(OU, TARGET.score(OU), "accelerated-ddpm", shape=2, eta=0.5)


def test_ddram_places() -> None:
    """The random places have the density of the drift's kernel.

    Their mean is that of the deterministic form; the seed repeats them.
    """
    x = 1.7
    places = [DDRaM(seed=s)._fraction(k, x) for s in range(40) for k in range(100)]
    mean = DDRaM(seed=None)._fraction(0, x)
    assert mean == pytest.approx(1.0 / x - math.exp(-x) / (1.0 - math.exp(-x)), rel=1e-12)
    assert np.mean(places) == pytest.approx(mean, abs=4.0 * np.std(places) / math.sqrt(len(places)))
    assert 0.0 <= min(places) <= max(places) <= 1.0
    assert (
        DDRaM(seed=3)._fraction(5, x)
        == DDRaM(seed=3)._fraction(5, x)
        != DDRaM(seed=3)._fraction(6, x)
    )


def test_ddram_frames() -> None:
    """The data frame at the mean place is of weak order 2, and better than ddpm at equal cost.

    Random places average over seeds.
    """
    assert weak_order(
        DDRaM(frame="data", seed=None), srk.VP(), steps=(64, 128, 256)
    ).slope == pytest.approx(2.0, abs=0.15)
    for solver in (
        DDRaM(seed=0),
        DDRaM(seed=1),
        DDRaM(frame="data"),
        DDRaM(frame="data", seed=None),
    ):
        assert gaussian_kl(solver, srk.VP(), variance=0.3, nfe=96) < gaussian_kl(
            "ddpm", srk.VP(), variance=0.3, nfe=96
        )


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_ddram_refuses_a_seed(seed: object) -> None:
    with pytest.raises(srk.errors.ArgumentTypeError):
        DDRaM(seed=seed)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "sa-solver",
        "seeds-2",
        "seeds-3",
        "er-sde-1",
        "er-sde-2",
        "er-sde-3",
        "ddram",
        "accelerated-ddpm",
    ],
)
def test_strong_order_1(name: str) -> None:
    """On one Brownian path all of the stochastic methods of these files converge with order 1 or
    a little faster at these steps.
    """
    target = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.6, 0.5])
    order = srk.analysis.strong_order(
        name, srk.VP(t_min=0.01), target, steps=(32, 64, 128, 256), paths=256, reference_steps=2048
    )
    assert 0.8 < order.slope < 1.4
    assert srk.solvers()[name].strong_order == 1.0
