"""sbi: posteriors of NPSE and FMPE, sampled by any solver of srk.

Needs sbi (`pip install 'srk[sbi]'`), which `import srk` does not import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import integer, is_integer, shown
from srk.errors import ArgumentTypeError, IncompatibleError, MissingExtraError
from srk.integrators import Integrator
from srk.noise import KeyedNoise
from srk.noise.seeds import check_seed
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.sampling import Sampler
from srk.scores import FlowVelocity, Prediction, Score

try:
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior
    from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
    from sbi.neural_nets.estimators.shape_handling import reshape_to_batch_event
    from sbi.samplers.rejection.rejection import accept_reject_sample
    from sbi.utils.sbiutils import within_support
except ImportError as error:
    raise MissingExtraError("srk.ecosystem.sbi", "sbi", "sbi") from error

LATEST = 0.99
"""Where a flow known by its score alone starts: at t = 1 a score does not determine the data. sbi
starts there too (`effective_t_max`)."""


@attrs.frozen(eq=False)
class EstimatorProcess(LinearProcess):
    """The process of an estimator of sbi: theta_t = alpha theta_0 + sigma eps.

    Its states at t_max are drawn as sbi draws them: normal, with the moments that the parameters of
    the training set have there.

    Arguments:
        estimator: a score estimator of NPSE (vp, ve, subvp or of your own), or the estimator of
            FMPE, whose alpha is 1 - t and whose sigma is t + noise_scale.
        t_max: the last time; default that of the estimator.
        spread: factor of the standard deviation at t_max.
    """

    name = "sbi"

    estimator: Any
    t_max: float = attrs.field(kw_only=True)
    spread: float = attrs.field(default=1.0, kw_only=True)
    t_min: float = attrs.field(init=False)

    @t_max.default
    def _last(self) -> float:
        return float(self.estimator.t_max)

    @t_min.default
    def _first(self) -> float:
        return float(self.estimator.t_min)

    def alpha(self, t: Any) -> Any:
        if isinstance(self.estimator, FlowMatchingEstimator):
            return 1.0 - t
        return self._ask(self.estimator.mean_t_fn, t)

    def sigma(self, t: Any) -> Any:
        if isinstance(self.estimator, FlowMatchingEstimator):
            return t + float(self.estimator.noise_scale)
        return self._ask(self.estimator.std_fn, t)

    def _ask(self, function: Any, t: Any) -> float:
        with torch.no_grad():
            return float(function(torch.tensor([float(t)], dtype=torch.float64)).reshape(-1)[0])

    def initial_state(self, normals: Tensor) -> Tensor:
        """The draw of the base distribution that follows from unit normals."""
        mean, std = self.estimator.mean_base.to(normals), self.estimator.std_base.to(normals)
        return normals.mul_(std * self.spread).add_(mean)


@attrs.frozen(eq=False)
class _Gradient:
    """(theta, t) -> what the estimator says given the observation of a potential."""

    potential: Any
    velocity: bool

    def __call__(self, theta: Tensor, t: Tensor) -> Tensor:
        potential, time = self.potential, t[:, None] if t.ndim else t
        if self.velocity:
            said = potential.vector_field_estimator(theta[:, None], potential.x_o, time)
        else:
            said = potential.gradient(theta[:, None], time, track_gradients=torch.is_grad_enabled())
        made: Tensor = said.reshape(theta.shape)
        return made


class _OneTime(Score):
    """The score of several observations, which sbi puts together at one time for the batch."""

    def time_of(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return super().time_of(x[:1], level, process)[0]


def from_sbi(
    posterior: Any,
    x: Tensor | None = None,
    *,
    iid_method: str | None = None,
    iid_params: dict[str, Any] | None = None,
    guidance_method: str | None = None,
    guidance_params: dict[str, Any] | None = None,
) -> tuple[EstimatorProcess, Prediction]:
    """A posterior of NPSE or FMPE as the process and the score of `srk.solve`.

    Arguments:
        posterior: what `inference.build_posterior()` returns, a `VectorFieldPosterior`.
        x: the observation; default the posterior's own. Several rows are independent observations
            of one parameter, whose scores sbi puts together (`iid_method`).
        iid_method, iid_params, guidance_method, guidance_params: as in the posterior's `sample`.

    Returns:
        The process of its estimator, and the prediction. The observation is that of the posterior's
        potential from then on, as after its own `sample`.

    Raises:
        ArgumentTypeError: it is no such posterior.
        IncompatibleError: the estimator has no score.

    The samples are in the space of the estimator: `posterior.vector_field_estimator.from_z` brings
    them back where `compose_standardization` is on. `srk.ecosystem.sbi.sample` does that.
    """
    if not isinstance(posterior, VectorFieldPosterior):
        raise ArgumentTypeError(
            f"from_sbi takes the posterior of sbi's NPSE or FMPE, not {shown(posterior)}; e.g. "
            "NPSE(prior).append_simulations(theta, x), .train(), .build_posterior()"
        )
    estimator, potential = posterior.vector_field_estimator, posterior.potential_fn
    observed = reshape_to_batch_event(posterior._x_else_default_x(x), estimator.condition_shape)
    several = len(observed) > 1
    potential.set_x(
        observed,
        x_is_iid=several,
        iid_method=iid_method or potential.iid_method,
        iid_params=iid_params,
        guidance_method=guidance_method,
        guidance_params=guidance_params,
    )
    flow = isinstance(estimator, FlowMatchingEstimator)
    event = tuple(estimator.input_shape)
    if flow and not several and guidance_method is None:
        network = _Gradient(potential, velocity=True)
        return EstimatorProcess(estimator), FlowVelocity(network, event_shape=event)
    if not estimator.SCORE_DEFINED:
        raise IncompatibleError(
            f"{type(estimator).__name__} defines no score, which srk needs for this observation"
        )
    last = min(float(estimator.t_max), LATEST) if flow else float(estimator.t_max)
    fnpe = several and potential.iid_method == "fnpe"  # sbi narrows the start there
    spread = 1.0 / math.sqrt(len(observed)) if fnpe else 1.0
    process = EstimatorProcess(estimator, t_max=last, spread=spread)
    kind = _OneTime if several else Score
    return process, kind(_Gradient(potential, velocity=False), event_shape=event)


def sample(
    posterior: Any,
    sample_shape: Sequence[int] | int = (),
    x: Tensor | None = None,
    solver: str | Integrator = "auto",
    *,
    steps: int | None = None,
    nfe: int | None = None,
    grid: Any = None,
    eta: Any = None,
    seed: int | None = None,
    reject_outside_prior: bool = True,
    max_sampling_batch_size: int | None = None,
    iid_method: str | None = None,
    iid_params: dict[str, Any] | None = None,
    guidance_method: str | None = None,
    guidance_params: dict[str, Any] | None = None,
) -> Tensor:
    """Samples of a posterior of NPSE or FMPE: what its own `sample` returns, by a solver of srk.

    Arguments:
        posterior: a `VectorFieldPosterior`.
        sample_shape: the shape of the set of samples.
        x: the observation; default the posterior's own.
        solver, steps, nfe, grid, eta: as in `srk.solve`; default 50 steps.
        seed: of all draws, which belong to the sample: its number in the order of drawing says
            what it is, whatever the batch.
        reject_outside_prior: draw until enough samples lie in the support of the prior, as sbi
            does.
        max_sampling_batch_size: how many to draw together; default that of the posterior.
        iid_method, iid_params, guidance_method, guidance_params: as in the posterior's `sample`.

    Returns:
        Shape (*sample_shape, *parameters).

    Examples:
        >>> import torch
        >>> from sbi.inference.posteriors import VectorFieldPosterior
        >>> from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator
        >>> class Zero(torch.nn.Linear):  # in place of a trained network: the prior comes out
        ...     def forward(self, theta, x, t):
        ...         return 0 * theta
        >>> shape = torch.Size([2])
        >>> estimator = VPScoreEstimator(Zero(1, 1), shape, shape, std_0=0.5)
        >>> prior = torch.distributions.MultivariateNormal(torch.zeros(2), 0.25 * torch.eye(2))
        >>> posterior = VectorFieldPosterior(estimator, prior)
        >>> theta = sample(posterior, (1000,), torch.zeros(1, 2), nfe=20, seed=0)
        >>> theta.shape, round(theta.std().item(), 1)
        (torch.Size([1000, 2]), 0.5)
    """
    given: Any = (sample_shape,) if is_integer(sample_shape) else sample_shape
    shape = tuple(integer(size, "a size of sample_shape", least=1) for size in given)
    process, score = from_sbi(
        posterior,
        x,
        iid_method=iid_method,
        iid_params=iid_params,
        guidance_method=guidance_method,
        guidance_params=guidance_params,
    )
    sampler = Sampler(process, score, solver, steps=steps, nfe=nfe, grid=grid, eta=eta)
    estimator = posterior.vector_field_estimator
    seed, drawn = check_seed(seed), 0

    def draw(count: Sequence[int]) -> Tensor:
        nonlocal drawn
        noise = KeyedNoise(seed, first_index=drawn)
        made = sampler(tuple(count) + tuple(estimator.input_shape), noise=noise, device=place).x
        drawn += len(made)
        if not estimator.compose_enabled:
            return made
        parameters: Tensor = estimator.from_z(made)
        return parameters

    place = estimator.mean_base.device
    total = math.prod(shape)
    most = posterior.max_sampling_batch_size
    if max_sampling_batch_size is not None:
        most = integer(max_sampling_batch_size, "max_sampling_batch_size", least=1)
    if reject_outside_prior:
        samples, _ = accept_reject_sample(
            proposal=draw,
            accept_reject_fn=lambda theta: within_support(posterior.prior, theta),
            num_samples=total,
            max_sampling_batch_size=most,
        )
    else:
        parts = [draw((min(most, total - first),)) for first in range(0, total, most)]
        samples = torch.cat(parts)
    whole: Tensor = samples[:total].reshape(*shape, *estimator.input_shape)
    return whole


__all__ = ["EstimatorProcess", "from_sbi", "sample"]
