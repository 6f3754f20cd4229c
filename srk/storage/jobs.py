"""What draws a chunk of a set: a job that any process can open, and the same bytes from all."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from srk._version import __version__
from srk.errors import ArgumentError, IncompatibleError, SolveError
from srk.noise import noise_source
from srk.processes.base import ForwardProcess
from srk.sampling import Sampler
from srk.scores import Guided, Hooked, Prediction
from srk.scores.centred import bound_to
from srk.scores.joint import Independent, ProductPrediction
from srk.scores.joint_guided import JointGuided
from srk.steps import Grid, Rising, RunInfo, StepController
from srk.storage import store as stores
from srk.storage.group import process_device
from srk.storage.identity import UnknownError, describe

DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}


@attrs.frozen
class Job:
    """All that it takes to draw any chunk of a set in any process; it can be pickled.

    Arguments:
        where, storage_options: the place of the set.
        process, prediction, solver, solving: what `srk.Sampler` takes.
        shape, batch, noise, seed, device, dtype, network_name: as in `sample_to`.
        conditions: name of a table -> what tells it from another.
        moves: whether a worker moves the network to its own device.
    """

    where: Any
    storage_options: Mapping[str, Any] | None
    process: ForwardProcess
    prediction: Prediction
    solver: Any
    solving: Mapping[str, Any]
    shape: tuple[int, ...]
    batch: int
    noise: str
    seed: int
    device: Any
    dtype: torch.dtype
    network_name: str | None
    conditions: Mapping[str, str]
    moves: bool

    def open(self, tables: Mapping[str, Any] | None = None) -> Painter:
        """The set, ready to be drawn into: begun if it is not there, refused if it is another's.

        Arguments:
            tables: the conditions. None in a worker, for which another process has begun the set.
        """
        place = process_device(self.device)
        prediction = _moved(self.prediction, place) if self.moves else self.prediction
        # A controller may remember what it did before, and the caller's stays as it was.
        solving = {**self.solving, **_own(self.solving)}
        sampler = self.sampler(self.process, prediction, solving)
        settings = self._settings(sampler, prediction, place)
        store = stores.open_store(self.where, self.storage_options)
        found = stores.read_attributes(store, self.where)
        if found:
            stores.compare(found["settings"], settings, self.where)
        elif tables is None:
            raise ArgumentError(f"there is no set at {str(self.where)!r} to work on")
        if tables is not None:
            self._say_unknown(settings, bool(found))
            found = self._begin(store, found, settings, sampler, prediction, tables, place)
        for name, described in self.arrays().items():
            array = stores.open_chunks(store, self.where, name).array
            if (array.shape, array.dtype) != described:
                raise ArgumentError(
                    f"the array at {str(self.where)!r} is not as a run of srk wrote it; give "
                    "another place"
                )
        chunks = self.chunks(store)
        if found["times"] is not None:  # one grid for the whole set
            grid = self.grid_at(found["times"], solving)
            solving = {**solving, "steps": None, "nfe": None, "controller": None, "grid": grid}
        rows = {name: stores.open_chunks(store, self.where, name) for name in self.conditions}
        return Painter(self, store, chunks, prediction, solving, place, rows, settings)

    @property
    def count(self) -> int:
        """How many samples the set has."""
        return self.shape[0]

    def sampler(self, process: Any, prediction: Any, solving: Mapping[str, Any]) -> Any:
        """What draws samples of `process`."""
        return Sampler(process, prediction, self.solver, **solving)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each array of samples by its name in the store."""
        return {stores.SAMPLES: (self.shape, np.dtype(DTYPES[self.dtype]))}

    def chunks(self, store: Any) -> Any:
        """The chunks of the samples, to be written to."""
        return stores.open_chunks(store, self.where, write=True)

    def grid_at(self, times: Any, solving: Mapping[str, Any]) -> Any:
        """The grid with the stored times."""
        return _grid_at(times, solving.get("grid"))

    def drawing(self, rows: slice) -> dict[str, Any]:
        """What a call of the sampler is told of these samples."""
        size = rows.stop - rows.start
        source = noise_source(self.noise, self.seed).part(rows.start, size)
        return {"shape": (size, *self.shape[1:]), "noise": source}

    def drawn(self, x: Any) -> Any:
        """What is written of the samples `x`."""
        return x.detach().cpu().numpy()

    def conditioned(
        self, prediction: Any, tables: Mapping[str, Any], rows: slice, place: torch.device
    ) -> Any:
        """The prediction with some rows of the conditions."""
        return conditioned(prediction, tables, rows, place)

    def _begin(
        self,
        store: Any,
        found: dict[str, Any],
        settings: dict[str, Any],
        sampler: Sampler,
        prediction: Prediction,
        tables: Mapping[str, Any],
        place: torch.device,
    ) -> dict[str, Any]:
        """Make what is missing of the set's description and conditions; returns its attributes."""
        arrays: dict[str, Any] = self.arrays()
        for name, table in tables.items():
            arrays[name] = tuple(table.shape), np.dtype(table.dtype)
        with stores.reaching(self.where):
            whole = all(stores.get(store, f"{name}/{stores.ROOT}") for name in arrays)
        if not found or not whole:
            times = found["times"] if found else self._times(sampler, prediction, tables, place)
            attributes = stores.attributes_of(settings, times)
            stores.create(store, self.where, attributes, arrays, self.batch)
            found = stores.read_attributes(store, self.where)  # another run may have been first
            stores.compare(found["settings"], settings, self.where)
        for name, table in tables.items():
            stored = stores.open_chunks(store, self.where, name, write=True)
            for i in range(len(stored)):
                if not stored.sound(i):
                    stored.write(i, np.asarray(table[stored.rows(i)]))
        return found

    def _settings(
        self, sampler: Sampler, prediction: Prediction, place: torch.device
    ) -> dict[str, Any]:
        """What makes the samples what they are, as JSON holds it."""
        packages: dict[str, str] = {}

        def said(value: object) -> str:
            text, used = describe(value)
            packages.update(used)
            return text

        try:
            network = f"named {self.network_name!r}" if self.network_name else said(prediction)
        except UnknownError as error:
            network = f"{UNKNOWN}: {error}"
        autocast = self.solving["autocast"]
        return {
            "srk": __version__,
            "torch": torch.__version__,
            "python": ".".join(map(str, sys.version_info[:2])),
            "score": network,
            "nfe": self.solving["nfe"],
            "autocast": None if autocast is None else str(autocast),
            "compile": self.solving["compile"],
            "noise": self.noise,
            "seed": self.seed,
            **self.told(sampler, said),
            "batch": self.batch,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": place.type,
            "precision": torch.get_float32_matmul_precision(),
            "conditions": dict(self.conditions),
            "packages": packages,
        }

    def told(self, sampler: Any, said: Callable[[object], str]) -> dict[str, Any]:
        """The settings of what draws one state, and its shape."""
        return {**settings_of(sampler, self.solving["profile"], said), "shape": list(self.shape)}

    def _say_unknown(self, settings: Mapping[str, Any], resumed: bool) -> None:
        """Refuse to go on with a network that may be another, and say so when the set begins."""
        if not settings["score"].startswith(UNKNOWN):
            return
        message = (
            f"which network this is {settings['score']}. So the set at {str(self.where)!r} cannot "
            "be resumed: nothing tells this network from another. Give it a name: "
            "network_name='unet-3'"
        )
        if resumed:
            raise ArgumentError(message)
        warnings.warn(message, stacklevel=2)

    def _times(
        self,
        sampler: Any,
        prediction: Any,
        tables: Mapping[str, Any],
        place: torch.device,
    ) -> Any:
        """The times of a fixed grid, of which there is one for the whole set; else None."""
        if not isinstance(sampler.control, Grid):
            return None
        rows = slice(0, min(self.batch, self.shape[0]))
        first = conditioned(prediction, tables, rows, place).select(rows, self.shape[0])
        problem = RunInfo(
            process=sampler.process,
            solver=sampler.method,
            steps=sampler.steps,
            eta=sampler.one_eta("a set of samples"),
            score=bound_to(first, self.process.select(rows, self.shape[0])),
            shape=(rows.stop, *self.shape[1:]),
            device=place,
            dtype=self.dtype,
            autocast=sampler.settings.autocast,
            seed=self.seed,
        )
        return times_of(sampler, problem)


