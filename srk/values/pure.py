"""What is known to be a value: types, modules and functions of Python and NumPy."""

from __future__ import annotations

import builtins
import cmath
import math
import operator
from fractions import Fraction

import numpy as np
import torch

ATOMS = frozenset({bool, int, str, bytes, complex, Fraction, type(None), type(...)})
SINGLETONS = (torch.dtype, torch.device, torch.layout)
PURE_MODULES = frozenset({math, cmath, operator})
"""Modules of which every function depends on its arguments only."""


def _words(text: str) -> list[str]:
    return text.split()


PURE = frozenset(
    id(getattr(module, name))
    for module, names in (
        (
            np,
            """
            array asarray asanyarray arange linspace logspace geomspace zeros ones full eye
            interp clip where diff cumsum cumprod sum prod mean stack concatenate outer dot
            polyval polyfit searchsorted trapezoid max min argmax argmin sort flip float64
            float32 int64 int32 bool_ diag identity block kron vstack hstack column_stack
            zeros_like ones_like full_like tril triu trace transpose einsum tensordot
            """,
        ),
        (np.linalg, "inv solve det norm eigh eigvalsh cholesky svd matrix_power"),
        (
            builtins,
            """
            abs all any bool bytes complex divmod enumerate filter float frozenset int
            isinstance issubclass len map max min pow range repr reversed round set slice
            sorted str sum tuple zip list dict iter next object property staticmethod
            classmethod super type hasattr callable ArithmeticError AssertionError
            AttributeError IndexError KeyError NotImplementedError OverflowError RuntimeError
            TypeError ValueError ZeroDivisionError NotImplemented StopIteration Exception
            """,
        ),
    )
    for name in _words(names)
    if hasattr(module, name)
)
"""Functions and types that depend on their arguments only, by identity."""

HOUSEKEEPING = frozenset(
    _words(
        """
        __module__ __qualname__ __doc__ __dict__ __weakref__ __slots__ __annotations__
        __annotate__ __annotate_func__ __annotations_cache__ __abstractmethods__ _abc_impl
        __firstlineno__ __static_attributes__ __match_args__ __parameters__ __orig_bases__
        __type_params__ __attrs_attrs__ __attrs_props__ __attrs_own_setattr__
        __dataclass_fields__ __dataclass_params__ __protocol_attrs__
        __non_callable_proto_members__ _is_protocol
        """
    )
)
"""Entries that Python, attrs and dataclasses write into a class and that say nothing of it."""

NOT_READ = HOUSEKEEPING | frozenset(
    _words(
        """
        __attrs_base_of_slotted__ __repr__ __str__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__
        __hash__ __getstate__ __setstate__ __replace__
        """
    )
)
"""Entries of a class that no plan depends on."""
