"""What tells one process, network or solver from another in every Python process, so that a run can be resumed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn


def identity(value: object) -> str:
    """What tells one process, network or solver from another in every Python process: its repr, and a digest of the numbers in it.

    The digest is over public attributes, the state_dict of modules and what functions close over. Code is known by its name only.

    Examples:
        >>> import srk
        >>> identity(srk.VP()) == identity(srk.VP()) != identity(srk.VP(beta_max=10.0))
        True
    """
    digest = hashlib.sha256()
    _feed(value, digest.update, {})
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return f"{text if len(text) <= 200 else type(value).__name__} {digest.hexdigest()[:16]}"


def _feed(
    value: Any, update: Callable[[bytes | memoryview], None], seen: dict[int, object]
) -> None:
    """Pass the parts of `value` on as bytes."""
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | torch.dtype | torch.device | np.generic
    ):
        update(f"{type(value).__name__} {value!r};".encode())
        return
    if isinstance(value, np.ndarray):
        update(f"array {value.shape} {value.dtype};".encode() + value.tobytes())
        return
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        update(f"tensor {tuple(tensor.shape)} {tensor.dtype};".encode())
        # a clone, for what is expanded has strides that bytes cannot have
        update(
            tensor.flatten()
            .clone(memory_format=torch.contiguous_format)
            .view(torch.uint8)
            .numpy()
            .data
            if tensor.numel()
            else b""
        )
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # held, for the id of an object that is gone is given to another
    if isinstance(value, nn.Module):
        for name, module in value.named_modules():
            numbers = {
                k: v
                for k, v in vars(module).items()
                if not k.startswith("_") and isinstance(v, bool | int | float | str)
            }
            update(f"{name} {_name(type(module))} {sorted(numbers.items())!r};".encode())
        _feed(dict(value.state_dict()), update, seen)
    elif isinstance(value, Mapping):
        for key in value:
            _feed(key, update, seen)
            _feed(value[key], update, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for entry in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            _feed(entry, update, seen)
    elif isinstance(value, ModuleType):  # what a builtin function is bound to
        update(f"{value.__name__};".encode())
    elif isinstance(value, partial):
        _feed((value.func, value.args, value.keywords), update, seen)
    elif callable(value) and hasattr(value, "__qualname__"):
        update(f"{_name(value)};".encode())
        _feed(getattr(value, "__self__", None), update, seen)
        _feed(getattr(value, "__defaults__", None), update, seen)
        for cell in getattr(value, "__closure__", None) or ():
            _feed(cell.cell_contents, update, seen)
    else:
        update(f"{_name(type(value))};".encode())
        fields = (
            [f.name for f in attrs.fields(type(value))]
            if attrs.has(type(value))
            else sorted(getattr(value, "__dict__", ()))
        )
        for field in fields:
            if not field.startswith("_"):  # what begins with one is derived, or a cache
                update(f"{field}=".encode())
                _feed(getattr(value, field), update, seen)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
