r"""Order conditions of stochastic Runge-Kutta tableaus for additive noise, and the report of a tableau against them.

The conditions are the coefficients of the stochastic B-series of `dX = f(X, t) dt + g(t) dB`, any number of independent Brownian motions.
Write `w_i = sum_m w_im`, `k_i = sum_m k_im` and

    Q_i = w_i^2 + k_i^2/12                 variance of stage i's noise over h g^2
    C_ij = w_i w_j + k_i k_j/12            covariance of the noise of stages i and j over h g^2

Strong order p needs every term up to order p on the path and the mean of order p + 1/2 (Milstein and Tretyakov): for p = 1 the sums of
weights, for p = 3/2 also `f' g I10` (alpha.w, alpha.k), `g' int s dB` (bw.c1, bk.c1) and the means `f'f/2`, `f_t/2`, `f''gg/4`.
Weak order p needs the expectation of every product of such terms of total order <= p, each pairing of Gaussian factors separately
(exotic trees): a tree node f counts 1, a pair of noise leaves 1, a derivative of g 1. Every `bw.e = 1`, `bk.e = 0`, i.e. the update's noise
is W for constant g; with that the conditions are the rows below.

Sources: A. Roessler, SIAM J. Numer. Anal. 48 (2010) 922 (SRA); K. Debrabant, BIT 50 (2010) 541 (that weak order 3 exists for additive
noise). The weak order 3 rows are our own derivation; the tests generate them anew from all trees and pairings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType

import attrs

from srk.errors import ArgumentTypeError, TableauError
from srk.tableaus.base import Matrix, Number, StochasticTableau, Vector

__all__ = ["ORDER_CONDITIONS", "TOLERANCE", "Condition", "TableauReport", "check_tableau", "require_order"]

TOLERANCE = 1e-12
"""A float condition holds if its residual is below this times the size of its terms (at least 1); an exact one must hold exactly."""

_TWELFTH = Fraction(1, 12)


def _abs(x: Number) -> Number:
    return x if x >= 0 else -x


def _absolute(values: Vector) -> Vector:
    return tuple(_abs(x) for x in values)


def _dot(*factors: Vector) -> Number:
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
    """What the conditions are written in: the tableau's weights and their sums over the nodes of g."""

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
        """The tableau's coefficients, or their absolute values, from which the size of a condition's terms follows."""

        def vector(values: Vector) -> Vector:
            return _absolute(values) if absolute else values

        ones, c1 = (Fraction(1),) * len(tableau.c1), vector(tableau.c1)
        w, k = [vector(row) for row in tableau.w], [vector(row) for row in tableau.k]
        return cls(
            vector(tableau.alpha),
            tuple(vector(row) for row in tableau.A),
            vector(tableau.c),
            tuple(_dot(row, ones) for row in w),
            tuple(_dot(row, ones) for row in k),
            tuple(_dot(row, c1) for row in w),
            tuple(_dot(row, c1) for row in k),
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
        return tuple(_dot(row, v) for row in self.A)

    def through_covariance(self) -> Vector:
        """sum_j A_ij C_ij."""
        aw, ak = self.through(self.w), self.through(self.k)
        return tuple(w * x + k * y * _TWELFTH for w, x, k, y in zip(self.w, aw, self.k, ak, strict=True))


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
        return (self.strong is not None and self.strong <= strong) or (self.weak is not None and self.weak <= weak)


def _conditions() -> Iterator[Condition]:
    half, third, sixth = Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)
    # order 1
    yield Condition("alpha.e = 1", Fraction(1), lambda t: _dot(t.alpha, t.e), 1, 1)
    yield Condition("bw.e = 1 (beta1.e = 1)", Fraction(1), lambda t: _dot(t.bw, t.e1), 1, 1)
    yield Condition("bk.e = 0 (beta2.e = 0)", Fraction(0), lambda t: _dot(t.bk, t.e1), 1, 1)
    # strong 1.5, weak 2
    yield Condition("alpha.c = 1/2", half, lambda t: _dot(t.alpha, t.c), 1.5, 2)
    yield Condition("alpha.(A e) = 1/2", half, lambda t: _dot(t.alpha, t.Ae), 1.5, 2)
    yield Condition("alpha.w = 1/2", half, lambda t: _dot(t.alpha, t.w), 1.5, 2)
    yield Condition("alpha.k = 1", Fraction(1), lambda t: _dot(t.alpha, t.k), 1.5, None)
    yield Condition("alpha.(w^2 + k^2/12) = 1/2", half, lambda t: _dot(t.alpha, t.Q), 1.5, 2)
    yield Condition("bw.c1 = 1/2 (beta1.c1 + beta2.c1/2 = 1/2)", half, lambda t: _dot(t.bw, t.c1), 1.5, 2, True)
    yield Condition("bk.c1 = -1 (beta2.c1 = -1)", Fraction(-1), lambda t: _dot(t.bk, t.c1), 1.5, None, True)
    # weak 3: row sums, two f nodes and more, one f node with two pairs
    yield Condition("c = A e", Fraction(0), _row_sum_defect, None, 3)
    yield Condition("alpha.c^2 = 1/3", third, lambda t: _dot(t.alpha, t.c, t.c), None, 3)
    yield Condition("alpha.(A c) = 1/6", sixth, lambda t: _dot(t.alpha, t.through(t.c)), None, 3)
    yield Condition("alpha.(A Q) = 1/6", sixth, lambda t: _dot(t.alpha, t.through(t.Q)), None, 3)
    yield Condition("sum alpha_i A_ij C_ij = 1/6", sixth, lambda t: _dot(t.alpha, t.through_covariance()), None, 3)
    yield Condition("alpha.(c Q) = 1/3", third, lambda t: _dot(t.alpha, t.c, t.Q), None, 3)
    yield Condition("alpha.(A w) = 1/6", sixth, lambda t: _dot(t.alpha, t.through(t.w)), None, 3)
    yield Condition("alpha.(c w) = 1/3", third, lambda t: _dot(t.alpha, t.c, t.w), None, 3)
    yield Condition(
        "(alpha.w)^2 + (alpha.k)^2/12 = 1/3", third, lambda t: _dot(t.alpha, t.w) ** 2 + _dot(t.alpha, t.k) ** 2 * _TWELFTH, None, 3
    )
    yield Condition("alpha.Q^2 = 1/3", third, lambda t: _dot(t.alpha, t.Q, t.Q), None, 3)
    yield Condition("alpha.(Q w) = 1/3", third, lambda t: _dot(t.alpha, t.Q, t.w), None, 3)
    yield Condition("alpha.w^2 = 1/3", third, lambda t: _dot(t.alpha, t.w, t.w), None, 3)
    yield Condition("bw.c1^2 = 1/3", third, lambda t: _dot(t.bw, t.c1, t.c1), None, 3, True)
    yield Condition(
        "(bw.c1)^2 + (bk.c1)^2/12 = 1/3", third, lambda t: _dot(t.bw, t.c1) ** 2 + _dot(t.bk, t.c1) ** 2 * _TWELFTH, None, 3, True
    )
    yield Condition("alpha.w1 = 1/6, w1 = w c1", sixth, lambda t: _dot(t.alpha, t.w1), None, 3, True)
    yield Condition(
        "(alpha.w)(bw.c1) + (alpha.k)(bk.c1)/12 = 1/6",
        sixth,
        lambda t: _dot(t.alpha, t.w) * _dot(t.bw, t.c1) + _dot(t.alpha, t.k) * _dot(t.bk, t.c1) * _TWELFTH,
        None,
        3,
        True,
    )
    yield Condition(
        "alpha.(w w1 + k k1/12) = 1/6", sixth, lambda t: _dot(t.alpha, t.w, t.w1) + _dot(t.alpha, t.k, t.k1) * _TWELFTH, None, 3, True
    )


