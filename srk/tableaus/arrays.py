"""The coefficients of a tableau as NumPy arrays, for numerical work."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from srk.tableaus.entries import Matrix, Vector
from srk.tableaus.fields import TableauFields

__all__ = ["TableauArrays"]


@attrs.frozen(eq=False)
class TableauArrays:
    """The coefficients of a tableau as read-only float64 arrays, under its own field names.

    Arguments:
        alpha: drift weights (s,).
        A: stage drift weights (s, s), strictly lower triangular.
        c: stage abscissae (s,).
        w: stage weights of W (s, m).
        k: stage weights of H (s, m).
        c1: abscissae at which g is read (m,).
        bw: update weights of W (m,).
        bk: update weights of H (m,).
    """

    alpha: NDArray[np.float64]
    A: NDArray[np.float64]
    c: NDArray[np.float64]
    w: NDArray[np.float64]
    k: NDArray[np.float64]
    c1: NDArray[np.float64]
    bw: NDArray[np.float64]
    bk: NDArray[np.float64]

    @classmethod
    def of(cls, tableau: TableauFields) -> TableauArrays:
        """The arrays of `tableau`, which `tableau.arrays` keeps."""
        return cls(
            **{field.name: _array(getattr(tableau, field.name)) for field in attrs.fields(cls)}
        )


def _array(value: Vector | Matrix) -> NDArray[np.float64]:
    array = np.array(
        [[float(x) for x in row] if isinstance(row, tuple) else float(row) for row in value],
        dtype=np.float64,
    )
    array.setflags(write=False)
    return array
