"""Noise sources: where randomness comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise.base import NoiseSource
from srk.noise.basis import BasisNoise
from srk.noise.brownian import BrownianNoise
from srk.noise.generator import GeneratorNoise
from srk.noise.keyed import KeyedNoise
from srk.noise.user import CallableNoise, ReplayNoise, ZeroNoise
from srk.registry import Registry

NOISES: Registry[type[NoiseSource]] = Registry(
    "noise source",
    {
        "what": lambda name, source: (
            (source.__doc__ or "").strip().splitlines()[0].split(": ", 1)[-1]
        )
    },
)
for _source in (GeneratorNoise, KeyedNoise, BrownianNoise, ZeroNoise):
    NOISES.register(_source.name, _source)


def noise_source(
    noise: str | NoiseSource | Callable[..., Any] | None, seed: int | None
) -> NoiseSource:
    """The source that a user means: a registered name with `seed`, a `NoiseSource` (with a seed of its own), or a function that draws."""
    if noise is None:
        noise = "generator"
    if isinstance(noise, NoiseSource):
        if seed is not None:
            raise ArgumentError(
                "give the seed to the noise source or to solve(), not to both: noise='generator', seed=0"
            )
        return noise
    if isinstance(noise, str):
        source: Any = NOISES[noise]
        made: NoiseSource = source(seed)
        return made
    if callable(noise) and not isinstance(noise, type):
        if seed is not None:
            raise ArgumentError(
                "a noise function has no seed that solve() could set; seed it yourself and leave seed out"
            )
        return CallableNoise(noise)
    raise ArgumentTypeError(
        f"noise must be the name of a noise source, an srk.noise.NoiseSource or a function of (slot, clock, out), not {noise!r}; "
        "for example noise='keyed', seed=0"
    )


__all__ = [
    "NOISES",
    "BasisNoise",
    "BrownianNoise",
    "CallableNoise",
    "GeneratorNoise",
    "KeyedNoise",
    "NoiseSource",
    "ReplayNoise",
    "ZeroNoise",
    "noise_source",
]
