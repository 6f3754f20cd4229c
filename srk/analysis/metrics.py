r"""Distances between two sets of samples.

Each is estimated from finite samples, so that it is not zero for two sets of one distribution:
compare it with its floor, the same distance between two independent sets of that distribution
(`floor`). Samples have shape (n, *event); they may differ in number, must agree in the event, and
are computed in float64 where either is float64, else in float32, on the device of `x`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from srk._checks import integer, shown
from srk.analysis.streaming import frechet_distance, moments
from srk.errors import ArgumentError, ArgumentTypeError

Metric = Callable[[Tensor, Tensor], float]

ROWS = 2048
"""Rows of one block of pairwise distances."""

PAIRED = 4096
"""Samples of each set that distances between all pairs look at by default.

Their cost grows with the square.
"""


def sliced_w2(x: Tensor, y: Tensor, *, projections: int = 256, seed: int = 0) -> float:
    r"""Sliced 2-Wasserstein distance, (mean over directions of W_2^2 of the projections)^{1/2}.

    In one dimension it is W_2 itself. Exact for the two empirical distributions and the directions
    drawn; different numbers of samples are allowed.

    Arguments:
        x, y: samples, shapes (n, *event) and (m, *event).
        projections: number of random directions.
        seed: of the directions, so that equal calls compare along equal directions.

    Source: Bonneel et al. 2015; equals `ot.sliced_wasserstein_distance(p=2)` on the same
    directions.

    Examples:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
        >>> shift = torch.tensor([3.0, 4.0])
        >>> round(sliced_w2(x, x + shift), 1)  # 5/sqrt(2): a shift seen along random directions
        3.5
    """
    x, y = _pair(x, y)
    d = x.shape[1]
    if projections < 1:
        raise ArgumentError(
            f"projections is a positive number of directions, not {projections!r}; e.g. "
            "projections=256"
        )
    if d == 1:
        directions = torch.ones(1, 1, dtype=x.dtype)
    else:
        # On the CPU, so that the directions are the same on every device
        directions = torch.randn(
            d, projections, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        directions = directions / directions.norm(dim=0)
    directions = directions.to(x)
    total, count = 0.0, directions.shape[1]
    block = max(1, 2**23 // max(len(x), len(y)))
    for part in torch.split(directions, block, dim=1):
        total += float(_w2_squared((x @ part).T, (y @ part).T).sum())
    return math.sqrt(total / count)


def _w2_squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared W_2 of the rows of `a` (k, n) and `b` (k, m).

    The quantile functions are steps, integrated piece by piece.
    """
    a, b = a.sort(dim=1).values, b.sort(dim=1).values
    n, m = a.shape[1], b.shape[1]
    if n == m:
        return (a - b).square().mean(1, dtype=torch.float64)
    # In units of 1/(n m), in integers: no rounding decides which sample a piece belongs to
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    lengths = torch.diff(ends, prepend=ends.new_zeros(1))
    i, j = (ends - 1) // m, (ends - 1) // n
    weights = (lengths.to(torch.float64) / (n * m)).to(a.device)
    return (a[:, i.to(a.device)] - b[:, j.to(b.device)]).square().to(torch.float64) @ weights


