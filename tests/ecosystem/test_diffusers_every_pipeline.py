"""The pipelines of diffusers, small and with random weights, each with solvers of ours.

    pip install diffusers==0.42.1 transformers

`benchmarks/diffusers_matrix.py` runs the same pipelines with every solver and writes a page.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers==0.42.1")

from small_pipelines import PIPELINES, Small

from srk.ecosystem.diffusers import SRKScheduler
from srk.errors import IncompatibleError

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
#: All but the unconditional one import transformers, which takes 20 seconds.
NEEDS = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed: pip install transformers",
)
EVERY = [
    pytest.param(name, marks=[] if name == "DDPM" else [pytest.mark.slow, NEEDS])
    for name in PIPELINES
]
#: The pipelines whose own scheduler is a solver of ours, in the same arithmetic.
EQUAL = [
    "DDPM",
    "SDXL",
    "SDXL refiner",
    "Latent upscaler",
    "Stable Diffusion 3",
    "Flux",
    "Flux img2img",
    "Wan",
    "LTX-Video",
    "Stable Video Diffusion",
    "PixArt",
]
MORE: dict[str, dict[str, Any]] = {"Latent upscaler": {"frame": "sigma"}}


def made(name: str) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PIPELINES[name]()


@pytest.mark.parametrize("name", EVERY)
def test_two_calls_give_the_same_picture(name: str) -> None:
    """With a generator of the same seed, whether the pipeline hands it to the scheduler or not."""
    small = made(name)
    own = small.pipe.scheduler
    for options in (
        {"solver": "srk2m"},
        {"solver": "srk2m", "grid": "log-snr"},
        {"solver": "srk2m", "calls": "schedule"},
        {"solver": "ddpm", "noise": "keyed"},
        {"solver": "seeds-3"},
        {"solver": "dpmpp-2m-sde"},
    ):
        scheduler = SRKScheduler.from_config(own, **options, **MORE.get(name, {}))
        small.pipe.scheduler = scheduler
        first, again = small.run(4), small.run(4)
        assert torch.equal(first, again), options
        assert torch.isfinite(first).all(), options
        assert scheduler.step_index == len(scheduler.timesteps)
        assert not torch.equal(first, small.run(4, seed=1)), options


@pytest.mark.parametrize("name", [param for param in EVERY if param.values[0] in EQUAL])
def test_the_hosts_solver_gives_the_hosts_picture(name: str) -> None:
    small = made(name)
    theirs = small.run(5)
    small.pipe.scheduler = SRKScheduler.from_config(
        small.pipe.scheduler, solver="host", **MORE.get(name, {})
    )
    ours = small.run(5)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 2e-5


@NEEDS
@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "srk2m", "heun", "srk2"])
def test_sdxl_base_and_refiner(solver: str) -> None:
    """Two pipelines, each with a scheduler of its own, split where SDXL's users split them.

    The refiner's network is the base model's here, so that the whole run is known.
    """
    base, refiner = made("SDXL"), made("SDXL refiner")
    own = base.pipe.scheduler
    call = {key: value for key, value in refiner.call.items() if key not in ("image", "strength")}

    def network(pipe: Any) -> None:
        """The same function of state and time for both, whatever else they pass."""

        def forward(sample: Any, timestep: Any, *rest: Any, **more: Any) -> tuple[torch.Tensor]:
            return (0.5 * torch.sin(sample) + 0.1 * torch.cos(timestep / 300.0) * sample,)

        pipe.unet.forward = forward

    for small in (base, refiner):
        network(small.pipe)
        small.pipe.scheduler = SRKScheduler.from_config(own, solver=solver)
    whole = base.run(10)
    first = base.run(10, denoising_end=0.8)
    generator = torch.Generator().manual_seed(0)
    torch.randn(1, 4, 8, 8, generator=generator)  # the base model's first state
    assert first.shape == whole.shape
    result = refiner.pipe(
        **call, image=first, denoising_start=0.8, num_inference_steps=10, generator=generator
    ).images
    if base.pipe.scheduler.integrator.eta_range == (0.0, 0.0):
        torch.testing.assert_close(result.float(), whole, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(result).all()
    assert refiner.pipe.scheduler.step_index == len(refiner.pipe.scheduler.timesteps)


@NEEDS
@pytest.mark.slow
def test_the_latent_upscaler_is_refused_without_its_frame() -> None:
    small = made("Latent upscaler")
    small.pipe.scheduler = SRKScheduler.from_config(small.pipe.scheduler, solver="ddim", eta=0.0)
    with pytest.raises(IncompatibleError, match="frame='sigma'"):
        small.run(3)
