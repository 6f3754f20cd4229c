"""`srk.sample_to`: a set of samples by any engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srk._checks import need
from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise import noise_source
from srk.processes.base import ForwardProcess
from srk.processes.product import Product
from srk.sampling import ProductSampler, Sampler
from srk.sampling.arguments import batch_shape, one_time, process_given
from srk.scores import Prediction, as_prediction
from srk.scores.joint import ProductPrediction
from srk.steps import Profile, StepController
from srk.storage import store as stores
from srk.storage.engines import Engine, as_engine
from srk.storage.jobs import DTYPES, Job
from srk.storage.product_jobs import ProductJob, shapes_of
from srk.storage.sets import SampleSet


def sample_to(
    where: Any,
    process: ForwardProcess | Product,
    score: Prediction | ProductPrediction | Callable[..., Tensor],
    solver: Any = "auto",
    *,
    shape: Any = None,
    batch: int = 64,
    steps: Any = None,
    nfe: int | None = None,
    grid: Any = None,
    controller: str | StepController | None = None,
    profile: Profile | Mapping[str, Profile] | None = None,
    eta: Any = None,
    noise: str = "keyed",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    denoise_final: Any = None,
    autocast: torch.dtype | None = None,
    compile: Any = False,
    conditions: Mapping[str, Any] | None = None,
    engine: str | Engine | None = None,
    check_network: bool = True,
    network_name: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    verify: bool = True,
    progress: bool = False,
) -> SampleSet:
    """Draw a set of samples: more than fit into memory, on many devices, resumed after a stop.

    The set is a Zarr v3 group with the array `samples`, one chunk for each batch, and its settings
    as attributes: `zarr.open`, `xarray.open_zarr` and dask read it. A chunk is there whole or not
    at all. A second call with the same settings draws what is missing or damaged and touches
    nothing else; one with other settings is refused before anything is written. What a sample is
    depends on the settings, its index and its condition alone, so any engine, number of processes
    and order of the work gives the same bytes, as far as the network itself is reproducible.

    Arguments:
        where: a new or empty place, or that of an earlier call: a path, a URL of fsspec such as
            "s3://bucket/set", or a store of `zarr.storage`. Processes on several machines need one
            that all of them reach.
        process, score, solver: as in `srk.solve`. Tensors in `model_kwargs` whose first axis is n
            are cut for each batch. Of an `srk.Product` the set has one array for each part,
            `samples/a`, and solver, steps, grid, eta, profile,
            denoise_final and compile may be by part as there.
        shape: (n, *event) of the whole set; an int n is enough where the score knows its event.
        steps, nfe, grid, controller, profile, eta: as in `srk.solve`. The times of a grid are found
            once and stored with the set; a grid that needs a pilot makes it of the first batch.
        batch: samples drawn together, and in one chunk.
        seed: seed of the set, an int.
        conditions: conditions from a table: name -> array of n rows (NumPy, tensor, Zarr), passed
            to the network by that name. They are stored with the set.
        engine: "local", "torchrun", "ray", "slurm", or `srk.storage.Ray(...)`, `Slurm(...)`. None
            is torchrun in a process that torchrun started, else local.
        device: of the samples; "cuda" is the GPU of this process (LOCAL_RANK), where its network
            must be too. Ray and SLURM move the network to the worker's device.

    Other Arguments:
        noise: "keyed" or "brownian", noise that belongs to the sample.
        dtype: torch.float16, float32 or float64.
        denoise_final, autocast, compile: as in `srk.solve`; compile is False or "step".
        check_network: as in `srk.solve`, for the first batch that a process draws.
        network_name: your own name for the network, in place of a digest of all that it holds.
            Give one if the network holds something that changes as it is called, such as a counter,
            or that cannot be looked into. Another network must then get another name.
        storage_options: for a URL, what fsspec's file system takes: keys, endpoint, ...
        verify: read what is there to find damage. False compares sizes only, which is enough for a
            large set on a store that keeps its own checksums.
        progress: show a progress bar, over all workers.

    Returns:
        The complete set, in every process.

    Raises:
        ArgumentError: the place holds something else or a run with other settings; an argument
            makes no sense.
        IncompatibleError: the noise source does not belong to the sample.
        SolveError: the network returned NaN or inf; the message says for which samples.
        SRKError: the store cannot be reached, or another process of the run has ended early.

    Examples:
        >>> import srk, tempfile
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> score, place = target.score(process), tempfile.mkdtemp()
        >>> samples = sample_to(place, process, score, "srk2m", shape=(10, 1), batch=4, nfe=8)
        >>> samples.load().shape, samples.drawn
        (torch.Size([10, 1]), 10)
        >>> sample_to(place, process, score, "srk2m", shape=(10, 1), batch=4, nfe=8).drawn
        0
    """
    chosen = as_engine(engine)
    compiled = compile.values() if isinstance(compile, Mapping) else (compile,)
    if any(one not in (False, "step") for one in compiled):
        raise ArgumentError(
            f"compile is False or 'step' here, not {compile!r}: a graph of the whole run cannot "
            "draw noise that belongs to the sample"
        )
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ArgumentError(f"batch must be a positive int, not {batch!r}")
    if dtype not in DTYPES:
        raise ArgumentError(
            f"samples of a set are of dtype torch.float16, float32 or float64, not {dtype!r}; a "
            "network may use another (network_dtype)"
        )
    if not isinstance(noise, str) or not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentTypeError(
            "noise is a name and seed an int here, so that a run can be resumed, not "
            f"{noise!r} and {seed!r}; e.g. noise='keyed', seed=0"
        )
    noise_source(noise, seed).part(0, 1)  # says now if it cannot be cut
    solving: dict[str, Any] = {
        "steps": steps,
        "nfe": nfe,
        "grid": grid,
        "controller": controller,
        "profile": profile,
        "eta": eta,
        "denoise_final": denoise_final,
        "autocast": autocast,
        "compile": compile,
        "check_network": check_network,
    }
    one_time(grid, "a set of samples")
    kind: type[Job] = Job
    given: Any = process
    prediction: Any = score
    if isinstance(given, Product):
        kind = ProductJob
        ProductSampler(given, prediction, solver, **solving)  # says now what is wrong
        whole: Any = shapes_of(given, prediction, shape)
    else:
        given, prediction = process_given(process), as_prediction(score)
        sampler = Sampler(given, prediction, solver, **solving)
        whole = batch_shape(shape, sampler.prediction.event_shape)
    count = next(iter(whole.values()))[0] if isinstance(whole, dict) else whole[0]
    tables = _tables({} if conditions is None else conditions, count)
    job = kind(
        where=os.fspath(where) if isinstance(where, os.PathLike) else where,
        storage_options=storage_options,
        process=given,
        prediction=prediction,
        solver=solver,
        solving=solving,
        shape=whole,
        batch=batch,
        noise=noise,
        seed=seed,
        device=device,
        dtype=dtype,
        network_name=network_name,
        conditions={name: _digest(table) for name, table in tables.items()},
        moves=chosen.moves,
    )
    return chosen.run(job, tables, verify=verify, progress=progress)


def _tables(conditions: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Tables of conditions that can be cut by rows and stored."""
    need(conditions, Mapping, "conditions", "a dict, name -> array with a row for each sample")
    tables = {}
    for name, given in conditions.items():
        table = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
        table = table if hasattr(table, "shape") and hasattr(table, "dtype") else np.asarray(table)
        if not name.isidentifier() or name == stores.SAMPLES:
            raise ArgumentError(
                f"conditions are named as the network's arguments are, not {name!r}; e.g. "
                "conditions={'label': labels}"
            )
        if len(table.shape) < 1 or table.shape[0] != n or np.dtype(table.dtype).kind not in "biuf":
            raise ArgumentError(
                f"the condition {name!r} must be an array of numbers with {n} rows, one for each "
                f"sample, not of shape {tuple(table.shape)} and dtype {table.dtype}"
            )
        tables[name] = table
    return tables


def _digest(table: Any, step: int = 65536) -> str:
    """What tells a table from another; read in pieces, for it may not fit into memory."""
    digest = hashlib.sha256()
    for first in range(0, table.shape[0], step):
        digest.update(np.ascontiguousarray(table[first : first + step]).tobytes())
    return f"{np.dtype(table.dtype)} {tuple(table.shape)} {digest.hexdigest()[:16]}"
