"""srk and azula take the same steps on the same denoiser, in both directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentTypeError
from srk.noise import ReplayNoise

pytest.importorskip("azula", reason="azula is not installed")

from azula import noise as schedules
from azula import sample as samplers
from azula.denoise import GaussianDenoiser, KarrasDenoiser
from azula.linalg.covariance import IsotropicCovariance

from srk.ecosystem.azula import (
    PredictionDenoiser,
    ProcessSchedule,
    ScheduleProcess,
    SRKSampler,
    from_azula,
)

pytestmark = pytest.mark.parity

F = torch.float64
SCHEDULES = {
    "ve": schedules.VESchedule(1e-2, 50.0),
    "vp": schedules.VPSchedule(),
    "cosine": schedules.CosineSchedule(),
    "rectified": schedules.RectifiedSchedule(),
}
QUIET: dict[str, Any] = {"silent": True, "dtype": F}


class Backbone(torch.nn.Module):
    """A network of any kind: what it says depends on the state, the time and a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7, dtype=F))

    def forward(self, x: Tensor, t: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        return self.weight * torch.tanh(x + shift) + 0.1 * torch.sin(t)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_process_is_the_schedule(name: str) -> None:
    schedule = SCHEDULES[name]
    process = ScheduleProcess(schedule)
    process.validate()
    for t in (0.0, 0.3, 1.0):
        alpha, sigma = schedule(torch.tensor(t, dtype=F))
        level = process.level(t)
        assert (level.alpha, level.sigma) == (float(alpha), float(sigma))
        assert abs(process.time(level.lam) - t) < 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["ddim", "ddpm", "heun"])
def test_steps_of_azula(name: str, kind: str) -> None:
    """DDIM and ancestral sampling on azula's times; its own Heun for small steps."""
    denoiser = KarrasDenoiser(Backbone(), SCHEDULES[name])
    x = normals(4, 3) * 1.5
    if kind == "heun":
        theirs = samplers.HeunSampler(denoiser, steps=400, start=0.9, **QUIET)(x)
        ours = SRKSampler(denoiser, "heun", eta=0.0, steps=400, start=0.9, **QUIET)(x)
        assert (ours - theirs).abs().max() < 1e-3
        return
    if kind == "ddim":
        theirs = samplers.DDIMSampler(denoiser, steps=12, **QUIET)(x)
        ours = SRKSampler(denoiser, "ddim", eta=0.0, steps=12, **QUIET)(x)
    else:
        torch.manual_seed(0)
        theirs = samplers.DDPMSampler(denoiser, steps=12, **QUIET)(x)
        torch.manual_seed(0)
        draws = ReplayNoise([torch.randn_like(x) for _ in range(12)])
        ours = SRKSampler(denoiser, "euler-ancestral", noise=draws, steps=12, **QUIET)(x)
    assert (ours - theirs).abs().max() < 1e-10


def test_conditions_reach_the_network() -> None:
    denoiser, shift = KarrasDenoiser(Backbone(), SCHEDULES["vp"]), normals(4, 1, seed=2)
    x = normals(4, 3)
    theirs = samplers.DDIMSampler(denoiser, steps=5, **QUIET)(x, shift=shift)
    assert (
        SRKSampler(denoiser, "ddim", eta=0.0, steps=5, **QUIET)(x, shift=shift) - theirs
    ).abs().max() < 1e-10
    process, score = from_azula(denoiser, shift=shift)
    run: dict[str, Any] = {"x_init": x, "steps": 5, "noise": "keyed", "seed": 0}
    whole = srk.solve(process, score, "ddpm", check_network=False, **run).x
    parts = srk.solve(process, score, "ddpm", check_network=False, microbatch=3, **run).x
    assert torch.allclose(whole, parts)
    picard = srk.Picard(window=4, tolerance=1e-10)
    at_once = srk.solve(process, score, "ddpm", check_network=False, parallel=picard, **run).x
    assert torch.allclose(at_once, whole, atol=1e-6)


def test_networks_of_srk_in_samplers_of_azula() -> None:
    """The exact denoiser of a mixture, under DDIM of both, at one time and at a time a sample."""
    process = srk.VP()
    target = srk.targets.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.1, 0.2])
    denoiser = PredictionDenoiser(target.score(process), process)
    x = normals(5, 1)
    theirs = samplers.DDIMSampler(denoiser, steps=20, **QUIET)(x)
    times = torch.linspace(1.0, 0.0, 21, dtype=F) * (process.t_max - process.t_min) + process.t_min
    ours = srk.solve(
        process, target.score(process), "ddim", eta=0.0, x_init=x, grid=times.tolist(),
        denoise_final=False,
    ).x  # fmt: skip
    assert (ours - theirs).abs().max() < 1e-10
    t = torch.tensor([0.3, 0.9, 0.3, 0.1, 0.9], dtype=F)
    each = denoiser(x, t).mean
    alone = torch.cat([denoiser(x[i : i + 1], t[i]).mean for i in range(5)])
    assert torch.allclose(each, alone)
    alpha, sigma = ProcessSchedule(process)(t)
    level = process.level(denoiser.schedule.own_time(0.3))
    assert (float(alpha[0]), float(sigma[2])) == (level.alpha, level.sigma)


def test_the_distribution() -> None:
    variance = IsotropicCovariance(torch.tensor(0.04, dtype=F))
    gauss = GaussianDenoiser(torch.full((3,), 0.5, dtype=F), variance, SCHEDULES["vp"])
    process, score = from_azula(gauss)
    x = srk.solve(process, score, "srk2m", shape=(20000, 3), nfe=20, seed=0, dtype=F).x
    assert (x.mean(0) - 0.5).abs().max() < 6 * 0.2 / 20000**0.5
    assert (x.var(0) - 0.04).abs().max() < 6 * 0.04 * (2 / 20000) ** 0.5 + 2e-3


def test_mistakes() -> None:
    process = srk.VP()
    denoiser = PredictionDenoiser(srk.Data(lambda x, t: 0 * x), process)
    with pytest.raises(ArgumentTypeError, match="model_kwargs"):
        denoiser(torch.zeros(1, 2), torch.tensor(0.5), label=3)
    with pytest.raises(ArgumentTypeError, match="KarrasDenoiser"):
        from_azula(torch.nn.Identity())
    with pytest.raises(ArgumentTypeError, match="linear process"):
        PredictionDenoiser(srk.Data(lambda x, t: x), srk.CLD())  # type: ignore[arg-type]
