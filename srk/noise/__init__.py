"""Noise sources: where randomness comes from."""

from __future__ import annotations

from typing import Any

from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise.base import NoiseSource
from srk.noise.basis import BasisNoise
from srk.noise.generator import GeneratorNoise
from srk.registry import Registry

NOISES: Registry[type[NoiseSource]] = Registry(
    "noise source",
    {"what": lambda name, source: (source.__doc__ or "").strip().splitlines()[0].split(": ", 1)[-1]},
)
NOISES.register("generator", GeneratorNoise)


def noise_source(noise: str | NoiseSource | None, seed: int | None) -> NoiseSource:
    """The source that a user means: a registered name with `seed`, or a `NoiseSource` (which has a seed of its own)."""
    if noise is None:
        noise = "generator"
    if isinstance(noise, NoiseSource):
        if seed is not None:
            raise ArgumentError("give the seed to the noise source or to solve(), not to both: noise='generator', seed=0")
        return noise
    if isinstance(noise, str):
        source: Any = NOISES[noise]
        made: NoiseSource = source(seed)
        return made
    raise ArgumentTypeError(f"noise must be the name of a noise source or an srk.noise.NoiseSource, not {noise!r}")


__all__ = ["NOISES", "BasisNoise", "GeneratorNoise", "NoiseSource", "noise_source"]
