"""Several processes reversed in lockstep, one network call for all: DiffDock, BioEmu."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import srk
from srk.noise import ReplayNoise

RANGES = {"shift": (0.1, 19.0), "turn": (0.03, 1.55), "torsions": (0.0314, 3.14)}
"""Of sigma, for each part: translation, rotation, torsions (Corso et al., "DiffDock", 2023)."""
SHAPES = {"shift": (4, 3), "turn": (4, 3), "torsions": (4, 5)}
STEPS = 6


def network(states: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
    """A score of each part that depends on all parts and on the time."""
    t = times["shift"][:, None]
    mixed = states["torsions"].cos().mean(1, keepdim=True) + states["turn"].sum(1, keepdim=True)
    return {
        "shift": -(states["shift"] - mixed) / (1 + 300 * t),
        "turn": mixed * torch.tensor([0.3, -0.2, 0.1], dtype=t.dtype) + 0.1 * t,
        "torsions": -torch.sin(states["torsions"] - mixed) * (1 - t / 2),
    }


def moved(part: str, x: Tensor, change: Tensor) -> Tensor:
    """A state after an increment: added, turned about an axis in space, added and wrapped."""
    if part == "shift":
        return x + change
    if part == "turn":
        turned = Rotation.from_rotvec(change.numpy()) * Rotation.from_rotvec(x.numpy())
        return torch.from_numpy(turned.as_rotvec())
    angles = np.remainder((x + change).numpy() + math.pi, 2 * math.pi) - math.pi
    return torch.from_numpy(angles)


def test_the_loop_of_diffdock_over_three_parts() -> None:
    """x' = x + g^2 dt score + g sqrt(dt) z with g^2 = d sigma^2/dt, for each part in its space."""
    generator = torch.Generator().manual_seed(3)
    draws = {
        part: [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]
        for part, shape in SHAPES.items()
    }
    times = [1 - 0.97 * i / STEPS for i in range(STEPS + 1)]
    states = {part: torch.randn(shape, generator=generator) for part, shape in SHAPES.items()}
    states = {part: x.double() for part, x in states.items()}
    start = dict(states)
    for i, (t, s) in enumerate(pairwise(times)):
        now = {part: torch.full((4,), t, dtype=torch.float64) for part in SHAPES}
        scores = network(states, now)
        for part, (low, high) in RANGES.items():
            sigma, dt = low ** (1 - t) * high**t, t - s
            g = sigma * math.sqrt(2 * math.log(high / low))
            change = g**2 * dt * scores[part] + g * math.sqrt(dt) * draws[part][i]
            states[part] = moved(part, states[part], change)

    process = srk.Product(
        shift=srk.VE(*RANGES["shift"]),
        turn=srk.SO3(*RANGES["turn"], schedule="exponential", frame="space"),
        torsions=srk.Torus(*RANGES["torsions"]),
    )
    sol = srk.solve(
        process,
        srk.scores.Joint(network, shift="score", turn="score", torsions="score"),
        "euler-maruyama",
        grid=times,
        x_init=start,
        noise={part: ReplayNoise(torch.stack(of_part)) for part, of_part in draws.items()},
        denoise_final=False,
    )
    assert sol.nfe == STEPS
    for part in SHAPES:
        torch.testing.assert_close(sol.x[part], states[part], rtol=1e-10, atol=1e-10)
