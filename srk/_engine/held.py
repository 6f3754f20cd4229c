"""What a network holds: a list by which one sees that something was put in its place."""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_SILENT = (type, types.ModuleType, logging.Logger, logging.Handler)
_LIMIT = 1_000_000
"""After so many parts it stops looking."""


def held(value: object) -> tuple[Any, ...]:
    """The addresses of all tensors and the numbers and texts that `value` reaches, in order.

    Two lists differ where a tensor, a number or an object has been replaced. A tensor whose content
    has changed in place has the same address. What a compiled library keeps is not seen.

    Arguments:
        value: a prediction, network or hook: objects by their attributes, containers by their
            entries, functions by their closures, defaults and the globals that they name.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(found) < _LIMIT:
        thing = waiting.pop()
        if isinstance(thing, _PLAIN) or thing is None:
            found.append(thing)
        elif isinstance(thing, Tensor):
            found.append(_tensor(thing))
        elif id(thing) not in seen and not isinstance(thing, _SILENT):
            seen.add(id(thing))
            found.append(type(thing).__qualname__)
            waiting += _parts(thing)
    return tuple(found)


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # a tensor without memory of its own
        address = id(tensor)
    return address, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, Mapping):
        for key, entry in thing.items():
            yield from (key, entry)
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        yield from (thing.__defaults__, thing.__kwdefaults__)
        names = thing.__code__.co_names
        yield from (thing.__globals__[name] for name in names if name in thing.__globals__)
    yield from getattr(thing, "__dict__", {}).values()
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield getattr(thing, name)
