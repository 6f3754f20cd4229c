"""Runs of `gauge-adams` whose last step leads to the denoised prediction, without a call for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import srk
from srk.integrators import Auto, GaugeAdams

PROCESS = srk.EDM(0.01, 20.0)
TARGET = srk.targets.GaussianMixture([0.4, 0.6], [[-1.0], [0.8]], [0.3, 0.2])
SCORE = TARGET.score(PROCESS)
RUN: dict[str, Any] = {"shape": (64, 1), "seed": 3, "dtype": torch.float64}


def extrapolated(sol: srk.Solution, v: float, order: int) -> torch.Tensor:
    """The denoised prediction at the end from the last states and the network's answers there,
    written out, for a run without a corrector.
    """
    assert sol.trajectory is not None and sol.denoised is not None
    s = [(level.sigma / level.alpha) ** 2 for level in map(PROCESS.level, sol.times)]
    u = [x / PROCESS.level(t).alpha for t, x in zip(sol.times, sol.trajectory.values, strict=True)]
    R = [d + v * (d - y) / z for d, y, z in zip(sol.denoised.values, u, s, strict=False)]
    lam = [-0.5 * math.log(z) for z in s]
    nodes = range(len(R) - order, len(R))
    end = sum(
        R[j] * math.prod((lam[-1] - lam[k]) / (lam[j] - lam[k]) for k in nodes if k != j)
        for j in nodes
    )
    return (s[-1] * end + v * u[-1]) / (s[-1] + v)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_it_is_the_formula(order: int) -> None:
    """Against states and answers of the same run that ends at its state."""
    solver = GaugeAdams(data_variance=0.6, predictor=order, corrector=0)
    made = srk.Sampler(PROCESS, SCORE, solver, steps=9)((64, 1), **_call())
    open_end = srk.Sampler(PROCESS, SCORE, solver, steps=9, denoise_final=False)
    state = open_end((64, 1), **_call(), save=("x", "denoised"))
    assert made.nfe == state.nfe == 9
    assert torch.allclose(
        made.x, extrapolated(state, 0.6, min(order - 1, 2)), rtol=1e-11, atol=1e-12
    )
    assert not torch.allclose(made.x, state.x, rtol=1e-6)


def _call() -> dict[str, Any]:
    return {"seed": 3, "dtype": torch.float64}


def test_it_is_what_a_call_would_say() -> None:
    """Up to the error of the steps: the noise at the end is removed."""
    exact = srk.solve(PROCESS, SCORE, "gauge-adams", steps=300, **RUN).x
    for steps, part, least in ((8, 0.5, 0.04), (15, 0.1, 0.015)):
        sol = srk.solve(PROCESS, SCORE, "gauge-adams", steps=steps, **RUN)
        state = srk.solve(PROCESS, SCORE, "gauge-adams", steps=steps, denoise_final=False, **RUN)
        asked = SCORE.denoise(state.x, PROCESS.level(PROCESS.t_min), PROCESS)
        assert sol.nfe == steps
        # nearer to the answer at that state than that state is
        assert (sol.x - asked).abs().mean() < part * (state.x - asked).abs().mean()
        assert (sol.x - exact).square().mean().sqrt() < least


@pytest.mark.parametrize("process", [srk.VP(), srk.EDM(), srk.Flow(), srk.VPCosine()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_gaussian_data_in_the_gauge_are_exact(process: srk.LinearProcess, steps: int) -> None:
    score = srk.targets.Gaussian(0.0, 0.25).score(process)
    run = {**RUN, "solver": GaugeAdams(data_variance=0.25)}
    one = srk.solve(process, score, steps=steps, **run)
    many = srk.solve(process, score, steps=200, **run)
    assert one.nfe == steps and many.nfe == 201
    assert torch.allclose(one.x, many.x, rtol=1e-9, atol=1e-9)


def test_calls_and_steps() -> None:
    """A budget of calls is spent whole; from 16 steps on the end is a call."""
    for nfe in range(1, 24):
        sol = srk.solve(PROCESS, SCORE, "gauge-adams", nfe=nfe, **RUN)
        assert sol.nfe == nfe
        assert sol.steps == (nfe if nfe < 16 else nfe - 1)
    for steps in (1, 15, 16):
        sol = srk.solve(PROCESS, SCORE, "gauge-adams", steps=steps, **RUN)
        assert (sol.steps, sol.nfe) == (steps, steps + (steps > 15))


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"grid": [20.0, 4.0, 1.0, 0.2, 0.01]}, 4),
        ({"grid": [20.0, 4.0, 1.0, 0.2, 0.02]}, 5),
        ({"grid": srk.steps.Karras(sigma_min=0.05), "steps": 4}, 5),
        ({"grid": "karras", "steps": 4}, 4),
        ({"hooks": [srk.scores.Clip(-1.2, 1.2)], "steps": 4}, 5),
        ({"denoise_final": False, "steps": 4}, 4),
        ({"eta": [0.0] * 4, "steps": 4}, 5),
        ({"calls": "schedule", "steps": 4}, 4),
    ],
    ids=[
        "own times",
        "own times, not to the end",
        "ends above",
        "to the end",
        "hook",
        "state",
        "eta by step",
        "schedule",
    ],
)
def test_where_the_end_is_a_call(options: dict[str, Any], calls: int) -> None:
    sol = srk.solve(PROCESS, SCORE, "gauge-adams", **options, **RUN)
    state = srk.solve(PROCESS, SCORE, "gauge-adams", **{**options, "denoise_final": False}, **RUN)
    assert sol.nfe == calls
    if calls > sol.steps:
        end = SCORE.denoise(state.x, PROCESS.level(sol.times[-1]), PROCESS)
        assert torch.allclose(sol.x, end.clamp(-1.2, 1.2) if "hooks" in options else end)


def test_much_noise_at_the_end_is_asked_about() -> None:
    """A process that ends where the noise is not small beside the gauge."""
    process = srk.EDM(0.2, 20.0)
    sol = srk.solve(process, TARGET.score(process), "gauge-adams", steps=5, **RUN)
    assert sol.nfe == 6
    small = GaugeAdams(data_variance=1e-3)  # of which the noise of PROCESS is a tenth
    assert srk.solve(PROCESS, SCORE, small, steps=5, **RUN).nfe == 6
    assert srk.solve(PROCESS, SCORE, GaugeAdams(data_variance=0.0), steps=5, **RUN).nfe == 6


def test_auto_with_a_profile() -> None:
    profile = srk.calibrate(PROCESS, SCORE, shape=(256, 1))
    sol = srk.solve(PROCESS, SCORE, profile=profile, nfe=8, **RUN)
    assert (sol.steps, sol.nfe, sol.eta) == (8, 8, 0.0)
    chosen = Auto().calibrated(profile).choose(PROCESS, 0.0, 8)
    grid = srk.steps.Budget(profile)
    same = srk.solve(PROCESS, SCORE, chosen, grid=grid, nfe=8, **RUN)
    assert torch.equal(sol.x, same.x)
    noisy = srk.solve(PROCESS, SCORE, profile=profile, nfe=8, eta=1.0, **RUN)
    assert (noisy.steps, noisy.nfe) == (7, 8)
    by_step = srk.solve(PROCESS, SCORE, profile=profile, steps=8, eta=[0.0] * 8, **RUN)
    assert by_step.nfe == 9
    adaptive = srk.solve(PROCESS, SCORE, profile=profile, grid="adaptive", **RUN)
    assert adaptive.success


@pytest.mark.parametrize(
    "options",
    [{"parallel": srk.steps.Picard(tolerance=1e-8)}, {"compile": "step"}],
    ids=["parallel", "compiled"],
)
def test_other_ways_to_run(options: dict[str, Any]) -> None:
    run = {**RUN, "noise": "keyed", "nfe": 7}
    plain = srk.solve(PROCESS, SCORE, "gauge-adams", **run)
    other = srk.solve(PROCESS, SCORE, "gauge-adams", **run, **options)
    assert other.steps == 7
    assert torch.allclose(plain.x, other.x, rtol=1e-6, atol=1e-6)


def test_gradients_and_recomputed_ones() -> None:
    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def network(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s2 = sigma.view(-1, 1) ** 2
        return factor * x * 0.5 / (0.5 + s2)

    found = []
    for grad in (True, "checkpoint"):
        prediction = srk.Data(network)
        made = srk.solve(PROCESS, prediction, "gauge-adams", nfe=6, grad=grad, **RUN)
        (slope,) = torch.autograd.grad(made.x.square().sum(), factor)
        found.append(float(slope))
    assert found[0] == pytest.approx(found[1], rel=1e-10) and found[0] != 0.0


def test_the_exact_distribution_is_that_of_the_run() -> None:
    for steps in (6, 20):
        law = srk.analysis.gaussian_distribution(
            "gauge-adams", PROCESS, 0.3, 0.4, steps=steps, denoise_final=True
        )
        score = srk.targets.Gaussian(0.3, 0.4).score(PROCESS)
        x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) * PROCESS.sigma(PROCESS.t_max)
        sol = srk.solve(PROCESS, score, "gauge-adams", x_init=x, steps=steps)
        assert law.nfe == sol.nfe == (6 if steps == 6 else 21)
        start = 0.4 + PROCESS.sigma(PROCESS.t_max) ** 2
        slope = float(sol.x[1] - sol.x[0]) / 2.0 / PROCESS.sigma(PROCESS.t_max)
        assert float(np.squeeze(law.variance)) == pytest.approx(slope**2 * start, rel=1e-9)


def test_parts_of_a_product() -> None:
    product = srk.Product(a=PROCESS, b=PROCESS)
    score = srk.scores.Independent(a=SCORE, b=SCORE)
    run = {"shape": {"a": (8, 1), "b": (8, 1)}, "seed": 3, "dtype": torch.float64}
    sol = srk.solve(product, score, "gauge-adams", steps=6, **run)
    ended = srk.solve(product, score, "gauge-adams", steps=6, denoise_final=False, **run)
    assert sol.nfe == ended.nfe == 6
    level = PROCESS.level(PROCESS.t_min)
    for name in ("a", "b"):
        asked = SCORE.denoise(ended.x[name], level, PROCESS)
        gap = (sol.x[name] - asked).abs().mean()
        assert gap < 0.6 * (ended.x[name] - asked).abs().mean()
