"""Who draws the chunks of a set: this process, those of torchrun, a Ray cluster, a SLURM array.

An engine says who calls `draw_chunk` for which chunks; the chunks are the same whoever does.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs

from srk._fields import ge
from srk._progress import progress_bar
from srk.errors import ArgumentError, ArgumentTypeError, MissingExtraError, SRKError
from srk.storage.group import Group, together
from srk.storage.jobs import Job, Painter
from srk.storage.sets import SampleSet
from srk.storage.store import Chunks

Drawn = Iterator[tuple[int, int | None]]
"""Chunks as they are done: index, and network calls for each of its samples if they are known."""


class Engine(ABC):
    """Draws the chunks of a set that are missing.

    Attributes:
        moves: whether its workers move the network to their own devices.
    """

    moves: ClassVar[bool] = False

    @abstractmethod
    def draw(self, job: Job, painter: Painter, chunks: Sequence[int]) -> Drawn:
        """Have these chunks drawn."""

    def run(
        self, job: Job, tables: Mapping[str, Any], *, verify: bool, progress: bool
    ) -> SampleSet:
        """Draw what is missing of the set, and return it complete."""
        with together(self.joins) as group:
            painter = job.open(tables) if group.rank == 0 else None
            group.wait()  # the set is begun
            painter = painter or job.open()
            chunks = painter.chunks
            present: list[bool] = group.share(chunks.present() if group.rank == 0 else None)
            mine = [i for i, there in enumerate(present) if not there][group.rank :: group.size]
            if verify:
                there = [i for i, is_there in enumerate(present) if is_there]
                mine += [i for i in there[group.rank :: group.size] if not chunks.sound(i)]
            calls: dict[int, int | None] = {}
            with _bar(progress and group.rank == 0, chunks, len(mine), group) as tick:
                for i, nfe in self.draw(job, painter, mine):
                    calls[i] = nfe
                    tick()
            drawn = group.total(sum(chunks.rows(i).stop - chunks.rows(i).start for i in calls))
            if group.rank == 0 and not all(chunks.present()):
                raise SRKError(
                    f"chunks of the set at {chunks.where!r} are missing though they were drawn; "
                    "all "
                    "processes must reach the same place. Run the same again"
                )
            group.wait()
        known = [nfe for nfe in calls.values() if nfe is not None]
        return SampleSet(
            chunks.where, job.shape, drawn, max(known, default=None), chunks.array, painter.settings
        )

    joins: ClassVar[bool] = False
    """Whether the processes that torchrun started share the work."""


@attrs.frozen
class Local(Engine):
    """This process draws all chunks, one after another."""

    def draw(self, job: Job, painter: Painter, chunks: Sequence[int]) -> Drawn:
        for i in chunks:
            yield i, painter.draw_chunk(i)


@attrs.frozen
class Torchrun(Local):
    """The processes that torchrun started, or of the program's process group, share the chunks."""

    joins: ClassVar[bool] = True


@attrs.frozen
class Ray(Engine):
    """Actors on a Ray cluster draw the chunks; a worker that is lost is started again.

    Each worker loads the network once. Workers reach the set by its address.

    Arguments:
        workers: how many.
        gpus, cpus: what each of them reserves; half a GPU is 0.5.
        retries: how often a worker may be lost.
        address: of the cluster, as in `ray.init`; None uses the one that is running, or starts one
            on this machine.
    """

    moves: ClassVar[bool] = True

    workers: int = attrs.field(default=2, validator=ge(1))
    gpus: float = attrs.field(default=0.0, validator=ge(0.0))
    cpus: float = attrs.field(default=1.0, validator=ge(0.0))
    retries: int = attrs.field(default=3, validator=ge(0))
    address: str | None = None

    def draw(self, job: Job, painter: Painter, chunks: Sequence[int]) -> Drawn:
        try:
            import ray
            from ray.util import ActorPool
        except ImportError:
            raise MissingExtraError("engine 'ray'", "ray", "ray") from None
        _reached(painter)
        if not chunks:
            return
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, logging_level="error")
        actor = ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=self.retries,
            max_task_retries=self.retries,
        )(Worker)
        shipped = ray.put(job)
        crew = [actor.remote(shipped) for _ in range(min(self.workers, len(chunks)))]
        try:
            pool = ActorPool(crew)
            yield from pool.map_unordered(lambda one, i: one.draw.remote(i), list(chunks))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, SRKError) else error) from None
        except ray.exceptions.RayActorError as error:
            raise SRKError(
                f"a Ray worker was lost more than {self.retries} times ({str(error)[:200]}); "
                "finished chunks are kept: run the same again"
            ) from error
        finally:
            for one in crew:
                ray.kill(one)


