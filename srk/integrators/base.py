"""The integrator: a planner of steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.plans.exponential import denoising_step, exponential_step, final_step
from srk.plans.phase import lift
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level

if TYPE_CHECKING:
    from srk.steps.profile import Profile


class Integrator(ABC):
    """A solver: `plan(step)` turns the ends of a step into a `StepPlan`. It never touches a tensor.

    Subclasses are frozen attrs classes whose fields are the solver's options, and declare what they
    are:

    Attributes:
        name: the registered name.
        evaluations_per_step: network calls per step.
        startup_evaluations: calls of the first step beyond that.
        end_evaluations: calls of a step that is the same for every method: from alpha = 0, to
            sigma = 0, the final denoising.
        strong_order, weak_order: orders at eta = 1 on a linear process (None: not claimed). For a
            method of the ODE alone, weak_order is its order.
        eta_range: the values of eta that the method is defined for, as (lowest, highest).
        linear_only: True if it needs the denoiser of a linear process. A phase-space process is
            then reversed through its statistic.
        phase: True if it plans the steps of a phase-space process itself though it is
            `linear_only`.
        infinite_noise: True if it plans a step that starts at alpha = 0 itself; otherwise such a
            step is an exponential Euler step.
        noise_free: True if it plans a step that ends at sigma = 0 itself; otherwise such a step is
            the denoiser.
        profiled: whether a profile places its steps on the ODE too; with noise it places those of
            every solver.
        reference, advice: where it comes from; when to choose it, in a line.
    """

    name: ClassVar[str] = ""
    evaluations_per_step: int = 1
    startup_evaluations: int = 0
    end_evaluations: int = 1
    strong_order: float | None = None
    weak_order: float | None = None
    eta_range: tuple[float, float] = (0.0, math.inf)
    linear_only: bool = True
    phase: bool = False
    infinite_noise: bool = False
    profiled: bool = False
    noise_free: bool = False
    reference: str = ""
    advice: str = ""

    @abstractmethod
    def plan(self, step: Step) -> StepPlan:
        """The numbers of one step. Called for every step, in float64 on the CPU."""

    def plan_step(self, step: Step) -> StepPlan:
        """The plan of `step`, with the two ends that are the same for every method taken care of.

        A step to sigma = 0 is the denoiser itself, and a step from alpha = 0, where the denoiser is
        a constant (the mean of the data), is an exponential Euler step, unless the method has a
        step of its own there. A phase-space process is reversed through its statistic by methods
        that do not mix its components themselves.
        """
        reduced = step.reduced
        if reduced is not None and (
            step.stop.sigma == 0.0 or (self.linear_only and not self.phase)
        ):
            return lift(step, self.plan_step(reduced))
        if step.linear:
            if step.stop.sigma == 0.0 and not (self.noise_free and step.start.alpha > 0.0):
                return denoising_step(step)
            if step.start.alpha == 0.0 and not self.infinite_noise:
                return exponential_step(step)
        plan = self.plan(step)
        if not isinstance(plan, StepPlan):
            raise ArgumentTypeError(
                f"plan(step) of {self.name or type(self).__name__} returned {plan!r}, not a "
                "StepPlan; "
                "end it with `return draft.finish(new_state)`, where draft = step.draft()"
            )
        return plan

    def final_step(self, process: Any, start: Level, eta: float, index: int) -> StepPlan:
        """The plan of the final denoising from the level `start`, after `index` steps."""
        return final_step(process, start, eta, index)

    def closing(
        self, process: ForwardProcess, eta: float, steps: int | None
    ) -> Callable[[StepPlan], StepPlan] | None:
        """What makes of the last step of a run to `process.t_min` one that leads to the denoised
        prediction itself, so that the final denoising needs no call; None where it needs one.

        Arguments:
            process, eta, steps: of the run; `steps` is None where that is not known.
        """
        return None

    def on_grid(self, process: ForwardProcess, times: Sequence[float], eta: float) -> Integrator:
        """The integrator that plans the steps of a grid known before the run.

        It is this one, unless its steps depend on what comes after them.
        """
        return self

    @property
    def one_eta(self) -> bool:
        """Whether the steps that `on_grid` makes are for one eta of the whole run."""
        return type(self).on_grid is not Integrator.on_grid

    @property
    def default_eta(self) -> float:
        """The eta of a run that names none.

        1 (the reverse SDE) where the method is defined for it, else the nearest (0 for an ODE).
        """
        low, high = self.eta_range
        return min(max(1.0, low), high)

    @property
    def core(self) -> Integrator:
        """The solver whose steps these are: this one, unless it is a form around another."""
        return self

    def calibrated(self, profile: Profile) -> Integrator:
        """The integrator of a run with a profile: this one, unless it has options to take from
        it.
        """
        return self

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        """The integrator that runs when this one is asked for `steps` steps.

        It is this one, unless its work is to choose. `steps` is None where that is not known.
        """
        return self

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        """What a `Solution` calls the solver of such a run."""
        return self.name

    def evaluations(self, steps: int) -> int:
        """Network calls that `steps` steps make."""
        return steps * self.evaluations_per_step + (self.startup_evaluations if steps > 0 else 0)

    def steps(self, nfe: int) -> int:
        """The most steps that `nfe` network calls buy."""
        return max(0, (nfe - self.startup_evaluations) // self.evaluations_per_step)

    def check(self, process: ForwardProcess, eta: float) -> None:
        """Raise `IncompatibleError` if the method cannot reverse `process` with `eta`.

        The message names one that can.
        """
        low, high = self.eta_range
        if not (math.isfinite(eta) and eta >= 0):
            raise ArgumentError(
                "eta must be a finite number >= 0 (1: reverse SDE, 0: probability-flow "
                f"ODE), not {eta!r}"
            )
        if not low <= eta <= high:
            allowed = f"eta = {low:g}" if low == high else f"{low:g} <= eta <= {high:g}"
            cure = (
                "'dpmpp-2m' or 'ddim'"
                if eta == 0
                else "'srk2m' or 'ddpm'"
                if eta <= 1
                else "'ddpm' or 'dpmpp-2m-sde'"
            )
            raise IncompatibleError(
                f"{self.name or type(self).__name__} is defined for {allowed} only, not eta "
                f"= {eta:g}; "
                f"use eta={self.default_eta:g}, or solver={cure}"
            )
        if self.linear_only and process.statistic is None:
            raise IncompatibleError(
                f"{self.name or type(self).__name__} needs a linear process (x_t = alpha x_0 "
                f"+ sigma eps), but {process!r} is not a LinearProcess; "
                "use a raw-frame solver: solver='euler-maruyama' or any tableau, such as 'sra1'"
            )

    def check_shape(  # noqa: B027  # most methods take any shape
        self, shape: Sequence[int], *, cut: bool = False
    ) -> None:
        """Raise `IncompatibleError` if the method cannot take states of that shape.

        Arguments:
            shape: (batch, *event).
            cut: whether the batch is a piece of another one.
        """
