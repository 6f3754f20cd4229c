"""Tableaus as plain data and as TOML files.

Which form it is in, what is missing or too much, and the way back.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs

from srk.errors import ArgumentError, ArgumentTypeError, TableauError

__all__ = ["form_of", "read_toml", "to_plain"]

_SHARED = {"strong_order", "weak_order", "alpha_hat", "reference", "advice"}
_ERRORS = {"bw_error", "bk_error"}
_FORMS = {
    "SRA": ({"name", "alpha", "A", "B", "c", "c1", "beta1", "beta2"}, _SHARED | _ERRORS),
    "full": ({"name", "alpha", "A", "c", "w", "k", "c1", "bw", "bk"}, _SHARED | _ERRORS),
    "(W, H)": ({"name", "alpha", "A", "c", "w", "k"}, _SHARED),
}
"""Form -> fields that it needs, and may have."""


def form_of(data: Mapping[str, Any]) -> str:
    """The form that `data` is in: "SRA", "full" or "(W, H)".

    Raises:
        ArgumentTypeError: it is not a mapping.
        TableauError: a field is missing or unknown.
    """
    if not isinstance(data, Mapping):
        raise ArgumentTypeError(
            "a tableau is read from a mapping of field names to values, not from "
            f"{type(data).__name__}"
        )
    form = "SRA" if "B" in data else "full" if data.keys() & {"bw", "bk", "c1"} else "(W, H)"
    needed, optional = _FORMS[form]
    missing, unknown = (
        sorted(needed - data.keys()),
        sorted(map(str, data.keys() - needed - optional)),
    )
    if missing or unknown:
        faults = [
            f"{what}: {', '.join(names)}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise TableauError(
            f"tableau {data.get('name', '?')!r} (read in {form} form) has fields "
            f"{'; '.join(faults)}. It needs {', '.join(sorted(needed))} "
            f"and may have {', '.join(sorted(optional))}"
        )
    return form


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The data of a TOML file.

    Raises:
        ArgumentError: the file cannot be read.
        TableauError: it is not TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            f"the tableau file {os.fspath(path)!r} cannot be read: {error}"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "fractions are strings in TOML: alpha = ['1/3', '2/3']"
        raise TableauError(f"{os.fspath(path)!r} is not a TOML file: {error} ({hint})") from error
    except (RecursionError, ValueError) as error:  # nested without end, or an endless number
        raise TableauError(
            f"{os.fspath(path)!r} holds nothing that a tableau is made of: "
            f"{str(error) or type(error).__name__}"
        ) from None


def to_plain(tableau: attrs.AttrsInstance) -> dict[str, Any]:
    """Field name -> value in the full form.

    Lists, fractions as strings, floats as they are; fields that are None are left out.
    """
    values = {field.name: getattr(tableau, field.name) for field in attrs.fields(type(tableau))}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, Fraction) else value
