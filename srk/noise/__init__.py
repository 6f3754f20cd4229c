"""Noise sources: where randomness comes from."""

import sys

from srk.noise.base import NoiseSource
from srk.noise.basis import BasisNoise
from srk.noise.brownian import BrownianNoise
from srk.noise.generator import GeneratorNoise
from srk.noise.keyed import KeyedNoise
from srk.noise.registry import NOISES, noise_source, register_noise
from srk.noise.seeds import part_seed
from srk.noise.user import CallableNoise, ReplayNoise, ZeroNoise
from srk.registry import callable_package

callable_package(sys.modules[__name__], NOISES)  # srk.noise() is the table of its names

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
    "part_seed",
    "register_noise",
]
