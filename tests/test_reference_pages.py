"""What the API reference shows: signatures of attrs classes, and whole first sentences."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import attrs
import pytest

import srk

griffe = pytest.importorskip("griffe")
DOCS = Path(__file__).parents[1] / "docs"


def extension(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def package() -> Any:
    extensions = griffe.Extensions(
        extension("attrs_signatures").AttrsSignatures(),
        extension("docstring_summaries").Summaries(),
    )
    return griffe.load("srk", search_paths=[DOCS.parent], extensions=extensions)


def attrs_classes() -> list[type]:
    named = [
        *(getattr(srk, name) for name in srk.__all__),
        *(type(solver) for solver in srk.solvers().values()),
        srk.steps.Restart,
        srk.steps.RePaint,
        srk.steps.Rising,
    ]
    found = {cls for cls in named if inspect.isclass(cls) and attrs.has(cls)}
    return sorted(found, key=lambda cls: cls.__qualname__)


@pytest.mark.parametrize("cls", attrs_classes(), ids=lambda cls: cls.__qualname__)
def test_the_signature_of_an_attrs_class_is_the_one_it_has(cls: type, package: Any) -> None:
    shown = package[f"{cls.__module__}.{cls.__qualname__}".removeprefix("srk.")]
    parameters = list(shown.all_members["__init__"].parameters)[1:]
    real = [p for p in inspect.signature(cls).parameters.values() if not p.name.startswith("_")]

    def positional(names: list[tuple[str, str]]) -> list[str]:
        return [name for name, kind in names if kind != "keyword-only"]

    here = [(p.name, p.kind.value) for p in parameters]
    there = [(p.name, p.kind.description.replace(" ", "-")) for p in real]
    here = [(name, kind.replace(" ", "-")) for name, kind in here]
    assert sorted(here) == sorted(there)
    assert positional(here) == positional(there)  # the order of the others means nothing


def test_a_first_sentence_of_two_lines_is_one_in_the_summary() -> None:
    summarized = extension("docstring_summaries").summarized
    assert summarized("One sentence\nin two lines. Another.\n\nMore.") == (
        "One sentence in two lines.\nAnother.\n\nMore."
    )
    assert summarized("Whole.\nAnother.") == "Whole.\nAnother."
    assert summarized("A list:\n- one\n- two") == "A list:\n- one\n- two"
    assert summarized("w = eps: D\nfollows. More.") == "w = eps: D follows.\nMore."


def test_no_paragraph_of_a_docstring_is_taken_for_a_box(package: Any) -> None:
    """`Source: ...` with its next line indented is an admonition to readers of docstrings."""

    def boxes(scope: Any) -> list[str]:
        found = []
        for name, member in scope.members.items():
            if member.is_alias or name.startswith("_"):
                continue
            if member.docstring:
                sections = member.docstring.parse("google", warnings=False)
                found += [member.path for section in sections if section.kind.value == "admonition"]
            if member.is_module or member.is_class:
                found += boxes(member)
        return found

    assert boxes(package) == []
