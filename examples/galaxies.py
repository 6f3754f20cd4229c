"""Draw galaxies with a pre-trained score network: the MLP-Mixer of the package galaxygrad, read
without running its code.

    pip install --no-deps galaxygrad==0.1.8
    python examples/galaxies.py --out galaxies.png

The network is the score of 32 x 32 images of galaxies (y = 10 log(1 + flux)) under dx = -x/2 dt +
dW, t in (0, 10]: alpha = e^{-t/2}, sigma^2 = 1 - e^{-t}. The picture has a row for each solver. All
start from the same noise; those of one clock (`srk2m` and `srk2`; `dpmpp-2m-sde` and `ddpm`) follow
the same Brownian paths too, and draw nearly the same galaxies. About ten seconds on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import srk
from srk.targets import datasets

T_MAX = 10.0
PROCESS = srk.VP(beta_min=1.0, beta_max=1.0, t_min=0.01, t_max=T_MAX)
SHAPE = (1, 32, 32)
SOLVERS = ("srk2m", "srk2", "dpmpp-2m-sde", "ddpm", "euler-maruyama")


class MixerBlock(nn.Module):
    """Two residual MLPs: one mixes the patches of each channel, one the channels of each patch."""

    def __init__(self, patches: int, hidden: int, width: int) -> None:
        super().__init__()
        self.patch_mixer = nn.Sequential(
            nn.Linear(patches, width), nn.ReLU(), nn.Linear(width, patches)
        )
        self.channel_mixer = nn.Sequential(
            nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, hidden)
        )
        self.norm1, self.norm2 = nn.LayerNorm((hidden, patches)), nn.LayerNorm((patches, hidden))

    def forward(self, y: Tensor) -> Tensor:
        """y: shape (batch, hidden, patches)."""
        y = y + self.patch_mixer(self.norm1(y))
        y = y.transpose(1, 2)
        y = y + self.channel_mixer(self.norm2(y))
        return y.transpose(1, 2)


class GalaxyScore(nn.Module):
    """The score of noisy galaxies, (x, t) -> grad log p_t(x) for x of shape (batch, 1, 32, 32) and
    t of shape (batch,).

    Arguments:
        weights: the arrays of galaxygrad's file, see `srk.targets.datasets.galaxy_weights`.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        *,
        hidden: int = 64,
        width: int = 512,
        blocks: int = 4,
        patch: int = 4,
    ) -> None:
        super().__init__()
        patches = (SHAPE[1] // patch) * (SHAPE[2] // patch)
        self.enter = nn.Conv2d(SHAPE[0] + 1, hidden, patch, stride=patch)
        self.leave = nn.ConvTranspose2d(hidden, SHAPE[0], patch, stride=patch)
        self.blocks = nn.ModuleList([MixerBlock(patches, hidden, width) for _ in range(blocks)])
        self.norm = nn.LayerNorm((hidden, patches))
        self._read(weights)

    def _read(self, weights: Sequence[Tensor]) -> None:
        # JAX correlates where PyTorch's transposed convolution adds up patches: its kernel is (out,
        # in) and mirrored. In the file,
        # the parameters stand in this module's order, after them the final time.
        parameters = list(self.parameters())
        values = [
            v.transpose(0, 1).flip(2, 3) if i == 2 else v
            for i, v in enumerate(weights[: len(parameters)])
        ]
        if len(weights) != len(parameters) + 1 or float(weights[-1]) != T_MAX:
            raise ValueError(
                f"the file holds {len(weights)} arrays, where the network has "
                f"{len(parameters)} and the final time {T_MAX}"
            )
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value.reshape(parameter.shape))
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t / T_MAX)[:, None, None, None].expand_as(x)
        h = self.enter(torch.cat([x, time], 1))
        y = h.flatten(2)
        for block in self.blocks:
            y = block(y)
        return self.leave(self.norm(y).reshape(h.shape))


def galaxy_score() -> srk.Score:
    """The network for `srk.solve`, to be used with `PROCESS`."""
    return srk.Score(GalaxyScore(datasets.galaxy_weights()).eval(), event_shape=SHAPE)


def flux(y: Tensor) -> Tensor:
    """The image of the state y = 10 log(1 + flux)."""
    return torch.expm1(y / 10)


def sheet(images: Tensor, columns: int, scale: int = 3):  # type: ignore[no-untyped-def]
    """Images (n, 1, 32, 32) of states as one grey picture, row by row; `.save(path)` writes it."""
    from PIL import Image

    images = F.pad(images[:, 0], (1, 0, 1, 0), value=float(images.max()))
    rows = images.reshape(-1, columns, 33, 33).permute(0, 2, 1, 3).reshape(-1, columns * 33)
    low, high = images.quantile(torch.tensor([0.01, 0.999]))
    pixels = ((rows - low) / (high - low)).clamp(0, 1).mul(255).byte()
    return Image.fromarray(pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nfe", type=int, default=50, help="network calls for each galaxy")
    parser.add_argument("--solvers", nargs="+", default=SOLVERS)
    parser.add_argument("-n", type=int, default=12, help="galaxies for each solver")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("galaxies.png"))
    args = parser.parse_args(argv)
    score, drawn = galaxy_score(), []
    for solver in args.solvers:
        sol = srk.solve(
            PROCESS, score, solver, shape=args.n, nfe=args.nfe, noise="brownian", seed=args.seed
        )
        drawn.append(sol.x)
        print(f"{solver}: {sol!r}")
    sheet(torch.cat(drawn), args.n).save(args.out)


if __name__ == "__main__":
    main()
