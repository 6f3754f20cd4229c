"""A forward process of one's own that is not linear, and its reverse: diffusion in a double well.

    python examples/custom_process.py

The forward process dx = (1.2 tanh(2x) - x) dt + sqrt(2 T) dW forgets the data and settles in p ~
exp(-U/T), U = x^2/2 - 0.6 log cosh(2x), with two modes. Its transition has no closed form; the
score is computed here from the density, which the Fokker-Planck equation moves (a finite-volume
grid, its matrix exponential by eigenvectors). Any solver in the raw frame then reverses the process
from a bare score. What is printed is the Wasserstein-1 distance of the samples to the distribution
at t_min; it falls to that of exact samples. Half a minute on one core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

import srk

GRID = np.linspace(-7.0, 7.0, 1401)
WIDTH = GRID[1] - GRID[0]


@attrs.frozen
class DoubleWell(srk.ForwardProcess):
    """dx = (1.2 tanh(2x) - x) dt + sqrt(2 T) dW, one coordinate.

    Arguments:
        temperature: T; the wells, at +-1.2, are 0.31 deep.
        t_min, t_max: the ends; at t_max the distribution is that of equilibrium but for exp(-0.34
            t_max) at T = 1.
    """

    name = "double-well"
    temperature: float = 1.0
    t_min: float = 1e-3
    t_max: float = 20.0

    def drift(self, t: float, x: Tensor) -> Tensor:
        return 1.2 * torch.tanh(2.0 * x) - x

    def diffusion(self, t: float) -> float:
        return math.sqrt(2.0 * self.temperature)

    def equilibrium(self) -> np.ndarray:
        """Probabilities of the cells of GRID."""
        weight = np.exp(-(GRID**2 / 2 - 0.6 * np.log(np.cosh(2.0 * GRID))) / self.temperature)
        return weight / weight.sum()

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws of the equilibrium, by its quantile function."""
        levels = torch.rand(tuple(shape), generator=generator, device=device, dtype=torch.float64)
        return torch.from_numpy(quantiles(self.equilibrium(), levels.cpu().numpy())).to(
            device=device, dtype=dtype or torch.float32
        )


def quantiles(probabilities: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Of a distribution given by its cells."""
    edges = np.append(GRID - WIDTH / 2, GRID[-1] + WIDTH / 2)
    return np.interp(levels, np.append(0.0, np.cumsum(probabilities)), edges)


class Density:
    """p_t on GRID by the Fokker-Planck equation, from data given as cell probabilities; and its
    score.

    The rates between cells are those of a reversible chain with the process's equilibrium
    (Scharfetter-Gummel to second order), so that a symmetric matrix has the same eigenvalues and
    the exponential is exact in time.
    """

    def __init__(self, process: DoubleWell, data: np.ndarray) -> None:
        root = np.sqrt(process.equilibrium())
        rate = process.temperature / WIDTH**2
        # from i to i + 1 at the rate sqrt(p_i+1/p_i): detailed balance
        up, down = rate * root[1:] / root[:-1], rate * root[:-1] / root[1:]
        symmetric = np.diag(-np.append(up, 0.0) - np.append(0.0, down)) + rate * (
            np.eye(len(root), k=1) + np.eye(len(root), k=-1)
        )
        self.values, vectors = np.linalg.eigh(symmetric)
        self.left, self.right = vectors.T @ (data / root), vectors * root[:, None]
        self.data = data

    def at(self, t: float) -> np.ndarray:
        """Cell probabilities at time t; below 1e-15, where rounding rules, they are that."""
        return np.maximum(self.right @ (np.exp(self.values * t) * self.left), 1e-15)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t at `x` of shape (batch, 1), t of shape (batch,), one time for all."""
        slope = np.gradient(np.log(self.at(float(t[0]))), GRID)
        return torch.from_numpy(np.interp(x.double().numpy(), GRID, slope)).to(x)


def main() -> None:
    process, samples = DoubleWell(), 20_000
    data = srk.targets.GaussianMixture(
        [0.7, 0.3], [[-0.3], [1.6]], [0.15, 0.1]
    )  # neither mode is a well
    cells = np.diff(data.cdf(np.append(GRID - WIDTH / 2, GRID[-1] + WIDTH / 2)).numpy())
    density = Density(process, cells)
    exact = quantiles(density.at(process.t_min), (np.arange(samples) + 0.5) / samples)

    def distance(x: np.ndarray) -> float:
        return float(np.abs(np.sort(x) - exact).mean())

    own = np.random.default_rng(0).random(samples)
    print(
        f"W1 to the distribution at t = {process.t_min:g}; exact samples have "
        f"{distance(quantiles(density.at(process.t_min), own)):.4f}"
    )
    for solver in ("euler-maruyama", "sra1"):
        for steps in (25, 50, 100, 200, 400):
            sol = srk.solve(
                process,
                density.score,
                solver,
                grid="quadratic",
                steps=steps,
                shape=(samples, 1),
                seed=0,
                dtype=torch.float64,
            )
            print(
                f"{solver:15s} {steps:4d} steps {sol.nfe:4d} NFE  W1 "
                f"{distance(sol.x[:, 0].numpy()):.4f}"
            )


if __name__ == "__main__":
    main()
