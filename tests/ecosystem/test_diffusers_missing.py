"""diffusers is optional: srk never imports it by itself, and says how to install it where it is
needed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import srk
from srk.errors import MissingExtraError


@pytest.mark.parametrize("name", ["from_diffusers", "from_pipeline"])
def test_the_error_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [
        module
        for module in sys.modules
        if module.split(".")[0] == "diffusers" or module.startswith("srk.ecosystem")
    ]:
        monkeypatch.delitem(sys.modules, module)
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    monkeypatch.setitem(modules, "diffusers", None)  # makes the import fail
    monkeypatch.delattr("srk.ecosystem", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'srk\[diffusers\]'"):
        getattr(srk, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="from_diffuser"):
        srk.from_diffuser  # noqa: B018  # type: ignore[attr-defined]


def test_importing_srk_imports_no_diffusers() -> None:
    code = (
        "import sys, srk; heavy = ('diffusers', 'transformers'); "
        "sys.exit(any(name.split('.')[0] in heavy for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
