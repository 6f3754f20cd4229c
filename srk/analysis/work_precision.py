"""Work and precision.

The distance to the target that each solver reaches with equal numbers of network calls.
"""

from __future__ import annotations

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
from srk.analysis.runs import FLOORS, bar, resumed, write
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
        ArgumentError: an empty list, or a file to resume that belongs to another comparison.

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
    budgets = sorted(set(nfe))
    for name, value, least in (
        ("nfe", len(budgets), 1),
        ("repeats", repeats, 1),
        ("samples", samples, 2),
    ):
        if value < least:
            raise ArgumentError(
                f"{name} must be at least {least}, not {value!r}"
                if name != "nfe"
                else "nfe names no budget; e.g. nfe=[8, 16, 32]"
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
    points, floors = resumed(resume, settings)
    made = {(point.solver, point.nfe, point.repeat) for point in points}
    place = torch.device(device) if device is not None else torch.device("cpu")
    kind = dtype or torch.float32

    def result() -> Comparison:
        order = {label: i for i, label in enumerate(variants)}
        ordered = sorted(points, key=lambda p: (p.nfe, order.get(p.solver, len(order)), p.repeat))
        return Comparison(tuple(ordered), tuple(floors), tuple(measures), settings)

    with bar(progress, repeats * (1 + len(variants) * len(budgets))) as tick:
        for repeat in range(repeats):
            exact: Tensor | None = None
            known = len(floors) >= FLOORS * (repeat + 1)
            tick(f"floor, repeat {repeat + 1}", known)
            if not known:
                sets = [
                    _reference(reference, samples, size, (seed + repeat, i), kind, place)
                    for i in range(FLOORS)
                ]
                exact = sets[0][1]
                floors += [
                    {name: metric(*pair) for name, metric in measures.items()} for pair in sets
                ]
                write(resume, result())
            for budget in budgets:
                for label, (method, grid) in variants.items():
                    tick(
                        f"{label}, NFE {budget}, repeat {repeat + 1}",
                        (label, budget, repeat) in made,
                    )
                    if (label, budget, repeat) in made:
                        continue
                    if exact is None:
                        exact = _reference(
                            reference, samples, size, (seed + repeat, 0), kind, place
                        )[1]
                    point = _point(
                        label,
                        method,
                        grid,
                        process,
                        score,
                        exact,
                        budget,
                        repeat,
                        samples,
                        eta,
                        seed,
                        measures,
                    )
                    if point is not None:
                        points.append(point)
                        write(resume, result())
    return result()


def _point(
    label: str,
    method: Integrator,
    grid: Any,
    process: ForwardProcess,
    score: Any,
    exact: Tensor,
    budget: int,
    repeat: int,
    samples: int,
    eta: float | None,
    seed: int,
    measures: Mapping[str, Metric],
) -> Point | None:
    if method.steps(budget - 1) < 1:
        return None
    began = time.perf_counter()
    sol = solve(
        process,
        score,
        method,
        shape=(samples, *exact.shape[1:]),
        nfe=budget,
        grid=grid,
        eta=eta,
        seed=seed + repeat,
        device=exact.device,
        dtype=exact.dtype,
        on_failure="return",
    )
    if exact.is_cuda:
        torch.cuda.synchronize(exact.device)
    seconds = time.perf_counter() - began
    values = (
        {name: metric(sol.x, exact) for name, metric in measures.items()} if sol.success else {}
    )
    return Point(
        label,
        budget,
        sol.nfe,
        repeat,
        {k: v for k, v in values.items() if math.isfinite(v)},
        seconds,
        sol.status,
    )


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
