"""Process functions of many times at once.

Tensors and arrays give what one number at a time gives.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import srk
from srk.errors import ArgumentError, TimeError


class Own(srk.LinearProcess):
    """A user's process, whose functions know numbers only."""

    name, t_min, t_max = "own", 0.1, 1.4

    def alpha(self, t: float) -> float:
        return math.cos(t)

    def sigma(self, t: float) -> float:
        return math.sin(t)


BUILT_IN = [
    srk.VP(), srk.SubVP(), srk.VE(), srk.EDM(), srk.OU(), srk.Flow(t_max=0.99),
    srk.VPCosine(t_max=0.99), srk.VPDiscrete(),
]  # fmt: skip
each = pytest.mark.parametrize("process", BUILT_IN, ids=lambda p: p.name)


def times(process: srk.ForwardProcess, n: int = 5) -> list[float]:
    low, high = process.t_min, process.t_max
    return [low + (high - low) * (i + 0.5) / n for i in range(n)]


@each
@pytest.mark.parametrize("name", ["alpha", "sigma", "lam", "diffusion"])
def test_functions_of_tensors_and_arrays(process: srk.LinearProcess, name: str) -> None:
    t = times(process)
    function = getattr(process, name)
    expected = np.array([float(function(s)) for s in t])
    np.testing.assert_allclose(function(np.array(t)), expected, rtol=1e-12)
    given = torch.tensor(t, dtype=torch.float64)
    found = function(given)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("process", [*BUILT_IN, Own(), srk.CLD()], ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perturb_takes_a_time_for_each_sample(
    process: srk.LinearProcess | srk.PhaseProcess, dtype: torch.dtype
) -> None:
    t = torch.tensor(times(process), dtype=dtype)
    x0 = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    many = process.perturb(x0, t, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    if isinstance(process, srk.PhaseProcess):
        one = [
            process.perturb(x[None], float(s), generator=generator)
            for x, s in zip(x0, t, strict=True)
        ]
        assert torch.equal(many, torch.cat(one))
        return
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    for i, s in enumerate(t.tolist()):
        level = process.level(s)
        expected = level.alpha * x0[i] + level.sigma * noise[i]
        torch.testing.assert_close(many[i], expected, rtol=1e-13, atol=0)


def test_drift_takes_a_time_for_each_sample() -> None:
    x = torch.ones(5, 3, dtype=torch.float64)
    for process in (*BUILT_IN, Own()):
        t = torch.tensor(times(process), dtype=torch.float64)
        expected = [process.drift(float(s), x[:1]) for s in t]
        torch.testing.assert_close(process.drift(t, x), torch.cat(expected), rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    x0 = torch.zeros(4, 3)
    with pytest.raises(ArgumentError, match="times of shape"):
        srk.VP().perturb(x0, torch.tensor([0.5, 0.6]))
    with pytest.raises(TimeError, match="outside the range"):
        srk.VP().perturb(x0, torch.tensor([0.5, 0.6, 0.7, 1.7]))
    assert srk.VP().perturb(x0, torch.tensor(0.5)).shape == (4, 3)


def test_times_in_float32_end_where_the_process_does() -> None:
    for process in BUILT_IN:
        ends = torch.linspace(process.t_max, process.t_min, 7, dtype=torch.float32)
        score = srk.targets.Gaussian(0.0, 1.0).score(process)
        solution = srk.solve(process, score, "ddpm", grid=ends, shape=4, seed=0)
        assert solution.times[0] == process.t_max
        assert solution.times[-1] == process.t_min
