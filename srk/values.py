"""Values: what may be remembered, because nothing can change it unseen.

Plans, times and kernels are numbers made from a process, a solver and a grid. Making them
again for every run costs milliseconds, so the last ones are remembered, under a key that is
equal only where everything that the result depends on is equal. `value` makes such a key, or
refuses: numbers, strings and tuples are values; so is an object whose attributes, and whose
class with all that its methods read, are values. A tensor, an array, a list or a dictionary
can change in place, and an object of another library can hold anything, so that whatever
contains one of them is not remembered at all.
"""

from __future__ import annotations

import abc
import builtins
import cmath
import dis
import functools
import math
import operator
import os
import threading
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from fractions import Fraction
from typing import Any

import attrs
import numpy as np
import torch

__all__ = ["NotAValue", "Remembered", "size_of", "value"]


class NotAValue(TypeError):
    """An object that may change without its key changing."""


# -- keys ---------------------------------------------------------------------------------------

_ATOMS = frozenset({bool, int, str, bytes, complex, Fraction, type(None), type(...)})
_SINGLETONS = (torch.dtype, torch.device, torch.layout)
_TRUSTED = frozenset({__name__.partition(".")[0], "attr", "attrs"})
"""Packages whose functions and methods read nothing but their arguments and objects."""

_PURE_MODULES = frozenset({math, cmath, operator})
"""Modules of which every function depends on its arguments only."""


def _words(text: str) -> list[str]:
    return text.split()


