"""The code blocks of README and docs run: those of a page in order, in one namespace.

A block right after a comment <!-- not run: why --> is left out, and so is one that imports
diffusers where that is not installed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?<!-->\n)^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("global_rng_untouched", "registries_restored")
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if "from diffusers import" in block[1] and not importlib.util.find_spec("diffusers"):
            continue
        line = text.count("\n", 0, block.start(1))
        # Blank lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * line + block[1], str(page), "exec"), namespace)
