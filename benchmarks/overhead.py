"""What solve() costs beside a bare in-place PyTorch loop of the same method, in one run.

    python benchmarks/overhead.py [--out benchmarks/results/overhead.md]

The network is one multiplication. The bare loop has its coefficients ready, draws its noise in place and updates in place; it checks nothing and records nothing. Turns are
taken (bare, srk, bare, srk, ...) and the ratio is of medians, so that a drifting machine counts for both alike. Planning is timed apart.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import srk
from srk import planning
from srk.control import LogSNR, Problem
from srk.integrators import Column

STEPS = 50
SHAPES = [(64, 2), (64, 3, 32, 32), (4, 4, 64, 64)]


def network(x: Tensor, t: Tensor) -> Tensor:
    return x * 0.5


def coefficients(solver: str) -> list[list[dict[Column, float]]]:
    process = srk.VP()
    times = LogSNR().times(Problem(process, None, STEPS))
    plans = planning.plan_grid(process, srk.solvers()[solver], times)
    return [[dict(row) for row in (plan.stages[0].row, plan.update, *plan.keep)] for plan in plans]


def bare_ddpm(shape: tuple[int, ...]) -> Callable[[], Tensor]:
    X, E, Z = Column("x"), Column("E"), Column("z")
    rows = [(u[X], u[E], u[Z]) for _, u in coefficients("ddpm")]
    generator = torch.Generator()

    def run() -> Tensor:
        generator.manual_seed(0)
        x, z, t = torch.randn(shape, generator=generator), torch.empty(shape), torch.empty(shape[0])
        for a, b, c in rows:
            D = network(x, t)
            z.normal_(generator=generator)
            x.mul_(a).add_(D, alpha=b).add_(z, alpha=c)
        return x

    return run


def bare_srk2m(shape: tuple[int, ...]) -> Callable[[], Tensor]:
    X, E, Z, XC = Column("x"), Column("E"), Column("z"), Column("X")
    rows = [
        (s.get(X, 0.0), s[Z], s.get(Column("m", 0), 0.0), s.get(Column("m", 1), 0.0), u[X], u.get(XC, 0.0), u[E], u[Z], k[0][XC], k[0][E])
        for s, u, *k in coefficients("srk2m")
    ]
    generator = torch.Generator()

    def run() -> Tensor:
        generator.manual_seed(0)
        x, z, t = torch.randn(shape, generator=generator), torch.empty(shape), torch.empty(shape[0])
        R1, R2 = torch.zeros(shape), torch.zeros(shape)
        for sx, sz, s1, s2, ux, uc, ue, uz, kc, ke in rows:
            z.normal_(generator=generator)
            node = R2.mul_(s2).add_(R1, alpha=s1).add_(x, alpha=sx).add_(z, alpha=sz)
            D = network(node, t)
            x.mul_(ux).add_(node, alpha=uc).add_(D, alpha=ue).add_(z, alpha=uz)
            R1, R2 = node.mul_(kc).add_(D, alpha=ke), R1
        return x

    return run


def turns(functions: list[Callable[[], object]], seconds: float) -> list[float]:
    """Median time of each function, called in turn until `seconds` are over."""
    times: list[list[float]] = [[] for _ in functions]
    for f in functions:
        f()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for f, mine in zip(functions, times, strict=True):
            began = time.perf_counter()
            f()
            mine.append(time.perf_counter() - began)
    return [statistics.median(t) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each pair")
    args = parser.parse_args()
    process = srk.VP()
    lines = [
        f"Machine: {os.cpu_count()}-core {platform.machine()} cloud machine, CPU, one thread; torch {torch.__version__}; {STEPS} steps, one multiplication as network.",
        "Command: `python benchmarks/overhead.py`. Ratio: solve() over a bare in-place loop of the same method, medians of runs taken in turn.",
        "",
        "| solver | shape | bare, us/step | srk, us/step | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    torch.set_num_threads(1)
    for solver, bare in (("ddpm", bare_ddpm), ("srk2m", bare_srk2m)):
        for shape in SHAPES:
            loop = bare(shape)
            run = lambda: srk.solve(process, srk.Data(network), solver, shape=shape, steps=STEPS, seed=0, denoise_final=False)  # noqa: B023, E731
            assert torch.allclose(loop(), run().x, rtol=1e-3, atol=1e-3), "the bare loop and srk must do the same"
            with torch.no_grad():
                a, b = turns([loop, run], args.seconds)
            lines.append(f"| {solver} | {'x'.join(map(str, shape))} | {a / STEPS * 1e6:.1f} | {b / STEPS * 1e6:.1f} | {b / a:.2f} |")
            print(lines[-1], flush=True)
    lines += ["", f"Planning {STEPS} steps, ms (aim: 20):", "", "| solver | log-SNR grid and plans |", "| --- | ---: |"]
    for solver in ("ddpm", "srk2m", "srk2s", "sra1", "etd-sra1", "wcw"):
        method = srk.solvers()[solver]

        def plan() -> None:
            planning.forget()  # measured afresh: plans are remembered
            planning.plan_grid(process, method, LogSNR().times(Problem(process, method, STEPS)))  # noqa: B023

        lines.append(f"| {solver} | {1e3 * turns([plan], 0.5)[0]:.1f} |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
