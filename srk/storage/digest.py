"""A digest of everything that an object reaches: numbers, attributes, code and what code reads."""

from __future__ import annotations

import dis
import enum
import fractions
import functools
import hashlib
import io
import logging
import pathlib
import re
import sys
import threading
import types
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from srk.errors import ArgumentError
from srk.storage.origin import installed, is_code, is_python, name_of, ours
from srk.values.pure import HOUSEKEEPING


class UnknownError(ArgumentError):
    """Something that a digest cannot look into; the message says what it is and where."""


_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range,
    slice, fractions.Fraction, pathlib.PurePath, np.generic, np.dtype, torch.dtype, torch.device,
    torch.layout, torch.memory_format, torch.finfo, torch.iinfo,
)  # fmt: skip
"""Values whose type and repr say everything."""

_SILENT = (
    logging.Logger, logging.Handler, type(threading.Lock()), type(threading.RLock()),
    threading.local, threading.Event, threading.Condition, io.IOBase, torch.Stream, torch.Event,
)  # fmt: skip
"""Things that networks carry and that do not change what they return."""

_BOOKKEEPING = re.compile(
    r"_(load_)?state_dict_.*|_compiled_call_impl|_is_full_backward_hook|_non_persistent_buffers_set"
)
"""Attributes of a module that say how it is saved, not what it returns."""


