"""Links between the pages, and their anchors, exist.

Every page is in the navigation. (Addresses elsewhere are not asked for.)
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")


def slug(heading: str) -> str:
    """The anchor that Python-Markdown gives a heading."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(page: Path) -> set[str]:
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    found = {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)} | set(
        re.findall(r'id="([^"]+)"', text)
    )
    return found | set(re.findall(r"\{ ?#([\w-]+)", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links(page: Path) -> None:
    broken = []
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor.startswith("srk."):
            if not anchor.startswith("srk.ecosystem.diffusers"):
                resolve_name(anchor)
        elif anchor and anchor not in anchors(file):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_navigation_once() -> None:
    nav = (
        (ROOT / "mkdocs.yml")
        .read_text(encoding="utf-8")
        .partition("\nnav:")[2]
        .partition("\nplugins:")[0]
    )
    listed = re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_include_exist(page: Path) -> None:
    """An include is --8<-- and a path; ruff once took one for Python and spaced it out."""
    text = page.read_text(encoding="utf-8")
    assert "--8 <" not in text
    for path in re.findall(r'^--8<-- "([^":]+)', text, re.MULTILINE):
        assert (ROOT / path).is_file()
