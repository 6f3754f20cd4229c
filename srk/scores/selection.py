"""Parts of a batch: values that belong to samples, cut with them."""

from __future__ import annotations

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


__all__ = ["Windows", "cut"]
