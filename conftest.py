"""Which modules the doctests leave out.

Those that need an optional package that is not installed.
"""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("diffusers") else ["srk/ecosystem/diffusers/*"]
for package in ("azula", "sbi"):
    if not find_spec(package):
        collect_ignore_glob.append(f"srk/ecosystem/{package}.py")
if not find_spec("triton"):
    collect_ignore_glob.append("srk/noise/philox_triton.py")
# What ComfyUI loads: it imports nothing that a test could look at without ComfyUI.
collect_ignore_glob.append("srk/ecosystem/comfyui/custom_nodes/*")
