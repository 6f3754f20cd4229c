"""Sampling given measurements or towards a reward: posteriors as predictions, and steering."""

from srk.posterior.base import Posterior
from srk.posterior.exact import Exact
from srk.posterior.gradient import DPS, MMPS, SDA, TMPD, PiGDM
from srk.posterior.linear import Linear, Nonlinear, Operator
from srk.posterior.measurement import Measurement
from srk.posterior.operators import blur, downsample, fourier, gaussian_kernel, mask, radon
from srk.posterior.problems import PosteriorProblem, posterior_problem
from srk.posterior.resampling import effective_size, systematic
from srk.posterior.spectral import DDNM, DDRM, DiffPIR
from srk.posterior.steering import signal_fraction, steer


def methods() -> dict[str, type[Posterior]]:
    """The posterior methods by name: classes that take a prediction and a measurement.

    Examples:
        >>> sorted(methods())
        ['DDNM', 'DDRM', 'DPS', 'DiffPIR', 'Exact', 'MMPS', 'PiGDM', 'SDA', 'TMPD']
    """
    found = (DPS, SDA, PiGDM, TMPD, MMPS, DiffPIR, DDNM, DDRM, Exact)
    return {method.__name__: method for method in found}


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
    "PosteriorProblem",
    "blur",
    "downsample",
    "effective_size",
    "fourier",
    "gaussian_kernel",
    "mask",
    "methods",
    "posterior_problem",
    "radon",
    "signal_fraction",
    "steer",
    "systematic",
]
