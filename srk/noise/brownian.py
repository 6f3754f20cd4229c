r"""One Brownian path per sample, the same for every grid of times.

A path lives on a clock. It is a tree of intervals, and each carries its increment W and space-time Levy area H as unit normals

    w = W/sqrt(h),    n = H sqrt(12/h)                          independent N(0, 1), independent over disjoint intervals

An interval of length h is split at the fraction u by the exact conditional law of its parts, with fresh normals x1 and x2, and
d^2 = 1 - 3u(1 - u):

    w1 = sqrt(u) w + sqrt(3) (1-u) sqrt(u) n + sqrt(1-u) d x1           n1 = u^(3/2) n - sqrt(3) sqrt(1-u) u^2 x1/d + (1-u)^(3/2) x2/d
    w2 = sqrt(1-u) w - sqrt(3) u sqrt(1-u) n - sqrt(u) d x1             n2 = (1-u)^(3/2) n - sqrt(3) sqrt(u) (1-u)^2 x1/d - u^(3/2) x2/d

The 4 x 4 matrix from (w, n, x1, x2) to (w1, w2, n1, n2) is orthogonal; its transpose, first two rows, joins the parts again.

Where the intervals lie does not depend on the run: their roots are the octaves [2^k, 2^(k+1)] of the clock (so that a clock may span any
range), halved `levels` times. The normals are those of `srk.noise.counter`, named by the ends of the interval and the point that splits
it. Inside the smallest of these intervals the points of the run's own grid are put in, coarse before fine: of N = m 2^j steps (m odd)
first the m + 1 points that the grid of m steps has, then those of 2m, ... Therefore

- runs of m, 2m, 4m, ... steps on the same kind of grid have exactly the same path;
- runs of other numbers of steps have the same path at the ends of the halved octaves, and differ in between by the bridge of those
  intervals;
- a step that is rejected loses nothing: a new point splits an interval that is there, whatever made it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import torch

from srk.errors import ArgumentError
from srk.noise.base import NoiseSource
from srk.noise.counter import SampleNormals

if TYPE_CHECKING:
    from srk.plans.plan import Slot, StepPlan

_SQRT3 = math.sqrt(3.0)
#: Octaves below 2^_SMALLEST are one interval [0, 2^_SMALLEST], so that a step from 0 does not meet infinitely many.
_SMALLEST = -20
#: Two points are one if they differ by less than this many units in the last place: the same time, computed in two ways.
_ULPS = 16


@attrs.define(slots=True, eq=False)
class _Interval:
    """A node of the tree. Its tensors are a cache: they follow from the names of the intervals above it."""

    start: float
    stop: float
    parent: _Interval | None = None
    parts: tuple[_Interval, _Interval] | None = None
    wanted: bool = False  # the area of this interval is asked for
    w: torch.Tensor | None = None
    n: torch.Tensor | None = None

    @property
    def length(self) -> float:
        return self.stop - self.start

    def split(self, at: float) -> tuple[_Interval, _Interval]:
        self.parts = (_Interval(self.start, at, self), _Interval(at, self.stop, self))
        return self.parts

    def needs_area(self) -> bool:
        return self.wanted or self.parts is not None


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= _ULPS * math.ulp(max(abs(a), abs(b)))


class _Path:
    """The path of one clock.

    Arguments:
        clock: its name.
        normals: started per-sample normals.
        levels: how often an octave is halved.
        like: a tensor of the state's shape, dtype and device.
    """

    def __init__(self, clock: str, normals: SampleNormals, levels: int, like: torch.Tensor) -> None:
        self.clock = clock
        self.normals = normals
        self.levels = levels
        self._like = like
        self._roots: dict[tuple[float, float], _Interval] = {}
        self._live: list[_Interval] = []  # intervals that hold tensors
        self._free: list[torch.Tensor] = []

    # -- the tree ---------------------------------------------------------------------------------------------------

    def _root(self, t: float, after: bool) -> _Interval:
        """The octave of t: the one that starts there (`after`) or ends there, if t is an end."""
        if t == 0.0:
            side = 1.0 if after else -1.0
        else:
            side = math.copysign(1.0, t)
        size = abs(t)
        outward = after == (side > 0)  # the octave at an end lies away from zero
        if size < 2.0**_SMALLEST or (size == 2.0**_SMALLEST and not outward):
            ends = (0.0, 2.0**_SMALLEST)
        else:
            mantissa, exponent = math.frexp(
                size
            )  # size = mantissa 2^exponent, mantissa in [1/2, 1)
            if mantissa == 0.5 and not outward:
                exponent -= 1
            ends = (2.0 ** (exponent - 1), 2.0**exponent)
        start, stop = ends if side > 0 else (-ends[1], -ends[0])
        root = self._roots.get((start, stop))
        if root is None:
            root = self._roots[start, stop] = _Interval(start, stop)
            self._halve(root, self.levels)
        return root

    def _halve(self, interval: _Interval, levels: int) -> None:
        if levels:
            for part in interval.split(0.5 * (interval.start + interval.stop)):
                self._halve(part, levels - 1)

    def _at(self, t: float, after: bool) -> _Interval:
        """The smallest interval that has t inside, or as its start (`after`) or its stop."""
        node = self._root(t, after)
        while node.parts is not None:
            cut = node.parts[1].start
            node = node.parts[after if _same(t, cut) else t > cut]
        return node

    def insert(self, t: float) -> float:
        """Make t an end of intervals; returns the end that stands for it, equal to t up to rounding."""
        node = self._at(t, True)
        for end in (node.start, node.stop):
            if _same(t, end):
                return end
        for part in node.split(t):
            part.wanted = node.wanted
        return t

    def cover(self, start: float, stop: float) -> list[_Interval]:
        """The intervals that make up [start, stop], in order; start and stop become ends."""
        t, end = self.insert(start), self.insert(stop)
        cover = []
        while t < end:
            # the largest interval that starts at t and does not reach beyond the end
            node = self._at(t, True)
            while node.parent is not None and node.parent.start == t and node.parent.stop <= end:
                node = node.parent
            cover.append(node)
            t = node.stop
        return cover

    # -- values -----------------------------------------------------------------------------------------------------

    def _buffer(self) -> torch.Tensor:
        return self._free.pop() if self._free else torch.empty_like(self._like)

    def _normal(self, *name: str | float) -> torch.Tensor:
        out = self._buffer()
        self.normals.fill(out, "path", self.clock, *name)
        return out

    def forget(self, before: float) -> None:
        """Give back the tensors of intervals that end at `before` or earlier."""
        live = []
        for node in self._live:
            if node.stop <= before:
                self._drop(node)
            else:
                live.append(node)
        self._live = live

    def _drop(self, node: _Interval) -> None:
        self._free += [tensor for tensor in (node.w, node.n) if tensor is not None]
        node.w = node.n = None

    def value(self, node: _Interval, area: bool) -> None:
        """Fill in the interval's w and, with `area`, n."""
        chain = []
        top: _Interval | None = node
        while top is not None and (top.w is None or (top.n is None and (area or top is not node))):
            chain.append(top)
            top = top.parent
        if area:
            node.wanted = True
        for interval in reversed(chain):
            if interval.parent is not None:
                if interval.w is None or (interval.n is None and interval.needs_area()):
                    self._expand(interval.parent)
            else:
                self._begin(interval)

    def _begin(self, root: _Interval) -> None:
        if root.w is None:
            root.w = self._normal("root w", root.start, root.stop)
            self._live.append(root)
        if root.n is None and root.needs_area():
            root.n = self._normal("root n", root.start, root.stop)

    def _expand(self, node: _Interval) -> None:
        """The values of an interval's parts from its own."""
        assert node.parts is not None
        assert node.w is not None
        assert node.n is not None
        first, second = node.parts
        w, n = node.w, node.n
        u, v = first.length / node.length, second.length / node.length
        d = math.sqrt(1.0 - 3.0 * u * v)
        name = (node.start, second.start, node.stop)
        for part in node.parts:
            if part.w is None and part.n is None:
                self._live.append(part)
            else:
                self._drop(part)
        x = self._normal("split 1", *name)
        y = self._normal("split 2", *name) if first.needs_area() or second.needs_area() else None
        first.w = torch.mul(w, math.sqrt(u), out=self._buffer())
        first.w.add_(n, alpha=_SQRT3 * v * math.sqrt(u)).add_(x, alpha=math.sqrt(v) * d)
        second.w = torch.mul(w, math.sqrt(v), out=self._buffer())
        second.w.add_(n, alpha=-_SQRT3 * u * math.sqrt(v)).add_(x, alpha=-math.sqrt(u) * d)
        if y is not None:
            first.n = torch.mul(n, u**1.5, out=self._buffer())
            first.n.add_(x, alpha=-_SQRT3 * math.sqrt(v) * u**2 / d).add_(y, alpha=v**1.5 / d)
            second.n = torch.mul(n, v**1.5, out=self._buffer())
            second.n.add_(x, alpha=-_SQRT3 * math.sqrt(u) * v**2 / d).add_(y, alpha=-(u**1.5) / d)
        self._free += [x] if y is None else [x, y]
        # The parts say all that the whole says; a later question about it asks its name again
        self._drop(node)
        self._live.remove(node)

    def unit(
        self, start: float, stop: float, area: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(w, n) of [start, stop]; n only with `area`. The tensors are ours: read them, do not keep them."""
        self.forget(start)
        cover = self.cover(start, stop)
        if area:
            for node in cover:
                node.wanted = True
        for node in cover:
            self.value(node, area)
        w, n = cover[0].w, cover[0].n
        assert w is not None
        if len(cover) == 1:
            return w, n
        # join from the left, in units of the whole
        start, stop = cover[0].start, cover[-1].stop
        h = stop - start
        total = w * math.sqrt(cover[0].length / h)  # W of what is joined so far, over sqrt(h)
        joined = None
        if area:
            # n = sum_i l_i^(3/2) n_i + sqrt(3 l_i) w_i (r_i - s_i): the fractions that interval i is, has to its right, to its left
            joined = torch.zeros_like(self._like)
        for node in cover:
            assert node.w is not None
            l = node.length / h  # noqa: E741
            if node is not cover[0]:
                total.add_(node.w, alpha=math.sqrt(l))
            if joined is not None:
                assert node.n is not None
                joined.add_(node.n, alpha=l**1.5)
                joined.add_(
                    node.w,
                    alpha=_SQRT3 * math.sqrt(l) * ((stop - node.stop) - (node.start - start)) / h,
                )
        return total, joined


def _coarseness(steps: int) -> list[int]:
    """For each point 0..N of a grid of N = m 2^j steps the largest k <= j with 2^k dividing its number: coarse points have large k."""
    twos = (steps & -steps).bit_length() - 1 if steps else 0
    return [twos if i == 0 else min(twos, (i & -i).bit_length() - 1) for i in range(steps + 1)]


class BrownianNoise(NoiseSource):
    """`brownian`: one fixed Brownian path per sample, so that more steps refine the same sample.

    A step is answered with the increment W and space-time Levy area H of the path over its interval, exactly: increments over
    neighbouring intervals add up, in any grid, adaptive steps and rejected ones included. The path is a function of (seed, sample index,
    clock), as for `KeyedNoise`. Runs of m, 2m, 4m, ... steps follow exactly the same path; for other ratios the paths agree at the ends
    of octaves of the clock halved `levels` times, and between them up to the bridge. What a method draws beyond W and H is independent of
    them and of the rest of the path, and named by the interval.

    Methods agree on a path where their clocks have the same name (all of `srk1`, `srk2s`, `srk2m` with one `data_variance` and eta;
    `ddpm` and the methods of its frame; the raw-frame tableaus). Different clocks weigh the driving noise differently, so their
    increments are different functionals of it: they are taken from independent paths.

    Arguments:
        seed: the seed; None takes one from the operating system (`Solution.seed` tells which).
        levels: halvings of an octave that every grid shares; each costs at most two normals per step where the grid is coarser.
        first_index, indices, seeds: which samples these are; see `KeyedNoise`.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> few, many = (srk.solve(process, target.score(process), shape=(4, 1), steps=n, noise="brownian", seed=0).x for n in (50, 100))
        >>> bool((few - many).abs().max() < 0.02)
        True
    """

    name = "brownian"
    refines = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        levels: int = 1,
        first_index: int = 0,
        indices: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        if isinstance(levels, bool) or not isinstance(levels, int) or not 0 <= levels <= 40:
            raise ArgumentError(f"levels must be an int from 0 to 40, not {levels!r}")
        self.levels = levels
        self.normals = SampleNormals(seed, first_index, indices, seeds)
        self._paths: dict[str, _Path] = {}
        self._like = torch.empty(0)

    @property
    def seed(self) -> int | None:
        return self.normals.seed

    def part(self, first: int, count: int) -> BrownianNoise:
        return BrownianNoise(levels=self.levels, **self.normals.part(first, count))

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.normals.start(shape)
        # bridges in half precision would lose the path; draws are cast at the end
        self._like = torch.empty(
            tuple(shape), dtype=dtype if dtype == torch.float64 else torch.float32, device=device
        )
        self._paths = {}

    def path(self, clock: str) -> _Path:
        if clock not in self._paths:
            self._paths[clock] = _Path(clock, self.normals, self.levels, self._like)
        return self._paths[clock]

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        coarseness = _coarseness(len(plans))
        points: list[tuple[int, int, str, float]] = []
        for i, plan in enumerate(plans):
            slots = [slot for slot in plan.slots if _on_path(slot)]
            if not slots:
                continue
            ends = {slot.start for slot in slots} | {slot.stop for slot in slots}
            first, last = min(ends), max(ends)
            points += [
                (-coarseness[i], i, plan.clock, first),
                (-coarseness[i + 1], i + 1, plan.clock, last),
            ]
            points += [(1, i, plan.clock, t) for t in sorted(ends - {first, last})]
        for _, _, clock, t in sorted(points, key=lambda point: point[:2]):
            self.path(clock).insert(t)
        for plan in plans:
            for slot in plan.slots:
                if _on_path(slot) and any(slot.weights[1:2]):
                    for node in self.path(plan.clock).cover(slot.start, slot.stop):
                        node.wanted = True

    def prior(self, out: torch.Tensor) -> None:
        self.normals.fill(out, "prior")

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        if slot.start > slot.stop and not _same(slot.start, slot.stop):
            raise ArgumentError(
                f"the interval [{slot.start!r}, {slot.stop!r}] of the clock {clock!r} runs backwards; a draw needs start < stop"
            )
        if not _on_path(slot):  # an interval without length, or without an end: no path tells it
            self.normals.fill(out, "draw", clock, slot.start, slot.stop, *slot.weights)
            return
        weights = (*slot.weights, 0.0)
        w, n = self.path(clock).unit(slot.start, slot.stop, weights[1] != 0.0)
        if weights[0] == 1.0:
            out.copy_(w)
            return
        total = w * weights[0] if n is None else torch.mul(n, weights[1])
        if n is not None and weights[0] != 0.0:
            total.add_(w, alpha=weights[0])
        for j, weight in enumerate(slot.weights[2:]):
            if weight != 0.0:
                z = torch.empty_like(total)
                self.normals.fill(z, "beyond", clock, slot.start, slot.stop, float(j))
                total.add_(z, alpha=weight)
        out.copy_(total)

    def increment(self, clock: str, start: float, stop: float) -> tuple[torch.Tensor, torch.Tensor]:
        """W and H of the path over [start, stop] of a clock, each (batch, *event); after `start`."""
        if not (math.isfinite(start) and math.isfinite(stop) and start <= stop):
            raise ArgumentError(
                f"a path is asked for start <= stop, both finite, not for [{start!r}, {stop!r}]"
            )
        if _same(start, stop):
            return torch.zeros_like(self._like), torch.zeros_like(self._like)
        w, n = self.path(clock).unit(start, stop, True)
        assert n is not None
        h = stop - start
        return w * math.sqrt(h), n * math.sqrt(h / 12.0)

    def as_torchsde(self, clock: str, start: float, stop: float) -> TorchSDEPath:
        """The path on [start, stop] of a clock as what torchsde takes for `bm`; after `start`."""
        return TorchSDEPath(self, clock, start, stop)


def _on_path(slot: Slot) -> bool:
    return (
        math.isfinite(slot.start)
        and math.isfinite(slot.stop)
        and slot.start < slot.stop
        and not _same(slot.start, slot.stop)
    )


class TorchSDEPath:
    """A path in the form of `torchsde.BaseBrownian`: `W, U = path(ta, tb, return_U=True)`, U = h (W/2 + H) = int W.

    A time beyond the range by rounding is moved to its end; farther out is an error.
    """

    levy_area_approximation = "space-time"

    def __init__(self, noise: BrownianNoise, clock: str, start: float, stop: float) -> None:
        self.noise, self.clock, self.start, self.stop = noise, clock, float(start), float(stop)

    @property
    def shape(self) -> torch.Size:
        return self.noise._like.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.noise._like.dtype

    @property
    def device(self) -> torch.device:
        return self.noise._like.device

    def size(self) -> torch.Size:
        return self.shape

    def _clamp(self, t: float) -> float:
        slack = 1e-6 * (self.stop - self.start)
        if not self.start - slack <= t <= self.stop + slack:
            raise ArgumentError(
                f"the path is defined on [{self.start!r}, {self.stop!r}], not at t = {t!r}; "
                "as_torchsde(clock, start, stop) makes a longer one"
            )
        return min(max(t, self.start), self.stop)

    def __call__(
        self,
        ta: float | torch.Tensor,
        tb: float | torch.Tensor | None = None,
        return_U: bool = False,
        return_A: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if return_A:
            raise ArgumentError(
                "this path has the space-time Levy area (return_U), not the space-space one (return_A)"
            )
        a, b = (self.start, float(ta)) if tb is None else (float(ta), float(tb))
        a, b = self._clamp(a), self._clamp(b)
        w, h = self.noise.increment(self.clock, a, b)
        return (w, (0.5 * w + h).mul_(b - a)) if return_U else w
