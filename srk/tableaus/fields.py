"""The fields of a tableau, as its helpers see them.

The functions that check the shape of a tableau, turn it into arrays or into plain data are used by
the class `StochasticTableau` itself. They name what they read here, so that they need not import
the class.
"""

from __future__ import annotations

from typing import Protocol

from srk.tableaus.entries import Matrix, Vector

__all__ = ["TableauFields"]


class TableauFields(Protocol):
    """Anything with the fields of a `StochasticTableau`, which documents them."""

    @property
    def name(self) -> str: ...
    @property
    def alpha(self) -> Vector: ...
    @property
    def A(self) -> Matrix: ...
    @property
    def c(self) -> Vector: ...
    @property
    def w(self) -> Matrix: ...
    @property
    def k(self) -> Matrix: ...
    @property
    def c1(self) -> Vector: ...
    @property
    def bw(self) -> Vector: ...
    @property
    def bk(self) -> Vector: ...
    @property
    def bw_error(self) -> Vector | None: ...
    @property
    def bk_error(self) -> Vector | None: ...
