"""The command line: what it prints, at 80 columns."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import srk
from srk import cli
from srk.cli.lists import registry_lines
from srk.errors import ArgumentError, SRKError
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
    monkeypatch.setattr(cli.demo, "main", lambda **options: seen.update(options))
    run("demo", "--out", str(tmp_path), "--seed", "7", "--nfe", "8", "--nfe", "16")
    samples = cli.demo.SAMPLES
    assert seen == {"out": tmp_path, "seed": 7, "nfe": [8, 16], "samples": samples}
    run("demo", "--out", str(tmp_path))
    assert seen == {"out": tmp_path, "seed": 0, "nfe": [10, 20, 50], "samples": samples}
    run("demo", "--out", str(tmp_path), "--fast")
    few = cli.demo.FAST_SAMPLES
    assert seen == {"out": tmp_path, "seed": 0, "nfe": [10], "samples": few}


MINE = """
import srk

@srk.register_solver
class Mine(type(srk.solvers()["ddpm"])):
    name = "my-ddpm"

srk.register_tableau(srk.tableaus.StochasticTableau.from_wh(
    "my-tableau", [1], [[0]], [0], ["1/2"], [1], strong_order=1, weak_order=1))
"""


@pytest.mark.usefixtures("registries_restored")
def test_modules_of_the_user_are_imported_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their solvers and tableaus have names in every command."""
    (tmp_path / "srk_cli_mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("srk_cli_mine", None)
    assert "my-ddpm" in run("solvers", "--import", "srk_cli_mine")
    assert "my-tableau" in run("tableaus", "--import", "srk_cli_mine")
    out = run(
        *("sample", "--import", "srk_cli_mine", "--target", "mixture", "-n", "2", "--nfe", "4"),
        *("--solver", "my-ddpm", "--out", "set"),
    )
    assert "(2 drawn now)" in out
    for command in cli.app.registered_commands:
        assert "--import" in run(command.name or command.callback.__name__, "--help")


def test_a_module_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "srk_cli_broken.py").write_text("1 / 0")
    for name, message in (
        ("srk_cli_missing", "--import srk_cli_missing: No module named"),
        ("srk_cli_broken", "--import srk_cli_broken failed with ZeroDivisionError"),
    ):
        result = CliRunner().invoke(cli.app, ["solvers", "--import", name])
        assert isinstance(result.exception, ArgumentError) and message in str(result.exception)


def test_help_of_every_command_fits_into_80_columns() -> None:
    for command in cli.app.registered_commands:
        text = run(command.name or command.callback.__name__, "--help")
        assert max(map(len, text.splitlines())) <= 80


def test_find_names_a_sampler_of_another_program() -> None:
    found = run("find", "DPM++ 2M Karras", width=120)
    assert "srk.solve(process, score, solver='dpmpp-2m', grid='karras', ...)" in found
    assert "srk sample --solver dpmpp-2m --grid karras ..." in found
    assert "eta=0.0" in (euler := run("find", "EulerDiscreteScheduler")) and "--eta 0.0" in euler


def test_the_shell_is_offered_names() -> None:
    from srk.cli.command import names_of

    assert names_of("solvers")("srk2m") == ["srk2m", "srk2m-local"]
    assert "vp" in names_of("processes")("") and "log-snr" in names_of("controllers")("log")


def test_a_missing_name_is_told_in_commands() -> None:
    from srk.cli.command import in_words_of
    from srk.errors import UnknownNameError

    said = in_words_of(str(UnknownNameError("solver", "srk9", srk.solvers(), "srk.solvers()")), [])
    assert "`srk solvers` lists all" in said


def test_help_of_a_command_flows_at_the_width_of_the_terminal() -> None:
    """A line of a docstring ends where the source does, not where the terminal's line does."""
    for command in cli.app.registered_commands:
        assert command.callback is not None
        for paragraph in (command.callback.__doc__ or "").split("\n\n"):
            assert "\n" not in paragraph


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sample", "--process-args", "{beta", "--target", "digits"), "'{\"beta_max\": 15}'"),
        (("sample", "--steps", "9", "--nfe", "8", "--target", "mixture"), "--steps 9 and --nfe 8"),
        (("sample", "--profile", "none.json", "--target", "mixture"), "none.json"),
        (("compare", "--nfe", "0,8", "--target", "mixture"), "--nfe must be"),
        (("compare", "--nfe", "1,2", "--target", "mixture", "--solvers", "srk2"), "3 calls"),
        (("cite", "nothing"), "`srk solvers`, `srk tableaus` and `srk processes` list all"),
    ],
)
def test_slips_are_answered_in_the_words_that_were_typed(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ("--out", "out") if arguments[0] in ("sample", "compare") else ()
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli.app, [*arguments, *out])
    assert isinstance(result.exception, SRKError)
    assert told in str(result.exception)
    assert not any(word in str(result.exception) for word in ("nfe is", "the network raised"))


PAGE = Path(srk.__file__).parents[1] / "docs" / "cli.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are not in an installed package")
def test_the_page_shows_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    text = PAGE.read_text(encoding="utf-8")
    network, *blocks = re.findall(r"^```(?:python|console)\n(.*?)^```", text, re.S | re.M)
    Path("mine.py").write_text(network)
    told = 0
    for block in blocks:
        for command in re.split(r"^\$ srk ", block, flags=re.M)[1:]:
            line, _, printed = command.partition("\n")
            monkeypatch.setattr(sys, "argv", ["srk", *shlex.split(line)])
            with pytest.raises(SystemExit):
                cli.main()
            said = capsys.readouterr()
            assert said.out + said.err == printed
            told += 1
    assert told == 5
    monkeypatch.delitem(sys.modules, "mine", raising=False)