def _row_sum_defect(t: Coefficients) -> Number:
    defects: list[Number] = [_abs(c - a) for c, a in zip(t.c, t.Ae, strict=True)]
    return max(defects)


ORDER_CONDITIONS: tuple[Condition, ...] = tuple(_conditions())
"""Every condition the checker knows, lowest order first."""

_STRONG_ORDERS = tuple(sorted({c.strong for c in ORDER_CONDITIONS if c.strong is not None}))
_WEAK_ORDERS = tuple(sorted({c.weak for c in ORDER_CONDITIONS if c.weak is not None}))


@attrs.frozen(repr=False)
class TableauReport:
    """What a tableau's coefficients support.

    Arguments:
        tableau: the tableau.
        values: condition name -> left-hand side, a Fraction where all coefficients in it are exact.
        residuals: condition name -> left-hand side minus right-hand side.
        violated: names of the conditions that do not hold (exactly, or for floats to `TOLERANCE` times the size of the terms).
        strong_order: the strong order supported for constant g.
        weak_order: the weak order supported for constant g.
        strong_order_varying: the strong order supported for g(t).
        weak_order_varying: the weak order supported for g(t).
        drift_order: the order without noise, 0 to 3.
        noise_levels: per stage, (w_i^2 h + k_i^2 h/12)/(c_i h): 1 where a stage sits on its own noise level, inf for noise at c_i = 0.
            Far-off stages cost accuracy at large steps.
    """

    tableau: StochasticTableau
    values: Mapping[str, Number]
    residuals: Mapping[str, Number]
    violated: tuple[str, ...]
    strong_order: float
    weak_order: float
    strong_order_varying: float
    weak_order_varying: float
    drift_order: int
    noise_levels: tuple[float, ...]

    def failed(
        self, strong_order: float | None = None, weak_order: float | None = None, varying_g: bool | None = None
    ) -> dict[str, Number]:
        """The residuals that contradict a claimed order; empty if the claim holds.

        Arguments:
            strong_order: the claim (default: the tableau's own).
            weak_order: the claim (default: the tableau's own).
            varying_g: whether it is claimed for g(t) (default: if the tableau reads g at more than one time).

        Raises:
            TableauError: the claim is higher than what the checker has conditions for.

        >>> from srk.tableaus import SEA, check_tableau
        >>> list(check_tableau(SEA).failed(strong_order=1.5))
        ['alpha.c = 1/2', 'alpha.(A e) = 1/2', 'alpha.(w^2 + k^2/12) = 1/2']
        """
        strong = self.tableau.strong_order if strong_order is None else strong_order
        weak = self.tableau.weak_order if weak_order is None else weak_order
        varying = self.tableau.reads_varying_g if varying_g is None else varying_g
        for kind, claim, known in (("strong", strong, _STRONG_ORDERS), ("weak", weak, _WEAK_ORDERS)):
            if claim > known[-1]:
                raise TableauError(
                    f"tableau {self.tableau.name!r} claims {kind} order {claim:g}; srk has order conditions up to {known[-1]:g} only, "
                    f"so the claim cannot be checked: declare {kind}_order={known[-1]:g} or less"
                )
        # an order between two levels needs the conditions of the level above it
        strong = min((order for order in _STRONG_ORDERS if order >= strong), default=strong) if strong > 0 else 0.0
        weak = min((order for order in _WEAK_ORDERS if order >= weak), default=weak) if weak > 0 else 0.0
        violated = set(self.violated)
        return {c.name: self.residuals[c.name] for c in ORDER_CONDITIONS if c.name in violated and c.needed(strong, weak, varying)}

    @property
    def ok(self) -> bool:
        """Whether the coefficients support what the tableau declares."""
        return not self.failed()

    @property
    def row_sums(self) -> bool:
        """Whether c = A e, Roessler's consistency of the abscissae (a convenience below weak order 3, a condition there)."""
        return "c = A e" not in self.violated

    @property
    def noise(self) -> str:
        """'additive, time-dependent g' if the declared orders hold for g(t), else 'additive, constant g'."""
        supported = self.strong_order_varying >= self.tableau.strong_order and self.weak_order_varying >= self.tableau.weak_order
        return "additive, time-dependent g" if supported else "additive, constant g"

    def rows(self) -> list[list[str]]:
        """A table of all conditions: the equation, the value, the residual, what needs it, whether it holds."""
        table = []
        for c in ORDER_CONDITIONS:
            needs = [f"{kind} {order:g}" for kind, order in (("strong", c.strong), ("weak", c.weak)) if order is not None]
            value, residual = self.values[c.name], self.residuals[c.name]
            holds = "fails" if c.name in self.violated else "holds"
            table.append([c.name, _show(value), _show(residual), ", ".join(needs) + " for g(t)" * c.varying_g, holds])
        return table

    def __repr__(self) -> str:
        levels = ", ".join(f"{level:.3g}" for level in self.noise_levels)
        head = [
            f"TableauReport of {self.tableau.name!r}: {'ok' if self.ok else 'does not support the orders it declares'}",
            f"  declared           strong {self.tableau.strong_order:g}, weak {self.tableau.weak_order:g}",
            f"  constant g         strong {self.strong_order:g}, weak {self.weak_order:g}",
            f"  time-dependent g   strong {self.strong_order_varying:g}, weak {self.weak_order_varying:g}",
            f"  without noise      order {self.drift_order}{' or more' * (self.drift_order == 3)}",
            f"  noise level/stage  {levels}   (1: the stage has the noise of its own time)",
        ]
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        body = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*head, *body])


