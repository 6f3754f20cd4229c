"""Operators: adjoints, spectra, and what measurements refuse."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.posterior import (
    DDNM,
    MMPS,
    Exact,
    Linear,
    Measurement,
    Nonlinear,
    PiGDM,
    blur,
    downsample,
    fourier,
    gaussian_kernel,
    mask,
    radon,
)

EVENT = (2, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)
SKEW = torch.rand(3, 5, generator=GENERATOR, dtype=torch.float64)
OPERATORS: dict[str, Linear] = {
    "matrix": Linear(torch.randn(7, 128, generator=GENERATOR)),
    "function": Linear(lambda x: x.cumsum(-1)[..., ::2]),
    "mask": mask(torch.rand(EVENT, generator=GENERATOR) > 0.5),
    "blur": blur(SKEW),
    "gaussian": blur(gaussian_kernel(0.8)),
    "downsample": downsample(4),
    "radon": radon([0.0, 0.7, 1.9]),
    "fourier": fourier(torch.rand(8, 8, generator=GENERATOR) > 0.7),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_transpose_is_the_transpose(name: str) -> None:
    """<A x, v> = <x, A^T v>, and the dense matrix says the same."""
    operator = OPERATORS[name]
    x = torch.randn(3, *EVENT, generator=GENERATOR, dtype=torch.float64)
    image = operator(x)
    v = torch.randn(image.shape, generator=GENERATOR, dtype=torch.float64)
    back = operator.transpose(v, EVENT)
    assert back.shape == x.shape
    left, right = (image * v).flatten(1).sum(1), (x * back).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)
    dense = operator.matrix(EVENT)
    torch.testing.assert_close(x.flatten(1) @ dense.mT, image.flatten(1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_functions_of_a_a_transposed(name: str) -> None:
    """The spectrum in closed form agrees with the dense matrix."""
    operator = OPERATORS[name]
    x = torch.randn(2, *EVENT, generator=GENERATOR, dtype=torch.float64)
    r = operator(x)
    got = operator.spectrum(EVENT).apply(lambda s: 1.0 / (s + 0.3), r).flatten(1)
    dense = operator.matrix(EVENT)
    gram = dense @ dense.mT + 0.3 * torch.eye(len(dense), dtype=torch.float64)
    wanted = torch.linalg.solve(gram, r.flatten(1).mT).mT
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_dtype_of_the_state_is_kept(name: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    image = operator(torch.zeros(2, *EVENT, dtype=dtype))
    assert image.dtype == dtype
    assert operator.transpose(image, EVENT).dtype == dtype


@pytest.mark.parametrize("name", ["MMPS", "PiGDM", "TMPD", "DiffPIR", "DDNM", "DDRM", "Exact"])
@pytest.mark.parametrize("operator", ["mask", "blur", "downsample", "radon", "fourier"])
def test_runs_in_half_precision(name: str, operator: str) -> None:
    """The state in bfloat16: transforms and decompositions widen it by themselves."""
    process, prior = srk.EDM(0.02, 20.0), srk.targets.Gaussian(torch.zeros(EVENT), 1.0)
    truth = prior.sample(1, seed=0)
    measurement = Measurement.simulate(OPERATORS[operator], truth, 0.3, seed=0)
    method = srk.posterior.methods()[name](prior.score(process), measurement)
    sol = srk.solve(process, method, "srk2m", shape=2, steps=12, seed=0, dtype=torch.bfloat16)
    assert sol.x.dtype == torch.bfloat16
    assert float(sol.x.float().abs().max()) < 8.0


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "function"])
def test_operators_can_be_pickled_and_copied(name: str) -> None:
    """Samplers go to other processes, and pipelines copy theirs."""
    x = torch.randn(2, *EVENT, generator=GENERATOR)
    wanted = OPERATORS[name](x)
    for other in (pickle.loads(pickle.dumps(OPERATORS[name])), copy.deepcopy(OPERATORS[name])):
        assert torch.equal(other(x), wanted)


def test_a_blur_is_a_sum_over_the_kernel() -> None:
    """Against the definition: out[i, j] = sum_{a, b} k[a, b] x[i + a0 - a, j + b0 - b], around."""
    x = torch.randn(1, 8, 8, generator=GENERATOR, dtype=torch.float64)
    wanted = torch.zeros_like(x)
    for a in range(3):
        for b in range(5):
            wanted += SKEW[a, b] * x.roll((a - 1, b - 2), (-2, -1))
    torch.testing.assert_close(blur(SKEW)(x), wanted)


def test_a_nonlinear_function_is_linearized() -> None:
    operator = Nonlinear(lambda x: torch.stack([x.prod(1), x.sin().sum(1)], 1))
    x = torch.tensor([[0.5, -1.2], [2.0, 0.1]], dtype=torch.float64)
    value, product, transposed = operator.linearize(x)
    for row in range(2):

        def one(v: torch.Tensor) -> torch.Tensor:
            return operator(v[None])[0]

        j = torch.autograd.functional.jacobian(one, x[row])
        v, w = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[-1.0, 3.0]]).double()
        torch.testing.assert_close(product(v.expand(2, -1))[row], j @ v[0])
        torch.testing.assert_close(transposed(w.expand(2, -1))[row], w[0] @ j)
    assert not value.requires_grad


def test_mmps_of_a_linear_function_called_nonlinear_is_that_of_the_matrix() -> None:
    process = srk.VP()
    prior = srk.targets.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.3, 0.5])
    a = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    y = torch.tensor([0.4], dtype=torch.float64)
    x = torch.randn(5, 2, generator=GENERATOR, dtype=torch.float64)
    level = process.level(0.5)
    results = [
        MMPS(prior.score(process), Measurement(operator, y, 0.2)).denoise(x, level, process)
        for operator in (Linear(a), Nonlinear(lambda v: v @ a.mT))
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Linear(torch.ones(3)), ArgumentError, r"shape \(m, d\), not \(3,\)"),
        (lambda: Linear("mask"), ArgumentTypeError, "matrix"),
        (lambda: Measurement(torch.eye(2), torch.ones(2)), ArgumentError, "noise_std"),
        (lambda: Measurement(torch.eye(2), torch.ones(2), -0.1), ArgumentError, "-0.1"),
        (
            lambda: Measurement(torch.eye(2), torch.ones(2), covariance=-torch.eye(2)),
            ArgumentError,
            "positive definite",
        ),
        (
            lambda: Measurement(torch.eye(2), torch.tensor([0.0, float("nan")]), 0.1),
            ArgumentError,
            "NaN",
        ),
        (lambda: mask(torch.ones(3)), ArgumentTypeError, "boolean"),
        (lambda: blur(torch.ones(2, 2)), ArgumentError, "odd"),
        (lambda: downsample(0), ArgumentError, "positive"),
        (lambda: downsample(3)(torch.ones(1, 8, 8)), ArgumentError, "divides"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_what_the_methods_refuse() -> None:
    network = srk.Data(lambda x, t: 0.5 * x)
    curved = Measurement(lambda x: x.square(), torch.ones(2), 0.1)
    with pytest.raises(IncompatibleError, match="MMPS"):
        PiGDM(network, curved)
    with pytest.raises(IncompatibleError, match="whitened"):
        PiGDM(network, Measurement(torch.eye(2), torch.ones(2), torch.tensor([0.1, 0.2])))
    with pytest.raises(IncompatibleError, match="covariance"):
        Exact(network, Measurement(torch.eye(2), torch.ones(2), 0.1))
    with pytest.raises(ArgumentTypeError, match="Measurement"):
        MMPS(network, torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="iterations"):
        MMPS(network, curved, iterations=0)
    with pytest.raises(IncompatibleError, match="CLD"):
        MMPS(network, curved).bind(srk.CLD())

    def detached(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.5 * x.detach()

    measurement = Measurement(torch.eye(2), torch.ones(2), 0.1)
    with pytest.raises(IncompatibleError, match="no_grad"):
        srk.solve(srk.VP(), MMPS(srk.Data(detached), measurement), shape=(1, 2), steps=3)
    flow = srk.Flow()
    from_noise = MMPS(srk.targets.Gaussian(torch.zeros(2), 1.0).score(flow), measurement)
    with pytest.raises(IncompatibleError, match="t_max"):
        srk.solve(flow, from_noise, "ddpm", steps=3)
    wrong = Measurement(torch.eye(2), torch.ones(3), 0.1)
    with pytest.raises(ArgumentError, match="y has shape"):
        srk.solve(srk.VP(), MMPS(network, wrong), shape=(1, 2), steps=3)


def test_a_run_in_inference_mode() -> None:
    process, prior = srk.VP(), srk.targets.Gaussian(torch.zeros(2), 1.0)
    measurement = Measurement(Linear(lambda x: x[:, :1]), torch.ones(1), 0.3)
    options: dict[str, Any] = {"shape": 4, "steps": 5, "seed": 0}
    for method in (MMPS, DDNM):
        posterior = method(prior.score(process), measurement)
        usual = srk.solve(process, posterior, **options).x
        with torch.inference_mode():
            inside = srk.solve(process, posterior, **options).x
        torch.testing.assert_close(inside.clone(), usual)


def test_gradients_flow_to_the_measurement_and_the_network() -> None:
    """grad=True differentiates through the run, the method's own gradients included."""
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def run(w: torch.Tensor) -> torch.Tensor:
        network = srk.Data(lambda x, t: torch.tanh(w * x))
        measurement = Measurement(torch.tensor([[1.0, 0.5]]), torch.tensor([0.3]), 0.5)
        x = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
        posterior = MMPS(network, measurement, iterations=1)
        sol = srk.solve(srk.VP(), posterior, "ddim", x_init=x, steps=4, eta=0.0, grad=True)
        return sol.x.sum()

    assert torch.autograd.gradcheck(run, (weight,))
