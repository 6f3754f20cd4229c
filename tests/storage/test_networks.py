"""Networks by name and from files: what is refused, with which cure; hostile files run nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from releases import needs_safe_torch
from torch import nn

import srk
from srk.errors import ArgumentError, ArgumentTypeError, MissingExtraError, SRKError
from srk.storage.networks import imported, load_network, load_weights

LINEAR = {"cls": "torch.nn:Linear", "arguments": {"in_features": 2, "out_features": 2}}


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self.mark), os.O_CREAT | os.O_WRONLY)


def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": torch.tensor([5.0, 6.0])}


@needs_safe_torch
def test_a_state_dict_fills_the_class(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(weights(), file)
    network = load_network(str(file), **LINEAR)
    assert (
        isinstance(network, nn.Linear) and not network.training and not network.weight.requires_grad
    )
    assert network(torch.tensor([[1.0, 1.0]])).tolist() == [[8.0, 13.0]]


@needs_safe_torch
def test_an_entry_of_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    torch.save({"ema": weights(), "step": 7}, file)
    assert torch.equal(load_network(str(file), key="ema", **LINEAR).weight, weights()["weight"])
    with pytest.raises(ArgumentError, match="entries are ema, step; --model-key"):
        load_network(str(file), **LINEAR)
    with pytest.raises(ArgumentError, match="no entry 'model'; its entries are ema, step"):
        load_network(str(file), key="model", **LINEAR)


def test_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    file = tmp_path / "weights.safetensors"
    save_file(weights(), file)
    assert torch.equal(load_network(str(file), **LINEAR).weight, weights()["weight"])
    whole = file.read_bytes()
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 1 << 40]}}
    ).encode()
    for damaged in (
        b"",
        whole[:40],
        whole[:-4],
        struct.pack("<Q", 1 << 62),
        struct.pack("<Q", len(header)) + header,
        b"\xff" * 64,
    ):
        file.write_bytes(damaged)
        with pytest.raises(ArgumentError, match="not a readable safetensors file"):
            load_network(str(file), **LINEAR)


def test_safetensors_missing_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"srk\[safetensors\]"):
        load_network(str(tmp_path / "weights.safetensors"), **LINEAR)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".pickle"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_file_runs_nothing(tmp_path: Path, suffix: str, legacy: bool) -> None:
    """Not in the formats of torch.save, not as a bare pickle; with trust it would have."""
    mark, file = tmp_path / "mark", tmp_path / f"weights{suffix}"
    if suffix in (".pkl", ".pickle"):
        file.write_bytes(pickle.dumps({"weight": Hostile(mark)}, protocol=2 if legacy else 5))
    else:
        torch.save({"weight": Hostile(mark)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ArgumentError, match="--trust-pickle"):
        load_network(str(file), **LINEAR)
    assert not mark.exists()
    with pytest.raises(ArgumentError, match="not a state_dict"):
        load_network(str(file), trust_pickle=True, **LINEAR)
    assert mark.exists()


def test_a_hostile_pickle_under_the_name_of_weights(tmp_path: Path) -> None:
    """A bare pickle called .pt or .safetensors, and an archive whose data.pkl is hostile."""
    mark = tmp_path / "mark"
    content = pickle.dumps(Hostile(mark), protocol=2)
    for name in ("weights.pt", "weights.ckpt"):
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    for name in ("weights.pt", "weights.ckpt", "archive.pt"):
        with pytest.raises(ArgumentError):
            load_network(str(tmp_path / name), **LINEAR)
    assert not mark.exists()


@needs_safe_torch
def test_damaged_files_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(weights(), file)
    whole = file.read_bytes()
    for damaged in (
        b"",
        b"PK\x03\x04",
        whole[:100],
        whole[:-50],
        whole[200:],
        b"hello",
        bytes(range(256)) * 8,
    ):
        file.write_bytes(damaged)
        with pytest.raises(ArgumentError) as caught:
            load_network(str(file), **LINEAR)
        assert (
            str(file) in str(caught.value)
            and len(str(caught.value)) < 500
            and "\n" not in str(caught.value)
        )


@pytest.mark.parametrize(
    "content", [[1, 2], {"weight": 3}, {1: torch.zeros(2)}, {}, torch.zeros(2)], ids=repr
)
@needs_safe_torch
def test_what_is_not_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ArgumentError, match="not a state_dict"):
        load_network(str(tmp_path / "weights.pt"), **LINEAR)


@needs_safe_torch
def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(3, 2), "scale": torch.zeros(2)}, file)
    with pytest.raises(
        ArgumentError, match=r'Missing key.*"bias".*Unexpected key.*"scale".*check --model-class'
    ):
        load_network(str(file), **LINEAR)
    with pytest.raises(ArgumentError, match="--model-class package"):
        load_network(str(file))
    with pytest.raises(ArgumentTypeError, match=r"not a torch\.nn\.Module"):
        load_network(str(file), cls="builtins:dict")


@needs_safe_torch
def test_a_trusted_network(tmp_path: Path) -> None:
    """A whole network needs trust, and then no class.

    Also as an entry of a bare pickle, as NVIDIA's EDM has it.
    """
    network = nn.Linear(2, 2)
    torch.save(network, tmp_path / "network.pt")
    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"ema": network}))
    with pytest.raises(ArgumentError, match="nothing of it was run"):
        load_network(str(tmp_path / "network.pt"))
    for name, key in (("network.pt", None), ("network.pkl", "ema")):
        found = load_network(str(tmp_path / name), key=key, trust_pickle=True)
        assert isinstance(found, nn.Linear) and torch.equal(found.weight, network.weight)
        with pytest.raises(ArgumentError, match="leave --model-class out"):
            load_network(str(tmp_path / name), key=key, trust_pickle=True, **LINEAR)


@pytest.mark.parametrize("release", ["2.4.1", "2.5.1+cu121", "2.9.1"])
def test_a_torch_with_known_holes_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    torch.save(weights(), tmp_path / "weights.pt")
    monkeypatch.setattr(torch, "__version__", release)
    with pytest.raises(
        ArgumentError, match=r"upgrade to torch 2\.10, save the weights as safetensors"
    ):
        load_weights(tmp_path / "weights.pt")


def test_what_a_name_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network, a prediction, a class or a function that makes one.

    A module that cannot be imported says where.
    """
    (tmp_path / "srk_test_networks.py").write_text(
        "import srk, torch\n"
        "def network(x, t): return -x\n"
        "def made(): return network\n"
        "def scaled(factor): return lambda x, t: factor * x\n"
        "def fails(): raise KeyError('no')\n"
        "module = torch.nn.Linear(2, 2)\n"
        "prediction = srk.Score(network)\n"
        "number = 3\n"
    )
    (tmp_path / "srk_test_wrong.py").write_text("x = 1 +")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "srk_test_networks:"
    network = imported(name + "network")
    assert load_network(name + "network") is network
    assert load_network(name + "made") is network
    assert load_network(name + "scaled", arguments={"factor": 3})(2, None) == 6
    assert (
        load_network(name + "module") is imported(name + "module")
        and not imported(name + "module").training
    )
    assert load_network(name + "prediction") is imported(name + "prediction")
    assert isinstance(load_network("torch.nn:Identity"), nn.Identity)
    assert isinstance(load_network("srk:Score", arguments={"network": network}), srk.Score)
    for bad, message in (
        (name + "number", "not a network"),
        (name + "absent", "has no 'absent'; it has fails, made, module"),
        (name + "fails", "failed with KeyError: 'no'.*check --model-args"),
        ("srk_absent:network", "cannot import 'srk_absent'.*PYTHONPATH"),
        ("srk_test_wrong:x", r"importing 'srk_test_wrong' failed with SyntaxError"),
        (":network", "not of the form package.module:attribute"),
        ("os; import sys:path", "not of the form package.module:attribute"),
        ("absent.pt", "there is no file 'absent.pt'"),
        (str(tmp_path), "there is no file"),
        (str(tmp_path / "srk_test_networks.py"), "of no known kind"),
    ):
        with pytest.raises(SRKError, match=message):
            load_network(bad)
    with pytest.raises(ArgumentError, match=r"wrong --model-args.*'factor'"):
        load_network(name + "scaled", arguments={"x": 3})
    with pytest.raises(ArgumentError, match="takes no --model-args"):
        load_network(name + "module", arguments={"x": 3})
    with pytest.raises(ArgumentError, match="are for files"):
        load_network(name + "module", trust_pickle=True)


def test_a_library_planted_beside_the_weights_does_not_run(tmp_path: Path) -> None:
    """Neither with the installed command nor with `python -m srk`."""
    safetensors = pytest.importorskip("safetensors.torch")
    layer = nn.Linear(2, 2)
    safetensors.save_file(layer.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "safetensors.py").write_text("open('planted', 'w')\nraise SystemExit(7)")
    arguments = ["sample", "--model", "w.safetensors", "--model-class", "torch.nn:Linear"]
    arguments += ["--model-args", '{"in_features": 2, "out_features": 2}', "--out", "set"]
    main = "import sys; sys.path[:] = sys.path[1:]; from srk.cli import main; main()"
    for program in (["-c", main], ["-m", "srk"]):
        done = subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(srk.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        # The weights were read, and what is missing is what the user did not say.
        assert done.returncode == 1 and "say what the network returns" in done.stderr
        assert not (tmp_path / "planted").exists()
