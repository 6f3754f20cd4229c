r"""Order conditions of stochastic Runge-Kutta tableaus for additive noise.

The conditions are the coefficients of the stochastic B-series of `dX = f(X, t) dt + g(t) dB`, any
number of independent Brownian motions. Write `w_i = sum_m w_im`, `k_i = sum_m k_im` and

    Q_i = w_i^2 + k_i^2/12                 variance of stage i's noise over h g^2
    C_ij = w_i w_j + k_i k_j/12            covariance of the noise of stages i and j over h g^2

Strong order p needs every term up to order p on the path and the mean of order p + 1/2 (Milstein
and Tretyakov): for p = 1 the sums of weights, for p = 3/2 also `f' g I10` (alpha.w, alpha.k), `g'
int s dB` (bw.c1, bk.c1) and the means `f'f/2`, `f_t/2`, `f''gg/4`. Weak order p needs the
expectation of every product of such terms of total order <= p, each pairing of Gaussian factors
separately (exotic trees): a tree node f counts 1, a pair of noise leaves 1, a derivative of g 1.
For constant g the update's noise must be W itself (`bw.e = 1`, `bk.e = 0`), at every order; the
other rows below are written with that.

Sources: A. Roessler, SIAM J. Numer. Anal. 48 (2010) 922 (SRA); K. Debrabant 2010, BIT (that weak
order 3 exists for additive noise). The weak order 3 rows are our own derivation; the tests generate
them anew from all trees and pairings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import attrs

from srk.tableaus.base import StochasticTableau
from srk.tableaus.entries import Matrix, Number, Vector

__all__ = ["ORDER_CONDITIONS", "Coefficients", "Condition", "dot", "size", "sizes"]

_TWELFTH = Fraction(1, 12)


def size(x: Number) -> Number:
    """|x|, of the type of x."""
    return x if x >= 0 else -x


def sizes(values: Vector) -> Vector:
    """The absolute values."""
    return tuple(size(x) for x in values)


def dot(*factors: Vector) -> Number:
    """Sum of the elementwise products."""
    total: Number = Fraction(0)
    for terms in zip(*factors, strict=True):
        product: Number = Fraction(1)
        for term in terms:
            product = product * term
        total = total + product
    return total


@attrs.frozen
class Coefficients:
    """What the conditions are written in.

    The tableau's weights and their sums over the nodes of g.
    """

    alpha: Vector
    A: Matrix
    c: Vector
    w: Vector  # sum_m w_im
    k: Vector
    w1: Vector  # sum_m w_im c1_m
    k1: Vector
    c1: Vector
    bw: Vector
    bk: Vector

    @classmethod
    def of(cls, tableau: StochasticTableau, absolute: bool = False) -> Coefficients:
        """The tableau's coefficients, or their absolute values.

        The size of a condition's terms follows from the absolute values.
        """

        def vector(values: Vector) -> Vector:
            return sizes(values) if absolute else values

        ones, c1 = (Fraction(1),) * len(tableau.c1), vector(tableau.c1)
        w, k = [vector(row) for row in tableau.w], [vector(row) for row in tableau.k]
        return cls(
            vector(tableau.alpha),
            tuple(vector(row) for row in tableau.A),
            vector(tableau.c),
            tuple(dot(row, ones) for row in w),
            tuple(dot(row, ones) for row in k),
            tuple(dot(row, c1) for row in w),
            tuple(dot(row, c1) for row in k),
            c1,
            vector(tableau.bw),
            vector(tableau.bk),
        )

    @property
    def e(self) -> Vector:
        return (Fraction(1),) * len(self.alpha)

    @property
    def e1(self) -> Vector:
        return (Fraction(1),) * len(self.c1)

    @property
    def Ae(self) -> Vector:
        return self.through(self.e)

    @property
    def Q(self) -> Vector:
        return tuple(w * w + k * k * _TWELFTH for w, k in zip(self.w, self.k, strict=True))

    def through(self, v: Vector) -> Vector:
        """A v."""
        return tuple(dot(row, v) for row in self.A)

    def through_covariance(self) -> Vector:
        """sum_j A_ij C_ij."""
        aw, ak = self.through(self.w), self.through(self.k)
        return tuple(
            w * x + k * y * _TWELFTH for w, x, k, y in zip(self.w, aw, self.k, ak, strict=True)
        )


@attrs.frozen
class Condition:
    """One equation between the coefficients, `value(coefficients) == target`.

    Arguments:
        name: the equation, as it is reported.
        target: its right-hand side.
        value: its left-hand side.
        strong: the lowest strong order that needs it (None: no order known here).
        weak: the lowest weak order that needs it (None: no order known here).
        varying_g: whether only a time-dependent g needs it.
    """

    name: str
    target: Fraction
    value: Callable[[Coefficients], Number] = attrs.field(repr=False)
    strong: float | None
    weak: float | None
    varying_g: bool = False

    def needed(self, strong: float, weak: float, varying_g: bool) -> bool:
        """Whether a tableau of these orders has to satisfy it."""
        if self.varying_g and not varying_g:
            return False
        return (self.strong is not None and self.strong <= strong) or (
            self.weak is not None and self.weak <= weak
        )


def _conditions() -> Iterator[Condition]:
    half, third, sixth = Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)
    # order 1
    yield Condition("alpha.e = 1", Fraction(1), lambda t: dot(t.alpha, t.e), 1, 1)
    yield Condition("bw.e = 1 (beta1.e = 1)", Fraction(1), lambda t: dot(t.bw, t.e1), 1, 1)
    yield Condition("bk.e = 0 (beta2.e = 0)", Fraction(0), lambda t: dot(t.bk, t.e1), 1, 1)
    # strong 1.5, weak 2
    yield Condition("alpha.c = 1/2", half, lambda t: dot(t.alpha, t.c), 1.5, 2)
    yield Condition("alpha.(A e) = 1/2", half, lambda t: dot(t.alpha, t.Ae), 1.5, 2)
    yield Condition("alpha.w = 1/2", half, lambda t: dot(t.alpha, t.w), 1.5, 2)
    yield Condition("alpha.k = 1", Fraction(1), lambda t: dot(t.alpha, t.k), 1.5, None)
    yield Condition("alpha.(w^2 + k^2/12) = 1/2", half, lambda t: dot(t.alpha, t.Q), 1.5, 2)
    yield Condition(
        "bw.c1 = 1/2 (beta1.c1 + beta2.c1/2 = 1/2)", half, lambda t: dot(t.bw, t.c1), 1.5, 2, True
    )
    yield Condition(
        "bk.c1 = -1 (beta2.c1 = -1)", Fraction(-1), lambda t: dot(t.bk, t.c1), 1.5, None, True
    )
    # weak 3: row sums, two f nodes and more, one f node with two pairs
    yield Condition("c = A e", Fraction(0), _row_sum_defect, None, 3)
    yield Condition("alpha.c^2 = 1/3", third, lambda t: dot(t.alpha, t.c, t.c), None, 3)
    yield Condition("alpha.(A c) = 1/6", sixth, lambda t: dot(t.alpha, t.through(t.c)), None, 3)
    yield Condition("alpha.(A Q) = 1/6", sixth, lambda t: dot(t.alpha, t.through(t.Q)), None, 3)
    yield Condition(
        "sum alpha_i A_ij C_ij = 1/6",
        sixth,
        lambda t: dot(t.alpha, t.through_covariance()),
        None,
        3,
    )
    yield Condition("alpha.(c Q) = 1/3", third, lambda t: dot(t.alpha, t.c, t.Q), None, 3)
    yield Condition("alpha.(A w) = 1/6", sixth, lambda t: dot(t.alpha, t.through(t.w)), None, 3)
    yield Condition("alpha.(c w) = 1/3", third, lambda t: dot(t.alpha, t.c, t.w), None, 3)
    yield Condition(
        "(alpha.w)^2 + (alpha.k)^2/12 = 1/3",
        third,
        lambda t: dot(t.alpha, t.w) ** 2 + dot(t.alpha, t.k) ** 2 * _TWELFTH,
        None,
        3,
    )
    yield Condition("alpha.Q^2 = 1/3", third, lambda t: dot(t.alpha, t.Q, t.Q), None, 3)
    yield Condition("alpha.(Q w) = 1/3", third, lambda t: dot(t.alpha, t.Q, t.w), None, 3)
    yield Condition("alpha.w^2 = 1/3", third, lambda t: dot(t.alpha, t.w, t.w), None, 3)
    yield Condition("bw.c1^2 = 1/3", third, lambda t: dot(t.bw, t.c1, t.c1), None, 3, True)
    yield Condition(
        "(bw.c1)^2 + (bk.c1)^2/12 = 1/3",
        third,
        lambda t: dot(t.bw, t.c1) ** 2 + dot(t.bk, t.c1) ** 2 * _TWELFTH,
        None,
        3,
        True,
    )
    yield Condition("alpha.w1 = 1/6, w1 = w c1", sixth, lambda t: dot(t.alpha, t.w1), None, 3, True)
    yield Condition(
        "(alpha.w)(bw.c1) + (alpha.k)(bk.c1)/12 = 1/6",
        sixth,
        lambda t: (
            dot(t.alpha, t.w) * dot(t.bw, t.c1) + dot(t.alpha, t.k) * dot(t.bk, t.c1) * _TWELFTH
        ),
        None,
        3,
        True,
    )
    yield Condition(
        "alpha.(w w1 + k k1/12) = 1/6",
        sixth,
        lambda t: dot(t.alpha, t.w, t.w1) + dot(t.alpha, t.k, t.k1) * _TWELFTH,
        None,
        3,
        True,
    )


def _row_sum_defect(t: Coefficients) -> Number:
    defects: list[Number] = [size(c - a) for c, a in zip(t.c, t.Ae, strict=True)]
    return max(defects)


ORDER_CONDITIONS: tuple[Condition, ...] = tuple(_conditions())
"""Every condition the checker knows, lowest order first."""
