r"""Steering: a population of particles that follows a reward along the run, with exact weights.

The samples of `srk.solve` have a distribution p; steering draws from $p(x_0) e^{r(x_0)}/Z$ by
sequential Monte Carlo. After the evaluation of a step, particle i gets the factor

$$\exp(\lambda_k r(D_k) - \lambda_{k-1} r(D_{k-1})),$$

with D the denoised prediction and lambda a temper that grows towards the data; at the end the
factor is $\exp(r(x_0) - \lambda_K r(D_K))$. The product of all is $e^{r(x_0)}$ whatever the temper
is, so that the weighted particles converge to the tilted distribution of this solver and grid, and
the mean weight to Z. In between, particles of little weight are replaced by copies of others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError, SolveError
from srk.integrators import Integrator
from srk.noise import NoiseSource
from srk.noise.counter import draw_key
from srk.plans.plan import STATE, StepPlan
from srk.posterior.base import Weight, as_weight
from srk.posterior.evaluations import Evaluations, Reward
from srk.posterior.population import Population
from srk.processes.base import Level, LinearProcess
from srk.sampling.arguments import one_time
from srk.sampling.sampler import Sampler
from srk.sampling.start import start
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction
from srk.solution import Solution
from srk.steps import Grid, StepController


def signal_fraction(level: Level) -> float:
    """alpha^2/(alpha^2 + sigma^2), the default temper: 0 in noise, 1 in the data."""
    return level.alpha**2 / (level.alpha**2 + level.sigma**2)


def steer(
    process: LinearProcess,
    score: Prediction | Callable[..., Tensor],
    reward: Reward,
    solver: str | Integrator = "dpmpp-2m-sde",
    *,
    shape: Sequence[int] | int,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | StepController | Sequence[float] | Tensor | None = None,
    eta: float | None = None,
    noise: str | NoiseSource | None = "keyed",
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    denoise_final: bool | None = None,
    twist: bool | Prediction = False,
    temper: Weight = signal_fraction,
    resample: int | Iterable[int] = 1,
    threshold: float = 0.5,
    equal_weights: bool = False,
    microbatch: int | None = None,
) -> Solution:
    r"""Draw weighted samples from the model's distribution times $e^{r(x_0)}$.

    All samples of the call are one population. Any solver will do, with its memory and its noise
    carried along; a stochastic one (eta > 0) is needed for copies to part again.

    Arguments:
        process: the forward process; linear.
        score: as for `srk.solve`. Conditions must be the same for all samples.
        reward: r, a callable of denoised samples (batch, *event) -> (batch,), in nats. It is asked
            about denoised predictions and, at the end, about the samples. With `twist=True` it
            must be differentiable.
        solver: a registered name or an integrator.
        shape: (particles, *event), or the number of particles where the score knows its event
            shape.
        steps, nfe, grid, eta, device, dtype, denoise_final: as for `srk.solve`; the grid is fixed.
        noise: as for `srk.solve`; "keyed" by default. Each slot of the population has its own
            noise, whichever particle stands there.
        seed: seed of the noise and of the resampling.
        twist: propose with the gradient of the reward (True, one backward call for each
            evaluation), or with another prediction, e.g. `srk.posterior.MMPS(...)`; the weights
            correct for it exactly. It needs a solver whose step is Gaussian given the state, with
            one evaluation at its start ("ddpm", "srk1", "dpmpp-2m-sde", "euler-maruyama", ...).
            The gradient ignores the spread of x_0 given the state: where the reward is strongly
            curved it pulls too far and costs more than it brings; there another prediction or
            `twist=False` is better.
        temper: lambda, a number or a function of the noise level.
        resample: after how many steps particles may be resampled, or the numbers of these steps,
            from 0.
        threshold: particles are resampled where the effective sample size is below this fraction
            of the particles; above 1 always, 0 never.
        equal_weights: end with a resampling, so that the samples are unweighted (with copies).
        microbatch: at most so many particles in one network call, which bounds its memory. The
            samples do not depend on it beyond the network's own rounding.

    Returns:
        A `Solution` with `log_weights` (normalized: their exponentials add up to 1),
        `log_normalizer` (the estimate of log Z, whose exponential is unbiased), and `ess`, the
        effective sample size after each step, before resampling.

    Raises:
        ArgumentError, IncompatibleError, ScoreError, SolveError: each message names the cure.

    Source: Del Moral, "Feynman-Kac Formulae", 2004; Wu et al., "Practical and Asymptotically
    Exact Conditional Sampling in Diffusion Models" (TDS), NeurIPS 2023, for the twisted proposal;
    Singhal et al., "A General Framework for Inference-time Scaling and Steering of Diffusion
    Models", 2025, for rewards of denoised predictions.

    Examples:
        >>> import srk, torch
        >>> process = srk.EDM()
        >>> prior = srk.targets.GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.3, 0.3])
        >>> def reward(x):
        ...     return 0.5 * x[:, 0]
        >>> sol = srk.posterior.steer(
        ...     process, prior.score(process), reward, shape=4000, steps=40, seed=0
        ... )
        >>> mean = (sol.log_weights.exp() @ sol.x.double())[0]
        >>> bool((mean - prior.tilted(0.5).moments()[0]).abs() < 0.05)
        True
        >>> abs(sol.log_normalizer - prior.log_tilt(0.5)) < 0.05
        True
    """
    _check_options(process, reward, microbatch, threshold, grid)
    prediction = as_prediction(score)
    sampler = Sampler(
        process,
        prediction if twist is False else _Cost(prediction, twist),
        solver,
        steps=steps,
        nfe=nfe,
        grid=grid,
        eta=eta,
        denoise_final=denoise_final,
    )
    plans = _plans(sampler)
    if twist is not False:
        _check_twistable(plans, sampler.label)
    x, source = start(sampler.settings, shape, None, noise, seed, device, dtype, False)
    source.prepare(plans)
    began = time.perf_counter()
    with torch.no_grad():
        evaluations = Evaluations(
            process=process,
            prediction=prediction.bind(process),
            proposal=twist.bind(process) if isinstance(twist, Prediction) else None,
            gradient=twist is True,
            reward=reward,
            eta=sampler.one_eta("steering"),
            microbatch=microbatch or len(x),
        )
        population = Population(evaluations, as_weight(temper), source, x)
        chosen = _chosen(resample, len(plans))
        uniforms = _uniforms(source.seed, len(plans) + 1)
        sizes = []
        for k, plan in enumerate(plans):
            resampling = (uniforms[k], threshold if k in chosen else 0.0)
            sizes.append(population.step(plan, resampling))
        if sampler.settings.final and plans[-1].stop.sigma > 0.0:
            population.finish(plans[-1].stop, len(plans))
        population.close()
        if equal_weights:
            population.resample(uniforms[-1], math.inf)
    seconds = time.perf_counter() - began
    return _solution(population, sampler, plans, torch.stack(sizes), seconds)


def _check_options(
    process: object, reward: object, microbatch: int | None, threshold: float, grid: Any
) -> None:
    if not isinstance(process, LinearProcess):
        raise IncompatibleError(
            f"steering asks for rewards of denoised predictions, which {process!r} has not; use a "
            "linear process such as srk.VP()"
        )
    if isinstance(reward, type) or not callable(reward):
        raise ArgumentError(f"reward is a callable of samples (batch, *event), not {reward!r}")
    if microbatch is not None and (isinstance(microbatch, bool) or microbatch < 1):
        raise ArgumentError(f"microbatch must be a positive int, not {microbatch!r}")
    if not threshold >= 0.0:
        raise ArgumentError(f"threshold is a fraction of the particles, >= 0, not {threshold!r}")
    one_time(grid, "steering")


def _plans(sampler: Sampler) -> Sequence[StepPlan]:
    """The steps of the run, from t_max on and on times that are known before."""
    if not isinstance(sampler.control, Grid):
        raise IncompatibleError(f"steering needs a fixed grid, not {sampler.control!r}")
    if sampler.settings.mean:
        raise IncompatibleError(
            "steering weighs each step by its noise, which the last step of denoise_final='mean' "
            "has not; use denoise_final=True"
        )
    plans = sampler.plans()
    process = sampler.process
    if plans[0].start.t != process.t_max:
        raise ArgumentError(
            f"the grid starts at t = {plans[0].start.t!r}, below t_max = {process.t_max!r}, where "
            "the distribution is not known; let it start at process.t_max"
        )
    return plans


class _Cost(Prediction):
    """What a twisted evaluation costs, for the budget `nfe`; it is never evaluated."""

    def __init__(self, prediction: Prediction, twist: Any) -> None:
        self.prediction, self.twist = prediction, twist
        self.event_shape = prediction.event_shape

    def calls(self, t: float | None = None) -> int:
        if isinstance(self.twist, Prediction):
            return self.prediction.calls(t) + self.twist.calls(t)
        return 2 * self.prediction.calls(t)

    def denoise(self, x: Tensor, level: Level, process: Any) -> Tensor:
        raise NotImplementedError


def _solution(
    population: Population,
    sampler: Sampler,
    plans: Sequence[StepPlan],
    sizes: Tensor,
    seconds: float,
) -> Solution:
    """The weighted particles as the result of the call."""
    log, evaluations = population.weights.log, population.evaluations
    made = Solution(
        x=population.x,
        status="done",
        nfe=evaluations.nfe,
        mean_nfe=float(evaluations.nfe),
        steps=len(plans),
        rejected=0,
        times=(plans[0].start.t, *(plan.stop.t for plan in plans)),
        solver=sampler.label,
        eta=evaluations.eta,
        seed=population.source.seed,
        seconds=seconds,
        score_seconds=evaluations.score_seconds,
        log_weights=log - torch.logsumexp(log, 0),
        log_normalizer=float(population.weights.log_mean()),
        ess=sizes,
    )
    bad = ~torch.isfinite(made.x).flatten(1).all(1)
    if bool(bad.any()) or not math.isfinite(made.log_normalizer or 0.0):
        status = (
            f"failed: {int(bad.sum())} of {len(bad)} samples are NaN or inf, and the mean "
            f"weight is exp({made.log_normalizer!r}); the score or the reward returned that"
        )
        made = attrs.evolve(made, status=status)
        raise SolveError(f"{status}; the state is in .solution.x", made)
    return made


def _check_twistable(plans: Sequence[StepPlan], label: str) -> None:
    for plan in plans:
        drawn = any(
            column.kind == "z"
            for row in [*(stage.row for stage in plan.stages), *plan.keep]
            for column, _ in row
        )
        at_start = len(plan.stages) == 1 and plan.stages[0].row == ((STATE, 1.0),)
        if drawn or not at_start:
            raise IncompatibleError(
                f"twist needs a solver whose step is Gaussian given the state, with one "
                f"evaluation at its start, and {label} is none; use 'dpmpp-2m-sde', 'ddpm', "
                "'srk1' or 'euler-maruyama', or twist=False"
            )
    if not any(plan.slots for plan in plans):
        raise IncompatibleError(
            f"twist needs a stochastic solver, and {label} draws no noise here; use eta=1"
        )


def _chosen(resample: int | Iterable[int], count: int) -> set[int]:
    if isinstance(resample, bool):
        raise ArgumentError("resample is a number of steps or the numbers of steps, not a bool")
    if isinstance(resample, int):
        if resample < 1:
            raise ArgumentError(
                f"resample is after how many steps, >= 1, not {resample!r}; threshold=0 for never"
            )
        return set(range(resample - 1, count, resample))
    chosen = {int(k) for k in resample}
    if any(not 0 <= k < count for k in chosen):
        raise ArgumentError(
            f"resample holds numbers of steps, from 0 to {count - 1}, not {sorted(chosen)!r}"
        )
    return chosen


def _uniforms(seed: int | None, count: int) -> list[float]:
    """A uniform number for each resampling, a function of the seed alone."""
    key = draw_key(0 if seed is None else seed, "resampling")
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
    drawn: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return drawn


__all__ = ["signal_fraction", "steer"]
