"""Exact output distributions on Gaussian targets, without Monte Carlo.

For a Gaussian target the denoiser is linear, so a solver is a linear map of (initial noise, step
noises). The plan is run on unit vectors in place of random draws; the sum of squares of the result
is the exact output variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch

from srk._checks import integer, shown
from srk._engine.eager import Executor
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.eta import Eta
from srk.integrators import Integrator, integrator
from srk.noise.basis import BasisNoise
from srk.plans.plan import StepPlan, without_noise
from srk.processes.around_mean import AroundMean
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.processes.phase import PhaseProcess, statistic
from srk.sampling.arguments import eta_given, process_given
from srk.sampling.planning import plan_grid, step_etas
from srk.sampling.run_end import ends_clean
from srk.scores.phase import PhasePrediction, read
from srk.steps import Grid, RunInfo, as_grid
from srk.tableaus import StochasticTableau


@attrs.frozen(slots=True, eq=False)
class GaussianDistribution:
    """The exact distribution of a solver's output on a Gaussian target.

    It is given along the principal axes of the target.

    Arguments:
        mean, variance: of the output, shape (d,).
        target_mean, target_variance: of the exact distribution at the end of the grid, shape (d,).
        nfe: network calls made.
    """

    mean: np.ndarray
    variance: np.ndarray
    target_mean: np.ndarray
    target_variance: np.ndarray
    nfe: int

    @property
    def kl(self) -> float:
        """KL(output || exact), summed over the axes, in nats."""
        delta = (self.variance - self.target_variance) / self.target_variance
        shift = (self.mean - self.target_mean) ** 2 / self.target_variance
        return float(np.sum(0.5 * (delta - np.log1p(delta) + shift)))


def gaussian_distribution(
    solver: str | Integrator | StochasticTableau,
    process: LinearProcess | AroundMean | PhaseProcess,
    mean: float | Sequence[float] | np.ndarray = 0.0,
    covariance: float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray = 1.0,
    *,
    steps: int | None = None,
    grid: Any = "log-snr",
    eta: Eta | None = None,
    start: Literal["exact", "prior"] = "exact",
    denoise_final: bool | Literal["mean"] = False,
    dtype: torch.dtype = torch.float64,
) -> GaussianDistribution:
    """The exact distribution of what `solver` makes of the target N(mean, covariance).

    Arguments:
        solver: a registered name, an integrator or a tableau.
        process: a linear process, around a mean or not, or a phase-space process, of whose state
            the distribution of the data component is returned.
        mean: of the data; a number or shape (d,).
        covariance: of the data: a variance, a diagonal of shape (d,), or a matrix (d, d), whose
            principal axes are then used (every solver here commutes with rotations).
        steps: number of steps of the grid (not for explicit times).
        grid: a grid's name, a grid, or a list of own times.
        eta: stochasticity; default that of the solver (`Integrator.default_eta`). A number, a
            function of the level, a list or a rule, as of `srk.solve`.
        start: "exact" starts from the true distribution at the first time, "prior" from N(0,
            sigma(t_max)^2).
        denoise_final: end with the denoiser, or with "mean" the last step without its noise, as
            `srk.solve` does; the target distribution is then still the one at the last time.
        dtype: of the run that is meant. The computation is in float64 in any case, but a solver
            lowers its order where a coarser dtype resolves no slope.

    Returns:
        A `GaussianDistribution`.

    Examples:
        >>> import srk
        >>> made = srk.analysis.gaussian_distribution("ddpm", srk.VP(), 1.0, [0.1, 1.0], steps=20)
        >>> made.variance.shape
        (2,)
    """
    method = integrator(solver)
    process_given(process)
    if process.centred is not process:
        return _around_mean(
            process,
            mean,
            covariance,
            solver=solver,
            steps=steps,
            grid=grid,
            eta=eta,
            start=start,
            denoise_final=denoise_final,
        )
    if statistic(process) is None:
        raise IncompatibleError(
            "an exact Gaussian distribution needs a linear process or a phase-space process, not "
            f"{process!r}"
        )
    m, v = _axes(mean, covariance)
    plans = _plans(process, method, steps, grid, eta, denoise_final, dtype)
    last = plans[-1].start if plans[-1].stop.sigma == 0 else plans[-1].stop
    space = _Scalar(process, m, v) if process.components == 1 else _PhaseSpace(process, m, v)
    variance = _variance(space, plans, start == "exact")
    moved = _mean(space, plans, start == "exact") if np.any(m != 0) else np.zeros_like(m)
    return GaussianDistribution(
        moved, variance, *space.target(last), sum(plan.evaluations for plan in plans)
    )


def _plans(
    process: LinearProcess | AroundMean | PhaseProcess,
    method: Integrator,
    steps: int | None,
    grid: Any,
    eta: Eta | None,
    denoise_final: bool | Literal["mean"],
    dtype: torch.dtype,
) -> list[StepPlan]:
    """The steps of the run, the final denoising included; all of them linear."""
    wanted = eta_given(eta, method, process)
    one = wanted if isinstance(wanted, float) else method.default_eta
    control = as_grid(grid)
    if not isinstance(control, Grid):
        raise IncompatibleError(
            f"an exact distribution needs a fixed grid, not {control!r}: the steps of an "
            "adaptive run depend on the draws"
        )
    info = RunInfo(process, method, steps, one)
    times = control.times(info)
    if isinstance(wanted, float):
        method = method.choose(process, wanted, len(times) - 1)
    etas, first_diffusion = step_etas(wanted, process, method, times)
    eps = torch.finfo(dtype).eps
    plans = plan_grid(process, method, times, etas, eps, first_diffusion)
    if not all(plan.linear for plan in plans):
        raise IncompatibleError(
            f"{method.name} is not linear: its steps depend on norms of the state and the draws, "
            "so that its output is not Gaussian and has no exact distribution here; use "
            "corrector='ald', or samples (srk.analysis.compare)"
        )
    if denoise_final == "mean":
        plans[-1] = without_noise(plans[-1])
    elif denoise_final and plans[-1].stop.sigma > 0:
        closing = method.closing(process, one, len(plans))
        if closing is not None and ends_clean(control, info):
            plans[-1] = closing(plans[-1])
        else:
            plans.append(method.final_step(process, plans[-1].stop, one, len(plans)))
    return plans


def _variance(space: _Scalar | _PhaseSpace, plans: Sequence[StepPlan], exact: bool) -> np.ndarray:
    """The variance of the data at the end: the sum of squares over all unit draws.

    Each row of the state is what one draw leaves in it, those of the start first.
    """
    factors = space.factors(plans[0].start, exact)
    rows = space.components * (1 + sum(len(plan.slots) for plan in plans))
    state = torch.zeros(rows, *factors.shape[1:], dtype=torch.float64)
    state[: space.components] = factors
    end = _end(space, plans, state, centred=True, first_draw=space.components)
    return (end**2).sum(0).numpy()


def _mean(space: _Scalar | _PhaseSpace, plans: Sequence[StepPlan], exact: bool) -> np.ndarray:
    """The mean of the data at the end."""
    # One row: the k-th draw lands outside of it, so that the noise is zero
    state = space.mean(plans[0].start, exact)
    return _end(space, plans, state, centred=False, first_draw=-1)[0].numpy()


def _end(
    space: _Scalar | _PhaseSpace,
    plans: Sequence[StepPlan],
    state: torch.Tensor,
    centred: bool,
    first_draw: int,
) -> torch.Tensor:
    """The data in the state at which the steps arrive with the exact denoiser."""
    noise = BasisNoise(first_draw, space.components)
    noise.start(state.shape, state.dtype, state.device)
    executor = Executor(lambda x, stage: space.denoiser(x, stage.level, centred), noise)
    for outcome in executor.follow(plans, state):
        state = outcome.state
    return space.data(state)


def _around_mean(
    process: ForwardProcess, mean: Any, covariance: Any, **options: Any
) -> GaussianDistribution:
    """That of the process of the state less the mean, moved by the mean."""
    d = len(_axes(mean, covariance)[1])
    centre = process.centre(torch.zeros(1, d, dtype=torch.float64))
    assert centre is not None
    y = np.broadcast_to(centre.numpy(), (1, d))[0]
    centred: Any = process.centred
    moved = np.broadcast_to(np.asarray(mean, dtype=float), (d,)) - y
    found = gaussian_distribution(process=centred, mean=moved, covariance=covariance, **options)
    shift, _ = _axes(y, covariance)
    return attrs.evolve(found, mean=found.mean + shift, target_mean=found.target_mean + shift)


class _Scalar:
    """The Gaussian target under a linear process: states of shape (rows, d)."""

    components = 1

    def __init__(self, process: ForwardProcess, mean: np.ndarray, variance: np.ndarray) -> None:
        self.process, self.m, self.v = process, torch.from_numpy(mean), torch.from_numpy(variance)

    def denoiser(self, x: torch.Tensor, level: Level, centred: bool) -> torch.Tensor:
        """That of the target, or of the target moved to mean 0."""
        gain = level.alpha * self.v / (level.alpha**2 * self.v + level.sigma**2)
        centre = torch.zeros_like(self.m) if centred else self.m
        return centre + gain * (x - level.alpha * centre)

    def factors(self, level: Level, exact: bool) -> torch.Tensor:
        """Initial states whose squares sum to the covariance of the initial state.

        Shape (components, *state).
        """
        std = (
            torch.sqrt(level.alpha**2 * self.v + level.sigma**2)
            if exact
            else torch.full_like(self.v, float(self.process.level(self.process.t_max).sigma))
        )
        return std[None]

    def mean(self, level: Level, exact: bool) -> torch.Tensor:
        """The mean that the run starts from, shape (1, *state)."""
        return (level.alpha * self.m if exact else torch.zeros_like(self.m))[None].clone()

    def data(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def target(self, level: Level) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the exact distribution."""
        return level.alpha * self.m.numpy(), level.alpha**2 * self.v.numpy() + level.sigma**2


