"""What it costs to draw a set into a store in place of memory.

    python benchmarks/sets.py    # a few minutes of one core; prints the table of docs/sample.md

Both columns draw the same samples with the same batches, 20 calls each and keyed noise. The first
keeps them in one tensor in memory, the second writes a Zarr set into a temporary folder. They take
turns, so that what else the machine does falls on both; the ratio is that of the medians of the
processor time of this process, and of the wall time. "Memory" is how much the peak of resident
memory grows while the set is drawn, in a process of its own, beside the size of the whole set.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import srk

CASES = ((100_000, (64,), 5000), (4096, (3, 32, 32), 256))


class Rows(nn.Module):
    """A perceptron of 64 numbers, a tiny network: a larger one makes the overhead smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 64))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


class Images(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def network(event: tuple[int, ...]) -> srk.Data:
    """A network for samples of this shape."""
    torch.manual_seed(0)
    made = Rows() if len(event) == 1 else Images()
    return srk.Data(made.eval().requires_grad_(False), event_shape=event)


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Processor time and wall time of a call, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak() -> float:
    """The largest resident memory of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def into_memory(n: int, event: tuple[int, ...], batch: int) -> torch.Tensor:
    """The whole set as one tensor."""
    sampler = srk.Sampler(srk.VP(), network(event), "srk2m", nfe=20)
    out = torch.empty(n, *event)
    for first in range(0, n, batch):
        size = min(batch, n - first)
        source = srk.noise.KeyedNoise(0).part(first, first + size)
        out[first : first + size] = sampler(shape=size, noise=source).x
    return out


def into_set(n: int, event: tuple[int, ...], batch: int) -> None:
    """The whole set in a store."""
    with tempfile.TemporaryDirectory() as folder:
        srk.sample_to(
            folder, srk.VP(), network(event), "srk2m", shape=n, batch=batch, nfe=20, seed=0
        )


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 2:  # the memory of one case
        n, event, batch = CASES[int(sys.argv[1])]
        into_set(2 * batch, event, batch)
        before = peak()
        into_set(n, event, batch)
        print(peak() - before)
        return
    print(
        "| Samples | Batch | Memory, s | Set, s | Processor | Wall | Peak grows, MiB | Set, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for i, (n, event, batch) in enumerate(CASES):
        one = into_memory(2 * batch, event, batch)
        with tempfile.TemporaryDirectory() as folder:
            args = folder, srk.VP(), network(event), "srk2m"
            made = srk.sample_to(*args, shape=2 * batch, batch=batch, nfe=20, seed=0)
            assert torch.equal(made.load(), one)
        memory, stored = [], []
        for _ in range(5):
            memory.append(timed(partial(into_memory, n, event, batch)))
            stored.append(timed(partial(into_set, n, event, batch)))
        (cpu, wall), (cpu_set, wall_set) = (
            [statistics.median(part) for part in zip(*times, strict=True)]
            for times in (memory, stored)
        )
        command = [sys.executable, __file__, str(i)]
        grown = float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        size = one[0].numel() * 4 * n / 2**20
        print(
            f"| {n:,} of {event} | {batch} | {wall:.1f} | {wall_set:.1f} | {cpu_set / cpu:.2f} "
            f"| {wall_set / wall:.2f} | {grown:.0f} | {size:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
