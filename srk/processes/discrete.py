"""The variance-preserving process of a network that was trained on a finite list of betas."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, ClassVar

import attrs
import numpy as np
import torch

from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.elementwise import elementwise, is_number
from srk.processes.preserving import VariancePreserving, scales_at


@attrs.frozen(init=False, repr=False)
class VPDiscrete(VariancePreserving):
    """Variance preserving, from N training betas or alphas_cumprod; own time = training index.

    For DDPM, diffusers and latent models.

    At the training indices alpha = sqrt(alphas_cumprod) and sigma = sqrt(1 - alphas_cumprod),
    exactly. In between the half log-SNR is linear in the index. If the last alphas_cumprod is 0
    (zero terminal SNR), alpha/sigma goes linearly to 0 in the last interval and lam = -inf at its
    end. dlam/dt, drift and diffusion jump at the indices, where they take the value of the interval
    to come.

    Arguments:
        betas: N numbers in (0, 1), the last may be 1; tensor, array or list. Default: the linear
            betas of DDPM, 1e-4 to 0.02, N = 1000.
        alphas_cumprod: N numbers in [0, 1), strictly decreasing, instead of betas. Prefer it to
            reproduce a library that computed it in float32 (diffusers: `scheduler.alphas_cumprod`):
            the products of the betas are taken in float64 here.

    Own time runs from 0 to N - 1, as a float.

    Source: Ho et al. 2020, "Denoising diffusion probabilistic models", arXiv 2006.11239;
    zero terminal SNR: Lin et al. 2023, arXiv 2305.08891.

    Examples:
        >>> import math
        >>> from srk.processes import VPDiscrete
        >>> process = VPDiscrete()
        >>> process
        VPDiscrete(N=1000, alphas_cumprod=0.9999 .. 4.03583e-05)
        >>> process.level(0).alpha == math.sqrt(1 - 1e-4)
        True
        >>> VPDiscrete(alphas_cumprod=[0.9, 0.5, 0.0]).level(2)
        Level(t=2.0, alpha=0.0, sigma=1.0, lam=-inf)
    """

    name: ClassVar[str] = "vp-discrete"

    alphas_cumprod: tuple[float, ...]
    variances: tuple[float, ...] = attrs.field(init=False)
    """1 - alphas_cumprod, from the betas without cancellation where those are given."""
    t_min: float = attrs.field(init=False, eq=False)
    t_max: float = attrs.field(init=False, eq=False)
    _alphas: tuple[float, ...] = attrs.field(init=False, eq=False)
    _sigmas: tuple[float, ...] = attrs.field(init=False, eq=False)
    _lams: tuple[float, ...] = attrs.field(init=False, eq=False)
    _descending: tuple[float, ...] = attrs.field(init=False, eq=False)

    def __init__(self, betas: Any = None, alphas_cumprod: Any = None) -> None:
        if betas is not None and alphas_cumprod is not None:
            raise ArgumentError(
                "VPDiscrete takes betas or alphas_cumprod, not both; they say the same"
            )
        if alphas_cumprod is not None:
            products = _sequence("alphas_cumprod", alphas_cumprod)
            _check_products(products)
            variances = [1.0 - product for product in products]
        else:
            noise = _sequence("betas", np.linspace(1e-4, 0.02, 1000) if betas is None else betas)
            _check_betas(noise)
            products, variances = _accumulate(noise)
        lams = tuple(
            0.5 * (math.log(p) - math.log(v)) if p > 0.0 else -math.inf
            for p, v in zip(products, variances, strict=True)
        )
        i = next((i for i in range(1, len(lams)) if not lams[i] < lams[i - 1]), None)
        if i is not None:
            raise ArgumentError(
                f"the half log-SNR does not decrease in float64 from index {i - 1} to {i}: "
                f"{lams[i - 1]!r}, {lams[i]!r}"
            )
        store = object.__setattr__  # frozen
        store(self, "alphas_cumprod", tuple(products))
        store(self, "variances", tuple(variances))
        store(self, "t_min", 0.0)
        store(self, "t_max", float(len(products) - 1))
        store(self, "_alphas", tuple(map(math.sqrt, products)))
        store(self, "_sigmas", tuple(map(math.sqrt, variances)))
        store(self, "_lams", lams)
        store(self, "_descending", tuple(-lam for lam in lams))  # ascending, for bisection

    def __repr__(self) -> str:
        first, last = self.alphas_cumprod[0], self.alphas_cumprod[-1]
        return f"VPDiscrete(N={len(self.alphas_cumprod)}, alphas_cumprod={first:.6g} .. {last:.6g})"

    def alpha(self, t: Any) -> Any:
        if not is_number(t):
            return elementwise(self.alpha, t)
        t = self.check_time(t)
        return self._alphas[int(t)] if t.is_integer() else scales_at(self._between(t))[0]

    def sigma(self, t: Any) -> Any:
        if not is_number(t):
            return elementwise(self.sigma, t)
        t = self.check_time(t)
        return self._sigmas[int(t)] if t.is_integer() else scales_at(self._between(t))[1]

    def lam(self, t: Any) -> Any:
        if not is_number(t):
            return elementwise(self.lam, t)
        t = self.check_time(t)
        return self._lams[int(t)] if t.is_integer() else self._between(t)

    def _between(self, t: float) -> float:
        i = int(t)
        lam0, lam1 = self._lams[i], self._lams[i + 1]
        if lam1 == -math.inf:
            return lam0 + math.log(i + 1 - t)  # alpha/sigma goes linearly to 0
        return lam0 + (t - i) * (lam1 - lam0)

    def _inverse(self, lam: float) -> float:
        i = bisect_left(
            self._descending, -lam
        )  # lams[i - 1] > lam >= lams[i], and i >= 1 inside the range
        lam0, lam1 = self._lams[i - 1], self._lams[i]
        if lam1 == -math.inf:
            return i - math.exp(lam - lam0)
        return i - (lam - lam1) / (lam0 - lam1)

    def lam_rate(self, t: float) -> float:
        """d lam/dt: constant between the indices.

        At an index that of the interval to come (at the last, of the one before).
        """
        t = self.check_time(t)
        i = min(int(t), len(self._lams) - 2)
        if self._lams[i + 1] == -math.inf:
            return -1.0 / (i + 1 - t) if t < i + 1 else -math.inf
        return self._lams[i + 1] - self._lams[i]

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = sigma^2 dlam/dt."""
        return self.lam_rate(t) * float(self.sigma(t)) ** 2


