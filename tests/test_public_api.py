"""The public API, its reference and the pages agree."""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest
from repository import script

import srk

ROOT = Path(__file__).parents[1]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DIRECTIVE = re.compile(r"^::: (srk[\w.]*)$", re.MULTILINE)
NEEDS = {
    "srk.ecosystem.azula": "azula",
    "srk.ecosystem.diffusers": "diffusers",
    "srk.ecosystem.sbi": "sbi",
    "srk.from_": "diffusers",
}
"""Names that need an optional package, and which."""
OPTIONAL = tuple(NEEDS)


def public(module: ModuleType) -> dict[str, object]:
    """What the reference shows of a module: `__all__`, or what it defines itself."""
    own = {
        n: v
        for n, v in vars(module).items()
        if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
    }
    names = getattr(module, "__all__", own)
    return {name: getattr(module, name) for name in names}


def directives() -> list[str]:
    return [
        name for page in REFERENCE for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    ]


def documented() -> list[object]:
    found: list[object] = []
    for name in directives():
        if name.startswith(OPTIONAL):
            continue
        thing = resolve_name(name)
        found += [thing, *(public(thing).values() if isinstance(thing, ModuleType) else ())]
    return found


@pytest.mark.parametrize("name", sorted(set(srk.__all__) - {"__version__"}))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    thing = getattr(srk, name)
    assert any(thing is other for other in documented())
    assert inspect.getdoc(thing)


def test_all_is_sorted_complete_and_importable() -> None:
    assert len(set(srk.__all__)) == len(srk.__all__)
    mine = {
        name
        for name, value in vars(srk).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("srk")
    }
    internal = {"Registry", "callable_package"}
    assert mine - internal <= set(srk.__all__), "reachable as srk.NAME, but not public"


def test_rooms_document_what_they_export() -> None:
    for name in directives():
        package = next((NEEDS[start] for start in NEEDS if name.startswith(start)), None)
        if package is not None and find_spec(package) is None:
            continue
        thing = resolve_name(name)
        assert inspect.getdoc(thing), name
        if isinstance(thing, ModuleType):
            for key, value in public(thing).items():
                if inspect.isclass(value) or inspect.isfunction(value):
                    assert inspect.getdoc(value), f"{name}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`\n]+)`", text)
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {
        name
        for code in [*inline, *blocks]
        for name in re.findall(r"(?<![\w./\"'-])srk(?:\.[A-Za-z_]\w*)+", code)
    }
    missing = []
    for name in sorted(names):
        if name.endswith((".py", ".json", ".bib", ".md")) or name.startswith(OPTIONAL):
            continue
        try:
            resolve_name(name)
        except (AttributeError, ImportError):
            missing.append(name)
    assert not missing


def test_the_page_of_solvers_is_up_to_date() -> None:
    module = script("benchmarks/solvers_page.py")
    assert (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8") == module.page(), (
        "run python benchmarks/solvers_page.py"
    )
