r"""Between the denoiser D = E[x0 | x_t] and the other things a network may say.

Coefficients in float64.

At a level with x = alpha x0 + sigma eps, conditional means satisfy x = alpha D + sigma eps, hence

    score           s   = (alpha D - x) / sigma^2              D = (x + sigma^2 s) / alpha
    noise           eps = (x - alpha D) / sigma                D = (x - sigma eps) / alpha
    velocity        v   = alpha eps - sigma D                  D = (alpha x - sigma v) / (alpha^2 +
    sigma^2) flow velocity   w   = eps - D                              D = (x - sigma w) / (alpha +
    sigma)

Every line is linear: `denoiser_from_*` and `*_from_denoiser` give the pair of coefficients, `to_*`
apply it to tensors.

`scale` = k serves a network that lives at another scaling of the same process: it reads k x, at the
level (k alpha, k sigma), and what it says belongs to that level. The denoiser is the same; noise
and flow velocity do not change with k, the score is divided by it.
"""

from __future__ import annotations

import math

from torch import Tensor

from srk._checks import need
from srk.errors import IncompatibleError
from srk.processes.base import Level

Pair = tuple[float, float]


def denoiser_from_score(level: Level, scale: float = 1.0) -> Pair:
    """(a, b) of D = a x + b s: a = 1/alpha, b = k sigma^2/alpha.

    Arguments:
        level: the noise level; alpha > 0.
        scale: k, when s is the score of the distribution of k x, at k x.

    Raises:
        IncompatibleError: alpha = 0, where the score does not depend on the data.
    """
    _need_signal(level, "score")
    return 1.0 / level.alpha, level.sigma * (level.sigma / level.alpha) * scale


def denoiser_from_noise(level: Level) -> Pair:
    """(a, b) of D = a x + b eps: a = 1/alpha, b = -sigma/alpha.

    `IncompatibleError` at alpha = 0.
    """
    _need_signal(level, "noise prediction")
    return 1.0 / level.alpha, -level.sigma / level.alpha


def denoiser_from_velocity(level: Level, scale: float = 1.0) -> Pair:
    """(a, b) of D = a x + b v.

    A = alpha/(alpha^2 + sigma^2), b = -(sigma/k)/(alpha^2 + sigma^2), fine at both ends.

    Arguments:
        level: the noise level.
        scale: k, when v = k (alpha eps - sigma x0); k = 1/sqrt(alpha^2 + sigma^2) is the
            variance-preserving v.
    """
    c = math.hypot(level.alpha, level.sigma)
    return level.alpha / c / c, -level.sigma / c / c / scale


def denoiser_from_flow_velocity(level: Level) -> Pair:
    """(a, b) of D = a x + b w.

    A = 1/(alpha + sigma), b = -sigma/(alpha + sigma), fine at both ends.
    """
    total = level.alpha + level.sigma
    return 1.0 / total, -level.sigma / total


def score_from_denoiser(level: Level) -> Pair:
    """(a, b) of s = a x + b D: a = -1/sigma^2, b = alpha/sigma^2.

    `IncompatibleError` at sigma = 0.
    """
    _need_noise(level, "score")
    return -1.0 / level.sigma / level.sigma, level.alpha / level.sigma / level.sigma


def noise_from_denoiser(level: Level) -> Pair:
    """(a, b) of eps = a x + b D: a = 1/sigma, b = -alpha/sigma.

    `IncompatibleError` at sigma = 0.
    """
    _need_noise(level, "noise prediction")
    return 1.0 / level.sigma, -level.alpha / level.sigma


def velocity_from_denoiser(level: Level) -> Pair:
    """(a, b) of v = a x + b D: a = alpha/sigma, b = -(alpha^2 + sigma^2)/sigma.

    `IncompatibleError` at sigma = 0.
    """
    _need_noise(level, "velocity")
    c = math.hypot(level.alpha, level.sigma)
    return level.alpha / level.sigma, -c * (c / level.sigma)


