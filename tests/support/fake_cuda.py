"""A GPU that is not there: fake CUDA tensors, and a record of every wait and transfer.

PyTorch's `FakeTensorMode` follows shapes, dtypes and devices without computing anything. On top of
it stands `Watch`, which sees each operator: one that needs a value on the host (`.item()`, a branch
on a tensor, `nonzero`) would wait for a real GPU, and one that copies between devices would queue a
transfer. Both are recorded with the number of network calls made so far.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from srk.sampling import planning

needs_fake_cuda = pytest.mark.skipif(
    torch.version.cuda is not None or not shutil.which("g++"),
    reason="needs a PyTorch without CUDA, and a C++ compiler",
)


class Event(NamedTuple):
    """A wait or a transfer: its kind, the operator, and the network calls made before it."""

    kind: str
    operator: str
    calls: int


class Watch(TorchDispatchMode):
    """Records what a real GPU would wait for, and answers for values that nobody computed."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.calls = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, func.name().removeprefix("aten::")
        everything = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        target = torch.device(kwargs.get("device") or "cpu")
        if everything and target.type == "cpu" and not any(map(_is_fake, everything)):
            with _disable_current_modes():  # the host works with its own numbers
                return func(*args, **kwargs)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        on_gpu = any(t.device.type == "cuda" for t in tensors)
        if name.split(".")[0] in ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero"):
            if on_gpu:
                self._record("wait", name)
            if name.startswith(("_local_scalar_dense", "item", "equal", "is_nonzero")):
                # every flag says that all is well
                return True if tensors[0].dtype == torch.bool else 0.25
        elif name.split(".")[0] in ("_to_copy", "copy_", "copy"):
            source = args[1] if name.startswith("copy") else args[0]
            target = args[0].device if name.startswith("copy") else kwargs.get("device")
            target = source.device if target is None else torch.device(target)
            if isinstance(source, Tensor) and source.device.type != target.type:
                self._record(f"{source.device.type} to {target.type}", name)
        args, kwargs = tree_map_only(Tensor, _without_numbers, (args, kwargs))
        return func(*args, **kwargs)

    def _record(self, kind: str, name: str) -> None:
        self.events.append(Event(kind, name, self.calls))

    def counted(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The network, whose calls are counted."""

        def call(*args: Any, **kwargs: Any) -> Tensor:
            self.calls += 1
            return network(*args, **kwargs)

        return call

    def listed(self, real: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        """`Tensor.tolist`: one wait for all of its numbers, each of which is 1/4."""

        def tolist(tensor: Tensor) -> Any:
            if tensor.device.type != "cuda":
                return real(tensor)
            self._record("wait", "tolist")
            made: Any = 0.25
            for count in reversed(tensor.shape):
                made = [made] * count
            return made

        return tolist

    def inside(self) -> list[Event]:
        """What happened between the first and the last network call."""
        return [event for event in self.events if 0 < event.calls < self.calls]

    def after(self) -> list[Event]:
        """What happened after the last network call."""
        return [event for event in self.events if event.calls == self.calls]


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor)


def _without_numbers(tensor: Tensor) -> Tensor:
    """A fake tensor for a real one, whose numbers PyTorch would otherwise move for real."""
    if _is_fake(tensor):
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _gradient(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    given = (inputs,) if isinstance(inputs, Tensor) else inputs
    return tuple(torch.empty_like(tensor) for tensor in given)


class _Generator(torch.Generator):
    """A generator of any device; fake tensors are never filled."""

    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls)


@cache
def _guard(folder: str) -> ctypes.CDLL:
    torch_folder, out = Path(torch.__file__).parent, Path(folder) / "fake_cuda.so"
    source = Path(__file__).with_name("fake_cuda.cpp")
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    subprocess.run(
        [
            "g++",
            "-O0",
            f"-std=c++{20 if torch.__version__ >= '2.10' else 17}",
            "-fPIC",
            "-shared",
            f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
            f"-I{torch_folder / 'include'}",
            f"-I{sysconfig.get_paths()['include']}",
            str(source),
            "-o",
            str(out),
            f"-L{torch_folder / 'lib'}",
            "-lc10",
        ],
        check=True,
        capture_output=True,
    )
    return ctypes.CDLL(str(out))


@contextmanager
def fake_cuda(folder: Path) -> Iterator[Watch]:
    """Fake CUDA tensors inside this block.

    Arguments:
        folder: where the no-op guard is built; one folder for a test session.
    """
    _guard(str(folder))
    planning.forget()  # what was bound to a plan before holds real tensors
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with pytest.MonkeyPatch.context() as patch, mode, Watch() as watch:
        import torch.distributed.tensor  # its annotations need the real Generator

        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(Tensor, "pin_memory", lambda self, device=None: self)
        patch.setattr(FakeTensor, "tolist", watch.listed(FakeTensor.tolist))
        # The engine of gradients asks for a real device. Its kernels wait for nothing.
        patch.setattr(torch.autograd, "grad", _gradient)
        try:
            yield watch
        finally:
            planning.forget()  # and what is bound to it now holds fake ones
