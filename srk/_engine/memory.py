"""Memory that is not ours alone: what a network is given, and what it returns.

A network may change its input, keep it for later, return it or a part of it, and return one buffer
of its own at every call. Nothing here reads a tensor's values: it asks for version and owners.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getrefcount
from typing import Any

import torch
from torch import Tensor

from srk._modes import changed_in_place, version

_storage_owners: Callable[[Any], int] | None = getattr(torch._C, "_storage_Use_Count", None)


def owners(tensor: Tensor) -> int:
    """How many hold the tensor's memory: the object itself, views of it, arrays that share it."""
    count = getrefcount(tensor)
    if _storage_owners is not None:
        count += _storage_owners(tensor.untyped_storage()._cdata)
    return count


def empty_like(tensor: Tensor) -> Tensor:
    """An uninitialised, contiguous tensor that keeps a version, in inference mode too."""
    if not torch.is_inference_mode_enabled():
        return torch.empty_like(tensor)
    with torch.inference_mode(False):
        return torch.empty_like(tensor)


def copy_of(tensor: Tensor) -> Tensor:
    """A contiguous copy; outside of gradients it keeps a version, in inference mode too."""
    if not torch.is_inference_mode_enabled():
        return tensor.clone(memory_format=torch.contiguous_format)
    with torch.inference_mode(False):
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)


__all__ = ["changed_in_place", "copy_of", "empty_like", "owners", "version"]
