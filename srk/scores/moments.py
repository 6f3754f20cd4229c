"""What the moments of a network's outputs say of its kind; `srk.scores.conventions` takes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

if TYPE_CHECKING:
    from srk.processes.base import Level


@attrs.frozen
class Moments:
    """Means over all numbers of a state x and the output y of the network there.

    Arguments:
        level: the noise level of the state.
        scale: k of a network that reads k x; 1 for most.
        count: how many numbers.
        x, y: mean of n = x/sigma and of y.
        xx, xy, yy: mean of n n, n y and y y.
    """

    level: Level
    scale: float
    count: int
    x: float
    y: float
    xx: float
    xy: float
    yy: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.x + self.y + self.xx + self.xy + self.yy) and self.xx > 0.0

    @property
    def alpha(self) -> float:
        return self.level.alpha * self.scale

    @property
    def sigma(self) -> float:
        return self.level.sigma * self.scale

    def distance(self, slope: float) -> float:
        """Mean of (y - slope n)^2, relative to that of (slope n)^2."""
        whole = slope * slope * self.xx
        return (self.yy - 2.0 * slope * self.xy + whole) / whole

    def implied(self, kind: str) -> tuple[float, float]:
        """(a, b) of the implied noise e = a n + b y."""
        alpha, sigma = self.alpha, self.sigma
        square, total = alpha * alpha + sigma * sigma, alpha + sigma
        return {
            "score": (0.0, -sigma),
            "noise": (0.0, 1.0),
            "data": (1.0, -alpha / sigma),
            "velocity": (sigma * sigma / square, alpha / square),
            "flow": (sigma / total, alpha / total),
        }[kind]

    def mean(self, kind: str) -> float:
        """Mean of the implied noise."""
        a, b = self.implied(kind)
        return a * self.x + b * self.y


def sums(x: Tensor, y: Tensor) -> Tensor:
    """Sums of x, y, x x, x y and y y, on the device of the state: (5,), at least float32."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, y = x.detach().reshape(-1).to(kind), y.detach().reshape(-1).to(kind)
    return torch.stack([x.sum(), y.sum(), x.dot(x), x.dot(y), y.dot(y)])


def moments(found: Tensor, level: Level, scale: float, count: int) -> Moments:
    """The means that the sums are, which waits for their device."""
    x, y, xx, xy, yy = (value / count for value in found.tolist())
    s = level.sigma
    return Moments(level, scale, count, x / s, y, xx / s / s, xy / s, yy)


def noise_like(first: Moments) -> bool:
    """Whether the output is the noise in the state."""
    return first.distance(1.0) < 0.1


def flow_like(first: Moments, sign: float = 1.0) -> bool:
    """Whether the output has all of the noise in it, and something else that is not larger."""
    return abs(share(first, sign) - 1.0) < 0.3 and first.yy < 2.0 * first.xx


def score_like(first: Moments) -> bool:
    """Whether the output is the score of pure noise, -n/sigma."""
    return first.distance(-1.0 / first.sigma) < 0.1


def data_like(first: Moments) -> bool:
    """Whether the output has hardly any of the noise in it, and is neither zero nor large.

    Data of a large scale make the output of other networks look like this, too.
    """
    if not 1e-8 < first.yy < 2.0 * first.xx:
        return False
    correlation = first.xy / math.sqrt(first.xx * first.yy)
    return abs(correlation) < 0.4 + 4.0 / math.sqrt(first.count)


def share(first: Moments, slope: float) -> float:
    """The part of the noise that the output has, in units of what is expected.

    1 for a right one.
    """
    return first.xy / first.xx / slope


def off(first: Moments, slope: float) -> bool:
    """Whether the share of the noise is far from 1, beyond chance."""
    chance = 4.0 * math.sqrt(first.yy / first.count) / abs(slope)
    return abs(share(first, slope) - 1.0) > 0.6 + chance


def suspect(
    kind: str, flow: bool, first: Moments | None, middle: Moments | None, low: Moments | None
) -> list[str]:
    """What the network seems to predict instead of `kind`; an empty list where nothing is wrong.

    Arguments:
        kind: "score", "noise", "data", "velocity" or "flow": what the adapter says.
        flow: whether the process is one on which flow networks are trained (alpha + sigma = 1).
        first, middle, low: the three looks, None where there was none.

    Returns:
        Kinds, the likely one first; "reversed" is a flow with its time or sign reversed.
    """
    if first is None or not first.finite:
        return []
    noisy = ["flow", "noise"] if flow else ["noise"]
    clean = ["data"] if flow else ["data", "velocity"]
    opposite = ["reversed"] if flow else ["score"]
    if kind in ("noise", "score"):
        if not off(first, 1.0 if kind == "noise" else -1.0 / first.sigma):
            return []
        if kind == "score" and (noise_like(first) or (flow and flow_like(first))):
            return noisy
        if kind == "noise" and (score_like(first) or (flow and flow_like(first, -1.0))):
            return opposite
        return clean if data_like(first) else []
    if kind == "flow":
        if off(first, 1.0):
            if flow_like(first, -1.0):
                return ["reversed"] if impossible(first, middle, low) else []
            likely = ["reversed", "data"] if flow else clean
            return likely if data_like(first) else []
        return ["reversed"] if swapped(first, middle) else []
    # the adapter reads the data from the output, which should have hardly any of the noise
    if kind == "data" and (score_like(first) or (flow and flow_like(first, -1.0))):
        return opposite
    if kind == "velocity" and first.alpha < 0.3 and noise_like(first):
        return noisy
    if kind == "data" and noise_like(first) and impossible(first, middle, low):
        return noisy
    if kind == "velocity" and score_like(first) and impossible(first, middle, low):
        return opposite
    return []


def undecided(kind: str, flow: bool, first: Moments) -> bool:
    """Whether the later looks can still say something about an adapter of this kind."""
    if not first.finite:
        return False
    if kind == "data":
        return noise_like(first)
    if kind == "velocity":
        return score_like(first)
    return kind == "flow" and (flow_like(first, -1.0) or first.xx - 2.0 * first.xy + first.yy < 0.1)


def impossible(first: Moments, *later: Moments | None) -> bool:
    """Whether no scale of the data explains that the implied data at high noise are the noise.

    At alpha = 0 none does. Elsewhere the data would have a second moment of about sigma/alpha, and
    the later state would show it.
    """
    r = first.level.r
    if r > 1e3:
        return True
    return any(
        look is not None and look.finite and (look.xx - 1.0) * look.level.r**2 < 0.25 * r
        for look in later
    )


def swapped(first: Moments, middle: Moments | None) -> bool:
    """Whether a flow network runs the other way.

    It takes the noise for data and the data for noise.

    At the start it takes the state for clean data and says that its noise has mean 0: the implied
    data are 0. Later the implied noise has a mean, the mean of the data, which noise never has.
    Data of mean 0 are not told apart.
    """
    if middle is None or not middle.finite:
        return False
    implied_data = first.xx - 2.0 * first.xy + first.yy
    mean = abs(middle.mean("flow"))
    return (
        implied_data < 0.1
        and middle.xx < 25.0
        and mean > 0.15 + 5.0 / math.sqrt(middle.count)
        and mean > 0.05 * math.sqrt(middle.xx)
    )
