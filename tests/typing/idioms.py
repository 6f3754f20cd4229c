"""How the documentation uses srk, for type checkers: mypy --strict and pyright accept this file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import srk
from srk.noise import KeyedNoise
from srk.processes import VP, ForwardProcess, LinearProcess
from srk.tableaus import StochasticTableau, check_tableau

process: LinearProcess = srk.VP()
other: ForwardProcess = srk.process("edm", sigma_max=10.0)
same: srk.processes.VP = srk.processes.VP(beta_max=20.0)
level: float = VP().level(0.5).sigma
target = srk.targets.Gaussian(0.5, 0.04)


def network(x: Tensor, t: Tensor) -> Tensor:
    return -x * (0.1 + 0 * t[:, None])


# solve, with everything by name, by object or by function
solution: srk.Solution = srk.solve(process, target.score(process))
samples: Tensor = srk.solve(process, network, "srk2m", shape=(4, 2), nfe=20, seed=0).x
srk.solve(srk.EDM(), srk.EDMDenoiser(network), shape=(4, 2), steps=5, noise="keyed", seed=0)
srk.solve(process, srk.NoisePrediction(network, time="index", num_timesteps=1000), shape=(4, 2))
srk.solve(process, network, shape=(4, 2), grid=[1.0, 0.5, 0.1], save=["x", "denoised"])
srk.solve(process, network, shape=(4, 2), noise=srk.noise.KeyedNoise(seed=0, first_index=2))
srk.solve(process, network, shape=(4, 2), noise=lambda slot, clock, out: out.normal_())
srk.solve(process, network, srk.tableaus()["sra1"], x_init=torch.zeros(4, 2))
srk.solve(process, network, srk.solvers()["ddpm"], shape=torch.Size([4, 2]), check_network=False)
guided = srk.Guided(srk.Score(network), srk.Score(network), 2.0)
sampler = srk.Sampler(process, guided, "auto", nfe=8)
drawn: Tensor = sampler(shape=(4, 2), seed=1).x

# the registries: mappings from names
names: list[str] = [*srk.processes(), *srk.solvers(), *srk.tableaus(), *srk.controllers()]
names += srk.noise()
for name, entry in srk.processes().items():
    kind: type[ForwardProcess] = entry
    text: str = name
tableau: StochasticTableau = srk.tableaus()["sra1"]
source: type[srk.noise.NoiseSource] = srk.noise()["keyed"]
table: str = repr(srk.noise()) + repr(srk.tableaus())
count: int = len(srk.processes()) + len(srk.noise())
order: float = check_tableau(srk.tableaus.SRA1).strong_order
keyed: srk.noise.KeyedNoise = KeyedNoise(0)


# parts of one's own
@srk.register_process
class Trigonometric(srk.LinearProcess):
    name, t_min, t_max = "trigonometric", 0.0, 1.5

    def alpha(self, t: float) -> float:
        return 1.0 - t / 1.5

    def sigma(self, t: float) -> float:
        return t / 1.5


@srk.register_noise
class Antithetic(srk.noise.NoiseSource):
    name = "antithetic"

    def __init__(self, seed: int | None = None) -> None:
        self.inner = srk.noise.GeneratorNoise(seed)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.inner.start(shape, dtype, device)

    def prior(self, out: Tensor) -> None:
        self.inner.prior(out)

    def draw(self, slot: object, clock: str, out: Tensor) -> None:
        self.prior(out)
