"""`auto`: the solver that benchmarks/results/quality.md recommends for a process, an eta and a budget."""

from __future__ import annotations

import math
from typing import Any

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import SOLVERS, register_solver
from srk.plans.gauge import check_variance
from srk.plans.gauge_node import check_slope
from srk.plans.plan import Notes, StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess
from srk.processes.phase import statistic

#: Number of steps from which `unipc-3` is ahead of `deis-3` on the ODE (benchmarks/results/ode.md).
UNIPC_FROM = 16


@register_solver
@attrs.frozen(kw_only=True)
class Auto(Integrator):
    """`auto`: picks the solver by process, eta and number of steps; one network call per step.

    - linear process, eta = 1: `srk2m` with `weights="matched"` in a gauge that follows the noise (`local`).
    - linear process, 0 < eta < 1: `srk2m`; eta > 1: `dpmpp-2m-sde`.
    - linear process, eta = 0 (the probability-flow ODE): `deis-3` up to 15 steps, `unipc-3` from 16 on (benchmarks/results/ode.md).
    - phase-space process: the same, through its statistic; other processes: `euler-maruyama`.

    Orders are those of `srk2m`. `srk.solve` says in `Solution.solver` what was picked. A run whose number of steps is not known (an adaptive
    controller) takes `srk2m` without the extras.

    Arguments:
        data_variance: a bound for the variance of the gauge, best some four times the variance of the data (2: for data scaled to [-1, 1]).
        local: how the gauge follows the noise, see `SRK2M`. 1.5 serves densities of all kinds; networks of images are served better by `srk2m-local`.
    """

    name = "auto"
    strong_order = 1.0
    weak_order = 2.0
    linear_only = False
    infinite_noise = True
    reference = "srk (docs: House methods); at eta = 0 DEIS (arXiv 2204.13902) and UniPC (arXiv 2302.04867), above 1 DPM-Solver++ (arXiv 2211.01095)"
    advice = "one call; picks by eta and budget, and says in the solution what it picked"

    data_variance: float = attrs.field(default=2.0, converter=check_variance)
    local: float = attrs.field(default=1.5, converter=check_slope)

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        """The solver for a run of `steps` steps (None: not known)."""
        if statistic(process) is None:
            return SOLVERS["euler-maruyama"]
        if eta > 1.0:
            return SOLVERS["dpmpp-2m-sde"]
        if eta == 1.0 and steps is not None and self.data_variance > 0.0:
            return _srk2m(data_variance=self.data_variance, local=self.local, weights="matched")
        if eta == 0.0 and steps is not None:
            return SOLVERS["deis-3" if steps < UNIPC_FROM else "unipc-3"]
        return _srk2m(data_variance=self.data_variance / 4.0)

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        """What a `Solution` says of the choice, e.g. "auto: srk2m (local, matched)"."""
        chosen = self.choose(process, eta, steps)
        options = (
            ("local", math.isfinite(getattr(chosen, "local", math.inf))),
            ("matched", getattr(chosen, "weights", None) == "matched"),
        )
        extras = [word for word, holds in options if holds]
        return f"{self.name}: {chosen.name}" + (f" ({', '.join(extras)})" if extras else "")

    def plan(self, step: Step) -> StepPlan:
        """The plan of the method chosen for this step's eta.

        What another method kept is of no use to it, so where eta changes the choice it starts anew.
        """
        chosen = self.choose(step.process, step.eta, step.steps)
        memory = step.memory
        if memory and memory[0].method == chosen:
            notes = Notes((note.note for note in memory), _factors(memory))
        else:
            notes = Notes()
        plan = chosen.plan_step(attrs.evolve(step, memory=notes))
        kept = Notes((_Note(chosen, note) for note in plan.notes), _factors(plan.notes))
        return attrs.evolve(plan, notes=kept)

    def check(self, process: ForwardProcess, eta: float) -> None:
        super().check(process, eta)
        self.choose(process, eta, None).check(process, eta)


@attrs.frozen(slots=True)
class _Note:
    """A note and the method that made it."""

    method: Integrator
    note: Any


def _srk2m(**options: Any) -> Integrator:
    """The registered `srk2m` with other options."""
    return attrs.evolve(SOLVERS["srk2m"], **options)  # type: ignore[misc]  # its class is an attrs class


def _factors(notes: tuple[Any, ...]) -> tuple[float, ...]:
    return notes.factors if isinstance(notes, Notes) else (1.0,) * len(notes)
