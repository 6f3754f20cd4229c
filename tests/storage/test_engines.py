"""Ray, SLURM and object stores: the same bytes as one process, also after losses.

The slow tests need the extra `sets-test`: Ray, submitit, s3fs and moto's S3 server.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srk
from srk.errors import ArgumentError, MissingExtraError, SolveError, SRKError
from srk.storage import Ray, Slurm

zarr = pytest.importorskip("zarr")

ROOT = Path(__file__).parents[2]
OPTIONS: dict[str, Any] = {"shape": (26, 1, 8, 8), "batch": 4, "nfe": 6, "seed": 3}

NETWORKS = textwrap.dedent("""
    import os, signal, time

    import torch
    from torch import nn


    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
            for parameter in self.parameters():
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)

        def forward(self, x, t, label):
            kill = os.environ.get("SRK_TEST_KILL", "")
            if kill and float(label[0]) == 8 and not os.path.exists(kill):
                open(kill, "w").close()  # once, in the middle of the third chunk
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ.get("SRK_TEST_NAN") and float(label[0]) == 8:
                return x * float("nan")
            return self.last(torch.tanh(self.first(x))) + 0.01 * label.view(-1, 1, 1, 1)
""")


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> srk.NoisePrediction:
    """A network of a module that workers import, with a label for each sample."""
    (tmp_path / "networks_of_engines.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SRK_TEST_KILL", "")
    sys.modules.pop("networks_of_engines", None)
    from networks_of_engines import Network  # type: ignore[import-not-found]

    return srk.NoisePrediction(Network().eval().requires_grad_(False))


def draw(where: Any, score: srk.NoisePrediction, **options: Any) -> srk.SampleSet:
    labels = np.arange(26, dtype=np.float32)
    return srk.sample_to(
        where, srk.VP(), score, "srk2m", conditions={"label": labels}, **{**OPTIONS, **options}
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- without a cluster --------------------------------------------------------------------------


def test_an_engine_that_is_not_installed(
    tmp_path: Path, score: srk.NoisePrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine, module in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"srk\[{engine}\]"):
            draw(tmp_path / engine, score, engine=engine)


def test_workers_do_not_see_memory(score: srk.NoisePrediction, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(ArgumentError, match="seen by this process alone"):
        draw({}, score, engine=Slurm(cluster="local", folder=str(tmp_path)))


def test_engines_check_their_arguments() -> None:
    for make in (lambda: Ray(workers=0), lambda: Ray(gpus=-1.0), lambda: Slurm(jobs=0)):
        with pytest.raises(ValueError, match=r"needs .* to be a number >="):
            make()


# -- with one -----------------------------------------------------------------------------------


@pytest.fixture
def ray_here(tmp_path: Path) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'srk[ray]'")

    def start(**environment: str) -> None:
        ray.init(
            num_cpus=2,
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"], **environment}},
        )

    yield start
    ray.shutdown()


@pytest.mark.slow
def test_ray_with_a_worker_killed(
    tmp_path: Path, score: srk.NoisePrediction, ray_here: Any
) -> None:
    """Two workers, one of which is killed in the middle of a chunk: the same bytes."""
    expected = draw(tmp_path / "one", score)
    mark = tmp_path / "killed"
    ray_here(SRK_TEST_KILL=str(mark), OMP_NUM_THREADS="1")
    made = draw(tmp_path / "ray", score, engine=Ray(workers=2))
    assert mark.exists() and made.drawn == 26 and made.nfe == expected.nfe
    assert content(tmp_path / "ray") == content(tmp_path / "one")
    assert draw(tmp_path / "ray", score, engine="ray").drawn == 0


@pytest.mark.slow
def test_ray_gives_the_reason_of_a_failure(
    tmp_path: Path, score: srk.NoisePrediction, ray_here: Any
) -> None:
    ray_here(SRK_TEST_NAN="1")
    with pytest.raises(SolveError, match="samples 8 to 11: failed: the score returned NaN"):
        draw(tmp_path / "ray", score, engine=Ray(workers=2))


@pytest.mark.slow
def test_an_array_of_jobs(
    tmp_path: Path, score: srk.NoisePrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit's local executor; then a job is killed, and the next call mends it."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'srk[slurm]'")
    expected = draw(tmp_path / "one", score)
    engine = Slurm(jobs=3, cluster="local", folder=str(tmp_path / "logs"))
    made = draw(tmp_path / "array", score, engine=engine)
    assert made.drawn == 26 and made.nfe == expected.nfe
    assert content(tmp_path / "array") == content(tmp_path / "one")
    mark = tmp_path / "killed"
    monkeypatch.setenv("SRK_TEST_KILL", str(mark))
    with pytest.raises(SRKError, match=r"job of the array failed.*run the same again"):
        draw(tmp_path / "killed-array", score, engine=engine)
    assert mark.exists()
    assert 0 < draw(tmp_path / "killed-array", score, engine=engine).drawn < 26
    assert content(tmp_path / "killed-array") == content(tmp_path / "one")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """`storage_options` of an S3 server on the loopback with a bucket named `sets`."""
    pytest.importorskip("moto", reason="needs moto: pip install 'srk[sets-test]'")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'srk[sets-test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{url}/moto-api/", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            options = {
                "key": "any",
                "secret": "any",
                "client_kwargs": {"endpoint_url": url},
            }
            s3fs.S3FileSystem(**options).mkdir("sets")
            yield options
        finally:
            server.kill()


@pytest.mark.slow
def test_an_object_store(
    tmp_path: Path, score: srk.NoisePrediction, s3: dict[str, Any], ray_here: Any
) -> None:
    """The same arrays on S3 by one process, Ray and jobs, also with chunks deleted and cut."""
    import s3fs

    files = s3fs.S3FileSystem(**s3)
    expected = draw(tmp_path / "one", score).load().numpy()

    def ours(name: str, **options: Any) -> srk.SampleSet:
        return draw(f"s3://sets/{name}", score, storage_options=s3, **options)

    def same(name: str) -> None:
        found = srk.SampleSet.open(f"s3://sets/{name}", s3)
        np.testing.assert_array_equal(found.load().numpy(), expected)
        assert found.status(verify=True) == (26, 26)

    assert ours("one").drawn == 26 and ours("one").drawn == 0
    same("one")
    with pytest.raises(ArgumentError, match="seed was 3, is 4"):
        ours("one", seed=4)
    generator = random.Random(0)
    for i in generator.sample(range(7), 4):
        name = f"sets/one/samples/c/{i}/0/0/0"
        if i % 2:
            files.rm(name)
        else:
            files.pipe(name, files.cat(name)[: generator.randrange(900)])
    assert 12 < ours("one").drawn < 17
    same("one")
    ours("jobs", engine=Slurm(jobs=2, cluster="local", folder=str(tmp_path / "logs")))
    same("jobs")
    ray_here()
    ours("ray", engine=Ray(workers=2))
    same("ray")
    xarray = pytest.importorskip("xarray")
    data = xarray.open_zarr("s3://sets/ray", storage_options=s3, chunks=None)
    np.testing.assert_array_equal(data.samples, expected)
    np.testing.assert_array_equal(data.label, np.arange(26))


@pytest.mark.slow
def test_an_object_store_that_refuses(score: srk.NoisePrediction, s3: dict[str, Any]) -> None:
    """No bucket, no server: our own words, in time."""
    with pytest.raises(SRKError, match="cannot be read or written"):
        draw("s3://no-such-bucket/set", score, storage_options=s3)
    gone = {**s3, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    gone["config_kwargs"] = {"retries": {"max_attempts": 1}, "connect_timeout": 2}
    with pytest.raises(SRKError, match="cannot be read or written"):
        draw("s3://sets/set", score, storage_options=gone)
