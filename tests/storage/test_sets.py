"""Sets of samples: the same bytes whoever draws which chunk when, and nothing of another run."""

from __future__ import annotations

import errno
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import srk
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    SolveError,
    SRKError,
)
from srk.storage import process_device
from srk.storage import store as stores

zarr = pytest.importorskip("zarr")

PROCESS = srk.VP()
TARGET = srk.targets.GaussianMixture([0.3, 0.7], [-1.0, 1.0], [0.2, 0.1])
SCORE = TARGET.score(PROCESS)


def draw(where: Any, score: Any = SCORE, solver: str = "srk2m", **options: Any) -> srk.SampleSet:
    return srk.sample_to(
        where, PROCESS, score, solver, **{"shape": 10, "batch": 4, "nfe": 6, **options}
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def chunk(folder: Path, i: int) -> Path:
    return folder / "samples" / "c" / str(i) / "0"


# -- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "noise", "dtype", "grid"),
    [
        ("srk2m", "keyed", torch.float32, "karras"),
        ("ddpm", "brownian", torch.float64, None),
        (srk.integrators.integrator("srk2"), "keyed", torch.float16, "log-snr"),
        ("auto", "keyed", torch.float32, None),
        ("unipc-3", "keyed", torch.float32, [1.0, 0.7, 0.4, 0.2, 0.1, 0.001]),
    ],
)
def test_samples_are_those_of_solve(
    tmp_path: Path, solver: Any, noise: str, dtype: torch.dtype, grid: Any
) -> None:
    """Batch by batch, the last one short."""
    options = {"seed": 5, "noise": noise, "dtype": dtype, "grid": grid, "shape": 10}
    options |= {} if isinstance(grid, list) else {"nfe": 8}
    made = srk.sample_to(tmp_path, PROCESS, SCORE, solver, batch=4, **options)
    whole = srk.solve(PROCESS, SCORE, solver, microbatch=4, **options)
    assert torch.equal(made.load(), whole.x) and torch.equal(made.load(5), whole.x[:5])
    assert (made.shape, made.drawn, made.nfe) == ((10, 1), 10, whole.nfe)


def test_other_libraries_read_a_set(tmp_path: Path) -> None:
    made = draw(tmp_path, seed=7)
    group = zarr.open(tmp_path, mode="r")
    np.testing.assert_array_equal(group["samples"][:], made.load())
    assert group.attrs["settings"]["seed"] == 7 and group["samples"].chunks == (4, 1)
    assert group.attrs["settings"] == made.settings == srk.SampleSet.open(tmp_path).settings
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(tmp_path, chunks=None)
    assert data.samples.dims[0] == "sample" and data.attrs["settings"]["solver"].startswith("SRK2M")
    np.testing.assert_array_equal(data.samples, made.load())


def test_stores_that_zarr_takes(tmp_path: Path) -> None:
    """A path, memory, a dict, and a URL of fsspec: the same samples, and each is resumed."""
    expected = draw(tmp_path / "local").load()
    name = f"memory://srk-{random.random()}"
    local = zarr.storage.LocalStore(tmp_path / "store")
    for where in (str(tmp_path / "text"), zarr.storage.MemoryStore(), {}, name, local):
        assert torch.equal(draw(where).load(), expected)
        assert draw(where).drawn == 0
        with pytest.raises(ArgumentError, match="seed was 0, is 1"):
            draw(where, seed=1)


def test_object_stores_of_obstore() -> None:
    pytest.importorskip("obstore")
    from obstore.store import MemoryStore

    store = zarr.storage.ObjectStore(MemoryStore())
    assert draw(store).drawn == 10 and draw(store).drawn == 0


# -- stop and continue --------------------------------------------------------------------------


