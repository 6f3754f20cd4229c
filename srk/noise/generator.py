"""Seeded draws from PyTorch's generator on the state's device: the default, and the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from srk.noise.base import NoiseSource
from srk.noise.seeds import check_seed, generator_seed

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class GeneratorNoise(NoiseSource):
    """`generator`: independent draws from a `torch.Generator` on the device of the state.

    The global random state of PyTorch is never touched. The same seed on the same device, batch and
    number of steps repeats the run. With any of these changed, it gives another sample.

    Arguments:
        seed: any integer; None takes a seed from the operating system, which `Solution.seed` tells.
    """

    name = "generator"

    def __init__(self, seed: int | None = None) -> None:
        self._seed = check_seed(seed)
        self._generator: torch.Generator | None = None

    @property
    def seed(self) -> int | None:
        return self._seed

    @property
    def used_seed(self) -> int:
        """What PyTorch's generator is seeded with."""
        return generator_seed(self._seed)

    def use(self, generator: torch.Generator) -> None:
        """Draw from this generator instead of one of its own."""
        self._generator = generator

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(self.used_seed)

    def prior(self, out: torch.Tensor) -> None:
        out.normal_(generator=self._generator)

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        out.normal_(generator=self._generator)

    def __getstate__(self) -> dict[str, Any]:
        # torch.Generator can be pickled in recent versions of PyTorch only; its state can in all
        state = dict(self.__dict__)
        if self._generator is not None:
            state["_generator"] = (self._generator.device, self._generator.get_state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._generator, tuple):
            device, values = self._generator
            self._generator = torch.Generator(device)
            self._generator.set_state(values)
