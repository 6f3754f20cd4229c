"""Drawing samples: `solve` in one call, and `Sampler`, made ready once and called often."""

from srk._engine.recorder import StepInfo
from srk._engine.together import ProductStepInfo
from srk.sampling.calibration import calibrate
from srk.sampling.entry import solve
from srk.sampling.invert import invert
from srk.sampling.levels import LevelsSampler
from srk.sampling.product import ProductSampler
from srk.sampling.roll import Roll, roll
from srk.sampling.sampler import Sampler

__all__ = [
    "LevelsSampler",
    "ProductSampler",
    "ProductStepInfo",
    "Roll",
    "Sampler",
    "StepInfo",
    "calibrate",
    "invert",
    "roll",
    "solve",
]
