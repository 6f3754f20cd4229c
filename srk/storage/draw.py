"""Sets of samples on disk: drawn in shards by global index, by one process or many, and resumed where a run was stopped."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._progress import progress_bar
from srk._version import __version__
from srk.errors import ArgumentError, ArgumentTypeError, SolveError
from srk.integrators import Integrator
from srk.noise import noise_source
from srk.processes.base import ForwardProcess
from srk.sampling import Sampler
from srk.sampling.arguments import batch_shape
from srk.scores import Prediction, as_prediction
from srk.steps import StepController
from srk.storage.group import process_device, together
from srk.storage.identity import identity
from srk.storage.lock import alone
from srk.storage.store import SAMPLES, Store
from srk.tableaus import StochasticTableau

DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}


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
        return torch.from_numpy(
            np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[:stop])
        )


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
    network_name: str | None = None,
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
        network_name: your own name for the network, in place of a digest of all that it holds. Give one if it holds something that changes as it is called, such as a
            counter, or that cannot be looked into; another network must then get another name.
        progress: show a progress bar (of the first process).
        process, score, solver, steps, nfe, grid, controller, eta, denoise_final, autocast, compile: as in `srk.solve`. Conditions in `model_kwargs`
            whose first axis is n are cut for each batch.

    Returns:
        The complete set, in every process.

    Raises:
        ArgumentError: the folder holds something else or a run with other settings, or another run writes into it; an argument makes no sense.
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
        "score": identity(prediction) if network_name is None else f"named {network_name!r}",
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
    store = Store(Path(folder), settings, whole, np.dtype(DTYPES[dtype]), batch)
    calls: int | None = None
    with (
        together() as group,
        nullcontext() if group.rank or store.finished else alone(store.folder),
    ):
        missing: list[int] = group.share(store.open() if group.rank == 0 else None)
        mine = missing[group.rank :: group.size]
        with progress_bar("shards", len(mine), show=progress and group.rank == 0) as tick:
            for first in mine:
                count = min(batch, whole[0] - first)
                piece = copy.copy(sampler)
                piece.prediction = sampler.prediction.select(slice(first, first + count), whole[0])
                try:
                    solution = piece(
                        (count, *whole[1:]),
                        noise=source.part(first, count),
                        device=place,
                        dtype=dtype,
                    )
                except SolveError as error:
                    raise SolveError(
                        f"samples {first} to {first + count - 1}: {error.solution.status}; finished shards are kept",
                        error.solution,
                    ) from error
                store.write(first, solution.x)
                calls = max(calls or 0, solution.nfe)
                tick()
        group.wait()
        if group.rank == 0:
            store.merge()
        group.wait()
    return SampleSet(
        store.folder, whole, sum(min(batch, whole[0] - first) for first in missing), calls
    )
