"""The steps of a pipeline's run: the plans that `srk.solve` makes, as a pipeline can run them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs

from srk.integrators import (
    DEIS2,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp3M,
    DPMpp3MSDE,
    DPMpp3MSDECorrected,
    Integrator,
    SASolver,
    Step,
    UniPC2,
)
from srk.plans.exponential import denoising_step, exponential_step, final_step
from srk.plans.plan import STATE, Notes, StepPlan
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.sampling.planning import plan_grid

IDENTITY = 1e-9
"""How far a coefficient may be from 1 for a row to be the state itself, up to rounding."""

PURE_NOISE = 1e5
"""sigma/alpha that stands for alpha = 0: UniPC's flows start at sigma = 1 - 1e-6 to avoid it."""


@attrs.frozen
class LastOrders:
    """How a scheduler of diffusers lowers the order of a multistep method at the end of a run.

    Arguments:
        always: whether the last k steps are at most of order k, whatever the number of steps
            (UniPC and SA-Solver); else the last is of order 1 and the one before of order 2, and
            only in runs of fewer than 15 steps (DPM-Solver++ and DEIS).
        euler: whether the last step is of order 1 in every run.
        total: steps of a whole run, those of no length and the denoising one among them.
        after: of these, how many follow the last one that the solver plans.
    """

    always: bool
    euler: bool
    total: int
    after: int

    def remaining(self, step: Step) -> int:
        """Steps from this one to the end of the run, this one among them."""
        assert step.steps is not None
        return step.steps - step.index + self.after

    def order(self, step: Step) -> int | None:
        """The highest order that the step may have; None for the method's own."""
        left = self.remaining(step)
        if self.always:
            return left
        if left == 1 and (self.euler or self.total < 15):
            return 1
        return 2 if left == 2 and self.total < 15 else None


@attrs.frozen
class _Capped(Integrator):
    """A method of predictor and corrector with other orders of the two."""

    inner: SASolver | UniPC2
    predictor: int
    corrector: int

    def plan(self, step: Step) -> StepPlan:
        return self.inner.plan_orders(step, self.predictor, self.corrector)


def _of(inner: str) -> Any:
    """A field that has the value of the inner solver's attribute of that name."""
    return attrs.field(
        init=False, default=attrs.Factory(lambda self: getattr(self.inner, inner), takes_self=True)
    )


@attrs.frozen
class StateFirst(Integrator):
    """A solver as a pipeline can run it.

    A pipeline calls the network at the state that it drew, before the scheduler is asked anything.
    So a first step that would draw noise before its first call is an exponential Euler step here;
    and one of several stages from what stands for pure noise, where the slope in sigma/alpha says
    nothing of the step.
    And a pipeline that leaves out the first steps counts `order` network calls for each of them. So
    a step with fewer calls (the first one from pure noise) makes the others at its end, where the
    next step begins.

    Arguments:
        inner: the solver.
        last: how the order is lowered at the end; None: not at all.
    """

    inner: Integrator
    last: LastOrders | None = None

    name: str = _of("name")  # type: ignore[misc]  # the solver's, not this class's
    evaluations_per_step: int = _of("evaluations_per_step")
    startup_evaluations: int = _of("startup_evaluations")
    eta_range: tuple[float, float] = _of("eta_range")
    profiled: bool = _of("profiled")
    default_eta: float = _of("default_eta")
    linear_only: bool = _of("linear_only")
    infinite_noise: bool = _of("infinite_noise")
    noise_free: bool = _of("noise_free")

    @property
    def core(self) -> Integrator:
        return self.inner.core

    def plan(self, step: Step) -> StepPlan:
        return self.inner.plan(step)

    def plan_step(self, step: Step) -> StepPlan:
        plan = self._inner_plan(step)
        almost_noise = (
            PURE_NOISE < step.start.r < math.inf
            and len(plan.stages) > 1
            and not self.infinite_noise
        )
        if step.index == 0 and (almost_noise or not sees_state(plan)):
            plan = exponential_step(step)
        missing = self.evaluations_per_step - len(plan.stages)
        return plan if missing <= 0 or step.stop.sigma == 0.0 else _filled(step, plan, missing)

    def _inner_plan(self, step: Step) -> StepPlan:
        cap = None if self.last is None or step.steps is None else self.last.order(step)
        if cap is None:
            return self.inner.plan_step(step)
        if isinstance(self.inner, (SASolver, UniPC2)):
            predictor, corrector = self.inner.orders
            # the corrector belongs to the step before, whose order may be higher by one
            capped = min(corrector, cap + 2) if corrector else 0
            return _Capped(self.inner, min(predictor, cap), capped).plan_step(step)
        kept = Notes(
            step.memory[: cap - 1], getattr(step.memory, "factors", step.memory)[: cap - 1]
        )
        return self.inner.plan_step(attrs.evolve(step, memory=kept))

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        return StateFirst(self.inner.choose(process, eta, steps), self.last)

    def on_grid(self, process: ForwardProcess, times: Sequence[float], eta: float) -> Integrator:
        return StateFirst(self.inner.on_grid(process, times, eta), self.last)

    @property
    def one_eta(self) -> bool:
        return self.inner.one_eta

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        return self.inner.label(process, eta, steps)

    def check(self, process: ForwardProcess, eta: float) -> None:
        self.inner.check(process, eta)


