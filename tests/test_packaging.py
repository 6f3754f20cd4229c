"""What pyproject.toml declares: floors that are tested, pins that fit, one set of requirements."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(extra: str | None = None) -> dict[str, str]:
    """Package -> specifiers of the package itself, or of an extra with the extras it names."""
    listed = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found: dict[str, str] = {}
    for line in listed:
        name, extras, specifiers = re.fullmatch(
            r"([A-Za-z0-9_.-]+)(?:\[([^]]*)\])?([^;]*)(?:;.*)?", line
        ).groups()
        if name == "srk":
            for inner in extras.split(","):
                found |= requirements(inner)
        else:
            found[name.lower()] = specifiers
    return found


def pins(file: str) -> dict[str, str]:
    """Package -> version of a constraints file."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    kept = [line.split("#")[0].strip() for line in lines]
    return {name.lower(): version for name, version in (line.split("==") for line in kept if line)}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split(".post")[0]))


def floor(specifiers: str) -> str:
    return re.search(r">=([0-9.]+)", specifiers).group(1)


def test_the_lowest_versions_are_those_that_ci_installs() -> None:
    """Every floor of what the tests need is a pin of constraints-lowest.txt, and no other."""
    needed, lowest = requirements() | requirements("test"), pins("constraints-lowest.txt")
    assert set(needed) == set(lowest)
    for name, specifiers in needed.items():
        assert version(lowest[name])[: len(version(floor(specifiers)))] == version(
            floor(specifiers)
        ), f"{name}{specifiers} is declared, but {lowest[name]} is tested"


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_every_requirement_has_a_floor_that_its_pin_satisfies(extra: str) -> None:
    pinned = pins("constraints.txt")
    for name, specifiers in (requirements() | requirements(extra)).items():
        assert name.split("[")[0] in pinned, f"{name} has no pin in constraints.txt"
        assert version(pinned[name.split("[")[0]]) >= version(floor(specifiers))


def test_no_line_is_longer_than_100_columns() -> None:
    """The linter does not count a comment such as `# type: ignore` at the end of a line."""
    folders = ("srk", "tests", "benchmarks", "examples", "docs")
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert not long
