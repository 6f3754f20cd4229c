"""Parts of a batch: values that belong to samples, cut with them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Windows = tuple[tuple[slice | Tensor, int], ...]
"""Selections of samples, one after the other: which samples, of how many."""


def cut(value: Tensor, ndim: int, windows: Windows) -> Tensor:
    """The selected samples of a value, where it has a batch axis.

    Arguments:
        value: a tensor that may have the batch as its first axis.
        ndim: how many axes it has then.
        windows: what was selected.
    """
    for rows, batch in windows:
        if value.ndim == ndim and len(value) == batch:
            value = value[rows if isinstance(rows, slice) else rows.to(value.device)]
    return value


def fits(value: Tensor, shape: Sequence[int]) -> bool:
    """Whether a value broadcasts to tensors of this shape."""
    lengths = zip(reversed(value.shape), reversed(shape), strict=False)
    return value.ndim <= len(shape) and all(one in (1, other) for one, other in lengths)


__all__ = ["Windows", "cut", "fits"]
