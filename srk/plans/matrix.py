"""Coefficients of a plan that mix the components of a phase-space state.

K x k matrices beside plain numbers.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np


@attrs.frozen(slots=True)
class Matrix:
    """A k x k coefficient, acting on the component axis (1) of a tensor.

    The tensor has shape (batch, k, *event). A number c beside it means c times the identity.

    Arguments:
        rows: the entries.

    Examples:
        >>> from srk.plans.matrix import Matrix
        >>> turn = Matrix.of([[0.0, -1.0], [1.0, 0.0]])
        >>> turn @ turn + 2.0
        Matrix(rows=((1.0, 0.0), (0.0, 1.0)))
    """

    rows: tuple[tuple[float, ...], ...]

    @staticmethod
    def of(array: Any) -> Matrix:
        """From anything with k x k entries."""
        return Matrix(tuple(tuple(float(value) for value in row) for row in array))

    def __add__(self, other: Matrix | float) -> Matrix:
        added = other.rows if isinstance(other, Matrix) else np.eye(len(self.rows)) * other
        return Matrix.of(np.add(self.rows, added))

    __radd__ = __add__

    def __mul__(self, scale: float) -> Matrix:
        return Matrix(tuple(tuple(value * scale for value in row) for row in self.rows))

    __rmul__ = __mul__

    def __matmul__(self, other: Matrix) -> Matrix:
        return Matrix.of(np.matmul(self.rows, other.rows))

    def __format__(self, spec: str) -> str:
        return (
            "["
            + ", ".join(
                "[" + ", ".join(format(value, spec) for value in row) + "]" for row in self.rows
            )
            + "]"
        )

    def simplify(self) -> Matrix | float:
        """The number c if this is c times the identity."""
        diagonal = self.rows[0][0]
        same = all(
            value == (diagonal if i == j else 0.0)
            for i, row in enumerate(self.rows)
            for j, value in enumerate(row)
        )
        return diagonal if same else self


Coefficient = float | Matrix


def compose(after: Any, before: Coefficient) -> Coefficient:
    """The coefficient `before`, then `after`.

    Each is a number, a `Matrix` or an array of k x k entries.
    """
    if isinstance(after, np.ndarray):
        after = Matrix.of(after)
    if isinstance(after, Matrix) and isinstance(before, Matrix):
        return after @ before
    product: Coefficient = after * before
    return product
