"""The kernels of compile="step": arithmetic over tensors, compiled for one kind of state."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from srk._engine.rows import norm_ratio
from srk._engine.schedule import Columns
from srk._modes import denormals_kept
from srk.errors import IncompatibleError
from srk.noise.counter import normals
from srk.plans.plan import Column

Place = tuple[tuple[int, ...], torch.dtype, torch.device]
"""Shape, dtype and device of the states."""


class Arithmetic(NamedTuple):
    """What a kernel computes: rows over columns, with the numbers left open.

    Arguments:
        draws: draws that the kernel makes of random bits, in the order of the bits.
        reads: the columns that it is given.
        rows: each column that it forms, the columns of its terms, and the ratio and its power that
            it is multiplied by, if any. A column of kind "ratio" is that of the norms of two, over
            what its third entry says.
        outputs: the columns that it writes, in order.
        buffers: for each output the column whose buffer it takes, or None. The kernel is compiled
            for this, since it may read and write one buffer.
    """

    draws: Columns
    reads: Columns
    rows: tuple[tuple[Column, Columns, Any], ...]
    outputs: Columns
    buffers: tuple[Column | None, ...]

    def __call__(self, place: Place, numbers: Any, *tensors: Any) -> None:
        """Compute; `tensors` are the bits of the draws, the columns read, the outputs."""
        shape, dtype, _ = place
        given = iter(tensors)
        values: dict[Column, Any] = {z: normals(next(given), shape, dtype) for z in self.draws}
        values.update((column, next(given)) for column in self.reads)
        count = 0
        for target, columns, factor in self.rows:
            if target.kind == "ratio":
                above, below = columns
                values[target] = norm_ratio(values[above], values[below], factor, shape, dtype)
                continue
            total: Any = None
            for column in columns:
                term = operator.mul(numbers[count], values[column])
                total = term if total is None else total + term
                count += 1
            if factor is not None and total is not None:
                ratio, power = factor
                total = total * values[ratio] ** power
            values[target] = 0.0 if total is None else total
        for column, out in zip(self.outputs, given, strict=True):
            value = values[column]
            out.zero_() if isinstance(value, float) else out.copy_(value)


class Kernel:
    """An arithmetic for states of one shape, dtype and device, compiled at its first call.

    It has no guards: the executor calls it for that place only.
    """

    def __init__(self, arithmetic: Arithmetic, place: Place) -> None:
        self.arithmetic, self.place = arithmetic, place
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, numbers: Tensor, *tensors: Tensor) -> None:
        if self._compiled is None:
            self._compiled = self._compile(numbers, *tensors)
        self._compiled(numbers, *tensors)

    def interpret(self, numbers: Tensor, *tensors: Tensor) -> None:
        """The same by ordinary tensor operations."""
        self.arithmetic(self.place, numbers, *tensors)

    def _compile(self, *tensors: Tensor) -> Callable[..., Any]:
        import torch._inductor as inductor  # takes seconds to import

        graph = fx.Graph()
        tracer = fx.proxy.GraphAppendingTracer(graph)
        inputs = [fx.Proxy(graph.placeholder(f"t{i}"), tracer) for i in range(len(tensors))]
        self.arithmetic(self.place, *inputs)
        graph.output(None)
        try:
            with denormals_kept():
                made: Callable[..., Any] = inductor.compile(
                    fx.GraphModule(torch.nn.Module(), graph), list(tensors)
                )
        except RuntimeError as error:
            raise IncompatibleError(
                f"compile='step' could not build its kernel ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]}); on the CPU it needs a C++ compiler (g++ "
                "or clang++), on a GPU Triton; or leave compile out"
            ) from error
        return made


@lru_cache(maxsize=1024)
def kernel(arithmetic: Arithmetic, place: Place) -> Kernel:
    """The kernel of an arithmetic, one for each place."""
    return Kernel(arithmetic, place)
