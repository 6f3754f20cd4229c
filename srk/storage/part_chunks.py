"""The arrays of a set of samples with several parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from srk.storage.store import SAMPLES, Chunks, open_chunks


@attrs.frozen
class PartChunks:
    """The arrays of the parts of a product, whose chunks count together: all of them or none.

    Arguments:
        parts: the array of each part by its name, all with the same rows in a chunk.
    """

    parts: Mapping[str, Chunks]

    @property
    def first(self) -> Chunks:
        """The array of the first part."""
        return next(iter(self.parts.values()))

    @property
    def where(self) -> str:
        """The place of the set."""
        return self.first.where

    @property
    def array(self) -> dict[str, Any]:
        """The array of each part."""
        return {name: part.array for name, part in self.parts.items()}

    def __len__(self) -> int:
        return len(self.first)

    def rows(self, i: int) -> slice:
        """The rows of chunk i."""
        return self.first.rows(i)

    def present(self) -> list[bool]:
        """For each chunk, whether all parts have it in the right size."""
        return [
            all(there) for there in zip(*(p.present() for p in self.parts.values()), strict=True)
        ]

    def sound(self, i: int) -> bool:
        """Whether chunk i of all parts is there with its bytes as they were written."""
        return all(part.sound(i) for part in self.parts.values())

    def read(self, i: int) -> dict[str, np.ndarray[Any, Any]]:
        """Chunk i of each part."""
        return {name: part.read(i) for name, part in self.parts.items()}

    def write(self, i: int, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write chunk i of each part, each whole or not at all."""
        for name, part in self.parts.items():
            part.write(i, values[name])


def array_of(part: str) -> str:
    """The name of the array of a part of a product."""
    return f"{SAMPLES}/{part}"


def open_parts(
    store: Any, where: object, parts: Sequence[str], *, write: bool = False
) -> PartChunks:
    """The arrays of a set of a product; as `open_chunks`."""
    return PartChunks(
        {name: open_chunks(store, where, array_of(name), write=write) for name in parts}
    )
