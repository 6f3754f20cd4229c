"""The solvers of srk in ComfyUI. Copy this file to ComfyUI/custom_nodes/ and start ComfyUI again.

ComfyUI's Python needs srk: `pip install srk`. What the nodes do stands in `srk.ecosystem.comfyui`.
"""

from srk.ecosystem.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, register

register()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
