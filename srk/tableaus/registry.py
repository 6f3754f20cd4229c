"""The registry of tableaus.

A name for each, and no name for one whose coefficients do not support what it declares.
"""

from __future__ import annotations

import textwrap

import attrs

from srk.errors import ArgumentTypeError, DuplicateNameError
from srk.registry import Registry
from srk.tableaus.base import StochasticTableau
from srk.tableaus.check import check_tableau, require_order

__all__ = ["TABLEAUS", "register_tableau"]


TABLEAUS: Registry[StochasticTableau] = Registry(
    "tableau",
    listed_by="srk.tableaus()",
    columns={
        "calls": lambda name, tableau: str(tableau.drift_evaluations),
        "strong": lambda name, tableau: f"{tableau.strong_order:g}",
        "weak": lambda name, tableau: f"{tableau.weak_order:g}",
        "draws": lambda name, tableau: "W, H" if tableau.uses_levy_area else "W",
        "noise": lambda name, tableau: check_tableau(tableau).noise,
        "reference": lambda name, tableau: textwrap.shorten(
            tableau.reference.split(":")[0], 40, placeholder=" ..."
        ),
        "advice": lambda name, tableau: tableau.advice,
    },
)
"""Name -> tableau; its repr is the table of all of them."""


def register_tableau(tableau: StochasticTableau, name: str | None = None) -> StochasticTableau:
    """Check a tableau's order conditions and add it to `TABLEAUS`.

    `srk.register_tableau` also makes it a solver.

    Arguments:
        tableau: the tableau; the orders it declares are what is checked, for g(t) too if it reads g
            at more than one time.
        name: the name to register it under (default: its own).

    Returns:
        The tableau as registered (renamed if `name` is given).

    Raises:
        TableauError: its coefficients do not support the orders it declares; each failed condition
            is named with its residual.
        DuplicateNameError: the name is taken.

    Examples:
        >>> from srk.tableaus import TABLEAUS, StochasticTableau, register_tableau
        >>> ralston = StochasticTableau.from_wh(
        ...     "ralston",
        ...     alpha=("1/4", "3/4"),
        ...     A=((), ("2/3",)),
        ...     c=(0, "2/3"),
        ...     w=(0, "2/3"),
        ...     k=(0, 0),
        ...     strong_order=1,
        ...     weak_order=1,
        ... )
        >>> _ = register_tableau(ralston, "my-ralston")
        >>> TABLEAUS["my-ralston"].name
        'my-ralston'
        >>> TABLEAUS.unregister("my-ralston")
    """
    if not isinstance(tableau, StochasticTableau):
        raise ArgumentTypeError(
            f"not a StochasticTableau: {type(tableau).__name__}; StochasticTableau.from_dict "
            "makes one from plain data"
        )
    if name is not None and name != tableau.name:
        tableau = attrs.evolve(tableau, name=name)
    if (
        tableau.name in TABLEAUS
    ):  # a taken name is the simpler fault: say so before the coefficients are looked at
        raise DuplicateNameError(
            f"a tableau named {tableau.name!r} is registered already "
            f"({TABLEAUS[tableau.name]!r}); choose another name: "
            f"register_tableau(tableau, 'my-{tableau.name}')"
        )
    require_order(tableau)
    return TABLEAUS.register(tableau.name, tableau)
