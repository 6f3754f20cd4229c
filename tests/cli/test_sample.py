"""`srk sample` and `srk.sample_to`: what they write, what they refuse, what they resume."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from releases import needs_safe_torch
from torch import nn
from typer.testing import CliRunner

import srk
from srk import cli
from srk.analysis.pictures import image_grid
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    MissingExtraError,
    SolveError,
    SRKError,
)
from srk.storage import process_device
from srk.storage.identity import identity
from srk.storage.lock import alone
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

    def run(*arguments: str, out: str = "out") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["srk", "sample", "--out", out, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


Command = Callable[..., tuple[int, str, str]]


# -- sample_to --------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_solve_with_keyed_noise(tmp_path: Path) -> None:
    """Batch by batch, the last one short; also in float64, with another noise, and where the solver is an object."""
    for number, (solver, noise, dtype) in enumerate(
        [
            ("srk2m", "keyed", torch.float32),
            ("ddpm", "brownian", torch.float64),
            (srk.integrators.integrator("srk2"), "keyed", torch.float16),
        ]
    ):
        score = TARGET.score(PROCESS)
        made = srk.sample_to(
            tmp_path / str(number),
            PROCESS,
            score,
            solver,
            shape=10,
            batch=4,
            nfe=8,
            seed=5,
            noise=noise,
            dtype=dtype,
            grid="karras",
        )
        whole = srk.solve(
            PROCESS,
            score,
            solver,
            shape=10,
            nfe=8,
            seed=5,
            noise=noise,
            dtype=dtype,
            grid="karras",
            microbatch=4,
        )
        assert torch.equal(made.load(), whole.x)
        assert torch.equal(made.load(3), whole.x[:3])
        assert (made.shape, made.drawn, made.nfe) == ((10, 1), 10, whole.nfe)
        assert names(made.folder) == {"samples.npy", "settings.json"}


def test_conditions_belong_to_samples(tmp_path: Path) -> None:
    labels = torch.arange(10.0)
    prediction = srk.Data(
        lambda x, t, label: label[:, None].expand_as(x),
        model_kwargs={"label": labels},
        event_shape=(2,),
    )
    made = srk.sample_to(tmp_path, PROCESS, prediction, shape=10, batch=3, nfe=4)
    torch.testing.assert_close(made.load(), labels[:, None].expand(10, 2))


def test_a_stopped_run_is_completed_with_the_same_bytes(tmp_path: Path) -> None:
    """Stopped by an exception in the third of four batches; of the two shards that are there one is then damaged."""

    class Network:
        left = 17  # three calls a batch

        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return -x

    Network.__qualname__ = "Network"
    # The counter changes as the network is called, so it gets a name.
    options = {"shape": (14, 3), "batch": 4, "nfe": 8, "seed": 1, "network_name": "count"}
    with pytest.raises(KeyboardInterrupt):
        srk.sample_to(tmp_path / "a", PROCESS, Network(), **options)
    shards = tmp_path / "a" / "shards"
    assert names(shards) == {"000000000000.npy", "000000000004.npy"}
    whole = (shards / "000000000004.npy").read_bytes()
    (shards / "000000000004.npy").write_bytes(whole[:-1])
    (shards / ".000000000008.npy.1.tmp").write_bytes(b"half a shard of a process that was killed")
    Network.left = 10**6
    made = srk.sample_to(tmp_path / "a", PROCESS, Network(), **options)
    assert made.drawn == 10 and names(tmp_path / "a") == {"samples.npy", "settings.json"}
    other = srk.sample_to(tmp_path / "b", PROCESS, Network(), **options)
    assert made.path.read_bytes() == other.path.read_bytes()
    again = srk.sample_to(tmp_path / "a", PROCESS, Network(), **options)
    assert (again.drawn, again.nfe) == (0, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2),
        ("nfe", 9),
        ("shape", 9),
        ("batch", 3),
        ("eta", 0.5),
        ("grid", "karras"),
        ("dtype", torch.float64),
        ("noise", "brownian"),
        ("solver", "ddpm"),
        ("denoise_final", False),
        ("score", srk.targets.Gaussian(0.0, 1.0).score(PROCESS)),
        ("process", srk.VP(0.2)),
        ("autocast", torch.bfloat16),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """Each setting by its name, and what is there stays as it was."""
    options = {
        "process": PROCESS,
        "score": TARGET.score(PROCESS),
        "solver": "srk2m",
        "shape": 8,
        "batch": 4,
        "nfe": 8,
        "seed": 1,
    }
    made = srk.sample_to(tmp_path, **options)
    before = made.path.read_bytes()
    shown = {"nfe": "steps"}.get(name, name)
    with pytest.raises(
        ArgumentError, match=rf"run with other settings \(.*\b{shown} was .*give another folder"
    ):
        srk.sample_to(tmp_path, **{**options, name: value})
    assert made.path.read_bytes() == before and names(tmp_path) == {"samples.npy", "settings.json"}


def test_other_weights_are_other_settings(tmp_path: Path) -> None:
    """Also in a closure, in a dict, and in a module's own numbers."""

    def networks(scale: float) -> list[object]:
        layer = nn.Linear(2, 2)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(scale)
        return [
            layer,
            srk.NoisePrediction(layer),
            srk.Score(lambda x, t: layer(x)),
            srk.Data(lambda x, t, c: c, model_kwargs={"c": torch.tensor(scale)}),
            nn.LeakyReLU(scale),
            partial(torch.mul, scale),
            layer.forward,
            np.array([scale]),
            srk.targets.Empirical([[0.0], [scale]]).score(PROCESS),
        ]

    for one, same, other in zip(networks(1.0), networks(1.0), networks(2.0), strict=True):
        assert identity(one) == identity(same) != identity(other)
    # nor does it depend on what has been computed with an object
    score = srk.targets.Empirical([[0.0], [1.0]]).score(PROCESS)
    before = identity(score)
    srk.solve(PROCESS, score, shape=2, nfe=6)
    assert identity(score) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    score = TARGET.score(PROCESS)
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("dear")
    with pytest.raises(
        ArgumentError,
        match=r"holds other files \(thesis.tex\) and no settings.json; give a new or an empty folder",
    ):
        srk.sample_to(tmp_path, PROCESS, score, shape=4)
    assert names(tmp_path) == {"thesis.tex"} and thesis.read_text() == "dear"
    for content in ("", "[]", "{", '{"settings": {}, "fingerprint": ""}'):
        (tmp_path / "settings.json").write_text(content)
        with pytest.raises(ArgumentError, match="not as a run of srk wrote it"):
            srk.sample_to(tmp_path, PROCESS, score, shape=4)
    made = srk.sample_to(tmp_path / "set", PROCESS, score, shape=4, nfe=6)
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(ArgumentError, match="damaged or was changed"):
        srk.sample_to(tmp_path / "set", PROCESS, score, shape=4, nfe=6)


