"""Train a small class-conditional U-Net on CIFAR-10 with plain PyTorch, calibrate it, then sample
from it with guidance.

    python examples/train_cifar.py --sample                    # with the weights that are here
    python examples/train_cifar.py --minutes 100               # one core; 16 x 16; resumes
    python examples/train_cifar.py --device cuda --size 32 --width 128 --minutes 240 --compile

The network is the preconditioned denoiser of EDM (Karras et al. 2022) that
examples/train_fashion.py trains, with one more resolution and a class: one tenth of the training
images have the class "none", so that the same network is the reference of classifier-free guidance
(Ho and Salimans 2022). It runs in the memory format channels-last, the averaged weights are those
of train_fashion.py, and --compile compiles the network. FOLDER/checkpoint.pt holds all that a run
needs to continue, FOLDER/cifar.pt the averaged weights alone, in half precision,
FOLDER/profile.json the calibration at the guidance scale of the samples, and FOLDER/cifar.png ten
samples of every class.

examples/cifar.pt comes with the repository.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_fashion import Run, sheet, train, write

import srk
from srk.targets import datasets
from srk.targets.garments import Attention, Block

SIGMA_DATA = 0.5
"""Standard deviation of a channel of CIFAR-10 in [-1, 1]."""
LOG_SIGMA = (-0.6, 1.4)
"""Mean and standard deviation of log sigma in training."""
CLASSES = 10
DROPPED = 0.1
"""Share of the training images whose class the network is not told."""
GUIDANCE = 2.0
PROCESS = srk.EDM(sigma_min=0.01, sigma_max=80.0)
WEIGHTS = Path(__file__).with_name("cifar.pt")
"""What a run of 100 minutes on one core gave."""


class UNet(nn.Module):
    """Three resolutions, the image folded into blocks of 2 x 2 pixels first.

    Arguments:
        size: of the image, a multiple of 8.
        width: channels at the finest resolution, a multiple of 16; twice that at the others.
    """

    def __init__(self, size: int = 16, width: int = 48) -> None:
        super().__init__()
        self.options = {"size": size, "width": width}
        n, wide, embedding = width, 2 * width, 2 * width
        self.register_buffer(
            "frequencies",
            torch.exp(torch.linspace(math.log(0.25), math.log(16.0), n)),
            persistent=False,
        )
        self.level = nn.Linear(2 * n, embedding)
        self.label = nn.Embedding(CLASSES + 1, embedding)  # the last is "none"
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.enter = nn.Conv2d(12, n, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(n, size // 2, size // 2))
        self.fine = nn.ModuleList([Block(n, n, embedding), Block(n, n, embedding)])
        self.coarsen1 = nn.Conv2d(n, wide, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([Block(wide, wide, embedding), Block(wide, wide, embedding)])
        self.attend1 = Attention(wide)
        self.coarsen2 = nn.Conv2d(wide, wide, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList([Block(wide, wide, embedding), Block(wide, wide, embedding)])
        self.attend2 = Attention(wide)
        self.up_middle = nn.ModuleList(
            [Block(2 * wide, wide, embedding), Block(2 * wide, wide, embedding)]
        )
        self.refine = nn.Conv2d(wide, n, 3, padding=1)
        self.up_fine = nn.ModuleList([Block(2 * n, n, embedding), Block(2 * n, n, embedding)])
        self.leave = nn.Sequential(nn.GroupNorm(8, n), nn.SiLU(), nn.Conv2d(n, 12, 3, padding=1))
        nn.init.zeros_(self.label.weight)
        nn.init.zeros_(self.leave[-1].weight)

    def forward(self, x: Tensor, log_sigma: Tensor, label: Tensor) -> Tensor:
        angles = log_sigma[:, None] * self.frequencies
        embedding = self.level(torch.cat([angles.cos(), angles.sin()], 1)) + self.label(label)
        embedding = self.embed(embedding)
        h = self.enter(F.pixel_unshuffle(x, 2)) + self.place
        fine, middle = [], []
        for block in self.fine:
            h = block(h, embedding)
            fine.append(h)
        h = self.coarsen1(h)
        for block in self.middle:
            h = block(h, embedding)
            middle.append(h)
        h = self.coarsen2(self.attend1(h))
        for block in self.coarse:
            h = block(h, embedding)
        h = F.interpolate(self.attend2(h), scale_factor=2.0, mode="nearest")
        for block in self.up_middle:
            h = block(torch.cat([h, middle.pop()], 1), embedding)
        h = self.refine(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        for block in self.up_fine:
            h = block(torch.cat([h, fine.pop()], 1), embedding)
        return F.pixel_shuffle(self.leave(h), 2)


class Denoiser(nn.Module):
    """E[x0 | x0 + sigma eps = u, class], from a network that sees an input and has a target of unit
    variance at every sigma (Karras et al. 2022, table 1).
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, u: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        keep, out, scale = coefficients(sigma[:, None, None, None])
        given = (scale * u).contiguous(memory_format=torch.channels_last)
        return keep * u + out * self.network(given, sigma.log() / 2, label).to(u.dtype)


def coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in."""
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), 1 / total.sqrt()


@attrs.define
class Training(Run):
    """A run of Adam with an exponential average of the weights, which can be saved and continued.

    Arguments:
        model: what is trained; it stays on its device.
        labels: of the images, shape (n,).
        seed: of batches and noise.
        batch: images a step.
        rate: learning rate after the first 200 steps.
        half_life: of the average, in steps; shorter early in the run.
        compile: compile the network with torch.compile.
        bf16: matrix products of the network in bfloat16 (faster on a GPU, slower on most CPUs).
    """

    model: Denoiser
    labels: Tensor
    seed: int = 0
    batch: int = 64
    rate: float = 1e-3
    half_life: int = 1000
    compile: bool = False
    bf16: bool = False
    steps: int = attrs.field(init=False, default=0)
    seconds: float = attrs.field(init=False, default=0.0)
    average: dict[str, Tensor] = attrs.field(init=False)
    optimizer: torch.optim.Optimizer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.model.to(memory_format=torch.channels_last)
        if self.compile:
            self.model.network.compile()  # in its place: the names of the weights stay
        self.begin()

    def step(self, images: Tensor, fraction: float) -> float:
        """One step on a random batch of `images`; `fraction` of the run is over. Returns the
        loss.
        """
        device = next(self.model.parameters()).device
        # of this step alone, so that a run continues exactly
        generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + self.steps)
        draw = {"generator": generator, "device": device}
        chosen = torch.randint(len(images), (self.batch,), **draw)
        batch = images[chosen.to(images.device)].to(device)
        mirror = torch.rand(len(batch), 1, 1, 1, **draw) < 0.5
        batch = torch.where(mirror, batch.flip(-1), batch)
        label = self.labels.to(device)[chosen]
        label = torch.where(torch.rand(len(batch), **draw) < DROPPED, CLASSES, label)
        sigma = torch.exp(LOG_SIGMA[0] + LOG_SIGMA[1] * torch.randn(len(batch), **draw))
        u = batch + sigma[:, None, None, None] * torch.randn(batch.shape, **draw)
        keep, out, scale = coefficients(sigma[:, None, None, None])
        given = (scale * u).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            answer = self.model.network(given, sigma.log() / 2, label).float()
        loss = F.mse_loss(answer, (batch - keep * u) / out)
        return self.descend(loss, fraction)


def save_weights(run: Training, path: Path) -> None:
    """The averaged weights alone, in half precision."""
    halves = {name: value.half() for name, value in run.average.items()}
    write(path, {"options": run.model.network.options, "weights": halves})


def load_denoiser(path: str | Path) -> Denoiser:
    """The network that `save_weights` wrote, in float32, ready for `prediction`.

    Only tensors and numbers are read from the file.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    model = Denoiser(UNet(**content["options"])).to(memory_format=torch.channels_last)
    model.load_state_dict({name: value.float() for name, value in content["weights"].items()})
    return model.eval().requires_grad_(False)


def prediction(model: Denoiser, label: Tensor, scale: float = GUIDANCE) -> srk.Guided:
    """The network for `srk.solve`, guided towards the classes `label`, shape (batch,).

    Both halves of the guidance are one batch: the network is called once for each evaluation, which
    `Solution.nfe` counts as two.
    """
    none = torch.full_like(label, CLASSES)
    return srk.Guided(conditional(model, label), conditional(model, none), scale, batched=True)


def conditional(model: Denoiser, label: Tensor) -> srk.EDMDenoiser:
    """The network for `srk.solve` with the classes `label`, shape (batch,), without guidance."""
    size = model.network.options["size"]
    return srk.EDMDenoiser(model, event_shape=(3, size, size), model_kwargs={"label": label})


def smaller(images: Tensor, size: int) -> Tensor:
    """Images (n, 3, 32, 32) as means over blocks of pixels, shape (n, 3, size, size)."""
    return F.avg_pool2d(images, 32 // size) if size < 32 else images


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=180.0, help="of training, all runs on this folder together"
    )
    parser.add_argument("--size", type=int, choices=(16, 32), default=16, help="pixels of a side")
    parser.add_argument("--width", type=int, default=48, help="channels at the finest resolution")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    parser.add_argument("--folder", type=Path, default=Path("trained"))
    parser.add_argument("--sample", action="store_true", help="only draw, with the weights here")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.sample:
        print(draw(WEIGHTS, args.folder, args.device))
        return

    images, labels = smaller(datasets.cifar10(), args.size), datasets.cifar10_labels()
    torch.manual_seed(args.seed)  # the initial weights
    model = Denoiser(UNet(args.size, args.width)).to(args.device)
    run = Training(model, labels, args.seed, args.batch, compile=args.compile, bf16=args.bf16)
    checkpoint, weights = args.folder / "checkpoint.pt", args.folder / "cifar.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"continuing after {run.steps} steps, {run.seconds / 60:.1f} minutes")
    train(run, images, args.minutes, lambda: run.save(checkpoint))
    save_weights(run, weights)

    print(f"{weights}: {run.steps} steps, {weights.stat().st_size / 1e6:.2f} MB")
    print(draw(weights, args.folder, args.device))


def draw(weights: Path, folder: Path, device: str) -> str:
    """Calibrate the network of a file and draw ten samples of every class; what was done, in words.

    Writes profile.json and cifar.png into the folder.
    """
    model = load_denoiser(weights).to(device)
    size = model.network.options["size"]
    label = torch.arange(CLASSES, device=device).repeat(4)[:32]
    profile = srk.calibrate(
        PROCESS, prediction(model, label), shape=(32, 3, size, size), device=device
    )
    profile.save(folder / "profile.json")
    label = torch.arange(CLASSES, device=device).repeat_interleave(10)
    sol = srk.solve(
        PROCESS,
        prediction(model, label),
        shape=100,
        nfe=48,
        seed=0,
        profile=profile,
        device=device,
    )
    sheet(sol.x, columns=10).save(folder / "cifar.png")
    return f"{folder / 'cifar.png'}: {sol!r}"


if __name__ == "__main__":
    main()