class Digest:
    """A digest of everything that a value reaches.

    Each part is a digest of its own parts, so that the result depends neither on the order in
    which equal objects were made nor on which of them are shared.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[object, bytes]] = {}  # the object is held: ids are reused
        self.packages: set[str] = set()  # installed packages, which are known by their names
        self.open: dict[int, int] = {}  # what is being read, with its depth: a cycle ends there

    def of(self, value: Any, where: str) -> bytes:
        """The digest of `value`, which stands at `where`."""
        if isinstance(value, enum.Enum):
            return _hash(name_of(type(value)), value.name)
        if isinstance(value, _PLAIN):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self.known:
            return self.known[id(value)][1]
        if id(value) in self.open:
            return _hash("cycle", str(len(self.open) - self.open[id(value)]))
        self.open[id(value)] = len(self.open)
        try:
            made = _hash(*self.parts(value, where))
        except RecursionError:
            raise UnknownError(f"{where} is nested too deeply") from None
        finally:
            del self.open[id(value)]
        self.known[id(value)] = value, made
        return made

    def parts(self, value: Any, where: str) -> Iterator[str | bytes | memoryview]:
        """What the digest of a value is made of."""
        if isinstance(value, _SILENT):
            yield type(value).__name__
            return
        if type(value).__module__ != "builtins":
            yield self.of(type(value), f"the class of {where}")
        if isinstance(value, np.ndarray):
            yield from ("array", str(value.shape), str(value.dtype))
            if value.dtype.hasobject:
                yield self.of(value.tolist(), where)
            else:
                yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, Tensor):
            yield from self.tensor(value, where)
        elif isinstance(value, type):
            yield from self.of_class(value, where)
        elif isinstance(value, list | tuple):
            yield from (name_of(type(value)), str(len(value)))
            for i, entry in enumerate(value):
                yield self.of(entry, f"{where}[{i}]")
            yield from self.attributes(value, where)
        elif isinstance(value, set | frozenset):
            yield type(value).__name__
            entries: list[bytes] = sorted(self.of(entry, where) for entry in value)
            yield from entries
        elif isinstance(value, Mapping):
            yield from (name_of(type(value)), str(len(value)))
            for key in value:
                yield self.of(key, where)
                yield self.of(value[key], f"{where}[{key!r}]")
            yield from self.attributes(value, where)
        elif isinstance(value, types.ModuleType):
            self.installed(value)
            yield from ("module", value.__name__)
        elif isinstance(value, functools.partial):
            yield "partial"
            yield self.of([value.func, value.args, value.keywords], where)
        elif isinstance(value, weakref.ref):
            yield "reference"
            yield self.of(value(), where)
        elif isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState):
            state = (
                value.get_state()
                if isinstance(value, torch.Generator | np.random.RandomState)
                else value.bit_generator.state
            )
            yield self.of(state, where)
        elif isinstance(value, torch.jit.ScriptModule):
            yield from _script(value)
        elif isinstance(value, property | classmethod | staticmethod | functools.cached_property):
            names = ("fget", "fset", "__func__", "func")
            yield type(value).__name__
            yield self.of([getattr(value, name, None) for name in names], where)
        elif is_code(value):
            yield from self.function(value, where)
        else:
            yield from self.object(value, where)

    def tensor(self, value: Tensor, where: str) -> Iterator[str | bytes | memoryview]:
        tensor = value.detach()
        if tensor.is_meta:
            raise UnknownError(f"{where} is a tensor on the device 'meta', which has no numbers")
        yield from ("tensor", str(tuple(tensor.shape)), str(tensor.dtype), str(tensor.layout))
        if tensor.is_quantized:
            yield repr((tensor.qscheme(), str(tensor)[-400:]))
            tensor = tensor.int_repr()
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
        tensor = tensor.cpu().resolve_conj().resolve_neg().flatten()
        # A clone, for what is expanded has strides that bytes cannot have.
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        yield tensor.view(torch.uint8).numpy().data if tensor.numel() else b""
        yield from self.attributes(value, where)

    def of_class(self, value: Any, where: str) -> Iterator[str | bytes]:
        """A class: its name, and if it is the user's what it and its bases define."""
        yield from ("class", name_of(value))
        for base in value.__mro__:
            if self.installed(base):
                yield name_of(base)
                continue
            entries = {k: v for k, v in vars(base).items() if k not in HOUSEKEEPING}
            for name in sorted(entries):
                if isinstance(
                    entries[name], types.MemberDescriptorType | types.GetSetDescriptorType
                ):
                    continue  # a slot, whose value belongs to the object
                yield name
                yield self.of(entries[name], f"{value.__qualname__}.{name}")

    def function(self, value: Any, where: str) -> Iterator[str | bytes]:
        """A function: its name, and if it is the user's its code and what the code reads."""
        yield name_of(value)
        inner = getattr(value, "_torchdynamo_orig_callable", getattr(value, "__wrapped__", None))
        if inner is not None:
            yield self.of(inner, where)
        bound = getattr(value, "__self__", None)
        if bound is not None and not isinstance(bound, types.ModuleType):
            yield self.of(bound, f"{where}.__self__")
        function = getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        cells = getattr(function, "__closure__", None) or ()
        names = code.co_freevars if code else ()
        for name, cell in zip(names, cells, strict=False):
            try:
                yield self.of(cell.cell_contents, f"{where}, which reads {name}")
            except ValueError:
                yield f"{name} is empty"
        yield self.of(getattr(function, "__defaults__", None), where)
        yield self.of(getattr(function, "__kwdefaults__", None), where)
        if self.installed(function) or code is None:
            return
        yield self.of(getattr(function, "__dict__", None) or None, where)
        read: set[str] = set()
        yield from self.code(code, where, read)
        yield from self.read(function.__globals__, read, where)

    def code(self, code: types.CodeType, where: str, read: set[str]) -> Iterator[str | bytes]:
        """The instructions, without line numbers and docstring; adds the names that they use."""
        yield from ("code", code.co_name, str(code.co_varnames[: code.co_argcount]))
        read.update(code.co_names)
        for step in dis.get_instructions(code):
            yield step.opname
            if isinstance(step.argval, types.CodeType):
                yield from self.code(step.argval, where, read)
            elif step.opcode in dis.hasconst:
                yield self.of(step.argval, where)
            else:
                yield str(step.argval)

    def read(self, space: Mapping[str, Any], names: set[str], where: str) -> Iterator[str | bytes]:
        """The values of the globals with these names; of the user's modules, what is read there."""
        for name in sorted(names & space.keys()):
            value = space[name]
            yield name
            if isinstance(value, types.ModuleType) and not installed(value):
                if id(value) not in self.open:
                    self.open[id(value)] = len(self.open)
                    yield from self.read(vars(value), names - {name}, where)
                    del self.open[id(value)]
            else:
                yield self.of(value, f"{where}, which reads {name}")

    def object(self, value: Any, where: str) -> Iterator[str | bytes]:
        """Any other object: its class, and its attributes or what pickle would take of it."""
        for wrapper, inner in (
            ("OptimizedModule", "_orig_mod"),
            ("DistributedDataParallel", "module"),
        ):
            if type(value).__name__ == wrapper and isinstance(value, nn.Module):
                yield from (wrapper, self.of(getattr(value, inner), f"{where}.{inner}"))
                return
        cls = type(value)
        if isinstance(value, nn.Module):
            hooks = vars(nn.modules.module)
            yield self.of(
                [list(hooks[k].values()) for k in sorted(hooks)
                 if k.startswith("_global") and isinstance(hooks[k], dict)],
                "the hooks of all modules",
            )  # fmt: skip
        if hasattr(value, "__dict__") or any("__slots__" in vars(base) for base in cls.__mro__):
            yield from self.attributes(value, where)
            if is_python(cls):
                return
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise UnknownError(
                f"{where} is a {name_of(cls)}, which cannot be looked into"
            ) from error
        rest = reduced if isinstance(reduced, str) else [
            list(part) if isinstance(part, Iterator) else part for part in reduced
        ]  # fmt: skip
        yield self.of(rest, where)

    def installed(self, value: Any) -> bool:
        """Whether it belongs to an installed package, whose name is kept."""
        found = installed(value)
        module = isinstance(value, types.ModuleType)
        name = value.__name__ if module else getattr(value, "__module__", None)
        top = (name or "").split(".")[0]
        if found and top not in sys.stdlib_module_names and top not in ("", "srk", "torch"):
            self.packages.add(top)
        return found

    def attributes(self, value: Any, where: str) -> Iterator[str | bytes]:
        for name, entry in sorted(attributes_of(value)):
            yield name
            if isinstance(value, nn.Module) and "hooks" in name and isinstance(entry, dict):
                entry = list(entry.values())  # the keys count the hooks of this Python process
            yield self.of(entry, f"{where}.{name}")


def attributes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of what an object holds, in its dict and its slots."""
    own = ours(type(value))  # what begins with _ is derived there, or a cache
    fields = {
        field.name
        for field in (attrs.fields(type(value)) if attrs.has(type(value)) else ())
        if field.init or field.eq
    }
    slots = {
        name
        for base in type(value).__mro__
        for name in _words(vars(base).get("__slots__", ()))
        if not name.startswith("__")
    }
    held = dict(getattr(value, "__dict__", {}))
    held.update({name: getattr(value, name) for name in slots if hasattr(value, name)})
    for name, entry in held.items():
        if own and name.startswith("_") and name not in fields:
            continue
        if isinstance(value, nn.Module) and _BOOKKEEPING.fullmatch(name):
            continue
        yield name, entry


def _words(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _script(module: torch.jit.ScriptModule) -> Iterator[str | bytes]:
    """A TorchScript module as it would be saved: code, numbers and attributes."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    with zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith((".debug_pkl", "serialization_id")):
                yield name
                yield archive.read(name)


def _hash(*parts: str | bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(f"{memoryview(data).nbytes}:".encode())
        digest.update(data)
    return digest.digest()
