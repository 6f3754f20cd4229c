"""The memory of results of functions of values, bounded by the bytes that they take."""

from __future__ import annotations

import abc
import functools
import os
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from srk.values.key import value
from srk.values.reads import HEAP_TYPE, slots_of


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
    return tuple(slots_of(cls)) if cls.__flags__ & HEAP_TYPE else ()
