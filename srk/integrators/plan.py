"""A step as a table of numbers: the plan, and the drafting board on which an integrator writes it.

Every explicit solver of this field is linear in the state, the network evaluations and the Gaussian draws. A `StepPlan` is
that linear map for one step: rows of coefficients over columns

    x      the state at the start of the step
    m[i]   what earlier steps kept
    X[i]   the input of this step's i-th evaluation
    E[i]   the result of this step's i-th evaluation (denoiser, or reverse drift)
    z[i]   unit Gaussian draws

A `LinearForm` is a row under construction; it adds and scales, so that a planner reads like the formula in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs
import numpy as np

from srk.integrators.matrix import Coefficient, Matrix, compose
from srk.processes.base import Level
from srk.processes.phase import PhaseProcess

if TYPE_CHECKING:
    from srk.integrators.base import Step

Kind = Literal["denoiser", "drift"]


class Column(NamedTuple):
    """A quantity that rows refer to: `kind` is one of x, m, X, E, z."""

    kind: str
    number: int = 0


Row = tuple[tuple[Column, Coefficient], ...]

STATE = Column("x")

_MATRICES = (Matrix, np.ndarray)


class LinearForm:
    """A linear combination of columns; immutable, supports +, - and scaling by numbers (for phase-space states also by k x k arrays, from the left)."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Column, Coefficient]) -> None:
        self.terms = terms

    def __add__(self, other: LinearForm | Literal[0]) -> LinearForm:  # 0: so that sum() works
        if isinstance(other, LinearForm):
            terms = dict(self.terms)
            for column, value in other.terms.items():
                terms[column] = terms.get(column, 0.0) + value
            return LinearForm(terms)
        return self

    __radd__ = __add__

    def __mul__(self, scale: float | Matrix | np.ndarray) -> LinearForm:
        if isinstance(scale, _MATRICES):
            return LinearForm(
                {column: compose(scale, value) for column, value in self.terms.items()}
            )
        # A zero coefficient removes the term, so that an infinite factor elsewhere cannot make 0 * inf of it.
        return LinearForm(
            {column: value * scale for column, value in self.terms.items()} if scale != 0 else {}
        )

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> LinearForm:
        return self * (1.0 / scale)

    def __neg__(self) -> LinearForm:
        return self * -1.0

    def __sub__(self, other: LinearForm) -> LinearForm:
        return self + other * -1.0

    def number(self, column: Column) -> float:
        """The coefficient of `column` in a form without matrices; 0 where it does not occur."""
        value = self.terms.get(column, 0.0)
        assert not isinstance(value, Matrix)
        return value

    def __repr__(self) -> str:
        return (
            " + ".join(
                f"{value:.6g} {column.kind}{column.number}" for column, value in self.terms.items()
            )
            or "0"
        )


ZERO = LinearForm({})


@attrs.frozen(slots=True)
class Slot:
    """One unit Gaussian draw, independent of the other slots of the step, and what it means on the driving path.

    On the interval [start, stop] of the integrator's clock let W be the Brownian increment and H the space-time Levy area, scaled
    to unit variance. The draw is weights[0] W + weights[1] H + sum_j weights[2 + j] Z_j with fresh Z; the weights have norm 1. A plain
    generator ignores all of that and draws N(0, 1); a source that holds a path answers from it.

    Arguments:
        start, stop: ends of the interval on the integrator's clock (increasing).
        weights: coordinates over (W, H, Z_1, ...), of norm 1.
    """

    start: float
    stop: float
    weights: tuple[float, ...] = (1.0,)


@attrs.frozen(slots=True)
class Stage:
    """One evaluation of the network: where (level), at which state (row), and of what (denoiser or reverse drift)."""

    level: Level
    row: Row
    kind: Kind = "denoiser"


@attrs.frozen(slots=True)
class StepPlan:
    """One step of a solver as numbers; what `Integrator.plan` returns and the executor runs.

    Arguments:
        start, stop: the noise levels at both ends.
        stages: the evaluations, in order; stage i may refer to x, m, z and to X, E of earlier stages.
        update: the new state.
        keep: what the next step may refer to as m[0], m[1], ...
        notes: one value per kept row, handed to the next step's planner as `step.memory`.
        slots: the Gaussian draws.
        error: an estimate of the local error, or None.
        clock: the clock that the slots' intervals are measured on, by name; equal names mean the same path.
    """

    start: Level
    stop: Level
    stages: tuple[Stage, ...]
    update: Row
    keep: tuple[Row, ...] = ()
    notes: tuple[Any, ...] = ()
    slots: tuple[Slot, ...] = ()
    error: Row | None = None
    clock: str = ""
    programs: dict[Any, Any] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )  # the executor's own, by how it runs

    @property
    def evaluations(self) -> int:
        """Network evaluations that this step makes."""
        return len(self.stages)


