"""Problems whose posterior is known: a mixture of Gaussians, and a measurement of it."""

from __future__ import annotations

import math

import attrs
import torch

from srk.errors import UnknownNameError
from srk.posterior.linear import Linear
from srk.posterior.measurement import Measurement
from srk.targets import GaussianMixture

PROBLEMS = ("two-modes", "ring", "profile")
"""The names that `posterior_problem` knows."""


@attrs.frozen
class PosteriorProblem:
    """A prior, what was measured of a sample, and hence the exact posterior.

    Arguments:
        name: its name.
        prior: the distribution of the data.
        measurement: what was measured.
    """

    name: str
    prior: GaussianMixture
    measurement: Measurement

    @property
    def posterior(self) -> GaussianMixture:
        """The exact posterior."""
        return self.prior.posterior(self.measurement)


def posterior_problem(name: str) -> PosteriorProblem:
    """A problem with an exact posterior by name.

    Arguments:
        name: "two-modes" (2-D: two correlated modes that the measurement cannot tell apart),
            "ring" (2-D: eight modes on a ring, one coordinate measured), or "profile" (16-D: three
            kinds of smooth profiles, measured by their means over four blocks).

    Raises:
        UnknownNameError: there is no such problem.

    Examples:
        >>> problem = posterior_problem("two-modes")
        >>> problem.posterior.weights.round(decimals=2)
        tensor([0.3900, 0.6100], dtype=torch.float64)
    """
    if name == "two-modes":
        prior = GaussianMixture(
            [0.5, 0.5],
            [[-0.8, 0.8], [0.8, -0.8]],
            covariances=[[[0.5, 0.3], [0.3, 0.4]], [[0.4, -0.2], [-0.2, 0.5]]],
        )
        operator, y = Linear(torch.tensor([[1.0, 0.8]])), torch.tensor([0.6])
        return PosteriorProblem(name, prior, Measurement(operator, y, 0.5))
    if name == "ring":
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        means = 1.5 * torch.stack([angles.cos(), angles.sin()], 1)
        prior = GaussianMixture([1.0] * 8, means, [0.3] * 8)
        operator, y = Linear(torch.tensor([[1.0, 0.0]])), torch.tensor([1.0])
        return PosteriorProblem(name, prior, Measurement(operator, y, 0.5))
    if name == "profile":
        site = torch.arange(16, dtype=torch.float64)
        near = torch.exp(-0.5 * ((site[:, None] - site) / 3.0) ** 2)
        eye = torch.eye(16, dtype=torch.float64)
        wave = torch.sin(site * (2 * math.pi / 16))
        prior = GaussianMixture(
            [0.4, 0.35, 0.25],
            torch.stack([wave, -wave, 0.5 + 0.0 * wave]),
            covariances=torch.stack(
                [0.3 * near + 0.02 * eye, 0.2 * near + 0.02 * eye, 0.5 * near + 0.02 * eye]
            ),
        )
        blocks = Linear(torch.kron(torch.eye(4), torch.full((1, 4), 0.25)))
        y = torch.tensor([0.6, 0.5, 0.1, -0.1])
        return PosteriorProblem(name, prior, Measurement(blocks, y, 0.4))
    raise UnknownNameError("problem with an exact posterior", name, PROBLEMS)


__all__ = ["PROBLEMS", "PosteriorProblem", "posterior_problem"]
