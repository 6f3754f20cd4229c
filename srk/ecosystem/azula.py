"""azula: its denoisers and noise schedules in srk, and srk's solvers and networks in azula.

Needs azula (`pip install 'srk[azula]'`), which `import srk` does not import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float
from srk._fields import function
from srk.errors import ArgumentTypeError, MissingExtraError
from srk.integrators import Integrator
from srk.noise import NoiseSource
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.sampling import Sampler
from srk.scores import Data, Prediction, as_prediction
from srk.scores.base import Rows

try:
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule
    from azula.sample import Sampler as AzulaSampler
except ImportError as error:
    raise MissingExtraError("srk.ecosystem.azula", "azula", "azula") from error


@attrs.frozen(eq=False)
class ScheduleProcess(LinearProcess):
    """The process of a noise schedule of azula: x_t = alpha_t x + sigma_t eps for t in [0, 1].

    Arguments:
        schedule: an `azula.noise.Schedule`, a callable t -> (alpha_t, sigma_t). It is asked in
            float64 on the CPU.
        t_min, t_max: the range of times.
    """

    name = "azula"

    schedule: Callable[[Tensor], tuple[Tensor, Tensor]] = attrs.field(
        validator=function("t -> (alpha_t, sigma_t)")
    )
    t_min: float = attrs.field(default=0.0, converter=as_float, kw_only=True)
    t_max: float = attrs.field(default=1.0, converter=as_float, kw_only=True)

    def alpha(self, t: Any) -> Any:
        return self._both(t)[0]

    def sigma(self, t: Any) -> Any:
        return self._both(t)[1]

    def _both(self, t: Any) -> tuple[float, float]:
        with torch.no_grad():
            alpha, sigma = self.schedule(torch.tensor(float(t), dtype=torch.float64))
        return float(alpha), float(sigma)


class _Denoised(Data):
    """The mean of a denoiser of azula, which wants one time for the batch."""

    def time_of(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return super().time_of(x[:1], level, process)[0]


@attrs.frozen(eq=False)
class _Mean:
    denoiser: Any

    def __call__(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        mean: Tensor = self.denoiser(x, t, **kwargs).mean
        return mean


def from_azula(denoiser: Any, **model_kwargs: Any) -> tuple[ScheduleProcess, Prediction]:
    """A denoiser of azula as the process and the score of `srk.solve`.

    Arguments:
        denoiser: an `azula.denoise.Denoiser`: `SimpleDenoiser`, `KarrasDenoiser`, those of
            `azula.plugins` and `azula.guidance`. The mean of its posterior is the denoiser.
        model_kwargs: keyword arguments of every call, such as `label=`.

    Returns:
        The process of its schedule, and the prediction.

    Raises:
        ArgumentTypeError: it is no denoiser of azula.

    Examples:
        >>> import srk, torch
        >>> from azula.denoise import GaussianDenoiser
        >>> from azula.linalg.covariance import IsotropicCovariance
        >>> from azula.noise import VPSchedule
        >>> variance = IsotropicCovariance(torch.tensor(0.04))
        >>> denoiser = GaussianDenoiser(torch.full((3,), 0.5), variance, VPSchedule())
        >>> process, score = from_azula(denoiser)
        >>> x = srk.solve(process, score, "srk2m", shape=(1000, 3), nfe=20, seed=0).x
        >>> round(x.mean().item(), 1), round(x.std().item(), 1)
        (0.5, 0.2)
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentTypeError(
            f"from_azula takes an azula.denoise.Denoiser, not {denoiser!r}; wrap a network in "
            "azula.denoise.KarrasDenoiser(network, schedule), or give it to srk.Data"
        )
    return ScheduleProcess(denoiser.schedule), _Denoised(_Mean(denoiser), model_kwargs=model_kwargs)