def fold(plan: StepPlan, pairs: tuple[tuple[float, float], ...]) -> StepPlan:
    """The same step in terms of what a network says rather than of the denoiser.

    With E_i = a_i X_i + b_i O_i for (a_i, b_i) = pairs[i], every row is rewritten over the inputs X_i and the outputs O_i, which then stand in the E
    columns: the conversion costs no pass over memory of its own, and its cancellations happen in float64.
    """

    def rewrite(row: Row) -> Row:
        terms: dict[Column, Coefficient] = {}
        for column, value in row:
            if column.kind == "E":
                a, b = pairs[column.number]
                terms[column] = terms.get(column, 0.0) + value * b
                if a != 0.0:
                    column, value = inputs[column.number], value * a
                else:
                    continue
            terms[column] = terms.get(column, 0.0) + value
        return tuple(terms.items())

    inputs = [
        STATE if stage.row == ((STATE, 1.0),) else Column("X", i)
        for i, stage in enumerate(plan.stages)
    ]
    return attrs.evolve(
        plan,
        stages=tuple(attrs.evolve(stage, row=rewrite(stage.row)) for stage in plan.stages),
        update=rewrite(plan.update),
        keep=tuple(map(rewrite, plan.keep)),
        error=None if plan.error is None else rewrite(plan.error),
    )


@attrs.frozen(slots=True)
class Node:
    """A stage on the drafting board: the form of its input `x` and of its result `value`."""

    x: LinearForm
    value: LinearForm


