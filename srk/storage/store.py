"""The place of a set: a Zarr v3 group on any store, whose chunks are whole or absent.

Two properties of a store are all that a run relies on, so that there is no lock: a value is written
whole or not at all, and the first of two writers of a new key wins. Two runs with the same settings
write the same bytes, in whatever order; a run with other settings finds the first one's and stops.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from srk.errors import ArgumentError, ArgumentTypeError, MissingExtraError, SRKError

FORMAT, ROOT, SAMPLES = "srk-samples-1", "zarr.json", "samples"


@contextmanager
def reaching(where: object) -> Iterator[None]:
    """Say in our own words what a store refuses: it may be a disk or any service."""
    try:
        yield
    except SRKError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines()
        raise SRKError(
            f"the set at {str(where)!r} cannot be read or written ({type(error).__name__}: "
            f"{said[0][:200] if said else 'no reason given'}); check the address, the credentials "
            "and the free space. What is drawn is kept: run the same again to go on"
        ) from error


def open_store(where: Any, options: Mapping[str, Any] | None = None, *, write: bool = True) -> Any:
    """The Zarr store of an address.

    Arguments:
        where: a path, a URL that fsspec knows such as "s3://bucket/set", a dict (memory), or a
            store of `zarr.storage`.
        options: for a URL, what fsspec's file system takes (keys, endpoint, ...).
        write: whether it will be written to; a folder is then made.
    """
    try:
        from zarr.abc.store import Store
        from zarr.storage import FsspecStore, LocalStore, MemoryStore
    except ImportError:
        raise MissingExtraError("a set of samples", "zarr", "sets") from None
    if isinstance(where, Store):
        return where
    if isinstance(where, dict):
        return MemoryStore(where)
    if not isinstance(where, str | os.PathLike):
        raise ArgumentTypeError(
            f"a set is at a path, a URL, or in a store of zarr.storage, not at {where!r}; e.g. "
            "'samples' or 's3://bucket/samples'"
        )
    if "://" not in str(where):
        if options:
            raise ArgumentError(f"storage_options are for a URL; {str(where)!r} is a path")
        return LocalStore(Path(where), read_only=not write)
    try:
        with reaching(where):
            return FsspecStore.from_url(str(where), dict(options or {}), read_only=not write)
    except SRKError as error:
        if isinstance(error.__cause__, ImportError):
            raise MissingExtraError(
                f"the address {where!r}", str(error.__cause__), "sets"
            ) from None
        raise


def call(coroutine: Any) -> Any:
    """What a store's coroutine returns, from the loop that zarr keeps for all of them."""
    from zarr.core.sync import sync

    return sync(coroutine)


def get(store: Any, key: str) -> bytes | None:
    """The bytes under a key, or None."""
    from zarr.core.buffer import default_buffer_prototype

    found = call(store.get(key, default_buffer_prototype()))
    return None if found is None else bytes(found.to_bytes())


def keys(store: Any, prefix: str = "") -> list[str]:
    """The keys that begin with `prefix`."""

    async def listed() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return list(call(listed()))


