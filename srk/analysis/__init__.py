"""Measuring solvers: exact laws on Gaussian targets."""

from srk.analysis.laws import GaussianLaw, gaussian_kl, gaussian_law

__all__ = ["GaussianLaw", "gaussian_kl", "gaussian_law"]