class Draft:
    """The drafting board for one step: hands out forms for state, memory, evaluations and noise; `finish` gives the plan."""

    def __init__(self, step: Step, clock: str = "") -> None:
        self.step = step
        self.clock = clock
        self.state = LinearForm({STATE: 1.0})
        self._stages: list[Stage] = []
        self._slots: list[Slot] = []

    def memory(self, index: int) -> LinearForm:
        """What an earlier step kept as its `index`-th row."""
        return LinearForm({Column("m", index): 1.0})

    def evaluate(self, x: LinearForm, level: Level, kind: Kind = "denoiser") -> Node:
        """Ask for the denoiser (or reverse drift) at state `x`, noise level `level`."""
        index = len(self._stages)
        row = row_of(x)
        self._stages.append(Stage(level, row, kind))
        at = self.state if row == ((STATE, 1.0),) else LinearForm({Column("X", index): 1.0})
        return Node(at, LinearForm({Column("E", index): 1.0}))

    def drift(self, x: LinearForm, level: Level) -> LinearForm:
        """The drift of the reverse process in the clock -t (so that a step forward is a step down in own time).

        b(x, t) = -f x + (1 + eta^2)/2 g^2 score; for a linear process through the denoiser, otherwise evaluated whole.
        """
        process, eta = self.step.process, self.step.eta
        half = 0.5 * (1.0 + eta * eta)
        if isinstance(process, PhaseProcess):  # the score is C^-1 (a D - z)
            kernel, g = process.kernel(level.t), process.diffusion(level.t)
            pull = half * g @ g.T @ np.linalg.inv(kernel.covariance)
            lift = np.zeros_like(pull)
            lift[:, 0] = pull @ kernel.mean
            node = self.evaluate(x, level)
            drift: LinearForm = node.x * (-process.drift_matrix(level.t) - pull) + node.value * lift
            return drift
        if not self.step.linear:
            return self.evaluate(x, level, "drift").value
        f, g2 = float(process.log_alpha_rate(level.t)), float(process.diffusion(level.t)) ** 2
        node = self.evaluate(x, level)
        return node.x * (-f - half * g2 / level.sigma**2) + node.value * (
            half * g2 * level.alpha / level.sigma**2
        )

    def normal(self, start: float, stop: float, weights: tuple[float, ...] = (1.0,)) -> LinearForm:
        """A unit Gaussian draw on the interval [start, stop] of the clock (see `Slot`)."""
        self._slots.append(Slot(start, stop, weights))
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
        """The jointly Gaussian integrals int k_i(u) dB_u over [start, stop], for kernels given as functions of the clock.

        Each is written in W, H and fresh draws (Gram-Schmidt in the space of kernels, Gauss-Legendre quadrature, 64 points), with as few
        draws as their covariance needs.
        """
        draws, coefficients = self._span(start, stop, kernels)
        return [
            sum(
                (draw * float(c) for draw, c in zip(draws, column, strict=True) if c != 0.0),
                start=ZERO,
            )
            for column in coefficients.T
        ]

    def orthonormal(
        self, start: float, stop: float, kernels: Sequence[Callable[[np.ndarray], np.ndarray]]
    ) -> list[LinearForm]:
        """The integrals of `functionals` made independent unit normals in their order: each with those before taken off, and scaled."""
        return self._span(start, stop, kernels)[0]

    def _span(
        self, start: float, stop: float, kernels: Sequence[Callable[[np.ndarray], np.ndarray]]
    ) -> tuple[list[LinearForm], np.ndarray]:
        """Independent unit draws, and the coefficients of the kernels' integrals in them, a column each."""
        h = stop - start
        times = start + h * _GAUSS_NODES
        values = np.array([np.broadcast_to(k(times), times.shape) for k in kernels]) * (
            math.sqrt(h) * _GAUSS_ROOTS
        )
        scales = np.linalg.norm(values, axis=1)
        # Coordinates over W, H and what the kernels add to them ...
        on_path = values @ _PATH.T
        rest = values - on_path @ _PATH
        rest[np.linalg.norm(rest, axis=1) <= 1e-12 * scales] = 0.0
        rows = np.hstack([on_path, np.asarray(np.linalg.qr(rest.T, mode="r")).T])
        # ... then the draws: directions in those coordinates, by Gram-Schmidt, so that n integrals need at most n draws
        directions, coefficients = np.linalg.qr(rows.T)
        signs = np.where(np.diag(coefficients) < 0, -1.0, 1.0)
        coefficients = signs[:, None] * coefficients
        coefficients[np.abs(coefficients) <= 1e-12 * scales] = 0.0
        draws = []
        for direction, sign in zip(directions.T, signs, strict=True):
            weights = np.where(np.abs(direction) > 1e-14, sign * direction, 0.0)
            draws.append(self.normal(start, stop, tuple(np.trim_zeros(weights, "b").tolist())))
        return draws, coefficients

    def finish(
        self,
        state: LinearForm,
        *,
        keep: Iterable[tuple[LinearForm, Any]] = (),
        error: LinearForm | None = None,
    ) -> StepPlan:
        """The plan whose new state is `state`, keeping the (form, note) pairs `keep` for later steps. Unused draws are dropped.

        The estimate `error` of the step's error goes in only where the step asks for it, so that a fixed grid does not pay for it.
        """
        kept = list(keep)
        error = error if self.step.error else None
        rows = [stage.row for stage in self._stages] + [
            row_of(state),
            *(row_of(form) for form, _ in kept),
        ]
        if error is not None:
            rows.append(row_of(error))
        used = sorted({column.number for row in rows for column, _ in row if column.kind == "z"})
        if len(used) != len(self._slots):
            number = {old: new for new, old in enumerate(used)}
            rows = [
                tuple(
                    (Column("z", number[column.number]) if column.kind == "z" else column, value)
                    for column, value in row
                )
                for row in rows
            ]
        n = len(self._stages)
        return StepPlan(
            start=self.step.start,
            stop=self.step.stop,
            stages=tuple(
                attrs.evolve(stage, row=row)
                for stage, row in zip(self._stages, rows[:n], strict=True)
            ),
            update=rows[n],
            keep=tuple(rows[n + 1 : n + 1 + len(kept)]),
            notes=tuple(note for _, note in kept),
            slots=tuple(self._slots[i] for i in used),
            error=rows[-1] if error is not None else None,
            clock=self.clock,
        )


def row_of(form: LinearForm) -> Row:
    """The terms of a form that are not zero."""
    terms = (
        (column, value.simplify() if isinstance(value, Matrix) else float(value))
        for column, value in form.terms.items()
    )
    return tuple(term for term in terms if term[1] != 0.0)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_GAUSS_NODES = 0.5 * (_NODES + 1.0)
_GAUSS_ROOTS = np.sqrt(0.5 * _WEIGHTS)
# The kernels of W and H, scaled to unit variance, at the quadrature nodes: orthonormal rows
_PATH = np.array([_GAUSS_ROOTS, math.sqrt(12.0) * (0.5 - _GAUSS_NODES) * _GAUSS_ROOTS])
