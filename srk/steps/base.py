"""Step controllers: what decides where the steps of a run end."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import attrs
import torch

from srk._checks import integer
from srk.processes.base import Level


@attrs.frozen(slots=False)  # made at every call, which takes half the time without slots
class RunInfo:
    """What a controller may know before the run.

    Arguments:
        process: the forward process.
        solver: the integrator.
        steps: how many steps to take; None if the controller decides.
        eta: stochasticity.
        noise: the noise source of the run; None if it is not known.
        score: the bound prediction of the run; None if it is not known.
        shape: (batch, *event) of the run; None if it is not known.
        device, dtype: of the state; None if they are not known.
        autocast: dtype of `torch.autocast` around the network; None without.
        seed: the seed of the run's noise, if it has one.
    """

    process: Any
    solver: Any
    steps: int | None
    eta: float = 1.0
    noise: Any = None
    score: Any = None
    shape: tuple[int, ...] | None = None
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    seed: int | None = None


@attrs.frozen(slots=True)
class Report:
    """What a controller may know after a step.

    Arguments:
        start, stop: the ends of the step just computed, in the process's own time.
        index: number of accepted steps before it.
        state: the state at its start, (batch, *event).
        candidate: the state at its end.
        error: the plan's error estimate, same shape, or None.
        nfe: network calls so far, this step's included.
    """

    start: float
    stop: float
    index: int
    state: torch.Tensor
    candidate: torch.Tensor
    error: torch.Tensor | None
    nfe: int


@attrs.frozen(slots=True)
class Decision:
    """A controller's answer to a report.

    Arguments:
        accept: whether the step counts. As a bool tensor (batch,) it says for which samples it
            does: the others take the same step again in shorter ones of their own, up to its end,
            with a controller from `StepController.fork`.
        stop: the own time at which the next step ends; None ends the run.
        status: why the run ends before its time, for `Solution.status`; None if it does not.
        retry: own time at which the first step of those others ends.
    """

    accept: bool | torch.Tensor
    stop: float | None
    status: str | None = None
    retry: float | None = None


class StepController(ABC):
    """Decides where steps end: `first` starts a run, and `next` judges each step of it.

    A controller is a value that many runs may share, at the same time or one after the other. Each
    run works on a controller of its own, from `fresh`, so that what `first` and `next` set on
    `self` belongs to that run, and the shared one stays as it was made.
    """

    name: ClassVar[str] = ""

    @property
    def doubling(self) -> bool:
        """True to have each step's error estimated by step doubling instead of by the solver.

        The step is then two of half the length, and the error their difference from one of the
        whole, at three times the calls.
        """
        return False

    def fresh(self) -> StepController:
        """The controller of one run. The default is a shallow copy, on which `first` is called."""
        return copy.copy(self)

    def fork(self) -> StepController:
        """A controller for samples that take a step again by themselves, starting where this one
        is. The default is a shallow copy.
        """
        return copy.copy(self)

    @abstractmethod
    def first(self, info: RunInfo) -> tuple[float, float]:
        """Own times of the start of the run and of the end of its first step."""

    @abstractmethod
    def next(self, report: Report) -> Decision:
        """Judge the step just computed."""


class Grid(StepController):
    """A controller whose steps are known before the run. Subclasses provide `times`.

    Attributes:
        remembered: True if the times depend on nothing but process, solver, steps, eta and the
            grid's own attributes; they are then computed once for many runs.
        rises: True if times may rise; a step up is then one of the forward process.
        noise_scale: factor of the noise of the steps up.
    """

    remembered: ClassVar[bool] = False
    rises: ClassVar[bool] = False
    noise_scale: float = 1.0

    @property
    def own_steps(self) -> int | None:
        """The number of steps where the grid knows it itself; None where the run says it."""
        return None

    @abstractmethod
    def times(self, info: RunInfo) -> list[float]:
        """Own times, strictly decreasing, `info.steps` + 1 of them, each computed from its
        index.
        """

    def first(self, info: RunInfo) -> tuple[float, float]:
        self._times = self.times(info)
        return self._times[0], self._times[1]

    def next(self, report: Report) -> Decision:
        after = report.index + 2
        return Decision(True, self._times[after] if after < len(self._times) else None)


def steps_of(info: RunInfo) -> int:
    """The number of steps of a fixed grid; raise if it is not a positive integer."""
    cure = "use solve(..., steps=20) or solve(..., nfe=20)"
    return integer(info.steps, "the number of steps of a fixed grid", least=1, cure=cure)


@attrs.frozen(slots=True)
class Range:
    """The stretch of half log-SNR that a grid divides: from `noisy` to `clean`.

    A process that starts at alpha = 0 has log-SNR -inf there. A grid then divides [-log 80, clean]
    (80 is the largest noise of EDM) and its first point is moved out to t_max itself, so that the
    first step also covers all the noise above 80. Where the process ends at sigma = 0, `clean` is
    6, which is sigma/alpha = 0.0025.
    """

    noisy: float
    clean: float
    start: Level
    stop: Level

    @staticmethod
    def of(process: Any) -> Range:
        start, stop = process.level(process.t_max), process.level(process.t_min)
        noisy = start.lam if start.alpha > 0 else min(-4.382026634673881, stop.lam - 1.0)
        clean = stop.lam if stop.sigma > 0 else 6.0
        return Range(noisy, clean, start, stop)


def __getattr__(name: str) -> Any:
    if name == "Problem":
        warnings.warn(
            "srk.steps.Problem is now srk.steps.RunInfo; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=3,
        )
        return RunInfo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
