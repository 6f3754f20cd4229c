r"""Steps of phase-space processes.

Scalar plans through the sufficient statistic, and the exact flow given the data.

With the kernel N(a x0, C) of z_t given the data and x0 frozen at D, the reverse family is linear
and is solved exactly:

    z' = a' D + Phi (z - a D) + N(0, C' - Phi C Phi^T)
    dPhi/dt = (F + (1 + eta^2)/2 G G^T C^-1) Phi

For eta = 1, Phi = C' Psi^T C^-1 is the gain of the exact posterior of z' given z and x0; for eta =
0 there is no noise.
"""

from __future__ import annotations

import attrs
import numpy as np

from srk.plans.form import LinearForm, row_of
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import STATE, Column, Row, StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level
from srk.processes.kernel import Array


def lift(step: Step, plan: StepPlan) -> StepPlan:
    """The plan of a phase-space step that moves the statistic m as `plan` does.

    It keeps xi, the part of the state that is independent of m and of the data.

    The network is called at z = a m + D xi, a state of the process at the stage's noise level. Of a
    draw the first component is used; kept rows stand in the first component.

    Arguments:
        step: the step of the phase-space process.
        plan: the plan of the same step of its `statistic`.
    """
    process: ForwardProcess = step.process
    k = process.components
    first = np.zeros((k, k))
    first[0, 0] = 1.0
    start = process.kernel(step.start.t)
    inputs = [process.kernel(stage.level.t) for stage in plan.stages]

    def onto(row: Row, target: Array) -> LinearForm:
        """target times the number that `row` makes of m and of what stands in first components."""
        terms: dict[Column, Coefficient] = {}
        for column, value in row:
            kernel = (
                start if column == STATE else inputs[column.number] if column.kind == "X" else None
            )
            reading = first[0] if kernel is None else kernel.reading
            # The plan of a scalar process holds numbers.
            mixed = Matrix.of(np.outer(target, reading))
            terms[column] = mixed * float(value)  # type: ignore[arg-type]
        return LinearForm(terms)

    def state(row: Row, level: Level) -> Row:
        if row == ((STATE, 1.0),) and level.t == step.start.t:
            return row
        kernel = process.kernel(level.t)
        return row_of(
            onto(row, kernel.mean) + LinearForm({STATE: Matrix.of(kernel.complement @ start.rest)})
        )

    return attrs.evolve(
        plan,
        stages=tuple(
            attrs.evolve(stage, row=state(stage.row, stage.level)) for stage in plan.stages
        ),
        update=state(plan.update, plan.stop),
        keep=tuple(row_of(onto(row, first[0])) for row in plan.keep),
        error=None
        if plan.error is None
        else row_of(onto(plan.error, process.kernel(plan.stop.t).mean)),
    )


def factor(covariance: Array) -> Array:
    """Lower-triangular L with L L^T = covariance.

    The covariance may be singular to rounding.
    """
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = covariance / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(correlation)
    r = np.asarray(np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T, mode="r"))
    lower: Array = scale[:, None] * (r.T * np.where(np.diag(r) < 0.0, -1.0, 1.0))
    return lower


def of_data(column: Array) -> Array:
    """The k x k array that puts the data component, times `column`, into every component."""
    out = np.zeros((len(column), len(column)))
    out[:, 0] = column
    return out