class Stopping:
    """A network that stops its program at a call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return -x


def test_a_stopped_run_is_completed_with_the_same_bytes(tmp_path: Path) -> None:
    """Of the chunks that are there one is damaged, one cut short, one a half-written file."""
    options = {"shape": (30, 3), "network_name": "a network that counts"}
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "a", Stopping(31), **options)
    folder = tmp_path / "a" / "samples" / "c"
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["0", "1", "2", "3", "4"]
    paths = [folder / name / "0" for name in there]
    data = paths[0].read_bytes()
    paths[0].write_bytes(bytes([data[0] ^ 1]) + data[1:])
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    paths[2].write_bytes(b"")
    (folder / "7").mkdir()
    (folder / "7" / "0.0123.partial").write_bytes(data[:9])
    made = draw(tmp_path / "a", Stopping(10**6), **options)
    assert made.drawn == 30 - 8
    other = draw(tmp_path / "b", Stopping(10**6), **options)
    assert torch.equal(made.load(), other.load())
    shutil.rmtree(folder / "7")
    shutil.copytree(tmp_path / "b" / "samples" / "c" / "7", folder / "7")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_any_damage_of_a_finished_set_is_mended_and_nothing_else_touched(tmp_path: Path) -> None:
    draw(tmp_path, shape=100)
    before, generator = content(tmp_path), random.Random(0)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    assert draw(tmp_path, shape=100).drawn == 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times
    for _ in range(3):
        hit = generator.sample([n for n in before if n.startswith("samples/c/")], 9)
        for i, name in enumerate(hit):
            data = bytearray(before[name])
            if i % 3 == 0:
                (tmp_path / name).unlink()
            elif i % 3 == 1:
                (tmp_path / name).write_bytes(data[: generator.randrange(len(data))])
            else:
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                (tmp_path / name).write_bytes(data)
        assert draw(tmp_path, shape=100).drawn == 9 * 4
        assert content(tmp_path) == before


def test_sizes_alone_where_the_store_is_trusted(tmp_path: Path) -> None:
    draw(tmp_path)
    data = chunk(tmp_path, 0).read_bytes()
    chunk(tmp_path, 0).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    chunk(tmp_path, 1).write_bytes(data[:-1])
    assert draw(tmp_path, verify=False).drawn == 4
    assert srk.SampleSet.open(tmp_path).status() == (10, 10)
    assert srk.SampleSet.open(tmp_path).status(verify=True) == (6, 10)
    assert draw(tmp_path).drawn == 4


def test_the_last_chunk_too_is_redrawn_when_it_is_damaged(tmp_path: Path) -> None:
    """It is not full, and zarr would read it before it writes."""
    expected = draw(tmp_path).load()
    chunk(tmp_path, 2).write_bytes(b"no chunk")
    assert draw(tmp_path).drawn == 2 and torch.equal(draw(tmp_path).load(), expected)


def test_what_is_missing_is_never_read_as_samples(tmp_path: Path) -> None:
    draw(tmp_path)
    chunk(tmp_path, 1).unlink()
    samples = srk.SampleSet.open(tmp_path)
    assert samples.status() == (6, 10) and len(samples.load(4)) == 4
    with pytest.raises(SRKError, match=r"chunk 1 of the set at .* is missing or damaged"):
        samples.load()
    assert np.isnan(zarr.open(tmp_path)["samples"][4:8]).all()


# -- other settings -----------------------------------------------------------------------------


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
        ("autocast", torch.bfloat16),
        ("conditions", {"label": np.arange(10)}),
        ("network_name", "another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """Each setting by the name that the user gives it, before anything is written."""
    draw(tmp_path)
    before = content(tmp_path)
    shown = {"network_name": "score"}.get(name, name)
    score = srk.Data(lambda x, t, label=None: x, event_shape=(1,)) if name == "conditions" else None
    options = {name: value} | ({"score": score} if score else {})
    with pytest.raises(
        ArgumentError, match=rf"other settings \(.*\b{shown} was .*give another place"
    ):
        draw(tmp_path, **options)
    assert content(tmp_path) == before


def test_steps_and_calls_that_are_the_same_are_the_same(tmp_path: Path) -> None:
    steps = draw(tmp_path).settings["steps"]
    assert draw(tmp_path, nfe=None, steps=steps).drawn == 0


class Buffered(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value), persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.value.expand_as(x)


class Private:
    def __init__(self, value: float) -> None:
        self._value = value

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, self._value)


@pytest.mark.parametrize("make", [Buffered, Private])
def test_a_resumed_set_is_of_one_network(tmp_path: Path, make: Callable[[float], Any]) -> None:
    draw(tmp_path, srk.Data(make(1.0), event_shape=(1,)))
    chunk(tmp_path, 1).unlink()
    with pytest.raises(ArgumentError, match="score was"):
        draw(tmp_path, srk.Data(make(5.0), event_shape=(1,)))
    assert draw(tmp_path, srk.Data(make(1.0), event_shape=(1,))).load().unique().numel() == 1


def test_a_network_that_cannot_be_known_is_not_resumed(tmp_path: Path) -> None:
    class Opaque:
        def __init__(self) -> None:
            self.handle = iter([1])
            self.other = (x for x in ())

        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    score = srk.Data(Opaque(), event_shape=(1,))
    with pytest.warns(UserWarning, match=r"other is a builtins.generator.*network_name="):
        draw(tmp_path / "a", score)
    with pytest.raises(ArgumentError, match=r"cannot be resumed.*network_name="):
        draw(tmp_path / "a", score)
    assert draw(tmp_path / "b", score, network_name="zero").drawn == 10
    assert draw(tmp_path / "b", score, network_name="zero").drawn == 0


@pytest.mark.parametrize("late", ["at the beginning", "while it draws"])
def test_two_runs_at_once_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The second finds the first, even if it looked before the first began, or the store cannot
    say who was first; its own chunk is not written.
    """
    if late == "at the beginning":
        create = stores.create

        def first(*arguments: Any) -> None:
            monkeypatch.setattr(stores, "create", create)
            draw(tmp_path, seed=1)
            create(*arguments)

        monkeypatch.setattr(stores, "create", first)
        with pytest.raises(ArgumentError, match="seed was 1, is 0"):
            draw(tmp_path)
    else:

        def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            shutil.rmtree(tmp_path)
            draw(tmp_path, seed=1)
            return -x

        with pytest.raises(ArgumentError, match="seed was 1, is 0"):
            draw(tmp_path, network, shape=(10, 1), network_name="one that destroys")
    assert draw(tmp_path, seed=1).drawn == 0


