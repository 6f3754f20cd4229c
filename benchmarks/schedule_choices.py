"""What `auto` gains by its choices on a schedule; docs/schedule.md says what was chosen on what.

    python benchmarks/schedule_choices.py     writes benchmarks/results/schedule_choices.md

Each row is a ratio of W2 distances to the exact distribution, with a choice over without it. Five
targets in one dimension, 40000 samples, two seeds, float64. A minute on one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import srk
from srk.integrators import on_schedule, scheduled_srk2m
from srk.processes.base import LinearProcess
from srk.sampling import planning

SAMPLES, SEEDS = 40000, (11, 12)
MIXTURE = srk.targets.GaussianMixture
TARGETS = {
    "skew": MIXTURE([0.85, 0.15], [[-0.4], [2.0]], [0.3, 0.2]),
    "five modes": MIXTURE(
        [0.3, 0.1, 0.25, 0.05, 0.3],
        [[-1.6], [-0.9], [0.1], [0.8], [1.5]],
        [0.12, 0.08, 0.15, 0.05, 0.2],
    ),
    "two scales": MIXTURE([0.5, 0.5], [[0.0], [0.0]], [1.0, 0.05]),
    "overlapping": MIXTURE([0.5, 0.5], [[0.7], [0.75]], [0.25, 0.8]),
    "N(0, 0.49)": MIXTURE([1.0], [[0.0]], [0.7]),
}
Schedule = tuple[LinearProcess, list[float]]


def karras(calls: int) -> Schedule:
    ends = np.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), calls)
    return srk.EDM(0.0, 14.6), [14.6, *(ends[1:] ** 7).tolist(), 0.0]


def log_snr(calls: int) -> Schedule:
    return srk.EDM(0.0, 40.0), [40.0, *np.geomspace(40.0, 0.02, calls)[1:].tolist(), 0.0]


def flow(even: np.ndarray[Any, Any], shift: float) -> Schedule:
    times = [shift * t / (1 + (shift - 1) * t) for t in even.tolist()]
    return srk.Flow(0.0), [*times, 0.0]


def simple(calls: int) -> np.ndarray[Any, Any]:
    """Every so many-th of 1000 times, as "simple" of ComfyUI takes them."""
    return np.array([(1000 - int(i * 1000 / calls)) / 1000 for i in range(calls)])


def stable_diffusion(calls: int) -> Schedule:
    """The same of the noise levels of Stable Diffusion."""
    alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    sigmas = np.sqrt((1 - alphas) / alphas)
    times = [float(sigmas[999 - int(i * 1000 / calls)]) for i in range(calls)]
    return srk.EDM(0.0, times[0]), [*times, 0.0]


EVEN: dict[str, Callable[[int], Schedule]] = {"Karras": karras, "log-SNR": log_snr}
UNEVEN: dict[str, Callable[[int], Schedule]] = {
    "flow, shift 3, normal": lambda calls: flow(np.linspace(1.0, 1e-3, calls), 3.0),
    "flow, shift 3, simple": lambda calls: flow(simple(calls), 3.0),
    "flow, simple": lambda calls: flow(simple(calls), 1.0),
    "Stable Diffusion, simple": stable_diffusion,
}


@contextmanager
def without(module: Any, **numbers: float) -> Iterator[None]:
    """The constants of a module changed."""
    before = {name: getattr(module, name) for name in numbers}
    try:
        for name, value in numbers.items():
            setattr(module, name, value)
        planning.forget()
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
        planning.forget()


def distance(target: srk.targets.GaussianMixture, schedule: Schedule) -> float:
    """Root mean square over the seeds of W2 to the exact distribution."""
    process, times = schedule
    exact = target.quantile((torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES).flatten()
    squares = []
    for seed in SEEDS:
        x = srk.solve(
            process,
            target.score(process),
            "auto",
            shape=(SAMPLES, 1),
            grid=times,
            calls="schedule",
            seed=seed,
            dtype=torch.float64,
        ).x
        squares.append(float((x.flatten().sort().values - exact).square().mean()))
    return math.sqrt(np.mean(squares))


def row(
    title: str,
    schedules: dict[str, Callable[[int], Schedule]],
    calls: tuple[int, ...],
    module: Any,
    **numbers: float,
) -> str:
    """The ratios with today's numbers over those with `numbers`: mean, least and largest."""
    cases = list(product(TARGETS.items(), schedules.items(), calls))

    def all_of() -> np.ndarray[Any, Any]:
        return np.array([distance(target, make(n)) for (_, target), (_, make), n in cases])

    today = all_of()
    with without(module, **numbers):
        ratios = today / all_of()
    worst = cases[int(ratios.argmax())]
    mean = math.exp(np.log(ratios).mean())
    return (
        f"| {title} | {len(cases)} | {mean:.2f} | {ratios.min():.2f} | {ratios.max():.2f} | "
        f"{worst[0][0]}, {worst[1][0]}, {worst[2]} calls |"
    )


def main() -> None:
    torch.set_num_threads(1)
    shifted = {"flow, shift 3, simple": UNEVEN["flow, shift 3, simple"]}
    lines = [
        "| choice | cases | mean | least | largest | the largest is |",
        "|---|---:|---:|---:|---:|---|",
        row(
            "even: the gauge follows the noise closely", EVEN, (6, 8, 10, 12, 16),
            on_schedule, MANY=0,
        ),
        row(
            "uneven: one variance", UNEVEN, (6, 8, 10, 12, 16),
            on_schedule, UNEVEN=math.inf, NOISY_END=math.inf,
        ),
        row("the end step", shifted, (10,), scheduled_srk2m, END=2.0, MOST=0.2),
    ]  # fmt: skip
    text = "\n".join(
        ["# Choices of auto on a schedule", "", "W2 with over without it.", "", *lines]
    )
    path = Path(__file__).parent / "results" / "schedule_choices.md"
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