def test_arguments_of_sample_to(tmp_path: Path) -> None:
    score = TARGET.score(PROCESS)
    for options, error, message in (
        ({"batch": 0}, ArgumentError, "batch must be"),
        ({"dtype": torch.bfloat16}, ArgumentError, "float16, float32 or float64"),
        ({"noise": "generator"}, IncompatibleError, "keyed"),
        ({"seed": None}, ArgumentTypeError, "can be resumed"),
        ({"device": "abacus"}, ArgumentError, "is not a device"),
        ({"compile": "loop"}, ArgumentError, "False or 'step'"),
        ({"shape": (4, 2)}, ArgumentError, "event shape"),
    ):
        with pytest.raises(error, match=message):
            srk.sample_to(tmp_path / "set", PROCESS, score, **{"shape": 4, **options})
    with pytest.raises(
        SolveError, match="samples 2 to 3: failed: the score returned NaN or inf at step 0"
    ):
        srk.sample_to(
            tmp_path / "nan",
            PROCESS,
            srk.Data(_not_from_two_on(), event_shape=(1,)),
            shape=4,
            batch=2,
            nfe=4,
        )
    assert names(tmp_path / "nan" / "shards") == {"000000000000.npy"}


def test_a_shard_that_disappears(tmp_path: Path) -> None:
    """As when machines do not share the folder: no set with a hole, and the next run fills it."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        (tmp_path / "shards" / "000000000000.npy").unlink(missing_ok=True)
        return -x

    with pytest.raises(
        SRKError,
        match=r"000000000000\.npy' is missing or damaged; all machines must share the folder",
    ):
        srk.sample_to(tmp_path, PROCESS, network, shape=(4, 1), batch=2, nfe=4)
    assert names(tmp_path) == {"settings.json", "shards"} and names(tmp_path / "shards") == {
        "000000000002.npy"
    }
    assert srk.sample_to(tmp_path, PROCESS, network, shape=(4, 1), batch=2, nfe=4).drawn == 2


HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("process 7 on a host", file=lock, end="", flush=True)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    """Another process keeps us out and is named; killed, it is not in the way. A complete set is read by any number of runs."""
    score = TARGET.score(PROCESS)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(
                ArgumentError,
                match=r"another run writes into the folder .* \(process 7 on a host\); wait until it has ended",
            ):
                srk.sample_to(tmp_path, PROCESS, score, shape=4, nfe=4)
            assert names(tmp_path) == {".lock"}
            holder.kill()
            holder.wait()
            assert srk.sample_to(tmp_path, PROCESS, score, shape=4, nfe=4).drawn == 4
        finally:
            holder.kill()
    assert names(tmp_path) == {"samples.npy", "settings.json"}
    with alone(tmp_path):
        assert srk.sample_to(tmp_path, PROCESS, score, shape=4, nfe=4).drawn == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_run_keeps_others_out_until_it_ends(tmp_path: Path) -> None:
    """While it asks its network, whatever their settings; and no longer when the network has failed."""
    refused = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with pytest.raises(ArgumentError, match=rf"process {os.getpid()} on ") as error:
            srk.sample_to(tmp_path, PROCESS, TARGET.score(PROCESS), shape=4, nfe=4)
        refused.append(error)
        if len(refused) == 2:
            raise ValueError("no luck")
        return -x

    with pytest.raises(ValueError, match="no luck"):
        srk.sample_to(tmp_path, PROCESS, network, shape=(2, 1), nfe=4)
    assert len(refused) == 2 and names(tmp_path) == {"settings.json", "shards"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_without_locks_there_is_no_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none a run goes on, and leaves nothing behind."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert srk.sample_to(tmp_path, PROCESS, TARGET.score(PROCESS), shape=4, nfe=4).drawn == 4
    assert names(tmp_path) == {"samples.npy", "settings.json"}


def _not_from_two_on() -> Callable[..., torch.Tensor]:
    calls = 0

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x * (float("nan") if calls > 3 else 1.0)

    return network


def test_a_gpu_of_its_own_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (
        str(process_device("cuda")) == "cuda:1"
        and str(process_device("cuda:0")) == "cuda:0"
        and str(process_device()) == "cpu"
    )
    with pytest.raises(ArgumentError, match="this machine has 2"):
        process_device("cuda:2")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_resumes_and_refuses(command: Command, tmp_path: Path) -> None:
    status, out, err = command(*MIXTURE)
    assert (status, err) == (
        0,
        "",
    ) and out == "10 samples of shape (2,) in out/samples.npy (10 drawn now)\n"
    samples = np.load(tmp_path / "out" / "samples.npy", allow_pickle=False)
    process, target = named_problem("vp", "mixture")
    whole = srk.solve(
        process,
        target.score(process),
        "srk2m",
        shape=10,
        nfe=6,
        seed=0,
        noise="keyed",
        microbatch=4,
    )
    np.testing.assert_array_equal(samples, whole.x.numpy())
    assert command(*MIXTURE) == (
        0,
        "10 samples of shape (2,) in out/samples.npy (complete already)\n",
        "",
    )
    status, out, err = command(*MIXTURE, "--seed", "1")
    assert (
        status == 1
        and out == ""
        and err.startswith(
            "error: the folder 'out' holds a run with other settings (seed was 0, is 1)"
        )
    )


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
    assert names(tmp_path / "out") == {"samples.npy", "settings.json", "grid.png"}
    samples = np.load(tmp_path / "out" / "samples.npy").reshape(5, -1, 8, 8)[:, 0]
    with image.open(tmp_path / "out" / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 33 + 1, 3 * 33 + 1)  # two rows of three, four times as large
    fourth = pixels[34:66, 1:33]
    shades = np.rint((samples[3].clip(-1, 1) + 1) / 2 * 255).repeat(4, 0).repeat(4, 1)
    assert np.abs(fourth - shades).max() <= 1
    assert (pixels[34:66, 67:] == 255).all()  # no sixth image


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
"""


@needs_safe_torch
def test_weights_in_a_file_for_a_class_of_the_working_directory(
    command: Command, tmp_path: Path
) -> None:
    """Every option of the adapter reaches it; the samples are those of solve with the same network."""
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
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "samples.npy"), whole.x.numpy())
    assert "grid.png" in names(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to sample: --model"),
        (("--target", "cats"), "there is no target named 'cats'"),
        (
            ("--target", "mixture", "--shape", "3", "--time-scale", "2"),
            "leave out --shape, --time-scale",
        ),
        (("--target", "mixture", "--picture"), "samples of shape (2,) are not images"),
        (("--target", "mixture", "--solver", "euler-maruyam"), "Did you mean 'euler-maruyama'"),
        (("--target", "mixture", "--noise", "generator"), "use noise='keyed'"),
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
            "the score does not know its event shape",
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
    assert not (tmp_path / "out" / "samples.npy").exists() and not (tmp_path / "mark").exists()


def test_a_folder_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    status, _, err = command(*MIXTURE)
    assert status == 1 and err.startswith("error: cannot write the samples into 'out': ")
    assert (tmp_path / "out").read_text() == "a file"
