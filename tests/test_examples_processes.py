"""The examples of other processes.

The pieces they are made of, against independent computations, and a short run.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from repository import script
from scipy.stats import kstest

import srk


@pytest.fixture(scope="module")
def well() -> ModuleType:
    return script("examples/custom_process.py")


@pytest.fixture(scope="module")
def density(well: ModuleType) -> object:
    cells = np.exp(-0.5 * ((well.GRID - 0.8) / 0.3) ** 2)
    return well.Density(well.DoubleWell(), cells / cells.sum())


def test_the_density_moves_as_the_process_does(well: ModuleType, density: object) -> None:
    """Simulated paths of the forward process (Euler-Maruyama, 400 steps) have the law of the
    Fokker-Planck solver; it ends in the equilibrium.
    """
    process = well.DoubleWell()
    generator = torch.Generator().manual_seed(0)
    x = 0.8 + 0.3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    for i in range(400):
        x = (
            x
            + process.drift(i / 400, x) / 400
            + process.diffusion(i / 400)
            * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            / 20
        )
    cumulative = np.cumsum(density.at(1.0))  # type: ignore[attr-defined]
    edges = well.GRID + well.WIDTH / 2
    assert kstest(x.numpy(), lambda q: np.interp(q, edges, cumulative)).pvalue > 1e-4
    assert cumulative[-1] == pytest.approx(1.0, abs=1e-10)
    assert np.abs(density.at(100.0) - process.equilibrium()).sum() < 1e-9


def test_the_score_in_equilibrium_is_that_of_the_potential(
    well: ModuleType, density: object
) -> None:
    x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)[:, None]
    process = well.DoubleWell()
    score = density.score(x, torch.full((41,), 60.0))  # type: ignore[attr-defined]
    assert torch.allclose(score, process.drift(60.0, x) / process.temperature, atol=1e-3)


def test_the_reverse_brings_the_data_back(well: ModuleType, density: object) -> None:
    """Wasserstein-1 to the law at t_min within the noise of 4000 exact samples (about 0.005), from
    a prior 1.2 wide.
    """
    process, n = well.DoubleWell(), 4000
    sol = srk.solve(
        process,
        density.score,
        "sra1",
        grid="quadratic",
        steps=100,
        shape=(n, 1),
        seed=0,
        dtype=torch.float64,
    )  # type: ignore[attr-defined]
    exact = well.quantiles(density.at(process.t_min), (np.arange(n) + 0.5) / n)
    assert np.abs(np.sort(sol.x[:, 0].numpy()) - exact).mean() < 0.02


def test_the_velocity_network_without_training_is_the_score_of_normal_data() -> None:
    """Its network multiplied by 0 leaves s_v of N(0, 1) data, so that a run gives N(0, 1)."""
    module = script("examples/cld.py")
    network = module.VelocityScore(width=8)
    for parameter in network.net[-1].parameters():
        parameter.data.zero_()
    process = module.PROCESS
    z = process.perturb(
        torch.randn(50, 1, generator=torch.Generator().manual_seed(0)),
        0.3,
        generator=torch.Generator().manual_seed(1),
    )
    exact = srk.targets.Gaussian(0.0, 1.0).score(process).score(z, process.level(0.3), process)
    with torch.no_grad():
        assert torch.allclose(network(z, torch.full((50,), 0.3)), exact[:, 1], atol=1e-4)
    sol = srk.solve(process, network, "gddim", shape=(4000, 2, 1), steps=40, grid="log-snr", seed=0)
    assert abs(sol.x[:, 0].std().item() - 1.0) < 0.05
