"""The schedulers of few-step models of diffusers 0.42 against ours, with the same draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.noise import ReplayNoise

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
diffusers = pytest.importorskip("diffusers")

TIMES = [999, 759, 499, 259]


def network(x: Tensor, t: Tensor) -> Tensor:
    """Any network; its sizes are those of a predicted noise."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1) / 1000
    return torch.sin(2.0 * x + t) + 0.3 * x


def theirs(scheduler: Any, x: Tensor, draws: list[Tensor], monkeypatch: Any, **options: Any) -> Any:
    """A run of diffusers with given draws, in float64."""
    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    left = list(draws)
    monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: left.pop(0))
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(timesteps=TIMES)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x, **options).prev_sample
    return x


def ours(scheduler: Any, score: Any, x: Tensor, draws: list[Tensor], grid: Any, **run: Any) -> Any:
    process = srk.VPDiscrete(alphas_cumprod=scheduler.alphas_cumprod)
    return srk.solve(
        process,
        score,
        x_init=x,
        noise=ReplayNoise(draws),
        grid=[float(t) for t in grid],
        check_network=False,
        **run,
    ).x


@pytest.fixture
def draws() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_lcm(draws: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """LCMScheduler; its boundary scaling is part of the network here."""
    scheduler = diffusers.LCMScheduler()
    wanted = theirs(scheduler, draws[0], draws[1:], monkeypatch)

    def consistency(x: Tensor, t: Tensor) -> Tensor:
        index = t.reshape(-1, 1).long()  # whose scalings diffusers takes in float32
        product = scheduler.alphas_cumprod[index]
        data = (x - (1 - product).sqrt() * network(x, t)) / product.sqrt()
        skip = 0.25 / ((10 * index) ** 2 + 0.25)
        out = 10 * index / ((10 * index) ** 2 + 0.25) ** 0.5
        return out * data + skip * x

    x = ours(scheduler, srk.Data(consistency), draws[0], draws[1:], TIMES, solver="lcm")
    assert (x - wanted).abs().max() < 1e-10 * wanted.abs().max()


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_tcd(eta: float, draws: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """TCDScheduler with its eta, whose last step goes to the training index 0."""
    scheduler = diffusers.TCDScheduler()
    wanted = theirs(scheduler, draws[0], draws[1:], monkeypatch, eta=eta)
    x = ours(
        scheduler,
        srk.NoisePrediction(network),
        draws[0],
        [z for z in draws[1:] if eta > 0],
        [*TIMES, 0],
        solver="tcd",
        eta=eta,
        denoise_final=False,
    )
    assert (x - wanted).abs().max() < 1e-10 * wanted.abs().max()
