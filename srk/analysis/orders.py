"""Orders of convergence.

What a measurement says, and strong orders, measured on one Brownian path.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from srk._checks import as_float, integer, need, shown
from srk._engine.eager import Executor
from srk.analysis.paths import GridPath
from srk.analysis.plotting import house_style, work_axes
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.integrators import SOLVERS, Integrator, TableauSolver, integrator
from srk.plans.plan import Stage, StepPlan
from srk.processes.base import LinearProcess
from srk.sampling.arguments import process_given
from srk.sampling.planning import plan_grid
from srk.steps import Grid, RunInfo, as_grid
from srk.tableaus import TABLEAUS, StochasticTableau
from srk.targets.base import TARGET, Target

RESAMPLES = 400


@attrs.frozen(slots=True, eq=False, repr=False)
class Order:
    """A measured order of convergence.

    Arguments:
        kind: "strong" or "weak".
        solver: name of the solver.
        steps: step counts, shape (k,).
        errors: the error at each, shape (k,).
        low, high: 95 % interval of each error (equal to it for exact distributions).
        slope: the order: minus the slope of log error over log steps, least squares.
        interval: 95 % interval of the slope.
        declared: the order that the solver declares, or None.
        reference: what the error is measured against.
    """

    kind: Literal["strong", "weak"]
    solver: str
    steps: NDArray[np.int64]
    errors: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    slope: float
    interval: tuple[float, float]
    declared: float | None
    reference: str

    def __repr__(self) -> str:
        low, high = self.interval
        declared = "none declared" if self.declared is None else f"declared {self.declared:g}"
        lines = [
            f"{self.solver}: {self.kind} order {self.slope:.2f} [{low:.2f}, {high:.2f}], "
            f"{declared}; error against {self.reference}"
        ]
        lines.append("  steps  error      local order")
        for i, (n, error) in enumerate(zip(self.steps, self.errors, strict=True)):
            local = "" if i == 0 else f"{local_slopes(self.steps, self.errors)[i - 1]:.2f}"
            lines.append(f"  {n:5d}  {error:.3e}  {local}".rstrip())
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the error over steps with its 95 % interval and a line of the declared order.

        Both axes are logarithmic. Returns the matplotlib axes.
        """
        with house_style("Order.plot()") as plt:
            if ax is None:
                _, ax = plt.subplots(figsize=(5, 3.6))
            bars = np.vstack([self.errors - self.low, self.high - self.errors]).clip(min=0.0)
            ax.errorbar(
                self.steps,
                self.errors,
                yerr=bars,
                marker="o",
                label=f"{self.solver}: {self.slope:.2f}",
            )
            if self.declared is not None:
                ideal = self.errors[-1] * (self.steps / self.steps[-1]) ** -self.declared
                ax.plot(self.steps, ideal, "--", color="0.5", label=f"order {self.declared:g}")
            work_axes(ax, self.steps.tolist(), "steps")
            ax.set_ylabel(f"{self.kind} error")
            ax.legend()
        return ax


def strong_order(
    solver: str | Integrator | StochasticTableau,
    process: LinearProcess,
    target: Target,
    *,
    steps: Sequence[int] = (32, 64, 128, 256),
    grid: Any = "log-snr",
    paths: int = 256,
    seed: int = 0,
    eta: float | None = None,
    reference: str | Integrator | StochasticTableau | None = None,
    reference_steps: int | None = None,
) -> Order:
    """Measure the strong order of a solver.

    It is how fast the end point approaches that of the exact trajectory, which the same Brownian
    motion drives.

    All runs start from the same states, drawn from the exact distribution at t_max, and see the
    same path on the clock of the solver (`GridPath`). The error of a step count is the MEDIAN over
    paths of the distance at the end, in units of the root mean square of the end states: rare
    switches between modes would dominate a mean. A method without noise is measured as solver of
    its ordinary differential equation.

    Arguments:
        solver: a registered name, an integrator or a tableau.
        process: a linear process; where it starts at alpha = 0, the clock of `solver` must be
            finite there.
        target: with an exact denoiser; use one that is smooth on the scale of the steps.
        steps: step counts, increasing.
        grid: a fixed grid.
        paths: number of paths.
        seed: of starts and path.
        eta: stochasticity; default that of the solver.
        reference: solver of the fine run, which must draw on the clock of `solver`. Default: SRA1
            on that clock where there is one (eta = 1, the process's time or a gauge clock),
            DPM-Solver-3 for the ODE (eta = 0), else `solver` itself.
        reference_steps: default 8 times the largest of `steps`, 16 times where the reference is
            `solver`.

    Returns:
        An `Order`; its interval is a bootstrap over paths.

    Examples:
        >>> import srk
        >>> target = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.6, 0.5])
        >>> order = srk.analysis.strong_order(
        ...     "ddpm", srk.VP(t_min=0.01), target, steps=(16, 32, 64), paths=64
        ... )
        >>> 0.8 < order.slope < 1.2
        True
    """
    options: dict[str, Any] = {
        "steps": steps,
        "grid": grid,
        "paths": paths,
        "seed": seed,
        "eta": eta,
        "reference_steps": reference_steps,
    }
    return next(
        iter(strong_orders([solver], process, target, reference=reference, **options).values())
    )


