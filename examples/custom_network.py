"""A network of one's own: trained with plain PyTorch to predict noise, wrapped in an adapter, sampled from; its error beside the solver's.

    python examples/custom_network.py --out custom_network.png

The data lie on a spiral in 2-D, as a mixture of 40 narrow Gaussians, so that the exact score is known too: the distance of the samples to the data falls with
the number of network calls until the error of the network is left, and for the exact score until the floor. Half a minute on one core.
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
        self.net = nn.Sequential(nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        phases = lam[:, None] * torch.tensor([0.25, 0.5, 1.0, 2.0])
        return self.last(self.net(torch.cat([x, phases.sin(), phases.cos()], 1)))


def train(steps: int, batch: int = 512) -> NoisePredictor:
    """Denoising score matching, the noise level uniform in the half log-SNR."""
    torch.manual_seed(0)
    network = NoisePredictor()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    noisy, clean = PROCESS.lam(PROCESS.t_max), PROCESS.lam(PROCESS.t_min)
    data = TARGET.sample(50_000, seed=0)
    for _ in range(steps):
        x0, eps = data[torch.randint(len(data), (batch,))], torch.randn(batch, 2)
        lam = noisy + (clean - noisy) * torch.rand(batch)
        alpha, sigma = torch.sigmoid(2 * lam).sqrt()[:, None], torch.sigmoid(-2 * lam).sqrt()[:, None]  # of a variance-preserving process
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
    parser.add_argument("--out", type=Path, default=Path("custom_network.png"))
    args = parser.parse_args(argv)

    # The adapter says what the network predicts and in which unit it wants the noise level
    network = srk.Noise(train(args.steps), time="half-log-snr", event_shape=(2,))
    print(srk.solve(PROCESS, network, "srk2m", shape=args.samples, nfe=20, seed=0), "\n")

    reference, budgets = TARGET.sample(4 * args.samples, seed=1), (6, 12, 24, 48)
    floor = srk.analysis.sliced_w2(TARGET.sample(args.samples, seed=2), reference)
    curves, samples = {}, {}
    print("sliced Wasserstein-2 distance to the data; exact samples have", f"{floor:.4f}")
    print(f"{'solver':8s}{'score':>10s}" + "".join(f"{f'NFE {nfe}':>9s}" for nfe in budgets))
    for solver in ("srk2m", "ddpm"):
        for kind, score in (("exact", TARGET.score(PROCESS)), ("network", network)):
            runs = [srk.solve(PROCESS, score, solver, shape=args.samples, nfe=nfe, seed=0).x for nfe in budgets]
            curves[solver, kind] = [srk.analysis.sliced_w2(x, reference) for x in runs]
            samples[solver, kind] = runs[budgets.index(24)]
            print(f"{solver:8s}{kind:>10s}" + "".join(f"{error:9.4f}" for error in curves[solver, kind]))

    with house_style("examples/custom_network.py") as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.4), width_ratios=(1, 1, 1.3))
        clouds = {"data": reference, "srk2m on the network, 24 calls": samples["srk2m", "network"]}
        for axis, (title, points) in zip(axes, clouds.items(), strict=False):
            axis.plot(*points[:3000].T, ".", markersize=1.2, color=PALETTE[0])
            axis.set(title=title, xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        for i, ((solver, kind), errors) in enumerate(curves.items()):
            style = (
                {"marker": "o", "linestyle": "-"} if kind == "network" else {"marker": "s", "linestyle": "--", "markerfacecolor": "none"}
            )
            axes[2].plot(budgets, errors, color=PALETTE[i // 2], label=f"{solver}, {kind} score", **style)
        draw_floor(axes[2], floor)
        work_axes(axes[2], budgets)
        axes[2].set(title="distance to the data", ylabel="sliced Wasserstein-2")
        axes[2].legend(fontsize="small")
        figure.savefig(args.out)
        plt.close(figure)
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    main()
