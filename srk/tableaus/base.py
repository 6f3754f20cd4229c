r"""The stochastic Runge-Kutta tableau: what one explicit step for additive noise is made of.

For `dX = f(X, t) dt + g(t) dB` a step of size h from (t, x), with s stages and m nodes at which g
is read, is

    X_i = x + h sum_j A_ij f(X_j, t + c_j h) + sum_m g(t + c1_m h) (w_im W + k_im H)
    x'  = x + h sum_i alpha_i f(X_i, t + c_i h) + sum_m g(t + c1_m h) (bw_m W + bk_m H)

where `W = B(t + h) - B(t)` and H is the space-time Levy area `H = I10/h - W/2`, `I10 = int_t^{t+h}
(B - B(t))`: H is N(0, h/12) and independent of W. Roessler's SRA tableaus multiply I10/h = W/2 + H;
`from_sra` reads them and `B`, `beta1`, `beta2` give them back.

A coefficient is an exact `Fraction` where it is rational and a float where it is not, so that order
conditions can be checked exactly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import attrs

from srk.errors import ArgumentTypeError, TableauError
from srk.tableaus.arrays import TableauArrays
from srk.tableaus.entries import (
    Entry,
    Matrix,
    Vector,
    to_matrix,
    to_optional_vector,
    to_order,
    to_vector,
)
from srk.tableaus.forms import sra_weights, wh_weights
from srk.tableaus.plain import form_of, read_toml, to_plain
from srk.tableaus.shape import check_shape
from srk.tableaus.sra_form import SRAForm

__all__ = ["StochasticTableau"]


@attrs.frozen
class StochasticTableau(SRAForm):
    """Coefficients of an explicit stochastic Runge-Kutta step for additive noise.

    The docstring of this module has the formula of the step.

    Every coefficient may be an int, a Fraction, a float or a string ("3/4", "0.75"); all but floats
    are kept exactly. Making a tableau checks its shape only; `srk.tableaus.check_tableau` checks
    its order.

    Arguments:
        name: the name it is registered and reported under.
        alpha: drift weights (s,).
        A: stage drift weights (s, s), strictly lower triangular; or its strictly lower half alone,
            rows of 0, 1, 2, ... entries.
        c: stage abscissae (s,), in units of the step.
        w: stage weights of W (s, m).
        k: stage weights of H (s, m).
        c1: abscissae at which g is read (m,), in units of the step.
        bw: update weights of W (m,).
        bk: update weights of H (m,).
        strong_order: the strong order claimed (0: none).
        weak_order: the weak order claimed (0: none).
        alpha_hat: drift weights (s,) of an embedded method of lower order; the step's drift error
            is `h sum (alpha - alpha_hat) f_i`.
        bw_error: weights of W (m,) in the step's noise error `sum_m g(t + c1_m h)(bw_error W +
            bk_error H)`, which vanishes for constant g.
        bk_error: weights of H (m,) in the same.
        reference: the paper; what stands before a colon is its short form in tables.
        advice: one line: cost, order, when to choose it.

    Raises:
        TableauError: shapes that do not fit each other, an implicit stage, an entry that is not
            finite or not a fraction.
        ArgumentTypeError: an entry that is not a number.

    Source: A. Roessler, SIAM J. Numer. Anal. 48 (2010) 922 (SRA methods); J. Foster, G. dos Reis,
    C. Strange, arXiv 2210.17543 (W, H).

    Examples:
        >>> from srk.tableaus import StochasticTableau
        >>> sra1 = StochasticTableau.from_sra(
        ...     "my-sra1",
        ...     alpha=("1/3", "2/3"),
        ...     A=((), ("3/4",)),
        ...     B=((), ("3/2",)),
        ...     c=(0, "3/4"),
        ...     c1=(1, 0),
        ...     beta1=(1, 0),
        ...     beta2=(-1, 1),
        ...     strong_order=1.5,
        ...     weak_order=2,
        ... )
        >>> sra1.stages, sra1.drift_evaluations, sra1.uses_levy_area
        (2, 2, True)
        >>> sra1.bw
        (Fraction(1, 2), Fraction(1, 2))
    """

    name: str
    alpha: Vector = attrs.field(converter=to_vector)
    A: Matrix = attrs.field(converter=to_matrix)
    c: Vector = attrs.field(converter=to_vector)
    w: Matrix = attrs.field(converter=to_matrix)
    k: Matrix = attrs.field(converter=to_matrix)
    c1: Vector = attrs.field(converter=to_vector)
    bw: Vector = attrs.field(converter=to_vector)
    bk: Vector = attrs.field(converter=to_vector)
    strong_order: float = attrs.field(default=0.0, converter=to_order, kw_only=True)
    weak_order: float = attrs.field(default=0.0, converter=to_order, kw_only=True)
    alpha_hat: Vector | None = attrs.field(default=None, converter=to_optional_vector, kw_only=True)
    bw_error: Vector | None = attrs.field(default=None, converter=to_optional_vector, kw_only=True)
    bk_error: Vector | None = attrs.field(default=None, converter=to_optional_vector, kw_only=True)
    reference: str = attrs.field(default="", kw_only=True)
    advice: str = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_shape(self)

    # -- constructors ------------------------------------------------------------------------------

    @classmethod
    def from_sra(
        cls,
        name: str,
        alpha: Sequence[Entry],
        A: Sequence[Sequence[Entry]],
        B: Sequence[Sequence[Entry]],
        c: Sequence[Entry],
        c1: Sequence[Entry],
        beta1: Sequence[Entry],
        beta2: Sequence[Entry],
        *,
        strong_order: Entry = 0,
        weak_order: Entry = 0,
        alpha_hat: Sequence[Entry] | None = None,
        bw_error: Sequence[Entry] | None = None,
        bk_error: Sequence[Entry] | None = None,
        reference: str = "",
        advice: str = "",
    ) -> StochasticTableau:
        """A tableau in Roessler's SRA form, where noise beyond W enters as `I10/h = W/2 + H`.

        Stage noise is `sum_m B_im g(t + c1_m h) I10/h`, update noise `sum_m g(t + c1_m h) (beta1_m
        W + beta2_m I10/h)`. Unless given, the noise error is the `beta2` term of the update, if any
        (the natural embedding of Rackauckas and Nie, DCDS-B 22 (2017) 2731).

        Arguments:
            name, alpha, A, c: as in the class.
            B: stage weights of I10/h (s, m), m = s in Roessler's tables; or the strictly lower half
                alone.
            c1: abscissae at which g is read (m,).
            beta1: update weights of W (m,).
            beta2: update weights of I10/h (m,).

        Raises:
            TableauError: as the class.

        Examples:
            >>> from srk.tableaus import StochasticTableau
            >>> t = StochasticTableau.from_sra(
            ...     "sea-like",
            ...     alpha=(1,),
            ...     A=((0,),),
            ...     B=((1,),),
            ...     c=(0,),
            ...     c1=(0,),
            ...     beta1=(1,),
            ...     beta2=(0,),
            ... )
            >>> t.w, t.k
            (((Fraction(1, 2),),), ((Fraction(1, 1),),))
        """
        weights = sra_weights(name, B, beta1, beta2)
        if bw_error is not None or bk_error is not None:
            weights |= {"bw_error": bw_error, "bk_error": bk_error}
        return cls(
            name,
            alpha,
            A,
            c,
            c1=c1,
            **weights,
            strong_order=strong_order,
            weak_order=weak_order,
            alpha_hat=alpha_hat,
            reference=reference,
            advice=advice,
        )

    @classmethod
    def from_wh(
        cls,
        name: str,
        alpha: Sequence[Entry],
        A: Sequence[Sequence[Entry]],
        c: Sequence[Entry],
        w: Sequence[Entry],
        k: Sequence[Entry],
        *,
        strong_order: Entry = 0,
        weak_order: Entry = 0,
        alpha_hat: Sequence[Entry] | None = None,
        reference: str = "",
        advice: str = "",
    ) -> StochasticTableau:
        """A tableau given for constant g, stage noise `g (w_i W + k_i H)`, made usable for g(t).

        Stage noise reads g at the start of the step. If H occurs at all, the update integrates the
        linear interpolant of g exactly, `int g dB ~ g(t)(W/2 + H) + g(t+h)(W/2 - H)`, which
        satisfies the conditions for time-dependent g; if H does not occur it is the trapezoid
        `(g(t) + g(t+h)) W/2`. The noise error is the distance of that from `g(t) W`.

        Arguments:
            name, alpha, A, c: as in the class.
            w: stage weights of W (s,).
            k: stage weights of H (s,).

        Raises:
            TableauError: as the class.

        Examples:
            >>> from srk.tableaus import StochasticTableau
            >>> t = StochasticTableau.from_wh(
            ...     "heun",
            ...     ("1/2", "1/2"),
            ...     A=((), (1,)),
            ...     c=(0, 1),
            ...     w=(0, 1),
            ...     k=(0, 0),
            ...     strong_order=1,
            ...     weak_order=2,
            ... )
            >>> t.c1, t.bk, t.uses_levy_area
            ((Fraction(0, 1), Fraction(1, 1)), (Fraction(0, 1), Fraction(0, 1)), False)
        """
        return cls(
            name,
            alpha,
            A,
            c,
            **wh_weights(w, k),
            strong_order=strong_order,
            weak_order=weak_order,
            alpha_hat=alpha_hat,
            reference=reference,
            advice=advice,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StochasticTableau:
        """A tableau from plain data.

        The data have the form that `to_dict` gives, or the arguments of `from_sra` (if there is a
        B) or of `from_wh` (if there is no bw).

        Arguments:
            data: field name -> value; fractions as strings ("3/4"), irrational coefficients as
                floats.

        Raises:
            TableauError: a field is missing or unknown, or as the class.

        Examples:
            >>> from srk.tableaus import StochasticTableau
            >>> euler = {"name": "e", "alpha": [1], "A": [[0]], "c": [0], "w": [0], "k": [0]}
            >>> StochasticTableau.from_dict(euler).stages
            1
        """
        forms: dict[str, Callable[..., StochasticTableau]] = {
            "SRA": cls.from_sra,
            "full": cls,
            "(W, H)": cls.from_wh,
        }
        return forms[form_of(data)](**data)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> StochasticTableau:
        """A tableau from a TOML file with the fields of `from_dict`.

        Nothing in the file is executed.

        Arguments:
            path: the file.

        Raises:
            ArgumentError: the file cannot be read.
            TableauError: it is not TOML, or as `from_dict`.

        Examples:
            >>> import pathlib, tempfile
            >>> from srk.tableaus import StochasticTableau
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "ralston.toml"
            >>> _ = path.write_text('''
            ... name = "ralston"
            ... alpha = ["1/4", "3/4"]
            ... A = [[], ["2/3"]]
            ... c = [0, "2/3"]
            ... w = [0, "2/3"]
            ... k = [0, 0]
            ... ''')
            >>> StochasticTableau.from_toml(path).alpha
            (Fraction(1, 4), Fraction(3, 4))
        """
        data = read_toml(path)
        try:
            return cls.from_dict(data)
        except (TableauError, ArgumentTypeError) as error:
            raise type(error)(f"{os.fspath(path)!r}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The tableau as plain data that `from_dict` reads back to an equal tableau.

        Fractions become strings; floats stay as they are.

        Examples:
            >>> from srk.tableaus import SRA1, StochasticTableau
            >>> StochasticTableau.from_dict(SRA1.to_dict()) == SRA1
            True
        """
        return to_plain(self)

    # -- derived -----------------------------------------------------------------------------------

    @property
    def stages(self) -> int:
        """The number of stages s."""
        return len(self.alpha)

    @cached_property
    def used_stages(self) -> tuple[int, ...]:
        """The stages whose drift the step needs; another stage need not be evaluated."""
        used: set[int] = set()
        for i in reversed(range(self.stages)):
            if self.alpha[i] != 0 or any(self.A[j][i] != 0 for j in used):
                used.add(i)
        return tuple(sorted(used))

    @property
    def drift_evaluations(self) -> int:
        """How often a step evaluates the drift (the network)."""
        return len(self.used_stages)

    @property
    def uses_levy_area(self) -> bool:
        """Whether H occurs; if not, a step draws W alone."""
        return any(x != 0 for row in (*self.k, self.bk) for x in row)

    @property
    def reads_varying_g(self) -> bool:
        """Whether g is read at more than one time.

        Such a tableau claims its order for time-dependent g too, and is checked for it.
        """
        weights = (*self.w, *self.k, self.bw, self.bk)
        return (
            len({node for i, node in enumerate(self.c1) if any(row[i] != 0 for row in weights)}) > 1
        )

    @property
    def exact(self) -> bool:
        """Whether every coefficient of the step is a Fraction."""
        rows = (self.alpha, self.c, self.c1, self.bw, self.bk, *self.A, *self.w, *self.k)
        return all(isinstance(x, Fraction) for row in rows for x in row)

    @cached_property
    def arrays(self) -> TableauArrays:
        """The coefficients as read-only float64 arrays.

        Examples:
            >>> from srk.tableaus import SRA1
            >>> SRA1.arrays.A
            array([[0.  , 0.  ],
                   [0.75, 0.  ]])
        """
        return TableauArrays.of(self)

    def __repr__(self) -> str:
        calls = self.drift_evaluations
        cost = (
            f"{self.stages} stage{'s' * (self.stages != 1)}, {calls} drift "
            f"evaluation{'s' * (calls != 1)}"
        )
        orders = f"strong order {self.strong_order:g}, weak order {self.weak_order:g}"
        return (
            f"<StochasticTableau {self.name!r}: {cost}, {orders}, draws "
            f"{'W and H' if self.uses_levy_area else 'W'}>"
        )
