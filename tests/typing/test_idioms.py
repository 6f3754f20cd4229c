"""What the documentation shows passes strict type checkers, and the names they see are there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import srk
from srk import _tables

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def check(*command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_accepts_the_idioms(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    # an installed package is not checked itself, and neither is srk here
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\n[mypy-srk.*]\nfollow_imports = silent\n")
    options = ["--strict", "--config-file", str(settings), "--cache-dir", str(tmp_path)]
    check("mypy", *options, str(HERE / "idioms.py"))


@pytest.mark.slow
def test_pyright_accepts_the_idioms() -> None:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    check("pyright", "--pythonpath", sys.executable, str(HERE / "idioms.py"))


@pytest.mark.parametrize("name", ["processes", "noise", "tableaus"])
def test_checkers_see_all_that_a_package_has(name: str) -> None:
    package, seen = getattr(srk, name), getattr(_tables, name)
    for public in package.__all__:
        assert getattr(seen, public) is getattr(package, public), public
    assert isinstance(package(), srk.registry.Registry)
    extra = {n for n in vars(seen) if not n.startswith("_")} - set(package.__all__)
    assert not extra


@pytest.mark.usefixtures("registries_restored")
def test_the_idioms_run() -> None:
    exec(compile((HERE / "idioms.py").read_text("utf-8"), "idioms.py", "exec"), {})