def times_of(sampler: Sampler, problem: RunInfo | None = None) -> list[float]:
    """The times of a sampler with a fixed grid."""
    plans = sampler.plans(problem)
    return [float(plan.start.t) for plan in plans] + [float(plans[-1].stop.t)]


def settings_of(sampler: Sampler, profile: Any, said: Callable[[object], str]) -> dict[str, Any]:
    """What a sampler of one state is, as JSON holds it."""
    return {
        "process": said(sampler.settings.given),
        "solver": said(sampler.method),
        "steps": sampler.steps,
        "grid": said(sampler.control),
        "profile": None if profile is None else profile.to_dict(),
        "eta": sampler.one_eta("a set of samples"),
        "denoise_final": "mean" if sampler.settings.mean else sampler.settings.denoise,
    }


UNKNOWN = "cannot be known"


@attrs.define
class Painter:
    """A set that is open in this process, and what draws its chunks."""

    job: Job
    store: Any
    chunks: Any
    prediction: Prediction
    solving: Mapping[str, Any]
    place: torch.device
    rows: Mapping[str, stores.Chunks]
    settings: Mapping[str, Any]
    _sampler: Any = None

    def draw_chunk(self, i: int) -> int:
        """Draw chunk i and write it; returns the network calls for each of its samples.

        The bytes depend on the job and `i` alone: not on who draws, nor on what was drawn before.
        """
        job, rows = self.job, self.chunks.rows(i)
        try:
            solution = self._sampler_for(rows)(
                **job.drawing(rows), device=self.place, dtype=job.dtype
            )
        except SolveError as error:
            raise SolveError(
                f"samples {rows.start} to {rows.stop - 1}: {error.solution.status}; finished "
                "chunks are kept",
                error.solution,
            ) from error
        # Not every store can say who was first: nothing is mixed with another run's samples.
        found = stores.read_attributes(self.store, job.where)
        stores.compare(found.get("settings", {}), self.settings, job.where)
        self.chunks.write(i, job.drawn(solution.x))
        return int(solution.nfe)

    def _sampler_for(self, rows: slice) -> Any:
        job = self.job
        tables = {name: chunks.array for name, chunks in self.rows.items()}
        prediction = job.conditioned(self.prediction, tables, rows, self.place)
        prediction = prediction.select(rows, job.count)
        process = job.process.select(rows, job.count)
        fixed = self.solving["grid"] is not None and self.solving["controller"] is None
        same = prediction is self.prediction and process is job.process
        if self._sampler is None or not same or not fixed:
            solving = {**self.solving, **_own(self.solving)}
            if self._sampler is not None:  # the first batch has shown what the network returns
                solving["check_network"] = False
            self._sampler = job.sampler(process, prediction, solving)
        return self._sampler


