"""Measuring solvers and models.

Exact distributions, log-densities, orders, distances between samples, comparisons, agreement with
torchsde.
"""

from srk.analysis.compare import compare
from srk.analysis.comparison import Comparison
from srk.analysis.laws import GaussianLaw, gaussian_kl, gaussian_law
from srk.analysis.likelihood import LogLikelihood, log_likelihood
from srk.analysis.metrics import (
    chi_square_excess,
    energy_distance,
    frechet,
    mmd,
    moment_errors,
    sliced_w2,
)
from srk.analysis.orders import Order, strong_order, strong_orders
from srk.analysis.paths import GridPath
from srk.analysis.posteriors import compare_posteriors, posterior_errors
from srk.analysis.slopes import Slopes, torchsde_slopes
from srk.analysis.streaming import Moments, frechet_distance, moments
from srk.analysis.validation import Agreement, torchsde_agreement
from srk.analysis.weak import weak_order

__all__ = [
    "Agreement",
    "Comparison",
    "GaussianLaw",
    "GridPath",
    "LogLikelihood",
    "Moments",
    "Order",
    "Slopes",
    "chi_square_excess",
    "compare",
    "compare_posteriors",
    "energy_distance",
    "frechet",
    "frechet_distance",
    "gaussian_kl",
    "gaussian_law",
    "log_likelihood",
    "mmd",
    "moment_errors",
    "moments",
    "posterior_errors",
    "sliced_w2",
    "strong_order",
    "strong_orders",
    "torchsde_agreement",
    "torchsde_slopes",
    "weak_order",
]
