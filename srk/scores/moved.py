"""A user's tensors on the device of the state: moved once, not at every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_copies: Any = WeakTensorKeyDictionary()
"""Tensor -> {(device, dtype): (its version, the copy)}; a copy lives as long as its tensor."""


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device`, in `dtype`; the copy is kept for the next call.

    A tensor that has been written to since is moved again. Gradients flow as through
    `Tensor.to`: nothing is kept of a tensor that needs them.

    Arguments:
        tensor: what is needed on the device.
        device: where.
        dtype: None keeps it.
    """
    dtype = tensor.dtype if dtype is None else dtype
    if tensor.device == device and tensor.dtype == dtype:
        return tensor
    if tensor.is_inference() or tensor.requires_grad:  # without a version, or part of a graph
        return tensor.to(device=device, dtype=dtype)
    known = _copies.get(tensor)
    if known is None:
        known = _copies[tensor] = {}
    found = known.get((device, dtype))
    if found is None or found[0] != tensor._version:
        with torch.inference_mode(False):
            found = known[device, dtype] = tensor._version, tensor.to(device=device, dtype=dtype)
    copy: Tensor = found[1]
    return copy