@attrs.frozen
class Chunks:
    """An array in a set, and which of its chunks along the first axis are there."""

    where: str
    array: Any

    def __len__(self) -> int:
        return -(-int(self.array.shape[0]) // int(self.array.chunks[0]))

    def rows(self, i: int) -> slice:
        """The rows of chunk i."""
        first, size = i * self.array.chunks[0], self.array.chunks[0]
        return slice(first, min(first + size, self.array.shape[0]))

    def key(self, i: int) -> str:
        """The key of chunk i in the store."""
        inside = self.array.metadata.encode_chunk_key((i, *[0] * (self.array.ndim - 1)))
        return f"{self.array.store_path.path}/{inside}"

    def present(self) -> list[bool]:
        """For each chunk, whether there is one of the right size; one listing of the store."""
        with reaching(self.where):
            store = self.array.store
            found = set(keys(store, f"{self.array.store_path.path}/c/"))
            size = int(np.prod(self.array.chunks)) * self.array.dtype.itemsize + 4  # and its crc32c

            async def sizes(names: Sequence[str]) -> list[int]:
                return list(await asyncio.gather(*(store.getsize(name) for name in names)))

            here = [name for name in map(self.key, range(len(self))) if name in found]
            sized: dict[str, int] = {}
            for first in range(0, len(here), 64):
                part = here[first : first + 64]
                sized.update(zip(part, call(sizes(part)), strict=True))
            return [sized.get(self.key(i)) == size for i in range(len(self))]

    def sound(self, i: int) -> bool:
        """Whether chunk i is there with its bytes as they were written; reads it."""
        with reaching(self.where):
            if get(self.array.store, self.key(i)) is None:
                return False
            try:
                self.array[self.rows(i)]
            except (ValueError, TypeError, RuntimeError):  # cut short, or another checksum
                return False
            return True

    def read(self, i: int) -> np.ndarray[Any, Any]:
        """Chunk i.

        Raises:
            SRKError: it is missing or damaged.
        """
        if not self.sound(i):
            raise SRKError(
                f"chunk {i} of the set at {self.where!r} is missing or damaged; the call that drew "
                "the set draws it again"
            )
        return np.asarray(self.array[self.rows(i)])

    def write(self, i: int, values: np.ndarray[Any, Any]) -> None:
        """Write chunk i, whole or not at all."""
        with reaching(self.where):
            store, key = self.array.store, self.key(i)
            root = getattr(store, "root", None)
            if isinstance(root, Path) and not _within(root, root / key):
                raise ArgumentError(
                    f"{str(root / key)!r} leads out of the set by a link; give another folder"
                )
            # zarr would read what is there, if the last chunk is not full; it may be damaged.
            if self.rows(i).stop - self.rows(i).start < self.array.chunks[0]:
                call(store.delete(key))
            self.array[self.rows(i)] = values


def _within(root: Path, path: Path) -> bool:
    return not path.is_symlink() and path.parent.resolve().is_relative_to(root.resolve())


def attributes_of(settings: Mapping[str, Any], times: Sequence[float] | None) -> dict[str, Any]:
    """The attributes of a set."""
    told = {"settings": dict(settings), "times": times}
    return {"format": FORMAT, "fingerprint": fingerprint(told), **told}


def fingerprint(told: Mapping[str, Any]) -> str:
    """A digest of what the attributes say, which shows that a person or a disk changed them."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_attributes(store: Any, where: object) -> dict[str, Any]:
    """The attributes of a set, or {} where there is nothing.

    Raises:
        ArgumentError: something else is there, or it is not as a run of ours wrote it.
    """
    with reaching(where):
        text = get(store, ROOT)
        if text is None:
            others = [key for key in keys(store) if not key.endswith(".partial")]
            if others:
                raise ArgumentError(
                    f"{str(where)!r} holds other files ({', '.join(sorted(others)[:3])}"
                    f"{', ...' if len(others) > 3 else ''}) and no set of samples; give a new or "
                    "an empty place"
                )
            return {}
    try:
        found = json.loads(text)["attributes"]
        told = {name: found[name] for name in ("settings", "times")}
        intact = found["format"] == FORMAT and found["fingerprint"] == fingerprint(told)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise ArgumentError(
            f"{ROOT} in {str(where)!r} is not as a run of srk wrote it; give another place"
        )
    return dict(found)


def compare(found: Mapping[str, Any], settings: Mapping[str, Any], where: object) -> None:
    """Refuse a set with other settings, by their names."""
    names = [n for n in {**found, **settings} if found.get(n) != settings.get(n)]
    if "nfe" in names:  # the user says nfe or steps, and steps follow from it
        names = [name for name in names if name != ("steps" if "steps" in names else "nfe")]
    if "solver" in names and ("nfe" in names or "steps" in names):
        kinds = {str(held.get("solver")).partition("(")[0] for held in (found, settings)}
        if len(kinds) == 1:  # what `auto` chose other numbers of by the number of calls
            names.remove("solver")
    if names:
        shown = "; ".join(f"{n} was {found.get(n)!r}, is {settings.get(n)!r}" for n in names)
        raise ArgumentError(
            f"{str(where)!r} holds a run with other settings ({shown}); give another place, or the "
            "settings of that run"
        )


def create(
    store: Any,
    where: object,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, tuple[tuple[int, ...], Any]],
    batch: int,
) -> None:
    """Begin a set, unless another run was first.

    Arguments:
        store, where: where.
        attributes: settings and what belongs to them.
        arrays: name -> shape and dtype; all are cut into chunks of `batch` rows.
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    draft = MemoryStore()
    group = zarr.create_group(draft, attributes=dict(attributes))
    for name, (shape, dtype) in arrays.items():
        group.create_array(
            name,
            shape=shape,
            chunks=(min(batch, shape[0]), *shape[1:]),
            dtype=dtype,
            filters=None,
            compressors=[Crc32cCodec()],
            fill_value=float("nan") if np.issubdtype(dtype, np.floating) else 0,
            dimension_names=("sample", *(f"{name}_{i}" for i in range(len(shape) - 1))),
        )
    with warnings.catch_warnings():  # xarray opens a set at once with it, and others pass it over
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(draft, zarr_format=3)
    with reaching(where):
        for key in sorted(keys(draft), key=lambda key: key != ROOT):  # the claim comes first
            value = call(draft.get(key, default_buffer_prototype()))
            try:
                call(store.set_if_not_exists(key, value))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                call(store.set(key, value))  # a file system without hard links


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)


def open_chunks(store: Any, where: object, name: str = SAMPLES, *, write: bool = False) -> Chunks:
    """An array of a set, as it should be.

    Raises:
        ArgumentError: its description is missing or was changed.
    """
    import zarr

    try:
        array = zarr.open_array(store, path=name, mode="r+" if write else "r")
        if (getattr(array.metadata, "dimension_names", None) or ("",))[0] != "sample":
            raise ValueError("it is not an array of samples")
    except OSError as error:
        with reaching(where):
            raise error
    except Exception as error:
        raise ArgumentError(
            f"{name!r} in {str(where)!r} is not as a run of srk wrote it ({error}); give another "
            "place"
        ) from error
    return Chunks(str(where), array)