@attrs.frozen
class Slurm(Engine):
    """Jobs of a SLURM array draw the chunks; submitit submits them and waits for them.

    Arguments:
        jobs: how many, each with an equal share.
        cluster: "slurm", or "local" to try it with processes of this machine.
        folder: of the logs, which the nodes reach too.
        parameters: what `submitit.AutoExecutor.update_parameters` takes: `timeout_min`,
            `gpus_per_node`, `slurm_partition`, ...
    """

    moves: ClassVar[bool] = True

    jobs: int = attrs.field(default=2, validator=ge(1))
    cluster: str = "slurm"
    folder: str = "slurm-logs"
    parameters: Mapping[str, Any] = attrs.field(factory=dict)

    def draw(self, job: Job, painter: Painter, chunks: Sequence[int]) -> Drawn:
        try:
            import submitit
            from submitit.core.utils import FailedJobError, UncompletedJobError
        except ImportError:
            raise MissingExtraError("engine 'slurm'", "submitit", "slurm") from None
        _reached(painter)
        if not chunks:
            return
        executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
        executor.update_parameters(**{"name": "srk-sample", **self.parameters})
        shares = [share for k in range(self.jobs) if (share := list(chunks[k :: self.jobs]))]
        submitted = executor.map_array(Share(job), shares)
        done: set[int] = set()
        try:
            while not all(each.done() for each in submitted):
                here = painter.chunks.present()
                for i in [i for i in chunks if here[i] and i not in done]:
                    done.add(i)
                    yield i, None
                time.sleep(1.0)
            results = [dict(each.result()) for each in submitted]
        except (FailedJobError, UncompletedJobError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise SRKError(
                f"a job of the array failed ({lines[-1].strip()[:300] if lines else error!r}); its "
                f"log is in {self.folder!r}. Finished chunks are kept: run the same again"
            ) from error
        finally:
            for each in submitted:
                each.cancel()
        for found in results:
            yield from found.items()


class Worker:
    """A process that draws chunks of a set, and loads the network once."""

    def __init__(self, job: Job) -> None:
        self.painter = job.open()

    def draw(self, i: int) -> tuple[int, int]:
        """Draw chunk i."""
        return i, self.painter.draw_chunk(i)


@attrs.frozen
class Share:
    """What a job of an array does: draw several chunks."""

    job: Job

    def __call__(self, chunks: Iterable[int]) -> dict[int, int]:
        worker = Worker(self.job)
        return dict(worker.draw(i) for i in chunks)


ENGINES: dict[str, Callable[[], Engine]] = {
    "local": Local,
    "torchrun": Torchrun,
    "ray": Ray,
    "slurm": Slurm,
}


def as_engine(engine: str | Engine | None) -> Engine:
    """The engine that is meant; None is torchrun, which is this process where there is no other."""
    if engine is None:
        return Torchrun()
    if isinstance(engine, Engine):
        return engine
    if not isinstance(engine, str):
        raise ArgumentTypeError(
            f"engine is {', '.join(map(repr, ENGINES))}, or srk.storage.Ray(...) or Slurm(...), "
            f"not {engine!r}"
        )
    if engine not in ENGINES:
        raise ArgumentError(f"there is no engine {engine!r}; there are {', '.join(ENGINES)}")
    return ENGINES[engine]()


def _reached(painter: Painter) -> None:
    """Refuse a set that other processes do not see."""
    from zarr.storage import MemoryStore

    if isinstance(painter.store, MemoryStore):
        raise ArgumentError(
            "a set in memory is seen by this process alone; give a path or a URL to the workers"
        )


@contextmanager
def _bar(show: bool, chunks: Chunks, mine: int, group: Group) -> Iterator[Callable[[], None]]:
    """A progress bar over the chunks of all workers."""
    total = mine * group.size
    with progress_bar("chunks", total, show=show) as advance:
        before, counted, looked = len(chunks) - total, 0, 0.0

        def tick() -> None:
            nonlocal counted, looked
            if group.size == 1:
                advance()
            elif show and time.monotonic() > looked + 2.0:  # a listing shows what others have done
                there = sum(chunks.present()) - before
                advance(there - counted)
                counted, looked = there, time.monotonic()

        yield tick
