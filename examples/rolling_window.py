"""Frames one after the other, without an end: a window of noise levels rolls over a sequence.

    python examples/rolling_window.py

The sequence is a stationary Gaussian one with the autocovariance 0.8^k, whose exact network for any
levels of the frames is known. Four frames at a time are between noise and data; each frame is
printed when it is done, and the autocovariance of all of them is compared with the exact one. Some
seconds.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

import srk

PROCESS = srk.VP()


def network(x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t] for states (batch, frames), whose frames are at the times t (batch, frames)."""
    lag = (torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])[None]).abs()
    covariance = 0.8**lag
    levels = [PROCESS.level(float(time)) for time in t[0]]
    alpha = torch.diag(torch.tensor([level.alpha for level in levels]))
    sigma = torch.diag(torch.tensor([level.sigma for level in levels]))
    total = alpha @ covariance @ alpha + sigma**2
    return torch.linalg.solve(total, x.T).T @ alpha @ covariance


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=2000, help="sequences")
    parser.add_argument("--frames", type=int, default=40, help="frames of each")
    args = parser.parse_args(argv)
    rolling = srk.roll(
        PROCESS, srk.Data(network), "srk2m", window=4, shape=(args.n,), steps=31, seed=0
    )
    frames = []
    for number, frame in enumerate(itertools.islice(rolling, args.frames)):
        frames.append(frame)
        if number % 10 == 0:
            print(f"frame {number:3}  {rolling.nfe:4} calls  mean square {frame.var():.3f}")
    x = torch.stack(frames, 1)
    for lag in range(5):
        found = (x[:, lag:] * x[:, : args.frames - lag]).mean()
        print(f"lag {lag}  found {found:.3f}  exact {0.8**lag:.3f}")


if __name__ == "__main__":
    main()
