"""compile="loop": the whole run as one CUDA graph, captured once for a shape and replayed."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from srk._engine.held import held
from srk._engine.run import Job, Run, finish
from srk.errors import IncompatibleError, SRKError
from srk.noise.base import NoiseSource
from srk.noise.counter import Name
from srk.noise.generator import GeneratorNoise
from srk.plans.plan import StepPlan
from srk.solution import Solution

WARM_UP = 3
"""Runs before the capture, on a stream of their own, as torch.cuda.graph asks."""
GRAPHS = 4
"""How many graphs a sampler keeps. Each holds the memory of a run."""


class Recording(Protocol):
    """What records the operations on a device once, and repeats them on the same memory."""

    def around(self) -> Any:
        """Where recording and repeating take place, as a context."""

    def warm_up(self, body: Callable[[], None]) -> None:
        """Run `body` before it is recorded."""

    def record(self, body: Callable[[], None], generator: torch.Generator) -> None:
        """Record what `body` does; `generator` goes on from its seed at each repetition."""

    def repeat(self) -> None:
        """Do again what was recorded."""


class CUDAGraph:
    """A CUDA graph on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def around(self) -> Iterator[None]:
        """On the device, with its stream as before afterwards, also where a capture has failed."""
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            try:
                yield
            finally:
                torch.cuda.set_stream(stream)

    def warm_up(self, body: Callable[[], None]) -> None:
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            body()
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, body: Callable[[], None], generator: torch.Generator) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            body()

    def repeat(self) -> None:
        self.graph.replay()


def recording_for(device: torch.device) -> Recording:
    """What records on a device.

    Raises:
        IncompatibleError: nothing does.
    """
    if device.type != "cuda":
        raise IncompatibleError(
            f"compile='loop' captures a CUDA graph, but the state is on {device}; use "
            "compile='step'"
        )
    return CUDAGraph(device)


