"""Measuring solvers: exact laws, orders, distances between samples, comparisons, agreement with torchsde."""

from srk.analysis.compare import Comparison, compare
from srk.analysis.laws import GaussianLaw, gaussian_kl, gaussian_law
from srk.analysis.metrics import chi_square_excess, energy_distance, mmd, moment_errors, sliced_w2
from srk.analysis.orders import Order, strong_order, strong_orders, weak_order
from srk.analysis.paths import GridPath
from srk.analysis.validation import Agreement, torchsde_agreement

__all__ = [
    "Agreement",
    "Comparison",
    "GaussianLaw",
    "GridPath",
    "Order",
    "chi_square_excess",
    "compare",
    "energy_distance",
    "gaussian_kl",
    "gaussian_law",
    "mmd",
    "moment_errors",
    "sliced_w2",
    "strong_order",
    "strong_orders",
    "torchsde_agreement",
    "weak_order",
]
