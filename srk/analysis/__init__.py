"""Measuring solvers and models.

Exact distributions, log-densities, orders, distances between samples, comparisons, agreement with
torchsde.
"""

import warnings
from typing import Any

from srk.analysis.comparison import Comparison
from srk.analysis.distributions import GaussianDistribution, gaussian_distribution, gaussian_kl
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
from srk.analysis.work_precision import compare

__all__ = [
    "Agreement",
    "Comparison",
    "GaussianDistribution",
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
    "gaussian_distribution",
    "gaussian_kl",
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

_RENAMED: dict[str, Any] = {
    "GaussianLaw": GaussianDistribution,
    "gaussian_law": gaussian_distribution,
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"srk.analysis.{name} is now srk.analysis.{_RENAMED[name].__name__}; the old name goes "
            "with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return _RENAMED[name]
    raise AttributeError(f"module 'srk.analysis' has no attribute {name!r}")
