"""Networks with memory of their own, and networks that write to their input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ScoreError
from srk.posterior import Linear, Measurement, methods, steer

PROCESS = srk.EDM(0.02, 20.0)
MEASUREMENT = Measurement(Linear(torch.tensor([[1.0, 0.5]])), torch.tensor([0.4]), 0.5)


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(0.3, 0.5)."""
    s = sigma[:, None] ** 2
    return 0.3 + (x - 0.3) * 0.5 / (0.5 + s)


class Bound:
    """A network that owns one output buffer for each batch size, as captured graphs do."""

    def __init__(self) -> None:
        self.out: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        value = denoiser(x, sigma)
        if x.requires_grad:  # captured graphs have no gradients
            return value
        return self.out.setdefault(len(x), torch.empty_like(x)).copy_(value)


def writing(x: Tensor, sigma: Tensor) -> Tensor:
    out = denoiser(x, sigma)
    x.mul_(0.5)
    return out


def reward(x: Tensor) -> Tensor:
    return x[:, 0]


@pytest.mark.parametrize("twist", [False, "posterior"])
@pytest.mark.parametrize("microbatch", [None, 8])
def test_steering_copies_what_a_network_owns(microbatch: int | None, twist: Any) -> None:
    """Pieces of a population, and a model and a proposal, may share one buffer."""

    def run(network: Any) -> srk.Solution:
        score = srk.Data(network, time="sigma", event_shape=(2,))
        proposal = methods()["DDRM"](score, MEASUREMENT) if twist else False
        return steer(
            PROCESS,
            score,
            reward,
            shape=32,
            steps=8,
            seed=0,
            microbatch=microbatch,
            twist=proposal,
        )

    fresh, bound = run(denoiser), run(Bound())
    torch.testing.assert_close(bound.x, fresh.x, rtol=0.0, atol=0.0)
    torch.testing.assert_close(bound.log_weights, fresh.log_weights, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", [n for n in methods() if n != "Exact"])
def test_methods_copy_what_a_network_owns(name: str) -> None:
    def run(network: Any) -> Tensor:
        posterior = methods()[name](srk.Data(network, time="sigma"), MEASUREMENT)
        return srk.solve(PROCESS, posterior, "heun", shape=(8, 2), steps=8, seed=0, eta=0.0).x

    assert torch.equal(run(denoiser), run(Bound()))


@pytest.mark.parametrize("name", [n for n in methods() if n != "Exact"])
def test_a_network_that_writes_to_its_input_is_named(name: str) -> None:
    posterior = methods()[name](srk.Data(writing, time="sigma"), MEASUREMENT)
    with pytest.raises(ScoreError, match=r"changed its input in place.*x\.clone"):
        srk.solve(PROCESS, posterior, "ddpm", shape=(4, 2), steps=4, seed=0)


@pytest.mark.parametrize("twist", [False, True])
def test_steering_names_it_too(twist: bool) -> None:
    score = srk.Data(writing, time="sigma", event_shape=(2,))
    with pytest.raises(ScoreError, match="changed its input in place"):
        steer(PROCESS, score, reward, shape=4, steps=4, seed=0, twist=twist)
