"""Train a small U-Net on Fashion-MNIST (or CIFAR-10) with plain PyTorch, then sample from it with
srk.

    python examples/train_fashion.py    # 20 minutes of one core; resumes where it was stopped
    python examples/train_fashion.py --data cifar10 --device cuda --width 128 --minutes 120

The network is the preconditioned denoiser of EDM (Karras et al. 2022): it sees u = x0 + sigma eps
and sigma, and says E[x0 | u]. Everything that a run needs to continue is in FOLDER/checkpoint.pt,
written anew every minute; FOLDER/fashion.pt holds the averaged weights alone, in half precision,
and FOLDER/fashion.png samples drawn with `srk2m`. The U-Net itself is in srk/targets/garments.py,
with the weights that `srk.targets.garments()` reads. They took the command

    python examples/train_fashion.py --minutes 24    # 2880 steps
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import srk
from srk.targets import datasets
from srk.targets.garments import (
    PROCESS,
    Denoiser,
    UNet,
    load_denoiser,
    prediction,
)

LOG_SIGMA = (-0.3, 1.4)
"""Mean and standard deviation of log sigma in training.

Structure is decided at sigma up to the largest deviation along a direction, about 10 here.
"""


def loss(model: Denoiser, images: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the network against its unit-variance target, mean over the batch."""
    draw: Any = {"generator": generator, "device": images.device}
    sigma = torch.exp(LOG_SIGMA[0] + LOG_SIGMA[1] * torch.randn(len(images), **draw))
    u = images + sigma[:, None, None, None] * torch.randn(images.shape, **draw)
    keep, out, scale = model.coefficients(sigma[:, None, None, None])
    answer = model.network(scale * u, sigma.log() / 2).float()
    return F.mse_loss(answer, (images - keep * u) / out)


