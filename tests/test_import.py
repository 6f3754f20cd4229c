"""What importing the package takes: as little as was asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import srk

PACKAGE = Path(srk.__file__).parent


def alone(code: str) -> str:
    """What a new Python process prints."""
    made = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return made.stdout


def test_the_version_is_told_without_pytorch() -> None:
    told = alone(
        "import sys; sys.argv = ['srk', '--version']\n"
        "from srk.__main__ import main; main()\n"
        "print(sorted({'torch', 'numpy', 'typer', 'rich'} & set(sys.modules)))"
    )
    assert told.splitlines() == [f"srk {srk.__version__}", "[]"]


def test_a_package_is_loaded_when_it_is_asked_for() -> None:
    told = alone(
        "import sys, srk\n"
        "assert 'torch' not in sys.modules and 'solve' in dir(srk)\n"
        "for name in srk.__all__: getattr(srk, name)\n"
        "print(sorted({'scipy', 'rich', 'matplotlib', 'typer'} & set(sys.modules)))"
    )
    assert told.strip() == "[]"


def test_names_that_are_packages_are_found() -> None:
    assert srk.storage.SampleSet is srk.SampleSet
    assert srk.plans.plan.StepPlan
    for name in ("nothing", "_nothing", "solve_"):
        with pytest.raises(AttributeError, match=f"module 'srk' has no attribute '{name}'"):
            getattr(srk, name)


def test_checkers_are_told_where_the_names_are() -> None:
    """The imports that a type checker reads are those that happen at run time."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module not in ("srk", "srk.registry")
        for alias in node.names
        if node.module != "srk._tables"
    }
    assert told == srk._WHERE
    assert set(srk._WHERE) <= set(srk.__all__)


@pytest.mark.slow
def test_every_package_can_be_the_first() -> None:
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    alone(
        "import importlib, sys, torch\n"
        f"for name in {packages!r}:\n"
        "    for old in [m for m in sys.modules if m.split('.')[0] == 'srk']:\n"
        "        del sys.modules[old]\n"
        "    importlib.import_module('srk.' + name)"
    )
