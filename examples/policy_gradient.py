"""A reward for a flow network: Flow-GRPO's clipped policy gradient in a loop of diffusers.

    python examples/policy_gradient.py

A small network is trained on eight modes of a ring by flow matching. Then its sampler is taken for
a policy: ten noisy steps of Flow-GRPO are ten actions, whose log-densities `SRKScheduler.step`
tells. Samples near the mode at (1, 0) are rewarded, and a KL term holds the policy to the network
that it began as. It prints the reward and the KL; half a minute on two cores.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

import srk
from srk.ecosystem.diffusers import SRKScheduler

ANGLES = torch.arange(8) * (math.pi / 4)
MODES = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
GOAL = MODES[0]


class Velocity(nn.Module):
    """A network of a flow: eps - x0 at (1 - t) x0 + t eps."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1).expand(len(x), 1)
        angle = 2 * math.pi * t
        return self.layers(torch.cat([x, t, angle.sin(), angle.cos()], 1))


def pretrain(network: Velocity, iterations: int, generator: torch.Generator) -> None:
    """Flow matching on the ring."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(iterations):
        picks = torch.randint(8, (512,), generator=generator)
        data = MODES[picks] + 0.1 * torch.randn(512, 2, generator=generator)
        noise, t = torch.randn(512, 2, generator=generator), torch.rand(512, generator=generator)
        state = (1 - t[:, None]) * data + t[:, None] * noise
        loss = (network(state, t) - (noise - data)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def reward(x: Tensor) -> Tensor:
    """1 at the goal, falling with the distance."""
    return (-2.0 * (x - GOAL).square().sum(1)).exp()


class Action(NamedTuple):
    """A step of a rollout: where it began, what it handed out, its log-density then."""

    t: Tensor
    x: Tensor
    after: Tensor
    log_prob: Tensor


def scheduler(steps: int, eta: srk.eta.Eta, solver: str = "euler-maruyama") -> SRKScheduler:
    config = FlowMatchEulerDiscreteScheduler().config
    made: SRKScheduler = SRKScheduler.from_config(config, solver=solver, eta=eta)
    made.set_timesteps(steps)
    return made


@torch.no_grad()
def rollout(
    network: Velocity, policy: SRKScheduler, n: int, generator: torch.Generator
) -> tuple[Tensor, list[Action]]:
    """Samples, and the noisy steps on the way to them."""
    x = torch.randn(n, 2, generator=generator)
    policy.set_timesteps(policy.num_inference_steps)
    actions = []
    for t in policy.timesteps:
        said = network(x, t / 1000)
        out = policy.step(said, t, x, generator=generator, return_log_prob=True)
        if out.log_prob is not None:  # the last step draws no noise
            actions.append(Action(t, x, out.prev_sample, out.log_prob))
        x = out.prev_sample
    return x, actions


def improve(
    network: Velocity,
    reference: Velocity,
    policy: SRKScheduler,
    optimizer: torch.optim.Optimizer,
    rolled: tuple[Tensor, list[Action]],
    clip: float = 0.2,
    beta: float = 0.02,
) -> float:
    """One step of the optimizer, with gradients added up action by action; the KL in nats."""
    samples, actions = rolled
    rewards = reward(samples)
    advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    optimizer.zero_grad()
    total = 0.0
    for t, x, after, old in actions:
        out = policy.step(network(x, t / 1000), t, x, prev_sample=after)
        with torch.no_grad():
            before = policy.step(reference(x, t / 1000), t, x, prev_sample=after)
        ratio = (out.log_prob - old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        apart = out.prev_sample_mean - before.prev_sample_mean
        kl = (0.5 * (apart / out.std).square()).sum(1).mean()
        ((beta * kl - gain) / len(actions)).backward()
        total += float(kl.detach())
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return total


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", type=int, default=2000, help="iterations of flow matching")
    parser.add_argument("--iterations", type=int, default=60, help="rollouts")
    parser.add_argument("-n", type=int, default=512, help="samples of a rollout")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    network = Velocity()
    pretrain(network, args.pretrain, generator)
    reference = copy.deepcopy(network)

    policy = scheduler(10, srk.eta.flow_grpo(0.7))
    ode = scheduler(20, 0.0, "heun")  # what the network gives without noise
    first = float(reward(rollout(network, ode, 2000, generator)[0]).mean())
    print(f"reward of the ODE's samples before: {first:.3f}")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    kl = mean = 0.0
    for i in range(args.iterations):
        rolled = rollout(network, policy, args.n, generator)
        mean = float(reward(rolled[0]).mean())
        for _ in range(2):
            kl = improve(network, reference, policy, optimizer, rolled)
        if i % 10 == 9:
            print(
                f"  {i + 1:3d} rollouts: reward {mean:.3f}, KL to the first network {kl:.2f} nats"
            )
    last = float(reward(rollout(network, ode, 2000, generator)[0]).mean())
    print(f"reward of the ODE's samples after: {last:.3f}")
    return {"before": first, "after": last, "policy": mean, "kl": kl}


if __name__ == "__main__":
    main()
