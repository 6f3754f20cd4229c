"""Weak orders of convergence, measured.

From exact distributions on Gaussian targets, from means over common random numbers on any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srk._checks import need
from srk.analysis.distributions import gaussian_distribution
from srk.analysis.orders import (
    Order,
    Runs,
    end_state,
    fit_slope,
    local_slopes,
    step_counts,
    the_fixed_grid,
)
from srk.analysis.paths import GridPath
from srk.errors import ArgumentError
from srk.integrators import Integrator, integrator
from srk.processes.base import LinearProcess
from srk.sampling.arguments import process_given
from srk.tableaus import StochasticTableau
from srk.targets import Gaussian
from srk.targets.base import TARGET, Target

Observable = Callable[[Tensor], Tensor]

PIECE = 8192
"""Paths that are run together."""

NORMAL = 1.96
"""Of a 95 % interval, in standard errors."""


def _diagonal(x: Tensor) -> Tensor:
    """The coordinate along (1, ..., 1), which also sees how the coordinates hang together."""
    flat = x.flatten(1)
    return flat.sum(1) / math.sqrt(flat.shape[1])


OBSERVABLES: Mapping[str, Observable] = {
    "mean": _diagonal,
    "square": lambda x: x.flatten(1).square().mean(1),
    "diagonal-square": lambda x: _diagonal(x).square(),
    "cos": lambda x: _diagonal(x).cos(),
    "sin": lambda x: _diagonal(x).sin(),
    "cos-2": lambda x: (2.0 * _diagonal(x)).cos(),
}
"""Default observables, (batch, *event) -> (batch,).