def _show(value: Number) -> str:
    if isinstance(value, Fraction) and len(str(value)) <= 14:
        return str(value)
    return f"{float(value):.6g}"


def _noise_level(w: Number, k: Number, c: Number) -> float:
    variance = float(w) ** 2 + float(k) ** 2 / 12
    if c == 0:
        return 1.0 if variance == 0 else math.inf
    return variance / float(c)


def check_tableau(tableau: StochasticTableau) -> TableauReport:
    """Evaluate every order condition, exactly where the coefficients are exact.

    Arguments:
        tableau: any tableau; what it declares does not influence the residuals.

    Returns:
        The report: residuals, the strong and weak orders supported for constant and for time-dependent g, noise levels.

    Source: the module docstring.

    >>> from srk.tableaus import SRA1, check_tableau
    >>> report = check_tableau(SRA1)
    >>> report.strong_order, report.weak_order, report.ok
    (1.5, 2.0, True)
    >>> report.values["alpha.(w^2 + k^2/12) = 1/2"]
    Fraction(1, 2)
    """
    if not isinstance(tableau, StochasticTableau):
        raise ArgumentTypeError(f"not a StochasticTableau: {type(tableau).__name__}; StochasticTableau.from_dict makes one from plain data")
    coefficients, sizes = Coefficients.of(tableau), Coefficients.of(tableau, absolute=True)
    values = {c.name: c.value(coefficients) for c in ORDER_CONDITIONS}
    residuals = {c.name: values[c.name] - c.target for c in ORDER_CONDITIONS}

    def holds(condition: Condition) -> bool:
        residual = residuals[condition.name]
        if isinstance(residual, Fraction):
            return residual == 0
        return _abs(residual) <= TOLERANCE * max(1.0, float(condition.value(sizes)))

    violated = tuple(c.name for c in ORDER_CONDITIONS if not holds(c))

    def supported(kind: str, varying_g: bool) -> float:
        best = 0.0
        for order in _STRONG_ORDERS if kind == "strong" else _WEAK_ORDERS:
            claim = (order, 0.0) if kind == "strong" else (0.0, order)
            if any(c.name in violated and c.needed(*claim, varying_g) for c in ORDER_CONDITIONS):
                break
            best = float(order)
        return best

    drift_order = 0
    for names in (("alpha.e = 1",), ("alpha.c = 1/2", "alpha.(A e) = 1/2"), ("c = A e", "alpha.c^2 = 1/3", "alpha.(A c) = 1/6")):
        if any(name in violated for name in names):
            break
        drift_order += 1
    return TableauReport(
        tableau,
        MappingProxyType(values),
        MappingProxyType(residuals),
        violated,
        supported("strong", False),
        supported("weak", False),
        supported("strong", True),
        supported("weak", True),
        drift_order,
        tuple(_noise_level(w, k, c) for w, k, c in zip(coefficients.w, coefficients.k, coefficients.c, strict=True)),
    )


