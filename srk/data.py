"""Real data sets for comparisons: images scaled to [-1, 1], read from packages that bring them; nothing is downloaded behind your back."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srk.errors import ArgumentError, MissingDataError, MissingExtraError

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package puts Fashion-MNIST."""

FASHION_FILE = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


def cache_folder() -> Path:
    """Where data sets are looked for: the environment variable SRK_CACHE, else `srk` in the user's cache folder."""
    given = os.environ.get("SRK_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srk"


def digits() -> Tensor:
    """scikit-learn's 1797 handwritten digits, shape (1797, 8, 8), float32 in [-1, 1]. BSD-3.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("the digits data set", "scikit-learn", "demo") from None
    return torch.tensor(load_digits().images, dtype=torch.float32) / 8 - 1


def fashion_mnist(n: int | None = None, *, split: str = "train") -> Tensor:
    """Fashion-MNIST, shape (n, 28, 28), float32 in [-1, 1]. MIT.

    Arguments:
        n: the first n images; default all (60000 of "train", 10000 of "test").
        split: "train" or "test".

    Raises:
        MissingDataError: the files are not here; the message gives the command that brings them.
    """
    if split not in FASHION_FILE:
        raise ArgumentError(f"split must be 'train' or 'test', not {split!r}")
    images = _read_idx(_find_fashion(FASHION_FILE[split]))
    if n is not None and not 0 < n <= len(images):
        raise ArgumentError(f"the {split} split of Fashion-MNIST has {len(images)} images, not n={n!r}")
    return torch.from_numpy(images[:n].astype(np.float32)) / 127.5 - 1


def _find_fashion(name: str) -> Path:
    folder = cache_folder() / "fashion-mnist"
    for place in (INSTALLED, folder):
        for found in sorted(place.rglob(name)) if place.is_dir() else []:
            return found
    deb = "dataset-fashion-mnist"
    raise MissingDataError(
        f"Fashion-MNIST ({name}) is neither installed nor in {folder}. On Debian or Ubuntu: sudo apt-get install {deb}. "
        f"Without root: (mkdir -p {folder} && cd {folder} && apt-get download {deb} && dpkg -x {deb}_*.deb .)"
    )


def _read_idx(path: Path) -> np.ndarray:
    """Images of an idx3-ubyte file, shape (n, rows, columns), uint8."""
    with gzip.open(path, "rb") as file:
        magic, count, rows, columns = struct.unpack(">4i", file.read(16))
        content = file.read()
    if magic != 0x803 or len(content) != count * rows * columns:
        raise ArgumentError(f"{path} is not a complete file of images in idx3-ubyte format")
    return np.frombuffer(content, dtype=np.uint8).reshape(count, rows, columns)
