"""The empirical target: a data set, whose smoothed distribution has an exact score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import ForwardProcess, Level
from srk.targets.base import Target, check_count, level_of, numbers, signal

ELEMENTS = 2**24
CACHED = 2**20  # on the CPU a block that stays in the cache is three times faster
"""Numbers of one block of logits (64 MiB in float32)."""


class Sums(NamedTuple):
    """What one pass over the data leaves, for a block of states."""

    best: Tensor
    """max_i q_i, shape (batch,)."""
    where: Tensor
    """Its index, shape (batch,)."""
    total: Tensor
    """sum_i exp((q_i - best)/sigma^2), shape (batch,)."""
    weighted: Tensor
    """sum_i exp((q_i - best)/sigma^2) (y_i - mean), shape (batch, d)."""


class Empirical(Target):
    r"""Data uniform on n points y_i: D = sum_i softmax_i(-|x - alpha y_i|^2/(2 sigma^2)) y_i.

    A real, hard, high-dimensional, multimodal target with a known answer: every point equally
    often. Two matrix products a call; blocks of states and points keep the memory small, with a
    running maximum, so that 50,000 x 3,072 numbers are no difficulty. At sigma = 0 the denoiser is
    the limit: the nearest point.

    Precision: data and states are centred on the mean of the data, and the weights come from q_i =
    alpha x.y_i - alpha^2 |y_i|^2/2, less their maximum. In the precision eps of the computation an
    exponent is wrong by about eps |x/alpha| |y| / r^2 (centred norms, r = sigma/alpha). For images
    of norm 30 in float32 that is 5e-3 at r = 0.1 and 0.5 at r = 0.01. It moves weight only between
    points at nearly equal distance from x/alpha; where this matters, give
    `precision=torch.float64`.

    Arguments:
        data: the points, shape (n, *event), tensor or array, on any device; integers are converted
            to the default dtype.
        chunk: points per block; a block of states has 2^24 / chunk of them.
        precision: dtype of the computation; default that of the states (float32 for half-precision
            states). In float32, a GPU must not use TF32 (torch's default).

    Raises:
        ArgumentError: data without an event axis, without points, or not finite.

    Examples:
        >>> import torch
        >>> from srk.processes import VP
        >>> target = Empirical([[0.0, 0.0], [1.0, 1.0]])
        >>> target.denoise(torch.tensor([[0.4, 0.5]]), VP().level(1e-3)).round(decimals=4)
        tensor([[0., 0.]])
        >>> target.nearest(torch.tensor([[0.4, 0.5], [0.9, 0.9]]))
        tensor([0, 1])
    """

    def __init__(
        self, data: object, *, chunk: int = 4096, precision: torch.dtype | None = None
    ) -> None:
        points = numbers(data, "the data").detach()
        if not points.dtype.is_floating_point:
            points = points.to(torch.get_default_dtype())
        if points.ndim < 2 or points.shape[0] == 0:
            raise ArgumentError(
                f"the data have shape {tuple(points.shape)}; they must be n >= 1 points of shape "
                "(n, *event), "
                "e.g. data[:, None] for n numbers"
            )
        if not bool(torch.isfinite(points).all()):
            raise ArgumentError("the data contain NaN or infinity")
        chunk = check_count(chunk, 1, "chunk is a number of points, e.g. chunk=4096")
        if precision not in (None, torch.float32, torch.float64):
            raise ArgumentError(f"precision is torch.float32 or torch.float64, not {precision!r}")
        super().__init__(tuple(points.shape[1:]))
        self.data, self.chunk, self.precision = points, chunk, precision
        self.mean = points.mean(0, dtype=torch.float64)

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        states = self._centred_states(x, level.alpha)
        mean = self._on("mean", states, states.dtype)
        parts = [self._sums(block, level) for block in self._blocks(states)]
        out = torch.cat([sums.weighted / sums.total[:, None] for sums in parts])
        return (out.reshape(x.shape) + mean).to(x.dtype)

    def log_density(
        self, x: Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        level = level_of(process, t)
        x = signal(x, level, process)
        if level.sigma == 0.0:
            raise IncompatibleError(
                f"{self!r} is a set of points, which has no density without noise; give a process "
                "and a t with sigma(t) > 0"
            )
        states = self._centred_states(x, level.alpha)
        points = self._on("_centred", states, states.dtype)
        parts = []
        for block in self._blocks(states):
            sums = self._sums(block, level)
            # The distance to the nearest point directly: the expanded square would cancel.
            nearest = (block - level.alpha * points[sums.where]).square().sum(1)
            parts.append(torch.log(sums.total) - nearest / (2.0 * level.sigma**2))
        volume = math.log(len(self)) + self.dimension * (
            0.5 * math.log(2.0 * math.pi) + math.log(level.sigma)
        )
        return (torch.cat(parts) - volume).to(x.dtype)

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the data point nearest to each of `x` (batch, *event); long, shape (batch,).

        Counts of these against n/len samples give a chi-square of whether every point comes equally
        often.
        """
        states = self._centred_states(x, 1.0)
        found = []
        for block in self._blocks(states):
            best, index = None, None
            for start, _, q in self._exponents(block, 1.0):
                top, where = q.max(1)
                index = (
                    where + start
                    if best is None or index is None
                    else torch.where(top > best, where + start, index)
                )
                best = top if best is None else torch.maximum(best, top)
            assert index is not None
            found.append(index)
        return torch.cat(found)

    def draw(
        self, n: int, *, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        index = torch.randint(len(self), (n,), generator=generator, device=device)
        return self.data[index.to(self.data.device)].to(device=device, dtype=dtype)

    def _centred_states(self, x: Tensor, alpha: float) -> Tensor:
        """x - alpha mean, shape (batch, d), in the dtype of the computation."""
        states = self._checked(x)
        states = states.to(self.precision or states.dtype)
        return states.sub(self._on("mean", states, states.dtype), alpha=alpha).flatten(1)

    def _blocks(self, states: Tensor) -> tuple[Tensor, ...]:
        elements = CACHED if states.device.type == "cpu" else ELEMENTS
        return torch.split(states, max(1, elements // min(self.chunk, len(self))))

    def _exponents(self, states: Tensor, alpha: float) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Blocks of points: where they start, the points (m, d), and
        q = alpha x.y - alpha^2 |y|^2/2, shape (batch, m).
        """
        points = self._on("_centred", states, states.dtype)
        norms = self._on("_half_norms", states, states.dtype)
        for start in range(0, len(self), self.chunk):
            y = points[start : start + self.chunk]
            yield (
                start,
                y,
                torch.addmm(
                    norms[start : start + self.chunk], states, y.mT, beta=-(alpha**2), alpha=alpha
                ),
            )

    def _sums(self, states: Tensor, level: Level) -> Sums:
        # The maximum is subtracted before the division by sigma^2, so that no sigma overflows;
        # sigma = 0 picks the nearest.
        rate = torch.finfo(states.dtype).max
        if level.sigma**2 * rate > 1.0:
            rate = 1.0 / level.sigma**2
        sums: Sums | None = None
        for start, y, q in self._exponents(states, level.alpha):
            top, index = q.max(1)
            best = top if sums is None else torch.maximum(top, sums.best)
            p = q.sub_(best[:, None]).mul_(rate).exp_()  # in its own memory, the largest here
            total, weighted, index = p.sum(1), p @ y, index + start
            if sums is not None:
                keep = torch.exp((sums.best - best) * rate)
                total, weighted = (
                    total + keep * sums.total,
                    weighted + keep[:, None] * sums.weighted,
                )
                index = torch.where(top > sums.best, index, sums.where)
            sums = Sums(best, index, total, weighted)
        assert sums is not None
        return sums

    def _make(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        if name == "_centred":
            return (
                self.data.to(device=device, dtype=dtype)
                .sub(self.mean.to(device=device, dtype=dtype))
                .flatten(1)
            )
        if name == "_half_norms":
            return (
                self._on("_centred", torch.empty(0, device=device), dtype).square().sum(1).mul(0.5)
            )
        return super()._make(name, device, dtype)

    def __repr__(self) -> str:
        return f"Empirical({len(self)} points, event_shape={self.event_shape})"
