"""The command line: what it prints, at 80 columns."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

import srk
from srk import cli
from srk.cli.lists import registry_lines
from srk.errors import ArgumentError
from srk.registry import Registry


def run(*arguments: str, width: int = 80) -> str:
    result = CliRunner(env={"COLUMNS": str(width), "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, arguments
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_version() -> None:
    assert run("--version").strip() == f"srk {srk.__version__}"


@pytest.mark.parametrize("command", ["solvers", "processes", "tableaus", "controllers"])
def test_tables_show_every_name_whole_within_80_columns(command: str) -> None:
    output = run(command)
    registry = getattr(srk, command)()
    first_words = {line.split()[0] for line in output.splitlines() if line.split()}
    assert set(registry) <= first_words
    assert max(map(len, output.splitlines())) <= 80


def test_cells_are_text_not_markup() -> None:
    registry: Registry[str] = Registry(
        "thing",
        {
            "range": lambda name, entry: entry,
            "words": lambda name, entry: f"a cell of words with {entry}",
        },
    )
    registry.register("a", "[0, 1]")
    registry.register("b", "[bold]")
    console = Console(width=80)
    with console.capture() as capture:
        console.print(registry_lines(registry))
    assert capture.get().count("[0, 1]") == 2
    assert capture.get().count("[bold]") == 2


def test_our_errors_are_a_message_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ArgumentError("steps must be in [1, 1000], not 0")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.strip() == "error: steps must be in [1, 1000], not 0"


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setitem(
        sys.modules, "srk.demo", SimpleNamespace(main=lambda **options: seen.update(options))
    )
    run("demo", "--out", str(tmp_path), "--seed", "7", "--nfe", "8", "--nfe", "16")
    assert seen == {"out": tmp_path, "seed": 7, "nfe": [8, 16]}
    run("demo", "--out", str(tmp_path))
    assert seen == {"out": tmp_path, "seed": 0, "nfe": [10, 20, 50]}
