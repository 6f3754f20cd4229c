"""Schedulers and samplers of physicsnemo: against its own samplers where it can be imported, and
against the same protocol written down here everywhere.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.ecosystem.physicsnemo import SchedulerProcess, SRKSolver, from_physicsnemo, sample
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError

F = torch.float64
MEAN, VARIANCE = 0.5, 0.04


class EDMSchedule:
    """alpha = 1, sigma = t, EDM's times."""

    high, low, rho = 80.0, 0.002, 7.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def timesteps(self, n: int, *, device: Any = None, dtype: Any = None) -> Tensor:
        a, b = self.high ** (1 / self.rho), self.low ** (1 / self.rho)
        times = (a + torch.arange(n, dtype=dtype) / (n - 1) * (b - a)) ** self.rho
        return torch.cat([times, torch.zeros(1, dtype=dtype)])


def schedulers() -> dict[str, Any]:
    made: dict[str, Any] = {"edm": EDMSchedule()}
    try:
        from physicsnemo.diffusion import noise_schedulers as theirs
    except Exception:  # it is not there, or something that it imports
        return made
    made["edm of physicsnemo"] = theirs.EDMNoiseScheduler()
    made["vp of physicsnemo"] = theirs.VPNoiseScheduler()
    made["ve of physicsnemo"] = theirs.VENoiseScheduler()
    return made


SCHEDULERS = schedulers()


def predictors(scheduler: Any) -> dict[str, Any]:
    """The exact ones for data N(0.5, 0.04)."""

    def shaped(t: Tensor) -> tuple[Tensor, Tensor]:
        return scheduler.alpha(t)[:, None], scheduler.sigma(t)[:, None]

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = shaped(t)
        return -(x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)

    def x0(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = shaped(t)
        return (x + sigma**2 * score(x, t)) / alpha

    def epsilon(x: Tensor, t: Tensor) -> Tensor:
        return -shaped(t)[1] * score(x, t)

    return {"x0_predictor": x0, "score_predictor": score, "epsilon_predictor": epsilon}


def start(scheduler: Any, n: int = 5) -> Tensor:
    process = SchedulerProcess(scheduler)
    x = torch.randn(n, 2, dtype=F, generator=torch.Generator().manual_seed(0))
    return x * process.level(process.t_max).sigma


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_predictor_gives_the_distribution(name: str) -> None:
    scheduler, n = SCHEDULERS[name], 20000
    x = []
    for kind, predictor in predictors(scheduler).items():
        process, score = from_physicsnemo(scheduler, **{kind: predictor})
        process.validate()
        x.append(srk.solve(process, score, "srk2m", shape=(n, 2), nfe=40, seed=0, dtype=F).x)
    assert torch.allclose(x[0], x[1], atol=1e-6) and torch.allclose(x[0], x[2], atol=1e-6)
    assert (x[0].mean(0) - MEAN).abs().max() < 6 * math.sqrt(VARIANCE / n) + 2e-3
    assert (x[0].var(0) - VARIANCE).abs().max() < 6 * VARIANCE * math.sqrt(2 / n) + 2e-3


def test_edm_heun_written_out() -> None:
    """The deterministic sampler of physicsnemo: Heun on dx/dt = (x - D)/t, Euler in the last."""
    scheduler = EDMSchedule()
    x0 = predictors(scheduler)["x0_predictor"]
    x = wanted = start(scheduler)
    times = scheduler.timesteps(18, dtype=F)
    for t, s in pairwise(times):
        slope = (wanted - x0(wanted, t.expand(5))) / t
        moved = wanted + (s - t) * slope
        if s > 0:
            slope = (slope + (moved - x0(moved, s.expand(5))) / s) / 2
            moved = wanted + (s - t) * slope
        wanted = moved
    heun = srk.integrators.EDMHeun(s_churn=0.0)
    ours = sample(scheduler, x, 18, heun, x0_predictor=x0)
    assert (ours - wanted).abs().max() < 1e-10
    solver = SRKSolver(scheduler, heun, x0_predictor=x0)
    y = x
    for t, s in pairwise(times):  # what physicsnemo's `sample` does
        y = solver.step(y, t.expand(5), s.expand(5))
    assert (y - wanted).abs().max() < 1e-10


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if "physicsnemo" in name])
def test_in_the_sampler_of_physicsnemo(name: str) -> None:
    from physicsnemo.diffusion import samplers

    scheduler = SCHEDULERS[name]
    x0 = predictors(scheduler)["x0_predictor"]
    x = start(scheduler)
    denoiser = scheduler.get_denoiser(x0_predictor=x0)
    theirs = samplers.sample(denoiser, x, scheduler, 200, solver="heun")
    ours = samplers.sample(
        denoiser, x, scheduler, 200, solver=SRKSolver(scheduler, "heun", eta=0.0, x0_predictor=x0)
    )
    assert (ours - theirs).abs().max() < 1e-3
    direct = sample(scheduler, x, 200, "heun", eta=0.0, x0_predictor=x0)
    assert (ours - direct).abs().max() < 1e-10
    if name.startswith("edm"):
        mine = sample(scheduler, x, 18, srk.integrators.EDMHeun(s_churn=0.0), x0_predictor=x0)
        heun = samplers.sample(denoiser, x, scheduler, 18, solver="heun")
        assert (mine - heun).abs().max() < 1e-10


def test_noise_belongs_to_the_interval() -> None:
    """The steps one after the other are those of one run with the same seed."""
    scheduler = EDMSchedule()
    x0 = predictors(scheduler)["x0_predictor"]
    x = y = start(scheduler)
    solver = SRKSolver(scheduler, "ddpm", x0_predictor=x0, seed=1)
    for t, s in pairwise(scheduler.timesteps(30, dtype=F)):
        y = solver.step(y, t.expand(len(x)), s.expand(len(x)))
    run = sample(scheduler, x, 30, "ddpm", x0_predictor=x0, noise="keyed", seed=1)
    assert torch.allclose(run, y, atol=1e-10)


def test_mistakes() -> None:
    scheduler = EDMSchedule()
    made = predictors(scheduler)
    with pytest.raises(ArgumentError, match="one predictor, not 0"):
        from_physicsnemo(scheduler)
    with pytest.raises(ArgumentError, match="one predictor, not 3"):
        from_physicsnemo(scheduler, **made)
    with pytest.raises(ArgumentTypeError, match="timesteps"):
        from_physicsnemo(object(), x0_predictor=made["x0_predictor"])
    solver = SRKSolver(scheduler, "dpmpp-2m", eta=0.0, x0_predictor=made["x0_predictor"])
    with pytest.raises(IncompatibleError, match="single steps"):
        solver.step(start(scheduler), torch.tensor(80.0), torch.tensor(40.0))
