"""Each page of a field begins with a complete program of at most 25 lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "fields").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("global_rng_untouched", "registries_restored")
def test_the_first_program_is_complete_and_short(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = BLOCK.search(page.read_text(encoding="utf-8"))
    assert found is not None
    program = found[1]
    assert len(program.splitlines()) <= 25
    assert re.search(r"srk\.(solve|Sampler)\(", program)
    exec(compile(program, str(page), "exec"), {"__name__": "__main__"})


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"(fields/{page.name})" in index
        assert f"fields/{page.name}" in navigation