class _PhaseSpace(PhasePrediction):
    """The same under a phase-space process: states of shape (rows, k, d)."""

    def __init__(self, process: ForwardProcess, mean: np.ndarray, variance: np.ndarray) -> None:
        self.process, self.components = process, process.components
        self.m, self.v = torch.from_numpy(mean), torch.from_numpy(variance)
        self.centre = self.m

    def denoiser(self, x: torch.Tensor, level: Level, centred: bool) -> torch.Tensor:
        self.centre = torch.zeros_like(self.m) if centred else self.m
        return self.denoise(x, level, self.process)

    def predict(self, z: torch.Tensor, level: Level, process: ForwardProcess) -> torch.Tensor:
        statistic = read(process.kernel(level.t).reading, z)
        return self.centre + self.v / (self.v + level.sigma**2) * (statistic - self.centre)

    def factors(self, level: Level, exact: bool) -> torch.Tensor:
        if not exact:
            start = self.process.kernel(self.process.t_max)
            factor = torch.from_numpy(np.linalg.cholesky(start.covariance))
            return factor.T[:, :, None].expand(-1, -1, len(self.v))
        kernel = self.process.kernel(level.t)
        basis = torch.from_numpy(
            np.column_stack([kernel.mean, kernel.complement])
        )  # of (m, xi), which are independent
        out = basis.T[:, :, None].repeat(1, 1, len(self.v))
        out[0] *= torch.sqrt(self.v + level.sigma**2)
        return out

    def mean(self, level: Level, exact: bool) -> torch.Tensor:
        a = (
            torch.from_numpy(self.process.kernel(level.t).mean)
            if exact
            else torch.zeros(self.components, dtype=torch.float64)
        )
        return a[None, :, None] * self.m

    def data(self, state: torch.Tensor) -> torch.Tensor:
        return state[:, 0]

    def target(self, level: Level) -> tuple[np.ndarray, np.ndarray]:
        kernel = self.process.kernel(level.t)
        return kernel.mean[0] * self.m.numpy(), kernel.mean[
            0
        ] ** 2 * self.v.numpy() + kernel.covariance[0, 0]


