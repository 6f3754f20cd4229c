"""The log-density of what the network saw, against the joint Gaussian that the draws make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk

PROCESSES = {"vp": srk.VP(), "flow": srk.Flow(), "edm": srk.EDM(0.01, 80.0)}


def seen(sampler: Any, draws: list[float]) -> Any:
    """The run with these draws."""
    given = iter(draws)

    def noise(slot: Any, clock: str, out: Tensor) -> None:
        out.fill_(next(given))

    start = torch.full((1, 1), 0.7, dtype=torch.float64)
    return sampler(x_init=start, noise=noise, save=["x", "inputs"])


def values(sol: Any) -> np.ndarray:
    """What the network saw, in order, and the result of the steps."""
    return torch.cat([sol.inputs.values[:, 0, 0], sol.trajectory.values[-1, 0]]).numpy()


@pytest.mark.parametrize("solver", ["srk2m", "srk2", "seeds-2", "dpmpp-2m-sde"])
@pytest.mark.parametrize("name", PROCESSES)
def test_a_network_that_says_a_constant(name: str, solver: str) -> None:
    """Everything is then linear in the draws. `Flow` starts where the signal is 0."""
    data = srk.Data(lambda x, t: torch.full_like(x, 0.3))
    sampler = srk.Sampler(PROCESSES[name], data, solver, steps=4)
    count = sum(len(plan.slots) for plan in sampler.plans())
    origin = values(seen(sampler, [0.0] * count))
    columns = [values(seen(sampler, row)) - origin for row in np.eye(count).tolist()]
    matrix = np.stack(columns, 1)
    sol = seen(sampler, np.random.default_rng(0).standard_normal(count).tolist())

    expected, known = 0.0, np.zeros((0, count))
    draws = np.linalg.lstsq(matrix, values(sol) - origin, rcond=None)[0]
    for row in matrix:  # each value given those before it: what the draws already tell is left out
        rest = row - known.T @ (known @ row)
        deviation = float(np.linalg.norm(rest))
        if deviation < 1e-6 * max(float(np.linalg.norm(row)), 1e-300):
            continue
        direction = rest / deviation
        known = np.vstack([known, direction])
        standard = float(direction @ draws)
        expected -= 0.5 * standard**2 + np.log(deviation) + 0.5 * np.log(2 * np.pi)
    assert len(known) == count
    assert float(sampler.log_prob(sol).values.sum()) == pytest.approx(expected, abs=1e-6)
