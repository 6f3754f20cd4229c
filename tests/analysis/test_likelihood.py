"""Log-densities through the probability-flow ODE against closed forms, brute force and each
other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import srk
from srk.analysis import log_likelihood
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    ScoreError,
    SolveError,
    TimeError,
)

RING = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.0], [0.3, 0.5], [1.2, -1.0]], [0.15, 0.3, 0.2]
)
CORRELATED = srk.targets.Gaussian(
    [0.5, -1.0, 0.2], [[1.0, 0.6, 0.0], [0.6, 0.5, 0.1], [0.0, 0.1, 0.2]]
)
PROCESSES: dict[str, srk.LinearProcess] = {
    "vp": srk.VP(),
    "edm": srk.EDM(),
    "ve": srk.VE(),
    "sub-vp": srk.SubVP(),
    "ou": srk.OU(),
    "cosine": srk.VPCosine(),
    "discrete": srk.VPDiscrete(),
    "flow": srk.Flow(),
}


def exact_prior(target: srk.targets.Target, process: srk.LinearProcess) -> Any:
    """The law at t_max with which the ODE of the exact score gives the exact density."""
    return lambda x: target.log_density(x, process, process.t_max)


def double(
    target: srk.targets.Target, process: srk.LinearProcess, n: int, t: float | None = None
) -> Tensor:
    return target.sample(n, process, process.t_min if t is None else t, seed=1, dtype=torch.float64)


@pytest.mark.parametrize("name", list(PROCESSES))
def test_mixtures_in_every_process(name: str) -> None:
    """Within 1e-3 nats at the default tolerance; measured are 1e-4 at most.

    Starts at alpha = 0 (cosine, flow) need no epsilon.
    """
    process = PROCESSES[name]
    x = double(RING, process, 12)
    result = log_likelihood(process, RING.score(process), x, prior=exact_prior(RING, process))
    torch.testing.assert_close(
        result.log_prob, RING.log_density(x, process, process.t_min), rtol=0, atol=1e-3
    )
    assert result.nfe == 1 + 6 * (result.steps + result.rejected) < 300
    if process.level(process.t_max).alpha > 0.0:  # where there is nothing to differentiate
        assert result.derivatives == 2 * result.nfe


@pytest.mark.parametrize(("dimension", "bound"), [(1, 2e-4), (16, 1e-3)])
def test_mixtures_in_one_and_sixteen_dimensions(dimension: int, bound: float) -> None:
    centres = torch.randn(3, dimension, generator=torch.Generator().manual_seed(0)) * 0.6
    target = srk.targets.GaussianMixture([0.3, 0.5, 0.2], centres, [0.2, 0.1, 0.3])
    process = srk.VP()
    x = double(target, process, 8)
    result = log_likelihood(
        process, target.score(process), x, prior=exact_prior(target, process), chunk=5
    )
    assert (
        float((result.log_prob - target.log_density(x, process, process.t_min)).abs().max()) < bound
    )


@pytest.mark.parametrize(
    "process", [srk.VP(), srk.EDM(), srk.SubVP()], ids=lambda process: process.name
)
def test_gaussian_data_under_the_prior_that_sampling_starts_from(
    process: srk.LinearProcess,
) -> None:
    """On N(m, C) the ODE is an affine map, known in closed form.

    The latent, its density under N(0, sigma_max^2), the determinant.
    """
    t = 2.0 * process.t_min
    x = double(CORRELATED, process, 5, t)
    result = log_likelihood(
        process, CORRELATED.score(process), x, t=t, rtol=1e-9, atol=1e-9, data_variance=0.3
    )
    (m0, c0), (m1, c1) = CORRELATED.moments(process, t), CORRELATED.moments(process, process.t_max)
    _, axes = torch.linalg.eigh(CORRELATED.covariance)
    ratio = torch.diagonal(axes.T @ c1 @ axes) / torch.diagonal(axes.T @ c0 @ axes)
    latent = m1 + (x - m0) @ axes @ torch.diag(ratio.sqrt()) @ axes.T
    torch.testing.assert_close(result.latent, latent, rtol=1e-7, atol=1e-7)
    std = process.prior_std
    prior = -0.5 * (latent / std).square().sum(1) - 3 * math.log(std * math.sqrt(2 * math.pi))
    torch.testing.assert_close(result.prior, prior, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        result.log_det, (0.5 * ratio.log().sum()).expand(5), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(result.log_prob, result.prior + result.log_det, rtol=0, atol=1e-12)
    assert result.t == t


def test_the_reference_gaussian_costs_the_fewest_steps_and_is_exact() -> None:
    """N(0, v) data do not move in the coordinates used.

    Steps only grow, and the result is exact to rounding.
    """
    process, target = srk.VP(), srk.targets.Gaussian(0.0, 0.25, event_shape=(2, 3))
    x = double(target, process, 4)
    result = log_likelihood(
        process, target.score(process), x, prior=exact_prior(target, process), data_variance=0.25
    )
    torch.testing.assert_close(
        result.log_prob, target.log_density(x, process, process.t_min), rtol=0, atol=1e-11
    )
    assert result.steps < 8 and result.rejected == 0 and result.dimension == 6


def test_the_density_of_the_model_integrates_to_one() -> None:
    """Whatever the network says.

    Here a poor score, on a grid in one dimension (trapezoidal rule, spectrally accurate).
    """
    process = srk.VP()
    score = srk.Score(lambda x, t: -1.2 * x + 0.1 * torch.sin(2.0 * x))
    x = torch.linspace(-9.0, 9.0, 1201, dtype=torch.float64)[:, None]
    result = log_likelihood(process, score, x)
    assert float(torch.trapezoid(result.log_prob.exp(), x[:, 0])) == pytest.approx(1.0, abs=2e-5)


def test_points_have_a_density_with_noise() -> None:
    process = srk.EDM()
    points = srk.targets.Empirical([[0.0, 0.0], [1.0, 0.5], [0.0, 1.0]], precision=torch.float64)
    x = double(points, process, 8, 0.2)
    result = log_likelihood(
        process, points.score(process), x, t=0.2, prior=exact_prior(points, process)
    )
    torch.testing.assert_close(
        result.log_prob, points.log_density(x, process, 0.2), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_within_its_standard_error(distribution: Any) -> None:
    """Student's t with 15 degrees of freedom.

    Mean 0, variance 15/13, over 200 samples with 16 probes each.
    """
    process = srk.VP()
    x = double(CORRELATED, process, 200)
    score = CORRELATED.score(process)
    exact = log_likelihood(process, score, x, steps=12)
    guess = log_likelihood(
        process,
        score,
        x,
        steps=12,
        divergence="hutchinson",
        probes=16,
        distribution=distribution,
        seed=0,
    )
    assert guess.std_error is not None and bool((guess.std_error > 1e-3).all())
    z = (guess.log_prob - exact.log_prob) / guess.std_error
    assert abs(float(z.mean())) < 4.0 * math.sqrt(15 / 13 / 200)
    assert float(z.var()) == pytest.approx(15 / 13, rel=0.45)
    assert torch.equal(guess.latent, exact.latent)
    assert guess.nfe == exact.nfe and guess.derivatives == 16 * guess.nfe


def test_signs_have_no_variance_where_the_jacobian_is_diagonal() -> None:
    process, target = srk.VP(), srk.targets.Gaussian(0.3, 0.2, event_shape=(5,))
    x = double(target, process, 3)
    exact = log_likelihood(process, target.score(process), x, steps=8).log_prob
    options: dict[str, Any] = {"steps": 8, "divergence": "hutchinson", "seed": 1}
    torch.testing.assert_close(
        log_likelihood(process, target.score(process), x, **options).log_prob, exact
    )
    normal = log_likelihood(process, target.score(process), x, distribution="gaussian", **options)
    assert bool(((normal.log_prob - exact).abs() > 1e-2).any()) and normal.std_error is None


def test_probes_repeat_with_their_seed(global_rng_untouched: None) -> None:
    process = srk.VP()
    x = double(RING, process, 3)
    options: dict[str, Any] = {"steps": 4, "divergence": "hutchinson", "probes": 2}
    a, b, c, d = (
        log_likelihood(process, RING.score(process), x, seed=seed, **options)
        for seed in (1, 1, 2, None)
    )
    assert torch.equal(a.log_prob, b.log_prob) and not torch.equal(a.log_prob, c.log_prob)
    assert a.seed == 1
    again = log_likelihood(process, RING.score(process), x, seed=d.seed, **options)
    assert torch.equal(again.log_prob, d.log_prob)


@pytest.mark.parametrize(("method", "order", "stages"), [("rk23", 3, 3), ("rk45", 5, 6)])
def test_fixed_steps_converge_with_the_order_of_the_method(
    method: Any, order: int, stages: int
) -> None:
    process = srk.VP(t_min=0.3)
    x = double(RING, process, 6)
    exact = RING.log_density(x, process, process.t_min)
    errors = []
    for steps in (16, 32):
        result = log_likelihood(
            process,
            RING.score(process),
            x,
            steps=steps,
            method=method,
            prior=exact_prior(RING, process),
        )
        assert (result.steps, result.nfe, result.rejected) == (steps, stages * steps, 0)
        errors.append(float((result.log_prob - exact).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1), errors


def test_with_fixed_steps_a_sample_does_not_depend_on_its_batch() -> None:
    process = srk.VP()
    x = double(RING, process, 6)
    whole = log_likelihood(process, RING.score(process), x, steps=6).log_prob
    part = log_likelihood(process, RING.score(process), x[2:4], steps=6).log_prob
    torch.testing.assert_close(part, whole[2:4], rtol=1e-13, atol=1e-13)


class Wells(srk.ForwardProcess):
    """Motion in two wells: no transition kernel in closed form."""

    name, t_min, t_max = "wells", 0.0, 1.0

    def drift(self, t: float, x: Tensor) -> Tensor:
        return x - x**3

    def diffusion(self, t: float) -> float:
        return 0.7 + 0.3 * t

    def sample_prior(self, shape: Any, **options: Any) -> Tensor:
        raise NotImplementedError


def test_a_nonlinear_process_against_the_flow_map_by_scipy() -> None:
    """1-D.

    Log p_0(x) = log p_1(y(x)) + log dy/dx with y by DOP853 at 1e-12 and dy/dx by central
    differences.
    """

    def velocity(t: float, x: Any) -> Any:
        return x - x**3 - 0.5 * (0.7 + 0.3 * t) ** 2 * (-np.tanh(2.0 * x) - t * x)

    def end(x: Any) -> Any:
        return solve_ivp(velocity, (0.0, 1.0), x, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]

    x = np.linspace(-1.5, 1.5, 9)
    slope = (end(x + 1e-4) - end(x - 1e-4)) / 2e-4
    expected = -0.5 * end(x) ** 2 - 0.5 * math.log(2 * math.pi) + np.log(slope)
    normal = srk.targets.Gaussian(0.0, 1.0)
    score = srk.Score(lambda x, t: -torch.tanh(2.0 * x) - t[:, None] * x)
    result = log_likelihood(
        Wells(), score, torch.from_numpy(x)[:, None], prior=normal.log_density, rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(result.log_prob.numpy(), expected, atol=1e-6)
    assert result.derivatives == 2 * result.nfe  # of the drift and of the score
    with pytest.raises(IncompatibleError, match="prior="):
        log_likelihood(Wells(), score, torch.from_numpy(x)[:, None])


def test_a_matrix_diffusion_is_refused() -> None:
    class Matrix(Wells):
        def diffusion(self, t: float) -> Any:
            return np.eye(2)

    with pytest.raises(IncompatibleError, match="scalar diffusion"):
        log_likelihood(Matrix(), lambda x, t: -x, torch.zeros(1, 2), prior=lambda x: x.sum(1))


def network(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def noise_prediction(body: torch.nn.Module) -> srk.NoisePrediction:
    return srk.NoisePrediction(lambda x, t: body(torch.cat([x, t[:, None]], 1)))


def test_a_network_under_no_grad_and_inference_mode() -> None:
    """Gradients are enabled for the network alone.

    Nothing accumulates, the caller's mode and tensors stay as they are.
    """
    body = network()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    plain = log_likelihood(srk.VP(), noise_prediction(body), x, steps=8)
    one = log_likelihood(srk.VP(), noise_prediction(body), x, steps=8, chunk=1)
    torch.testing.assert_close(one.log_prob, plain.log_prob)
    with torch.no_grad():
        assert torch.equal(
            log_likelihood(srk.VP(), noise_prediction(body), x, steps=8).log_prob, plain.log_prob
        )
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inside = log_likelihood(srk.VP(), noise_prediction(body), x * 1.0, steps=8).log_prob
    assert torch.equal(inside, plain.log_prob)
    assert (
        plain.log_prob.dtype == torch.float32
        and not plain.log_prob.requires_grad
        and not x.requires_grad
    )
    assert all(parameter.grad is None for parameter in body.parameters())


def test_float32_agrees_with_float64() -> None:
    body = network()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    single = log_likelihood(srk.VP(), noise_prediction(body), x, steps=16).log_prob
    exact = log_likelihood(srk.VP(), noise_prediction(body.double()), x.double(), steps=16).log_prob
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)


def test_the_gradient_in_the_states_is_the_score() -> None:
    process = srk.VP()
    x = double(RING, process, 5, 0.05).requires_grad_()
    result = log_likelihood(
        process,
        RING.score(process),
        x,
        t=0.05,
        prior=exact_prior(RING, process),
        differentiable=True,
    )
    (gradient,) = torch.autograd.grad(result.log_prob.sum(), x)
    torch.testing.assert_close(
        gradient, RING.score(process)(x.detach(), 0.05), rtol=1e-3, atol=1e-3
    )


def test_the_gradient_in_a_parameter_is_that_of_finite_differences() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(theta: Tensor, differentiable: bool = False) -> Tensor:
        score = srk.Score(lambda x, t: -theta * torch.tanh(x) - x * t[:, None])
        options: dict[str, Any] = {
            "divergence": "hutchinson",
            "seed": 0,
            "steps": 5,
            "differentiable": differentiable,
        }
        return log_likelihood(srk.VP(t_min=0.1), score, x, **options).log_prob.sum()

    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(theta, True), theta)
    with torch.no_grad():
        difference = (total(theta + 1e-5) - total(theta - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, difference, rtol=1e-6, atol=0)


def test_bits_per_dimension() -> None:
    """N(0, 1) in 2 dimensions at its mean.

    Log2(sqrt(2 pi)) bits a coordinate; grey levels of 2/256 add 7 bits.
    """
    process, target = srk.VP(), srk.targets.Gaussian(0.0, 1.0, event_shape=(2,))
    result = log_likelihood(
        process,
        target.score(process),
        torch.zeros(1, 2, dtype=torch.float64),
        prior=exact_prior(target, process),
    )
    assert float(result.bits_per_dim()) == pytest.approx(0.5 * math.log2(2.0 * math.pi), abs=1e-9)
    assert float(result.bits_per_dim(2 / 256)) == pytest.approx(
        0.5 * math.log2(2.0 * math.pi) + 7.0, abs=1e-9
    )
    assert "dimension 2" in repr(result) and "mean log_prob=-1.83788" in repr(result)
    with pytest.raises(ArgumentError, match="bin_width"):
        result.bits_per_dim(0.0)


def test_calls_of_a_guided_prediction_are_counted() -> None:
    class Twice(srk.scores.Prediction):
        def denoise(self, x: Tensor, level: Any, process: Any) -> Tensor:
            return RING.denoise(x, level)

        def calls(self, t: float | None = None) -> int:
            return 2

    x = double(RING, srk.VP(), 2)
    assert log_likelihood(srk.VP(), Twice(), x, steps=3).nfe == 2 * 18
    assert log_likelihood(srk.VP(), Twice(), x, steps=3).log_prob.shape == (2,)


def test_a_prediction_that_autograd_cannot_see_is_refused() -> None:
    """The trap.

    D = (x - sigma eps)/alpha is differentiable even where eps is not, with a wrong divergence.
    """
    x = torch.zeros(2, 3)

    @torch.no_grad()
    def hidden(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x

    for prediction in (
        srk.NoisePrediction(hidden),
        srk.Data(hidden),
        srk.NoisePrediction(lambda x, t: torch.ones(3, requires_grad=True) * x.detach()),
    ):
        with pytest.raises(IncompatibleError, match=r"no_grad\(\)"):
            log_likelihood(srk.VP(), prediction, x, steps=2)
    with pytest.raises(IncompatibleError, match=r"no_grad\(\)"):
        log_likelihood(Wells(), hidden, x, steps=2, prior=lambda y: y.sum(1))


def test_a_network_without_batched_derivatives_names_chunk() -> None:
    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 0.5 * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return torch.from_numpy(0.5 * grad.numpy())

    x = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(IncompatibleError, match="chunk=1"):
        log_likelihood(srk.VP(), srk.NoisePrediction(lambda x, t: Plain.apply(x)), x, steps=2)
    value = log_likelihood(
        srk.VP(), srk.NoisePrediction(lambda x, t: Plain.apply(x)), x, steps=2, chunk=1
    ).log_prob
    torch.testing.assert_close(
        value,
        log_likelihood(srk.VP(), srk.NoisePrediction(lambda x, t: 0.5 * x), x, steps=2).log_prob,
    )


def test_failures_of_the_network_and_of_the_tolerance() -> None:
    x = torch.zeros(2, 1, dtype=torch.float64)
    for options in ({}, {"steps": 3}):
        with pytest.raises(ScoreError, match="nan or inf"):
            log_likelihood(srk.VP(), lambda x, t: x * math.nan, x, **options)
        with pytest.raises(ScoreError, match="derivative is nan or inf"):
            log_likelihood(srk.VP(), lambda x, t: -(x * x).sqrt(), x, **options)
    with pytest.raises(SolveError, match="loosen rtol"):
        log_likelihood(srk.VP(), RING.score(srk.VP()), double(RING, srk.VP(), 2), max_nfe=30)
    with pytest.raises(SolveError, match=r"t = 0\.5 after .* finite numbers"):
        log_likelihood(srk.VP(), lambda x, t: torch.where(t[:, None] > 0.5, math.nan, -x.tanh()), x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": torch.zeros(2, 3)}, ArgumentError, r"event shape \(3,\)"),
        ({"x": torch.zeros(2, 2, dtype=torch.float16)}, ArgumentTypeError, "network_dtype"),
        ({"x": [[0.0, 0.0]]}, ArgumentTypeError, "not list"),
        ({"x": torch.zeros(0, 2)}, ArgumentError, "no number"),
        ({"x": torch.full((1, 2), math.inf)}, ArgumentError, "NaN or infinity"),
        ({"t": 2.0}, TimeError, "outside"),
        ({"t": 1.0}, ArgumentError, "prior itself"),
        ({"process": srk.EDM(sigma_min=0.0)}, IncompatibleError, "sigma is 0"),
        ({"process": "vp"}, ArgumentTypeError, r"srk\.VP"),
        ({"divergence": "skilling"}, ArgumentError, "'hutchinson'"),
        ({"distribution": "normal"}, ArgumentError, "'gaussian'"),
        ({"method": "rk4"}, ArgumentError, "'rk45' or 'rk23'"),
        ({"probes": 0}, ArgumentError, "probes"),
        ({"probes": 3}, ArgumentError, "exact divergence"),
        ({"steps": 0}, ArgumentError, "steps"),
        ({"chunk": 1.5}, ArgumentError, "chunk"),
        ({"rtol": 0.0}, ArgumentError, "rtol"),
        ({"data_variance": -1.0}, ArgumentError, "data_variance"),
        ({"prior": 1.0}, ArgumentTypeError, "function"),
        ({"prior": lambda x: x, "steps": 1}, ArgumentError, r"shape \(2,\)"),
    ],
)
def test_what_is_wrong_is_said(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"process": srk.VP(), "x": torch.zeros(2, 2), **options}
    process, x = given.pop("process"), given.pop("x")
    with pytest.raises(error, match=message):
        log_likelihood(process, RING.score(srk.VP()), x, **given)


def test_at_infinite_noise_a_score_cannot_be_read() -> None:
    score = srk.Score(lambda x, t: -x)
    with pytest.raises(IncompatibleError, match="alpha is 0"):
        log_likelihood(srk.Flow(), score, torch.zeros(1, 1), steps=1)
    assert math.isfinite(
        float(log_likelihood(srk.Flow(t_max=0.99), score, torch.zeros(1, 1), steps=1).log_prob)
    )
