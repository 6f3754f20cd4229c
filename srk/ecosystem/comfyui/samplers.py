"""Solvers as functions that ComfyUI finds by name."""

from __future__ import annotations

import importlib
from typing import Any

from srk.ecosystem import k_diffusion

#: Name in ComfyUI's sampler lists, and solver. Names that ComfyUI may use itself begin with srk.
LISTED = {
    "srk1": "srk1",
    "srk2": "srk2",
    "srk2m": "srk2m",
    "srk2m_local": "srk2m-local",
    "srk_auto": "auto",
    "srk_ddpm": "ddpm",
    "srk_etd_sra1": "etd-sra1",
    "srk_wcw": "wcw",
}


def register() -> None:
    """Add the solvers of `LISTED` to ComfyUI's lists; a second call changes nothing.

    ComfyUI looks a sampler up as the function `sample_NAME` in `comfy.k_diffusion.sampling` and
    lists the names in `comfy.samplers.KSampler.SAMPLERS`, which other packages of samplers do too.
    """
    sampling = importlib.import_module("comfy.k_diffusion.sampling")
    names: list[str] = importlib.import_module("comfy.samplers").KSampler.SAMPLERS
    for name, solver in LISTED.items():
        made = k_diffusion.sampler(solver, noise="brownian")
        made.__name__ = made.__qualname__ = f"sample_{name}"
        setattr(sampling, f"sample_{name}", made)
        if name not in names:
            names.append(name)


def samplers() -> Any:
    """ComfyUI's module `comfy.samplers`."""
    return importlib.import_module("comfy.samplers")
