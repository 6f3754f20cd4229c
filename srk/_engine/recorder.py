"""What is kept of a run: where it is, what it visited, what the user is told and gets back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentTypeError
from srk.processes.base import Level
from srk.solution import Saved


@attrs.frozen(slots=True, eq=False)
class StepInfo:
    """What a callback sees after each accepted step.

    Arguments:
        index: number of the step, from 0.
        steps: how many there will be; None if that is not known.
        t: own time at its end.
        nfe: network calls so far.
        x: the state at its end, (batch, *event). It is overwritten by the next step: clone it to
            keep it.
        denoised: the denoised prediction at the start of the step, or None where the process has
            none.
    """

    index: int
    steps: int | None
    t: float
    nfe: int
    x: Tensor
    denoised: Tensor | None


Callback = Callable[[StepInfo], bool | None]
_NOWHERE = Level(math.nan, math.nan, math.nan, math.nan)


def ends(answer: Any) -> bool:
    """Whether what a callback returned ends the run."""
    try:
        return bool(answer)
    except (RuntimeError, ValueError, TypeError) as error:  # arrays and tensors of several numbers
        raise ArgumentTypeError(
            f"the callback returned {shown(answer)}, of which it is not clear whether it is true; "
            "return True to end the run, and None or False to go on, e.g. bool((x < 0).all())"
        ) from error


class Recorder:
    """Where a run is, and what it has visited.

    Arguments:
        x: the state at the start.
        saves: what to keep: "x", "denoised", "log_prob" or several.
        callback: told of each accepted step.
        total: how many steps there will be, if that is known.
    """

    def __init__(
        self,
        x: Tensor,
        saves: frozenset[str] = frozenset(),
        callback: Callback | None = None,
        total: int | None = None,
    ) -> None:
        self.x, self.saves, self.callback, self.total = x, saves, callback, total
        self.level = _NOWHERE
        self.status = "done"
        self.accepted = self.rejected = 0
        self.times: list[float] = []
        self._tick: Callable[[int], None] | None = None
        self._states: list[Tensor] = []
        self._denoised: list[tuple[float, Tensor]] = []
        self._log_prob: list[tuple[float, Tensor]] = []

    @property
    def wants_denoised(self) -> bool:
        """Whether anybody asks for the denoised predictions."""
        return self.callback is not None or "denoised" in self.saves

    def begin(self, level: Level) -> None:
        """The run begins at `level`."""
        self.level = level
        self.times.append(level.t)
        if "x" in self.saves:
            self._states.append(self.x.clone())

    def accept(
        self, stop: Level, state: Tensor, asked: float, denoised: Tensor | None, nfe: int
    ) -> bool:
        """A step to `stop` counts; returns whether the callback wants to end the run.

        Arguments:
            stop: the level at its end.
            state: the state there.
            asked: own time of its first evaluation.
            denoised: the denoised prediction of that, if it is wanted.
            nfe: network calls so far.
        """
        self.x, self.level = state, stop
        self.times.append(stop.t)
        if "x" in self.saves:
            self._states.append(state.clone())
        if "denoised" in self.saves and denoised is not None:
            # A callback may write to the one that it is shown.
            kept = denoised if self.callback is None else denoised.clone()
            self._denoised.append((asked, kept))
        index, self.accepted = self.accepted, self.accepted + 1
        stopping = False
        if self.callback is not None:
            info = StepInfo(index, self.total, stop.t, nfe, state, denoised)
            stopping = ends(self.callback(info))
        if self._tick is not None:
            self._tick(nfe)
        if stopping:
            self.status = "stopped"
        return stopping

    def density(self, t: float, log_prob: Tensor) -> None:
        """The log-density of the step that ends at `t`."""
        self._log_prob.append((t, log_prob))

    def finish(self, state: Tensor) -> None:
        """The final denoising has given `state`."""
        self.x = state
        if "denoised" in self.saves:
            self._denoised.append((self.level.t, state.clone()))

    def bar(self, name: str) -> Any:
        """A progress bar with step, NFE and time left, as a context manager."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("NFE {task.fields[nfe]}"),
            TimeRemainingColumn(),
        )
        task = bar.add_task("solve", total=self.total, nfe=0)
        self._tick = lambda nfe: bar.update(task, advance=1, nfe=nfe)
        return bar

    def saved(self) -> tuple[Saved | None, Saved | None, Saved | None]:
        """What was kept: the trajectory, denoised predictions, log-densities."""
        trajectory = list(zip(self.times, self._states, strict=False))
        return stacked(trajectory), stacked(self._denoised), stacked(self._log_prob)


def stacked(kept: list[tuple[float, Tensor]]) -> Saved | None:
    """Tensors and their times as one; None where there are none."""
    if not kept:
        return None
    with torch.inference_mode(False):  # ordinary tensors, which gradients may go through
        return Saved(tuple(t for t, _ in kept), torch.stack([value for _, value in kept]))