def energy_distance(x: Tensor, y: Tensor, *, limit: int = PAIRED) -> float:
    """Energy distance of two samples.

    It is the square root of 2 E|X - Y| - E|X - X'| - E|Y - Y'|, estimated without bias; where the
    estimate is negative it is 0.

    Arguments:
        x, y: samples, shapes (n, *event) and (m, *event), at least two each.
        limit: only the first `limit` of each are used.

    Source: Szekely and Rizzo 2013.
    """
    x, y = _pair(*_first(x, y, limit), least=2)

    def mean(a: Tensor, b: Tensor, pairs: int) -> float:
        return sum(float(block.sum(dtype=torch.float64)) for block in _distances(a, b)) / pairs

    n, m = len(x), len(y)
    squared = 2.0 * mean(x, y, n * m) - mean(x, x, n * (n - 1)) - mean(y, y, m * (m - 1))
    return math.sqrt(max(squared, 0.0))


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    bandwidths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
    limit: int = PAIRED,
) -> float:
    """Maximum mean discrepancy of two samples with a mean of Gaussian kernels.

    The kernels are exp(-|x - y|^2/(2 b^2)). The estimate is unbiased, and 0 where it is negative.

    Arguments:
        x: samples to judge, shape (n, *event), at least two.
        y: samples of the reference, shape (m, *event), at least two.
        bandwidths: b in units of the median distance within `y`.
        limit: only the first `limit` of each are used.

    Source: Gretton et al. 2012.
    """
    x, y = _pair(*_first(x, y, limit), least=2)
    median = float(torch.pdist(y[:ROWS]).median())
    if median == 0.0:
        raise ArgumentError(
            "most of the reference samples coincide, so that their median distance, the "
            "unit of the bandwidths, is 0"
        )

    def mean(a: Tensor, b: Tensor, diagonal: int) -> float:
        total = 0.0
        for block in _distances(a, b):
            scaled = block.div_(median).square_()
            for bandwidth in bandwidths:
                total += float(torch.exp(scaled * (-0.5 / bandwidth**2)).sum(dtype=torch.float64))
        return (total / len(bandwidths) - diagonal) / (len(a) * len(b) - diagonal)

    squared = mean(x, x, len(x)) + mean(y, y, len(y)) - 2.0 * mean(x, y, 0)
    return math.sqrt(max(squared, 0.0))


def moment_errors(x: Tensor, y: Tensor) -> dict[str, float]:
    """Errors of mean and covariance, both relative to the spread of the reference.

    Arguments:
        x: samples to judge, shape (n, *event), at least two.
        y: samples of the reference, shape (m, *event), at least two.

    Returns:
        Two numbers by name, `mean` with |mean_x - mean_y|/sqrt(trace C_y) and `covariance` with
        |C_x - C_y|_F/|C_y|_F.
    """
    x, y = _pair(x, y, least=2)
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    cx, cy = a.T @ a / (len(x) - 1), b.T @ b / (len(y) - 1)
    spread = float(torch.trace(cy))
    if spread == 0.0:
        raise ArgumentError(
            "the reference samples are all equal; errors relative to their spread have no meaning"
        )
    return {
        "mean": float((mean_x - mean_y).norm()) / math.sqrt(spread),
        "covariance": float((cx - cy).norm() / cy.norm()),
    }


def mean_error(x: Tensor, y: Tensor) -> float:
    """`moment_errors(x, y)["mean"]`."""
    return moment_errors(x, y)["mean"]


def covariance_error(x: Tensor, y: Tensor) -> float:
    """`moment_errors(x, y)["covariance"]`."""
    return moment_errors(x, y)["covariance"]


def frechet(x: Tensor, y: Tensor, *, features: Callable[[Tensor], Tensor] | None = None) -> float:
    r"""Squared Frechet distance of two samples.

    It is the distance of the normal distributions with the samples' moments,
    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2}).

    On features of an image network this is what is reported as FID, up to the choice of the
    network. For two sets of n samples of one distribution in d dimensions it is not 0 but grows
    like d/n: compare it with `floor` at equal numbers of samples.

    Arguments:
        x, y: samples, shapes (n, *event) and (m, *event), at least two each.
        features: function of samples (n, *event) that returns features (n, *shape), e.g. a pooled
            layer of a network; default the samples themselves.

    Source: Dowson and Landau 1982; Heusel et al. 2017, "GANs trained by a two time-scale update
    rule converge to a local Nash equilibrium".

    Examples:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
        >>> round(frechet(x, x + torch.tensor([3.0, 4.0])), 6)  # a shift: its squared length
        25.0
        >>> distance = frechet(x, 2 * x, features=lambda x: x - x.mean(0))  # twice as wide
        >>> round(distance / float(x.var(0).sum()), 6)
        1.0
    """
    if features is not None:
        if not callable(features):
            raise ArgumentTypeError(
                f"features is a function of samples (n, *event) -> (n, d), not {shown(features)}"
            )
        with torch.no_grad():
            x, y = features(x), features(y)
    x, y = _pair(x, y, least=2)
    return frechet_distance(moments(x), moments(y))