class CapturedLoop:
    """A run captured for states of one shape, dtype and device.

    The network must be safe to capture: no waiting for the device, no shapes that depend on values.

    Arguments:
        job, plans: what to do, and the steps.
        x: a state of the shape, dtype and device to capture for.
        source: a started source of the kind to draw from.
    """

    def __init__(self, job: Job, plans: Sequence[StepPlan], x: Tensor, source: NoiseSource) -> None:
        self.job, self.plans = job, tuple(plans)
        self.recording = recording_for(x.device)
        self.generator = torch.Generator(x.device)
        self.start = torch.empty_like(x)
        self.run: Run
        # What draws of samples are named in the run, and their keys and counters on the device.
        self.names: tuple[Name, ...] = ()
        self.tables: tuple[Tensor, Tensor] | None = None
        self.start.copy_(x)
        with self.recording.around(), _no_cast_is_kept(x.device):
            self._warm_up(source)
            try:
                self.recording.record(lambda: self._go(self._source(source)), self.generator)
            except SRKError:
                raise
            except RuntimeError as error:
                raise IncompatibleError(
                    "compile='loop' could not capture the run: "
                    f"{str(error).strip().splitlines()[0]}. The network, its hooks and guidance "
                    "must not wait for the device (.item(), .cpu(), a branch on a tensor), nor "
                    "have shapes that depend on values; use compile='step'"
                ) from error
        self.held = held(job)

    def _warm_up(self, source: NoiseSource) -> None:
        first = self._source(source)
        normals = first.sample_normals()
        told = None if normals is None else normals.listen()
        self.recording.warm_up(lambda: self._go(first))
        if normals is not None and told is not None:
            device = self.start.device
            self.names = tuple(told)
            self.tables = normals.key_table(self.names, device), normals.counter_table(device)
        for _ in range(WARM_UP - 1):
            self.recording.warm_up(lambda: self._go(self._source(source)))

    def _source(self, source: NoiseSource) -> NoiseSource:
        """A source for the captured run, which draws from the memory of this object."""
        if isinstance(source, GeneratorNoise):
            made = GeneratorNoise(0)
            made.use(self.generator)
            return made
        x = self.start
        fresh = source.fresh()
        fresh.start(x.shape, x.dtype, x.device)
        normals = fresh.sample_normals()
        if self.tables is not None and normals is not None:
            normals.bind(self.names, *self.tables)
        fresh.prepare(self.plans)
        return fresh

    def _go(self, source: NoiseSource) -> None:
        self.run = Run(self.job, self.plans, self.start.clone())
        self.run.go(source)

    def serves(self, job: Job, plans: Sequence[StepPlan]) -> bool:
        """Whether a replay does what a run of this job with these plans would do now.

        Plans of a learned schedule are other objects once that has changed. Weights may change in
        place; where a tensor, a condition or a number has been replaced, the graph is out of date.
        """
        same = len(plans) == len(self.plans) and all(
            one is two for one, two in zip(plans, self.plans, strict=True)
        )
        return same and held(job) == self.held

    def __call__(self, x: Tensor, source: NoiseSource, drawn: bool) -> tuple[Solution, bool]:
        """The solution from the state `x` with the seed of `source`, and whether the run failed.

        Arguments:
            x: the state at the start.
            source: where it was drawn from.
            drawn: True if it was drawn, so that the path goes on from there.
        """
        began = time.perf_counter()
        with self.recording.around():
            if isinstance(source, GeneratorNoise):
                self.generator.manual_seed(source.used_seed)
                if drawn:
                    self.start.normal_(generator=self.generator)  # what the start has used
            normals = source.sample_normals()
            if self.tables is not None and normals is not None:
                keys, counters = self.tables
                if self.names:
                    keys.copy_(normals.key_table(self.names, x.device))
                counters.copy_(normals.counter_table(x.device))
            self.start.copy_(x)
            self.recording.repeat()
            run = copy.copy(self.run)
            run.recorder, run.watch = copy.copy(self.run.recorder), self.run.watch.copy()
            run.recorder.x = self.run.recorder.x.clone()
            return finish(run, lambda: None, source.seed, began)


class Loops:
    """The last captured runs of a sampler, one for each kind of call."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[Any, ...], CapturedLoop] = OrderedDict()

    def __call__(
        self, job: Job, plans: Sequence[StepPlan], x: Tensor, source: NoiseSource, drawn: bool
    ) -> tuple[Solution, bool]:
        """The run as a replay, captured first where there is none yet that serves."""
        normals = source.sample_normals()
        if normals is None and type(source) is not GeneratorNoise:
            raise IncompatibleError(
                "compile='loop' draws inside the graph, which noise='generator', 'keyed' and "
                f"'brownian' can, not {source.name!r}; use compile='step'"
            )
        asked = {"save": job.saves, "callback": job.callback, "progress": job.progress}
        for what in (name for name, given in asked.items() if given):
            raise IncompatibleError(
                f"compile='loop' runs without the host, which {what} needs; leave it out, or use "
                "compile='step'"
            )
        key = (
            tuple(x.shape),
            x.dtype,
            x.device,
            source.kind(),
            normals is not None and normals.seeds is not None,
            torch.is_autocast_enabled(x.device.type),
            torch.get_autocast_dtype(x.device.type),
        )
        # Memory of inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            loop = self._made.pop(key, None)
            if loop is None or not loop.serves(job, plans):
                del loop  # its memory, before another takes as much
                loop = CapturedLoop(job, plans, x, source)
            self._made[key] = loop
            while len(self._made) > GRAPHS:
                self._made.popitem(last=False)
            return loop(x, source, drawn)


@contextmanager
def _no_cast_is_kept(device: torch.device) -> Iterator[None]:
    """A user's autocast without its cache.

    The weights that were cast at the first call would be captured as they are, so that later
    changes of the weights would not be seen.
    """
    with torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    ):
        yield
