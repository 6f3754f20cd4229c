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


class Shown:
    """Tensors that a network has seen and that are still needed: has it written to one since?

    A network that keeps its input may write to it in a later call. Where nothing of ours is written
    over, no copy is made of an input that is kept, and this is how it is noticed.

    Arguments:
        needed: what a step begins with, which the network may have seen in an earlier one.
    """

    def __init__(self, *needed: Tensor) -> None:
        self._seen = [(x, version(x)) for x in needed]

    def see(self, x: Tensor) -> None:
        """The network was called at `x`: raise `ScoreError` if it wrote to one of the others."""
        for other, before in self._seen:
            if version(other) != before:
                raise changed_in_place()
        self._seen.append((x, version(x)))


__all__ = ["Shown", "changed_in_place", "copy_of", "empty_like", "owners", "version"]