def _sequence(name: str, values: Any) -> list[float]:
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"{name} must be a tensor, array or list of numbers, not {values!r}"
        ) from error
    if array.ndim != 1 or array.size < 2:
        raise ArgumentError(
            f"{name} must be one-dimensional with at least 2 entries, not of shape {array.shape}"
        )
    return [float(value) for value in array]


def _check_betas(betas: list[float]) -> None:
    for i, beta in enumerate(betas):
        if not (0.0 < beta < 1.0 or (beta == 1.0 and i == len(betas) - 1)):
            raise ArgumentError(
                f"betas must lie in (0, 1), the last may be 1, but betas[{i}] = {beta!r}; are "
                "these alphas_cumprod? "
                "Then write VPDiscrete(alphas_cumprod=...)"
            )


def _check_products(products: list[float]) -> None:
    for i, product in enumerate(products):
        if not (0.0 < product < 1.0 or (product == 0.0 and i == len(products) - 1)):
            cure = (
                "drop the entry, index 0 is the first noisy level"
                if product == 1.0 and i == 0
                else "are these betas? Then write VPDiscrete(betas=...)"
            )
            raise ArgumentError(
                f"alphas_cumprod must lie in (0, 1), the last may be 0, but alphas_cumprod[{i}] = "
                f"{product!r}; {cure}"
            )
        if i > 0 and not product < products[i - 1]:
            raise ArgumentError(
                f"alphas_cumprod must decrease strictly, but alphas_cumprod[{i - 1}] = "
                f"{products[i - 1]!r} "
                f"and alphas_cumprod[{i}] = {product!r}; index 0 is the least noisy level: "
                "are they reversed, or are these betas (VPDiscrete(betas=...))?"
            )


def _accumulate(betas: list[float]) -> tuple[list[float], list[float]]:
    """alphas_cumprod and 1 - alphas_cumprod, the second by a recursion of positive terms.

    No cancellation where the noise is small.
    """
    products, variances = [], []
    product, variance = 1.0, 0.0
    for beta in betas:
        product *= 1.0 - beta
        variance = beta + (1.0 - beta) * variance
        products.append(product)
        variances.append(variance)
    return products, variances
