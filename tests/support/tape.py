"""A tape that stands in for a CUDA graph: it records operators, and repeats them on their memory.

As in a graph, numbers of the host are those of the recording, tensors are known by their memory,
what the recording has allocated stays where it is, and nothing may be read by the host. What is
not an operator, such as a draw on the host or Python code, is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")
EMPTY = ("empty", "empty_like", "empty_strided", "new_empty")


class Tape:
    """Records and repeats on the CPU; see `srk._engine.cuda_graph.Recording`.

    Attributes:
        recorded: how many tapes have recorded a run.
        fails: raise this while recording.
    """

    recorded = 0
    fails: Exception | None = None

    def __init__(self, device: torch.device) -> None:
        self.operators: list[tuple[Any, Any, Any, Any]] = []
        self.inside = 0

    @contextmanager
    def around(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def warm_up(self, body: Callable[[], None]) -> None:
        assert self.inside
        body()

    def record(self, body: Callable[[], None], generator: torch.Generator) -> None:
        assert self.inside
        assert not torch.is_autocast_cache_enabled()
        with _Recorder(self.operators):
            body()
            if Tape.fails is not None:
                raise Tape.fails
        Tape.recorded += 1

    def repeat(self) -> None:
        assert self.inside
        for function, args, kwargs, result in self.operators:
            made = function(*args, **kwargs)
            if function.overloadpacket.__name__ in EMPTY:
                continue
            for old, new in zip(tree_leaves(result), tree_leaves(made), strict=True):
                if isinstance(old, Tensor) and not _same_memory(old, new):
                    old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, operators: list[tuple[Any, Any, Any, Any]]) -> None:
        super().__init__()
        self.operators = operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in READS:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **kwargs)
        self.operators.append((func, args, kwargs, result))
        return result


def _same_memory(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() and one.shape == two.shape
