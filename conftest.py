"""How the doctests run: which modules they leave out, and where they write.

Left out are those that need an optional package that is not installed.
"""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("diffusers") else ["srk/ecosystem/diffusers/*"]
for package in ("azula", "sbi"):
    if not find_spec(package):
        collect_ignore_glob.append(f"srk/ecosystem/{package}.py")
if not find_spec("triton"):
    collect_ignore_glob.append("srk/noise/philox_triton.py")
# What ComfyUI loads: it imports nothing that a test could look at without ComfyUI.
collect_ignore_glob.append("srk/ecosystem/comfyui/custom_nodes/*")


@pytest.fixture(autouse=True)
def _examples_write_elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A doctest that writes a file does so in a new folder, not in the repository."""
    if isinstance(request.node, pytest.DoctestItem):
        folder = tmp_path_factory.mktemp("example")
        request.getfixturevalue("monkeypatch").chdir(folder)
