"""The solvers of srk in ComfyUI: nodes, and entries in the lists of samplers.

`install` copies one small file into `ComfyUI/custom_nodes`; ComfyUI then has

- the node "srk sampler" (sampling/custom_sampling/samplers), with all solvers;
- the node "srk sigmas" (sampling/custom_sampling/schedulers), with the grids of srk;
- the solvers of `LISTED` in the sampler list of KSampler and of KSamplerSelect.

Nothing here imports ComfyUI before `register` or a node is used, and nothing is copied from it.
"""

from srk.ecosystem.comfyui.installing import install
from srk.ecosystem.comfyui.nodes import (
    NODE_CLASS_MAPPINGS,
    NODE_DISPLAY_NAME_MAPPINGS,
    SRKSampler,
    SRKSigmas,
)
from srk.ecosystem.comfyui.samplers import LISTED, register

__all__ = [
    "LISTED",
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "SRKSampler",
    "SRKSigmas",
    "install",
    "register",
]
