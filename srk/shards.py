"""Sets of samples on disk: drawn in shards by global index, by one process or many, and resumed where a run was stopped."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import attrs
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from srk._version import __version__
from srk.control import StepController
from srk.errors import ArgumentError, ArgumentTypeError, SolveError, SRKError
from srk.integrators import Integrator
from srk.noise import noise_source
from srk.processes.base import ForwardProcess
from srk.sampler import Sampler, batch_shape
from srk.scores import Prediction, as_prediction
from srk.tableaus import StochasticTableau

SETTINGS, SAMPLES, SHARDS = "settings.json", "samples.npy", "shards"
DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}
TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
PATIENCE = timedelta(days=30)
"""How long a process waits for slower ones; one that has died is noticed at once."""


@attrs.frozen(slots=True)
class SampleSet:
    """A complete set of samples on disk.

    Arguments:
        folder: where it is.
        shape: (n, *event).
        drawn: samples that this run drew, by all its processes; the others were there.
        nfe: network calls for a sample; None if this process drew none.
    """

    folder: Path
    shape: tuple[int, ...]
    drawn: int
    nfe: int | None

    @property
    def path(self) -> Path:
        """The file of the samples, in NumPy's format: `np.load(path, mmap_mode="r")`."""
        return self.folder / SAMPLES

    def load(self, stop: int | None = None) -> Tensor:
        """The samples, (n, *event), on the CPU; with `stop` the first ones alone, without reading the others."""
        return torch.from_numpy(np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[:stop]))


def sample_to(
    folder: str | os.PathLike[str],
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    solver: str | Integrator | StochasticTableau = "srk2",
    *,
    shape: Sequence[int] | int | None = None,
    batch: int = 64,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | StepController | Sequence[float] | Tensor | None = None,
    controller: str | StepController | None = None,
    eta: float | None = None,
    noise: str = "keyed",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    denoise_final: bool | None = None,
    autocast: torch.dtype | None = None,
    compile: Literal[False, "step"] = False,
    progress: bool = False,
) -> SampleSet:
    """Draw samples into a folder: more than fit into memory, on many devices, and resumed after a stop.

    Samples are drawn `batch` at a time and kept in shards that are written whole or not at all. A second call with the same settings draws what is
    missing; with other settings it is refused. Under `torchrun`, or in a program that has called `torch.distributed.init_process_group`, every
    process calls this with the same arguments and they share the work. A sample's noise is a function of seed and index alone and the
    batches do not depend on the number of processes, so any number writes the same bytes, as far as the network itself is reproducible.

    Arguments:
        folder: a new or empty folder, or that of an earlier run. It gets `samples.npy` (the samples, in order), `settings.json`, and `shards/`
            until the set is complete. Processes on several machines need a shared one.
        shape: (n, *event) of the whole set; an int n is enough where the score knows its event shape.
        batch: samples drawn together, and in one shard.
        noise: "keyed" or "brownian": noise that belongs to the sample.
        seed: seed of the set.
        device: of the samples; "cuda" is the GPU of this process (LOCAL_RANK), where its network must be too.
        dtype: torch.float16, float32 or float64.
        progress: show a progress bar (of the first process).
        process, score, solver, steps, nfe, grid, controller, eta, denoise_final, autocast, compile: as in `srk.solve`. Conditions in `model_kwargs`
            whose first axis is n are cut for each batch.

    Returns:
        The complete set, in every process.

    Raises:
        ArgumentError: the folder holds something else or a run with other settings; an argument makes no sense.
        IncompatibleError: the noise source does not belong to the sample.
        SolveError: the network returned NaN or inf; the message says for which samples.
        SRKError: another process of the run has ended before its time.

    Examples:
        >>> import srk, tempfile
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> folder = tempfile.mkdtemp()
        >>> samples = sample_to(folder, process, target.score(process), "srk2m", shape=(10, 1), batch=4, nfe=8)
        >>> samples.load().shape, samples.drawn
        (torch.Size([10, 1]), 10)
        >>> sample_to(folder, process, target.score(process), "srk2m", shape=(10, 1), batch=4, nfe=8).drawn  # all there
        0
    """
    if compile not in (False, "step"):
        raise ArgumentError(
            f"compile is False or 'step' here, not {compile!r}: a graph of the whole run cannot draw noise that belongs to the sample"
        )
    prediction = as_prediction(score)
    sampler = Sampler(
        process,
        prediction,
        solver,
        steps=steps,
        nfe=nfe,
        grid=grid,
        controller=controller,
        eta=eta,
        denoise_final=denoise_final,
        autocast=autocast,
        compile=compile,
    )
    whole = batch_shape(shape, sampler.prediction.event_shape)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ArgumentError(f"batch must be a positive int, not {batch!r}")
    if dtype not in DTYPES:
        raise ArgumentError(
            f"samples on disk are of dtype torch.float16, float32 or float64, not {dtype!r}; a network may use another (network_dtype)"
        )
    if not isinstance(noise, str) or not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentTypeError(
            f"noise is a name and seed an int here, so that a run can be resumed, not {noise!r} and {seed!r}; e.g. noise='keyed', seed=0"
        )
    source = noise_source(noise, seed)
    source.part(0, 1)  # says now if it cannot be cut
    place = process_device(device)
    settings = {
        "srk": __version__,
        "torch": torch.__version__,
        "process": identity(process),
        "score": identity(prediction),
        "solver": identity(sampler.method),
        "steps": sampler.steps,
        "grid": identity(sampler.control),
        "eta": sampler.eta,
        "denoise_final": sampler.denoise,
        "autocast": None if autocast is None else str(autocast),
        "compile": compile,
        "noise": noise,
        "seed": seed,
        "shape": list(whole),
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "device": place.type,
    }
    store = _Store(Path(folder), settings, whole, np.dtype(DTYPES[dtype]), batch)
    calls: int | None = None
    with _together() as group:
        missing: list[int] = group.share(store.open() if group.rank == 0 else None)
        mine = missing[group.rank :: group.size]
        with _bar(progress and group.rank == 0, len(mine)) as tick:
            for first in mine:
                count = min(batch, whole[0] - first)
                piece = copy.copy(sampler)
                piece.prediction = sampler.prediction.select(slice(first, first + count), whole[0])
                try:
                    solution = piece((count, *whole[1:]), noise=source.part(first, count), device=place, dtype=dtype)
                except SolveError as error:
                    raise SolveError(
                        f"samples {first} to {first + count - 1}: {error.solution.status}; finished shards are kept", error.solution
                    ) from error
                store.write(first, solution.x)
                calls = max(calls or 0, solution.nfe)
                tick()
        group.wait()
        if group.rank == 0:
            store.merge()
        group.wait()
    return SampleSet(store.folder, whole, sum(min(batch, whole[0] - first) for first in missing), calls)


