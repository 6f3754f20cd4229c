"""physicsnemo: its schedules and predictors in srk, and the solvers of srk in its samplers.

Nothing of physicsnemo is imported: a noise scheduler is whatever has `alpha`, `sigma` and
`timesteps`, as `physicsnemo.diffusion.noise_schedulers.LinearGaussianNoiseScheduler` has, and a
predictor is a callable (x, t).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, integer, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.integrators import Integrator
from srk.noise import KeyedNoise, NoiseSource
from srk.noise.seeds import check_seed
from srk.processes.base import LinearProcess
from srk.sampling import Sampler
from srk.scores import Data, NoisePrediction, Prediction, Score

Predictor = Callable[[Tensor, Tensor], Tensor]


def _scheduler(value: Any) -> Any:
    missing = [name for name in ("alpha", "sigma", "timesteps") if not hasattr(value, name)]
    if missing:
        raise ArgumentTypeError(
            f"a noise scheduler of physicsnemo has alpha, sigma and timesteps, but {shown(value)} "
            f"has no {', '.join(missing)}; e.g. EDMNoiseScheduler()"
        )
    return value


@attrs.frozen(eq=False)
class SchedulerProcess(LinearProcess):
    """The process of a noise scheduler: x_t = alpha(t) x_0 + sigma(t) eps.

    Arguments:
        scheduler: a `LinearGaussianNoiseScheduler`. It is asked in float64 on the CPU.
        t_min: the last time of a run; default 0, where its `timesteps` end.
        t_max: the first time of a run; default where its `timesteps` begin.
    """

    name = "physicsnemo"

    scheduler: Any = attrs.field(converter=_scheduler)
    t_min: float = attrs.field(default=0.0, converter=as_float, kw_only=True)
    t_max: float = attrs.field(converter=as_float, kw_only=True)

    @t_max.default
    def _first(self) -> float:
        return self.times(2)[0]

    def times(self, steps: int) -> list[float]:
        """The scheduler's own times for so many steps, decreasing, shape (steps + 1,)."""
        times = self.scheduler.timesteps(steps, device=torch.device("cpu"), dtype=torch.float64)
        return [float(t) for t in times]

    def alpha(self, t: Any) -> Any:
        return self._ask(self.scheduler.alpha, t)

    def sigma(self, t: Any) -> Any:
        return self._ask(self.scheduler.sigma, t)

    def _ask(self, function: Any, t: Any) -> float:
        with torch.no_grad():
            return float(function(torch.tensor(float(t), dtype=torch.float64)))


def from_physicsnemo(
    noise_scheduler: Any,
    *,
    x0_predictor: Predictor | None = None,
    score_predictor: Predictor | None = None,
    epsilon_predictor: Predictor | None = None,
) -> tuple[SchedulerProcess, Prediction]:
    """A noise scheduler and a predictor as the process and the score of `srk.solve`.

    Arguments:
        noise_scheduler: a `LinearGaussianNoiseScheduler`.
        x0_predictor, score_predictor, epsilon_predictor: one of them, as for the scheduler's own
            `get_denoiser`: a callable (x, t) with t of shape (batch,).

    Returns:
        The process, and the prediction.

    Raises:
        ArgumentError: none or several of the predictors are given.
        ArgumentTypeError: the scheduler has no alpha, sigma or timesteps.

    Examples:
        >>> import srk, torch
        >>> class Edm:  # in place of physicsnemo's EDMNoiseScheduler
        ...     def alpha(self, t):
        ...         return torch.ones_like(t)
        ...     def sigma(self, t):
        ...         return t
        ...     def timesteps(self, n, *, device=None, dtype=None):
        ...         return torch.tensor([80.0 * 0.5**i for i in range(n)] + [0.0], dtype=dtype)
        >>> gain = lambda t: 0.04 / (0.04 + t[:, None] ** 2)
        >>> x0 = lambda x, t: 0.5 + gain(t) * (x - 0.5)  # data N(0.5, 0.04)
        >>> process, score = from_physicsnemo(Edm(), x0_predictor=x0)
        >>> x = srk.solve(process, score, "srk2m", shape=(1000, 1), nfe=30, seed=0).x
        >>> round(x.mean().item(), 1), round(x.std().item(), 1)
        (0.5, 0.2)
    """
    given = {"x0": x0_predictor, "score": score_predictor, "epsilon": epsilon_predictor}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise ArgumentError(
            f"give one predictor, not {len(named)}: x0_predictor=, score_predictor= or "
            "epsilon_predictor="
        )
    ((name, predictor),) = named.items()
    adapters: dict[str, Callable[[Predictor], Prediction]] = {
        "x0": Data,
        "score": Score,
        "epsilon": NoisePrediction,
    }
    return SchedulerProcess(noise_scheduler), adapters[name](predictor)


