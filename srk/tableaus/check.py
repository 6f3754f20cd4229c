"""The report of a tableau against the order conditions.

A tableau that does not support the orders it declares is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

import attrs

from srk._columns import aligned
from srk.errors import ArgumentTypeError, TableauError
from srk.tableaus.base import StochasticTableau
from srk.tableaus.conditions import ORDER_CONDITIONS, Coefficients, Condition, dot, size, sizes
from srk.tableaus.entries import Number, Vector

__all__ = ["TOLERANCE", "TableauReport", "check_tableau", "require_order"]

TOLERANCE = 1e-12
"""A float condition holds if its residual is below this times the size of its terms (at least 1).

An exact one must hold exactly.
"""

_STRONG_ORDERS = tuple(sorted({c.strong for c in ORDER_CONDITIONS if c.strong is not None}))
_WEAK_ORDERS = tuple(sorted({c.weak for c in ORDER_CONDITIONS if c.weak is not None}))


@attrs.frozen(repr=False)
class TableauReport:
    """What a tableau's coefficients support.

    Arguments:
        tableau: the tableau.
        values: condition name -> left-hand side, a Fraction where all coefficients in it are exact.
        residuals: condition name -> left-hand side minus right-hand side.
        violated: names of the conditions that do not hold (exactly, or for floats to `TOLERANCE`
            times the size of the terms).
        strong_order: the strong order supported for constant g.
        weak_order: the weak order supported for constant g.
        strong_order_varying: the strong order supported for g(t).
        weak_order_varying: the weak order supported for g(t).
        drift_order: the order without noise, 0 to 3.
        noise_levels: per stage, (w_i^2 h + k_i^2 h/12)/(c_i h): 1 where a stage sits on its own
            noise level, inf for noise at c_i = 0. Far-off stages cost accuracy at large steps.
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
        self,
        strong_order: float | None = None,
        weak_order: float | None = None,
        varying_g: bool | None = None,
    ) -> dict[str, Number]:
        """The residuals that contradict a claimed order; empty if the claim holds.

        Arguments:
            strong_order: the claim (default: the tableau's own).
            weak_order: the claim (default: the tableau's own).
            varying_g: whether it is claimed for g(t) (default: if the tableau reads g at more than
                one time).

        Raises:
            TableauError: the claim is higher than what the checker has conditions for.

        Examples:
            >>> from srk.tableaus import SEA, check_tableau
            >>> list(check_tableau(SEA).failed(strong_order=1.5))
            ['alpha.c = 1/2', 'alpha.(A e) = 1/2', 'alpha.(w^2 + k^2/12) = 1/2']
        """
        strong = self.tableau.strong_order if strong_order is None else strong_order
        weak = self.tableau.weak_order if weak_order is None else weak_order
        varying = self.tableau.reads_varying_g if varying_g is None else varying_g
        for kind, claim, known in (
            ("strong", strong, _STRONG_ORDERS),
            ("weak", weak, _WEAK_ORDERS),
        ):
            if claim > known[-1]:
                raise TableauError(
                    f"tableau {self.tableau.name!r} claims {kind} order {claim:g}; srk has "
                    f"order conditions up to {known[-1]:g} only, "
                    f"so the claim cannot be checked: declare {kind}_order={known[-1]:g} or less"
                )
        # an order between two levels needs the conditions of the level above it
        strong = (
            min((order for order in _STRONG_ORDERS if order >= strong), default=strong)
            if strong > 0
            else 0.0
        )
        weak = (
            min((order for order in _WEAK_ORDERS if order >= weak), default=weak)
            if weak > 0
            else 0.0
        )
        violated = set(self.violated)
        return {
            c.name: self.residuals[c.name]
            for c in ORDER_CONDITIONS
            if c.name in violated and c.needed(strong, weak, varying)
        }

    @property
    def ok(self) -> bool:
        """Whether the coefficients support what the tableau declares."""
        return not self.failed()

    @property
    def row_sums(self) -> bool:
        """Whether c = A e, Roessler's consistency of the abscissae.

        It is a convenience below weak order 3 and a condition there.
        """
        return "c = A e" not in self.violated

    @property
    def noise(self) -> str:
        """The noise for which the declared orders hold.

        'additive, time-dependent g' if they hold for g(t), else 'additive, constant g'.
        """
        supported = (
            self.strong_order_varying >= self.tableau.strong_order
            and self.weak_order_varying >= self.tableau.weak_order
        )
        return "additive, time-dependent g" if supported else "additive, constant g"

    def rows(self) -> list[list[str]]:
        """A table of all conditions.

        The equation, the value, the residual, what needs it, whether it holds.
        """
        table = []
        for c in ORDER_CONDITIONS:
            needs = [
                f"{kind} {order:g}"
                for kind, order in (("strong", c.strong), ("weak", c.weak))
                if order is not None
            ]
            value, residual = self.values[c.name], self.residuals[c.name]
            holds = "fails" if c.name in self.violated else "holds"
            table.append(
                [
                    c.name,
                    _show(value),
                    _show(residual),
                    ", ".join(needs) + " for g(t)" * c.varying_g,
                    holds,
                ]
            )
        return table

    def __repr__(self) -> str:
        levels = ", ".join(f"{level:.3g}" for level in self.noise_levels)
        head = [
            f"TableauReport of {self.tableau.name!r}: "
            f"{'ok' if self.ok else 'does not support the orders it declares'}",
            f"  declared           strong {self.tableau.strong_order:g}, weak "
            f"{self.tableau.weak_order:g}",
            f"  constant g         strong {self.strong_order:g}, weak {self.weak_order:g}",
            f"  time-dependent g   strong {self.strong_order_varying:g}, weak "
            f"{self.weak_order_varying:g}",
            f"  without noise      order {self.drift_order}{' or more' * (self.drift_order == 3)}",
            f"  noise level/stage  {levels}   (1: the stage has the noise of its own time)",
        ]
        body = [f"  {line}" for line in aligned(self.rows())]
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
        A report of the residuals, of the strong and weak orders that they support for constant and
        for time-dependent g, and of the noise levels.

    Source: the docstring of `srk.tableaus.conditions`.

    Examples:
        >>> from srk.tableaus import SRA1, check_tableau
        >>> report = check_tableau(SRA1)
        >>> report.strong_order, report.weak_order, report.ok
        (1.5, 2.0, True)
        >>> report.values["alpha.(w^2 + k^2/12) = 1/2"]
        Fraction(1, 2)
    """
    if not isinstance(tableau, StochasticTableau):
        raise ArgumentTypeError(
            f"not a StochasticTableau: {type(tableau).__name__}; StochasticTableau.from_dict "
            "makes one from plain data"
        )
    try:
        return _checked(tableau)
    except OverflowError:
        raise TableauError(
            f"the coefficients of {tableau.name!r} are so large that their products overflow; an "
            "explicit step of use has coefficients of order one"
        ) from None


def _checked(tableau: StochasticTableau) -> TableauReport:
    coefficients, magnitudes = Coefficients.of(tableau), Coefficients.of(tableau, absolute=True)
    values = {c.name: c.value(coefficients) for c in ORDER_CONDITIONS}
    residuals = {c.name: values[c.name] - c.target for c in ORDER_CONDITIONS}

    def holds(condition: Condition) -> bool:
        residual = residuals[condition.name]
        if isinstance(residual, Fraction):
            return residual == 0
        return size(residual) <= TOLERANCE * max(1.0, float(condition.value(magnitudes)))

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
    for names in (
        ("alpha.e = 1",),
        ("alpha.c = 1/2", "alpha.(A e) = 1/2"),
        ("c = A e", "alpha.c^2 = 1/3", "alpha.(A c) = 1/6"),
    ):
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
        tuple(
            _noise_level(w, k, c)
            for w, k, c in zip(coefficients.w, coefficients.k, coefficients.c, strict=True)
        ),
    )


def require_order(tableau: StochasticTableau) -> TableauReport:
    """Check `tableau` and refuse it if its coefficients do not support what it declares.

    Arguments:
        tableau: the tableau.

    Returns:
        Its report.

    Raises:
        TableauError: naming each condition that fails and by how much, and the orders that the
            coefficients do support.

    Examples:
        >>> import attrs
        >>> from srk.tableaus import SEA, require_order
        >>> require_order(attrs.evolve(SEA, strong_order=1.5))
        Traceback (most recent call last):
            ...
        srk.errors.TableauError: tableau 'sea' declares strong order 1.5 and weak order 1, which its
        coefficients do not support:
          alpha.c = 1/2: value 0, residual -1/2
          alpha.(A e) = 1/2: value 0, residual -1/2
          alpha.(w^2 + k^2/12) = 1/2: value 1/3, residual -1/6
        They support strong order 1 and weak order 1 for constant g, strong 1 and weak 1 for g(t).
        Correct the coefficients, or declare these orders.
    """
    report = check_tableau(tableau)
    failed = report.failed()
    if failed:
        lines = [
            f"  {name}: value {_show(report.values[name])}, residual {_show(residual)}"
            for name, residual in failed.items()
        ]
        varying = any(c.varying_g for c in ORDER_CONDITIONS if c.name in failed)
        raise TableauError(
            f"tableau {tableau.name!r} declares strong order {tableau.strong_order:g} and "
            f"weak order {tableau.weak_order:g}"
            f"{' for g(t), which it reads at several times' * varying}, which its "
            "coefficients do not support:\n"
            + "\n".join(lines)
            + f"\nThey support strong order {report.strong_order:g} and weak order "
            f"{report.weak_order:g} for constant g, "
            f"strong {report.strong_order_varying:g} and weak {report.weak_order_varying:g} "
            "for g(t).\n"
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
        defect = dot(weights) - target
        bound = (
            0.0
            if isinstance(defect, Fraction)
            else TOLERANCE * max(1.0, float(dot(sizes(weights))))
        )
        if size(defect) > bound:
            raise TableauError(
                f"tableau {tableau.name!r}: {field} sums to {_show(defect + target)}, it "
                f"must sum to {target}: {why}"
            )
