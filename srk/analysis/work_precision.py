"""Work and precision.

The distance to the target that each solver reaches with equal numbers of network calls.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srk.analysis.comparison import Comparison, Point
from srk.analysis.metrics import METRICS, Metric
from srk.analysis.runs import FLOORS, Runs, budgets_of
from srk.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from srk.integrators import Integrator, integrator
from srk.processes.base import ForwardProcess
from srk.sampling import solve
from srk.scores import Prediction
from srk.steps import StepController, as_grid
from srk.storage.identity import identity
from srk.tableaus import StochasticTableau
from srk.targets.base import Target

Solver = str | Integrator | StochasticTableau


def compare(
    solvers: Sequence[Solver] | Mapping[str, Solver],
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    reference: Target | Tensor,
    *,
    nfe: Sequence[int] = (8, 16, 32, 64),
    metrics: Sequence[str] | Mapping[str, Metric] = ("sliced-w2", "energy", "covariance"),
    grids: Sequence[str | StepController] | None = None,
    repeats: int = 3,
    samples: int = 4000,
    reference_samples: int | None = None,
    eta: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Comparison:
    """Measure the distance to the target for every solver at every number of network calls.

    Each repeat has a seed and a reference of its own. A solver that a budget does not buy a step is
    left out there; a run whose network returned NaN or inf is kept with its status and without
    values.

    Arguments:
        solvers: names or solver objects, or label -> solver.
        process: the forward process.
        score: the network, as in `srk.solve`.
        reference: the target (fresh samples for each repeat), or samples of it, shape (m, *event),
            which are split at random for each repeat: `samples` of them for the floor, the rest as
            reference.
        nfe: budgets of network calls, the final denoising included.
        metrics: names out of `srk.analysis.metrics.METRICS`, or label -> function (samples,
            reference) -> distance.
        grids: names of grids or grid objects, each combined with each solver; default that of
            `srk.solve`.
        repeats: runs of each solver at each budget.
        samples: samples of a run.
        reference_samples: size of the reference where it is a target; default 4 times `samples`.
        eta: stochasticity; default that of the solver.
        seed: repeat i runs with seed + i.
        device, dtype: of the samples.
        resume: JSON file; written after every run, and read first if it is there, so that a long
            comparison continues where it was stopped.
        progress: show a progress bar.

    Raises:
        ArgumentError: an empty list, budgets none of which buys a step of some solver, or a file to
            resume that belongs to another comparison.

    Examples:
        >>> import srk
        >>> vp, target = srk.VP(), srk.targets.GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.1, 0.2])
        >>> result = srk.analysis.compare(
        ...     ["srk2m", "ddpm"], vp, target.score(vp), target, nfe=[8, 16], samples=500, repeats=2
        ... )
        >>> result.cell("srk2m", 8, "sliced-w2").mean < result.cell("ddpm", 8, "sliced-w2").mean
        True
    """
    methods = _labelled(solvers)
    measures = _measures(metrics)
    variants = _variants(methods, grids)
    budgets = budgets_of(nfe, repeats, samples, "[8, 16, 32]")
    for label, (method, _) in variants.items():
        if all(method.steps(budget - 1) < 1 for budget in budgets):
            least = method.startup_evaluations + method.evaluations_per_step + 1
            raise ArgumentError(
                f"nfe={','.join(map(str, budgets))} buys no step of {label}, which needs "
                f"{least} calls with the final denoising; give one budget of {least} or more"
            )
    if isinstance(reference, Tensor) and len(reference) < 2 * samples:
        raise ArgumentError(
            f"the reference has {len(reference)} samples, which leaves too few once "
            f"{samples} are held out for the floor; "
            f"use samples={len(reference) // 2} or fewer, or give a target"
        )
    size = reference_samples or 4 * samples
    settings: dict[str, Any] = {
        "process": repr(process),
        "score": identity(score),
        "reference": identity(reference),
        "solvers": [f"{label}: {method!r}, {grid!r}" for label, (method, grid) in variants.items()],
        "metrics": list(measures),
        "samples": samples,
        "reference_samples": size,
        "eta": eta,
        "seed": seed,
        "dtype": str(dtype),
    }
    place = torch.device(device) if device is not None else torch.device("cpu")
    kind = dtype or torch.float32

    def draw(repeat: int, number: int) -> tuple[Tensor, Tensor]:
        return _reference(reference, samples, size, (seed + repeat, number), kind, place)

    @functools.lru_cache(maxsize=1)
    def exact(repeat: int) -> tuple[Tensor, Tensor]:
        return draw(repeat, 0)

    def floors(repeat: int) -> list[dict[str, float]]:
        sets = [exact(repeat), *(draw(repeat, i) for i in range(1, FLOORS))]
        return [{name: metric(*pair) for name, metric in measures.items()} for pair in sets]

    def run(label: str, budget: int, repeat: int) -> Point | None:
        method, grid = variants[label]
        if method.steps(budget - 1) < 1:
            return None
        wanted = exact(repeat)[1]
        began = time.perf_counter()
        sol = solve(
            process,
            score,
            method,
            shape=(samples, *wanted.shape[1:]),
            nfe=budget,
            grid=grid,
            eta=eta,
            seed=seed + repeat,
            device=wanted.device,
            dtype=wanted.dtype,
            on_failure="return",
        )
        if wanted.is_cuda:
            torch.cuda.synchronize(wanted.device)
        seconds = time.perf_counter() - began
        found = {name: metric(sol.x, wanted) for name, metric in measures.items() if sol.success}
        values = {name: value for name, value in found.items() if math.isfinite(value)}
        return Point(label, budget, sol.nfe, repeat, values, seconds, sol.status)

    runs = Runs(list(variants), budgets, repeats, list(measures), settings, resume)
    return runs.make(floors, run, progress)


def _reference(
    reference: Target | Tensor,
    samples: int,
    size: int,
    seed: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """(samples for the floor, reference), independent of the runs with the same seed."""
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    )
    if isinstance(reference, Target):
        drawn = reference.sample(samples + size, generator=generator, dtype=dtype)
    else:
        drawn = reference[torch.randperm(len(reference), generator=generator)].to(dtype)
    drawn = drawn.to(device)
    return drawn[:samples], drawn[samples:]


def _labelled(solvers: Any) -> dict[str, Integrator]:
    if isinstance(solvers, Mapping):
        named = {str(label): integrator(solver) for label, solver in solvers.items()}
    elif isinstance(solvers, str) or not isinstance(solvers, Sequence):
        raise ArgumentTypeError(
            "solvers must be a list of solvers or a mapping label -> solver, not "
            f"{solvers!r}; e.g. ['srk2m', 'ddpm']"
        )
    else:
        named = {}
        for solver in solvers:
            method = integrator(solver)
            label = solver if isinstance(solver, str) else method.name
            if label in named:
                raise ArgumentError(
                    f"two solvers are labelled {label!r}; give a mapping label -> solver to "
                    "tell them apart"
                )
            named[label] = method
    if not named:
        raise ArgumentError("solvers is empty; e.g. solvers=['srk2m', 'ddpm']")
    return named


def _variants(methods: Mapping[str, Integrator], grids: Any) -> dict[str, tuple[Integrator, Any]]:
    if grids is None:
        return {label: (method, None) for label, method in methods.items()}
    if isinstance(grids, str) or not isinstance(grids, Sequence) or not grids:
        raise ArgumentTypeError(
            f"grids must be a list of grids, not {grids!r}; e.g. grids=['log-snr', 'karras']"
        )
    controls = [as_grid(grid) for grid in grids]
    if len(controls) == 1:
        return {label: (method, controls[0]) for label, method in methods.items()}
    return {
        f"{label} [{control.name}]": (method, control)
        for label, method in methods.items()
        for control in controls
    }


def _measures(metrics: Any) -> dict[str, Metric]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    if isinstance(metrics, str) or not metrics:
        raise ArgumentTypeError(
            f"metrics must be a list of names or a mapping, not {metrics!r}; e.g. "
            "metrics=['sliced-w2']"
        )
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
    return {name: METRICS[name] for name in metrics}
