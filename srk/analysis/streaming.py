r"""Means, covariances and Frechet distances of samples that never are in memory together.

Samples come in pieces, and each piece moves the mean m, the sum of squared deviations M and the
number n as Chan, Golub and LeVeque (1983) add two sets:

    m = m_1 + (m_2 - m_1) n_2/n        M = M_1 + M_2 + (m_2 - m_1)(m_2 - m_1)^T n_1 n_2/n

In float64 this is as exact as both passes over all the samples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import need
from srk.errors import ArgumentError, ArgumentTypeError

__all__ = ["Moments", "frechet_distance", "moments"]


@attrs.define
class Moments:
    """The number, mean and covariance of the samples seen so far.

    Attributes:
        n: how many samples were seen.
        mean: shape (d,), float64, on the CPU; None before the first.

    Examples:
        >>> import torch
        >>> seen = Moments()
        >>> for piece in torch.arange(6.0).reshape(3, 2, 1):
        ...     seen.add(piece)
        >>> seen.n, seen.mean.item(), round(seen.covariance.item(), 3)
        (6, 2.5, 3.5)
    """

    n: int = 0
    mean: Tensor | None = None
    _squares: Tensor | None = None

    def add(self, samples: Tensor) -> None:
        """See more samples.

        Arguments:
            samples: shape (k, *event); they are flattened to (k, d).

        Raises:
            ArgumentError: another d than before, or numbers that are not finite.
        """
        need(samples, Tensor, "samples", "a tensor, shape (k, *event)")
        x = samples.detach().flatten(1).to("cpu", torch.float64)
        if not len(x):
            return
        if not bool(torch.isfinite(x).all()):
            raise ArgumentError("samples must be finite; some are NaN or inf")
        mean = x.mean(0)
        squares = (x - mean).mT @ (x - mean)
        if self.mean is None or self._squares is None:
            self.n, self.mean, self._squares = len(x), mean, squares
            return
        if mean.shape != self.mean.shape:
            raise ArgumentError(
                f"samples of {len(mean)} numbers each, after samples of {len(self.mean)}; give "
                "samples of one shape"
            )
        total, shift = self.n + len(x), mean - self.mean
        self._squares = (
            self._squares + squares + torch.outer(shift, shift) * (self.n * len(x) / total)
        )
        self.mean, self.n = self.mean + shift * (len(x) / total), total

    @property
    def covariance(self) -> Tensor:
        """The covariance with divisor n - 1, shape (d, d), float64.

        Raises:
            ArgumentError: fewer than two samples were seen.
        """
        if self.n < 2 or self._squares is None:
            raise ArgumentError(f"a covariance needs at least 2 samples, not {self.n}")
        return self._squares / (self.n - 1)


def moments(
    samples: Any, *, features: Callable[[Tensor], Tensor] | None = None, batch: int = 1024
) -> Moments:
    """The moments of samples, read a piece at a time.

    Arguments:
        samples: an `srk.SampleSet`, a tensor, or anything that iterates over tensors (k, *event).
        features: what to measure of a piece, (k, *event) -> (k, d), such as a network's features;
            None measures the samples themselves.
        batch: samples in a piece of a tensor.

    Examples:
        >>> import torch
        >>> moments(torch.ones(5, 2, 2), features=lambda x: 2 * x.flatten(1)[:, :1]).mean
        tensor([2.], dtype=torch.float64)
    """
    pieces: Iterable[Tensor]
    if isinstance(samples, Tensor):
        pieces = torch.split(samples, batch)
    elif callable(getattr(samples, "chunks", None)):
        pieces = samples.chunks()
    elif isinstance(samples, Iterable):
        pieces = samples
    else:
        raise ArgumentTypeError(
            f"samples are a set, a tensor or pieces of one, not {type(samples).__name__}"
        )
    seen = Moments()
    with torch.no_grad():
        for piece in pieces:
            seen.add(piece if features is None else features(piece))
    return seen


def frechet_distance(one: Moments, other: Moments) -> float:
    r"""The Frechet distance of two sets of samples, if both were Gaussian.

    $$
    |m_1 - m_2|^2 + \operatorname{tr}\big(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}\big)
    $$

    It is the square of the 2-Wasserstein distance of two Gaussians. Of features of Inception it is
    the FID. Its estimate is too large by a term of order d/n: measure two sets of the reference
    against each other for the floor, and compare numbers of equal n only.

    Arguments:
        one, other: what `moments` returns.

    Source: D. C. Dowson and B. V. Landau, J. Multivariate Anal. 12 (1982) 450.

    Examples:
        >>> import torch
        >>> x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(moments(x), moments(x + 2.0)), 6)
        12.0
    """
    for name, each in (("one", one), ("other", other)):
        need(each, Moments, name, "Moments, as srk.analysis.moments(samples) gives")
    if one.mean is None or other.mean is None or one.mean.shape != other.mean.shape:
        raise ArgumentError("the two sets must have samples of one shape, and some of them")
    roots, total = [], float((one.mean - other.mean).square().sum())
    for each in (one, other):
        values, vectors = torch.linalg.eigh(each.covariance)
        roots.append(values.clamp_min(0.0).sqrt()[:, None] * vectors.mT)
        total += float(values.sum())
    # tr (C_1 C_2)^{1/2} is the sum of the singular values of C_1^{1/2} C_2^{1/2}; taken so, nothing
    # is lost to the square root of rounding.
    return max(total - 2.0 * float(torch.linalg.svdvals(roots[0] @ roots[1].mT).sum()), 0.0)
