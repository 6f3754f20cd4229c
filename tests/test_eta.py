"""Stochasticity by level: functions, lists and rules in place of one number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.analysis import gaussian_distribution
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.noise import ReplayNoise
from srk.processes import Level

FLOW = srk.Flow(t_min=0.0)
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)
STOCHASTIC = [
    name
    for name, solver in srk.solvers().items()
    if solver.eta_range[0] < 1.0 <= solver.eta_range[1]
]
TIMES = [1.0, 0.9, 0.75, 0.5, 0.2, 0.05]
EXACT = 1e-10


def velocity(x: Tensor, t: float) -> Tensor:
    """The flow velocity of the target."""
    if t == 1.0:
        return x - torch.tensor([0.09, -0.05], dtype=x.dtype)  # the mean of the target
    s = TARGET.score(FLOW)(x, torch.full((len(x),), t, dtype=x.dtype))
    return -(x + t * s) / (1 - t)


def draws() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in TIMES]


def trajectory(solver: str, eta: Any) -> list[Tensor]:
    start, *noise = draws()
    sol = srk.solve(
        FLOW,
        srk.FlowVelocity(lambda x, t: velocity(x, float(t[0]))),
        solver,
        eta=eta,
        grid=TIMES,
        x_init=start,
        noise=ReplayNoise(noise),
        save="x",
        denoise_final=False,
        check_network=False,
    )
    assert sol.trajectory is not None
    return list(sol.trajectory.values)


def check(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < EXACT * other.abs().max()


def test_flow_grpo() -> None:
    """The step of Flow-GRPO, whose first one takes the next sigma in the denominator."""
    a, (x, *noise) = 0.7, draws()
    states = [x]
    for t, t_next, z in zip(TIMES[:-1], TIMES[1:], noise, strict=False):
        dt = t_next - t
        std = math.sqrt(t / (1 - (TIMES[1] if t == 1.0 else t))) * a
        v = velocity(x, t)
        mean = x * (1 + std**2 / (2 * t) * dt) + v * (1 + std**2 * (1 - t) / (2 * t)) * dt
        x = mean + std * math.sqrt(-dt) * z
        states.append(x)
    check(trajectory("euler-maruyama", srk.eta.flow_grpo(a)), states)


def test_dance() -> None:
    """The step of DanceGRPO: a constant diffusion."""
    a, (x, *noise) = 0.3, draws()
    states = [x]
    for t, t_next, z in zip(TIMES[:-1], TIMES[1:], noise, strict=False):
        dt, v = t_next - t, velocity(x, t)
        data = x - t * v
        score = -(x - data * (1 - t)) / t**2
        x = x + v * dt - 0.5 * a**2 * score * dt + a * math.sqrt(-dt) * z
        states.append(x)
    check(trajectory("euler-maruyama", srk.eta.dance(a)), states)


def test_cps() -> None:
    """The step of coefficients-preserving sampling."""
    a, (x, *noise) = 0.6, draws()
    states = [x]
    for t, t_next, z in zip(TIMES[:-1], TIMES[1:], noise, strict=False):
        v = velocity(x, t)
        data, eps = x - t * v, x + (1 - t) * v
        std = t_next * math.sin(a * math.pi / 2)
        x = (1 - t_next) * data + math.sqrt(t_next**2 - std**2) * eps + std * z
        states.append(x)
    check(trajectory("euler-ancestral", srk.eta.cps(a)), states)


def test_window() -> None:
    """No noise outside, and any stochasticity inside."""
    eta = srk.eta.window(1, 2, lambda level: level.t)
    sol = srk.solve(FLOW, TARGET.score(FLOW), "ddpm", eta=eta, grid=TIMES, seed=0)
    assert sol.eta == (0.0, 0.9, 0.75, 0.0, 0.0)
    assert "(eta = 0 to 0.9)" in repr(sol)
    first = srk.eta.window(0, 0, srk.eta.dance(0.3))
    assert torch.equal(
        trajectory("euler-maruyama", first)[1],
        trajectory("euler-maruyama", srk.eta.dance(0.3))[1],
    )


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_constant_function_is_the_number(solver: str) -> None:
    """Bit for bit, and so is a list of one number."""
    process = srk.VP()
    run = {"shape": (2, 2), "steps": 6, "seed": 0, "dtype": torch.float64}
    wanted = srk.solve(process, TARGET.score(process), solver, eta=1.0, **run)
    for eta in (lambda level: 1.0, [1.0] * 6, torch.ones(6)):
        sol = srk.solve(process, TARGET.score(process), solver, eta=eta, **run)
        assert torch.equal(sol.x, wanted.x)
        assert sol.eta == 1.0


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_exact_distribution_with_eta_that_varies(solver: str) -> None:
    """The exact distribution on Gaussian data converges to the target, whatever eta does."""
    if srk.solvers()[solver].weak_order is None and solver != "ddram":
        pytest.skip("the solver does not sample the target of an ordinary denoiser")

    def eta(level: Level) -> float:
        return 0.5 + 0.5 * math.sin(3.0 * level.lam)

    process = srk.VP(t_min=0.01)
    errors = []
    for steps in (40, 80):
        law = gaussian_distribution(solver, process, 0.5, 0.3, steps=steps, eta=eta)
        errors.append(abs(law.variance[0] / law.target_variance[0] - 1))
    # the ODE form of `reverse-diffusion` is slow
    assert errors[1] < (0.2 if solver == "reverse-diffusion" else 0.1)
    assert errors[1] < 0.7 * errors[0] or errors[1] < 2e-3


def test_the_law_is_that_of_the_run() -> None:
    """A run of many samples has the moments of the exact distribution, with eta from 0 to 1."""
    process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.3)
    eta = [0.0, 1.0, 0.3, 0.0, 0.8, 1.0]
    for solver, noise in (("srk2m", "brownian"), ("dpmpp-2m-sde", "generator")):
        law = gaussian_distribution(solver, process, 0.5, 0.3, steps=6, eta=eta, start="prior")
        sol = srk.solve(
            process,
            target.score(process),
            solver,
            eta=eta,
            steps=6,
            shape=(20000, 1),
            seed=0,
            noise=noise,
            denoise_final=False,
        )
        assert sol.x.var().item() == pytest.approx(law.variance[0], rel=0.05)
        assert sol.x.mean().item() == pytest.approx(law.mean[0], abs=0.03)


def test_clocks_of_steps_that_differ_in_eta_differ() -> None:
    """Two clocks of one name would make their draws dependent."""
    from srk.plans.gauge import GaugeStep

    start, stop = FLOW.level(0.5), FLOW.level(0.4)
    near = [GaugeStep(start, stop, 0.5, eta).clock for eta in (0.3, 0.3 + 1e-9)]
    assert near[0] == "gauge(0.5,0.3)" != near[1]


def test_a_function_is_asked_for_every_run() -> None:
    """What a function reads may change between two runs; plans follow its values."""
    state = {"eta": 0.0}
    sampler = srk.Sampler(FLOW, TARGET.score(FLOW), "ddpm", eta=lambda level: state["eta"], steps=4)
    still = sampler((2, 2), seed=0)
    state["eta"] = 1.0
    noisy = sampler((2, 2), seed=0)
    assert (still.eta, noisy.eta) == (0.0, 1.0)
    assert not torch.equal(still.x, noisy.x)
    assert "eta=" in repr(sampler)


def test_log_prob_with_a_list() -> None:
    """Densities of the steps that draw noise, the same when asked again."""
    sampler = srk.Sampler(FLOW, TARGET.score(FLOW), "ddpm", eta=[0.5, 0.0, 0.7, 0.0], steps=4)
    sol = sampler((3, 2), seed=0, save=("x", "log_prob"), dtype=torch.float64)
    assert sol.log_prob is not None and sol.log_prob.values.shape == (2, 3)
    again = sampler.log_prob(sol)
    assert torch.allclose(again.values, sol.log_prob.values, rtol=1e-10)


def test_refusals() -> None:
    """Each says what was given and what would be right."""
    score = TARGET.score(FLOW)
    run = {"shape": (2, 2), "steps": 4, "seed": 0}
    with pytest.raises(ArgumentError, match="3 values, but the run has 4 steps"):
        srk.solve(FLOW, score, "ddpm", eta=[1.0, 0.5, 0.0], **run)
    with pytest.raises(ArgumentError, match=r"eta of the step from t = 1\.0 is -1\.0"):
        srk.solve(FLOW, score, "ddpm", eta=lambda level: -1.0, **run)
    with pytest.raises(ArgumentTypeError, match="a function of the level"):
        srk.solve(FLOW, score, "ddpm", eta="large", **run)
    with pytest.raises(IncompatibleError, match=r"only, not eta = 1\.5"):
        srk.solve(FLOW, score, "srk2m", eta=lambda level: 1.5, **run)
    with pytest.raises(IncompatibleError, match="eta = 0 only"):
        srk.solve(FLOW, score, "dpmpp-2m", eta=[0.0, 0.0, 1.0, 0.0], **run)
    with pytest.raises(IncompatibleError, match="calls='schedule'"):
        srk.solve(FLOW, score, "srk2m", eta=lambda level: 1.0, calls="schedule", **run)
    with pytest.raises(IncompatibleError, match="eta by level needs a fixed grid"):
        srk.solve(FLOW, score, "sra1", eta=lambda level: 1.0, grid="adaptive", shape=(2, 2), seed=0)
    with pytest.raises(ArgumentError, match="ends after it begins"):
        srk.eta.window(3, 1)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        srk.eta.cps(1.5)


@pytest.mark.parametrize("solver", ["auto", "srk2m-local", "ddpm", "dpmpp-2m-sde"])
def test_an_eta_that_is_one_but_for_rounding_is_one(solver: str) -> None:
    """0.99999994 of float32 or 1 + 1e-12 does not choose another method."""
    process, target = srk.VP(), srk.targets.Gaussian(0.3, 0.25)

    def run(eta: Any) -> torch.Tensor:
        options: dict[str, Any] = {"steps": 6, "shape": (5, 1), "seed": 0, "eta": eta}
        return srk.solve(process, target.score(process), solver, **options).x

    below = float(np.nextafter(np.float32(1.0), np.float32(0.0)))
    for eta in (below, 1.0 + 1e-12, [below] * 6, lambda level: below):
        assert torch.equal(run(eta), run(1.0))
