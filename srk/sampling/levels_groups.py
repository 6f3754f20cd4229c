"""Elements with the same times as groups: what each is to do in a run, and how a run records it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from srk._engine.density import check_gaussian
from srk._engine.levels import Groups
from srk._engine.product import Lockstep, PartRun
from srk._engine.recorder import Recorder
from srk._engine.run import Job
from srk.errors import IncompatibleError
from srk.noise import NoiseSource
from srk.plans.plan import StepPlan
from srk.processes.around_mean import AroundMean
from srk.processes.base import ForwardProcess, LinearProcess
from srk.sampling.sampler import Sampler
from srk.scores import Prediction
from srk.scores.centred import Centred
from srk.scores.elements import BoundElements, bind_elements
from srk.scores.hooks import Hook
from srk.scores.state_hook_base import changes_state
from srk.steps.levels import Levels


class Columns:
    """The columns of a schedule with the samplers of their groups.

    Arguments:
        process: of all elements, one around a mean perhaps.
        linear: the linear process that solvers reverse.
        prediction: of all elements, bound to `process`.
        levels: the schedule.
        solver, options: what `srk.Sampler` takes for a group.

    Attributes:
        times: the largest time of the elements at each end of a step.
        samplers: of each group; a group that never moves has that of another one.
    """

    def __init__(
        self,
        process: ForwardProcess,
        linear: LinearProcess,
        prediction: Prediction,
        levels: Levels,
        solver: Any,
        options: Mapping[str, Any],
    ) -> None:
        self.process, self.linear, self.prediction = process, linear, prediction
        self.elements = grouped(levels)
        self.bound(levels.axis, None)  # says here which predictions look at whole samples
        self._times = {
            name: [linear.snap(row[own[0]]) for row in levels.schedule]
            for name, own in self.elements.items()
        }
        self.times = tuple(map(max, zip(*self._times.values(), strict=True)))
        self._moving = {
            name: Sampler(linear, prediction, solver, grid=own, check_network=False, **options)
            for name, times in self._times.items()
            if len(own := visited(times)) > 1
        }
        self.samplers = {name: self._moving.get(name, self.first) for name in self.elements}

    @property
    def first(self) -> Sampler:
        """The sampler of the first group that moves."""
        return next(iter(self._moving.values()))

    @property
    def one(self) -> str:
        """The first group that moves."""
        return next(iter(self._moving))

    def select(self, rows: slice | Tensor, batch: int) -> Columns:
        """The same for some samples of a batch."""
        piece = copy.copy(self)
        piece.prediction = self.prediction.select(rows, batch)
        if isinstance(self.process, AroundMean):
            piece.process = self.process.select(rows, batch)
        return piece

    def indices(self, device: torch.device | None) -> dict[str, Tensor]:
        """The numbers of the elements of each group."""
        return {name: torch.tensor(of, device=device) for name, of in self.elements.items()}

    def bound(self, axis: int, like: Tensor | None) -> BoundElements:
        """The predictions of the groups in one run of states as `like`."""
        indices = self.indices(None if like is None else like.device)
        return bind_elements(self.prediction, self.process, axis, indices, like=like)

    def whole(self, like: Tensor) -> Prediction:
        """The prediction of the whole state, which knows the mean of a process around one."""
        if isinstance(self.process, AroundMean):
            return Centred(self.prediction, self.process.placed(like))
        return self.prediction

    def start(self, name: str) -> float:
        """The time at which a group starts."""
        return self._times[name][0]

    def moves(self, name: str) -> list[bool]:
        """For each step whether the group moves."""
        return [before > after for before, after in pairwise(self._times[name])]

    def jobs(
        self, bound: BoundElements, x: Tensor, source: NoiseSource, saves: frozenset[str]
    ) -> dict[str, tuple[Job, list[StepPlan]]]:
        """What each group is to do, and its steps.

        Arguments:
            bound: the predictions of the groups.
            x: the whole state.
            source: the noise of the run.
            saves: what is to be kept.
        """
        made: dict[str, tuple[Job, list[StepPlan]]] = {}
        for name, known in self.samplers.items():
            sampler = known._with(prediction=bound.parts[name])
            plans: tuple[StepPlan, ...] = ()
            etas: tuple[float, ...] = ()
            if name in self._moving:
                plans, etas = sampler._planned(sampler.settings.problem(x, source))
            job = sampler.settings.job(etas, saves=saves & {"log_prob"})
            made[name] = job, [*plans]
        if "log_prob" in saves:
            check_gaussian([plan for _, plans in made.values() for plan in plans], self.first.label)
        return made

    def together(
        self,
        parts: Mapping[str, PartRun],
        bound: BoundElements,
        axis: int,
        recorder: Recorder,
    ) -> tuple[Groups, Lockstep]:
        """The groups of a run, and what takes their steps."""
        rounds = max(len(part.order) for part in parts.values())
        for part in parts.values():  # those that have no final denoising
            part.order += [None] * (rounds - len(part.order))
        rows = [self.linear.level(t) for t in self.times]
        groups = Groups(parts, self.indices(recorder.x.device), axis, rows, recorder)
        groups.lockstep = made = Lockstep(parts, bound, self.first.settings.autocast, groups.visit)
        return groups, made


def grouped(levels: Levels) -> dict[str, list[int]]:
    """The elements that have the same times, by a name for messages."""
    columns: dict[tuple[float, ...], list[int]] = {}
    for element, column in enumerate(zip(*levels.schedule, strict=True)):
        columns.setdefault(column, []).append(element)
    return {
        (
            f"element {elements[0]}"
            if len(elements) == 1
            else f"elements {elements[0]} to {elements[-1]}"
        ): elements
        for elements in columns.values()
    }


def visited(times: Sequence[float]) -> list[float]:
    """The times without the steps in which nothing moves."""
    return [times[0], *(after for before, after in pairwise(times) if before > after)]


def check_still(hooks: Iterable[Hook]) -> None:
    """Raise `IncompatibleError` for a hook that changes the state before each step."""
    for hook in filter(changes_state, hooks):
        raise IncompatibleError(
            f"the hook {hook!r} changes the state before each step, but elements that stand still "
            "in a step are to stay as they are; use a list of times for all elements, or a hook of "
            "the denoised prediction"
        )


__all__ = ["Columns", "check_still", "grouped", "visited"]
