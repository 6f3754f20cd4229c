"""Every spacing of diffusers' schedulers, held to the schedulers: timesteps equal, results to 1e-5.

What is compared is `SRKScheduler.from_config(peer.config, solver=...)` with the scheduler that the
config is of, both in float32, in the loop of a pipeline. The loop begins with `set_begin_index(0)`,
as pipelines do: without it a scheduler of diffusers starts at the second of two equal timesteps.

The coefficients of DEIS and SA-Solver cancel in the float32 of diffusers. Where a run is so long
that this shows, ours is held to the scheduler computing in float64 (`in_double`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers==0.42.1"
)

from srk.ecosystem.diffusers import SRKScheduler  # noqa: E402  # needs diffusers
from srk.ecosystem.diffusers.configs import parameters  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNIT = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
AGREEMENT = 1e-5
"""Of float32 results, relative to the largest."""

#: Name: the scheduler of diffusers, its options, and what asks for the same here.
PEERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}, {"solver": "ddim", "eta": 0.0}),
    "heun": ("HeunDiscreteScheduler", {}, {"solver": "heun"}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}, {"solver": "dpmpp-2m"}),
    "dpmpp-2m-heun": (
        "DPMSolverMultistepScheduler",
        {"solver_type": "heun"},
        {"solver": "dpmpp-2m"},
    ),
    "dpmpp-2m-sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        {"solver": "dpmpp-2m-sde"},
    ),
    "sa-solver": ("SASolverScheduler", {}, {"solver": "sa-solver"}),
    "sa-solver-3": (
        "SASolverScheduler",
        {"predictor_order": 3, "corrector_order": 3},
        {"solver": "sa-solver"},
    ),
    "unipc-2": ("UniPCMultistepScheduler", {}, {"solver": "unipc-2"}),
    "unipc-3": ("UniPCMultistepScheduler", {"solver_order": 3}, {"solver": "unipc-3"}),
    "deis-2": ("DEISMultistepScheduler", {}, {"solver": "deis-2"}),
    "deis-3": ("DEISMultistepScheduler", {"solver_order": 3}, {"solver": "deis-3"}),
    "host": ("DPMSolverMultistepScheduler", {}, {"solver": "host"}),
}
SCHEDULES = ("", "karras", "exponential", "beta")
FINALS = ("zero", "sigma_min")
SPACINGS = ("linspace", "leading", "trailing")


class _Double:
    """A module whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@contextmanager
def in_double(name: str) -> Iterator[None]:
    """The scheduler `name` computes in float64: its module sees a torch and a numpy without
    float32.
    """
    module = importlib.import_module(getattr(diffusers, name).__module__)
    names = [one for one in ("torch", "np") if hasattr(module, one)]
    before = {one: getattr(module, one) for one in names}
    for one in names:
        setattr(module, one, _Double(before[one]))
    try:
        yield
    finally:
        for one in names:
            setattr(module, one, before[one])


def network(x: Tensor, t: Tensor) -> Tensor:
    """Smooth in state and time; both schedulers are told the same times."""
    return 0.6 * torch.sin(1.3 * x + 0.2) + 0.3 * x * torch.cos(t.double() / 300.0).to(x.dtype)


def drive(scheduler: Any, x: Tensor, *, draws: bool) -> Tensor:
    """The loop of a pipeline."""
    scheduler.set_begin_index(0)
    options = {"generator": torch.Generator().manual_seed(5)} if draws else {}
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False, **options)[0]
    return x


def compared(
    peer_name: str, n: int, spacing: str, final: str, schedule: str, *, double: bool = False
) -> tuple[Any, Any, float]:
    """Both schedulers after `set_timesteps(n)`, and the relative difference of their results."""
    name, config, asked = PEERS[peer_name]
    config = {**STABLE_DIFFUSION, "timestep_spacing": spacing, "steps_offset": 1, **config}
    if "final_sigmas_type" in parameters(name):
        config["final_sigmas_type"] = final
    if schedule:
        config[f"use_{schedule}_sigmas"] = True
    dtype = torch.float64 if double else torch.float32
    peer = getattr(diffusers, name)(**config)
    ours = SRKScheduler.from_config(peer.config, **asked)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(n)
    x = UNIT.to(dtype)
    scaled = name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")  # its states are x/alpha
    first, last = (math.sqrt(1.0 + float(peer.sigmas[i]) ** 2) if scaled else 1.0 for i in (0, -1))
    draws = ours.integrator.eta_range[1] > 0.0 and peer_name != "euler"
    theirs = drive(peer, x * first, draws=draws) / last
    result = drive(ours, x, draws=draws)
    assert torch.isfinite(result).all()
    if not torch.isfinite(theirs).all():
        # two of its steps are at one level, between which it divides by 0; ours stays there
        levels = peer.sigmas[:: 2 if name == "HeunDiscreteScheduler" else 1]
        assert bool((levels[1:] == levels[:-1]).any())
        return peer, ours, 0.0
    return peer, ours, float((result - theirs).abs().max() / theirs.abs().max())


def finals(peer_name: str) -> tuple[str, ...]:
    return FINALS if "final_sigmas_type" in parameters(PEERS[peer_name][0]) else FINALS[:1]


CASES = [
    (peer, spacing, final, schedule)
    for peer in PEERS
    for spacing in SPACINGS
    for final in finals(peer)
    for schedule in SCHEDULES
]


@pytest.mark.parametrize(("peer", "spacing", "final", "schedule"), CASES)
def test_every_spacing_is_the_peers(peer: str, spacing: str, final: str, schedule: str) -> None:
    """The timesteps are equal, and the results to 1e-5; a sample of the numbers of steps."""
    for n in (1, 2, 3, 8, 15, 20):
        theirs, ours, error = compared(peer, n, spacing, final, schedule)
        assert torch.equal(ours.timesteps, theirs.timesteps), n
        assert ours.timesteps.dtype == theirs.timesteps.dtype
        if not error < AGREEMENT:
            with in_double(PEERS[peer][0]):
                error = compared(peer, n, spacing, final, schedule, double=True)[2]
        assert error < AGREEMENT, (n, error)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "spacing", "final", "schedule"), CASES)
def test_every_number_of_steps(peer: str, spacing: str, final: str, schedule: str) -> None:
    """The same for n = 1 to 60."""
    for n in range(1, 61):
        theirs, ours, error = compared(peer, n, spacing, final, schedule)
        assert torch.equal(ours.timesteps, theirs.timesteps), n
        if not error < AGREEMENT:
            with in_double(PEERS[peer][0]):
                error = compared(peer, n, spacing, final, schedule, double=True)[2]
        assert error < AGREEMENT, (n, error)


@pytest.mark.slow
@pytest.mark.parametrize("n", [999, 1000])
@pytest.mark.parametrize(("peer", "spacing", "final", "schedule"), CASES)
def test_as_many_steps_as_training_steps(
    peer: str, spacing: str, final: str, schedule: str, n: int
) -> None:
    """The same for as many steps as the training had, or nearly, in float64."""
    with in_double(PEERS[peer][0]):
        theirs, ours, error = compared(peer, n, spacing, final, schedule, double=True)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert error < AGREEMENT
