"""Flows of linear systems with noise, by Gauss collocation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from srk.processes.quadrature import Array, gauss_legendre

_NODES = 8


def _gauss() -> tuple[Array, Array, Array]:
    """Nodes, weights and coefficients of Gauss-Legendre collocation on [0, 1], of order 16."""
    c, b = gauss_legendre(_NODES)
    powers = np.arange(1, _NODES + 1)
    a = (c[:, None] ** powers / powers) @ np.linalg.inv(c[:, None] ** (powers - 1))
    return c, b, a


_C, _B, _A = _gauss()


def linear_flow(
    blocks: Callable[[float], tuple[Array, Array, Array]], k: int, start: float, stop: float
) -> tuple[Array, Array, Array]:
    """Flow, noise and response of dz = (M z + b) dt + noise of covariance S dt.

    From `start` to `stop`, in either direction.

    Arguments:
        blocks: t -> (M, S, b), of shapes (k, k), (k, k), (k,).
        k: dimension.
        start, stop: times; where `stop` is below `start`, M and b act on a negative dt and S is
            what is added per |dt|.

    Returns:
        (Phi, N, q) with z_stop = Phi z_start + q + N(0, N), to about 1e-13, by Gauss collocation of
        order 16.

    Examples:
        >>> import numpy as np
        >>> from srk.processes.linear_flow import linear_flow
        >>> decay = lambda t: (-np.eye(1), 2.0 * np.eye(1), np.zeros(1))
        >>> phi, noise, _ = linear_flow(decay, 1, 0.0, 1.0)
        >>> round(phi.item(), 10), round(noise.item(), 10)  # exp(-1), 1 - exp(-2)
        (0.3678794412, 0.8646647168)
    """
    phi, noise, response = np.eye(k), np.zeros((k, k)), np.zeros(k)
    sign = 1.0 if stop >= start else -1.0
    t = start
    while t != stop:
        m = blocks(t)[0]
        # Steps short against the rates, and against the distance to 0, where the coefficients of a
        # reversal are singular
        size = min(abs(stop - t), 1.0 / max(1e-300, float(np.abs(m).max())))
        if sign < 0.0:
            size = min(size, 0.25 * t) if stop > 0.0 else size
        end = stop if size >= 0.999 * abs(stop - t) else t + sign * size
        phi1, noise1, response1 = _collocate(blocks, k, t, end)
        phi, noise, response = (
            phi1 @ phi,
            phi1 @ noise @ phi1.T + noise1,
            phi1 @ response + response1,
        )
        t = end
    return phi, noise, response


def _collocate(
    blocks: Callable[[float], tuple[Array, Array, Array]], k: int, start: float, stop: float
) -> tuple[Array, Array, Array]:
    # One homogeneous system: [[M, S, b], [0, -M^T, 0], [0, 0, 0]] has the flow [[Phi, N Phi^-T, q],
    # [0, Phi^-T, 0], [0, 0, 1]]
    h, size = stop - start, 2 * k + 1
    system = np.zeros((_NODES, size, size))
    for i, c in enumerate(_C):
        m, s, b = blocks(start + c * h)
        system[i, :k, :k], system[i, :k, k : 2 * k], system[i, :k, -1] = (
            m,
            math.copysign(1.0, h) * s,
            b,
        )
        system[i, k : 2 * k, k : 2 * k] = -m.T
    matrix = np.eye(_NODES * size) - h * np.einsum("ij,iab->iajb", _A, system).reshape(
        _NODES * size, -1
    )
    slopes = np.linalg.solve(matrix, system.reshape(_NODES * size, size)).reshape(
        _NODES, size, size
    )
    flow = np.eye(size) + h * np.einsum("i,iab->ab", _B, slopes)
    phi, noise = flow[:k, :k], flow[:k, k : 2 * k] @ flow[:k, :k].T
    return phi, 0.5 * (noise + noise.T), flow[:k, -1]
