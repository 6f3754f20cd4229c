"""The processes that share a run, and the device of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
import torch
import torch.distributed as dist

from srk._checks import shown
from srk.errors import ArgumentError, SRKError

TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
PATIENCE = timedelta(days=30)
"""How long a process waits for slower ones; one that has died is noticed at once."""


def process_device(device: torch.device | str | None = None) -> torch.device:
    """The device that is meant in this process.

    "cuda" under torchrun is the GPU number LOCAL_RANK of the machine; None is the CPU.

    Raises:
        ArgumentError: it is not the name of a device, or not there.
    """
    try:
        place = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"{shown(device)} is not a device; e.g. cpu, cuda, cuda:1, mps"
        ) from error
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise ArgumentError(
                f"device {str(device)!r} is asked for, but this torch finds no GPU; use "
                "device='cpu', or install torch for CUDA"
            )
        count = torch.cuda.device_count()
        if place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % count)
        elif place.index >= count:
            raise ArgumentError(f"there is no device {str(device)!r}: this machine has {count}")
    return place


@attrs.frozen
class Group:
    """The processes of a run.

    Only small messages pass between them, on the CPU, whatever their network uses.
    """

    rank: int = 0
    size: int = 1
    handle: Any = None

    def share(self, value: Any) -> Any:
        """What the first process says."""
        if self.size == 1:
            return value
        values = [value]
        with _others():
            dist.broadcast_object_list(
                values,
                src=0 if self.handle is None else dist.get_global_rank(self.handle, 0),
                group=self.handle,
            )
        return values[0]

    def total(self, number: int) -> int:
        """The sum of what the processes say."""
        if self.size == 1:
            return number
        numbers: list[Any] = [None] * self.size
        with _others():
            dist.all_gather_object(numbers, number, group=self.handle)
        return int(sum(numbers))

    def wait(self) -> None:
        """Wait for all."""
        if self.size > 1:
            with _others():
                dist.barrier(group=self.handle)


@contextmanager
def together(shared: bool = True) -> Iterator[Group]:
    """The processes that share the run.

    They are those of the initialised process group, or of torchrun; this one alone where there is
    no other, or `shared` is False.
    """
    if not shared:
        yield Group()
    elif dist.is_available() and dist.is_initialized():
        if dist.get_world_size() == 1:
            yield Group()
            return
        handle = dist.new_group(backend="gloo", timeout=PATIENCE)
        try:
            yield Group(dist.get_rank(), dist.get_world_size(), handle)
        finally:
            dist.destroy_process_group(handle)
    elif (
        dist.is_available() and os.environ.keys() >= TORCHRUN and int(os.environ["WORLD_SIZE"]) > 1
    ):
        with _others(
            "the processes of this run do not find each other; check MASTER_ADDR and MASTER_PORT, "
            "which torchrun sets"
        ):
            dist.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield Group(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
    else:
        yield Group()


@contextmanager
def _others(
    trouble: str = "another process of this run has ended before its time; its own message says "
    "why. Finished chunks are kept: run the same command again to go on",
) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SRKError(f"{trouble} ({str(error).partition(chr(10))[0][:120]})") from error