def process_device(device: torch.device | str | None = None) -> torch.device:
    """The device that is meant in this process: "cuda" under torchrun is the GPU number LOCAL_RANK of the machine; None is the CPU.

    Raises:
        ArgumentError: it is not the name of a device, or not there.
    """
    try:
        place = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ArgumentError(f"{device!r} is not a device; e.g. cpu, cuda, cuda:1, mps") from error
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise ArgumentError(
                f"device {str(device)!r} is asked for, but this torch finds no GPU; use device='cpu', or install torch for CUDA"
            )
        count = torch.cuda.device_count()
        if place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % count)
        elif place.index >= count:
            raise ArgumentError(f"there is no device {str(device)!r}: this machine has {count}")
    return place


def identity(value: object) -> str:
    """What tells one process, network or solver from another in every Python process: its repr, and a digest of the numbers in it.

    The digest is over public attributes, the state_dict of modules and what functions close over. Code is known by its name only.

    Examples:
        >>> import srk
        >>> identity(srk.VP()) == identity(srk.VP()) != identity(srk.VP(beta_max=10.0))
        True
    """
    digest = hashlib.sha256()
    _feed(value, digest.update, {})
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return f"{text if len(text) <= 200 else type(value).__name__} {digest.hexdigest()[:16]}"