def chi_square_excess(counts: ArrayLike | Tensor) -> float:
    """Chi-square of counts against equal expectations, divided by its degrees of freedom, less 1.

    About 0 +- sqrt(2/(k - 1)) where all k classes are equally likely, whatever the number of
    samples; for an unequal distribution it grows in proportion to that number.

    Arguments:
        counts: how often each of k >= 2 classes came, shape (k,).

    Examples:
        >>> chi_square_excess([10, 10, 10])
        -1.0
    """
    try:
        values = np.asarray(
            counts.detach().cpu() if isinstance(counts, Tensor) else counts, dtype=np.float64
        )
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"counts must be numbers, not {shown(counts)}; e.g. [10, 12, 9]"
        ) from None
    if values.ndim != 1 or len(values) < 2 or values.min() < 0 or values.sum() == 0:
        raise ArgumentError(
            "counts are at least two numbers >= 0, not all 0, of shape (k,), not an array "
            f"of shape {values.shape}"
        )
    expected = values.mean()
    return float(((values - expected) ** 2).sum() / expected / (len(values) - 1) - 1.0)


def floor(metric: Metric, x: Tensor, *, size: int | None = None, seed: int = 0) -> float:
    """What `metric` says of two independent sets of one distribution.

    The two sets are `x`, split at random.

    Arguments:
        metric: (x, y) -> distance.
        x: samples of the distribution, shape (n, *event).
        size: samples in the first set; default half. The second has the rest.
        seed: of the split.
    """
    n = len(x)
    size = n // 2 if size is None else size
    if not 0 < size < n:
        raise ArgumentError(
            f"a floor needs a set of 1 to {n - 1} samples out of {n}, not size={size!r}"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(x.device)
    return metric(x[order[:size]], x[order[size:]])


def _samples(value: object, name: str) -> Tensor:
    """`value`, which must be samples."""
    if isinstance(value, Tensor) and value.dtype.is_floating_point and value.ndim > 0:
        return value
    raise ArgumentTypeError(
        f"{name} must be a floating-point tensor of samples, shape (n, *event), not {shown(value)}"
    )


def _first(x: object, y: object, limit: object) -> tuple[Tensor, Tensor]:
    """The first `limit` of both samples."""
    most = integer(limit, "limit", least=2)
    return _samples(x, "x")[:most], _samples(y, "y")[:most]


def _pair(x: object, y: object, *, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both samples as matrices (n, d) of one dtype and device, centred on the mean of `y`.

    Distances between centred samples cancel less.
    """
    for name, value in (("x", x), ("y", y)):
        count = len(_samples(value, name))
        if count < least:
            raise ArgumentError(f"{name} has {count} samples; this distance needs at least {least}")
    assert isinstance(x, Tensor) and isinstance(y, Tensor)
    if x.shape[1:] != y.shape[1:]:
        raise ArgumentError(
            f"the samples have event shapes {tuple(x.shape[1:])} and {tuple(y.shape[1:])}; "
            "they must agree"
        )
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    a = x.detach().to(dtype).reshape(len(x), -1)
    b = y.detach().to(device=x.device, dtype=dtype).reshape(len(y), -1)
    centre = b.mean(0)
    return a - centre, b - centre


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Blocks of the matrix |a_i - b_j|, its diagonal exactly 0 where `a` is `b`."""
    for start in range(0, len(a), ROWS):
        rows = a[start : start + ROWS]
        block = torch.cdist(rows, b)
        if a is b:
            block.diagonal(start).zero_()
        yield block


METRICS: dict[str, Metric] = {
    "sliced-w2": sliced_w2,
    "energy": energy_distance,
    "mmd": mmd,
    "mean": mean_error,
    "covariance": covariance_error,
}
"""The distances by the name that `srk.analysis.compare` knows."""
