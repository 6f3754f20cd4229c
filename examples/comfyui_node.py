"""A ComfyUI custom node: the solvers of srk as samplers.

Installation: `pip install srk` into ComfyUI's Python, copy this file to ComfyUI/custom_nodes/,
    start ComfyUI again. Then

- the node "srk sampler" (sampling/custom_sampling/samplers) gives a SAMPLER for SamplerCustom and
SamplerCustomAdvanced, with a choice of all
  solvers, eta and s_noise;
- the house solvers (srk2, srk2m, ...) are in the sampler list of KSampler and of KSamplerSelect.

The seed is the node's own: noise comes from a generator of the seed that ComfyUI passes on in
`extra_args`. Models of rectified flow (SD3, Flux and their kin) are run in their own frame, x = (1
- sigma) x0 + sigma eps; all others in that of k-diffusion.

ComfyUI looks samplers up as functions `sample_NAME` in `comfy.k_diffusion.sampling` and lists the
names in `comfy.samplers.KSampler.SAMPLERS`, the same two places that other packages of samplers
use."""

from __future__ import annotations

import inspect
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from comfy.k_diffusion import sampling

import srk
from srk.ecosystem import k_diffusion

#: Name in the sampler lists, and solver
LISTED = {
    "srk1": "srk1",
    "srk2": "srk2",
    "srk2m": "srk2m",
    "srk2m_local": "srk2m-local",
    "srk_auto": "auto",
}


def is_flow(model: Any) -> bool:
    """Whether ComfyUI's model runs in the frame of rectified flow."""
    return isinstance(model.inner_model.inner_model.model_sampling, comfy.model_sampling.CONST)


def make(name: str) -> Any:
    """The solver `name` as a function that ComfyUI can call."""
    by_frame = {
        flow: k_diffusion.sampler(name, frame="flow" if flow else "edm") for flow in (False, True)
    }
    takes_noise = "noise_sampler" in inspect.signature(by_frame[False]).parameters

    def sample(
        model: Any,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
        **options: Any,
    ) -> Any:
        if not takes_noise:
            options = {}  # a method of the ODE: eta and s_noise mean nothing to it
        elif options.get("noise_sampler") is None:
            # one off, as in ComfyUI, so that the steps do not repeat the draws of the initial state
            # on the same device
            seed = ((extra_args or {}).get("seed") or 0) + 1
            generator = torch.Generator(x.device).manual_seed(seed % 2**64)
            options["noise_sampler"] = lambda sigma, sigma_next: torch.randn(
                x.shape, dtype=x.dtype, device=x.device, generator=generator
            )
        return by_frame[is_flow(model)](model, x, sigmas, extra_args, callback, disable, **options)

    return sample


class SRKSampler:
    """The node: a solver by name, with its eta."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"
    CATEGORY = "sampling/custom_sampling/samplers"
    DESCRIPTION = (
        "A solver of srk. eta: 1 is the reverse SDE, 0 the probability-flow ODE; methods of "
        "the ODE alone do not look at it."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "solver": (list(srk.solvers()), {"default": "srk2m"}),
                "eta": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
                "s_noise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.01}),
            }
        }

    def get_sampler(self, solver: str, eta: float, s_noise: float) -> tuple[Any]:
        return (comfy.samplers.KSAMPLER(make(solver), {"eta": eta, "s_noise": s_noise}),)


for _name, _solver in LISTED.items():
    setattr(sampling, f"sample_{_name}", make(_solver))
    if _name not in comfy.samplers.KSampler.SAMPLERS:
        comfy.samplers.KSampler.SAMPLERS.append(_name)

NODE_CLASS_MAPPINGS = {"SRKSampler": SRKSampler}
NODE_DISPLAY_NAME_MAPPINGS = {"SRKSampler": "srk sampler"}
