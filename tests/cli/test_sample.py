"""`srk sample`: what it writes, what it refuses, what it resumes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from releases import needs_safe_torch
from typer.testing import CliRunner

import srk
from srk import cli
from srk._pictures import image_grid
from srk.errors import (
    ArgumentError,
    MissingExtraError,
)
from srk.targets.problems import named_problem

PROCESS = srk.VP()
TARGET = srk.targets.GaussianMixture([0.3, 0.7], [-1.0, 1.0], [0.2, 0.1])
MIXTURE = ("--target", "mixture", "-n", "10", "--batch", "4", "--nfe", "6")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `srk sample` in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, out: str | None = "out") -> tuple[int, str, str]:
        place = [] if out is None else ["--out", out]
        monkeypatch.setattr("sys.argv", ["srk", "sample", *place, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


Command = Callable[..., tuple[int, str, str]]


def test_the_command_writes_resumes_and_refuses(command: Command, tmp_path: Path) -> None:
    status, out, err = command(*MIXTURE)
    assert (status, err) == (0, "")
    assert out == "10 samples of shape (2,) in out (10 drawn now)\n"
    process, target = named_problem("vp", "mixture")
    whole = srk.solve(
        process,
        target.score(process),
        "auto",
        shape=10,
        nfe=6,
        seed=0,
        noise="keyed",
        microbatch=4,
    )
    assert torch.equal(srk.SampleSet.open(tmp_path / "out").load(), whole.x)
    complete = "10 samples of shape (2,) in out (complete already)\n"
    assert command(*MIXTURE) == (0, complete, "")
    status, out, err = command(*MIXTURE, "--seed", "1", "--nfe", "8")
    assert (status, out) == (1, "") and err.startswith(
        "error: 'out' holds a run with other settings (--nfe was 6, is 8; --seed was 0, is 1)"
    )
    (tmp_path / "out" / "samples" / "c" / "1" / "0").unlink()
    assert command("--status", "out", out=None)[1] == "6 of 10 samples of shape (2,) in out\n"


def test_conditions_and_a_name_for_the_network(command: Command, tmp_path: Path) -> None:
    """Labels from a file, a row for each sample; a network that counts its calls has a name."""
    (tmp_path / "srk_cli_networks.py").write_text(NETWORKS)
    sys.modules.pop("srk_cli_networks", None)
    np.savez(tmp_path / "labels.npz", label=np.arange(10.0))
    run = ("--model", "srk_cli_networks:labelled", "-n", "10", "--batch", "4", "--nfe", "4")
    run += ("--conditions", "labels.npz")
    assert command(*run, "--network-name", "a")[0] == 0
    x = srk.SampleSet.open(tmp_path / "out").load()
    torch.testing.assert_close(x, torch.arange(10.0)[:, None].expand(10, 2))
    assert command(*run, "--network-name", "a")[1].endswith("(complete already)\n")
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    status, _, err = command(*run, "--conditions", "bad.npz", out="other")
    assert status == 1 and "--conditions 'bad.npz' is not a readable .npz file" in err


def test_help_fits_into_80_columns() -> None:
    result = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, ["sample", "--help"]
    )
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    for option in ("--model-class", "--trust-pickle", "--num-timesteps", "--process-args"):
        assert option in result.output


@pytest.mark.parametrize("process", ["vp", "cld"])
def test_digits_have_a_picture(command: Command, tmp_path: Path, process: str) -> None:
    """Of a phase-space process, whose samples have velocities too, it shows the data."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("sklearn")
    status, _, err = command("--target", "digits", "-n", "5", "--nfe", "4", "--process", process)
    assert (status, err) == (0, "")
    assert names(tmp_path) == {"out", "out.png"}
    samples = srk.SampleSet.open(tmp_path / "out").load().numpy().reshape(5, -1, 8, 8)[:, 0]
    with image.open(tmp_path / "out.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 33 + 1, 3 * 33 + 1)  # two rows of three, four times as large
    fourth = pixels[34:66, 1:33]
    shades = np.rint((samples[3].clip(-1, 1) + 1) / 2 * 255).repeat(4, 0).repeat(4, 1)
    assert np.abs(fourth - shades).max() <= 1
    assert (pixels[34:66, 67:] == 255).all()  # no sixth image
    (tmp_path / "out.png").write_text("mine")
    again = command("--target", "digits", "-n", "5", "--nfe", "4", "--process", process)
    assert again[1].endswith("no picture: out.png is there already\n")
    assert (tmp_path / "out.png").read_text() == "mine"


def test_pictures_of_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    colours = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(70, 3, 40, 30)
    image_grid(colours, tmp_path / "grid.png", low=0.0, high=1.0)
    with image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (8 * 31 + 1, 8 * 41 + 1) and picture.getpixel((1, 1)) == (
            0,
            128,
            255,
        )
    for shape in ((4, 2), (4, 2, 8, 8), (4, 3, 4, 8, 8)):
        with pytest.raises(ArgumentError, match="are not images"):
            image_grid(torch.zeros(shape), tmp_path / "grid.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"srk\[plot\]"):
        image_grid(colours, tmp_path / "grid.png")


NETWORKS = """
import srk, torch
class Blur(torch.nn.Module):
    def __init__(self, channels, bias=True):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
    def forward(self, x, t):
        seen.append((x.dtype, t.tolist()[0]))
        return torch.tanh(self.conv(x))
seen = []
prediction = srk.Data(lambda x, t: 0 * x, event_shape=(2,))
def wrong(x, t): raise ValueError("no luck")
def label_of(x, t, label):
    seen.append(len(x))
    return label[:, None].float().expand_as(x)
labelled = srk.Data(label_of, event_shape=(2,))
"""


@needs_safe_torch
def test_weights_in_a_file_for_a_class_of_the_working_directory(
    command: Command, tmp_path: Path
) -> None:
    """Every option of the adapter reaches it; the samples are those of solve."""
    (tmp_path / "srk_cli_networks.py").write_text(NETWORKS)
    sys.modules.pop("srk_cli_networks", None)
    generator = torch.Generator().manual_seed(0)
    weights = {"conv.weight": 0.1 * torch.randn(3, 3, 3, 3, generator=generator)}
    torch.save({"ema": weights}, tmp_path / "weights.pt")
    arguments = [
        "--model",
        "weights.pt",
        "--model-key",
        "ema",
        "--model-class",
        "srk_cli_networks:Blur",
    ]
    arguments += [
        "--model-args",
        '{"channels": 3, "bias": false}',
        "--process",
        "flow",
        "--process-args",
        '{"t_max": 0.999}',
    ]
    arguments += [
        "--shape",
        "3,8,8",
        "-n",
        "3",
        "--batch",
        "2",
        "--steps",
        "5",
        "--solver",
        "ddpm",
        "--eta",
        "0.5",
        "--grid",
        "uniform",
    ]
    arguments += [
        "--prediction",
        "v",
        "--time",
        "index",
        "--num-timesteps",
        "100",
        "--time-scale",
        "0.5",
        "--input-scale",
        "vp",
    ]
    status, _, err = command(*arguments, "--network-dtype", "float64", "--dtype", "float32")
    assert (status, err) == (0, ""), err
    module = sys.modules["srk_cli_networks"]
    assert {dtype for dtype, _ in module.seen} == {torch.float64} and max(
        time for _, time in module.seen
    ) == pytest.approx(0.5 * 99 * 0.999)
    network = module.Blur(3, bias=False).double()
    network.load_state_dict(weights)
    prediction = srk.Velocity(
        network,
        time="index",
        num_timesteps=100,
        time_scale=0.5,
        input_scale="vp",
        network_dtype=torch.float64,
    )
    options = {
        "steps": 5,
        "eta": 0.5,
        "grid": "uniform",
        "seed": 0,
        "noise": "keyed",
        "microbatch": 2,
    }
    whole = srk.solve(srk.Flow(t_max=0.999), prediction, "ddpm", shape=(3, 3, 8, 8), **options)
    assert torch.equal(srk.SampleSet.open(tmp_path / "out").load(), whole.x)
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to sample: --model"),
        (("--target", "mixture", "--nfe", "1"), "--nfe 1 buys no step"),
        (("--target", "mixture", "--nfe", "4", "--steps", "4"), "--steps 4 and --nfe 4"),
        (("--target", "mixture", "--workers", "2"), "are for --engine ray"),
        (("--target", "mixture", "--engine", "steam"), "no engine 'steam'"),
        (("--target", "cats"), "there is no target named 'cats'"),
        (
            ("--target", "mixture", "--shape", "3", "--time-scale", "2"),
            "leave out --shape, --time-scale",
        ),
        (("--target", "mixture", "--picture"), "samples of shape (2,) are not images"),
        (("--target", "mixture", "--solver", "euler-maruyam"), "Did you mean 'euler-maruyama'"),
        (("--target", "mixture", "--noise", "generator"), "use --noise keyed"),
        (("--target", "mixture", "--low", "1"), "--low 1 must be below --high 1"),
        (("--target", "mixture", "--process-args", "{"), "--process-args is not JSON"),
        (("--target", "mixture", "--process-args", "[1]"), "--process-args is a JSON object"),
        (("--target", "mixture", "--dtype", "int8"), "--dtype int8 is not a floating-point dtype"),
        (
            ("--model", "torch.nn:Identity"),
            "say what the network returns: --prediction noise, data, v, flow, score, edm",
        ),
        (("--model", "torch.nn:Identity", "--prediction", "eps"), "edm, not 'eps'"),
        (
            ("--model", "torch.nn:Identity", "--prediction", "noise"),
            "the network does not say which shape a sample has; give --shape",
        ),
        (
            ("--model", "torch.nn:Identity", "--prediction", "noise", "--shape", "3,x"),
            "--shape 3,x is not",
        ),
        (
            ("--model", "srk_cli_networks:prediction", "--prediction", "noise"),
            "leave out --prediction",
        ),
        (
            ("--model", "srk_cli_networks:wrong", "--prediction", "noise", "--shape", "2"),
            "the network raised ValueError: no luck (",
        ),
        (("--model", "weights.pt"), "there is no file 'weights.pt'"),
        (("--model", "hostile.pt", "--model-class", "torch.nn:Linear"), "--trust-pickle"),
        pytest.param(
            ("--model", "cut.pt", "--model-class", "torch.nn:Linear"),
            "'cut.pt' is not a readable file of torch.save",
            marks=needs_safe_torch,
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_a_message_and_status_one(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """No traceback, nothing written as samples; the code in a hostile file does not run."""
    (tmp_path / "srk_cli_networks.py").write_text(NETWORKS)

    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "mark"),)

    torch.save({"weight": Hostile()}, tmp_path / "hostile.pt")
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(9)}, buffer)
    (tmp_path / "cut.pt").write_bytes(buffer.getvalue()[:300])
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and message in err and "Traceback" not in err
    assert not (tmp_path / "out" / "samples").exists() or "no luck" in err
    assert not (tmp_path / "mark").exists()


def test_a_folder_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    status, _, err = command(*MIXTURE)
    assert status == 1 and err.startswith("error: the set at 'out' cannot be read or written (")
    assert (tmp_path / "out").read_text() == "a file"