class SRKSampler(AzulaSampler):  # type: ignore[misc]  # a class of a package without types
    """Any solver of srk as a sampler of azula.

    Its `init` is azula's, and its call returns the state at `stop`, without a final denoising, as
    the samplers of azula do.

    Arguments:
        denoiser: an `azula.denoise.Denoiser`.
        solver: a registered name, or an integrator with options.
        eta: stochasticity; default that of the solver.
        grid: where the steps go, as in `srk.solve`; default azula's `timesteps`, which are uniform.
        noise, seed: of the draws of the steps, as in `srk.solve`.
        denoise_final: whether to end with the denoised prediction.
        kwargs: `start`, `stop`, `steps` and so on, as for every sampler of azula.

    Examples:
        >>> import torch
        >>> from azula.denoise import KarrasDenoiser
        >>> from azula.noise import VPSchedule
        >>> denoiser = KarrasDenoiser(torch.nn.Identity(), VPSchedule())
        >>> denoiser.backbone.forward = lambda x, t: 0 * x
        >>> sampler = SRKSampler(denoiser, "srk2m", steps=10, seed=0, silent=True)
        >>> sampler(sampler.init((4, 3))).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        denoiser: Any,
        solver: str | Integrator = "auto",
        *,
        eta: Any = None,
        grid: Any = None,
        noise: str | NoiseSource | Callable[..., Any] | None = None,
        seed: int | None = None,
        denoise_final: Any = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.denoiser, self.solver, self.eta, self.grid = denoiser, solver, eta, grid
        self.noise, self.seed, self.denoise_final = noise, seed, denoise_final

    def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Take the states `x` from `start` to `stop`; keyword arguments go to the denoiser."""
        _, prediction = from_azula(self.denoiser, **kwargs)
        process = ScheduleProcess(self.denoiser.schedule, t_min=self.stop, t_max=self.start)
        fixed = self.grid is None
        sampler = Sampler(
            process,
            prediction,
            self.solver,
            steps=None if fixed else self.steps,
            grid=self.timesteps.double().tolist() if fixed else self.grid,
            eta=self.eta,
            denoise_final=self.denoise_final,
            check_network=False,
        )
        made = sampler(x_init=x, noise=self.noise, seed=self.seed, progress=not self.silent)
        return made.x


class ProcessSchedule(Schedule):  # type: ignore[misc]  # likewise
    """A linear process as a noise schedule of azula, whose times run from 0 to 1.

    Arguments:
        process: the process; azula's t is (t - t_min)/(t_max - t_min) of its own time.
    """

    def __init__(self, process: LinearProcess) -> None:
        self.process = process

    def own_time(self, t: float) -> float:
        """Own time of the process at azula's time `t`."""
        start, stop = self.process.t_min, self.process.t_max
        return min(max(start + (stop - start) * t, start), stop)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at azula's times `t`, in their shape; the times are read on the host."""
        given = t.detach().double().cpu()
        levels = [self.process.level(self.own_time(float(one))) for one in given.reshape(-1)]
        both = [[level.alpha for level in levels], [level.sigma for level in levels]]
        alpha, sigma = (
            torch.tensor(values, dtype=torch.float64).to(t).reshape(t.shape) for values in both
        )
        return alpha, sigma


class PredictionDenoiser(Denoiser):  # type: ignore[misc]  # likewise
    """A prediction of srk as a denoiser of azula, for its samplers and guidance.

    Arguments:
        score: a network in its adapter, a guided or hooked prediction, an exact score.
        process: the linear process that it belongs to; its schedule is `ProcessSchedule(process)`.
    """

    def __init__(self, score: Any, process: LinearProcess) -> None:
        super().__init__()
        if not isinstance(process, LinearProcess):
            raise ArgumentTypeError(
                f"a denoiser of azula needs a linear process, not {process!r}; e.g. srk.VP()"
            )
        self.process = process
        self.prediction = as_prediction(score).bind(process)
        self.schedule = ProcessSchedule(process)

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
        """The posterior of azula whose mean is the denoiser.

        Arguments:
            x_t: states, (batch, *event).
            t: azula's time, of shape () or (batch,); it is read on the host.
            kwargs: refused: conditions stand in the adapter (`model_kwargs`).
        """
        if kwargs:
            raise ArgumentTypeError(
                f"the prediction {self.prediction!r} takes no keyword arguments in a call, but got "
                f"{', '.join(kwargs)}; give them to its adapter as model_kwargs"
            )
        times = [self.schedule.own_time(float(one)) for one in t.detach().double().reshape(-1)]
        if len(set(times)) == 1:
            mean = self.prediction.denoise(x_t, self.process.level(times[0]), self.process)
        else:
            order = sorted(range(len(times)), key=times.__getitem__)
            samples = torch.tensor(order, device=x_t.device)
            levels = [self.process.level(times[i]) for i in order]
            rows = Rows(x_t[samples], levels, samples, len(x_t))
            said = self.prediction.denoise_each(rows, self.process)
            mean = torch.empty_like(said).index_copy(0, samples, said)
        return DiracPosterior(mean=mean)


__all__ = [
    "PredictionDenoiser",
    "ProcessSchedule",
    "SRKSampler",
    "ScheduleProcess",
    "from_azula",
]