def sample(
    noise_scheduler: Any,
    xN: Tensor,
    num_steps: int,
    solver: str | Integrator = "auto",
    *,
    x0_predictor: Predictor | None = None,
    score_predictor: Predictor | None = None,
    epsilon_predictor: Predictor | None = None,
    grid: Any = None,
    eta: Any = None,
    noise: str | NoiseSource | Callable[..., Any] | None = None,
    seed: int | None = None,
) -> Tensor:
    """What `physicsnemo.diffusion.samplers.sample` returns, by any solver of srk.

    No step waits for the device.

    Arguments:
        noise_scheduler: a `LinearGaussianNoiseScheduler`.
        xN: the state at the first time, as the scheduler's `init_latents` draws it.
        num_steps: number of steps.
        solver, eta, noise, seed: as in `srk.solve`.
        x0_predictor, score_predictor, epsilon_predictor: one of them.
        grid: where the steps go, as in `srk.solve`; default the scheduler's own `timesteps`.

    Returns:
        The samples at the last time, a tensor like `xN`.
    """
    process, prediction = from_physicsnemo(
        noise_scheduler,
        x0_predictor=x0_predictor,
        score_predictor=score_predictor,
        epsilon_predictor=epsilon_predictor,
    )
    steps = integer(num_steps, "num_steps", least=1)
    own = grid is None
    sampler = Sampler(
        process,
        prediction,
        solver,
        steps=None if own else steps,
        grid=process.times(steps) if own else grid,
        eta=eta,
        denoise_final=False,
        check_network=False,
    )
    return sampler(x_init=xN, noise=noise, seed=seed).x


class SRKSolver:
    """A solver for `physicsnemo.diffusion.samplers.sample(solver=...)`, which asks for one step.

    It holds nothing of a run: its noise belongs to the interval of the step. The times that come
    as tensors are read once a step, which waits for a device; `srk.ecosystem.physicsnemo.sample`
    does not.

    Arguments:
        noise_scheduler: a `LinearGaussianNoiseScheduler`.
        solver: a solver of single steps, by name or as an integrator.
        x0_predictor, score_predictor, epsilon_predictor: one of them. The `denoiser` that
            physicsnemo's `sample` is given is not asked.
        eta: stochasticity; default that of the solver.
        seed: of the noise of all steps.

    Raises:
        IncompatibleError: on a step, the solver keeps what the network said in earlier steps.
    """

    def __init__(
        self,
        noise_scheduler: Any,
        solver: str | Integrator = "ddpm",
        *,
        x0_predictor: Predictor | None = None,
        score_predictor: Predictor | None = None,
        epsilon_predictor: Predictor | None = None,
        eta: Any = None,
        seed: int | None = None,
    ) -> None:
        self.process, self.prediction = from_physicsnemo(
            noise_scheduler,
            x0_predictor=x0_predictor,
            score_predictor=score_predictor,
            epsilon_predictor=epsilon_predictor,
        )
        self.solver, self.eta, self.seed = solver, eta, check_seed(seed)

    def step(self, x: Tensor, t_cur: Tensor, t_next: Tensor) -> Tensor:
        """The state at `t_next`, of the state `x` at `t_cur`; times of shape () or (batch,)."""
        times = [float(t.reshape(-1)[0]) for t in (t_cur, t_next)]
        sampler = Sampler(
            self.process,
            self.prediction,
            self.solver,
            grid=times,
            eta=self.eta,
            denoise_final=False,
            check_network=False,
        )
        if any(plan.keep for plan in sampler.plans()):
            raise IncompatibleError(
                f"{sampler.label} keeps what the network said in earlier steps, but physicsnemo "
                "asks for one step after the other; use srk.ecosystem.physicsnemo.sample, or a "
                "solver of single steps such as 'ddpm', 'edm-heun' or 'srk2s'"
            )
        return sampler(x_init=x, noise=KeyedNoise(self.seed)).x


__all__ = ["SRKSolver", "SchedulerProcess", "from_physicsnemo", "sample"]
