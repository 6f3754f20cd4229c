"""Modes of PyTorch and of the processor that a run has to deal with.

In inference mode, tensors count no changes and may not be written to outside it. What a run
computes with and what it gives back are ordinary tensors: a run sees whether a network writes to
its input, and the caller may write to the samples in any mode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from srk.errors import ScoreError


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """New tensors are ordinary ones, in inference mode too. Gradients are recorded as before."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor itself, or an ordinary copy of one that was made in inference mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def version(tensor: Tensor) -> int:
    """A number that goes up when the tensor is written to; 0 for one that does not keep it."""
    try:
        return tensor._version
    except RuntimeError:  # a tensor of inference mode; asking whether it is one takes longer
        return 0


def changed_in_place() -> ScoreError:
    """What to raise where the network has written to its input."""
    return ScoreError(
        "the network changed its input in place, as nn.ReLU(inplace=True) or x.mul_() in its "
        "first layer does; the step still needs that state. Give the network a copy: "
        "lambda x, t: network(x.clone(), t)"
    )


def asked(ask: Callable[..., Tensor], x: Tensor, *arguments: object) -> Tensor:
    """`ask(x, *arguments)` for a state `x` that was made for this call, e.g. one around a mean.

    Raises:
        ScoreError: the network wrote to `x`, which its adapter still needs.
    """
    before = version(x)
    result = ask(x, *arguments)
    if version(x) != before:
        raise changed_in_place()
    return result


def uncast(like: Tensor) -> AbstractContextManager[Any]:
    """Products of matrices of the dtype that they have, where `torch.autocast` would round them.

    A network asks for autocast; what is computed around it does not. Without autocast this is
    nothing.

    Arguments:
        like: a tensor on the device of the products.
    """
    kind = like.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


@contextmanager
def denormals_kept() -> Iterator[None]:
    """Leave the thread's treatment of denormal numbers as it is.

    What older releases of torch (2.4 among them) compile for the CPU is built with -ffast-math, and
    a library that gcc linked so makes the thread that loads it take denormal numbers for zero from
    then on.
    """
    flushed = _denormals_flushed()
    try:
        yield
    finally:
        if _denormals_flushed() != flushed:
            torch.set_flush_denormal(flushed)


def _denormals_flushed() -> bool:
    half = float("0.5")  # not a literal, for the division is to be made here and not by the parser
    return sys.float_info.min * half == 0.0