def _feed(value: Any, update: Callable[[bytes | memoryview], None], seen: dict[int, object]) -> None:
    """Pass the parts of `value` on as bytes."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device | np.generic):
        update(f"{type(value).__name__} {value!r};".encode())
        return
    if isinstance(value, np.ndarray):
        update(f"array {value.shape} {value.dtype};".encode() + value.tobytes())
        return
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        update(f"tensor {tuple(tensor.shape)} {tensor.dtype};".encode())
        # a clone, for what is expanded has strides that bytes cannot have
        update(tensor.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().data if tensor.numel() else b"")
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # held, for the id of an object that is gone is given to another
    if isinstance(value, nn.Module):
        for name, module in value.named_modules():
            numbers = {k: v for k, v in vars(module).items() if not k.startswith("_") and isinstance(v, bool | int | float | str)}
            update(f"{name} {_name(type(module))} {sorted(numbers.items())!r};".encode())
        _feed(dict(value.state_dict()), update, seen)
    elif isinstance(value, Mapping):
        for key in value:
            _feed(key, update, seen)
            _feed(value[key], update, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for entry in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            _feed(entry, update, seen)
    elif isinstance(value, ModuleType):  # what a builtin function is bound to
        update(f"{value.__name__};".encode())
    elif isinstance(value, partial):
        _feed((value.func, value.args, value.keywords), update, seen)
    elif callable(value) and hasattr(value, "__qualname__"):
        update(f"{_name(value)};".encode())
        _feed(getattr(value, "__self__", None), update, seen)
        _feed(getattr(value, "__defaults__", None), update, seen)
        for cell in getattr(value, "__closure__", None) or ():
            _feed(cell.cell_contents, update, seen)
    else:
        update(f"{_name(type(value))};".encode())
        fields = [f.name for f in attrs.fields(type(value))] if attrs.has(type(value)) else sorted(getattr(value, "__dict__", ()))
        for field in fields:
            if not field.startswith("_"):  # what begins with one is derived, or a cache
                update(f"{field}=".encode())
                _feed(getattr(value, field), update, seen)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


# -- files ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Store:
    """The folder of one set."""

    folder: Path
    settings: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batch: int

    def open(self) -> list[int]:
        """Check or begin the folder; returns the first indices of the shards that are missing, none if the set is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / SETTINGS
        if file.exists():
            self._compare(file)
        else:
            others = sorted(path.name for path in self.folder.iterdir() if not _temporary(path))
            if others:
                raise ArgumentError(
                    f"the folder {str(self.folder)!r} holds other files ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}) and no {SETTINGS}; "
                    "give a new or an empty folder"
                )
            text = json.dumps({"fingerprint": self._fingerprint(self.settings), "settings": self.settings}, indent=1)
            _write(file, lambda out: out.write(text.encode()))
        shards = self.folder / SHARDS
        for place in (self.folder, shards):
            for path in place.glob(".*.tmp"):  # of a run that was killed
                path.unlink()
        samples = self.folder / SAMPLES
        if samples.exists():
            if not _sound(samples, self.shape, self.dtype):
                raise ArgumentError(f"{str(samples)!r} is damaged or was changed after the run; move it away to draw the set again")
            shutil.rmtree(shards, ignore_errors=True)
            return []
        shards.mkdir(exist_ok=True)
        return [first for first in range(0, self.shape[0], self.batch) if not _sound(self._shard(first), self._shape(first), self.dtype)]

    def write(self, first: int, x: Tensor) -> None:
        """Write the shard of the samples from index `first` on, whole or not at all."""
        array = x.detach().cpu().numpy()
        _write(self._shard(first), lambda out: np.lib.format.write_array(out, array, allow_pickle=False))

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
                out, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
            )
            for first in starts:
                out.write(np.ascontiguousarray(np.load(self._shard(first), allow_pickle=False)).data)

        _write(target, join)
        shutil.rmtree(self.folder / SHARDS)

    def _compare(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            settings, intact = found["settings"], found["fingerprint"] == self._fingerprint(found["settings"])
        except (ValueError, KeyError, TypeError):
            settings, intact = None, False
        if not intact or not isinstance(settings, dict):
            raise ArgumentError(f"{str(file)!r} is not as a run of srk wrote it; give another folder")
        if settings != self.settings:
            names = [name for name in {**settings, **self.settings} if settings.get(name) != self.settings.get(name)]
            shown = "; ".join(f"{name} was {settings.get(name)!r}, is {self.settings.get(name)!r}" for name in names)
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
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype and math.prod(shape) == array.size


# -- processes --------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Group:
    """The processes of a run. Only small messages pass between them, on the CPU, whatever their network uses."""

    rank: int = 0
    size: int = 1
    handle: Any = None

    def share(self, value: Any) -> Any:
        """What the first process says."""
        if self.size == 1:
            return value
        values = [value]
        with _peers():
            dist.broadcast_object_list(values, src=0 if self.handle is None else dist.get_global_rank(self.handle, 0), group=self.handle)
        return values[0]

    def wait(self) -> None:
        """Wait for all."""
        if self.size > 1:
            with _peers():
                dist.barrier(group=self.handle)


@contextmanager
def _together() -> Iterator[_Group]:
    """The processes that share the run: those of the initialised process group, or of torchrun, or this one alone."""
    if dist.is_available() and dist.is_initialized():
        if dist.get_world_size() == 1:
            yield _Group()
            return
        handle = dist.new_group(backend="gloo", timeout=PATIENCE)
        try:
            yield _Group(dist.get_rank(), dist.get_world_size(), handle)
        finally:
            dist.destroy_process_group(handle)
    elif dist.is_available() and os.environ.keys() >= TORCHRUN and int(os.environ["WORLD_SIZE"]) > 1:
        with _peers("the processes of this run do not find each other; check MASTER_ADDR and MASTER_PORT, which torchrun sets"):
            dist.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield _Group(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
    else:
        yield _Group()


@contextmanager
def _peers(
    trouble: str = "another process of this run has ended before its time; its own message says why. "
    "Finished shards are kept: run the same command again to go on",
) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SRKError(f"{trouble} ({str(error).partition(chr(10))[0][:120]})") from error


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("shards", total=total)
        yield lambda: bar.advance(task)


__all__ = ["SampleSet", "identity", "process_device", "sample_to"]