def test_two_runs_at_once_with_the_same_settings(tmp_path: Path) -> None:
    """Each draws all that is missing when it begins; they write the same bytes."""
    options = {"shape": (10, 1), "network_name": "nested"}
    inside: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if not inside:
            inside.append(1)
            draw(tmp_path / "a", network, **options)
        return -x

    outer = draw(tmp_path / "a", network, **options)
    assert outer.drawn == 10
    assert torch.equal(outer.load(), draw(tmp_path / "b", network, **options).load())


# -- conditions and pilots ----------------------------------------------------------------------


def network_of(label: str = "label") -> srk.Data:
    def network(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return label[:, None].float().expand_as(x)

    return srk.Data(network, event_shape=(2,))


@pytest.mark.parametrize("kind", ["tensor", "numpy", "zarr", "model_kwargs", "guided"])
def test_conditions_belong_to_samples(tmp_path: Path, kind: str) -> None:
    labels = np.arange(10.0, dtype=np.float32)
    score: Any = network_of()
    table: Any = {"label": labels}
    if kind == "tensor":
        table = {"label": torch.tensor(labels)}
    elif kind == "zarr":
        table = {"label": zarr.array(labels, chunks=(3,))}
    elif kind == "model_kwargs":
        score, table = (
            srk.Data(score.network, event_shape=(2,), model_kwargs={"label": torch.tensor(labels)}),
            None,
        )
    elif kind == "guided":
        nothing = srk.Data(lambda x, t: torch.zeros_like(x), event_shape=(2,))
        score = srk.Guided(score, nothing, 1.0)
    made = draw(tmp_path, score, batch=3, conditions=table)
    expected = torch.tensor(labels)[:, None].expand(10, 2)
    torch.testing.assert_close(made.load(), expected)
    for path in (tmp_path / "samples" / "c").rglob("0"):
        path.unlink(missing_ok=True) if path.is_file() else None
    torch.testing.assert_close(draw(tmp_path, score, batch=3, conditions=table).load(), expected)
    if table:
        np.testing.assert_array_equal(zarr.open(tmp_path)["label"][:], labels)
        with pytest.raises(ArgumentError, match="conditions was"):
            draw(tmp_path, score, batch=3, conditions={"label": labels[::-1].copy()})


def test_conditions_that_are_no_table(tmp_path: Path) -> None:
    for conditions, error, message in (
        ({"label": np.arange(9)}, ArgumentError, "10 rows, one for each sample"),
        ({"label": ["a"] * 10}, ArgumentError, "array of numbers"),
        ({"a label": np.arange(10)}, ArgumentError, "as the network's arguments are"),
        ({"samples": np.arange(10)}, ArgumentError, "as the network's arguments are"),
    ):
        with pytest.raises(error, match=message):
            draw(tmp_path, network_of(), conditions=conditions)
    with pytest.raises(IncompatibleError, match=r"adapter such as srk\.NoisePrediction"):
        draw(tmp_path, SCORE, conditions={"label": np.arange(10)})


def spread_network() -> srk.Data:
    """The exact denoiser of N(0, v) data, with a v of its own for each sample."""

    def network(x: torch.Tensor, t: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        s = (t.square() * 0 + t)[:, None]
        return x * v[:, None] / (v[:, None] + s)

    return srk.Data(network, event_shape=(1,))


@pytest.mark.parametrize(
    ("control", "noise"),
    [
        ("budget", "keyed"),
        (srk.steps.Budget(samples=64), "keyed"),
        (srk.steps.Adaptive(rtol=0.1, atol=0.1), "brownian"),
        ("adaptive", "brownian"),
    ],
    ids=str,
)
def test_one_pilot_for_the_whole_set(tmp_path: Path, control: Any, noise: str) -> None:
    """The bytes depend on neither the order of the chunks nor kills, at conditions that differ."""
    v = torch.logspace(-3, 3, 12)
    adaptive = noise == "brownian"
    options = {"shape": 12, "batch": 3, "conditions": {"v": v}, "noise": noise, "grid": control}
    options |= {"nfe": None} if adaptive else {"nfe": 8}
    solver = "srk2" if adaptive else "srk2m"
    expected = draw(tmp_path / "a", spread_network(), solver, **options).load()
    for killed in ((0,), (1, 2), (0, 1, 2, 3)):
        for i in killed:
            chunk(tmp_path / "a", i).unlink()
        made = draw(tmp_path / "a", spread_network(), solver, **options)
        assert made.drawn == 3 * len(killed) and torch.equal(made.load(), expected)
    # A place of its own, and a controller that has been used for other runs.
    again = draw(tmp_path / "b", spread_network(), solver, **options)
    assert torch.equal(again.load(), expected)


# -- hostile and unlucky places -----------------------------------------------------------------


def test_a_place_of_something_else_is_refused_and_left(tmp_path: Path) -> None:
    thesis = tmp_path / ".thesis.tmp"
    thesis.write_text("dear")
    with pytest.raises(ArgumentError, match=r"holds other files \(.thesis.tmp\) and no set"):
        draw(tmp_path)
    assert content(tmp_path) == {".thesis.tmp": b"dear"}
    (tmp_path / "file").write_text("a file")
    with pytest.raises(SRKError, match="cannot be read or written"):
        draw(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a file"


def test_files_of_the_user_inside_a_set_are_left(tmp_path: Path) -> None:
    draw(tmp_path)
    chunk(tmp_path, 0).unlink()
    for name in (".thesis.tmp", ".lock", "samples/notes.tmp", "samples/c/.mine.tmp"):
        (tmp_path / name).write_text("dear")
    assert draw(tmp_path).drawn == 4
    assert (tmp_path / ".thesis.tmp").read_text() == (tmp_path / ".lock").read_text() == "dear"
    assert (tmp_path / "samples" / "c" / ".mine.tmp").read_text() == "dear"


@pytest.mark.parametrize("place", ["zarr.json", "samples", "samples/c", "samples/c/0", "chunk"])
def test_links_are_not_followed_out_of_a_set(tmp_path: Path, place: str) -> None:
    """A folder that came from somebody else cannot make us write elsewhere."""
    mine, folder = tmp_path / "mine", tmp_path / "set"
    draw(folder)
    chunk(folder, 0).unlink()
    path = folder / place if place != "chunk" else chunk(folder, 0)
    if path.exists():
        shutil.move(path, mine)
    else:
        mine.write_text("dear")
    before = content(mine) if mine.is_dir() else mine.read_bytes()
    path.symlink_to(mine)
    if place == "zarr.json":
        draw(folder)
    else:
        with pytest.raises(ArgumentError, match="leads out of the set by a link"):
            draw(folder)
    assert (content(mine) if mine.is_dir() else mine.read_bytes()) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"attributes": {}}',
        '{"attributes": {"format": "srk-samples-1", "settings": {}, "times": 1, "fingerprint": 1}}',
        "[" * 100_000,
        '{"attributes": ' * 20_000,
        '{"attributes": {"format": %s}}' % ("9" * 5000),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_attributes_are_refused(tmp_path: Path, text: str) -> None:
    draw(tmp_path)
    (tmp_path / "zarr.json").write_text(text)
    before = content(tmp_path)
    for ask in (draw, srk.SampleSet.open):
        with pytest.raises(ArgumentError, match="not as a run of srk wrote it"):
            ask(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("fault", ["nested", "shape", "codec", "empty", "dtype"])
def test_a_changed_description_of_the_array_is_refused(tmp_path: Path, fault: str) -> None:
    draw(tmp_path)
    file = tmp_path / "samples" / "zarr.json"
    description = json.loads(file.read_text())
    if fault == "shape":
        description["shape"] = [10**12, 1]
    elif fault == "codec":
        description["codecs"] = [{"name": "import_me"}]
    elif fault == "dtype":
        description["data_type"] = "float64"
    text = {"nested": "[" * 100_000, "empty": ""}.get(fault, json.dumps(description))
    file.write_text(text)
    with pytest.raises(ArgumentError, match="not as a run of srk wrote it"):
        draw(tmp_path)


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_a_full_disk_leaves_what_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The error is ours, the process can use the place again, and the set ends as any other."""
    expected = draw(tmp_path / "b").load()
    local, left = zarr.storage.LocalStore, at
    whole = {"set": local.set, "set_if_not_exists": local.set_if_not_exists}

    def full(name: str) -> Any:
        async def write(self: Any, *arguments: Any, **options: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            await whole[name](self, *arguments, **options)

        return write

    with monkeypatch.context() as patch:
        for name in whole:
            patch.setattr(local, name, full(name))
        with pytest.raises(SRKError, match=r"No space left on device.*What is drawn is kept"):
            draw(tmp_path / "a")
    made = draw(tmp_path / "a")
    assert made.drawn <= 10 and torch.equal(made.load(), expected)


def test_a_store_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    missing = "nosuchprotocol://bucket/set"
    with pytest.raises(SRKError, match=r"cannot be read or written|needs a package"):
        draw(missing)
    with pytest.raises(ArgumentError, match="storage_options are for a URL"):
        draw(tmp_path / "a", storage_options={"key": "x"})
    with pytest.raises(ArgumentTypeError, match="at a path, a URL, or in a store"):
        draw(7)
    for where in (tmp_path / "nothing", f"memory://srk-{random.random()}"):
        with pytest.raises(ArgumentError, match="there is no set of samples"):
            srk.SampleSet.open(where)
    assert not (tmp_path / "nothing").exists()


def test_arguments(tmp_path: Path) -> None:
    for options, error, message in (
        ({"batch": 0}, ArgumentError, "batch must be"),
        ({"dtype": torch.bfloat16}, ArgumentError, "float16, float32 or float64"),
        ({"noise": "generator"}, IncompatibleError, "keyed"),
        ({"seed": None}, ArgumentTypeError, "can be resumed"),
        ({"device": "abacus"}, ArgumentError, "is not a device"),
        ({"compile": "loop"}, ArgumentError, "False or 'step'"),
        ({"shape": (4, 2)}, ArgumentError, "event shape"),
        ({"engine": "steam"}, ArgumentError, "no engine 'steam'"),
        ({"engine": 4}, ArgumentTypeError, "engine is 'local'"),
    ):
        with pytest.raises(error, match=message):
            draw(tmp_path / "set", **options)


def test_a_network_that_fails_keeps_what_is_finished(tmp_path: Path) -> None:
    calls = 0

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x * (float("nan") if calls > 6 else 1.0)

    with pytest.raises(SolveError, match="samples 4 to 7: failed: the score returned NaN or inf"):
        draw(tmp_path, srk.Data(network, event_shape=(1,)), network_name="failing")
    assert srk.SampleSet.open(tmp_path).status() == (4, 10)


def test_chunks_that_disappear_while_others_are_drawn(tmp_path: Path) -> None:
    """As when machines do not share the folder: no set with a hole."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        chunk(tmp_path, 0).unlink(missing_ok=True)
        return -x

    with pytest.raises(SRKError, match="are missing though they were drawn"):
        draw(tmp_path, network, shape=(4, 1), batch=2, network_name="thief")
    assert draw(tmp_path, network, shape=(4, 1), batch=2, network_name="thief").drawn == 2


# -- elsewhere ----------------------------------------------------------------------------------


def test_exports(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    score = srk.targets.Gaussian(torch.zeros(3, 4, 5), 0.1).score(PROCESS)
    made = draw(tmp_path / "set", score, shape=5, batch=2)
    x = made.load().numpy()
    np.testing.assert_array_equal(np.load(made.export(tmp_path / "x.npy")), x)
    with np.load(made.export(tmp_path / "x.npz"), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["samples"], x)
        assert json.loads(str(archive["settings"])) == made.settings
    folder = made.export(tmp_path / "images", low=-2.0, high=2.0)
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:06d}.png" for i in range(5)]
    pixels = np.asarray(Image.open(folder / "000003.png")).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels, ((x[3] + 2) / 4).clip(0, 1) * 255, atol=0.51)
    for name in ("x.npy", "x.npz", "images"):
        with pytest.raises(ArgumentError, match="is there already"):
            made.export(tmp_path / name)
    with pytest.raises(ArgumentError, match=r"neither .npy nor .npz"):
        made.export(tmp_path / "x.txt")
    flat = draw(tmp_path / "flat")
    with pytest.raises(ArgumentError, match="are not images"):
        flat.export(tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def old_set(folder: Path, x: np.ndarray) -> Path:
    """A folder as srk 0.1 wrote it."""
    folder.mkdir()
    np.save(folder / "samples.npy", x)
    settings = {"srk": "0.1.0", "seed": 3, "shape": list(x.shape)}
    (folder / "settings.json").write_text(json.dumps({"fingerprint": "", "settings": settings}))
    return folder


def test_sets_of_version_0_1_are_read_and_converted(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    old = srk.SampleSet.open(old_set(tmp_path / "old", x))
    assert old.settings["seed"] == 3 and old.status() == (10, 10)
    np.testing.assert_array_equal(old.load(7), x[:7])
    new = old.convert(tmp_path / "new", batch=4)
    again = srk.SampleSet.open(tmp_path / "new")
    np.testing.assert_array_equal(again.load(), x)
    assert again.settings["seed"] == 3 and new.status(verify=True) == (10, 10)
    chunk(tmp_path / "new", 1).unlink()
    np.testing.assert_array_equal(old.convert(tmp_path / "new", batch=4).load(), x)
    with pytest.raises(ArgumentError, match=r"holds other files"):
        draw(tmp_path / "old")
    data = bytearray((tmp_path / "old" / "samples.npy").read_bytes())
    for position, byte in ((10, 0), (20, ord("(")), (1, 0), (40, ord("\n"))):
        damaged = data.copy()
        damaged[position] = byte
        (tmp_path / "old" / "samples.npy").write_bytes(damaged)
        with pytest.raises(ArgumentError, match="is damaged or was changed"):
            srk.SampleSet.open(tmp_path / "old")


def test_a_gpu_of_its_own_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = [str(process_device(name)) for name in ("cuda", "cuda:0", None)]
    assert found == ["cuda:1", "cuda:0", "cpu"]
    with pytest.raises(ArgumentError, match="this machine has 2"):
        process_device("cuda:2")


def test_a_set_is_drawn_with_a_profile(tmp_path: Path) -> None:
    """The samples of a sampler with the profile, which the settings hold; another is refused."""
    process, target = (
        srk.EDM(),
        srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.3]),
    )
    score = target.score(process)
    profile = srk.calibrate(process, score, shape=(32, 1), seed=0)
    run: dict[str, Any] = {"shape": 10, "batch": 4, "nfe": 7, "seed": 2}
    made = srk.sample_to(tmp_path / "set", process, score, profile=profile, **run)
    sampler = srk.Sampler(process, score, profile=profile, nfe=7)
    whole = sampler(shape=10, noise="keyed", seed=2)
    assert torch.allclose(made.load(), whole.x, atol=1e-6)
    found = srk.SampleSet.open(tmp_path / "set").settings
    assert srk.Profile.from_dict(found["profile"]) == profile
    assert srk.sample_to(tmp_path / "set", process, score, profile=profile, **run).drawn == 0
    with pytest.raises(ArgumentError, match="profile was"):
        srk.sample_to(tmp_path / "set", process, score, **run)
