"""A row of a plan under construction: it adds and scales like a number."""

from __future__ import annotations

from typing import Literal

import numpy as np

from srk.plans.matrix import Coefficient, Matrix, compose
from srk.plans.plan import Column, Row

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


def row_of(form: LinearForm) -> Row:
    """The terms of a form that are not zero."""
    terms = (
        (column, value.simplify() if isinstance(value, Matrix) else float(value))
        for column, value in form.terms.items()
    )
    return tuple(term for term in terms if term[1] != 0.0)
