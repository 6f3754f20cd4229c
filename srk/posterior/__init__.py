"""Sampling given measurements or towards a reward: posteriors as predictions, and steering."""

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
from srk.posterior.resampling import effective_size, systematic
from srk.posterior.spectral import DDNM, DDRM, DiffPIR
from srk.posterior.steering import signal_fraction, steer

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
    "effective_size",
    "fourier",
    "gaussian_kernel",
    "mask",
    "radon",
    "signal_fraction",
    "steer",
    "systematic",
]
