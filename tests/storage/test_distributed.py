"""Sets drawn by several processes: the same bytes for any number, after a kill, and no damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import srk

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--prediction",
    "noise",
    "--shape",
    "1,8,8",
    "-n",
    "26",
    "--batch",
    "4",
    "--nfe",
    "6",
    "--no-picture",
]

NETWORKS = """
import os, signal

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        self._calls = 0

    def forward(self, x, t):
        self._calls += 1
        # In its second chunk.
        if self._calls == 9 and os.path.exists("kill") and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.last(torch.tanh(self.first(x)))


def program():
    # a process group of its own, which goes on afterwards
    import srk
    import torch.distributed as dist

    dist.init_process_group("gloo")
    network = Network().eval().requires_grad_(False)  # as the command has it
    score = srk.NoisePrediction(network, event_shape=(1, 8, 8))
    samples = srk.sample_to("program", srk.VP(), score, "auto", shape=26, batch=4, nfe=6)
    drawn = torch.tensor(float(len(samples.load())))
    dist.all_reduce(drawn)
    assert (drawn.item(), samples.drawn) == (26 * dist.get_world_size(), 26)
    dist.destroy_process_group()


def of_another_version():
    network = Network()
    network.scale = os.environ["RANK"]
    return network


def broken(x, t):
    if os.environ["RANK"] == "1":
        raise ValueError("no luck")
    return x


def not_finite(x, t):
    return x * (float("nan") if os.environ["RANK"] == "1" else 1.0)
"""

# torch is imported once; each rank is a fork of this process with the variables that torchrun sets.
LAUNCH = """
import importlib, json, os, shutil, socket, sys, traceback

from srk.cli import main


def launch(name, size, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            log = os.open(f"{name}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            out = {"again": "two"}.get(name, name.split("-")[0])
            sys.argv = ["srk", "sample", "--out", out, *arguments]
            code = 99
            try:
                if arguments:
                    main()
                else:
                    importlib.import_module("networks").program()
                    code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


codes = {}
for name, size, *arguments in json.loads(sys.argv[1]):
    if name == "killed-1":
        open("kill", "w").close()
    codes[name] = launch(name, size, *arguments)
    if name == "killed-1":
        os.remove("kill")
        shutil.copytree("killed", "left")
print(json.dumps(codes))
"""


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
        "TERM": "dumb",
    }


def launch(folder: Path, *runs: list[object]) -> dict[str, list[int]]:
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "launch.py").write_text(LAUNCH)
    command = [sys.executable, "launch.py", json.dumps(runs)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def said(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(folder.glob("*.txt")))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_any_number_of_processes_writes_the_same_bytes_also_after_a_kill(tmp_path: Path) -> None:
    """26 samples in 7 chunks by 1, 2 and 3 processes, and by a program of its own.

    Also by 2 of which one is killed and 2 again, and by 1 with nothing left to do.
    """
    run = ["--model", "networks:Network", *OPTIONS]
    runs = [
        ["one", 1, *run],
        ["two", 2, *run],
        ["three", 3, *run],
        ["killed-1", 2, *run],
        ["killed-2", 2, *run],
        ["again", 1, *run],
        ["program", 2],
    ]
    codes = launch(tmp_path, *runs)
    assert codes == {
        "one": [0],
        "two": [0, 0],
        "three": [0] * 3,
        "killed-1": [1, -9],
        "killed-2": [0, 0],
        "again": [0],
        "program": [0, 0],
    }, said(tmp_path)
    expected = content(tmp_path / "one")
    for name in ("two", "three", "killed", "program"):
        assert content(tmp_path / name) == expected
    samples = srk.SampleSet.open(tmp_path / "one").load().numpy()
    assert samples.shape == (26, 1, 8, 8)
    assert len(np.unique(samples[:, 0, 0, 0])) == 26  # no sample twice
    # What the killed run left: the chunks of process 0, and the first of process 1, whole.
    lost = (tmp_path / "killed-1.0.txt").read_text()
    assert "error: another process of this run has ended" in lost  # after warnings of packages
    left = content(tmp_path / "left")
    chunks = {name for name in left if name.startswith("samples/c/")}
    assert chunks == {f"samples/c/{i}/0/0/0" for i in (0, 1, 2, 4, 6)}
    assert all(left[name] == expected[name] for name in left)
    assert "(8 drawn now)" in (tmp_path / "killed-2.0.txt").read_text()
    assert "(complete already)" in (tmp_path / "again.0.txt").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_with_another_version_of_the_network_is_refused(tmp_path: Path) -> None:
    """It draws nothing; the other processes end, and the same version completes the set."""
    codes = launch(tmp_path, ["other", 2, "--model", "networks:of_another_version", *OPTIONS])
    assert codes == {"other": [1, 1]}, said(tmp_path)
    assert "other settings (score was" in (tmp_path / "other.1.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_failed_process_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """Errors of the network in one of three processes; of the folder in the first."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    codes = launch(
        tmp_path,
        ["broken", 3, "--model", "networks:broken", *OPTIONS],
        ["nan", 3, "--model", "networks:not_finite", *OPTIONS],
        ["full", 3, "--model", "networks:Network", *OPTIONS],
    )
    assert codes == {name: [1, 1, 1] for name in ("broken", "nan", "full")}
    reasons = {
        "broken": (1, "the network raised ValueError: no luck"),
        "nan": (1, "samples 4 to 7: failed: the score returned NaN"),
        "full": (0, "holds other files (thesis.tex)"),
    }
    for name, (culprit, reason) in reasons.items():
        for rank in range(3):
            text = (tmp_path / f"{name}.{rank}.txt").read_text()
            assert text.startswith("error: ") and "Traceback" not in text
            assert (reason if rank == culprit else "another process of this run has ended") in text
    assert content(tmp_path / "full") == {"thesis.tex": b""}
    for name in ("broken", "nan"):
        found = srk.SampleSet.open(tmp_path / name)
        assert found.status() == found.status(verify=True)


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    """The documented command: a killed rank ends it with a status; once more completes the set."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    arguments = ["-m", "srk", "sample", "--model", "networks:Network", *OPTIONS]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *arguments,
        "--out",
    ]
    (tmp_path / "kill").touch()
    done = subprocess.run(
        [*command, "two"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert srk.SampleSet.open(tmp_path / "two").status()[0] < 26
    (tmp_path / "kill").unlink()
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for again in ([*command, "two"], [sys.executable, *arguments, "--out", "one"]):
        done = subprocess.run(
            again,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "one") == content(tmp_path / "two")
