"""The solvers of srk in the sampler list of A1111's webui and of Forge.

`register()` in an extension's script adds them; docs (In k-diffusion, ComfyUI and A1111) has the
three lines of such an extension.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import srk
from srk.ecosystem import k_diffusion

#: Label in the list of samplers, and solver.
LISTED = {
    "SRK auto": "auto",
    "SRK2": "srk2",
    "SRK2M": "srk2m",
    "SRK2M local": "srk2m-local",
    "SRK1": "srk1",
    "SRK WCW": "wcw",
}


def register() -> None:
    """Add the solvers of `LISTED` to the webui's list; a second call changes nothing.

    The samplers take the frame from the model, so that one entry serves SD, SDXL, SD3 and Flux.
    They get the webui's own Brownian noise, which gives each picture of a batch its own seed. Where
    the webui has switched that off, they draw from torch's global generator.
    """
    samplers: Any = importlib.import_module("modules.sd_samplers")
    common = importlib.import_module("modules.sd_samplers_common")
    known = {entry.name for entry in samplers.all_samplers}
    for label, solver in LISTED.items():
        if label in known:
            continue
        options: dict[str, Any] = {"brownian_noise": True}
        if solver == "wcw":
            options["second_order"] = True  # two calls a step, for the progress bar
        name = "srk_" + solver.replace("-", "_")
        samplers.all_samplers.append(
            common.SamplerData(label, _constructor(solver), [name], options)
        )
    samplers.all_samplers_map = {entry.name: entry for entry in samplers.all_samplers}
    samplers.set_samplers()


def _constructor(solver: str) -> Callable[[Any], Any]:
    function = k_diffusion.sampler(srk.solvers()[solver])

    def construct(model: Any) -> Any:
        webui = importlib.import_module("modules.sd_samplers_kdiffusion")
        return webui.KDiffusionSampler(function, model)

    return construct