def gaussian_kl(
    solver: str | Integrator | StochasticTableau,
    process: LinearProcess | AroundMean | PhaseProcess,
    *,
    variance: float | Sequence[float] | np.ndarray = 1.0,
    mean: float | Sequence[float] | np.ndarray = 0.0,
    steps: int | None = None,
    nfe: int | None = None,
    grid: Any = "log-snr",
    eta: Eta | None = None,
    start: Literal["exact", "prior"] = "exact",
    denoise_final: bool | Literal["mean"] = False,
) -> float:
    """Exact KL divergence of a solver's output from a Gaussian target, in nats.

    The target is N(mean, variance) at the last time of the run.

    Arguments are those of `gaussian_distribution`; `variance` may be a number, a diagonal or a
    matrix, and `nfe` may replace `steps`.

    Examples:
        >>> import srk
        >>> vp = srk.VP()
        >>> ours, ddpm = (
        ...     srk.analysis.gaussian_kl(solver, vp, variance=0.25, steps=24)
        ...     for solver in ("srk2m", "ddpm")
        ... )
        >>> ours < ddpm
        True
    """
    method = integrator(solver)
    if nfe is not None:
        if steps is not None:
            raise ArgumentError(f"steps={steps!r} and nfe={nfe!r} are alternatives; give one")
        steps = method.steps(integer(nfe, "nfe", least=1))
    return gaussian_distribution(
        method,
        process,
        mean,
        variance,
        steps=steps,
        grid=grid,
        eta=eta,
        start=start,
        denoise_final=denoise_final,
    ).kl


def _axes(mean: Any, covariance: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variances along the principal axes, both of shape (d,)."""
    try:
        m, c = (np.atleast_1d(np.asarray(value, dtype=float)) for value in (mean, covariance))
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            "mean and covariance must be numbers, lists or arrays, not "
            f"{shown(mean)} and {shown(covariance)}; e.g. mean=0.5, covariance=[0.1, 1.0]"
        ) from error
    if c.ndim == 2:
        if c.shape[0] != c.shape[1] or not np.allclose(c, c.T):
            raise ArgumentError(
                f"a covariance matrix must be square and symmetric, not of shape {c.shape}"
            )
        v, axes = np.linalg.eigh(c)
        m = axes.T @ np.broadcast_to(m, v.shape)
    else:
        m, v = (np.array(a) for a in np.broadcast_arrays(m, c))
    if m.ndim != 1 or np.any(v <= 0):
        raise ArgumentError(
            "the covariance must be positive definite, and the mean of the same dimension"
        )
    return m, v
