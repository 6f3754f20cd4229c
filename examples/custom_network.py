"""A network of one's own: trained with plain PyTorch to predict noise, wrapped in an adapter,
sampled from; its error beside the solver's.

    python examples/custom_network.py --out custom_network.png

The data lie on a spiral in 2-D, as a mixture of 40 narrow Gaussians, so that the exact score is
known too: the distance of the samples to the data falls with the number of network calls until the
error of the network is left, and for the exact score until the floor. A minute on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import srk
from srk.analysis.plotting import PALETTE, draw_floor, house_style, work_axes

PROCESS = srk.VP()
ANGLES = torch.linspace(0.0, 3.0 * math.pi, 40)
SPIRAL = torch.stack([ANGLES.cos(), ANGLES.sin()], 1) * (0.4 + 1.2 * ANGLES[:, None] / ANGLES[-1])
TARGET = srk.targets.GaussianMixture(0.3 + ANGLES / ANGLES[-1], SPIRAL, [0.06] * 40)


class NoisePredictor(nn.Module):
    """E[eps | x_t] of a 2-D point and the half log-SNR of its noise level."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(26, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        phases = torch.cat(
            [
                lam[:, None] * torch.tensor([0.25, 0.5, 1.0, 2.0]),
                *(k * x for k in (1.0, 2.0, 4.0, 8.0)),
            ],
            1,
        )
        return self.last(self.net(torch.cat([x, phases.sin(), phases.cos()], 1)))


def train(steps: int, batch: int = 512) -> NoisePredictor:
    """Denoising score matching, most of the noise levels where the spiral takes shape."""
    torch.manual_seed(0)
    network = NoisePredictor()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    noisy, clean = PROCESS.lam(PROCESS.t_max), PROCESS.lam(PROCESS.t_min)
    data = TARGET.sample(50_000, seed=0)
    for _ in range(steps):
        x0, eps = data[torch.randint(len(data), (batch,))], torch.randn(batch, 2)
        lam = (1.0 + 2.0 * torch.randn(batch)).clamp(noisy, clean)
        alpha, sigma = (
            torch.sigmoid(2 * lam).sqrt()[:, None],
            torch.sigmoid(-2 * lam).sqrt()[:, None],
        )  # of a variance-preserving process
        loss = (network(alpha * x0 + sigma * eps, lam) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("custom_network.png"))
    args = parser.parse_args(argv)

    # The adapter says what the network predicts and in which unit it wants the noise level
    network = srk.NoisePrediction(train(args.steps), time="half-log-snr", event_shape=(2,))
    sol = srk.solve(PROCESS, network, "srk2m", shape=3000, nfe=20, seed=0)
    print(sol, "\n")

    solvers, budgets, metric = ("srk2m", "ddpm"), (6, 10, 16, 24), "sliced-w2"
    results = {}
    for kind, score in (("exact score", TARGET.score(PROCESS)), ("network", network)):
        results[kind] = srk.analysis.compare(
            solvers,
            PROCESS,
            score,
            TARGET,
            nfe=budgets,
            metrics=[metric],
            repeats=args.repeats,
            samples=args.samples,
        )
        print(f"{kind}\n{results[kind]}\n")

    with house_style("examples/custom_network.py") as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.4), width_ratios=(1, 1, 1.3))
        clouds = {
            "data": TARGET.sample(3000, seed=1),
            f"srk2m on the network, {sol.nfe} calls": sol.x,
        }
        for axis, (title, points) in zip(axes, clouds.items(), strict=False):
            axis.plot(*points.T, ".", markersize=1.2, color=PALETTE[0])
            axis.set(
                title=title,
                xlim=(-2.1, 2.1),
                ylim=(-2.1, 2.1),
                aspect="equal",
                xlabel="$x_1$",
                ylabel="$x_2$",
            )
        for kind, result in results.items():
            style = {
                "linestyle": "-" if kind == "network" else "--",
                "marker": "o" if kind == "network" else "s",
            }
            for colour, solver in zip(PALETTE, solvers, strict=False):
                cells = [result.cell(solver, nfe, metric) for nfe in budgets]
                errors, bars = [cell.mean for cell in cells], [2 * cell.error for cell in cells]
                axes[2].errorbar(
                    budgets, errors, yerr=bars, color=colour, label=f"{solver}, {kind}", **style
                )
        draw_floor(axes[2], results["network"].floor(metric).mean)
        work_axes(axes[2], budgets)
        axes[2].set(title="distance to the data", ylabel="sliced Wasserstein-2")
        axes[2].set_ylim(top=1.5)
        axes[2].legend(fontsize="small", loc="upper right")
        figure.savefig(args.out)
        plt.close(figure)
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    main()
