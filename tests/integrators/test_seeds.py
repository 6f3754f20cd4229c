"""SEEDS-2 and SEEDS-3.

Oracles, orders, the joint distribution of their noise, and their equations in another's words.
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
from srk.integrators import SEEDS2, SEEDS3, Integrator, Step
from srk.noise import NoiseSource
from srk.processes import Level

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)

Replay = Callable[[Tensor], NoiseSource]
Normal = Callable[..., Tensor]


@pytest.mark.parametrize(("nfe", "kl"), [(24, 1.44e-3), (48, 1.19e-4)])
def test_oracle(nfe: int, kl: float) -> None:
    """N(0, 1), EDM from 80 to 0.01, node 1/2.

    Numerics.md's SEEDS-2 with exact node noise has the "phi2" weights.
    """
    assert gaussian_kl(SEEDS2(weights="phi2"), EDM, nfe=nfe) == pytest.approx(kl, rel=5e-3)


@pytest.mark.parametrize(("nfe", "kl"), [(24, 8.878e-3), (48, 8.606e-4), (96, 6.558e-5)])
def test_published_weights(nfe: int, kl: float) -> None:
    """The published weights on the same problem, our own values."""
    assert gaussian_kl("seeds-2", EDM, nfe=nfe) == pytest.approx(kl, rel=1e-3)


@pytest.mark.parametrize(
    ("solver", "eta", "order", "tolerance"),
    [
        (SEEDS2(), 1.0, 2, 0.1),
        (SEEDS2(weights="phi2"), 1.0, 2, 0.1),
        (SEEDS2(node=1.0), 0.0, 2, 0.1),
        (SEEDS3(), 1.0, 2, 0.2),
        (SEEDS3(), 0.0, 3, 0.1),
    ],
)
def test_orders(solver: Integrator, eta: float, order: int, tolerance: float) -> None:
    """Weak order 2 with noise, the third stage of SEEDS-3 notwithstanding; 2 and 3 without."""
    assert weak_order(solver, srk.VP(), steps=(128, 256, 512), eta=eta).slope == pytest.approx(
        order, abs=tolerance
    )


def test_values_of_others() -> None:
    """At eta = 0 seeds-2 is DPM-Solver++(2S).

    With "phi2" at 3/4 it is etd-sra1 without the noise.
    """
    score = TARGET.score(EDM)

    def run(solver: str | Integrator) -> Tensor:
        return srk.solve(
            EDM, score, solver, shape=(4, 2), steps=12, seed=0, eta=0.0, dtype=torch.float64
        ).x

    assert torch.allclose(run("seeds-2"), run("dpmpp-2s-ancestral"), rtol=1e-12, atol=1e-13)
    assert torch.allclose(
        run(SEEDS2(weights="phi2", node=0.75)), run("etd-sra1"), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize(
    "solver", [SEEDS2(), SEEDS2(node=0.3), SEEDS2(node=1.0), SEEDS3(), SEEDS3(nodes=(0.2, 0.9))]
)
@pytest.mark.parametrize("eta", [0.5, 1.0, 1.4])
def test_noise_of_stages_and_update(solver: Integrator, eta: float) -> None:
    """Covariance of the noise in every stage and in the update.

    That of the linear SDE, Cov(N_s, N_t) = e^{-a(t - s)} Var N_s.
    """
    step = Step(EDM, EDM.level(3.0), EDM.level(1.1), eta)
    plan = solver.plan_step(step)
    rows = [*(stage.row for stage in plan.stages[1:]), plan.update]
    levels = [*(stage.level for stage in plan.stages[1:]), step.stop]
    noise = [{column.number: value for column, value in row if column.kind == "z"} for row in rows]
    matrix = np.array([[row.get(i, 0.0) for i in range(len(plan.slots))] for row in noise])
    a, e = 1.0 + eta**2, eta**2

    def variance(level: Level) -> float:
        return level.r**2 * -math.expm1(-2.0 * e * (level.lam - step.start.lam))

    # rows are in the scale of x, which for EDM is that of u
    expected = [
        [math.exp(-a * abs(p.lam - q.lam)) * variance(p if p.lam <= q.lam else q) for q in levels]
        for p in levels
    ]
    assert matrix @ matrix.T == pytest.approx(np.array(expected), rel=1e-10)


def comfy_seeds_3(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: list[float],
    eta: float,
    draws: Tensor,
) -> Tensor:
    """SEEDS-3 for alpha = 1 as in ComfyUI's notation.

    H_eta = h (1 + eta), noise of three sub-intervals decayed by e^{-h eta}.
    """
    rest = iter(draws)
    r1, r2 = 1.0 / 3.0, 2.0 / 3.0

    def phi_1(z: float) -> float:
        return math.expm1(z)

    def phi_2(z: float) -> float:
        return (math.expm1(z) - z) / z

    for s, t in itertools.pairwise(sigmas):
        h = math.log(s / t)
        he = h * (1.0 + eta)
        s1, s2 = s * math.exp(-r1 * h), s * math.exp(-r2 * h)
        z1, z2, z3 = next(rest), next(rest), next(rest)

        def fresh(part: float, h: float = h) -> float:
            return math.sqrt(-math.expm1(-2.0 * part * h * eta))

        def decay(part: float, h: float = h) -> float:
            return math.exp(-part * h * eta)

        d1 = denoise(x, s)
        n = fresh(r1) * z1
        x2 = s1 / s * decay(r1) * x - phi_1(-r1 * he) * d1 + s1 * n
        d2 = denoise(x2, s1)
        n = decay(r2 - r1) * n + fresh(r2 - r1) * z2
        a32 = r2 / r1 * phi_2(-r2 * he)
        x3 = s2 / s * decay(r2) * x - ((phi_1(-r2 * he) - a32) * d1 + a32 * d2) + s2 * n
        d3 = denoise(x3, s2)
        n = decay(1.0 - r2) * n + fresh(1.0 - r2) * z3
        b3 = phi_2(-he) / r2
        x = t / s * decay(1.0) * x - ((phi_1(-he) - b3) * d1 + b3 * d3) + t * n
    return x


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_seeds_3_in_other_words(eta: float, replay: Replay, normal: Normal) -> None:
    """Step by step against the equations as ComfyUI writes them; its eta is our eta squared."""
    sigmas = [80.0 * (0.05 / 80.0) ** (i / 9) for i in range(10)]
    x, draws = normal(3, 2, seed=1) * 80.0, normal(27, 3, 2, seed=2)
    theirs = comfy_seeds_3(
        lambda u, s: TARGET.denoise(u, Level(s, 1.0, s, -math.log(s))), x, sigmas, eta**2, draws
    )
    ours = srk.solve(
        EDM,
        TARGET.score(EDM),
        "seeds-3",
        x_init=x,
        grid=sigmas,
        eta=eta,
        noise=replay(draws),
        denoise_final=False,
    ).x
    assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_refusals() -> None:
    with pytest.raises(srk.errors.ArgumentError):
        SEEDS3(nodes=(0.7, 0.3))
    with pytest.raises(ValueError):
        SEEDS2(node=0.0)
