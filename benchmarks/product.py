"""The overhead of a product of two parts: its run against two separate runs.

    python benchmarks/product.py               # two minutes of one core
    python benchmarks/product.py --quick       # a smoke test of seconds; writes nothing

Results go to benchmarks/results/product.md, which docs/product.md shows.

A cell is the time of the product's run over the sum of the two runs of its parts, less the time in
the networks: 1 is no overhead. Thread times; the three runs take turns, and a cell is the median
of the turns' ratios. Before that the benchmark checks that the samples are the same, bit for bit.

The networks return tensors that are made before. A real network also reads its weights, so that a
state is no longer in the processor's nearest cache when the solver goes on; `READS` stands for
that. Without it the states of one part may stay there where those of two do not fit, which the
second table shows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import attrs
import torch
from torch import Tensor

import srk

RESULTS = Path(__file__).parent / "results"
SOLVERS = ("srk2m", "ddpm", "dpmpp-2m-sde", "dpmpp-2m", "euler", "heun", "srk2")
SHAPES = ((1, 2), (64, 2), (16, 64), (16, 3, 32, 32), (4, 4, 64, 64), (16, 4, 64, 64))
NFE = 40
READS = 2**20
"""Numbers that a network reads at each call: 4 MiB."""
PRODUCT = srk.Product(a=srk.VP(), b=srk.EDM())


class Network:
    """Returns what it is given, after it has read so many numbers; adds up its time."""

    def __init__(self, said: Any, reads: int) -> None:
        self.said, self.seconds = said, 0.0
        self.weights = torch.ones(reads)

    def __call__(self, x: Any, t: Any) -> Any:
        began = thread_time()
        if len(self.weights):
            self.weights.sum()
        self.seconds += thread_time() - began
        return self.said


@attrs.frozen
class Timed:
    """A run and its network."""

    network: Network
    run: Callable[[], Any]

    def seconds(self) -> float:
        """Of one run, less those in the network."""
        began, before = thread_time(), self.network.seconds
        self.run()
        return thread_time() - began - (self.network.seconds - before)


def runs(solver: str, shape: tuple[int, ...], reads: int) -> tuple[Timed, dict[str, Timed]]:
    """The run of the product, and that of each part, with samplers that are kept."""
    said = {name: torch.full(shape, 0.1) for name in PRODUCT.names}
    options: dict[str, Any] = {"nfe": NFE, "check_network": False}
    joint = Network(said, reads)
    score = srk.scores.Joint(joint, a="data", b="noise")
    whole = srk.ProductSampler(PRODUCT, score, solver, **options)
    shapes = dict.fromkeys(PRODUCT.names, shape)
    parts = {}
    for name, kind in (("a", srk.Data), ("b", srk.NoisePrediction)):
        network = Network(said[name], reads)
        sampler = srk.Sampler(PRODUCT.parts[name], kind(network), solver, **options)
        seed = srk.noise.part_seed(0, name)
        parts[name] = Timed(network, partial(sampler, shape, seed=seed))
    return Timed(joint, lambda: whole(shapes, seed=0)), parts


def measured(solver: str, shape: tuple[int, ...], reads: int, turns: int) -> tuple[float, float]:
    """The ratio, and the milliseconds of the product's run."""
    product, parts = runs(solver, shape, reads)
    together = product.run().x
    for name, part in parts.items():
        assert torch.equal(together[name], part.run().x), f"{solver}, {shape}: {name!r} differs"
    ratios, whole = [], []
    for turn in range(turns):
        others = list(parts.values())
        first = product.seconds() if turn % 2 else None
        alone = sum(part.seconds() for part in others)
        taken = product.seconds() if first is None else first
        ratios.append(taken / alone)
        whole.append(taken)
    return statistics.median(ratios), 1e3 * statistics.median(whole)


def turns_for(shape: tuple[int, ...]) -> int:
    size = Tensor.numel(torch.empty(*shape, device="meta"))
    return 41 if size < 20000 else 15


def table(shapes: Sequence[tuple[int, ...]], solvers: Sequence[str], reads: int) -> str:
    lines = ["| shape of each part | " + " | ".join(f"`{s}`" for s in solvers) + " |"]
    lines.append("|---|" + "---:|" * len(solvers))
    for shape in shapes:
        cells = []
        for solver in solvers:
            ratio, ms = measured(solver, shape, reads, turns_for(shape))
            cells.append(f"{ratio:.2f} ({ms:.1f})")
        lines.append(f"| {' x '.join(map(str, shape))} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


HEADER = f"""# A product of two parts against two separate runs

Made by `python benchmarks/product.py` on a 2-core x86-64 cloud machine with 2 MiB of second-level
cache a core, CPU, float32, {NFE} network calls.

"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small cells; writes nothing")
    parser.add_argument("--solvers", nargs="*", default=SOLVERS)
    parser.add_argument("--shapes", nargs="*", help="such as 16x3x32x32; writes nothing")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.quick:
        for solver in ("srk2m", "ddpm"):
            ratio, ms = measured(solver, (64, 2), 0, 3)
            print(f"{solver}, 64 x 2: {ratio:.2f} ({ms:.1f} ms)")
        return
    shapes: Sequence[tuple[int, ...]] = SHAPES
    if args.shapes:
        shapes = [tuple(map(int, shape.split("x"))) for shape in args.shapes]
    text = HEADER
    told = "Time over that of two separate runs (and milliseconds of the product's run, without "
    told += "the network).\n\n"
    text += f"## Networks that read {READS * 4 // 2**20} MiB of weights at each call\n\n{told}"
    text += f"<!-- --8<-- [start:table] -->\n\n{table(shapes, args.solvers, READS)}\n"
    text += "<!-- --8<-- [end:table] -->\n\n"
    text += f"## Networks that read nothing\n\n{told}{table(shapes, args.solvers, 0)}"
    if not args.shapes:
        (RESULTS / "product.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