def require_order(tableau: StochasticTableau) -> TableauReport:
    """Check `tableau` and refuse it if its coefficients do not support what it declares.

    Arguments:
        tableau: the tableau.

    Returns:
        Its report.

    Raises:
        TableauError: naming each condition that fails and by how much, and the orders that the coefficients do support.

    >>> import attrs
    >>> from srk.tableaus import SEA, require_order
    >>> require_order(attrs.evolve(SEA, strong_order=1.5))
    Traceback (most recent call last):
        ...
    srk.errors.TableauError: tableau 'sea' declares strong order 1.5 and weak order 1, which its coefficients do not support:
      alpha.c = 1/2: value 0, residual -1/2
      alpha.(A e) = 1/2: value 0, residual -1/2
      alpha.(w^2 + k^2/12) = 1/2: value 1/3, residual -1/6
    They support strong order 1 and weak order 1 for constant g, strong 1 and weak 1 for g(t).
    Correct the coefficients, or declare these orders.
    """
    report = check_tableau(tableau)
    failed = report.failed()
    if failed:
        lines = [f"  {name}: value {_show(report.values[name])}, residual {_show(residual)}" for name, residual in failed.items()]
        varying = any(c.varying_g for c in ORDER_CONDITIONS if c.name in failed)
        raise TableauError(
            f"tableau {tableau.name!r} declares strong order {tableau.strong_order:g} and weak order {tableau.weak_order:g}"
            f"{' for g(t), which it reads at several times' * varying}, which its coefficients do not support:\n"
            + "\n".join(lines)
            + f"\nThey support strong order {report.strong_order:g} and weak order {report.weak_order:g} for constant g, "
            f"strong {report.strong_order_varying:g} and weak {report.weak_order_varying:g} for g(t).\n"
            "Correct the coefficients, or declare these orders."
        )
    _require_embedded(tableau)
    return report


def _require_embedded(tableau: StochasticTableau) -> None:
    """The embedded method must be consistent, and the noise error vanish for constant g."""
    for field, target, why in (
        ("alpha_hat", 1, "the embedded method would not be consistent"),
        ("bw_error", 0, "the noise error must vanish for constant g"),
        ("bk_error", 0, "the noise error must vanish for constant g"),
    ):
        weights: Vector | None = getattr(tableau, field)
        if weights is None:
            continue
        defect = _dot(weights) - target
        bound = 0.0 if isinstance(defect, Fraction) else TOLERANCE * max(1.0, float(_dot(_absolute(weights))))
        if _abs(defect) > bound:
            raise TableauError(f"tableau {tableau.name!r}: {field} sums to {_show(defect + target)}, it must sum to {target}: {why}")
