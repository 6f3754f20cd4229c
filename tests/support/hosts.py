"""Stand-ins for the hosts of k-diffusion samplers: the parts of their contracts that we rely on.

Written from what the hosts do, with an exact denoiser in place of a network. `benchmarks/hosts.py`
runs the same checks inside a real ComfyUI.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.processes import Level

#: Two broad modes, of standard deviation 1.044.
DATA = srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.3, 0.3])
SHAPE = (16, 4, 8, 8)


def denoiser(x: Tensor, sigma: float, flow: bool) -> Tensor:
    """The exact denoised prediction, each pixel on its own."""
    alpha = 1.0 - sigma if flow else 1.0
    level = Level(sigma, alpha, sigma, math.log(alpha / sigma) if alpha > 0 else -math.inf)
    return DATA.denoise(x.double().reshape(-1, 1), level).reshape(x.shape).to(x)


class Sampling:
    """What hosts call `model_sampling` (ComfyUI) or `predictor` (Forge)."""

    def __init__(self, kind: str, shift: float = 3.0) -> None:
        self.kind, self.flow = kind, kind == "flow"
        if self.flow:
            t = torch.arange(1, 1001) / 1000
            self.sigmas = shift * t / (1 + (shift - 1) * t)
        else:
            betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
            bars = torch.cumprod(1 - betas, 0)
            if kind == "zero-snr":
                roots = bars.sqrt()
                bars = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
                bars[-1] = 4.8973451890853435e-08
            self.sigmas = ((1 - bars) / bars).sqrt().float()
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def noise_scaling(
        self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool = False
    ) -> Tensor:
        return sigma * noise + ((1.0 - sigma) if self.flow else 1.0) * latent

    def simple(self, steps: int) -> Tensor:
        """Every so many-th of the model's sigmas, then 0."""
        picked = [float(self.sigmas[-(1 + int(i * 1000 / steps))]) for i in range(steps)]
        return torch.tensor([*picked, 0.0])

    def karras(self, steps: int) -> Tensor:
        low, high = float(self.sigma_min) ** (1 / 7), min(float(self.sigma_max), 1e4) ** (1 / 7)
        levels = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
        levels[0] = float(self.sigma_max)
        return torch.tensor([*levels, 0.0], dtype=torch.float32)


class ComfyModel:
    """What ComfyUI hands to a sampler: the guider in a wrapper for masks."""

    def __init__(self, kind: str) -> None:
        base = types.SimpleNamespace(model_sampling=Sampling(kind))
        self.inner_model = types.SimpleNamespace(inner_model=base)
        self.sampling, self.seen = base.model_sampling, []
        self.latent: Tensor | None = None
        self.noise: Tensor | None = None
        self.watch: Callable[[Tensor], None] = lambda sigma: None

    def __call__(
        self, x: Tensor, sigma: Tensor, denoise_mask: Any = None, seed: Any = None
    ) -> Tensor:
        self.seen.append(sigma.clone())
        self.watch(sigma)
        if denoise_mask is not None:
            known = self.sampling.noise_scaling(sigma[0], self.noise, self.latent)
            x = x * denoise_mask + known * (1 - denoise_mask)
        out = denoiser(x, float(sigma[0]), self.sampling.flow)
        if denoise_mask is not None:
            out = out * denoise_mask + self.latent * (1 - denoise_mask)
        return out


class ForgeModel:
    """What Forge hands to a sampler: the guided denoiser, with the predictor inside."""

    def __init__(self, kind: str) -> None:
        self.sampling = Sampling(kind)
        self.inner_model = types.SimpleNamespace(
            predictor=self.sampling, inner_model=types.SimpleNamespace(is_sdxl=False)
        )

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, uncond: Any) -> Tensor:
        return denoiser(x, float(sigma[0]), self.sampling.flow)


class A1111Model:
    """What A1111 hands to a sampler; its SD3 keeps the sampling object further inside."""

    def __init__(self, kind: str) -> None:
        self.sampling = Sampling(kind)
        inner: Any = types.SimpleNamespace(sigmas=self.sampling.sigmas)
        if kind == "flow":
            inner.inner_model = types.SimpleNamespace(
                model=types.SimpleNamespace(model_sampling=self.sampling)
            )
        self.inner_model = inner

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, uncond: Any) -> Tensor:
        return denoiser(x, float(sigma[0]), self.sampling.flow)


def first_state(sampling: Sampling, sigmas: Tensor, seed: int = 0) -> Tensor:
    """Pure noise at the first sigma, as the hosts make it."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return sampling.noise_scaling(sigmas[0], noise, torch.zeros(SHAPE))


def comfyui(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Put in place the modules of ComfyUI that the node pack touches, with its interface."""
    comfy, samplers, kd, sampling = (
        types.ModuleType(name)
        for name in ("comfy", "comfy.samplers", "comfy.k_diffusion", "comfy.k_diffusion.sampling")
    )

    class KSAMPLER:
        def __init__(self, sampler_function: Any, extra_options: Any = None) -> None:
            self.sampler_function, self.extra_options = sampler_function, extra_options or {}

        def sample(
            self, model: ComfyModel, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor,
            latent: Tensor | None = None, denoise_mask: Tensor | None = None,
        ) -> Tensor:  # fmt: skip
            extra_args["denoise_mask"] = denoise_mask
            model.latent = torch.zeros_like(noise) if latent is None else latent
            model.noise = noise
            x = model.sampling.noise_scaling(sigmas[0], noise, model.latent)

            def k_callback(info: dict[str, Any]) -> None:
                callback(info["i"], info["denoised"], info["x"], len(sigmas) - 1)

            return self.sampler_function(
                model,
                x,
                sigmas,
                extra_args=extra_args,
                callback=None if callback is None else k_callback,
                disable=True,
                **self.extra_options,
            )

    samplers.KSAMPLER = KSAMPLER
    samplers.KSampler = type("KSampler", (), {"SAMPLERS": ["euler", "ddpm"]})
    comfy.samplers, comfy.k_diffusion, kd.sampling = samplers, kd, sampling
    for module in (comfy, samplers, kd, sampling):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return comfy
