"""Cost of the noise sources: time per step relative to the plain generator, on a fixed grid.

    python benchmarks/noise.py [--write]

Every source draws all slots of the plans of a run, in order, as the executor does; no network, no
update. The state is (64, 3, 32, 32) in float32. The sources take turns, and each figure is the
fastest of many turns. With one thread (default) the processor time of that thread is taken, so that
other work on the machine matters little; with more, the time on the wall. `--write` puts the table
into benchmarks/results/noise.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import srk
from srk.integrators import SRK2S, integrator
from srk.noise import BrownianNoise, GeneratorNoise, KeyedNoise, NoiseSource, philox
from srk.sampling.planning import plan_grid
from srk.steps import RunInfo, as_grid

SHAPE = (64, 3, 32, 32)
SOURCES: dict[str, Callable[[], NoiseSource]] = {
    "generator": lambda: GeneratorNoise(0),
    "keyed": lambda: KeyedNoise(0),
    "brownian": lambda: BrownianNoise(0),
    "brownian, levels=0": lambda: BrownianNoise(0, levels=0),
    "brownian, levels=4": lambda: BrownianNoise(0, levels=4),
}


def plans(solver: Any, steps: int) -> list[Any]:
    """The plans of a run on the default grid."""
    process, method = srk.VP(), integrator(solver)
    return plan_grid(process, method, as_grid("log-snr").times(RunInfo(process, method, steps)))


def seconds(make: Callable[[], NoiseSource], run: list[Any], out: torch.Tensor) -> float:
    """Seconds for the draws of one run, the preparation included."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    source = make()
    began = clock()
    source.start(out.shape, out.dtype, out.device)
    source.prepare(run)
    for plan in run:
        for slot in plan.slots:
            source.draw(slot, plan.clock, out)
    return clock() - began


def ratios(solver: Any, steps: int, turns: int) -> tuple[float, dict[str, float]]:
    """Seconds per step of the generator, and the time of each source relative to it."""
    run, out = plans(solver, steps), torch.empty(SHAPE)
    best = dict.fromkeys(SOURCES, float("inf"))
    for _ in range(turns):
        for name, make in SOURCES.items():
            best[name] = min(best[name], seconds(make, run, out))
    return best["generator"] / steps, {
        name: value / best["generator"] for name, value in best.items()
    }


def bits(turns: int) -> str:
    """What the random bits behind one draw of `keyed` take.

    By NumPy, and by the loop that compile="step" uses.
    """
    blocks = SHAPE[0] * math.prod(SHAPE[1:]) // 8
    makers = {"NumPy": philox.Reference(), "compiled loop": philox.compiled()}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(makers, float("inf"))
    for _ in range(20 * turns):
        for name, make in makers.items():
            if make is not None:
                began = clock()
                make([(bytes(16), 0, blocks)])
                best[name] = min(best[name], clock() - began)
    line = (
        "Bits of one draw, us: "
        + ", ".join(f"{name} {1e6 * value:.0f}" for name, value in best.items())
        + "."
    )
    print(line, flush=True)
    return line


def table(turns: int) -> str:
    cases: list[tuple[str, Any, int]] = [
        (f"{name}, {n} steps", name, n) for name in ("srk2m", "ddpm") for n in (25, 50, 100, 200)
    ]
    cases += [
        (f"srk2s(strong), {n} steps, draws W and H", SRK2S(strong=True), n) for n in (50, 100)
    ]
    lines = [
        "| run | generator, ms/step | " + " | ".join(list(SOURCES)[1:]) + " |",
        "|---|---|" + "---|" * (len(SOURCES) - 1),
    ]
    for label, solver, n in cases:
        base, relative = ratios(solver, n, turns)
        lines.append(
            f"| {label} | {1e3 * base:.2f} | "
            + " | ".join(f"{relative[name]:.2f}" for name in list(SOURCES)[1:])
            + " |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = f"{table(options.turns)}\n\n{bits(options.turns)}"
    if options.write:
        where = Path(__file__).parent / "results" / "noise.md"
        where.parent.mkdir(exist_ok=True)
        where.write_text(
            "# Cost of the noise sources\n\n"
            "Written by `python benchmarks/noise.py --write` on a 2-core x86-64 cloud "
            "machine, CPU; "
            f"PyTorch {torch.__version__.split('+')[0]}, threads: {options.threads}.\n"
            "Time of all draws of a run on the log-SNR grid of `srk.VP()`, state (64, 3, "
            "32, 32) in float32, relative to\n"
            "the plain generator in the same run; the fastest of several turns. With one "
            "thread it is processor time.\n\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
