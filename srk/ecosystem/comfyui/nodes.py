"""The nodes: a solver as a SAMPLER, and a grid as SIGMAS."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

import srk
from srk.ecosystem import k_diffusion
from srk.ecosystem.comfyui.samplers import samplers
from srk.errors import ArgumentError
from srk.processes import EDM, Flow, LinearProcess
from srk.steps import RunInfo, as_grid
from srk.steps.grids import Gauge

#: The grids of the node; "gauge" looks at data_variance, "budget" at the profile.
GRIDS = ("log-snr", "karras", "uniform", "quadratic", "gauge", "budget")


class SRKSampler:
    """A solver by name, with its stochasticity, its noise and where it calls the model.

    The inputs are those of `srk.ecosystem.k_diffusion.sampler`. With "brownian" noise the same seed
    gives nearly the same picture at another number of steps. `profile` is the path of a file that
    `srk calibrate` wrote for the model.
    """

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("SAMPLER",)
    FUNCTION = "get_sampler"
    CATEGORY = "sampling/custom_sampling/samplers"
    DESCRIPTION = (
        "A solver of srk. eta: 1 is the reverse SDE, 0 the probability-flow ODE; solvers that are "
        "defined for one eta do not look at it. noise: brownian keeps the picture when the number "
        "of steps changes. calls: schedule calls the model at the sigmas and nowhere else."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs of the node, as ComfyUI asks for them."""
        return {
            "required": {
                "solver": (list(srk.solvers()), {"default": "auto"}),
                "eta": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.01}),
                "s_noise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.01}),
            },
            "optional": {
                "noise": (["brownian", "generator", "keyed"], {"default": "brownian"}),
                "calls": (["default", "schedule", "free"], {"default": "default"}),
                "profile": ("STRING", {"default": ""}),
            },
        }

    def get_sampler(
        self,
        solver: str,
        eta: float = 1.0,
        s_noise: float = 1.0,
        noise: k_diffusion.NoiseName = "brownian",
        calls: str = "default",
        profile: str = "",
    ) -> tuple[Any]:
        """The SAMPLER; the inputs are those of the node."""
        where: Any = None if calls == "default" else calls
        function = k_diffusion.sampler(solver, calls=where, noise=noise, profile=profile or None)
        low, high = srk.solvers()[solver].eta_range
        if high == 0.0:
            options = {}
        else:
            options = {"eta": low if low == high else eta, "s_noise": s_noise}
        return (samplers().KSAMPLER(function, options),)


class SRKSigmas:
    """The noise levels of a grid of srk, for the range of a model.

    ComfyUI's schedules end with 0, so that `steps` steps have `steps` levels above it.
    """

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("SIGMAS",)
    FUNCTION = "get_sigmas"
    CATEGORY = "sampling/custom_sampling/schedulers"
    DESCRIPTION = (
        "The grids of srk as sigmas. log-snr: equal steps in log signal-to-noise ratio. gauge: few "
        "steps where the data looks Gaussian; data_variance is then its largest variance. budget: "
        "where a profile (srk calibrate) says that they help; eta is then that of the sampler."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs of the node, as ComfyUI asks for them."""
        return {
            "required": {
                "model": ("MODEL",),
                "grid": (list(GRIDS), {"default": "log-snr"}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            },
            "optional": {
                "data_variance": ("FLOAT", {"default": 1.0, "min": 1e-4, "max": 1e4, "step": 1e-4}),
                "profile": ("STRING", {"default": ""}),
                "eta": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.01}),
            },
        }

    def get_sigmas(
        self,
        model: Any,
        grid: str,
        steps: int,
        denoise: float = 1.0,
        data_variance: float = 1.0,
        profile: str = "",
        eta: float = 1.0,
    ) -> tuple[torch.Tensor]:
        """The SIGMAS; the inputs are those of the node."""
        if denoise <= 0.0:
            return (torch.FloatTensor([]),)
        if grid not in GRIDS:
            raise ArgumentError(f"grid is one of {', '.join(GRIDS)}, not {grid!r}")
        total = max(steps, int(steps / denoise))
        sampling = model.get_model_object("model_sampling")
        lowest, highest = float(sampling.sigma_min), float(sampling.sigma_max)
        process: LinearProcess
        if k_diffusion.frame_of(sampling) == "flow":
            process = Flow(lowest, min(highest, 1.0))
        else:
            process = EDM(lowest, highest)
        if grid == "budget":
            sigmas = k_diffusion.sigmas_of(
                profile,
                total,
                frame="flow" if isinstance(process, Flow) else "edm",
                sigma_min=process.t_min,
                sigma_max=process.t_max,
                eta=eta,
            )
            return (sigmas[-(steps + 1) :],)
        levels = [process.t_max]
        if total > 1:
            chosen = Gauge(data_variance=data_variance) if grid == "gauge" else as_grid(grid)
            levels = chosen.times(RunInfo(process, None, total - 1))
        return (torch.tensor([*levels, 0.0], dtype=torch.float32)[-(steps + 1) :],)


NODE_CLASS_MAPPINGS = {"SRKSampler": SRKSampler, "SRKSigmas": SRKSigmas}
NODE_DISPLAY_NAME_MAPPINGS = {"SRKSampler": "srk sampler", "SRKSigmas": "srk sigmas"}
