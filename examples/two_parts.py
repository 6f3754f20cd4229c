"""Two tensors in one run: the position of a thing by a flow, its size by EDM, one network for both.

    python examples/two_parts.py

There are two kinds of things, the small ones on the left and the large ones on the right. The exact
joint network knows it from both parts at once, so that position and size agree; two networks that
see one part each do not. A second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import srk

PRODUCT = srk.Product(position=srk.Flow(), size=srk.EDM())
KINDS = {"position": torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), "size": torch.tensor([[0.2], [0.9]])}
SPREAD = {"position": 0.1, "size": 0.05}


def likelihood(name: str, x: Tensor, t: Tensor) -> Tensor:
    """log p(x_t | kind) of one part, up to a constant, shape (batch, kinds)."""
    level = PRODUCT.parts[name].level(float(t[0]))
    variance = level.alpha**2 * SPREAD[name] ** 2 + level.sigma**2
    return -(x[:, None] - level.alpha * KINDS[name]).square().sum(2) / (2 * variance)


def denoise(name: str, x: Tensor, t: Tensor, weights: Tensor) -> Tensor:
    """E[x_0 | x_t] of one part, given the probability of each kind."""
    level = PRODUCT.parts[name].level(float(t[0]))
    data = SPREAD[name] ** 2
    gain = level.alpha * data / (level.alpha**2 * data + level.sigma**2)
    mean = weights @ KINDS[name]
    return mean + gain * (x - level.alpha * mean)


def joint(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both parts say which kind it is, and each is denoised with what both say."""
    weights = sum(likelihood(name, x[name], t[name]) for name in x).softmax(1)
    return {name: denoise(name, x[name], t[name], weights) for name in x}


def alone(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each part for itself."""
    return {
        name: denoise(name, x[name], t[name], likelihood(name, x[name], t[name]).softmax(1))
        for name in x
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=2000, help="samples")
    args = parser.parse_args(argv)
    shape = {"position": (args.n, 2), "size": (args.n, 1)}
    for network in (joint, alone):
        score = srk.scores.Joint(network, position="data", size="data")
        sol = srk.solve(PRODUCT, score, "srk2m", shape=shape, nfe=20, seed=0)
        right = sol.x["position"][:, 0] > 0.0
        large = sol.x["size"][:, 0] > 0.55
        agree = float((right == large).float().mean())
        print(f"{network.__name__:6} {sol.nfe} calls, position and size agree in {agree:.1%}")


if __name__ == "__main__":
    main()
