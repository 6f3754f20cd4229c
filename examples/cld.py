"""Critically damped Langevin diffusion: samplers in phase space, with exact scores and with a
trained network.

    python examples/cld.py > benchmarks/results/phase-space.md

Gaussian data: the exact Kullback-Leibler divergence of the position's distribution. Mixture: the
    Wasserstein-1 distance of the positions to their exact distribution, with the
exact score and with a small network that was trained by hybrid score matching to say the score of
the velocity alone. Three minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import srk
from srk.integrators import GDDIM, SSCS

PROCESS = srk.CLD()
VARIANCES = np.logspace(-2, 0.5, 8)
WEIGHTS, MEANS, STDS = (
    np.array([0.3, 0.5, 0.2]),
    np.array([-1.0, 0.3, 1.2]),
    np.array([0.1, 0.05, 0.2]),
)
MIXTURE = srk.targets.GaussianMixture(WEIGHTS, MEANS[:, None], STDS)
SAMPLES = 20_000
SOLVERS = {
    "euler-maruyama": ("euler-maruyama", 1.0),
    "sscs": (SSCS(), 1.0),
    "sra1": ("sra1", 1.0),
    "gddim, order 1": (GDDIM(order=1), 1.0),
    "gddim": ("gddim", 1.0),
    "ddpm": ("ddpm", 1.0),
    "dpmpp-2m-sde": ("dpmpp-2m-sde", 1.0),
    "srk2m": ("srk2m", 1.0),
    "gddim, order 1, eta = 0": (GDDIM(order=1), 0.0),
    "gddim, eta = 0": ("gddim", 0.0),
    "dpmpp-2m": ("dpmpp-2m", 0.0),
    "srk2m, eta = 0": ("srk2m", 0.0),
}
BUDGETS = (12, 24, 50, 100, 200)


def quantiles() -> np.ndarray:
    """Of the position's exact distribution at t_min."""
    end = PROCESS.kernel(PROCESS.t_min)
    distribution = srk.targets.GaussianMixture(
        WEIGHTS,
        end.mean[0] * MEANS[:, None],
        np.sqrt((end.mean[0] * STDS) ** 2 + end.covariance[0, 0]),
    )
    return distribution.quantile((np.arange(SAMPLES) + 0.5) / SAMPLES).numpy()


def distance(x: Tensor, exact: np.ndarray) -> float:
    return float(np.abs(np.sort(x[:, 0, 0].double().numpy()) - exact).mean())


class VelocityScore(nn.Module):
    """s_v(z, t).

    That of N(0, 1) data, plus a network times the standard deviation of the target (the paper's
    mixed score).
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1),
        )

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.parts(
            z, *(torch.tensor(value, dtype=z.dtype) for value in coefficients(float(t[0])))
        )

    def parts(self, z: Tensor, base: Tensor, size: Tensor, time: Tensor) -> Tensor:
        inputs = torch.cat(
            [z.flatten(1), time.expand(len(z), 1) if time.ndim == 0 else time[:, None]], 1
        )
        return (base * z[:, :, 0]).sum(-1, keepdim=True) + size.reshape(-1, 1) * self.net(inputs)


def coefficients(t: float) -> tuple[np.ndarray, float, float]:
    """The velocity's row of -(a a^T + C)^-1, the standard deviation of the conditional score, and a
    time for the network.
    """
    kernel = PROCESS.kernel(t)
    base = -np.linalg.inv(kernel.covariance + np.outer(kernel.mean, kernel.mean))[1]
    return base, float(np.sqrt(np.linalg.inv(kernel.covariance)[1, 1])), float(PROCESS.lam(t)) / 5.0


def train(steps: int = 4000, batch: int = 1024) -> VelocityScore:
    """Hybrid score matching.

    Regress on the score of z_t given x0, the velocity at t = 0 integrated out.
    """
    torch.manual_seed(0)
    network = VelocityScore()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    times = [
        PROCESS.time(lam)
        for lam in np.linspace(PROCESS.lam(PROCESS.t_max), PROCESS.lam(PROCESS.t_min), 400)
    ]
    kernels = [PROCESS.kernel(t) for t in times]
    factors = torch.tensor(
        np.array([np.column_stack([k.rho * k.mean, k.complement]) for k in kernels]),
        dtype=torch.float32,
    )
    inverses = torch.tensor(
        np.array([np.linalg.inv(k.covariance)[1] for k in kernels]), dtype=torch.float32
    )
    means = torch.tensor(np.array([k.mean for k in kernels]), dtype=torch.float32)
    base, size, time = (
        torch.tensor(np.array(value), dtype=torch.float32)
        for value in zip(*map(coefficients, times), strict=True)
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x0 = MIXTURE.sample(batch, generator=generator)
        i = torch.randint(len(times), (batch,), generator=generator)
        deviation = torch.einsum(
            "bij,bj->bi", factors[i], torch.randn(batch, 2, generator=generator)
        )
        z = (means[i] * x0 + deviation)[:, :, None]
        target = -(inverses[i] * deviation).sum(1, keepdim=True)
        loss = (
            ((network.parts(z, base[i], size[i], time[i]) - target) / size[i][:, None])
            .square()
            .mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def table(title: str, value: Callable[[object, float, int], float]) -> None:
    print(f"## {title}\n")
    print("| solver | " + " | ".join(f"NFE {n}" for n in BUDGETS) + " |")
    print("|---|" + "---:|" * len(BUDGETS))
    for name, (solver, eta) in SOLVERS.items():
        print(f"| {name} | " + " | ".join(f"{value(solver, eta, n):.2g}" for n in BUDGETS) + " |")
    print()


def main() -> None:
    exact = quantiles()
    floor = distance(
        PROCESS.perturb(
            MIXTURE.sample(SAMPLES, seed=5),
            PROCESS.t_min,
            generator=torch.Generator().manual_seed(6),
        ),
        exact,
    )
    print("# Phase space: critically damped Langevin diffusion\n")
    print(
        "Made by `python examples/cld.py`, CPU, one thread. srk.CLD() with its defaults, "
        "grid log-snr from t = 1 to 0.001, no final denoising.\n"
    )

    def kl(solver: object, eta: float, nfe: int) -> float:
        return srk.analysis.gaussian_kl(
            solver, PROCESS, variance=VARIANCES, mean=0.5, nfe=nfe, eta=eta
        ) / len(VARIANCES)  # type: ignore[arg-type]

    table("Exact KL of the position, mean over Gaussian data of variance 0.01 to 3.2", kl)

    def sampled(score: object, dtype: torch.dtype) -> Callable[[object, float, int], float]:
        def value(solver: object, eta: float, nfe: int) -> float:
            options = {
                "shape": (SAMPLES, 2, 1),
                "nfe": nfe,
                "eta": eta,
                "grid": "log-snr",
                "seed": 0,
                "denoise_final": False,
                "dtype": dtype,
            }
            return distance(srk.solve(PROCESS, score, solver, **options).x, exact)

        return value

    table(
        f"Wasserstein-1 on a mixture of three Gaussians, exact score ({SAMPLES} samples; "
        f"exact samples have {floor:.2g})",
        sampled(MIXTURE.score(PROCESS), torch.float64),
    )
    table(
        "The same with a trained network of the velocity's score (MLP, 128 wide)",
        sampled(train(), torch.float32),
    )


if __name__ == "__main__":
    main()