With s = sum x_i / sqrt(d) they are s, mean x_i^2, s^2, cos s, sin s, cos 2s.
"""


def weak_order(
    solver: str | Integrator | StochasticTableau,
    process: LinearProcess,
    target: Target | None = None,
    *,
    mean: float | Sequence[float] = 0.5,
    variance: float | Sequence[float] = (0.05, 0.3, 1.5),
    observables: Sequence[str] | Mapping[str, Observable] | None = None,
    steps: Sequence[int] = (32, 64, 128, 256),
    grid: Any = "log-snr",
    eta: float | None = None,
    paths: int = 16384,
    seed: int = 0,
) -> Order:
    """The weak order of `solver`: how fast the distribution of its output approaches the exact one.

    On a Gaussian target (the default) from the exact distribution of the output: no sampling, no
    noise. The error is sqrt(KL(output || exact)), to first order the relative error of mean and
    variance; a weak order p gives KL ~ steps^(-2p). On linear problems a method may be better than
    on nonlinear ones, never worse.

    On any other target, or where `observables` are given, from means: for each step count m the
    difference of the means of the observables between m and 2 m steps, both from the same starts
    (the exact distribution at t_max) and on the same Brownian path. Each path is used together with
    its mirror image (`GridPath.mirrored`), which removes most of the noise that is left. For order
    p the difference falls as m^-p too. The observables are measured in units of their standard
    deviation, and the error is the component of their differences along that of the fewest steps:
    no norm, which noise would bias.

    Arguments:
        solver: a registered name, an integrator or a tableau.
        process: a linear process.
        target: of the data; default the Gaussian of `mean` and `variance`.
        mean, variance: of the Gaussian target, per axis; ignored where `target` is given.
        observables: names out of "mean", "square", "diagonal-square", "cos", "sin", "cos-2" (see
            `srk.analysis.weak.OBSERVABLES`), or functions by name, (batch, *event) -> (batch,).
            Default: all of these.
        steps: step counts, increasing.
        grid: a fixed grid.
        eta: stochasticity; default that of the solver.
        paths: number of pairs of paths, for means.
        seed: of starts and paths.

    Returns:
        An `Order`. For exact distributions its interval spans the local orders between neighbouring
        step counts. For means it is the 95 % interval of the noise of sampling, and so are those of
        the errors; it does not hold what is due to too few steps.

    Raises:
        ArgumentError: the method is exact on the target, or a difference is lost in the noise of
            its paths.

    Examples:
        >>> import srk
        >>> order = srk.analysis.weak_order("ddpm", srk.VP())
        >>> 0.9 < order.slope < 1.1
        True
        >>> process = srk.OU(t_min=0.1, horizon=1.0)
        >>> target = srk.targets.GaussianMixture([0.5, 0.5], [-1.5, 1.0], [0.3, 0.4])
        >>> order = srk.analysis.weak_order("ddpm", process, target, steps=(8, 16), paths=4096)
        >>> 0.7 < order.slope < 1.3
        True
    """
    method = integrator(solver)
    process_given(process)
    counts = step_counts(steps)
    if target is not None:
        need(target, Target, "target", TARGET)
    if observables is None and (target is None or isinstance(target, Gaussian)):
        if target is not None:
            mean, variance = target.mean.flatten().tolist(), _covariance(target)
        return _exact(method, process, mean, variance, counts, grid, eta)
    if target is None:
        target = Gaussian(
            mean if isinstance(mean, Sequence) else [mean] * np.size(variance), variance
        )
    return _from_means(
        method, process, target, _chosen(observables), counts, grid, eta, paths, seed
    )


def _covariance(target: Gaussian) -> Any:
    full = target.covariance.ndim == 2 and target.covariance.shape != target.mean.shape
    return (
        target.covariance.tolist()
        if full
        else target.covariance.expand(target.event_shape).flatten().tolist()
    )


def _exact(
    method: Integrator,
    process: LinearProcess,
    mean: Any,
    variance: Any,
    counts: list[int],
    grid: Any,
    eta: float | None,
) -> Order:
    control = the_fixed_grid(grid)
    distributions = [
        gaussian_distribution(method, process, mean, variance, steps=n, grid=control, eta=eta)
        for n in counts
    ]
    errors = np.array([math.sqrt(max(each.kl, 0.0)) for each in distributions])
    if not (errors > 1e-13).all():
        raise ArgumentError(
            f"{method.name} is exact to rounding on this target, which shows no order; "
            "choose another variance"
        )
    local = local_slopes(counts, errors)
    interval = float(local.min()), float(local.max())
    slope = float(fit_slope(counts, errors))
    return Order(
        "weak",
        method.name,
        np.array(counts),
        errors,
        errors,
        errors,
        slope,
        interval,
        method.weak_order,
        "the exact Gaussian distribution",
    )


def _from_means(
    method: Integrator,
    process: LinearProcess,
    target: Target,
    observables: Mapping[str, Observable],
    counts: list[int],
    grid: Any,
    eta: float | None,
    paths: int,
    seed: int,
) -> Order:
    if paths < 64:
        raise ArgumentError(
            f"paths must be at least 64, not {paths!r}: the noise of the means is estimated "
            "from them"
        )
    control = the_fixed_grid(grid)
    pairs = [Runs.of(method, process, control, (n, 2 * n), eta) for n in counts]
    ends = _all_ends(pairs, process, target, observables, paths, seed)
    projected = _projected(ends, method, observables)
    errors = projected.mean(1)
    covariance = np.atleast_2d(np.cov(projected)) / paths  # of the means
    noise = np.sqrt(np.diag(covariance))
    lost = np.flatnonzero(errors <= 3.0 * noise)
    if lost.size:
        i = int(lost[0])
        raise ArgumentError(
            f"the difference between {counts[i]} and {2 * counts[i]} steps of {method.name} "
            f"is {errors[i]:.1e} with a standard error of {noise[i]:.1e}: "
            f"too noisy for an order; take fewer steps, or more than paths={paths}"
        )
    slope = float(fit_slope(counts, errors))
    gradient = (
        fit_slope(counts, np.exp(np.eye(len(counts)))) / errors
    )  # the slope is linear in the logarithms
    spread = NORMAL * float(np.sqrt(gradient @ covariance @ gradient))
    reference = (
        f"the means of {ends.shape[2]} observables with twice the steps, {paths} pairs of paths"
    )
    low, high, interval = (
        errors - NORMAL * noise,
        errors + NORMAL * noise,
        (slope - spread, slope + spread),
    )
    return Order(
        "weak",
        method.name,
        np.array(counts),
        errors,
        low,
        high,
        slope,
        interval,
        method.weak_order,
        reference,
    )


def _all_ends(
    pairs: list[Runs],
    process: LinearProcess,
    target: Target,
    observables: Mapping[str, Observable],
    paths: int,
    seed: int,
) -> np.ndarray:
    """The observables at the ends of all paths, shape (k, 2, observables, paths)."""
    pieces = []
    for piece, size in enumerate(
        [PIECE] * (paths // PIECE) + [paths % PIECE] * (paths % PIECE > 0)
    ):
        own = int(np.random.SeedSequence([seed, piece]).generate_state(1, np.uint64)[0] >> 1)
        begin = target.sample(
            size, process, pairs[0].plans[0][0].start.t, seed=own, dtype=torch.float64
        )
        pieces.append(np.stack([_ends(pair, target, begin, own, observables) for pair in pairs]))
    return np.concatenate(pieces, axis=3)


def _projected(
    ends: np.ndarray, method: Integrator, observables: Mapping[str, Observable]
) -> np.ndarray:
    """The differences of coarse and fine ends along the mean difference of the coarsest pair.

    Returns:
        Shape (k, paths), in units of the observables' standard deviations.
    """
    scale = ends[-1, 1].std(1)
    if not (scale > 0).all():
        raise ArgumentError(
            f"an observable of {', '.join(observables)} is constant, which shows no order; "
            "take it out"
        )
    differences = (ends[:, 0] - ends[:, 1]) / scale[:, None]
    coarse = differences[0].mean(1)
    length = float(np.linalg.norm(coarse))
    if not length > 1e-13:
        raise ArgumentError(
            f"{method.name} is exact to rounding on this target, which shows no order; "
            "choose another"
        )
    along = coarse / (length * math.sqrt(len(scale)))
    projected: np.ndarray = np.einsum("kop,o->kp", differences, along)
    return projected


def _ends(
    pair: Runs, target: Target, begin: Tensor, seed: int, observables: Mapping[str, Observable]
) -> NDArray[np.float64]:
    """What is observed at the ends of both runs, in the mean over a path and its mirror image.

    Shape (2, observables, batch).
    """
    path = GridPath.of(pair.plans, seed)
    path.start(begin.shape, begin.dtype, begin.device)
    images = [path]
    if pair.clock:
        steps = [
            [end for slot in plan.slots for end in (slot.start, slot.stop)]
            for plan in pair.plans[0]
            if plan.slots
        ]
        images.append(
            path.mirrored([end for ends in steps for end in (min(ends), max(ends))], pair.clock)
        )
    ends = [
        [_values(observables, end_state(plans, target, begin, image)) for plans in pair.plans]
        for image in images
    ]
    return np.asarray(np.mean(ends, axis=0))


def _values(observables: Mapping[str, Observable], x: Tensor) -> NDArray[np.float64]:
    """Shape (observables, batch)."""
    rows = []
    for name, function in observables.items():
        value = function(x)
        if not (isinstance(value, Tensor) and value.shape == x.shape[:1]):
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ArgumentError(
                f"the observable {name!r} must return one number for each state, a tensor of "
                f"shape (batch,) = {tuple(x.shape[:1])}, not {kind}"
            )
        rows.append(value.double())
    return np.asarray(torch.stack(rows).numpy())


def _chosen(
    observables: Sequence[str] | Mapping[str, Observable] | None,
) -> Mapping[str, Observable]:
    if observables is None:
        return OBSERVABLES
    if isinstance(observables, Mapping):
        chosen = dict(observables)
    else:
        names = [observables] if isinstance(observables, str) else list(observables)
        unknown = [name for name in names if name not in OBSERVABLES]
        if unknown:
            raise ArgumentError(
                f"there is no observable {unknown[0]!r}; choose out of "
                f"{', '.join(OBSERVABLES)}, or give functions: {{'name': lambda x: x[:, 0]}}"
            )
        chosen = {name: OBSERVABLES[name] for name in names}
    if not chosen:
        raise ArgumentError("observables is empty; leave it out for the default ones")
    return chosen
