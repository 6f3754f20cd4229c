"""Posterior samplers against exact posteriors: method by solver by number of network calls."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from srk._checks import need
from srk.analysis.comparison import Comparison, Point
from srk.analysis.metrics import sliced_w2
from srk.analysis.runs import FLOORS, Runs, budgets_of
from srk.analysis.work_precision import _labelled
from srk.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from srk.posterior import methods as known_methods
from srk.posterior.problems import PosteriorProblem, posterior_problem
from srk.processes.base import LinearProcess
from srk.sampling import solve
from srk.scores import Prediction
from srk.storage.identity import identity
from srk.targets import GaussianMixture

Method = Callable[..., Prediction]
METRICS = ("mean", "covariance", "modes", "sliced-w2")


def posterior_errors(x: Tensor, exact: GaussianMixture, reference: Tensor) -> dict[str, float]:
    """How far samples are from an exact posterior.

    Arguments:
        x: samples, shape (n, d).
        exact: the posterior.
        reference: exact samples of it, for the sliced distance.

    Returns:
        A number for each name. `mean` is |mean - exact mean|, in units of the posterior's standard
        deviation (the root of the trace of its covariance), `covariance` the relative error in the
        Frobenius norm, `modes` the total variation between the weights of the components, and
        `sliced-w2` the sliced 2-Wasserstein distance to the reference, in the units of the data.
    """
    need(x, Tensor, "x", "a tensor of samples, shape (n, d)")
    need(exact, GaussianMixture, "exact", "a posterior such as prior.posterior(...) gives")
    need(reference, Tensor, "reference", "a tensor of exact samples, shape (m, d)")
    wide = x.double()
    mean, covariance = (tensor.to(wide.device) for tensor in exact.moments())
    modes = exact.assign(wide).mean(0)
    return {
        "mean": float((wide.mean(0) - mean).norm() / covariance.trace().sqrt()),
        "covariance": float((torch.cov(wide.mT) - covariance).norm() / covariance.norm()),
        "modes": 0.5 * float((modes - exact.weights.to(modes)).abs().sum()),
        "sliced-w2": sliced_w2(x, reference),
    }


def compare_posteriors(
    problem: PosteriorProblem | str,
    methods: Sequence[str] | Mapping[str, str | Method] = ("MMPS", "TMPD", "PiGDM", "SDA", "DPS"),
    solvers: Sequence[Any] | Mapping[str, Any] = ("srk2m",),
    process: LinearProcess | None = None,
    *,
    nfe: Sequence[int] = (32, 128, 512),
    repeats: int = 3,
    samples: int = 4000,
    eta: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Comparison:
    """Measure how far each posterior sampler lands from the exact posterior.

    The prior's score is exact, so that what is left is the bias of the method and the error of the
    solver. Backward calls of the network count in NFE, so that a cheap method takes more steps.

    Arguments:
        problem: a `srk.posterior.PosteriorProblem`, or the name of one: "two-modes", "ring",
            "profile".
        methods: names of `srk.posterior.methods`, or label -> name or function (prediction,
            measurement) -> prediction.
        solvers: names or solver objects, or label -> solver; each with each method.
        process: the process; default `srk.EDM(0.01, 40.0)`.
        nfe: budgets of network calls, forward and backward.
        repeats: runs of each, with seeds of their own.
        samples: samples of a run, and of the exact reference.
        eta: stochasticity; default that of the solver.
        seed: repeat i runs with seed + i.
        device, dtype: of the samples.
        resume: JSON file; written after every run, and read first if it is there.
        progress: show a progress bar.

    Returns:
        A `Comparison`, whose solvers are labelled "method, solver" and whose metrics are those of
        `posterior_errors`; its floor is that of exact samples. It has a table, a plot and files.

    Examples:
        >>> import srk
        >>> result = srk.analysis.compare_posteriors(
        ...     "two-modes", ["MMPS", "DPS"], nfe=[128], samples=2000, repeats=1
        ... )
        >>> mmps, dps = (result.cell(f"{m}, srk2m", 128, "mean").mean for m in ("MMPS", "DPS"))
        >>> mmps < dps
        True
    """
    from srk.processes import EDM

    given = posterior_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(given, PosteriorProblem):
        raise ArgumentTypeError(
            f"problem is a srk.posterior.PosteriorProblem or a name, not {problem!r}; e.g. "
            "'two-modes'"
        )
    chosen = process or EDM(0.01, 40.0)
    score, exact = given.prior.score(chosen), given.posterior
    predictions = {
        label: make(score, given.measurement) for label, make in _methods(methods).items()
    }
    variants = {
        f"{label}, {name}": (prediction, solver)
        for label, prediction in predictions.items()
        for name, solver in _labelled(solvers).items()
    }
    budgets = budgets_of(nfe, repeats, samples, "[32, 128]")
    settings: dict[str, Any] = {
        "process": repr(chosen),
        "problem": given.name,
        "prior": identity(given.prior),
        "solvers": [f"{label}: {p!r}, {s!r}" for label, (p, s) in variants.items()],
        "metrics": list(METRICS),
        "samples": samples,
        "eta": eta,
        "seed": seed,
        "dtype": str(dtype),
    }

    def draw(repeat: int, number: int) -> Tensor:
        drawn = exact.sample(samples, seed=1_000_003 * (seed + repeat) + number)
        return drawn.to(device=device, dtype=dtype or torch.float32)

    @functools.lru_cache(maxsize=1)
    def reference(repeat: int) -> Tensor:
        return draw(repeat, 0)

    def floors(repeat: int) -> list[dict[str, float]]:
        sets = (draw(repeat, 1 + i) for i in range(FLOORS))
        return [posterior_errors(x, exact, reference(repeat)) for x in sets]

    def run(label: str, budget: int, repeat: int) -> Point | None:
        prediction, solver = variants[label]
        wanted = reference(repeat)
        began = time.perf_counter()
        try:
            sol = solve(
                chosen,
                prediction,
                solver,
                shape=(samples, *given.prior.event_shape),
                nfe=budget,
                eta=eta,
                seed=seed + repeat,
                device=device,
                dtype=dtype,
                on_failure="return",
            )
        except ArgumentError as error:
            if "buys no step" not in str(error):
                raise
            return None
        good = sol.success and bool(torch.isfinite(sol.x).all())
        values = posterior_errors(sol.x, exact, wanted) if good else {}
        values = {k: v for k, v in values.items() if math.isfinite(v)}
        seconds = time.perf_counter() - began
        return Point(label, budget, sol.nfe, repeat, values, seconds, sol.status)

    runs = Runs(list(variants), budgets, repeats, METRICS, settings, resume)
    return runs.make(floors, run, progress)


def _methods(methods: Any) -> dict[str, Method]:
    if isinstance(methods, str) or not isinstance(methods, Sequence | Mapping) or not methods:
        raise ArgumentTypeError(
            f"methods is a list of names or label -> method, not {methods!r}; e.g. "
            "['MMPS', 'PiGDM']"
        )
    known = known_methods()
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    made: dict[str, Method] = {}
    for label, method in named.items():
        if isinstance(method, str):
            if method not in known:
                raise UnknownNameError("posterior method", method, known)
            made[str(label)] = known[method]
        elif callable(method):
            made[str(label)] = method
        else:
            raise ArgumentTypeError(f"a method is a name or a function, not {method!r}")
    return made


__all__ = ["compare_posteriors", "posterior_errors"]
