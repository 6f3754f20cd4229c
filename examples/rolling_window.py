"""A window of frames that rolls over a sequence: each frame has a noise level of its own.

    python examples/rolling_window.py

The sequence is a stationary Gaussian one with the autocovariance 0.8^k, whose exact network for any
levels of the frames is known. At any step four of sixteen frames are between noise and data. A few
seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import srk

PROCESS = srk.VP()
FRAMES, WINDOW = 16, 4
LAG = (torch.arange(FRAMES)[:, None] - torch.arange(FRAMES)[None]).abs()
COVARIANCE = 0.8**LAG


def network(x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t] for states (batch, frames), whose frames are at the times t (batch, frames)."""
    levels = [PROCESS.level(float(time)) for time in t[0]]
    alpha = torch.diag(torch.tensor([level.alpha for level in levels]))
    sigma = torch.diag(torch.tensor([level.sigma for level in levels]))
    total = alpha @ COVARIANCE @ alpha + sigma**2
    return torch.linalg.solve(total, x.T).T @ alpha @ COVARIANCE


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=4000, help="sequences")
    args = parser.parse_args(argv)
    times = srk.steps.LogSNR().times(srk.steps.RunInfo(PROCESS, None, steps=24))
    levels = srk.Levels.rolling(times, FRAMES, WINDOW)
    sol = srk.solve(
        PROCESS, srk.Data(network), "srk2m", shape=(args.n, FRAMES), grid=levels, seed=0
    )
    print(f"{sol.nfe} calls for {FRAMES} frames")
    found = sol.x.T @ sol.x / args.n
    for lag in range(4):
        print(f"lag {lag}  found {found[lag == LAG].mean():.3f}  exact {0.8**lag:.3f}")


if __name__ == "__main__":
    main()
