"""A row of a plan under construction: a linear form, which adds and scales like a number."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import numpy as np

from srk.errors import ArgumentError, ArgumentTypeError
from srk.plans.matrix import Coefficient, Matrix, compose
from srk.plans.plan import Column, Row


class LinearForm:
    """A linear combination of columns: a row of a plan while it is written. Immutable.

    Forms add and subtract, and are scaled by real numbers; in phase space also by k x k arrays,
    which act from the left. Nothing else is linear in the state, the network and the draws, and is
    refused: the sum of a form and a number, the product of two forms, a division by zero. Zero is
    the one number that may be added, so that `sum` works.

    Arguments:
        terms: the coefficient of each column.

    Examples:
        >>> from srk.integrators import Column, LinearForm
        >>> x, z = LinearForm({Column("x"): 1.0}), LinearForm({Column("z"): 1.0})
        >>> sum([x, x]) / 4 - 0.1 * z
        0.5 x0 + -0.1 z0
    """

    __slots__ = ("terms",)
    __array_ufunc__ = None  # numpy leaves `array * form` to the form

    def __init__(self, terms: dict[Column, Coefficient]) -> None:
        self.terms = terms

    def __add__(self, other: LinearForm | Literal[0]) -> LinearForm:
        if isinstance(other, LinearForm):
            terms = dict(self.terms)
            for column, value in other.terms.items():
                terms[column] = terms.get(column, 0.0) + value
            return LinearForm(terms)
        if _is_number(other) and other == 0:
            return self
        raise ArgumentTypeError(
            f"a linear form adds to another linear form, not to {_named(other)}: a step is linear "
            "in the state, the network's results and the draws, and has no constant term; scale a "
            "form instead, e.g. draft.state * 0.5 + node.value"
        )

    __radd__ = __add__

    def __mul__(self, scale: float | Matrix | np.ndarray) -> LinearForm:
        if isinstance(scale, Matrix) or (isinstance(scale, np.ndarray) and scale.ndim == 2):
            return LinearForm(
                {column: compose(scale, value) for column, value in self.terms.items()}
            )
        if not _is_number(scale):
            raise ArgumentTypeError(
                f"a linear form is scaled by a number (in phase space by a k x k array), not by "
                f"{_named(scale)}; coefficients are plain floats, e.g. form * float(scale)"
            )
        # A zero coefficient removes the term, so that an infinite factor elsewhere cannot make
        # 0 * inf of it.
        factor = float(scale)
        return LinearForm(
            {column: value * factor for column, value in self.terms.items()} if factor else {}
        )

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> LinearForm:
        if not _is_number(scale):
            raise ArgumentTypeError(f"a linear form is divided by a number, not by {_named(scale)}")
        if scale == 0:
            raise ArgumentError(
                f"the linear form {self!r} is divided by zero; a step that starts at alpha = 0 or "
                "ends at sigma = 0 has forms of its own (Integrator.infinite_noise, noise_free)"
            )
        return self * (1.0 / scale)

    def __neg__(self) -> LinearForm:
        return self * -1.0

    def __sub__(self, other: LinearForm | Literal[0]) -> LinearForm:
        return self + (other * -1.0 if isinstance(other, LinearForm) else other)

    def __rsub__(self, other: LinearForm | Literal[0]) -> LinearForm:
        return -self + other

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


def row_of(form: LinearForm) -> Row:
    """The terms of a form that are not zero.

    Raises:
        ArgumentError: a coefficient is infinite or NaN.
    """
    terms = tuple(
        (column, value.simplify() if isinstance(value, Matrix) else float(value))
        for column, value in form.terms.items()
    )
    for column, value in terms:
        if not math.isfinite(largest(value)):
            raise ArgumentError(
                f"the coefficient of {column.kind}[{column.number}] is {value:g}: the step's "
                "formula "
                "overflows, or divides by zero, between the two noise levels of the step"
            )
    return tuple(term for term in terms if term[1] != 0.0)


def largest(value: Coefficient) -> float:
    """The largest absolute entry of a coefficient; NaN if there is one."""
    if isinstance(value, Matrix):
        return float(np.abs(value.rows).max())
    return abs(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _named(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