def _grid_at(times: Sequence[float], grid: Any) -> Any:
    """The grid with these times, where `grid` was given; they may go up as well."""
    if any(after > before for before, after in pairwise(times)):
        return Rising(times, noise_scale=getattr(grid, "noise_scale", 1.0))
    return times


def _own(solving: Mapping[str, Any]) -> dict[str, Any]:
    """Step controllers of a run's own, which remember nothing of another run."""
    made = {}
    for name in ("grid", "controller"):
        if isinstance(solving[name], StepController):
            try:
                made[name] = copy.deepcopy(solving[name])
            except (AttributeError, TypeError):  # it cannot be copied; each run begins it anew
                made[name] = solving[name]
    return made


def _moved(prediction: Any, place: torch.device) -> Any:
    """The prediction with its networks on a device."""
    inner = [getattr(prediction, name, None) for name in ("network", "prediction")]
    if isinstance(prediction, JointGuided):
        inner += [prediction.condition, prediction.reference]
    elif isinstance(prediction, Independent):
        inner += prediction.parts.values()
    for value in inner:
        if isinstance(value, nn.Module):
            value.to(place)
        elif isinstance(value, Prediction | ProductPrediction):
            _moved(value, place)
    if isinstance(prediction, Guided):
        for each in (prediction.reference, *prediction.conditions):
            _moved(each, place)
    return prediction


def conditioned(
    prediction: Prediction, tables: Mapping[str, Any], rows: slice, place: torch.device
) -> Prediction:
    """The prediction with some rows of the conditions; of a guided one, its conditions get them."""
    if not tables:
        return prediction
    if isinstance(prediction, Guided):
        given = [conditioned(each, tables, rows, place) for each in prediction.conditions]
        return attrs.evolve(prediction, condition=given)
    if isinstance(prediction, Hooked):
        return Hooked(conditioned(prediction.prediction, tables, rows, place), *prediction.hooks)
    inner = getattr(prediction, "prediction", None)
    if isinstance(inner, Prediction):
        changed: dict[str, Any] = {"prediction": conditioned(inner, tables, rows, place)}
        return _evolved(prediction, changed)
    if not hasattr(prediction, "model_kwargs"):
        raise IncompatibleError(
            f"conditions={{...}} are for a network in an adapter such as "
            "srk.NoisePrediction(network), not "
            f"{prediction!r}"
        )
    cut = {
        name: torch.as_tensor(np.asarray(table[rows])).to(place) for name, table in tables.items()
    }
    return _evolved(prediction, {"model_kwargs": {**prediction.model_kwargs, **cut}})


def _evolved(prediction: Any, changed: dict[str, Any]) -> Prediction:
    """The prediction, an attrs class, with other values of some attributes."""
    made: Prediction = attrs.evolve(prediction, **changed)
    return made
