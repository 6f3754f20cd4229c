"""Log-densities through the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import is_integer
from srk.analysis.probability_flow import (
    Divergence,
    LinearFlow,
    OwnTimeFlow,
    ProbabilityFlow,
    integrate,
    wide,
)
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.noise import GeneratorNoise
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.manifold import retraction
from srk.sampling.arguments import process_given
from srk.scores import Prediction, as_prediction
from srk.scores.centred import bound_to, hidden, placed

Prior = Callable[[Tensor], Tensor]

METHODS = ("rk45", "rk23")
"""Explicit Runge-Kutta pairs whose last stage is the first of the next step."""


def coefficients(method: str) -> Any:
    """The class of scipy that holds the coefficients of a method."""
    from scipy import integrate  # scipy is slow to import

    return {"rk45": integrate.RK45, "rk23": integrate.RK23}[method]


@attrs.frozen(slots=True, eq=False, repr=False)
class LogLikelihood:
    """Log-densities of states and what they cost.

    Logarithms are natural (nats); the density is per unit volume of `x`.

    Arguments:
        log_prob: log p_t(x), shape (batch,): `prior + log_det`.
        prior: log-density of the end state under the distribution at t_max, shape (batch,).
        log_det: what the divergence adds, the integral of div F from t to t_max, shape (batch,).
        std_error: standard error of `log_prob` over the probes, shape (batch,); None for an exact
            divergence or a single probe.
        latent: the state at t_max that the ODE carries `x` to, shape (batch, *event).
        t: own time of the density.
        nfe: network calls of each sample.
        derivatives: vector-Jacobian products of each sample, each about one backward pass.
        steps, rejected: accepted and rejected steps.
        seed: of the probes; None for an exact divergence.
    """

    log_prob: Tensor
    prior: Tensor
    log_det: Tensor
    std_error: Tensor | None
    latent: Tensor
    t: float
    nfe: int
    derivatives: int
    steps: int
    rejected: int
    seed: int | None

    @property
    def dimension(self) -> int:
        """Number of coordinates of one sample."""
        return math.prod(self.latent.shape[1:])

    def bits_per_dim(self, bin_width: float = 1.0) -> Tensor:
        """Bits per coordinate of data that are counted in units of `bin_width`, shape (batch,).

        Arguments:
            bin_width: width of one grey level in the units of `x`. For 8-bit images scaled to [-1,
                1] it is 2/256, which adds 7 bits. The images must be dequantized first, x = -1 + 2
                (k + U)/256 with U uniform on [0, 1): the mean is then an upper bound of the code
                length of the discrete data (Theis, van den Oord and Bethge 2016).
        """
        if not (isinstance(bin_width, (int, float)) and 0.0 < bin_width < math.inf):
            raise ArgumentError(
                "bin_width is the width of one grey level in the units of x, positive, e.g. "
                f"2 / 256, not {bin_width!r}"
            )
        return -self.log_prob / (self.dimension * math.log(2.0)) - math.log2(bin_width)

    def __repr__(self) -> str:
        mean = float(self.log_prob.mean())
        spread = (
            ""
            if self.std_error is None
            else f" +- {float(self.std_error.square().mean().sqrt()):.2g} (a sample, from the "
            "probes)"
        )
        return (
            f"LogLikelihood(t={self.t:g}, mean log_prob={mean:.6g}{spread} nats, "
            f"{len(self.log_prob)} samples of dimension {self.dimension}, "
            f"nfe={self.nfe}, derivatives={self.derivatives}, steps={self.steps}, "
            f"rejected={self.rejected})"
        )


def log_likelihood(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    x: Tensor,
    *,
    t: float | None = None,
    divergence: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    distribution: Literal["rademacher", "gaussian"] = "rademacher",
    seed: int | None = None,
    method: Literal["rk45", "rk23"] = "rk45",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    steps: int | None = None,
    max_nfe: int = 10_000,
    data_variance: float = 1.0,
    prior: Prior | None = None,
    chunk: int = 64,
    differentiable: bool = False,
) -> LogLikelihood:
    """Log-density of states `x` at own time `t` under the model.

    The probability-flow ODE of `score` is integrated from there to t_max.

    The density is that of x_t, by default at t_min, which is the distribution of the data with a
    little noise (and the factor alpha(t_min)), not of the data. Data without noise get
    it first: `process.perturb(x0, t)`. A density without noise, at sigma(t) = 0, is not defined for
    data on a lower-dimensional set, and the ODE cannot start there.

    The state's accuracy is controlled in units of `data_variance`'s standard deviation at the noise
    level, that of the log-density in nats per coordinate. Samples of a batch share the steps, which
    satisfy the tolerance for each; with `steps` a sample's result does not depend on its batch.

    Arguments:
        process: a linear process, or another one together with `prior`.
        score: as in `srk.solve`; its output must be differentiable in `x` by autograd. The network
            runs with gradients enabled, also under no_grad.
        x: states, shape (batch, *event), float32 or float64.
        t: own time of the density, in [t_min, t_max); default t_min.
        divergence: "exact" takes one vector-Jacobian product per coordinate and evaluation;
            "hutchinson" one per probe: an unbiased estimate of `log_det`.
        probes: random vectors per sample, kept along the ODE.
        distribution: of the probes: "rademacher" (signs; smaller variance) or "gaussian".
        seed: of the probes; None takes one from the operating system. The global random state is
            never touched.
        method: "rk45" (Dormand-Prince 5(4), 6 evaluations a step) or "rk23" (Bogacki-Shampine 3(2),
            3), which is better up to some 50 evaluations.
        rtol, atol: tolerances of a step. The error of the result is larger: `docs/likelihood.md`
            has measurements.
        steps: take so many equal steps (of c, or of t for a process that is not linear) instead.
        max_nfe: give up beyond this number of evaluations.
        data_variance: v, the order of magnitude of the variance of the data; it affects cost, not
            the result.
        prior: log-density at t_max, (batch, *event) -> (batch,). Default for linear processes N(0,
            sigma(t_max)^2), from which `srk.solve` starts.
        chunk: coordinates or probes that are differentiated at once, by a vectorized backward pass;
            memory grows with it. 1 takes plain backward passes, which every network supports.
        differentiable: keep the graph, so that `log_prob` can be differentiated in `x` and in the
            network's parameters. Memory grows with nfe.

    Returns:
        A `LogLikelihood`.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is not usable.
        IncompatibleError: the output cannot be differentiated, sigma(t) = 0, or a process that is
            not linear without `prior`.
        ScoreError: the network returned something that is not finite.
        SolveError: `max_nfe` or the smallest step is reached.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential
    Equations", 2021; Grathwohl et al., "FFJORD", 2019 (fixed probes).

    Examples:
        >>> import torch, srk
        >>> process = srk.VP()
        >>> target = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.3, 0.2])
        >>> x = torch.linspace(-1.5, 1.0, 6, dtype=torch.float64)[:, None]
        >>> result = srk.log_likelihood(process, target.score(process), x)
        >>> exact = target.log_density(x, process, process.t_min)
        >>> # the prior N(0, sigma(t_max)^2) is not quite the distribution of x there
        >>> bool((result.log_prob - exact).abs().max() < 0.01)
        True
    """
    process = process_given(process)
    process.validate()
    around, prediction = process, bound_to(as_prediction(score), process)
    process = around.centred
    start = process.check_time(process.t_min if t is None else t)
    _check_state(x, prediction)
    _check_options(
        divergence, probes, distribution, method, rtol, atol, steps, max_nfe, data_variance, chunk
    )
    _check_start(process, start)
    with torch.inference_mode(False), torch.set_grad_enabled(differentiable):
        if x.is_inference():
            x = x.clone()
        if not differentiable:
            x = x.detach()
        mean = around.centre(x)
        x, prediction = hidden(prediction, x), placed(prediction, x)
        source = GeneratorNoise(seed) if divergence == "hutchinson" else None
        vectors = None if source is None else _probes(source, x, probes, distribution)
        trace = Divergence(prediction, vectors, chunk, differentiable)
        flow = _flow(process, start, float(data_variance), prediction, trace)
        density = _prior(process, prior)
        state, change, accepted, rejected = integrate(
            flow, x, coefficients(method), rtol, atol, steps, max_nfe
        )
        latent = state * flow.scale_stop
        uncentred = latent if mean is None else latent + mean
        # The prior of the caller is of the states, our own of the states less their mean.
        end = _density_at(density, latent if prior is None else uncentred)
        # The last term is the volume of the change of coordinates.
        change = change + x[0].numel() * math.log(flow.scale_stop / flow.scale_start)
        log_det = change.mean(0)
        error = (change.std(0) / math.sqrt(probes)).to(x.dtype) if probes > 1 else None
        log_prob = (end.to(log_det.dtype) + log_det).to(x.dtype)
    return LogLikelihood(
        log_prob,
        end.to(x.dtype),
        log_det.to(x.dtype),
        error,
        uncentred,
        start,
        flow.nfe,
        trace.products,
        accepted,
        rejected,
        None if source is None else source.seed,
    )


def _check_start(process: ForwardProcess, start: float) -> None:
    if retraction(process) is not None and not getattr(process, "flat", False):
        raise IncompatibleError(
            f"log_likelihood integrates in a flat space, but {process!r} lives on a curved one; "
            "use a process such as srk.Torus() or srk.VP()"
        )
    if start == process.t_max:
        raise ArgumentError(
            f"t = {start!r} is t_max, where the density is the prior itself; choose an earlier t"
        )


def _flow(
    process: ForwardProcess,
    start: float,
    variance: float,
    prediction: Prediction,
    trace: Divergence,
) -> ProbabilityFlow:
    """The ODE in the coordinates that suit the process."""
    if isinstance(process, LinearProcess):
        return LinearFlow(process, process.level(start), variance, prediction, trace)
    return OwnTimeFlow(process, start, prediction, trace)


def _density_at(density: Prior, states: Tensor) -> Tensor:
    """The log-densities of a prior at states, checked."""
    end: object = density(states)
    if not (isinstance(end, Tensor) and end.shape == states.shape[:1]):
        raise ArgumentError(
            f"prior must return log-densities of shape {tuple(states.shape[:1])}, one for "
            f"each sample, not {_kind(end)}"
        )
    return end


def _probes(source: GeneratorNoise, x: Tensor, probes: int, distribution: str) -> Tensor:
    vectors = torch.empty((probes, *x.shape), dtype=x.dtype, device=x.device)
    source.start(vectors.shape, vectors.dtype, vectors.device)
    source.prior(vectors)
    return (
        vectors if distribution == "gaussian" else torch.where(vectors < 0, -1.0, 1.0).to(x.dtype)
    )


def _prior(process: ForwardProcess, prior: Prior | None) -> Prior:
    if prior is not None:
        if not callable(prior):
            raise ArgumentTypeError(
                f"prior is a function (batch, *event) -> log-densities (batch,), not {prior!r}"
            )
        return prior
    if not isinstance(process, LinearProcess):
        raise IncompatibleError(
            f"the density of {process!r} at t_max is not known; give prior=, a function "
            "(batch, *event) -> log-densities (batch,)"
        )
    std = process.prior_std

    def normal(x: Tensor) -> Tensor:
        z = (x / std).reshape(len(x), -1).to(wide(x))
        return -0.5 * z.square().sum(1) - z.shape[1] * (
            0.5 * math.log(2.0 * math.pi) + math.log(std)
        )

    return normal


def _check_state(x: object, prediction: Prediction) -> None:
    if not isinstance(x, Tensor) or x.ndim == 0 or x.dtype not in (torch.float32, torch.float64):
        raise ArgumentTypeError(
            "x must be a float32 or float64 tensor of shape (batch, *event), not "
            f"{_kind(x)}; e.g. x.float(). "
            "A network in half precision is told by its adapter's network_dtype"
        )
    if x.numel() == 0:
        raise ArgumentError(f"x has shape {tuple(x.shape)}, which holds no number")
    event = prediction.event_shape
    if event is not None and tuple(x.shape[1:]) != tuple(event):
        raise ArgumentError(
            f"x has event shape {tuple(x.shape[1:])}, but the score is for {tuple(event)}; x "
            f"is (batch, *{tuple(event)})"
        )
    if not bool(torch.isfinite(x).all()):
        raise ArgumentError("x contains NaN or infinity, which has no density")


def _check_options(
    divergence: str,
    probes: int,
    distribution: str,
    method: str,
    rtol: float,
    atol: float,
    steps: int | None,
    max_nfe: int,
    data_variance: float,
    chunk: int,
) -> None:
    for name, value, known in (
        ("divergence", divergence, ("exact", "hutchinson")),
        ("distribution", distribution, ("rademacher", "gaussian")),
        ("method", method, METHODS),
    ):
        if value not in known:
            raise ArgumentError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    for name, count in (
        ("probes", probes),
        ("steps", 1 if steps is None else steps),
        ("max_nfe", max_nfe),
        ("chunk", chunk),
    ):
        if not is_integer(count) or count < 1:
            raise ArgumentError(f"{name} must be a positive int, not {count!r}")
    if divergence == "exact" and probes != 1:
        raise ArgumentError(
            f"probes={probes} are for divergence='hutchinson'; an exact divergence has none"
        )
    for name, number in (("rtol", rtol), ("atol", atol), ("data_variance", data_variance)):
        if not (isinstance(number, (int, float)) and 0.0 < number < math.inf):
            raise ArgumentError(f"{name} must be a positive number, not {number!r}")


def _kind(value: object) -> str:
    return (
        f"{value.dtype} of shape {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else type(value).__name__
    )