_PURE = frozenset(
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

_NOT_READ = frozenset(
    _words(
        """
        __module__ __qualname__ __doc__ __dict__ __weakref__ __slots__ __annotations__
        __annotate__ __annotate_func__ __annotations_cache__ __abstractmethods__ _abc_impl
        __firstlineno__ __static_attributes__ __match_args__ __parameters__ __orig_bases__
        __type_params__ __attrs_attrs__ __attrs_props__ __attrs_base_of_slotted__
        __attrs_own_setattr__ __dataclass_fields__ __dataclass_params__ __repr__ __str__
        __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __getstate__ __setstate__
        __replace__ __protocol_attrs__ __non_callable_proto_members__ _is_protocol
        """
    )
)
"""Entries of a class that no plan depends on."""

_HEAP_TYPE = 1 << 9
_BASES = frozenset({object, abc.ABC, typing.Generic, typing.Protocol})


def value(thing: Any) -> Hashable:
    """A key that is equal for two things only if they are the same value.

    Raises:
        NotAValue: `thing` holds, or its methods read, something that can change in place.
    """
    kind = type(thing)
    if kind in _ATOMS:
        return kind, thing
    kept = _KEPT.get(id(thing))
    if kept is not None and kept[0]() is thing:
        return kept[1]
    key = _Walk().value(thing)
    if _unchanging(thing):
        number = id(thing)
        _KEPT[number] = weakref.ref(thing, lambda _: _KEPT.pop(number, None)), key
    return key


_KEPT: dict[int, tuple[weakref.ref[Any], Hashable]] = {}
"""The keys of objects that cannot change, by the numbers of the objects, as long as these live."""

_refuses_changes: Any = attrs.frozen(type("_Frozen", (), {})).__setattr__


def _unchanging(thing: Any) -> bool:
    """Whether a thing is a frozen object of this package that holds atoms and its like only."""
    cls: Any = type(thing)
    fields = _all_fields(cls) if _ours(cls) else None
    if fields is None or cls.__setattr__ is not _refuses_changes:
        return False
    return all(_fixed(getattr(thing, name, None)) for name in fields)


def _fixed(thing: Any) -> bool:
    kind = type(thing)
    if kind is float or kind in _ATOMS:
        return True
    if kind is tuple:
        return all(map(_fixed, thing))
    return _unchanging(thing)


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
        if kind in _ATOMS:
            return kind, thing
        if kind is tuple:
            return self._tuple(thing)
        if kind is frozenset:
            return kind, frozenset(self.value(item) for item in thing)
        if isinstance(thing, np.generic):
            return kind, thing.tobytes()
        if isinstance(thing, _SINGLETONS) or id(thing) in _PURE:
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
        if isinstance(thing, types.BuiltinFunctionType) and thing.__self__ in _PURE_MODULES:
            return kind, thing
        return self._object(thing)

    def _tuple(self, things: tuple[Any, ...]) -> Hashable:
        kinds = set(map(type, things))
        if len(kinds) == 1 and kinds <= _ATOMS | {float} and 0.0 not in things:
            return tuple, kinds.pop(), things  # the usual long tuple of numbers, looked at once
        return tuple, tuple(map(self.value, things))

    def _object(self, thing: Any) -> Hashable:
        cls: Any = type(thing)
        if not cls.__flags__ & _HEAP_TYPE:
            raise NotAValue(f"{cls.__name__} objects can change in place")
        fields = _fields(cls) if _ours(cls) else None
        if fields is not None:
            return cls, tuple([self.value(getattr(thing, name)) for name in fields])
        names = {*_slots(cls), *getattr(thing, "__dict__", ())}
        state = [(n, self.value(getattr(thing, n))) for n in sorted(names) if hasattr(thing, n)]
        content = self._tuple(tuple(thing)) if isinstance(thing, tuple) else None
        return self.value(cls), content, tuple(state)

    def _class(self, cls: type) -> Hashable:
        """A class by its identity and, where it is not of this package, by all that its methods
        could read.
        """
        if cls in _BASES or _ours(cls) or cls is tuple:
            return cls
        if not cls.__flags__ & _HEAP_TYPE or type(cls) not in (type, abc.ABCMeta):
            raise NotAValue(f"what the class {cls.__name__} holds is not known")
        own: list[Hashable] = []
        for name, entry in sorted(vars(cls).items()):
            if name in _NOT_READ or isinstance(entry, types.MemberDescriptorType):
                continue
            if isinstance(entry, types.GetSetDescriptorType) or _generated(cls, entry):
                continue
            own.append((name, self.value(_unwrapped(entry))))
        return cls, tuple(own), tuple(self.value(base) for base in cls.__bases__)

    def _function(self, function: types.FunctionType) -> Hashable:
        """A function by its code, its defaults, its closure and the globals that it reads."""
        code, own = function.__code__, _ours(function)
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
            names, attributes = _reads(code)
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
        if thing in _PURE_MODULES or _ours(thing):
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


def _ours(thing: Any) -> bool:
    """Whether a class, function or module belongs to this package, or to attrs."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return isinstance(name, str) and name.partition(".")[0] in _TRUSTED


@functools.cache
def _fields(cls: Hashable) -> tuple[str, ...] | None:
    """The attributes that make an attrs object of this package what it is, those that follow from
    them left out; None for other classes, of whose objects all attributes count.
    """
    assert isinstance(cls, type)
    if not attrs.has(cls):
        return None
    return tuple(field.name for field in attrs.fields(cls) if field.eq is not False)


@functools.cache
def _all_fields(cls: Hashable) -> tuple[str, ...] | None:
    """All attributes of an attrs class whose objects can be referred to weakly and hold no more."""
    assert isinstance(cls, type)
    if not attrs.has(cls) or not cls.__weakrefoffset__:
        return None
    return tuple(field.name for field in attrs.fields(cls))


def _slots(cls: type) -> set[str]:
    """The names that objects of a class keep in slots, of which `vars` knows nothing."""
    names: set[str] = set()
    for base in cls.__mro__:
        for name, entry in vars(base).items():
            if isinstance(entry, types.MemberDescriptorType):
                names.add(name)
    return names


def _unwrapped(entry: Any) -> Any:
    """The functions behind a class entry."""
    if isinstance(entry, property):
        return (entry.fget, entry.fset, entry.fdel)
    if isinstance(entry, staticmethod | classmethod):
        return entry.__func__
    if isinstance(entry, functools.cached_property):
        return entry.func
    return entry


def _generated(cls: type, entry: Any) -> bool:
    """Whether attrs or dataclasses wrote a method, from the fields alone."""
    code = getattr(entry, "__code__", None)
    if code is None:
        return False
    if code.co_filename.startswith("<attrs generated"):
        return True
    return "__dataclass_fields__" in vars(cls) and code.co_filename == "<string>"


@functools.lru_cache(maxsize=1024)
def _reads(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
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
            more, others = _reads(constant)
            names.update(more)
            attributes |= others
    return tuple(sorted(names)), frozenset(attributes)


# -- the memory ---------------------------------------------------------------------------------


class Remembered:
    """The last results of functions of values, at most so many bytes of them, for all threads.

    Arguments:
        limit: bytes that the results and their keys may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            # another thread may hold the lock while this one forks
            os.register_at_fork(after_in_child=self._renew)

    def get(self, make: Callable[[], Any], *what: Any) -> Any:
        """The result of `make`, which depends on `what` only; made afresh where that is not a
        value.
        """
        try:
            key = tuple(map(value, what))
            hash(key)
        except TypeError:
            return make()
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        made = make()
        size = size_of(made) + size_of(key)
        with self._lock:
            if key not in self._entries and size <= self.limit:
                self._entries[key] = made, size
                self.bytes += size
                while self.bytes > self.limit:
                    self.bytes -= self._entries.popitem(last=False)[1][1]
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _renew(self) -> None:
        self._lock = threading.Lock()


def size_of(thing: Any) -> int:
    """The bytes that a nest of tuples, lists, mappings, attrs objects and numbers takes, rather
    too many than too few: a container that occurs twice counts once, a number each time.
    """
    seen: set[int] = set()
    total = 0
    stack = [thing]
    while stack:
        item = stack.pop()
        kind: Any = type(item)
        if kind in _SCALARS:
            total += _SCALARS[kind]
            continue
        if id(item) in seen or kind in _SHARED:
            continue
        seen.add(id(item))
        total += item.__sizeof__() + 16
        if kind in (tuple, list, frozenset, set) or isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, Mapping):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, np.ndarray):
            total += item.nbytes if item.base is not None else 0
        else:
            stack.extend([getattr(item, name, None) for name in _slots_of(kind)])
            stack.extend(getattr(item, "__dict__", {}).values())
    return total


_SCALARS: dict[type, int] = {float: 24, int: 32, complex: 32, bool: 0, type(None): 0}
_SHARED = frozenset({type, abc.ABCMeta, str, types.ModuleType, types.CodeType})
"""What exists without us: a name, a class."""


@functools.lru_cache(maxsize=1024)
def _slots_of(cls: Hashable) -> tuple[str, ...]:
    assert isinstance(cls, type)
    return tuple(_slots(cls)) if cls.__flags__ & _HEAP_TYPE else ()
