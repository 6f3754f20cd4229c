"""Rates of the path-measure KL in the number of steps and in the dimension, for the claim of the
seed paper (arXiv 2410.04760).

    python examples/paper_rates.py --out paper_rates.png

Computed: KL between the distributions of the whole grid path (x_0, ..., x_N) of a solver and of the
exact reverse process, which by the chain rule is the sum over steps of the expected KL between
their transition distributions,

    KL = sum_k E KL( solver's x_{k+1} | past  ||  exact x_{k+1} | x_k ),

with the expectation over the solver's own trajectories.

A solver whose drift uses the noise of its own step is no adapted change of drift, so Girsanov's
theorem does not apply to it in continuous time; for DDPM, where it does, the grid KL and Girsanov's
half time integral of E|drift error|^2/g^2 agree to leading order (printed).

- Gaussian targets: exactly, by linear algebra: all distributions are Gaussian, and the expected
  square of a mean error is a sum of squares over draws.
- The mixture 1/2 N(-m e, s^2 I) + 1/2 N(m e, s^2 I), e = (1, ..., 1): it splits into one direction
  with a two-component mixture at +-m sqrt(d), whose transition distribution is a two-component
  mixture in closed form, and d - 1 Gaussian ones.
  Transition KL by Gauss-Hermite quadrature, averaged over simulated paths.

Prints the table and writes the figure. Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import srk
from srk.analysis.plotting import MARKERS, PALETTE, house_style, work_axes
from srk.integrators import StepPlan
from srk.plans.plan import Column, Row
from srk.processes.base import Level
from srk.sampling.planning import plan_grid
from srk.steps import LogSNR, RunInfo

METHODS = ("ddpm", "wcw", "srk2", "srk2m")
PROCESS = srk.OU(horizon=4.0, t_min=0.02)
STEPS = (8, 16, 32, 64, 128)
DIMENSIONS = (1, 2, 4, 8, 16, 32, 64)
MEAN, STD, VARIANCE = 0.5, 0.3, 0.25
PATHS, NODES = 256, 24

Denoiser = Callable[[Tensor, Level], Tensor]


def plans_of(method: str, steps: int) -> list[StepPlan]:
    solver = srk.solvers()[method]
    return plan_grid(PROCESS, solver, LogSNR().times(RunInfo(PROCESS, solver, steps)))


def step(
    plan: StepPlan, x: Tensor, memory: list[Tensor], z: list[Tensor], denoise: Denoiser
) -> tuple[Tensor, list[Tensor]]:
    """The new state and what is kept; `x`, memory and draws `z` broadcast together."""
    values: dict[Column, Tensor] = {Column("x"): x}
    values |= {Column("m", i): m for i, m in enumerate(memory)} | {
        Column("z", i): d for i, d in enumerate(z)
    }

    def row(terms: Row) -> Tensor:
        return sum(
            (values[column] * weight for column, weight in terms), torch.zeros((), dtype=x.dtype)
        )

    for i, stage in enumerate(plan.stages):
        values[Column("X", i)] = row(stage.row)
        values[Column("E", i)] = denoise(values[Column("X", i)], stage.level)
    return row(plan.update), [row(kept) for kept in plan.keep]


# --- Gaussian targets, exactly
# ------------------------------------------------------------


def gaussian_path_kl(method: str, steps: int, variance: float) -> float:
    """Path KL per dimension for N(0, variance) data."""

    def denoise(x: Tensor, level: Level) -> Tensor:
        return x * (level.alpha * variance / (level.alpha**2 * variance + level.sigma**2))

    plans = plans_of(method, steps)
    draws = 1 + sum(len(plan.slots) for plan in plans)
    x = torch.zeros(draws, dtype=torch.float64)  # a random variable, as coefficients over the draws
    x[0] = math.sqrt(plans[0].start.alpha ** 2 * variance + plans[0].start.sigma ** 2)
    memory: list[Tensor] = []
    total, used = 0.0, 1
    for plan in plans:
        mean, spread = exact_step(plan, variance)
        still, _ = step(plan, x, memory, [torch.zeros(())] * len(plan.slots), denoise)
        units = [
            torch.zeros(draws, dtype=torch.float64).index_fill_(0, torch.tensor([used + i]), 1.0)
            for i in range(len(plan.slots))
        ]
        new, kept = step(plan, x, memory, units, denoise)
        ratio = float((new - still).square().sum()) / spread
        total += (
            0.5 * (ratio - 1.0 - math.log(ratio))
            + 0.5 * float((still - mean * x).square().sum()) / spread
        )
        x, memory, used = new, kept, used + len(plan.slots)
    return total


def exact_step(plan: StepPlan, variance: float) -> tuple[float, float]:
    """x_{k+1} | x_k of the exact process is N(mean x_k, spread), for N(0, variance) data."""
    (l0, c0), (l1, c1) = clock(plan.start), clock(plan.stop)
    posterior = 1.0 / (1.0 / variance + l0)
    d = l1 - l0
    return (1.0 + d * posterior) * c0 / c1, (d * d * posterior + d) / c1**2


def clock(level: Level) -> tuple[float, float]:
    """(l, c): localization clock l = alpha^2/sigma^2 and Z = c x, in which Z_l = l x0 + B_l."""
    return (level.alpha / level.sigma) ** 2, level.alpha / level.sigma**2


def girsanov_ddpm(steps: int, variance: float) -> float:
    """Half the integral of E|D_l - D_{l_k}|^2 dl over all steps.

    D is a martingale, so that is mmse(l_k) - mmse(l), mmse = v/(1 + v l).
    """
    total = 0.0
    for plan in plans_of("ddpm", steps):
        l0, l1 = clock(plan.start)[0], clock(plan.stop)[0]
        a = 1.0 + variance * l0
        x = variance * (l1 - l0) / a
        total += 0.5 * (x - math.log1p(x))
    return total


# --- a two-component mixture in one dimension, by quadrature
# ------------------------------------------------------------


def mixture_path_kl(
    method: str, steps: int, mean: float, std: float, seed: int = 0
) -> tuple[float, float]:
    """Path KL for 1/2 N(-mean, std^2) + 1/2 N(mean, std^2) in one dimension, and its standard error
    over paths.
    """
    target = srk.targets.GaussianMixture([0.5, 0.5], [-mean, mean], [std, std])
    generator = torch.Generator().manual_seed(seed)

    def denoise(x: Tensor, level: Level) -> Tensor:
        total = level.alpha**2 * std**2 + level.sigma**2
        side = torch.tanh(level.alpha * mean * x / total)
        return mean * side + (level.alpha * std**2 / total) * (x - level.alpha * mean * side)

    plans = plans_of(method, steps)
    x = target.sample(PATHS, PROCESS, plans[0].start.t, generator=generator, dtype=torch.float64)[
        :, 0
    ]
    memory: list[Tensor] = []
    total = torch.zeros(PATHS, dtype=torch.float64)
    for plan in plans:
        transition = one_draw if len(plan.slots) == 1 else two_draws
        points, weights, log_q = transition(
            plan, x, memory, denoise
        )  # (paths, nodes), (nodes,), (paths, nodes)
        total += ((log_q - exact_log_density(plan, x, points, mean, std)) * weights).sum(1)
        z = [torch.randn(PATHS, generator=generator, dtype=torch.float64) for _ in plan.slots]
        x, memory = step(plan, x, memory, z, denoise)
    return float(total.mean()), float(total.std()) / math.sqrt(PATHS)


def hermite(n: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)


def one_draw(
    plan: StepPlan, x: Tensor, memory: list[Tensor], denoise: Denoiser
) -> tuple[Tensor, Tensor, Tensor]:
    """One draw a step.

    The new state is a monotone function of it, and its density follows by change of variable.
    """
    nodes, weights = hermite(NODES)
    z = nodes.expand(len(x), -1).clone().requires_grad_()
    new, _ = step(plan, x[:, None], [m[:, None] for m in memory], [z], denoise)
    (slope,) = torch.autograd.grad(new.sum(), z)
    if not bool((slope > 0).all()):
        raise ArithmeticError(
            "the new state is not a monotone function of the draw; take more steps"
        )
    return new.detach(), weights, log_normal(nodes) - torch.log(slope)


def two_draws(
    plan: StepPlan, x: Tensor, memory: list[Tensor], denoise: Denoiser
) -> tuple[Tensor, Tensor, Tensor]:
    """wcw.

    Rotate the draws to (g, n), g the one that its stage sees; the new state is linear in n, and q
    is a mixture over g.
    """
    seen = [0.0, 0.0]
    for column, weight in plan.stages[-1].row:
        if column.kind == "z":
            seen[column.number] = weight
    size = math.hypot(*seen)
    cos, sin = seen[0] / size, seen[1] / size
    nodes, weights = hermite(NODES)
    kept = [m[:, None] for m in memory]

    def move(g: Tensor, n: Tensor) -> Tensor:
        return step(plan, x[:, None], kept, [cos * g - sin * n, sin * g + cos * n], denoise)[0]

    g, n = (grid.reshape(-1) for grid in torch.meshgrid(nodes, nodes, indexing="ij"))
    both = (weights[:, None] * weights).reshape(-1)
    centre = move(nodes, torch.zeros_like(nodes))  # (paths, nodes)
    spread = float((move(nodes[:1], torch.ones(1)) - centre[:, :1])[0, 0])
    new = move(g, n)
    parts = log_normal((new[:, :, None] - centre[:, None, :]) / spread) + torch.log(weights)
    return new, both, torch.logsumexp(parts, 2) - math.log(abs(spread))


def exact_log_density(plan: StepPlan, x: Tensor, new: Tensor, mean: float, std: float) -> Tensor:
    """Log-density of the exact x_{k+1} = new (paths, nodes) given x_k = x.

    A two-component mixture.
    """
    (l0, c0), (l1, c1) = clock(plan.start), clock(plan.stop)
    z0, z1, d = (c0 * x)[:, None], c1 * new, l1 - l0
    posterior = 1.0 / (std**-2 + l0)
    spread = math.sqrt(d * d * posterior + d)
    logit = 2.0 * mean * z0 * posterior / std**2  # log-odds of the component at +mean
    parts = []
    for sign in (1.0, -1.0):
        centre = z0 + d * posterior * (sign * mean / std**2 + z0)
        parts.append(
            log_normal((z1 - centre) / spread) + torch.nn.functional.logsigmoid(sign * logit)
        )
    return torch.logaddexp(*parts) + math.log(c1 / spread)


# --- the figure
# ------------------------------------------------------------


def slope(x: tuple[int, ...], y: list[float]) -> float:
    """Of log y over log x, from the last three points."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("paper_rates.png"))
    args = parser.parse_args(argv)

    torch.set_num_threads(1)
    fixed = 32
    gaussian = {m: [gaussian_path_kl(m, n, VARIANCE) for n in STEPS] for m in METHODS}
    distribution = {
        m: [srk.analysis.gaussian_kl(m, PROCESS, variance=VARIANCE, steps=n) for n in STEPS]
        for m in METHODS
    }
    mixed = {m: [mixture_path_kl(m, n, 2 * MEAN, STD)[0] for n in STEPS] for m in METHODS}
    narrow = {m: gaussian_path_kl(m, fixed, STD**2) for m in METHODS}
    along = {
        m: [mixture_path_kl(m, fixed, MEAN * math.sqrt(d), STD)[0] for d in DIMENSIONS]
        for m in METHODS
    }
    grown = {
        m: [a + (d - 1) * narrow[m] for a, d in zip(along[m], DIMENSIONS, strict=True)]
        for m in METHODS
    }

    lines = [
        "| solver | calls a step | Gaussian, path | Gaussian, output | mixture, path | "
        "growth with d |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for m in METHODS:
        cells = (
            slope(STEPS, gaussian[m]),
            slope(STEPS, distribution[m]),
            slope(STEPS, mixed[m]),
            slope(DIMENSIONS, grown[m]),
        )
        calls = srk.solvers()[m].evaluations_per_step
        lines.append(f"| {m} | {calls} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")
    print("slopes of log KL (last three points): over steps, over steps, over steps, over d")
    print("\n".join(lines))
    print(
        "DDPM, Gaussian, grid KL / Girsanov:",
        ", ".join(
            f"{g / girsanov_ddpm(n, VARIANCE):.4f}"
            for g, n in zip(gaussian["ddpm"], STEPS, strict=True)
        ),
    )
    for m in METHODS:
        print(
            m,
            "mixture path KL:",
            ", ".join(f"{v:.2e}" for v in mixed[m]),
            "| Gaussian:",
            ", ".join(f"{v:.2e}" for v in gaussian[m]),
        )

    with house_style("examples/paper_rates.py") as plt:
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
        panels = (
            (STEPS, mixed, "mixture in 1-D", "steps"),
            (STEPS, gaussian, "Gaussian, per dimension", "steps"),
            (DIMENSIONS, grown, f"mixture, {fixed} steps", "dimension d"),
        )
        for axis, (x, curves, title, label) in zip(axes, panels, strict=True):
            for i, m in enumerate(METHODS):
                axis.plot(x, curves[m], color=PALETTE[i], marker=MARKERS[i], label=m)
            work_axes(axis, x, label)
            axis.set_title(title)
        for axis, curves in ((axes[0], mixed), (axes[1], gaussian)):
            for power, style, method in ((-1, ":", "ddpm"), (-2, "-.", "wcw")):
                ideal = curves[method][-1] * 1.6 * (np.array(STEPS) / STEPS[-1]) ** float(power)
                axis.plot(
                    STEPS,
                    ideal,
                    style,
                    color="0.4",
                    label=f"steps$^{{{power}}}$" if axis is axes[0] else None,
                )
        axes[2].plot(
            DIMENSIONS,
            grown["ddpm"][-1] * 1.6 * np.array(DIMENSIONS) / DIMENSIONS[-1],
            "--",
            color="0.4",
            label="d",
        )
        axes[0].set_ylabel("KL of the path (nats)")
        handles = [
            pair
            for axis in (axes[0], axes[2])
            for pair in zip(*axis.get_legend_handles_labels(), strict=True)
        ]
        unique = {label: handle for handle, label in handles}
        figure.legend(unique.values(), unique.keys(), loc="outside right center")
        figure.savefig(args.out)
        plt.close(figure)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
