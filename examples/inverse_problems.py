"""Inpainting, deblurring and 4x super-resolution of garments with the shipped network.

    python examples/inverse_problems.py --out inverse_problems.png

For each problem the picture shows the truth, what was measured, five of 16 samples of the
posterior, their mean and their standard deviation. The method is MMPS: a forward call of the
network and two backward calls for each evaluation. The truth is an image of Fashion-MNIST's test
set where that is installed, else a garment that the network draws. About a minute on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import srk
from srk.errors import MissingDataError
from srk.posterior import MMPS, Linear, Measurement, blur, downsample, gaussian_kernel, mask
from srk.targets import datasets

PROCESS = srk.EDM(0.02, 80.0)
SHAPE = (1, 28, 28)
STD = 0.1


def truth(score: srk.EDMDenoiser, index: int, steps: int) -> Tensor:
    """A garment: of the test set where it is installed, else of the network; (1, 28, 28)."""
    try:
        return datasets.fashion_mnist(index + 1, split="test")[index][None]
    except MissingDataError:
        sol = srk.solve(PROCESS, score, "srk2m", shape=(1, *SHAPE), steps=steps, seed=index)
        return sol.x[0].clamp(-1.0, 1.0)


def problems() -> dict[str, Linear]:
    """The operators by name."""
    known = torch.ones(SHAPE, dtype=torch.bool)
    known[:, 6:22, 8:22] = False
    return {
        "inpainting": mask(known),
        "deblurring": blur(gaussian_kernel(1.5)),
        "super-resolution, 4x": downsample(4),
    }


def shown(name: str, operator: Linear, measurement: Measurement) -> Tensor:
    """The measurement as an image, (28, 28)."""
    y = measurement.y[None]
    if name == "inpainting":
        return operator.transpose(y, SHAPE)[0, 0]
    if y.shape[-1] < SHAPE[-1]:
        return F.interpolate(y, SHAPE[1:], mode="nearest")[0, 0]
    return y[0, 0]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("inverse_problems.png"))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--index", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)

    _, score = srk.targets.garments()
    score.network.to(args.device)
    rows, std_rows = [], []
    garment = truth(score, args.index, args.steps).to(args.device)
    for name, operator in problems().items():
        measurement = Measurement.simulate(operator, garment[None], STD, seed=1)
        posterior = MMPS(score, measurement, iterations=args.iterations)
        began = time.perf_counter()
        sol = srk.solve(
            PROCESS,
            posterior,
            "srk2m",
            shape=(args.samples, *SHAPE),
            steps=args.steps,
            seed=0,
            device=args.device,
        )
        seconds = time.perf_counter() - began
        residual = measurement.residual(operator(sol.x)).square().mean().sqrt()
        error = (sol.x.mean(0) - garment).square().mean().sqrt()
        print(
            f"{name:22s} NFE {sol.nfe}, {seconds:.0f} s: residual {residual:.3f} (noise {STD}), "
            f"error of the mean {error:.3f}, mean standard deviation {sol.x.std(0).mean():.3f}"
        )
        tiles = [garment[0], shown(name, operator, measurement), *sol.x[:5, 0], sol.x.mean(0)[0]]
        rows.append((name, [tile.cpu().numpy() for tile in tiles]))
        std_rows.append(sol.x.std(0)[0].cpu().numpy())
    draw(rows, std_rows, args.out)
    print(f"wrote {args.out}")


def draw(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], stds: Sequence[np.ndarray], path: Path
) -> None:
    """The picture: a row for each problem."""
    from srk.analysis.plotting import house_style

    with house_style("this example") as plt:
        columns = len(rows[0][1]) + 1
        figure, axes = plt.subplots(
            len(rows), columns, figsize=(1.1 * columns, 1.2 * len(rows) + 0.3)
        )
        count = columns - 4
        titles = ["truth", "measured", *[f"sample {i + 1}" for i in range(count)], "mean", "std"]
        for line, (name, tiles), std in zip(axes, rows, stds, strict=True):
            for axis, tile in zip(line, tiles, strict=False):
                axis.imshow(tile, cmap="gray", vmin=-1, vmax=1)
            line[-1].imshow(std, cmap="magma", vmin=0, vmax=0.6)
            line[0].set_ylabel(name, fontsize=7)
            for axis in line:
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title, fontsize=8)
        figure.savefig(path)
        plt.close(figure)


if __name__ == "__main__":
    main()
