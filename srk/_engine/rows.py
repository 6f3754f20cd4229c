"""The rows of an eager step: each is a function that forms one tensor from numbered registers.

A row is made once for all plans of one structure. It takes the registers of the step under way,
the list of buffers that are free, and the numbers of the plan; it takes a buffer from the list, or
makes one, where nothing that dies can hold its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from srk._engine.memory import empty_like
from srk.plans.matrix import Coefficient, Matrix
from srk.plans.plan import FEW

Values = list[Any]
Row = Callable[[Values, list[Tensor], Sequence[Any]], None]
Term = tuple[int, int]
"""A register, and which of the plan's numbers it is multiplied by."""


def in_place(
    out: int, first: tuple[int, int | None], rest: tuple[Term, ...], frees: tuple[int, ...]
) -> Row:
    """The sum in the buffer of its first term, which dies here; None stands for a factor of 1."""
    begin, scale = first

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        total = values[begin]
        if scale is not None:
            total.mul_(numbers[scale])
        for source, number in rest:
            total.add_(values[source], alpha=numbers[number])
        values[out] = total
        for register in frees:
            free.append(values[register])

    return row


def scaled(
    out: int, first: Term, rest: tuple[Term, ...], frees: tuple[int, ...], reuse: bool
) -> Row:
    """The sum in another buffer, begun by its first term."""
    begin, scale = first

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        total = torch.mul(values[begin], numbers[scale], out=_into(values, free, reuse))
        for source, number in rest:
            total.add_(values[source], alpha=numbers[number])
        values[out] = total
        for register in frees:
            free.append(values[register])

    return row


def added(
    out: int, first: int, second: Term, rest: tuple[Term, ...], frees: tuple[int, ...], reuse: bool
) -> Row:
    """The sum in another buffer, begun by a register and its second term."""
    other, factor = second

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        into = _into(values, free, reuse)
        total = torch.add(values[first], values[other], alpha=numbers[factor], out=into)
        for source, number in rest:
            total.add_(values[source], alpha=numbers[number])
        values[out] = total
        for register in frees:
            free.append(values[register])

    return row


def mixed(out: int, terms: tuple[Term, ...], frees: tuple[int, ...], reuse: bool) -> Row:
    """A sum that is never in place: a row with matrices, or one without terms."""

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        into = _into(values, free, reuse)
        total = torch.zeros_like(values[0]) if into is None else into.zero_()
        for source, number in terms:
            add_mixed(total, values[source], numbers[number])
        values[out] = total
        for register in frees:
            free.append(values[register])

    return row


def taken(out: int, source: int) -> Row:
    """The tensor of another register itself."""

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        values[out] = values[source]

    return row


def norms(out: int, above: int, below: int, over: str, frees: tuple[int, ...]) -> Row:
    """The ratio of the norms of two registers: see `norm_ratio`."""

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        x = values[above]
        values[out] = norm_ratio(x, values[below], over, x.shape, x.dtype)
        for register in frees:
            free.append(values[register])

    return row


def times_ratio(inner: Row, out: int, ratio: int, power: float, reuse: bool) -> Row:
    """What another row gives in register `out`, times a power of a ratio."""

    def row(values: Values, free: list[Tensor], numbers: Sequence[Any]) -> None:
        inner(values, free, numbers)
        factors = values[ratio] if power == 1.0 else values[ratio] ** power
        total = values[out]
        functional = not reuse and torch.is_grad_enabled()
        values[out] = total * factors if functional else total.mul_(factors)

    return row


def _into(values: Values, free: list[Tensor], reuse: bool) -> Tensor | None:
    """A buffer for a result; None where gradients need that operators make their own."""
    if not reuse and torch.is_grad_enabled():
        return None
    return free.pop() if free else empty_like(values[0])


def add_mixed(total: Tensor, source: Tensor, factor: Coefficient) -> None:
    """total += factor * source, where a `Matrix` acts on the component axis (1)."""
    if not isinstance(factor, Matrix):
        total.add_(source, alpha=factor)
        return
    for i, row in enumerate(factor.rows):
        for j, value in enumerate(row):
            if value != 0.0:
                total[:, i].add_(source[:, j], alpha=value)


def norm_ratio(
    numerator: Tensor, denominator: Tensor, over: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """|numerator|/|denominator| for each sample or of the batch's means, with the axes of a state.

    In float32 or more; 0 where the denominator is 0.

    Arguments:
        numerator, denominator: of that shape and dtype.
        over: "sample", "batch" or "auto"; see `srk.plans.plan.Ratio`.
        shape, dtype: of a state.
    """
    wide = torch.promote_types(dtype, torch.float32)
    above, below = (
        torch.linalg.vector_norm(tensor.reshape(shape[0], -1), dim=1, dtype=wide)
        for tensor in (numerator, denominator)
    )
    if over == "batch" or (over == "auto" and math.prod(shape[1:]) < FEW):
        above, below = above.mean(), below.mean()
    ratio = torch.where(below > 0.0, above / below, 0.0)
    return ratio.reshape(-1, *[1] * (len(shape) - 1))