def last_orders_of(method: Integrator) -> Literal["always", "short"] | None:
    """By which rule the scheduler of diffusers of that name lowers the order, if it does."""
    if isinstance(method, (UniPC2, SASolver)):
        return "always"
    short = (DEIS2, DPMpp2M, DPMpp2MSDE, DPMpp3M, DPMpp3MSDE, DPMpp3MSDECorrected)
    return "short" if isinstance(method, short) else None


@attrs.frozen
class Route:
    """The steps of a run: levels, method, and the plans that `srk.solve` would make.

    Arguments:
        process: the process that is reversed.
        solver: the integrator that was asked for.
        eta: stochasticity; a number, or one for each step that has a length.
        times: own times of the ends of the steps, not increasing.
        denoise: whether a denoising step follows.
        resolution: relative rounding of the state and of the network (`Step.resolution`).
        diffusion: eta g of the first step, where a rule says so (`Step.diffusion`).
    """

    process: LinearProcess
    solver: StateFirst
    eta: float | tuple[float, ...]
    times: tuple[float, ...]
    denoise: bool
    resolution: float = 2.0**-23
    diffusion: float | None = None

    @property
    def grid(self) -> list[float]:
        """The times without those that repeat the one before: what `srk.solve` takes."""
        return list(dict.fromkeys(self.times))

    def plans(self) -> list[StepPlan]:
        """The plans of all steps; a step of no length makes its call and stays where it is."""
        grid = self.grid
        made = plan_grid(
            self.process,
            self._method(len(grid) - 1),
            grid,
            self.eta,
            self.resolution,
            self.diffusion,
        )
        return self._with_stops(made if len(grid) > 1 else [])

    def _with_stops(self, made: list[StepPlan]) -> list[StepPlan]:
        plans: list[StepPlan] = []
        moving = iter(made)
        for index, (start, stop) in enumerate(pairwise(self.times)):
            if start != stop:
                plans.append(next(moving))
                continue
            last = not self.denoise and all(t == stop for t in self.times[index:])
            plans.append(self._stop(start, plans[-1] if plans else None, last))
        return plans + self._last()

    def _stop(self, t: float, before: StepPlan | None, last: bool) -> StepPlan:
        """A step of no length, with all its calls, which hands on what the step before kept.

        At the end of a run it corrects the state with its evaluation, where the method does so.
        """
        level = self.process.level(t)
        notes = before.notes if before is not None else ()
        step = Step(self.process, level, level, self._eta(0), memory=notes)
        method: Any = self._method(1)
        inner = method.inner
        if last and isinstance(inner, (SASolver, UniPC2)) and inner.orders[1] and notes:
            # the corrected state is what a step of vanishing length leaves
            corrector = inner.orders[1]
            if method.last is not None:
                corrector = min(corrector, 3)
            beyond = attrs.evolve(level, lam=level.lam + 1e-12)
            return _Capped(inner, 1, corrector).plan(attrs.evolve(step, stop=beyond, eta=0.0))
        draft = step.draft()
        draft.evaluate(draft.state, level)
        kept = [(draft.memory(i), note) for i, note in enumerate(notes)]
        stop = draft.finish(draft.state, keep=kept)
        missing = method.evaluations_per_step - 1
        return stop if missing <= 0 else _filled(step, stop, missing)

    def counted(self, step: int) -> list[StepPlan]:
        """The plans of a run that starts at step `step` and numbers its steps as the whole run.

        Solvers that choose their nodes by the number of the step (`ddram`) then make the same
        calls.
        """
        rest = self.rest(step)
        levels = [self.process.level(t) for t in rest.grid]
        first, total = len(self.grid) - len(levels), len(self.grid) - 1
        method = self._method(total)
        notes: tuple[Any, ...] = ()
        made: list[StepPlan] = []
        for index, (start, stop) in enumerate(pairwise(levels), start=first):
            eta = self._eta(index)
            made.append(method.plan_step(self._step(start, stop, index, notes, total, eta)))
            notes = made[-1].notes
        return rest._with_stops(made)

    def after(self, step: int, stage: int) -> list[StepPlan]:
        """The plans of a run that starts at evaluation `stage` of step `step`, with no history.

        Where the network does not see the state at the start of the step there, the run goes to the
        end of the step by one of the first order; evaluations that the step has left then are not
        used.
        """
        plan = self.plans()[step]
        if stage == 0 and sees_state(plan):
            return self.rest(step).plans()
        first, *unused = [entry.level for entry in plan.stages[stage:]]
        moved = len(self.grid) - len(self.rest(step).grid)
        across = Step(self.process, first, plan.stop, self._eta(moved))
        if not plan.stop.lam > first.lam:
            plans = [_idle(across)]
        else:
            plans = [denoising_step(across) if plan.stop.sigma == 0.0 else exponential_step(across)]
        plans += [_idle(Step(self.process, level, plan.stop)) for level in unused]
        rest = self.rest(step + 1)
        levels = [self.process.level(t) for t in rest.grid]
        method = self._method(len(levels))
        if len(levels) > 1:
            method = method.on_grid(self.process, rest.grid, self._eta(0))
        notes: tuple[Any, ...] = ()
        made: list[StepPlan] = []
        for index, (start, stop) in enumerate(pairwise(levels), start=1):
            at = index - 1
            made.append(
                method.plan_step(rest._step(start, stop, index, notes, len(levels), rest._eta(at)))
            )
            notes = made[-1].notes
        return plans + rest._with_stops(made)

    def rest(self, step: int) -> Route:
        """The route from the start of step number `step` on."""
        if step == 0:
            return self
        times = self.times[step:]
        eta = self.eta
        if isinstance(eta, tuple):
            eta = eta[len(eta) + 1 - len(dict.fromkeys(times)) :]
        return attrs.evolve(self, times=times, eta=eta, diffusion=None)

    def _eta(self, index: int) -> float:
        """The eta of the step of that number among those that have a length."""
        if isinstance(self.eta, float):
            return self.eta
        return self.eta[min(index, len(self.eta) - 1)] if self.eta else 0.0

    def _step(
        self, start: Level, stop: Level, index: int, notes: Any, steps: int, eta: float
    ) -> Step:
        return Step(
            self.process,
            start,
            stop,
            eta,
            index,
            notes,
            steps,
            resolution=self.resolution,
        )

    def _method(self, steps: int) -> Integrator:
        if isinstance(self.eta, tuple):  # a solver that chooses does so step by step
            return self.solver
        return self.solver.choose(self.process, self.eta, steps)

    def _last(self) -> list[StepPlan]:
        if not self.denoise:
            return []
        return [final_step(self.process, self.process.level(self.times[-1]), self._eta(0))]


def sees_state(plan: StepPlan) -> bool:
    """Whether the first call of a step is at the state itself, up to rounding."""
    row = plan.stages[0].row
    if len(row) != 1 or row[0][0] != STATE:
        return False
    factor = row[0][1]
    return isinstance(factor, float) and abs(factor - 1.0) <= IDENTITY


def _idle(step: Step) -> StepPlan:
    """A step that asks for an evaluation and stays where it is."""
    draft = step.draft()
    draft.evaluate(draft.state, step.start)
    return draft.finish(draft.state)


def _filled(step: Step, plan: StepPlan, missing: int) -> StepPlan:
    """The step with `missing` more calls, at its end, whose results it does not use."""
    draft = step.draft()
    draft.evaluate(draft.state, step.stop)
    form = attrs.evolve(draft.finish(draft.state).stages[0], row=plan.update)
    return attrs.evolve(plan, stages=plan.stages + (form,) * missing)
