"""The folder of a set of samples: settings, shards that are whole or not there, and the file they become."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
from torch import Tensor

from srk.errors import ArgumentError, SRKError
from srk.storage.lock import LOCK

SETTINGS, SAMPLES, SHARDS = "settings.json", "samples.npy", "shards"


@attrs.frozen
class Store:
    """The folder of one set."""

    folder: Path
    settings: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batch: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to draw: `open` will find the set complete, or refuse it."""
        return (self.folder / SAMPLES).exists()

    def open(self) -> list[int]:
        """Check or begin the folder; returns the first indices of the shards that are missing, none if the set is complete."""
        file = self.folder / SETTINGS
        if file.exists():
            self._compare(file)
        else:
            others = sorted(
                path.name
                for path in self.folder.iterdir()
                if not (path.name == LOCK or _temporary(path))
            )
            if others:
                raise ArgumentError(
                    f"the folder {str(self.folder)!r} holds other files ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}) and no {SETTINGS}; "
                    "give a new or an empty folder"
                )
            text = json.dumps(
                {"fingerprint": self._fingerprint(self.settings), "settings": self.settings},
                indent=1,
            )
            _write(file, lambda out: out.write(text.encode()))
        shards = self.folder / SHARDS
        for place in (self.folder, shards):
            for path in place.glob(".*.tmp"):  # of a run that was killed
                path.unlink(missing_ok=True)
        samples = self.folder / SAMPLES
        if samples.exists():
            if not _sound(samples, self.shape, self.dtype):
                raise ArgumentError(
                    f"{str(samples)!r} is damaged or was changed after the run; move it away to draw the set again"
                )
            shutil.rmtree(shards, ignore_errors=True)
            return []
        shards.mkdir(exist_ok=True)
        return [
            first
            for first in range(0, self.shape[0], self.batch)
            if not _sound(self._shard(first), self._shape(first), self.dtype)
        ]

    def write(self, first: int, x: Tensor) -> None:
        """Write the shard of the samples from index `first` on, whole or not at all."""
        array = x.detach().cpu().numpy()
        _write(
            self._shard(first),
            lambda out: np.lib.format.write_array(out, array, allow_pickle=False),
        )

    def merge(self) -> None:
        """Join the shards into one file, and remove them."""
        target = self.folder / SAMPLES
        if target.exists():
            return
        starts = range(0, self.shape[0], self.batch)
        for first in starts:
            if not _sound(self._shard(first), self._shape(first), self.dtype):
                raise SRKError(
                    f"the shard {str(self._shard(first))!r} is missing or damaged; all machines must share the folder, and no other run use it. Run the same command again"
                )

        def join(out: BinaryIO) -> None:
            np.lib.format.write_array_header_1_0(
                out,
                {
                    "descr": np.lib.format.dtype_to_descr(self.dtype),
                    "fortran_order": False,
                    "shape": self.shape,
                },
            )
            for first in starts:
                out.write(
                    np.ascontiguousarray(np.load(self._shard(first), allow_pickle=False)).data
                )

        _write(target, join)
        shutil.rmtree(self.folder / SHARDS, ignore_errors=True)

    def _compare(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            settings, intact = (
                found["settings"],
                found["fingerprint"] == self._fingerprint(found["settings"]),
            )
        except (ValueError, KeyError, TypeError):
            settings, intact = None, False
        if not intact or not isinstance(settings, dict):
            raise ArgumentError(
                f"{str(file)!r} is not as a run of srk wrote it; give another folder"
            )
        if settings != self.settings:
            names = [
                name
                for name in {**settings, **self.settings}
                if settings.get(name) != self.settings.get(name)
            ]
            shown = "; ".join(
                f"{name} was {settings.get(name)!r}, is {self.settings.get(name)!r}"
                for name in names
            )
            raise ArgumentError(
                f"the folder {str(self.folder)!r} holds a run with other settings ({shown}); give another folder, or the settings of that run"
            )

    @staticmethod
    def _fingerprint(settings: Any) -> str:
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def _shard(self, first: int) -> Path:
        return self.folder / SHARDS / f"{first:012d}.npy"

    def _shape(self, first: int) -> tuple[int, ...]:
        return min(self.batch, self.shape[0] - first), *self.shape[1:]


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, even if the machine stops."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # the new name too is on the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def _sound(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether the file is there, whole, and an array of this shape and dtype."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return (
        isinstance(array, np.ndarray)
        and array.shape == shape
        and array.dtype == dtype
        and math.prod(shape) == array.size
    )
