"""Weighted particles: effective sample size, systematic resampling, the log-normalizer."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from srk._checks import need


def effective_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2/sum w^2 of weights given by their logarithms (n,): between 1 and n.

    Examples:
        >>> effective_size(torch.zeros(4))
        tensor(4.)
    """
    need(log_weights, Tensor, "log_weights", "a tensor of shape (n,)")
    w = torch.softmax(log_weights, 0)
    return 1.0 / w.square().sum()


def systematic(log_weights: Tensor, u: float) -> Tensor:
    """Ancestors of a systematic resampling: particle i is taken floor or ceil of n w_i times.

    Arguments:
        log_weights: logarithms of the weights, shape (n,), up to a constant.
        u: a uniform number in [0, 1).

    Returns:
        The number of the ancestor of each new particle, int64 (n,), increasing.

    Source: Kitagawa 1996; Doucet and Johansen, "A Tutorial on Particle Filtering and Smoothing",
    2009, section 3.4.

    Examples:
        >>> systematic(torch.tensor([0.5, 0.25, 0.25, 1e-9]).log(), 0.5)
        tensor([0, 0, 1, 2])
    """
    n = len(log_weights)
    steps = torch.softmax(log_weights, 0).cumsum(0)
    points = (torch.arange(n, device=steps.device, dtype=steps.dtype) + u) / n
    return torch.searchsorted(steps, points, right=True).clamp_max(n - 1)


@attrs.frozen(eq=False)
class Weights:
    """The weights of a population, and the logarithm of what was divided out so far.

    Nothing here waits for the device: whether particles are resampled is decided there.

    Arguments:
        log: logarithms of the weights, shape (n,).
        log_normalizer: logarithm of the mean weight at the resamplings so far, shape ().
    """

    log: Tensor
    log_normalizer: Tensor

    @classmethod
    def equal(cls, n: int, device: torch.device) -> Weights:
        """Weights of 1 for `n` particles, in float64 where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        zero = torch.zeros((), device=device, dtype=dtype)
        return cls(zero.expand(n).clone(), zero)

    def times(self, log_factor: Tensor) -> Weights:
        """The weights multiplied by factors, given by their logarithms (n,)."""
        return attrs.evolve(self, log=self.log + log_factor.to(self.log))

    def log_mean(self) -> Tensor:
        """The logarithm of the mean weight, those divided out included."""
        return self.log_normalizer + torch.logsumexp(self.log, 0) - math.log(len(self.log))

    def resampled(self, u: float, threshold: float) -> tuple[Tensor, Weights]:
        """Ancestors and new weights: a systematic resampling where too few particles count.

        Arguments:
            u: a uniform number in [0, 1).
            threshold: resample where the effective size is below this fraction of n; above 1
                always. Otherwise each particle is its own ancestor.
        """
        n = len(self.log)
        needed = effective_size(self.log) < threshold * n
        own = torch.arange(n, device=self.log.device)
        ancestors = torch.where(needed, systematic(self.log, u), own)
        log = torch.where(needed, torch.zeros_like(self.log), self.log)
        log_normalizer = torch.where(needed, self.log_mean(), self.log_normalizer)
        return ancestors, Weights(log, log_normalizer)


__all__ = ["Weights", "effective_size", "systematic"]
