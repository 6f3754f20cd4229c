"""Roessler's SRA form of a tableau, in which noise beyond W enters as I10/h = W/2 + H."""

from __future__ import annotations

from srk.errors import TableauError
from srk.tableaus.entries import Matrix, Vector, add_once
from srk.tableaus.forms import HALF

__all__ = ["SRAForm"]


class SRAForm:
    """The weights of I10/h, read from those of W and H that a tableau has."""

    __slots__ = ()

    name: str
    w: Matrix
    k: Matrix
    bw: Vector
    bk: Vector

    @property
    def is_sra(self) -> bool:
        """Whether stage noise enters through I10/h alone (w = k/2): Roessler's SRA form."""
        return all(
            x == y * HALF
            for row_w, row_k in zip(self.w, self.k, strict=True)
            for x, y in zip(row_w, row_k, strict=True)
        )

    def _require_sra(self) -> None:
        if not self.is_sra:
            raise TableauError(
                f"tableau {self.name!r} has no SRA form: its stage noise is not a multiple "
                "of I10/h = W/2 + H, that is w = k/2; "
                "use w, k, bw, bk instead of B, beta1, beta2"
            )

    @property
    def B(self) -> Matrix:
        """Roessler's stage weights of I10/h (s, m).

        `TableauError` if the tableau has no SRA form.
        """
        self._require_sra()
        return self.k

    @property
    def beta1(self) -> Vector:
        """Roessler's update weights of W (m,): exact for Fractions, rounded once for floats."""
        self._require_sra()
        return tuple(add_once(x, -y * HALF) for x, y in zip(self.bw, self.bk, strict=True))

    @property
    def beta2(self) -> Vector:
        """Roessler's update weights of I10/h (m,)."""
        self._require_sra()
        return self.bk
