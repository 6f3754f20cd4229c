"""Stochastic Runge-Kutta tableaus for additive noise.

What a tableau is, its order conditions, the named ones, and a registry for your own.

Examples:
    >>> from srk.tableaus import TABLEAUS, check_tableau
    >>> TABLEAUS["sra1"]
    <StochasticTableau 'sra1': 2 stages, 2 drift evaluations, strong order 1.5, weak order 2, draws
    W and H>
    >>> check_tableau(TABLEAUS["sea"]).strong_order
    1.0
"""

from __future__ import annotations

import sys

from srk.registry import callable_package
from srk.tableaus.arrays import TableauArrays
from srk.tableaus.base import StochasticTableau
from srk.tableaus.check import TableauReport, check_tableau, require_order
from srk.tableaus.conditions import ORDER_CONDITIONS, Condition
from srk.tableaus.entries import Entry
from srk.tableaus.named import (
    AWR3,
    EULER,
    HEUN,
    MIDPOINT,
    SEA,
    SHARK,
    SOSRA,
    SOSRA2,
    SPARK,
    SRA1,
    SRA2,
    SRA3,
)
from srk.tableaus.registry import TABLEAUS, register_tableau

callable_package(sys.modules[__name__], TABLEAUS)  # srk.tableaus() is the table of its names

__all__ = [
    "AWR3",
    "EULER",
    "HEUN",
    "MIDPOINT",
    "ORDER_CONDITIONS",
    "SEA",
    "SHARK",
    "SOSRA",
    "SOSRA2",
    "SPARK",
    "SRA1",
    "SRA2",
    "SRA3",
    "TABLEAUS",
    "Condition",
    "Entry",
    "StochasticTableau",
    "TableauArrays",
    "TableauReport",
    "check_tableau",
    "register_tableau",
    "require_order",
]
