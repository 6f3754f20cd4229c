"""`auto`: one solver for every process, stochasticity and budget; the default of `srk.solve`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import SOLVERS, register_solver
from srk.plans.gauge import check_variance
from srk.plans.gauge_node import Curve, check_curve, check_slope
from srk.plans.plan import Notes, StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess

if TYPE_CHECKING:
    from srk.steps.profile import Profile

UNIPC_FROM = 16
"""Number of steps from which `unipc-3` is ahead on the ODE without a profile
(benchmarks/results/ode.md)."""
SMALL_GAUGE = 0.2
"""Variance of the gauge of `gauge-adams` without a profile, over that of the data as
`data_variance` has it."""
BOUND = 0.4
"""Largest gauge over the variance of the data, but in long steps."""
STAGES = (
    (7, math.inf, 0.27),
    (9, 2.5, 0.28),
    (UNIPC_FROM, 1.5, 0.31),
    (math.inf, 0.7, 1.0 / 3.0),
)
"""Without a profile: `local` and the node below a number of steps. A long step sees detail of many
scales, so that one variance serves it best, and a late node, which a single path asks for, costs it
more (docs/calibration.md)."""
CURVE_STAGES = (
    (7, 1.0, 0.27),
    (UNIPC_FROM, 1.4, 0.32),
    (math.inf, 1.4, 1.0 / 3.0),
)
"""With a profile: what the measured gauge is multiplied by, and the node, below a number of steps
(docs/calibration.md)."""
GAUGE = 0.5
"""Variance of the gauge of `gauge-adams` over the measured one."""
RESPONSE_FROM = 7
"""Steps from which `gauge-adams` counts in full how the denoiser follows a correction, and below
which in half."""


@register_solver
@attrs.frozen(kw_only=True)
class Auto(Integrator):
    """`auto`: picks the solver by process, eta and number of steps; one network call per step.

    - Linear process, eta = 1: `srk2m` with `weights="matched"`. The gauge is one variance with
      fewer than 7 steps and follows the noise from 7 on (`local` 2.5, from 9 steps on 1.5, from 16
      on 0.7). With a profile, the gauge is the measured one, from 7 steps on 1.4 times that. The
      node moves from 0.27 with fewer than 7 steps to 1/3 from 16 on.
    - Linear process, 0 < eta < 1: `srk2m`; eta > 1: `dpmpp-2m-sde`.
    - Linear process, eta = 0 (the probability-flow ODE): `gauge-adams` in a small gauge up to 15
      steps, `unipc-3` from 16 on (benchmarks/results/ode.md). With a profile `gauge-adams` at any
      number of steps; a profile also makes eta = 0 the default.
    - Number of steps not known (an adaptive controller), 0 <= eta <= 1: `srk2s`, which has an error
      estimate and makes two calls per step.
    - Phase-space process: the same, through its statistic; other processes: `euler-maruyama`.

    Orders are those of `srk2m`. `srk.solve` says in `Solution.solver` what was picked.

    Arguments:
        data_variance: four times the variance of the data per coordinate (2: for data scaled to
            [-1, 1]). Where `local` is given it is the bound of the gauge, otherwise a tenth of it
            is, and a fourth in steps longer than 2.5 half log-SNR. A profile sets it from its own
            measurement.
        local: how the gauge follows the noise, see `SRK2M`; None takes the values above.
        node: the node of `srk2m`; None takes the values above.
        curve: a measured gauge, see `SRK2M` and, at eta = 0, `GaugeAdams`; a profile sets it.
        variance: the variance of the data per coordinate as a profile measured it, for
            `gauge-adams`; None where there is no profile.
    """

    name = "auto"
    strong_order = 1.5  # from 16 steps on, where the node is at 1/3
    weak_order = 2.0
    linear_only = False
    infinite_noise = True
    profiled = True
    reference = (
        "srk (docs: Research notes); at eta = 0 also UniPC (arXiv 2302.04867), above 1 "
        "DPM-Solver++ (arXiv 2211.01095)"
    )
    advice = (
        "one call; the default: picks by eta and budget, and says in the solution what it picked"
    )

    data_variance: float = attrs.field(default=2.0, converter=check_variance)
    local: float | None = attrs.field(
        default=None, converter=attrs.converters.optional(check_slope)
    )
    node: float | None = None
    curve: Curve | None = attrs.field(
        default=None,
        converter=check_curve,
        repr=lambda curve: "None" if curve is None else f"<{len(curve)} points>",
    )
    variance: float | None = attrs.field(
        default=None, converter=attrs.converters.optional(check_variance)
    )

    @property
    def default_eta(self) -> float:
        """1, and 0 with a profile, where the ODE has the smaller error (docs/calibration.md)."""
        return 1.0 if self.variance is None else 0.0

    def calibrated(self, profile: Profile) -> Auto:
        """The same solver in the gauge that a profile measured; options that were given stay, and
        with them the default of eta.

        With guidance the denoiser is no mean of the data, so that what is left open cannot be read
        from how it moves: there the gauge is the measured variance at all levels.
        """
        variance = profile.variance
        if self.local is not None or self.node is not None or self.curve is not None:
            return attrs.evolve(self, data_variance=4.0 * variance)
        guided = any(scale != 1.0 for scale in profile.guidance)
        curve = ((0.0, math.log(variance)),) if guided else profile.curve()
        return attrs.evolve(self, data_variance=4.0 * variance, curve=curve, variance=variance)

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        """The solver for a run of `steps` steps (None: not known)."""
        if process.statistic is None:
            return SOLVERS["euler-maruyama"]
        if eta > 1.0:
            return SOLVERS["dpmpp-2m-sde"]
        if steps is None:
            return _with("srk2s", data_variance=self.data_variance / 4.0)
        if eta == 1.0 and self.curve is not None:
            factor, node = _below(CURVE_STAGES, steps)
            return _with(
                "srk2m",
                data_variance=self.data_variance,
                curve=tuple((lam, log_v + math.log(factor)) for lam, log_v in self.curve),
                node=node if self.node is None else self.node,
                weights="matched",
            )
        if eta == 1.0 and self.data_variance > 0.0:
            local, node = _below(STAGES, steps)
            variance = self.data_variance / (4.0 if self.local is None else 1.0)
            return _with(
                "srk2m",
                data_variance=variance,
                bound=BOUND * variance if self.local is None else None,
                local=local if self.local is None else self.local,
                node=node if self.node is None else self.node,
                weights="matched",
            )
        if eta == 0.0 and self.variance is not None:
            return _with(
                "gauge-adams",
                data_variance=GAUGE * self.variance,
                curve=self.curve,
                response=1.0 if steps >= RESPONSE_FROM else 0.5,
            )
        if eta == 0.0 and steps < UNIPC_FROM:
            variance = SMALL_GAUGE * self.data_variance / 4.0
            return _with("gauge-adams", data_variance=variance, response=0.0)
        if eta == 0.0:
            return SOLVERS["unipc-3"]
        variance = self.data_variance / 4.0
        if self.curve is not None:  # a gauge that is the same at all levels, kept as a curve is
            return _with("srk2m", data_variance=variance, curve=((0.0, math.log(variance)),))
        return _with("srk2m", data_variance=variance)

    def closing(
        self, process: ForwardProcess, eta: float, steps: int | None
    ) -> Callable[[StepPlan], StepPlan] | None:
        return self.choose(process, eta, steps).closing(process, eta, steps)

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        """What a `Solution` says of the choice, e.g. "auto: srk2m (local, matched)"."""
        chosen = self.choose(process, eta, steps)
        options = (
            ("local", math.isfinite(getattr(chosen, "local", math.inf))),
            ("calibrated", getattr(chosen, "curve", None) is not None),
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


def _below(stages: tuple[tuple[float, float, float], ...], steps: int) -> tuple[float, float]:
    """The numbers of the first stage that ends above a number of steps."""
    return next((value, node) for end, value, node in stages if steps < end)


def _with(name: str, **options: Any) -> Integrator:
    """A registered solver with other options."""
    # its class is an attrs class
    return attrs.evolve(SOLVERS[name], **options)  # type: ignore[misc]


def _factors(notes: tuple[Any, ...]) -> tuple[float, ...]:
    return notes.factors if isinstance(notes, Notes) else (1.0,) * len(notes)