class Run:
    """Adam, the average of the weights, and a file to continue from: what trainings share.

    A subclass has the attributes model, seed, rate, half_life, steps, seconds, average, optimizer.
    """

    model: Any
    seed: int
    rate: float
    half_life: int
    steps: int
    seconds: float
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer

    def begin(self) -> None:
        """The optimizer, and the average of the weights, which begins as a copy of them."""
        self.average = {
            name: value.detach().clone() for name, value in self.model.state_dict().items()
        }
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.rate, betas=(0.9, 0.99))

    def descend(self, loss: Tensor, fraction: float) -> float:
        """Take the step of a loss; `fraction` of the run is over. Returns the loss."""
        for group in self.optimizer.param_groups:
            warm, late = min(1.0, (self.steps + 1) / 200), min(fraction, 1.0)
            group["lr"] = self.rate * warm * max(0.02, math.cos(0.5 * math.pi * late))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        decay = 0.5 ** (1.0 / min(self.half_life, 1 + self.steps / 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1.0 - decay)
        return loss.item()

    def save(self, path: Path) -> None:
        """Everything that `load` needs."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        write(
            path,
            {
                **state,
                "options": self.model.network.options,
                "steps": self.steps,
                "seconds": self.seconds,
                "seed": self.seed,
            },
        )

    def load(self, path: Path) -> Self:
        """Continue the run that `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (state["options"], state["seed"]) != (self.model.network.options, self.seed):
            raise SystemExit(
                f"{path} belongs to a run with options {state['options']} and seed "
                f"{state['seed']}; use these or another --folder"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.steps, self.seconds = state["steps"], state["seconds"]
        return self


@attrs.define
class Training(Run):
    """A run of Adam with an exponential average of the weights, which can be saved and continued.

    Arguments:
        model: what is trained; it stays on its device.
        seed: of batches and noise.
        batch: images a step.
        rate: learning rate after the first 200 steps.
        half_life: of the average, in steps; shorter early in the run.
    """

    model: Denoiser
    seed: int = 0
    batch: int = 128
    rate: float = 2e-3
    half_life: int = 300
    steps: int = attrs.field(init=False, default=0)
    seconds: float = attrs.field(init=False, default=0.0)
    average: dict[str, Tensor] = attrs.field(init=False)
    optimizer: torch.optim.Optimizer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.begin()

    def step(self, images: Tensor, fraction: float) -> float:
        """One step on a random batch of `images`.

        `fraction` of the run is over. Returns the loss.
        """
        device = next(self.model.parameters()).device
        generator = torch.Generator(device).manual_seed(
            self.seed * 1_000_003 + self.steps
        )  # of this step alone, so that a run continues exactly
        chosen = torch.randint(len(images), (self.batch,), generator=generator, device=device)
        batch = images[chosen.to(images.device)].to(device)
        mirror = torch.rand(len(batch), 1, 1, 1, generator=generator, device=device) < 0.5
        batch = torch.where(mirror, batch.flip(-1), batch)
        with torch.autocast(device.type, torch.bfloat16):
            found = loss(self.model, batch, generator)
        return self.descend(found, fraction)

    def averaged(self) -> Denoiser:
        """A copy of the model with the averaged weights, in evaluation mode."""
        device = next(self.model.parameters()).device
        model = Denoiser(UNet(**self.model.network.options), self.model.sigma_data).to(device)
        model.load_state_dict(self.average)
        return model.eval().requires_grad_(False)


def write(path: Path, content: Any) -> None:
    """Save tensors and numbers so that a reader sees the old file or the new one, never half of
    it.
    """
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)


def save_weights(model: Denoiser, path: Path) -> None:
    """The weights alone, in half precision."""
    halves = {name: value.half() for name, value in model.state_dict().items()}
    write(
        path, {"options": model.network.options, "sigma_data": model.sigma_data, "weights": halves}
    )


def sheet(images: Tensor, columns: int = 12, scale: int = 2) -> Any:
    """Images (n, 1 or 3, h, w) in [-1, 1] as one picture, row by row; `.save(path)` writes it."""
    from PIL import Image

    n, channels, h, w = images.shape
    rows = -(-n // columns)
    canvas = images.new_full((channels, rows * (h + 1) + 1, columns * (w + 1) + 1), 1.0)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + 1) + 1, (i % columns) * (w + 1) + 1
        canvas[:, top : top + h, left : left + w] = image
    pixels = (
        ((canvas.clamp(-1, 1) + 1) * 127.5)
        .round()
        .byte()
        .repeat_interleave(scale, 1)
        .repeat_interleave(scale, 2)
        .cpu()
    )
    return Image.fromarray(pixels[0].numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy())


def train(
    run: Training, images: Tensor, minutes: float, every: Callable[[], None], interval: float = 60.0
) -> None:
    """Train until the run has had `minutes` of wall-clock time, calling `every` each `interval`
    seconds and at the end.
    """
    began, saved, losses = time.monotonic() - run.seconds, time.monotonic(), []
    while run.seconds < 60 * minutes:
        losses.append(run.step(images, run.seconds / (60 * minutes)))
        run.seconds = time.monotonic() - began
        if time.monotonic() - saved > interval:
            every()
            print(
                f"{run.seconds / 60:5.1f} min  step {run.steps}  loss "
                f"{sum(losses) / len(losses):.4f}",
                flush=True,
            )
            saved, losses = time.monotonic(), []
    every()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("fashion", "cifar10"), default="fashion")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of training, all runs on this folder together"
    )
    parser.add_argument("--width", type=int, default=48, help="channels at the finer resolution")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("trained"))
    args = parser.parse_args(argv)

    images = datasets.fashion_mnist()[:, None] if args.data == "fashion" else datasets.cifar10()
    torch.manual_seed(args.seed)  # the initial weights
    model = Denoiser(
        UNet(images.shape[1], images.shape[2], args.width), float(images[:1000].std())
    ).to(args.device)
    run = Training(model, seed=args.seed, batch=args.batch)
    args.folder.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = args.folder / "checkpoint.pt", args.folder / f"{args.data}.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"continuing after {run.steps} steps, {run.seconds / 60:.1f} minutes")

    train(run, images, args.minutes, lambda: run.save(checkpoint))
    save_weights(run.averaged(), weights)
    sol = srk.solve(
        PROCESS,
        prediction(load_denoiser(weights).to(args.device)),
        "srk2m",
        shape=60,
        nfe=40,
        seed=0,
        device=args.device,
    )
    sheet(sol.x).save(args.folder / f"{args.data}.png")
    print(
        f"{weights}: {run.steps} steps, {weights.stat().st_size / 1e6:.2f} MB; "
        f"{args.data}.png: {sol!r}"
    )


if __name__ == "__main__":
    main()