def flow_velocity_from_denoiser(level: Level) -> Pair:
    """(a, b) of w = a x + b D: a = 1/sigma, b = -(alpha + sigma)/sigma.

    `IncompatibleError` at sigma = 0.
    """
    _need_noise(level, "flow velocity")
    return 1.0 / level.sigma, -(level.alpha + level.sigma) / level.sigma


def combine(pair: Pair, x: Tensor, other: Tensor) -> Tensor:
    """a x + b other, without touching `x` where a = 0."""
    a, b = pair
    scaled = other if b == 1.0 else other * b
    return scaled if a == 0.0 else scaled.add(x, alpha=a)


def combine_around(
    pair: Pair, x: Tensor, output: Tensor, mean: Tensor | None, of_data: bool
) -> Tensor:
    """The denoiser a x + b output, for states around a mean that of the states less it.

    Arguments:
        pair: (a, b).
        x: the states.
        output: what the network says of them.
        mean: that of `ForwardProcess.centre`.
        of_data: whether the output is of the data itself, and not of the data less the mean.
    """
    if mean is None or (of_data and pair[0] == 0.0):
        return combine(pair, x, output)
    return combine(pair, x - mean, output - mean if of_data else output) + mean


def to_score(denoised: Tensor, x: Tensor, level: Level) -> Tensor:
    """The score s = (alpha D - x)/sigma^2.

    Arguments:
        denoised: D at `x`, shape (batch, *event).
        x: the state, same shape.
        level: its noise level; sigma > 0.

    Returns:
        Tensor of the same shape. Its rounding error is about eps |x|/sigma^2, for the difference
        cancels at small sigma.

    Examples:
        >>> import torch
        >>> from srk.processes import Flow
        >>> to_score(torch.tensor([[1.0]]), torch.tensor([[1.0]]), Flow().level(0.5))
        tensor([[-2.]])
    """
    return combine(score_from_denoiser(_level(level)), x, denoised)


def to_noise(denoised: Tensor, x: Tensor, level: Level) -> Tensor:
    """The noise prediction eps = (x - alpha D)/sigma; arguments as in `to_score`."""
    return combine(noise_from_denoiser(_level(level)), x, denoised)


def to_velocity(denoised: Tensor, x: Tensor, level: Level) -> Tensor:
    """The velocity v = alpha eps - sigma D = (alpha x - (alpha^2 + sigma^2) D)/sigma.

    Arguments as in `to_score`.
    """
    return combine(velocity_from_denoiser(_level(level)), x, denoised)


def to_flow_velocity(denoised: Tensor, x: Tensor, level: Level) -> Tensor:
    """The flow velocity w = eps - D = (x - (alpha + sigma) D)/sigma; arguments as in `to_score`."""
    return combine(flow_velocity_from_denoiser(_level(level)), x, denoised)


def _level(level: Level) -> Level:
    """The level, if it is one."""
    found: Level = need(level, Level, "level", "a noise level, as process.level(t) gives it")
    return found


def _need_signal(level: Level, what: str) -> None:
    if level.alpha == 0.0:
        raise IncompatibleError(
            f"at t = {level.t!r} the signal scale alpha is 0, so the {what} there does not "
            "determine the denoiser "
            "(D = (x - sigma eps)/alpha); wrap a network that predicts v, a flow velocity or the "
            "data (srk.Velocity, srk.FlowVelocity, "
            "srk.Data), or start a little below the end, e.g. srk.Flow(t_max=0.999)"
        )


def _need_noise(level: Level, what: str) -> None:
    if level.sigma == 0.0:
        raise IncompatibleError(
            f"at t = {level.t!r} the noise scale sigma is 0, so the denoiser does not determine "
            f"the {what} there (it divides by sigma); "
            "evaluate it at a level with noise, or use a process with t_min > 0"
        )
