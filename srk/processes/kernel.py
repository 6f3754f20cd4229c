"""The distribution of a state of several components given the data."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import torch

from srk.errors import ArgumentError

Array = np.ndarray[Any, np.dtype[Any]]


@attrs.frozen(slots=True, eq=False)
class PhaseKernel:
    """The distribution of z_t given data x0, N(a x0, C), in the coordinates where it is simplest.

    With D the complement of a in C, C = rho^2 a a^T + D D^T, every state is z = a m + D xi. The
    statistic m = x0 + rho eps holds all that z knows of the data, and xi ~ N(0, I) is independent
    of the data and of m.

    Arguments:
        mean: a, shape (k,).
        covariance: C, shape (k, k).
        rho: noise of the statistic, (a^T C^-1 a)^(-1/2).
        complement: D, shape (k, k - 1).
        reading: w = rho^2 C^-1 a, shape (k,): m = w . z.
        rest: D^T C^-1, shape (k - 1, k): xi = rest z.
        auxiliary: A, shape (k - 1, k): the auxiliary components at t = 0 are A (z - a x0) on
            average, given z and x0.
    """

    mean: Array
    covariance: Array
    rho: float
    complement: Array
    reading: Array
    rest: Array
    auxiliary: Array


def mix(matrix: Array, x: torch.Tensor) -> torch.Tensor:
    """`matrix` times the components of `x`, shape (batch, k, *event).

    Examples:
        >>> import numpy as np, torch
        >>> from srk.processes.kernel import mix
        >>> mix(np.array([[1.0, 2.0], [0.0, 3.0]]), torch.ones(1, 2))
        tensor([[3., 3.]])
    """
    out = torch.zeros_like(x)
    for i, row in enumerate(np.asarray(matrix)):
        for j, value in enumerate(row):
            if value != 0.0:
                out[:, i].add_(x[:, j], alpha=float(value))
    return out


def kernel_of(
    a: Array, c: Array, psi: Array, variances: Array, start: bool, what: str
) -> PhaseKernel:
    """The kernel of a state that is N(a x0, c) given the data.

    Arguments:
        a, c: mean and covariance, shapes (k,) and (k, k).
        psi: the transition from t = 0, shape (k, k).
        variances: of the auxiliary components at t = 0, shape (k - 1,).
        start: whether this is t = 0, where no noise is on the data.
        what: the process and the time, for errors.
    """
    if start:  # no noise on the data
        eye, std = np.eye(len(a)), np.sqrt(variances)
        rest = eye[1:] / np.where(std > 0.0, std, 1.0)[:, None]
        return PhaseKernel(eye[0], c, 0.0, eye[:, 1:] * std, eye[0], rest, eye[1:])
    try:
        inverse = np.linalg.inv(c)
        informed = inverse @ a
        information = float(a @ informed)
        with np.errstate(all="ignore"):  # what is not finite is refused below
            rest = c - np.outer(a, a) / information
            factor = np.linalg.cholesky(rest[1:, 1:])
    except np.linalg.LinAlgError:
        information = math.nan
    if not (information > 0.0 and math.isfinite(information)):
        raise ArgumentError(
            f"the covariance of {what} is not positive definite: "
            f"{c.tolist()!r}; noise must reach every component (or t_min is too small)"
        )
    complement = np.vstack([np.linalg.solve(factor, rest[1:, 0]), factor])
    auxiliary = variances[:, None] * psi[:, 1:].T @ inverse
    return PhaseKernel(
        a,
        c,
        information**-0.5,
        complement,
        informed / information,
        complement.T @ inverse,
        auxiliary,
    )
