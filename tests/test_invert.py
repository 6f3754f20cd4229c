"""The ODE from data to noise, and back."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import srk
from srk.errors import IncompatibleError
from srk.sampling.invert import INVERTIBLE

TARGET = srk.targets.GaussianMixture([0.4, 0.6], [[-0.5, 0.2], [0.4, -0.3]], [0.5, 0.6])
X = torch.tensor([[0.3, -0.2], [-0.6, 0.9], [0.1, 0.4]], dtype=torch.float64)
ORDER = {"ddim": 1, "heun": 2, "dpm2": 2, "dpm-solver-2": 2, "dpmpp-2m": 2}


def round_trip(process: srk.LinearProcess, solver: str, steps: int) -> float:
    """The largest error after the way up and down again."""
    score = TARGET.score(process)
    up = srk.invert(process, score, X, solver, steps=steps)
    assert up.times[0] == process.t_min and up.times[-1] == process.t_max
    assert up.steps == steps and up.eta == 0.0 and up.seed is None
    down = srk.solve(process, score, solver, eta=0.0, x_init=up.x, steps=steps, denoise_final=False)
    return float((down.x - X).abs().max())


@pytest.mark.parametrize("solver", INVERTIBLE)
def test_round_trip_at_the_order_of_the_solver(solver: str) -> None:
    process = srk.VP(t_min=0.05)
    errors = [round_trip(process, solver, steps) for steps in (80, 160)]
    assert math.log2(errors[0] / errors[1]) > ORDER[solver] - 0.25


def test_ddim_inversion_written_out() -> None:
    """x' = alpha' D + sigma' eps with the noise at the cleaner level."""
    process, times = srk.VP(), [0.05, 0.3, 0.7, 1.0]
    score, x = TARGET.score(process), X
    for t, t_next in pairwise(times):
        a, b = process.level(t), process.level(t_next)
        eps = -a.sigma * score(x, torch.full((3,), t, dtype=x.dtype))
        x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
    ours = srk.invert(process, score, X, grid=times[::-1])
    assert (ours.x - x).abs().max() < 1e-10


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_up_to_pure_noise(solver: str) -> None:
    """On a flow the last step up ends at alpha = 0, and the exact end is known on a Gaussian."""
    process, target = srk.Flow(t_min=0.01), srk.targets.Gaussian([0.5], 0.3)
    x = torch.tensor([[0.2], [1.1]], dtype=torch.float64)
    up = srk.invert(process, target.score(process), x, solver, steps=400)
    exact = (x - 0.99 * 0.5) / math.sqrt(0.99**2 * 0.3 + 0.01**2)
    assert (up.x - exact).abs().max() < 0.02
    assert torch.equal(x, torch.tensor([[0.2], [1.1]], dtype=torch.float64))


def test_refusals() -> None:
    score = TARGET.score(srk.VP())
    with pytest.raises(IncompatibleError, match="use solver='ddim'"):
        srk.invert(srk.VP(), score, X, "srk2m")
    flow = srk.Flow(t_min=0.0)
    with pytest.raises(IncompatibleError, match="larger t_min"):
        srk.invert(flow, TARGET.score(flow), X)
    with pytest.raises(IncompatibleError, match="fixed grid"):
        srk.invert(srk.VP(), score, X, grid="adaptive")
