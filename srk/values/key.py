"""Keys of values: equal for two things only if they are the same value."""

from __future__ import annotations

import abc
import builtins
import functools
import math
import types
import typing
import weakref
from collections.abc import Hashable
from typing import Any

import attrs
import numpy as np

from srk.values.pure import ATOMS, NOT_READ, PURE, PURE_MODULES, SINGLETONS
from srk.values.reads import (
    HEAP_TYPE,
    NotAValue,
    all_fields,
    fields_of,
    generated,
    ours,
    reads,
    slots_of,
    unwrapped,
)

_BASES = frozenset({object, abc.ABC, typing.Generic, typing.Protocol})


def value(thing: Any) -> Hashable:
    """A key that is equal for two things only if they are the same value.

    Raises:
        NotAValue: `thing` holds, or its methods read, something that can change in place.
    """
    kind = type(thing)
    if kind in ATOMS:
        return kind, thing
    kept = _KEPT.get(id(thing))
    if kept is not None and kept[0]() is thing:
        return kept[1]
    key = _Walk().value(thing)
    if _frozen(thing):
        number = id(thing)
        _KEPT[number] = weakref.ref(thing, lambda _: _KEPT.pop(number, None)), key
    return key


_KEPT: dict[int, tuple[weakref.ref[Any], Hashable]] = {}
"""The keys of objects that cannot change, by the numbers of the objects, as long as these live."""

_refuses_changes: Any = attrs.frozen(type("_Frozen", (), {})).__setattr__


def _frozen(thing: Any) -> bool:
    """Whether a thing is a frozen object of this package that holds atoms and its like only."""
    cls: Any = type(thing)
    fields = all_fields(cls) if ours(cls) else None
    if fields is None or cls.__setattr__ is not _refuses_changes:
        return False
    return all(unchanging(getattr(thing, name, None)) for name in fields)


def unchanging(thing: Any) -> bool:
    """Whether nothing can change a thing, so that it need not be looked at again.

    An atom such as a number, or a frozen object of this package that holds such things only.
    """
    kind = type(thing)
    if kind is float or kind in ATOMS:
        return True
    if kind is tuple:
        return all(map(unchanging, thing))
    return _frozen(thing)


class _Walk:
    """One key under construction. What was met before is named by its number, so that a class
    whose methods refer to it ends.
    """

    def __init__(self) -> None:
        self.met: dict[int, int] = {}

    def value(self, thing: Any) -> Hashable:
        kind = type(thing)
        if kind is float:
            # 0.0 == -0.0, but they are two numbers
            return (kind, thing) if thing else (kind, math.copysign(1.0, thing), None)
        if kind in ATOMS:
            return kind, thing
        if kind is tuple:
            return self._tuple(thing)
        if kind is frozenset:
            return kind, frozenset(self.value(item) for item in thing)
        if isinstance(thing, np.generic):
            return kind, thing.tobytes()
        if isinstance(thing, SINGLETONS) or id(thing) in PURE:
            return kind, thing
        if id(thing) in self.met:
            return "met", self.met[id(thing)]
        self.met[id(thing)] = len(self.met)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, types.MethodType):
            return kind, self.value(thing.__func__), self.value(thing.__self__)
        if isinstance(thing, functools.partial) and kind is functools.partial:
            items = tuple(sorted(thing.keywords.items()))
            return kind, self.value(thing.func), self._tuple(thing.args), self._tuple(items)
        if isinstance(thing, np.ufunc):
            return kind, thing
        if isinstance(thing, types.BuiltinFunctionType) and thing.__self__ in PURE_MODULES:
            return kind, thing
        return self._object(thing)

    def _tuple(self, things: tuple[Any, ...]) -> Hashable:
        kinds = set(map(type, things))
        if len(kinds) == 1 and kinds <= ATOMS | {float} and 0.0 not in things:
            return tuple, kinds.pop(), things  # the usual long tuple of numbers, looked at once
        return tuple, tuple(map(self.value, things))

    def _object(self, thing: Any) -> Hashable:
        cls: Any = type(thing)
        if not cls.__flags__ & HEAP_TYPE:
            raise NotAValue(f"{cls.__name__} objects can change in place")
        fields = fields_of(cls) if ours(cls) else None
        if fields is not None:
            return cls, tuple([self.value(getattr(thing, name)) for name in fields])
        names = {*slots_of(cls), *getattr(thing, "__dict__", ())}
        state = [(n, self.value(getattr(thing, n))) for n in sorted(names) if hasattr(thing, n)]
        content = self._tuple(tuple(thing)) if isinstance(thing, tuple) else None
        return self.value(cls), content, tuple(state)

    def _class(self, cls: type) -> Hashable:
        """A class by its identity and, where it is not of this package, by all that its methods
        could read.
        """
        if cls in _BASES or ours(cls) or cls is tuple:
            return cls
        if not cls.__flags__ & HEAP_TYPE or type(cls) not in (type, abc.ABCMeta):
            raise NotAValue(f"what the class {cls.__name__} holds is not known")
        own: list[Hashable] = []
        for name, entry in sorted(vars(cls).items()):
            if name in NOT_READ or isinstance(entry, types.MemberDescriptorType):
                continue
            if isinstance(entry, types.GetSetDescriptorType) or generated(cls, entry):
                continue
            own.append((name, self.value(unwrapped(entry))))
        return cls, tuple(own), tuple(self.value(base) for base in cls.__bases__)

    def _function(self, function: types.FunctionType) -> Hashable:
        """A function by its code, its defaults, its closure and the globals that it reads."""
        code, own = function.__code__, ours(function)
        keywords = function.__kwdefaults__ or {}
        parts: list[Hashable] = [
            code,
            self._tuple(function.__defaults__ or ()),
            self._tuple(tuple(sorted(keywords.items()))),
        ]
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            parts.append(self.value(content))
        if not own:
            names, attributes = reads(code)
            known = function.__globals__
            for name in names:
                if name in known:
                    parts.append((name, self._global(known[name], attributes)))
                elif hasattr(builtins, name):
                    parts.append((name, self.value(getattr(builtins, name))))
        return types.FunctionType, tuple(parts)

    def _global(self, thing: Any, attributes: frozenset[str]) -> Hashable:
        """A global of a function; of a module, what the function can reach in it."""
        if not isinstance(thing, types.ModuleType):
            return self.value(thing)
        if thing in PURE_MODULES or ours(thing):
            return thing
        content = vars(thing)
        if "__getattr__" in content and thing.__name__.partition(".")[0] not in ("numpy", "scipy"):
            raise NotAValue(
                f"the module {thing.__name__} makes its attributes as they are asked for"
            )
        return thing, tuple(
            (name, self._global(content[name], attributes))
            for name in sorted(attributes & content.keys())
            if id(content[name]) != id(thing)
        )
