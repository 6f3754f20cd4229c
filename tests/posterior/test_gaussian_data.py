"""On Gaussian data MMPS and the exact method reach the posterior, to rounding.

With an affine denoiser a run is an affine map of its draws. Running it once with every draw zero,
and once for each unit vector of each draw, gives the exact mean and covariance of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.noise import NoiseSource
from srk.posterior import MMPS, TMPD, Exact, Linear, Measurement, PiGDM

D = 3
PROCESS = srk.EDM(0.01, 20.0)
COVARIANCE = torch.tensor(
    [[1.0, 0.6, -0.2], [0.6, 0.8, 0.1], [-0.2, 0.1, 0.3]], dtype=torch.float64
)
PRIOR = srk.targets.Gaussian([0.5, -0.3, 0.1], COVARIANCE)
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([1.2, -0.4], dtype=torch.float64)
MEASUREMENT = Measurement(Linear(A), Y, 0.3)


class UnitVectors(NoiseSource):
    """Row 0 draws zero; row 1 + k d + j draws the j-th unit vector at the k-th draw."""

    def __init__(self, d: int) -> None:
        self.d, self.drawn = d, 0

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.drawn = 0

    def prior(self, out: Tensor) -> None:
        first = 1 + self.drawn * self.d
        out.zero_()
        out[first : first + self.d] = torch.eye(self.d, dtype=out.dtype)
        self.drawn += 1

    def draw(self, slot: Any, clock: str, out: Tensor) -> None:
        self.prior(out)


def exact_law(prediction: Any, solver: str, steps: int) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of the output of a run from the prior."""
    source = UnitVectors(D)
    sol = srk.solve(
        PROCESS,
        prediction,
        solver,
        shape=(1 + (2 * steps + 1) * D, D),
        steps=steps,
        noise=source,
        dtype=torch.float64,
    )
    columns = (sol.x - sol.x[0])[1:]
    return sol.x[0], columns.mT @ columns


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("solver", ["ddpm", "srk2m"])
@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        (lambda p, m: Exact(p, m), 1e-12),
        (lambda p, m: Exact(p, m, covariance=COVARIANCE), 1e-12),
        # conjugate gradients solve a system of two numbers in two iterations, up to rounding
        (lambda p, m: MMPS(p, m, iterations=2), 1e-9),
    ],
)
def test_they_are_the_exact_score_of_the_posterior(
    method: Callable[..., Any], tolerance: float, solver: str
) -> None:
    """The output has the distribution that the posterior's own exact score gives."""
    wanted = exact_law(PRIOR.posterior(MEASUREMENT).score(PROCESS), solver, 20)
    got = exact_law(method(PRIOR.score(PROCESS), MEASUREMENT), solver, 20)
    assert relative(got[0], wanted[0]) < tolerance
    assert relative(got[1], wanted[1]) < tolerance


@pytest.mark.parametrize(
    "method", [lambda p, m: Exact(p, m), lambda p, m: MMPS(p, m, iterations=2)]
)
def test_the_posterior_is_reached_at_the_order_of_the_solver(method: Callable[..., Any]) -> None:
    """Exact mean and covariance: the error of srk2m falls with the square of the step."""
    posterior = PRIOR.posterior(MEASUREMENT)
    end = PROCESS.sigma(PROCESS.t_min) ** 2  # what the last denoising leaves out
    errors = []
    for steps in (40, 80):
        mean, covariance = exact_law(method(PRIOR.score(PROCESS), MEASUREMENT), "srk2m", steps)
        errors.append(
            max(
                float((mean - posterior.mean).abs().max()),
                float((covariance - posterior.full_covariance()).abs().max()),
            )
        )
    assert errors[0] < 2e-3
    assert errors[1] < errors[0] / 3.0 + 2 * end


def test_other_approximations_are_biased() -> None:
    """The same measurement shows the bias of PiGDM and TMPD on correlated data."""
    posterior = PRIOR.posterior(MEASUREMENT)
    for method in (PiGDM, TMPD):
        mean, _ = exact_law(method(PRIOR.score(PROCESS), MEASUREMENT), "srk2m", 80)
        assert float((mean - posterior.mean).abs().max()) > 0.01


def test_pigdm_is_exact_for_isotropic_data() -> None:
    prior = srk.targets.Gaussian(torch.zeros(D), 0.49)
    posterior = prior.posterior(MEASUREMENT)
    wanted = exact_law(posterior.score(PROCESS), "srk2m", 20)
    got = exact_law(PiGDM(prior.score(PROCESS), MEASUREMENT, data_std=0.7), "srk2m", 20)
    assert relative(got[0], wanted[0]) < 1e-12
    assert relative(got[1], wanted[1]) < 1e-12


@pytest.mark.parametrize(
    "noise",
    [
        {"noise_std": torch.tensor([0.2, 0.7])},
        {"covariance": torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)},
        {"noise_std": 0.0},
    ],
)
def test_noise_of_every_kind(noise: dict[str, Any]) -> None:
    """Standard deviations of each value, a covariance, and no noise at all."""
    measurement = Measurement(Linear(A), Y, **noise)
    wanted = exact_law(PRIOR.posterior(measurement).score(PROCESS), "ddpm", 10)
    for method in (Exact, lambda p, m: MMPS(p, m, iterations=2)):
        got = exact_law(method(PRIOR.score(PROCESS), measurement), "ddpm", 10)
        assert relative(got[0], wanted[0]) < 1e-8
        assert relative(got[1], wanted[1]) < 1e-8


def test_whitened_noise_has_the_same_posterior() -> None:
    covariance = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
    measurement = Measurement(Linear(A), Y, covariance=covariance)
    white = measurement.whitened((D,))
    assert white.isotropic_std == 1.0
    a, b = PRIOR.posterior(measurement), PRIOR.posterior(white)
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.covariance, b.covariance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "mmps"])
def test_within_monte_carlo_error_of_100000_samples(name: str) -> None:
    method = Exact if name == "exact" else lambda p, m: MMPS(p, m, iterations=2)
    posterior = PRIOR.posterior(MEASUREMENT)
    n = 100_000
    x = srk.solve(
        PROCESS, method(PRIOR.score(PROCESS), MEASUREMENT), "srk2m", shape=n, steps=100, seed=0
    ).x.double()
    c = posterior.full_covariance()
    assert bool(((x.mean(0) - posterior.mean).abs() < 4 * (c.diagonal() / n).sqrt()).all())
    spread = (c.square() + torch.outer(c.diagonal(), c.diagonal())) / n
    assert bool(((torch.cov(x.mT) - c).abs() < 4 * spread.sqrt() + 1e-4).all())
