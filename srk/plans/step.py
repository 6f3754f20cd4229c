"""What a planner sees of a step, and the draft on which it writes the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np

from srk.plans.form import ZERO, LinearForm, largest, row_of
from srk.plans.plan import STATE, Column, Kind, Notes, Over, Quantity, Ratio, Slot, Stage, StepPlan
from srk.processes.base import Level, LinearProcess
from srk.processes.quadrature import gauss_legendre

SMALLEST_ETA = 1e-150
"""From here on down eta is 0: its square would be lost below the smallest number."""


def _eta(value: float) -> float:
    return value if value > SMALLEST_ETA else 0.0


@attrs.frozen(slots=True)
class Step:
    """All that a planner may know of a step.

    The two ends of the step, the process, eta, and what earlier steps kept.

    Arguments:
        process: the forward process.
        start, stop: noise levels at both ends (start is noisier). For a process that is not linear
            only `t` is meaningful.
        eta: stochasticity; 1 is the reverse SDE, 0 the probability-flow ODE.
        index: number of the step, from 0.
        memory: the notes of the rows that the step before kept, in order; empty on the first step.
        steps: how many steps the run has; None where a controller decides as it goes.
        error: whether the run wants the plan's error estimate; `Draft.finish` leaves it out
            otherwise.
        diffusion: the product of eta and g where a rule sets it for a step from alpha = 0, at which
            g is infinite; else None.
        resolution: relative rounding of the state and of what the network says, the coarser of the
            two (`torch.finfo(dtype).eps`; 2^-52 in float64).
    """

    process: Any
    start: Level
    stop: Level
    eta: float = attrs.field(default=1.0, converter=_eta)
    index: int = 0
    memory: tuple[Any, ...] = ()
    steps: int | None = None
    error: bool = False
    resolution: float = 2.0**-52
    diffusion: float | None = None

    @property
    def h(self) -> float:
        """The step in half log-SNR, positive; inf where the step starts at alpha = 0."""
        return self.stop.lam - self.start.lam

    @property
    def linear(self) -> bool:
        """Whether the process is linear, so that the denoiser exists."""
        return isinstance(self.process, LinearProcess)

    @property
    def reduced(self) -> Step | None:
        """The same step of the statistic, where the state holds more than that; else None."""
        if self.process.components == 1:
            return None
        return attrs.evolve(self, process=self.process.statistic)

    def draft(self, clock: str = "") -> Draft:
        """A draft for this step; `clock` names the clock of the draws."""
        return Draft(self, clock)


@attrs.frozen(slots=True)
class Node:
    """A stage on the draft: the form of its input `x` and of its result `value`."""

    x: LinearForm
    value: LinearForm


class Draft:
    """The draft for one step.

    Hands out forms for state, memory, evaluations and noise; `finish` gives the plan.
    """

    def __init__(self, step: Step, clock: str = "") -> None:
        self.step = step
        self.clock = clock
        self.state = LinearForm({STATE: 1.0})
        self._stages: list[Stage] = []
        self._slots: list[Slot] = []
        self._quantities: list[Quantity] = []
        self._ratios: list[Ratio] = []

    def memory(self, index: int) -> LinearForm:
        """What an earlier step kept as its `index`-th row."""
        memory = self.step.memory
        factor = memory.factors[index] if isinstance(memory, Notes) else 1.0
        return LinearForm({Column("m", index): factor})

    def evaluate(self, x: LinearForm, level: Level, kind: Kind = "denoiser") -> Node:
        """Ask for the denoiser (or reverse drift) at state `x`, noise level `level`."""
        index = len(self._stages)
        row = row_of(x)
        self._stages.append(Stage(level, row, kind))
        at = self.state if row == ((STATE, 1.0),) else LinearForm({Column("X", index): 1.0})
        return Node(at, LinearForm({Column("E", index): 1.0}))

    def formed(self, form: LinearForm, ratio: int | None = None, power: float = 1.0) -> LinearForm:
        """The form computed once, for other forms to refer to.

        Arguments:
            form: what to compute.
            ratio: what `norms` gave: the form is multiplied by that ratio; None for no factor.
            power: of the ratio.
        """
        self._quantities.append(Quantity(row_of(form), ratio, power))
        return LinearForm({Column("q", len(self._quantities) - 1): 1.0})

    def norms(
        self,
        numerator: LinearForm,
        denominator: LinearForm,
        over: Over = "sample",
    ) -> int:
        """The ratio |numerator|/|denominator| of two forms, a number of the device.

        Arguments:
            numerator, denominator: what the norms are of.
            over: whose norms; see `Ratio`.

        Returns:
            The number of the ratio, for `formed`.
        """
        self._ratios.append(Ratio(self._column(numerator), self._column(denominator), over))
        return len(self._ratios) - 1

    def _column(self, form: LinearForm) -> Column:
        """A column that holds the form: a draw or a quantity as it is, or a new quantity."""
        (column, value), *more = form.terms.items()
        if more or value != 1.0 or column.kind not in ("z", "q"):
            (column,) = self.formed(form).terms
        return column

    def drift(self, x: LinearForm, level: Level) -> LinearForm:
        """The drift of the reverse process in the clock -t.

        In that clock a step forward is a step down in own time.

        b(x, t) = -f x + (1 + eta^2)/2 g^2 score, through the denoiser where there is one
        (`ForwardProcess.reverse_drift`), otherwise evaluated whole.
        """
        coefficients = self.step.process.reverse_drift(level, self.step.eta)
        if coefficients is None:
            return self.evaluate(x, level, "drift").value
        of_state, of_data = coefficients
        node = self.evaluate(x, level)
        drift: LinearForm = node.x * of_state + node.value * of_data
        return drift

    def normal(
        self,
        start: float,
        stop: float,
        weights: tuple[float, ...] = (1.0,),
        number: int | None = None,
    ) -> LinearForm:
        """A unit Gaussian draw on the interval [start, stop] of the clock (see `Slot`)."""
        self._slots.append(Slot(start, stop, weights, number))
        return LinearForm({Column("z", len(self._slots) - 1): 1.0})

    def increment(self, start: float, stop: float) -> LinearForm:
        """The Brownian increment W over [start, stop]."""
        return self.normal(start, stop) * math.sqrt(stop - start)

    def area(self, start: float, stop: float) -> LinearForm:
        """The space-time Levy area H over [start, stop], variance (stop - start)/12."""
        return self.normal(start, stop, (0.0, 1.0)) * math.sqrt((stop - start) / 12.0)

    def functionals(
        self, start: float, stop: float, kernels: Sequence[Callable[[np.ndarray], np.ndarray]]
    ) -> list[LinearForm]:
        """The jointly Gaussian integrals int k_i(u) dB_u over [start, stop].

        The kernels are functions of the clock.

        Each is written in W, H and fresh draws (Gram-Schmidt in the space of kernels,
        Gauss-Legendre quadrature, 64 points), with as few draws as their covariance needs.
        """
        h = stop - start
        times = start + h * _GAUSS_NODES
        values = np.array([np.broadcast_to(k(times), times.shape) for k in kernels])
        draws, coefficients = self._span(start, stop, values * (math.sqrt(h) * _GAUSS_ROOTS))
        return [
            sum(
                (draw * float(c) for draw, c in zip(draws, column, strict=True) if c != 0.0),
                start=ZERO,
            )
            for column in coefficients.T
        ]

    def orthonormal(
        self,
        start: float,
        stop: float,
        kernels: Sequence[Callable[[np.ndarray], np.ndarray]],
        *,
        fractions: bool = False,
    ) -> list[LinearForm]:
        """The integrals of `functionals` made independent unit normals in their order.

        Each has those before it taken off and is scaled.

        Arguments:
            start, stop: ends of the interval on the clock.
            kernels: functions of the clock.
            fractions: the kernels are functions of the fraction of the interval, in [0, 1],
                instead; the two ends of the interval may then be the same number to rounding.
        """
        points = _GAUSS_NODES if fractions else start + (stop - start) * _GAUSS_NODES
        values = np.array([np.broadcast_to(k(points), points.shape) for k in kernels])
        return self._span(start, stop, values * _GAUSS_ROOTS)[0]

    def _span(
        self, start: float, stop: float, values: np.ndarray
    ) -> tuple[list[LinearForm], np.ndarray]:
        """Independent unit draws, and the coefficients of the integrals in them, a column each.

        `values` are the kernels at the quadrature nodes times the roots of the weights, a row each.
        """
        scales = np.linalg.norm(values, axis=1)
        # Coordinates over W, H and what the kernels add to them ...
        on_path = values @ _PATH.T
        rest = values - on_path @ _PATH
        rest[np.linalg.norm(rest, axis=1) <= 1e-12 * scales] = 0.0
        rows = np.hstack([on_path, np.asarray(np.linalg.qr(rest.T, mode="r")).T])
        # ... then the draws: directions in those coordinates, by Gram-Schmidt, so that n integrals
        # need at most n draws
        directions, coefficients = np.linalg.qr(rows.T)
        signs = np.where(np.diag(coefficients) < 0, -1.0, 1.0)
        coefficients = signs[:, None] * coefficients
        coefficients[np.abs(coefficients) <= 1e-12 * scales] = 0.0
        draws = []
        before = sum(
            slot.number is not None and (slot.start, slot.stop) == (start, stop)
            for slot in self._slots
        )
        for number, (direction, sign) in enumerate(zip(directions.T, signs, strict=True)):
            weights = np.where(np.abs(direction) > 1e-14, sign * direction, 0.0)
            trimmed = tuple(np.trim_zeros(weights, "b").tolist())
            draws.append(self.normal(start, stop, trimmed, before + number))
        return draws, coefficients

    def finish(
        self,
        state: LinearForm,
        *,
        keep: Iterable[tuple[LinearForm, Any]] = (),
        error: LinearForm | None = None,
    ) -> StepPlan:
        """The plan whose new state is `state`.

        It keeps the (form, note) pairs `keep` for later steps. Unused draws are dropped.

        The estimate `error` of the step's error goes in only where the step asks for it, so that a
        fixed grid does not pay for it.
        """
        kept = [(*_scaled(form), note) for form, note in keep]
        plan = StepPlan(
            start=self.step.start,
            stop=self.step.stop,
            stages=tuple(self._stages),
            update=row_of(state),
            keep=tuple(row_of(form) for form, _, _ in kept),
            notes=Notes((note for _, _, note in kept), (factor for _, factor, _ in kept)),
            slots=tuple(self._slots),
            error=row_of(error) if error is not None and self.step.error else None,
            clock=self.clock,
            quantities=tuple(self._quantities),
            ratios=tuple(self._ratios),
        )
        return _without_unused(plan)


def _without_unused(plan: StepPlan) -> StepPlan:
    """The plan without the draws that no row refers to."""
    columns = [column for row in plan.rows() for column, _ in row]
    columns += [column for r in plan.ratios for column in (r.numerator, r.denominator)]
    used = {column.number for column in columns if column.kind == "z"}
    if len(used) == len(plan.slots):
        return plan
    kept = sorted(used)
    number = {old: new for new, old in enumerate(kept)}

    def place(column: Column) -> Column:
        return Column("z", number[column.number]) if column.kind == "z" else column

    renumbered = plan.each_row(lambda row: tuple((place(column), value) for column, value in row))
    return attrs.evolve(
        renumbered,
        slots=tuple(plan.slots[i] for i in kept),
        ratios=tuple(Ratio(place(r.numerator), place(r.denominator), r.over) for r in plan.ratios),
    )


def _scaled(form: LinearForm) -> tuple[LinearForm, float]:
    """The form with coefficients below 2, and the power of two that it was divided by."""
    size = max(map(largest, form.terms.values()), default=0.0)
    if not 2.0 <= size < math.inf:
        return form, 1.0
    factor = 2.0 ** (math.frexp(size)[1] - 1)
    return form * (1.0 / factor), factor


_GAUSS_NODES, _WEIGHTS = gauss_legendre(64)
_GAUSS_ROOTS = np.sqrt(_WEIGHTS)
# The kernels of W and H, scaled to unit variance, at the quadrature nodes: orthonormal rows
_PATH = np.array([_GAUSS_ROOTS, math.sqrt(12.0) * (0.5 - _GAUSS_NODES) * _GAUSS_ROOTS])
