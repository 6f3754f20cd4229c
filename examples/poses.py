"""A small molecule in a pocket: where it lies, how it is turned, and its two torsions, in one run.

    python examples/poses.py

The molecule has three poses of known weights. Position, rotation and torsions are the parts of a
product: EDM noise, Brownian motion of rotations, and of angles. The joint network is exact, so that
the answer is known: how often each pose comes, and that all parts agree on it. Some ten seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import srk

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
POSES = {
    "position": torch.tensor([[2.0, 0.0, 1.0], [-1.0, 2.0, 0.0], [0.0, -2.0, -1.0]]).double(),
    "rotation": torch.tensor([[0.0, 0.0, 2.5], [1.0, 1.0, 0.0], [-1.5, 0.5, 1.0]]).double(),
    "torsions": torch.tensor([[3.0, -1.0], [-3.0, 0.5], [0.0, 2.0]]).double(),
}
WIDTH = {"position": 0.2, "rotation": 0.1, "torsions": 0.2}
PRODUCT = srk.Product(
    position=srk.EDM(sigma_min=0.02, sigma_max=20.0),
    rotation=srk.SO3(sigma_min=0.05, sigma_max=3.0, schedule="exponential"),
    torsions=srk.Torus(sigma_min=0.05, sigma_max=5.0),
)


def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Data of the position, scores of rotation and torsions, exactly."""
    variance, logs = {}, WEIGHTS.log()
    for name, part in PRODUCT.parts.items():
        variance[name] = WIDTH[name] ** 2 + part.level(float(t[name][0])).sigma ** 2
        state, poses = x[name][:, None].double(), POSES[name]
        if name == "position":
            logs = logs - (state - poses).square().sum(2) / (2.0 * variance[name])
        else:
            each = part.log_kernel(state, poses, variance[name])
            logs = logs + (each if name == "rotation" else each.sum(2))
    which = logs.softmax(1)  # how likely each pose is, given all parts
    said = {}
    for name, part in PRODUCT.parts.items():
        if name == "position":
            mean, gain = which @ POSES[name], WIDTH[name] ** 2 / variance[name]
            value = mean + gain * (x[name] - mean)
        else:
            scores = part.kernel_score(x[name][:, None].double(), POSES[name], variance[name])
            value = (which[:, :, None] * scores).sum(1)
        said[name] = value.to(x[name])
    return said


def nearest(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The pose that each sample is nearest to, and the distance from it."""
    state, poses = x[:, None].double(), POSES[name]
    part = PRODUCT.parts[name]
    if name == "rotation":
        apart = part.between(poses, state)
    else:
        apart = state - poses if name == "position" else part.wrap(state - poses)
    distance, which = apart.norm(dim=2).min(1)
    return which, distance


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=2000, help="samples")
    parser.add_argument("--nfe", type=int, default=250, help="network calls")
    args = parser.parse_args(argv)
    score = srk.scores.Joint(network, position="data", rotation="score", torsions="score")
    sol = srk.solve(
        PRODUCT,
        score,
        "euler-maruyama",
        shape={"position": (args.n, 3), "rotation": (args.n, 3), "torsions": (args.n, 2)},
        grid={"position": "karras", "rotation": None, "torsions": None},
        nfe=args.nfe,
        seed=0,
    )
    found = {name: nearest(name, x) for name, x in sol.x.items()}
    which = found["rotation"][0]
    agree = (found["position"][0] == which) & (found["torsions"][0] == which)
    print(f"{sol.nfe} calls; all parts have the same pose in {float(agree.double().mean()):.1%}")
    for k, weight in enumerate(WEIGHTS.tolist()):
        share = float((which == k).double().mean())
        print(f"pose {k}: {share:.3f} of the samples, exact {weight:.3f}")
    for name, (_, distance) in found.items():
        print(f"{name}: {float(distance.mean()):.3f} from its pose on average")


if __name__ == "__main__":
    main()
