"""Targets: distributions whose score is exact, and a small trained network."""

from srk.targets.base import ExactScore, Target
from srk.targets.empirical import Empirical
from srk.targets.garments import garments
from srk.targets.gaussian import Gaussian
from srk.targets.manifold import RotationMixture, TorusMixture
from srk.targets.mixture import GaussianMixture

__all__ = [
    "Empirical",
    "ExactScore",
    "Gaussian",
    "GaussianMixture",
    "RotationMixture",
    "Target",
    "TorusMixture",
    "garments",
]