def strong_orders(
    solvers: Sequence[str | Integrator | StochasticTableau]
    | Mapping[str, str | Integrator | StochasticTableau],
    process: LinearProcess,
    target: Target,
    *,
    steps: Sequence[int] = (32, 64, 128, 256),
    grid: Any = "log-snr",
    paths: int = 256,
    seed: int = 0,
    eta: float | None = None,
    reference: str | Integrator | StochasticTableau | None = None,
    reference_steps: int | None = None,
) -> dict[str, Order]:
    """Measure the strong orders of several solvers.

    Solvers that draw on one clock see one Brownian path and share the fine run. The arguments are
    those of `strong_order`.

    Returns:
        Label -> `Order`, in the order of `solvers`.
    """
    if isinstance(solvers, str) or not isinstance(solvers, Mapping | Sequence):
        raise ArgumentTypeError(
            f"solvers must be a list, or label -> solver, not {shown(solvers)}; e.g. ['ddpm']"
        )
    named = (
        dict(solvers)
        if isinstance(solvers, Mapping)
        else {s if isinstance(s, str) else integrator(s).name: s for s in solvers}
    )
    counts = step_counts(steps)
    control = the_fixed_grid(grid)
    runs = {
        label: Runs.of(integrator(solver), process, control, counts, eta)
        for label, solver in named.items()
    }
    fine = {
        label: integrator(reference) if reference is not None else _reference(run)
        for label, run in runs.items()
    }
    need(target, Target, "target", TARGET)
    integer(paths, "paths", least=1)
    begin = target.sample(
        paths,
        process,
        next(iter(runs.values())).plans[0][0].start.t,
        seed=seed,
        dtype=torch.float64,
    )
    exact: dict[tuple[Integrator, str, float], tuple[torch.Tensor, GridPath, int]] = {}

    def fine_run(label: str) -> tuple[torch.Tensor, GridPath, int]:
        """The end of the fine run beside which a solver is put, its path and its steps."""
        run, other = runs[label], fine[label]
        n = reference_steps or counts[-1] * (16 if other is run.method else 8)
        last = Runs.of(other, process, control, [n], run.eta)
        if {run.clock, last.clock} - {""} != {run.clock} - {""}:
            raise IncompatibleError(
                f"the reference {other.name} draws on the clock {last.clock!r}, not on "
                f"{run.clock!r} as {label} does"
            )
        key = other, run.clock, run.eta
        alike = [p for k, r in runs.items() if (fine[k], r.clock, r.eta) == key for p in r.plans]
        path = GridPath.of([*alike, *last.plans], seed)
        return end_state(last.plans[0], target, begin, path), path, n

    orders = {}
    for label, run in runs.items():
        other = fine[label]
        key = other, run.clock, run.eta
        if key not in exact:
            exact[key] = fine_run(label)
        end, path, n = exact[key]
        scale = float(end.square().mean().sqrt())
        distances = np.stack(
            [
                root_mean_squares(end_state(plans, target, begin, path) - end) / scale
                for plans in run.plans
            ]
        )
        where = "on the same path" if run.clock else "from the same starts"
        orders[label] = strong_from_distances(
            label, run.method, counts, distances, f"{other.name} with {n} steps {where}", seed
        )
    return orders


