"""Data sets: what is read, and what is said where they are missing."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from srk.errors import ArgumentError, MissingDataError, MissingExtraError
from srk.targets import datasets


def write_idx(path: Path, images: np.ndarray, magic: int = 0x803) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">4i", magic, *images.shape) + images.tobytes())


def test_digits() -> None:
    pytest.importorskip("sklearn")
    x = datasets.digits()
    assert (tuple(x.shape), float(x.min()), float(x.max())) == ((1797, 8, 8), -1.0, 1.0)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match="scikit-learn"):
        datasets.digits()


def test_fashion_mnist_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRK_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, "INSTALLED", tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"apt-get install dataset-fashion-mnist.*dpkg -x"):
        datasets.fashion_mnist()
    images = np.arange(3 * 28 * 28, dtype=np.uint64).astype(np.uint8).reshape(3, 28, 28)
    place = (
        tmp_path
        / "fashion-mnist"
        / "usr"
        / "share"
        / "datasets"
        / "fashion-mnist"
        / "train-images-idx3-ubyte.gz"
    )
    write_idx(place, images)
    x = datasets.fashion_mnist(2)
    assert tuple(x.shape) == (2, 28, 28)
    assert float(x[0, 0, 0]) == -1.0
    assert float(x[0].flatten()[255]) == 1.0
    with pytest.raises(ArgumentError, match="3 images"):
        datasets.fashion_mnist(4)
    with pytest.raises(ArgumentError, match="train"):
        datasets.fashion_mnist(split="validation")
    write_idx(place, images, magic=0x801)
    with pytest.raises(ArgumentError, match="idx3-ubyte"):
        datasets.fashion_mnist()


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SRK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.cache_folder() == tmp_path / "srk"
