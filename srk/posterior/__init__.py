"""Sampling given measurements: posteriors as predictions, which every solver samples."""

from srk.posterior.base import Posterior
from srk.posterior.exact import Exact
from srk.posterior.gradient import DPS, MMPS, SDA, TMPD, PiGDM
from srk.posterior.measurement import Measurement
from srk.posterior.operators import (
    Linear,
    Nonlinear,
    Operator,
    blur,
    downsample,
    fourier,
    gaussian_kernel,
    mask,
    radon,
)
from srk.posterior.spectral import DDNM, DDRM, DiffPIR

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "MMPS",
    "SDA",
    "TMPD",
    "DiffPIR",
    "Exact",
    "Linear",
    "Measurement",
    "Nonlinear",
    "Operator",
    "PiGDM",
    "Posterior",
    "blur",
    "downsample",
    "fourier",
    "gaussian_kernel",
    "mask",
    "radon",
]