@attrs.frozen
class Runs:
    """A solver's plans for each number of steps, and the clock that it draws on.

    The clock is "" if it draws nothing.
    """

    method: Integrator
    plans: list[list[StepPlan]]
    clock: str
    eta: float

    @staticmethod
    def of(
        method: Integrator,
        process: LinearProcess,
        control: Grid,
        counts: Sequence[int],
        eta: float | None,
    ) -> Runs:
        eta = method.default_eta if eta is None else as_float(eta)
        method.check(process_given(process), eta)
        plans = [
            plan_grid(process, method, control.times(RunInfo(process, method, n, eta)), eta)
            for n in counts
        ]
        clocks = {plan.clock for run in plans for plan in run if plan.slots}
        if len(clocks) > 1:
            found = ", ".join(sorted(clocks))
            raise IncompatibleError(
                f"{method.name} draws on the clocks {found}; an order is measured on one "
                "path, on one clock"
            )
        return Runs(method, plans, clocks.pop() if clocks else "", eta)


def strong_from_distances(
    label: str,
    method: Integrator,
    counts: list[int],
    distances: NDArray[np.float64],
    reference: str,
    seed: int,
) -> Order:
    """The order from the distances (k, paths), with a bootstrap over paths."""
    paths = distances.shape[1]
    errors = np.median(distances, axis=1)
    if not (errors > 0).all():
        raise ArgumentError(f"{label} is exact on this target: its error is 0, which has no order")
    pick = np.random.default_rng(seed).integers(paths, size=(RESAMPLES, paths))
    samples = np.median(distances[:, pick], axis=2)  # (k, resamples)
    slopes = fit_slope(counts, samples)
    low, high = np.quantile(samples, [0.025, 0.975], axis=1)
    inner, outer = (float(q) for q in np.quantile(slopes, [0.025, 0.975]))
    slope = float(fit_slope(counts, errors))
    return Order(
        "strong",
        label,
        np.array(counts),
        errors,
        low,
        high,
        slope,
        (inner, outer),
        method.strong_order,
        reference,
    )


def end_state(
    plans: Sequence[StepPlan], target: Target, begin: torch.Tensor, noise: GridPath
) -> torch.Tensor:
    """Where the planned run ends that starts at `begin` (batch, *event), which is left as it is."""

    def denoiser(x: torch.Tensor, stage: Stage) -> torch.Tensor:
        return target.denoise(x, stage.level)

    state = begin.clone()
    noise.start(state.shape, state.dtype, state.device)
    executor = Executor(denoiser, noise)
    with torch.no_grad():
        for outcome in executor.follow(plans, state):
            state = outcome.state
    return state


def _reference(run: Runs) -> Integrator:
    if not run.clock and run.eta == 0.0:
        return SOLVERS["dpm-solver-3"]
    if run.eta == 1.0:
        if run.clock == "time":
            return TableauSolver(TABLEAUS["sra1"])
        if run.clock.startswith("gauge(") and run.clock.endswith(",1)"):
            return TableauSolver(
                TABLEAUS["sra1"], float(run.clock.removeprefix("gauge(").removesuffix(",1)"))
            )
    return run.method


def the_fixed_grid(grid: Any) -> Grid:
    control = as_grid(grid)
    if not isinstance(control, Grid):
        raise IncompatibleError(f"an order is measured on fixed grids, not with {control!r}")
    return control


def step_counts(steps: Sequence[int]) -> list[int]:
    if isinstance(steps, str) or not isinstance(steps, Sequence | np.ndarray):
        raise ArgumentTypeError(
            f"steps must be a list of step counts, not {shown(steps)}; e.g. steps=(32, 64, 128)"
        )
    counts = [integer(n, "a step count") for n in steps]
    if len(counts) < 2 or counts[0] < 1 or any(a >= b for a, b in itertools.pairwise(counts)):
        raise ArgumentError(
            f"steps must be at least two increasing step counts, not {steps!r}; e.g. "
            "steps=(32, 64, 128)"
        )
    return counts


def root_mean_squares(difference: torch.Tensor) -> NDArray[np.float64]:
    flat = difference.flatten(1)
    return np.asarray(flat.square().mean(1).sqrt().numpy())


def fit_slope(steps: Sequence[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares order from errors (k, ...) at k step counts."""
    x = np.log(np.asarray(steps, dtype=float))
    x -= x.mean()
    return np.asarray(-np.tensordot(x, np.log(errors), 1) / (x @ x))


def local_slopes(
    steps: Sequence[int] | NDArray[np.int64], errors: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(-np.diff(np.log(errors)) / np.diff(np.log(np.asarray(steps, dtype=float))))
