"""The draws of a pipeline's run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from srk.noise import NoiseSource


class PipelineNoise(NoiseSource):
    """The draws of diffusers: from the generator that the pipeline gives to `step`.

    Many pipelines give none. The draws then come from generators of our own, so that a run repeats:
    one for all with `seed`, else one for each sample, seeded by what the sample is at the start of
    the run.

    Arguments:
        first: the states at the start of the run, (batch, *event).
        seed: of the generator for runs that are given none; None: seeds from `first`.
    """

    name = "pipeline"

    def __init__(self, first: Tensor, seed: int | None = None) -> None:
        self.generator: torch.Generator | list[torch.Generator] | None = None
        self._seed, self._seeds = seed, None if seed is not None else seeds_of(first)
        self._own: Any = None

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = tuple(shape), dtype, device

    def prior(self, out: Tensor) -> None:
        raise AssertionError("the pipeline draws the first state")

    def draw(self, slot: object, clock: str, out: Tensor) -> None:
        out.copy_(self._normals(tuple(out.shape), out.dtype, out.device))

    def skip(self) -> None:
        """Draw what a scheduler of diffusers draws in a step that adds no noise."""
        self._normals(self._shape, self._dtype, self._device)

    def _normals(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        generator: Any = self.generator
        if generator is None:
            if self._own is None:
                self._own = _made(self._seed, self._seeds)
            generator = self._own
        drawn: Tensor = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return drawn

    def __getstate__(self) -> dict[str, Any]:
        own = self._own
        states = (
            [one.get_state() for one in (own if isinstance(own, list) else [own])] if own else None
        )
        return {**self.__dict__, "generator": None, "_own": None, "_states": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        states = state.pop("_states")
        self.__dict__.update(state)
        if states is not None:
            self._own = _made(self._seed, self._seeds)
            made = self._own if isinstance(self._own, list) else [self._own]
            for one, where in zip(made, states, strict=True):
                one.set_state(where)


def seeds_of(states: Tensor) -> list[int]:
    """A seed for each sample (states (batch, *event)), a function of its values alone.

    Samples of a batch that are equal get different seeds. It waits for the device once.
    """
    values = states.detach().to("cpu", torch.float32).contiguous()
    seen: dict[bytes, int] = {}
    seeds: list[int] = []
    for sample in values:
        data = sample.numpy().tobytes()
        digest = hashlib.blake2b(data, digest_size=8).digest()
        count = seen[digest] = seen.get(digest, -1) + 1
        if count:
            digest = hashlib.blake2b(data, digest_size=8, salt=count.to_bytes(8, "big")).digest()
        seeds.append(int.from_bytes(digest, "big") >> 1)  # 63 bits, which every source takes
    return seeds


def _made(seed: int | None, seeds: list[int] | None) -> Any:
    if seeds is None:
        assert seed is not None
        return torch.Generator().manual_seed(seed)
    return [torch.Generator().manual_seed(one) for one in seeds]
