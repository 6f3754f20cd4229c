"""A small trained network to try things on: garments of Fashion-MNIST.

The network is the preconditioned denoiser of EDM (Karras et al. 2022), a U-Net of 728,356 weights.
examples/train_fashion.py trained it in 24 minutes on one core.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srk.processes import EDM
from srk.scores import EDMDenoiser

SIGMA_DATA = 0.7
"""Standard deviation of a pixel of Fashion-MNIST in [-1, 1]."""

PROCESS = EDM(sigma_min=0.01, sigma_max=80.0)
"""The process of the trained network."""


def garments() -> tuple[EDM, EDMDenoiser]:
    """A process and a trained network that draws garments, 28 x 28 pixels in [-1, 1].

    Nothing is downloaded: the weights (1.5 MB, half precision) come with the package. The network
    was trained on Fashion-MNIST (Xiao et al. 2017, MIT licence) by examples/train_fashion.py.

    Returns:
        `srk.EDM(0.01, 80)`, and a prediction for samples of shape (1, 28, 28). `network` is an
        ordinary `torch.nn.Module` on the CPU in float32, whatever the dtype of the samples: the
        prediction's `network.to("cuda")` moves it.

    Examples:
        >>> import srk
        >>> process, score = srk.targets.garments()
        >>> srk.solve(process, score, shape=2, nfe=6, seed=0).x.shape
        torch.Size([2, 1, 28, 28])
    """
    return PROCESS, prediction(load_denoiser(Path(__file__).with_name("garments.pt")))


class Block(nn.Module):
    """Residual block: two convolutions, the noise level as scale and shift between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = (
            nn.GroupNorm(8, outputs, affine=False),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.skip(x) + h
        return out


class Attention(nn.Module):
    """Self-attention over the pixels, added to its input."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(b, 3, self.heads, c // self.heads, h * w)
            .transpose(-1, -2)
            .unbind(1)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, h, w)
        out: Tensor = x + self.out(attended)
        return out


class UNet(nn.Module):
    """Two resolutions, the image folded into blocks of 2 x 2 pixels first: 14 x 14 and 7 x 7 for
    Fashion-MNIST.

    Arguments:
        channels: of the image.
        size: of the image, a multiple of 4.
        width: channels at the finer resolution, a multiple of 16; twice that at the coarser.
    """

    frequencies: Tensor

    def __init__(self, channels: int = 1, size: int = 28, width: int = 48) -> None:
        super().__init__()
        self.options = {"channels": channels, "size": size, "width": width}
        n, wide, embedding = width, 2 * width, width
        self.register_buffer(
            "frequencies",
            torch.exp(torch.linspace(math.log(0.25), math.log(16.0), n)),
            persistent=False,
        )
        self.embed = nn.Sequential(
            nn.Linear(2 * n, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(4 * channels, n, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(n, size // 2, size // 2))
        self.down = nn.ModuleList([Block(n, n, embedding), Block(n, n, embedding)])
        self.coarsen = nn.Conv2d(n, wide, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(
            [Block(wide, wide, embedding), Attention(wide), Block(wide, wide, embedding)]
        )
        self.refine = nn.Conv2d(wide, n, 3, padding=1)
        self.up = nn.ModuleList([Block(2 * n, n, embedding), Block(2 * n, n, embedding)])
        last = nn.Conv2d(n, 4 * channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.leave = nn.Sequential(nn.GroupNorm(8, n), nn.SiLU(), last)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        angles = log_sigma[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angles.cos(), angles.sin()], 1))
        h = self.enter(F.pixel_unshuffle(x, 2)) + self.place
        skips = []
        for block in self.down:
            h = block(h, embedding)
            skips.append(h)
        h = self.coarsen(h)
        for block in self.middle:
            h = block(h, embedding) if isinstance(block, Block) else block(h)
        h = self.refine(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        for block in self.up:
            h = block(torch.cat([h, skips.pop()], 1), embedding)
        return F.pixel_shuffle(self.leave(h), 2)


class Denoiser(nn.Module):
    """E[x0 | x0 + sigma eps = u], from a network that sees an input and has a target of unit
    variance at every sigma.

    Source: Karras et al. 2022, table 1 and appendix B.6.
    """

    def __init__(self, network: UNet, sigma_data: float = SIGMA_DATA) -> None:
        super().__init__()
        self.network, self.sigma_data = network, sigma_data

    def forward(self, u: Tensor, sigma: Tensor) -> Tensor:
        keep, out, scale = self.coefficients(sigma[:, None, None, None])
        found: Tensor = keep * u + out * self.network(scale * u, sigma.log() / 2).to(u.dtype)
        return found

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in."""
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt()


def load_denoiser(path: str | Path) -> Denoiser:
    """The network that examples/train_fashion.py wrote, in float32, ready for `srk.EDMDenoiser`.

    Only tensors and numbers are read from the file.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # weights that are drawn and replaced below
        model = Denoiser(UNet(**content["options"]), content["sigma_data"])
    model.load_state_dict({name: value.float() for name, value in content["weights"].items()})
    return model.eval().requires_grad_(False)


def prediction(model: Denoiser) -> EDMDenoiser:
    """The network for `srk.solve`, with any linear process."""
    options = model.network.options
    shape = (options["channels"], options["size"], options["size"])
    return EDMDenoiser(model, event_shape=shape, network_dtype=torch.float32)
