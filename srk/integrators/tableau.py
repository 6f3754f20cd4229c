"""Any stochastic Butcher tableau as a solver: in the raw frame, or in a gauge clock."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from srk.errors import ArgumentTypeError, DuplicateNameError, IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.registry import SOLVERS
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeClock
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step
from srk.processes.base import ForwardProcess
from srk.tableaus import TABLEAUS, StochasticTableau
from srk.tableaus import register_tableau as _register_tableau


def _tableau(value: Any) -> StochasticTableau:
    if isinstance(value, StochasticTableau):
        return value
    if isinstance(value, str):
        return TABLEAUS[value]
    raise ArgumentTypeError(
        f"a tableau is a StochasticTableau or the name of a registered one, not {value!r}"
    )


@attrs.frozen
class TableauSolver(Integrator):
    """A stochastic Runge-Kutta method given by its tableau.

    It solves the reverse SDE as an SDE with additive noise.

    Stages and update are those of `srk.StochasticTableau`. In the raw frame (default) time is the
    process's own and the noise amplitude is eta g(t); any process, any eta. In a gauge clock
    (`data_variance` given; 0 is stochastic localization) the SDE is dZ = R dtau + dB with unit
    noise; linear processes, eta = 1.

    Arguments:
        tableau: a `StochasticTableau` or the name of a registered one.
        data_variance: None for the raw frame; v in [0, inf] for the gauge clock of N(0, v).
    """

    tableau: StochasticTableau = attrs.field(converter=_tableau)
    data_variance: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.data_variance is not None:
            GaugeClock(self.data_variance)  # refuses a bad variance

    @property
    def name(self) -> str:  # type: ignore[override]  # that of the tableau and its clock
        if self.data_variance is None:
            return self.tableau.name
        return f"{self.tableau.name}@gauge({self.data_variance:g})"

    @property
    def evaluations_per_step(self) -> int:  # type: ignore[override]
        return len(self.tableau.alpha)

    @property
    def strong_order(self) -> float | None:  # type: ignore[override]
        order = self.tableau.strong_order
        return None if order is None else float(order)

    @property
    def weak_order(self) -> float | None:  # type: ignore[override]
        order = self.tableau.weak_order
        return None if order is None else float(order)

    @property
    def eta_range(self) -> tuple[float, float]:  # type: ignore[override]
        return (0.0, math.inf) if self.data_variance is None else (1.0, 1.0)

    @property
    def linear_only(self) -> bool:  # type: ignore[override]
        return self.data_variance is not None

    @property
    def reference(self) -> str:  # type: ignore[override]
        return self.tableau.reference

    @property
    def advice(self) -> str:  # type: ignore[override]
        return self.tableau.advice

    def check(self, process: ForwardProcess, eta: float) -> None:
        super().check(process, eta)
        if self.data_variance is None and max(map(float, self.tableau.c), default=0.0) > 1.0:
            raise IncompatibleError(
                f"the tableau {self.tableau.name!r} has a stage beyond the end of the step; "
                "srk reverses within [t_min, t_max] only"
            )

    def plan(self, step: Step) -> StepPlan:
        return (
            self._raw(step) if self.data_variance is None else self._gauge(step, self.data_variance)
        )

    def _raw(self, step: Step) -> StepPlan:
        t, process = self.tableau, step.process
        t0, t1 = step.start.t, step.stop.t
        h = t0 - t1
        draft = step.draft("time")
        W, H = _path(draft, -t0, -t1)

        def level_at(c: float) -> Any:
            if c in (0.0, 1.0):
                return step.stop if c else step.start
            return process.level((1.0 - c) * t0 + c * t1)

        # numbers, or k x k arrays in phase space
        g = [step.eta * process.diffusion((1.0 - float(c)) * t0 + float(c) * t1) for c in t.c1]
        drifts: list[LinearForm] = []
        for i in range(len(t.alpha)):
            x = draft.state + _sum(t.A[i], drifts) * h + _noise(t.w[i], t.k[i], g, W, H)
            drifts.append(draft.drift(x, level_at(float(t.c[i]))))
        error = None
        if t.alpha_hat is not None:
            error = self._drift_error(drifts, h)
            if t.bw_error is not None and t.bk_error is not None:
                error += _noise(t.bw_error, t.bk_error, g, W, H)
        return draft.finish(
            draft.state + _sum(t.alpha, drifts) * h + _noise(t.bw, t.bk, g, W, H), error=error
        )

    def _gauge(self, step: Step, v: float) -> StepPlan:
        t, clock = self.tableau, GaugeClock(v)
        h = clock.length(step.start, step.stop)
        draft = step.draft(clock.name)
        begin = clock.value(step.start)
        W = draft.normal(begin, begin + h) * math.sqrt(h)
        H = draft.normal(begin, begin + h, (0.0, 1.0)) * math.sqrt(h / 12.0)
        ones = [1.0] * len(t.c1)
        Z = clock.to_clock(step.start, draft.state)
        rates: list[LinearForm] = []
        for i in range(len(t.alpha)):
            level = clock.node(step.process, step.start, step.stop, float(t.c[i]))
            z = Z + _sum(t.A[i], rates) * h + _noise(t.w[i], t.k[i], ones, W, H)
            x = clock.from_clock(level, z) if level is not step.start or z is not Z else draft.state
            node = draft.evaluate(x, level)
            rates.append(clock.rate(level, node.x, node.value))
        # g is constant on this clock: the noise error vanishes
        error = (
            None
            if t.alpha_hat is None
            else clock.from_clock(step.stop, self._drift_error(rates, h))
        )
        return draft.finish(
            clock.from_clock(
                step.stop, Z + _sum(t.alpha, rates) * h + _noise(t.bw, t.bk, ones, W, H)
            ),
            error=error,
        )

    def _drift_error(self, forms: list[LinearForm], h: float) -> LinearForm:
        """h sum (alpha - alpha_hat) f."""
        t = self.tableau
        return _sum([a - b for a, b in zip(t.alpha, t.alpha_hat or (), strict=True)], forms) * h


def _path(draft: Draft, start: float, stop: float) -> tuple[LinearForm, LinearForm]:
    return draft.increment(start, stop), draft.area(start, stop)


def _sum(weights: Any, forms: list[LinearForm]) -> LinearForm:
    total = ZERO
    for weight, form in zip(weights, forms, strict=False):
        if weight != 0:
            total = total + form * float(weight)
    return total


def _noise(w: Any, k: Any, g: list[Any], W: LinearForm, H: LinearForm) -> LinearForm:
    noise: LinearForm = W * _weighted(w, g) + H * _weighted(k, g)
    return noise


def _weighted(weights: Any, g: list[Any]) -> Any:
    if g and isinstance(g[0], np.ndarray):
        return np.tensordot([float(x) for x in weights], np.array(g), 1)
    return float(np.dot([float(x) for x in weights], g))


def register_tableau(tableau: StochasticTableau, name: str | None = None) -> StochasticTableau:
    """Check a tableau, register it, and make it usable at once as a solver in the raw frame.

    Arguments:
        tableau: the `StochasticTableau`.
        name: the name; default is the tableau's own.

    Returns:
        The tableau as registered, renamed if `name` is given.

    Raises:
        TableauError: the coefficients do not support the declared order; the message lists the
            residuals.
        DuplicateNameError: a tableau or a solver of that name exists.
    """
    key = name or tableau.name
    if key in SOLVERS:
        raise DuplicateNameError(
            f"a solver named {key!r} is registered already ({SOLVERS[key]!r}); choose "
            "another name for the tableau"
        )
    tableau = _register_tableau(tableau, name)
    SOLVERS.register(key, TableauSolver(tableau))
    return tableau


def integrator(solver: str | Integrator | StochasticTableau) -> Integrator:
    """The integrator that a user means.

    A registered name, an `Integrator`, or a tableau (in the raw frame).
    """
    if isinstance(solver, Integrator):
        return solver
    if isinstance(solver, StochasticTableau):
        return TableauSolver(solver)
    if isinstance(solver, str):
        return SOLVERS[solver]
    raise ArgumentTypeError(
        f"solver must be a name, an srk.Integrator or an srk.StochasticTableau, not {solver!r}"
    )


for _name, _table in TABLEAUS.items():
    if _name != "euler":  # as a solver it is `euler-maruyama`; `euler` is the method of the ODE
        SOLVERS.register(_name, TableauSolver(_table))
