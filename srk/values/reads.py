"""What classes and functions hold and read, as far as that can be known."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Hashable
from typing import Any

import attrs


class NotAValue(TypeError):
    """An object that may change without its key changing."""


_TRUSTED = frozenset({__name__.partition(".")[0], "attr", "attrs"})
"""Packages whose functions and methods read nothing but their arguments and objects."""

HEAP_TYPE = 1 << 9
"""The flag of a class that was made while Python ran, by a class statement for example."""


def ours(thing: Any) -> bool:
    """Whether a class, function or module belongs to this package, or to attrs."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return isinstance(name, str) and name.partition(".")[0] in _TRUSTED


@functools.cache
def fields_of(cls: Hashable) -> tuple[str, ...] | None:
    """The attributes that make an attrs object of this package what it is, those that follow from
    them left out; None for other classes, of whose objects all attributes count.
    """
    assert isinstance(cls, type)
    if not attrs.has(cls):
        return None
    return tuple(field.name for field in attrs.fields(cls) if field.eq is not False)


@functools.cache
def all_fields(cls: Hashable) -> tuple[str, ...] | None:
    """All attributes of an attrs class whose objects can be referred to weakly and hold no more."""
    assert isinstance(cls, type)
    if not attrs.has(cls) or not cls.__weakrefoffset__:
        return None
    return tuple(field.name for field in attrs.fields(cls))


def slots_of(cls: type) -> set[str]:
    """The names that objects of a class keep in slots, of which `vars` knows nothing."""
    names: set[str] = set()
    for base in cls.__mro__:
        for name, entry in vars(base).items():
            if isinstance(entry, types.MemberDescriptorType):
                names.add(name)
    return names


def unwrapped(entry: Any) -> Any:
    """The functions behind a class entry."""
    if isinstance(entry, property):
        return (entry.fget, entry.fset, entry.fdel)
    if isinstance(entry, staticmethod | classmethod):
        return entry.__func__
    if isinstance(entry, functools.cached_property):
        return entry.func
    return entry


def generated(cls: type, entry: Any) -> bool:
    """Whether attrs or dataclasses wrote a method, from the fields alone."""
    code = getattr(entry, "__code__", None)
    if code is None:
        return False
    if code.co_filename.startswith("<attrs generated"):
        return True
    return "__dataclass_fields__" in vars(cls) and code.co_filename == "<string>"


@functools.lru_cache(maxsize=1024)
def reads(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """The globals and the attributes that a function and the functions inside it name.

    Raises:
        NotAValue: it imports, or writes to a global or to a variable around it.
    """
    names: set[str] = set()
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation.startswith(("IMPORT_", "STORE_GLOBAL", "DELETE_GLOBAL")) or (
            operation == "STORE_DEREF" and name in code.co_freevars
        ):
            raise NotAValue(f"{code.co_name} imports, or writes to a variable outside of it")
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(name)
        elif operation in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            more, others = reads(constant)
            names.update(more)
            attributes |= others
    return tuple(sorted(names)), frozenset(attributes)
