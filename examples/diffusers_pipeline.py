"""Schedulers of diffusers and of srk in the same loop, with the same network and as many network
calls.

    python examples/diffusers_pipeline.py > table.md

The network is the exact noise prediction of a mixture of Gaussians, called as a Stable Diffusion
UNet is: the training index, alphas_cumprod of "scaled_linear" betas. The error is the Wasserstein-1
distance of the first coordinate to its exact distribution, averaged over three seeds. About 20
seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

import srk
from srk.ecosystem.diffusers import SRKScheduler

SAMPLES, SEEDS, NFE = 20_000, 3, (10, 20, 50)
WEIGHTS, WIDTHS = [0.4, 0.3, 0.2, 0.1], [0.2, 0.1, 0.05, 0.02]
TARGET = srk.targets.GaussianMixture(
    WEIGHTS, [[-1.0, 0.5], [0.0, -0.7], [0.6, 0.3], [1.1, -0.4]], WIDTHS
)
MARGINAL = srk.targets.GaussianMixture(WEIGHTS, [[-1.0], [0.0], [0.6], [1.1]], WIDTHS)
QUANTILES = MARGINAL.quantile((np.arange(SAMPLES) + 0.5) / SAMPLES).float()

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
PROCESS = srk.VPDiscrete(
    alphas_cumprod=diffusers.DDPMScheduler(**CONFIG, clip_sample=False).alphas_cumprod
)


def network(x: Tensor, t: Tensor) -> Tensor:
    """The noise in `x` at the training index `t`."""
    level = PROCESS.level(float(t))
    return (x - level.alpha * TARGET.denoise(x, level)) / level.sigma


def pipeline(scheduler: Any, nfe: int, seed: int) -> Tensor:
    """What a pipeline does with a scheduler."""
    generator = torch.Generator().manual_seed(seed)
    steps = nfe
    if isinstance(scheduler, SRKScheduler) and scheduler.order > 1:
        steps = 1 + (nfe - 1) // scheduler.order  # the last one, to the data, is one call
    scheduler.set_timesteps(steps)
    x = torch.randn(SAMPLES, 2, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(
            network(scheduler.scale_model_input(x, t), t), t, x, generator=generator
        ).prev_sample
    return x


def error(x: Tensor) -> float:
    return float((x[:, 0].sort().values - QUANTILES).abs().mean())


def theirs(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(diffusers, name)(**CONFIG, **options)


def ours(solver: str, **options: Any) -> Callable[[], Any]:
    return lambda: SRKScheduler.from_config(
        diffusers.DDIMScheduler(**CONFIG, clip_sample=False).config, solver=solver, **options
    )


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "diffusers DDPMScheduler": theirs("DDPMScheduler", clip_sample=False),
    "diffusers EulerAncestralDiscreteScheduler": theirs("EulerAncestralDiscreteScheduler"),
    "diffusers DPMSolverMultistepScheduler": theirs("DPMSolverMultistepScheduler"),
    "diffusers DPMSolverMultistepScheduler, SDE": theirs(
        "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"
    ),
    "srk ddpm": ours("ddpm"),
    "srk srk2m": ours("srk2m"),
    "srk ddpm, log-snr": ours("ddpm", grid="log-snr"),
    "srk dpmpp-2m, log-snr": ours("dpmpp-2m", grid="log-snr"),
    "srk dpmpp-2m-sde, log-snr": ours("dpmpp-2m-sde", grid="log-snr"),
    "srk srk2, log-snr": ours("srk2", grid="log-snr"),
    "srk srk2m, log-snr": ours("srk2m", grid="log-snr"),
}


def main() -> None:
    floor = np.mean([error(TARGET.sample(SAMPLES, seed=seed)) for seed in range(SEEDS)])
    print("# Schedulers of diffusers and of srk\n")
    print(
        "Made by `python examples/diffusers_pipeline.py`, CPU. Wasserstein-1 distance of "
        "the first coordinate to its exact distribution,"
    )
    print(
        f"{SAMPLES} samples, mean of {SEEDS} seeds; exact samples have {floor:.4f}. "
        '`timestep_spacing` is "leading" except for log-snr.\n'
    )
    print("| scheduler | " + " | ".join(f"NFE {nfe}" for nfe in NFE) + " |")
    print("|---|" + "---:|" * len(NFE))
    for name, make in SCHEDULERS.items():
        cells = []
        for nfe in NFE:
            cells.append(
                f"{np.mean([error(pipeline(make(), nfe, seed)) for seed in range(SEEDS)]):.4f}"
            )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
