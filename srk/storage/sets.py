"""A set of samples that was drawn: read it, follow it, take it elsewhere."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError, SRKError
from srk.storage import store as stores
from srk.storage.part_chunks import PartChunks, open_parts


@attrs.frozen
class SampleSet:
    """A set of samples on a disk, in memory or in an object store.

    Arguments:
        where: its address.
        shape: (n, *event); of a product a dict with the shape of each part.
        drawn: samples that this run drew, by all its workers; the others were there.
        nfe: network calls for a sample; None if this process saw none drawn.
        array: the samples as a `zarr.Array`, of a product a dict with one for each part; for a set
            of srk 0.1 a memory-mapped array.
        settings: what made the samples.

    Examples:
        >>> import srk, tempfile
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> place = tempfile.mkdtemp()
        >>> _ = srk.sample_to(place, process, target.score(process), shape=10, batch=4, nfe=8)
        >>> samples = srk.SampleSet.open(place)
        >>> samples.shape, samples.settings["seed"], [len(chunk) for chunk in samples.chunks()]
        ((10, 1), 0, [4, 4, 2])
    """

    where: str
    shape: Any
    drawn: int
    nfe: int | None
    array: Any = attrs.field(repr=False)
    settings: Mapping[str, Any] = attrs.field(repr=False, factory=dict)

    @staticmethod
    def open(where: Any, storage_options: Mapping[str, Any] | None = None) -> SampleSet:
        """A set that is there, complete or not; also the folder of a complete set of srk 0.1.

        Arguments:
            where, storage_options: as in `srk.sample_to`.

        Raises:
            ArgumentError: there is no set.
            SRKError: the store cannot be reached.
        """
        if isinstance(where, str | os.PathLike) and "://" not in str(where):
            if not Path(where).is_dir():
                raise ArgumentError(f"there is no set of samples at {str(where)!r}")
            if (Path(where) / "samples.npy").is_file():
                return _of_version_0_1(Path(where))
        store = stores.open_store(where, storage_options, write=False)
        found = stores.read_attributes(store, where)
        if not found:
            raise ArgumentError(f"there is no set of samples at {str(where)!r}")
        parts = found["settings"].get("parts")
        if parts:
            arrays = open_parts(store, where, parts).array
            shapes = {name: tuple(array.shape) for name, array in arrays.items()}
            return SampleSet(str(where), shapes, 0, None, arrays, found["settings"])
        array = stores.open_chunks(store, where).array
        return SampleSet(str(where), tuple(array.shape), 0, None, array, found["settings"])

    @property
    def path(self) -> Path:
        """The folder of a set on a local disk."""
        return Path(self.where)

    def status(self, *, verify: bool = False) -> tuple[int, int]:
        """How many samples are there, and how many there will be.

        Arguments:
            verify: read them and count those that are not damaged; else compare sizes.
        """
        chunks = self._stored()
        if chunks is None:
            return len(self.array), len(self.array)
        here = [i for i, there in enumerate(chunks.present()) if there]
        sizes = (chunks.rows(i) for i in here if not verify or chunks.sound(i))
        return sum(rows.stop - rows.start for rows in sizes), self._count

    @property
    def _count(self) -> int:
        """How many samples the set has when it is complete."""
        shape = next(iter(self.shape.values())) if isinstance(self.shape, dict) else self.shape
        return int(shape[0])

    def _stored(self) -> stores.Chunks | PartChunks | None:
        """The chunks of a set in a store; None for a set of srk 0.1."""
        if isinstance(self.array, dict):
            chunks = {name: stores.Chunks(self.where, one) for name, one in self.array.items()}
            return PartChunks(chunks)
        return stores.Chunks(self.where, self.array) if hasattr(self.array, "metadata") else None

    def chunks(self, stop: int | None = None) -> Iterator[Any]:
        """The samples in order, a chunk at a time on the CPU; with `stop` the first ones alone.

        Of a product a chunk is a dict with a tensor for each part.

        Raises:
            SRKError: a chunk is missing or damaged.
        """
        last = self._count if stop is None else min(stop, self._count)
        chunks = self._stored()
        if chunks is None:
            for first in range(0, last, 1024):
                yield torch.from_numpy(np.array(self.array[first : min(first + 1024, last)]))
            return
        for i in range(len(chunks)):
            count = last - chunks.rows(i).start
            if count > 0:
                found = chunks.read(i)
                if isinstance(found, dict):
                    yield {name: _tensor(part[:count]) for name, part in found.items()}
                else:
                    yield _tensor(found[:count])

    def load(self, stop: int | None = None) -> Any:
        """The samples, (n, *event), on the CPU; with `stop` the first ones without the others.

        Of a product a dict with the samples of each part.
        """
        made = list(self.chunks(stop))
        if isinstance(self.array, dict):
            return {name: torch.cat([chunk[name] for chunk in made]) for name in self.array}
        return torch.cat(made)

    def _refuse_parts(self, what: str) -> None:
        """Raise if the samples are of a product, of which `what` makes nothing."""
        if isinstance(self.array, dict):
            raise IncompatibleError(
                f"{what} is for samples of one array, but these have the parts "
                f"{', '.join(map(repr, self.array))}; read them with load() or chunks(), e.g. "
                "torch.save(samples.load(), 'samples.pt')"
            )

    def export(self, to: str | os.PathLike[str], *, low: float = -1.0, high: float = 1.0) -> Path:
        """Write the samples in another form, a chunk at a time.

        Arguments:
            to: a new file `.npy` or `.npz` (with the settings as JSON), or a new folder for one PNG
                a sample, `000000.png`, ...
            low, high: values shown as black and white in pictures.

        Returns:
            The file or folder.

        Raises:
            ArgumentError: it is there already, or samples are not images.
        """
        self._refuse_parts("export")
        target = Path(to)
        if target.exists():
            raise ArgumentError(f"{str(target)!r} is there already; give a new name")
        if target.suffix == ".npy":
            self._whole(target, self._array_into)
        elif target.suffix == ".npz":
            self._whole(target, self._archive_into)
        elif target.suffix:
            raise ArgumentError(f"{str(target)!r} is neither .npy nor .npz nor a folder for images")
        else:
            self._images_into(target, low, high)
        return target

    def convert(self, to: Any, *, batch: int = 1024, **options: Any) -> SampleSet:
        """The same samples as a Zarr set at another place, with the settings that they have.

        It brings a set of srk 0.1, or a set of another place, into the form of today.

        Arguments:
            to, options: place and `storage_options`, as in `srk.sample_to`.
            batch: samples in a chunk.
        """
        self._refuse_parts("convert")
        store = stores.open_store(to, options.get("storage_options"))
        settings = {**self.settings, "converted": True}
        found = stores.read_attributes(store, to)
        if found:
            stores.compare(found["settings"], settings, to)
        attributes = stores.attributes_of(settings, None)
        stores.create(
            store, to, attributes, {stores.SAMPLES: (self.shape, self.array.dtype)}, batch
        )
        chunks = stores.open_chunks(store, to, write=True)
        for i in range(len(chunks)):
            if not chunks.sound(i):
                rows = chunks.rows(i)
                chunks.write(i, np.asarray(self.array[rows]))
        return SampleSet(str(to), self.shape, 0, None, chunks.array, settings)

    def _whole(self, target: Path, fill: Any) -> None:
        """A file that is there whole or not at all."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with partial.open("xb") as out:
                fill(out)
            partial.replace(target)
        except OSError as error:
            raise SRKError(f"cannot write {str(target)!r}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _array_into(self, out: Any) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self.array.dtype)),
            "fortran_order": False,
            "shape": self.shape,
        }
        np.lib.format.write_array_header_1_0(out, header)
        for chunk in self.chunks():
            out.write(chunk.numpy().tobytes())

    def _archive_into(self, out: Any) -> None:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("samples.npy", "w", force_zip64=True) as member:
                self._array_into(member)
            with archive.open("settings.npy", "w") as member:
                np.lib.format.write_array(member, np.array(json.dumps(dict(self.settings))))

    def _images_into(self, target: Path, low: float, high: float) -> None:
        from srk._pictures import check_images, image_of

        check_images(self.shape[1:])
        target.mkdir(parents=True)
        digits, number = max(6, len(str(self.shape[0] - 1))), 0
        for chunk in self.chunks():
            for sample in chunk:
                image_of(sample, low=low, high=high).save(target / f"{number:0{digits}d}.png")
                number += 1


def _tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with memory of its own."""
    return torch.from_numpy(np.array(values))


def _of_version_0_1(folder: Path) -> SampleSet:
    try:
        array = np.load(folder / "samples.npy", mmap_mode="r", allow_pickle=False)
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]
        shape = tuple(int(n) for n in settings["shape"])
        if array.shape != shape:
            raise ValueError(f"it has shape {array.shape}, and its settings say {shape}")
    except Exception as error:  # NumPy's reader of headers raises much besides ValueError
        raise ArgumentError(
            f"the set in {str(folder)!r} is damaged or was changed after the run ({error}); move "
            "it "
            "away, and draw it again"
        ) from error
    return SampleSet(str(folder), shape, 0, None, array, settings)
