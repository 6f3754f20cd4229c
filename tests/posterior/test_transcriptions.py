"""Each method, for one step of a solver, equals its paper's update written out here, to 1e-10.

The network is a small smooth function with a Jacobian that is not symmetric; the process is
variance-preserving; `abar` is the papers' cumulative alpha, so that alpha = sqrt(abar). What the
papers call the score is s = (sqrt(abar) D - x)/(1 - abar), in the papers of the variance-exploding
family (D - x)/sigma^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.posterior import (
    DDNM,
    DDRM,
    DPS,
    MMPS,
    SDA,
    TMPD,
    DiffPIR,
    Exact,
    Linear,
    Measurement,
    Nonlinear,
    PiGDM,
)

torch.manual_seed(0)
D, M, B = 5, 3, 4
W1, W2 = torch.randn(2, D, D, dtype=torch.float64) / math.sqrt(D)
A = torch.randn(M, D, dtype=torch.float64)
Y = torch.randn(M, dtype=torch.float64)
X = torch.randn(B, D, dtype=torch.float64)
Z = torch.randn(B, D, dtype=torch.float64)
STD = 0.3
VP = srk.VP()
START, STOP = VP.level(0.6), VP.level(0.55)


def denoiser(x: Tensor) -> Tensor:
    """A network that says the denoiser."""
    return torch.tanh(x @ W1.mT) @ W2.mT + 0.3 * x


def network(x: Tensor, t: Tensor) -> Tensor:
    return denoiser(x)


PREDICTION = srk.Data(network, event_shape=(D,))


def jacobian(x: Tensor) -> Tensor:
    """dD_i/dx_j of each sample, shape (batch, D, D), by columns."""
    return torch.stack([torch.autograd.functional.jacobian(denoiser, row) for row in x])


def noise(slot: Any, clock: str, out: Tensor) -> None:
    out.copy_(Z)


def step(posterior: Any, solver: str, eta: float | None = None, process: Any = VP) -> Tensor:
    """One step from START to STOP."""
    return srk.solve(
        process,
        posterior,
        solver,
        x_init=X,
        grid=[0.6, 0.55],
        eta=eta,
        noise=noise,
        denoise_final=False,
    ).x


def ddpm(x0: Tensor) -> Tensor:
    """The ancestral step of DDPM, equation (7) of Ho et al. 2020, from START to STOP."""
    abar, before = START.alpha**2, STOP.alpha**2
    beta = 1.0 - abar / before
    mean = math.sqrt(before) * beta / (1 - abar) * x0
    mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - abar) * X
    return mean + math.sqrt((1 - before) / (1 - abar) * beta) * Z


def ddim(x0: Tensor) -> Tensor:
    """The deterministic step of DDIM, equation (12) of Song et al. 2021."""
    eps = (X - START.alpha * x0) / START.sigma
    return STOP.alpha * x0 + STOP.sigma * eps


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0.0, atol=1e-10)


def linear() -> Measurement:
    return Measurement(Linear(A), Y, STD)


def tweedie(score: Tensor) -> Tensor:
    """The denoiser of a score, the formula that the papers start from."""
    return (X + START.sigma**2 * score) / START.alpha


def prior_score() -> Tensor:
    return (START.alpha * denoiser(X) - X) / START.sigma**2


def test_dps_likelihood_equation_16() -> None:
    """grad log p(y | x_t) = -(1/sigma_y^2) grad |y - A x0_hat|^2/2, added to the score."""
    x = X.clone().requires_grad_()
    loss = -((Y - denoiser(x) @ A.mT) ** 2).sum() / (2 * STD**2)
    (gradient,) = torch.autograd.grad(loss, x)
    close(step(DPS(PREDICTION, linear()), "ddpm"), ddpm(tweedie(prior_score() + gradient)))


def test_dps_algorithm_1() -> None:
    """x_{i-1} = DDPM step - zeta grad |y - A x0_hat|, the authors' step size.

    The paper writes zeta_i grad |y - A x0_hat|^2 with zeta_i = zeta'/|y - A x0_hat|, which is this
    with zeta = 2 zeta'; the authors' program has the gradient of the distance, as here.
    """
    paper = 0.35
    x = X.clone().requires_grad_()
    square = ((Y - denoiser(x) @ A.mT) ** 2).sum(1)
    (gradient,) = torch.autograd.grad(square.sum(), x)
    zeta_i = paper / square.detach().sqrt()[:, None]
    wanted = ddpm(denoiser(X)) - zeta_i * gradient
    posterior = DPS.of_paper(PREDICTION, linear(), VP, [0.6, 0.55], zeta=2 * paper)
    close(step(posterior, "ddpm"), wanted)


def test_dps_of_a_nonlinear_operator() -> None:
    x = X.clone().requires_grad_()
    loss = -((Y - (denoiser(x) @ A.mT).sin()) ** 2).sum() / (2 * STD**2)
    (gradient,) = torch.autograd.grad(loss, x)
    measurement = Measurement(Nonlinear(lambda v: (v @ A.mT).sin()), Y, STD)
    close(step(DPS(PREDICTION, measurement), "ddim", 0.0), ddim(tweedie(prior_score() + gradient)))


def test_sda_likelihood() -> None:
    """N(y | A(x0_hat), Sigma_y + (sigma/mu)^2 Gamma) with Gamma = gamma I."""
    gamma = 0.2
    x = X.clone().requires_grad_()
    variance = STD**2 + gamma * (START.sigma / START.alpha) ** 2
    loss = -((Y - (denoiser(x) @ A.mT).tanh()) ** 2).sum() / (2 * variance)
    (gradient,) = torch.autograd.grad(loss, x)
    measurement = Measurement(lambda v: (v @ A.mT).tanh(), Y, STD)
    posterior = SDA(PREDICTION, measurement, gamma=gamma)
    close(step(posterior, "ddim", 0.0), ddim(tweedie(prior_score() + gradient)))


def test_pigdm_equation_7() -> None:
    """((y - H x0_hat)^T (r_t^2 H H^T + sigma_y^2 I)^-1 H dx0_hat/dx)^T."""
    r2 = START.sigma**2 / (START.sigma**2 + START.alpha**2)
    inverse = torch.linalg.inv(r2 * A @ A.mT + STD**2 * torch.eye(M, dtype=torch.float64))
    row = (Y - denoiser(X) @ A.mT) @ inverse @ A
    gradient = torch.einsum("bi,bij->bj", row, jacobian(X))
    wanted = ddim(tweedie(prior_score() + gradient))
    close(step(PiGDM(PREDICTION, linear()), "ddim", 0.0), wanted)


def test_tmpd_with_row_sums() -> None:
    """J^T A^T (diag(A V A^T 1) + sigma_y^2)^-1 (y - A m), V = (sigma^2/alpha) J^T."""
    scale = START.sigma**2 / START.alpha
    j = jacobian(X)
    sums = torch.einsum("mi,bji,nj->bmn", A, scale * j, A).sum(2)
    total = sums.clamp_min(0.0) + STD**2
    assert bool((sums > 0.0).any())
    weighted = ((Y - denoiser(X) @ A.mT) / total) @ A
    gradient = torch.einsum("bi,bij->bj", weighted, j)
    wanted = ddim(tweedie(prior_score() + gradient))
    close(step(TMPD(PREDICTION, linear()), "ddim", 0.0), wanted)


def symmetric(x: Tensor) -> Tensor:
    """A denoiser with a symmetric positive Jacobian, as every exact one has: a gradient."""
    return torch.tanh(x @ W1.mT) @ W1 + 0.3 * x


def test_mmps_moment_matching() -> None:
    """J^T A^T (Sigma_y + A V A^T)^-1 (y - A x0_hat), V = (sigma^2/alpha) J^T, solved exactly."""
    prediction = srk.Data(lambda x, t: symmetric(x))
    j = torch.stack([torch.autograd.functional.jacobian(symmetric, row) for row in X])
    v = START.sigma**2 / START.alpha * j
    total = torch.einsum("mi,bij,nj->bmn", A, v, A) + STD**2 * torch.eye(M, dtype=torch.float64)
    weighted = torch.linalg.solve(total, Y - symmetric(X) @ A.mT) @ A
    gradient = torch.einsum("bi,bij->bj", weighted, j)
    score = (START.alpha * symmetric(X) - X) / START.sigma**2
    posterior = MMPS(prediction, linear(), iterations=M)
    close(step(posterior, "ddim", 0.0), ddim(tweedie(score + gradient)))


def test_mmps_iterations_are_those_of_conjugate_gradients() -> None:
    """With fewer iterations, the iterates of Hestenes and Stiefel, written out."""
    prediction = srk.Data(lambda x, t: symmetric(x))
    j = torch.stack([torch.autograd.functional.jacobian(symmetric, row) for row in X])
    v = START.sigma**2 / START.alpha * j
    total = torch.einsum("mi,bij,nj->bmn", A, v, A) + STD**2 * torch.eye(M, dtype=torch.float64)
    r = Y - symmetric(X) @ A.mT
    w, p = torch.zeros_like(r), r
    for _ in range(2):
        image = torch.einsum("bmn,bn->bm", total, p)
        a = (r * r).sum(1) / (p * image).sum(1)
        w = w + a[:, None] * p
        new = r - a[:, None] * image
        p = new + ((new * new).sum(1) / (r * r).sum(1))[:, None] * p
        r = new
    wanted = symmetric(X) + torch.einsum("bij,bj->bi", v, w @ A)
    posterior = MMPS(prediction, linear(), iterations=2)
    close(posterior.bind(VP).denoise(X, START, VP), wanted)


@pytest.mark.parametrize("zeta", [0.0, 0.3])
def test_diffpir_algorithm_1(zeta: float) -> None:
    """The proximal step, and sqrt(1 - zeta) eps_hat + sqrt(zeta) eps for the next state."""
    weight = 3.0
    sigma_bar = START.sigma / START.alpha
    rho = weight * STD**2 / sigma_bar**2
    x0 = denoiser(X)
    x0 = torch.linalg.solve(
        A.mT @ A + rho * torch.eye(D, dtype=torch.float64), (Y @ A + rho * x0).mT
    ).mT
    eps = (X - START.alpha * x0) / START.sigma
    wanted = STOP.alpha * x0
    wanted = wanted + STOP.sigma * (math.sqrt(1 - zeta) * eps + math.sqrt(zeta) * Z)
    # DDIM's eta that makes the variance of the step zeta (1 - abar')
    unit = (STOP.sigma / START.sigma) * math.sqrt(1 - START.alpha**2 / STOP.alpha**2)
    eta = math.sqrt(zeta) * STOP.sigma / unit
    if eta > 1.0:
        pytest.skip("the step is too short for this zeta")
    close(step(DiffPIR(PREDICTION, linear(), weight=weight), "ddim", eta), wanted)


def test_ddnm_equation_13() -> None:
    """x0_hat = A^+ y + (I - A^+ A) x0, then the step of DDPM."""
    inverse = torch.linalg.pinv(A)
    x0 = Y @ inverse.mT + denoiser(X) @ (torch.eye(D, dtype=torch.float64) - inverse @ A).mT
    close(step(DDNM(PREDICTION, linear()), "ddpm"), ddpm(x0))


@pytest.mark.parametrize("std", [0.05, 1.5, 40.0])
def test_ddrm_equations_7_and_8(std: float) -> None:
    """The mean of the next state at eta = 1, direction by direction, in the VE scale."""
    eta_b = 0.8
    u, s, vh = torch.linalg.svd(A, full_matrices=True)
    x0 = denoiser(X) @ vh.mT
    ybar = (Y @ u) / s
    sigma = START.sigma / START.alpha
    mean = x0.clone()
    for i in range(M):
        if sigma >= std / s[i]:
            mean[:, i] = (1 - eta_b) * x0[:, i] + eta_b * ybar[i]
    posterior = DDRM(PREDICTION, Measurement(Linear(A), Y, std), eta_b=eta_b)
    close(posterior.bind(VP).denoise(X, START, VP), mean @ vh)
    close(step(posterior, "ddim", 0.0), ddim(mean @ vh))


def test_exact_equals_the_conditional_gaussian() -> None:
    """Cov(x_0 | x_t) = (Sigma^-1 + alpha^2/sigma^2)^-1 in the update of the mean."""
    root = torch.randn(D, D, dtype=torch.float64)
    sigma = root @ root.mT
    c = torch.linalg.inv(
        torch.linalg.inv(sigma)
        + (START.alpha / START.sigma) ** 2 * torch.eye(D, dtype=torch.float64)
    )
    total = A @ c @ A.mT + STD**2 * torch.eye(M, dtype=torch.float64)
    x0 = denoiser(X)
    wanted = x0 + torch.linalg.solve(total, (Y - x0 @ A.mT).mT).mT @ (A @ c)
    close(step(Exact(PREDICTION, linear(), covariance=sigma), "ddpm"), ddpm(wanted))


METHODS: dict[str, Callable[..., Any]] = {
    "DPS": DPS,
    "SDA": SDA,
    "PiGDM": PiGDM,
    "TMPD": TMPD,
    "MMPS": MMPS,
    "DiffPIR": DiffPIR,
    "DDNM": DDNM,
    "DDRM": DDRM,
}


@pytest.mark.parametrize("name", METHODS)
def test_matrix_function_and_adjoint_agree(name: str) -> None:
    """The same operator as a matrix, a function, and a function with its adjoint."""
    given = [
        Linear(A),
        Linear(lambda x: x @ A.mT),
        Linear(lambda x: x @ A.mT, lambda v: v @ A),
    ]
    results = [
        METHODS[name](PREDICTION, Measurement(operator, Y, STD)).denoise(X, START, VP)
        for operator in given
    ]
    for other in results[1:]:
        close(other, results[0])


@pytest.mark.parametrize("name", METHODS)
def test_nfe_counts_forward_and_backward_calls(name: str) -> None:
    calls = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            calls["forward"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            calls["backward"] += 1
            return grads[0]

    def counting(x: Tensor, t: Tensor) -> Tensor:
        out = Counted.apply(denoiser(x))
        assert isinstance(out, Tensor)
        return out

    posterior = METHODS[name](srk.Data(counting), linear())
    sol = srk.solve(VP, posterior, "ddim", x_init=X, steps=4)
    assert sol.nfe == calls["forward"] + calls["backward"]
    assert sol.nfe == 5 * posterior.calls()


@pytest.mark.parametrize("name", METHODS)
def test_measurements_of_each_sample_go_with_their_samples(name: str) -> None:
    """A batch in one piece, and cut in pieces of one sample."""
    own = Y + torch.arange(B, dtype=torch.float64)[:, None]
    posterior = METHODS[name](PREDICTION, Measurement(Linear(A), own, STD))
    options: dict[str, Any] = {"x_init": X, "steps": 3, "noise": "keyed", "seed": 1}
    whole = srk.solve(VP, posterior, "ddpm", **options).x
    parts = srk.solve(VP, posterior, "ddpm", microbatch=1, **options).x
    close(parts, whole)
