r"""The Brownian path of one clock: a tree of intervals, the same for every grid of times.

Each interval carries its increment W and space-time Levy area H as unit normals,

    w = W/sqrt(h),    n = H sqrt(12/h)        independent N(0, 1), and over disjoint intervals

An interval of length h is split at the fraction u by the exact conditional distribution of its
parts, with fresh normals x1 and x2, and d^2 = 1 - 3u(1 - u):

    w1 = sqrt(u) w + sqrt(3) (1-u) sqrt(u) n + sqrt(1-u) d x1
    w2 = sqrt(1-u) w - sqrt(3) u sqrt(1-u) n - sqrt(u) d x1
    n1 = u^(3/2) n - sqrt(3) sqrt(1-u) u^2 x1/d + (1-u)^(3/2) x2/d
    n2 = (1-u)^(3/2) n - sqrt(3) sqrt(u) (1-u)^2 x1/d - u^(3/2) x2/d

The 4 x 4 matrix from (w, n, x1, x2) to (w1, w2, n1, n2) is orthogonal. The first two rows of its
transpose join the parts again.

Where the intervals lie does not depend on the run. Their roots are the octaves [2^k, 2^(k+1)] of
the clock, so that a clock may span any range, and each is halved `levels` times. The normals are
those of `srk.noise.counter`, named by the ends of the interval and the point that splits it.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch

from srk.noise.counter import SampleNormals

_SQRT3 = math.sqrt(3.0)
#: Octaves below 2^_SMALLEST are one interval [0, 2^_SMALLEST]: a step from 0 meets one of them,
#: not infinitely many.
_SMALLEST = -20
#: Two points are one if they differ by less than this many units in the last place: they are the
#: same time, computed in two ways.
_ULPS = 16


@attrs.define(slots=True, eq=False)
class Interval:
    """A node of the tree. Its tensors are a cache: they follow from the names of those above it."""

    start: float
    stop: float
    parent: Interval | None = None
    parts: tuple[Interval, Interval] | None = None
    wanted: bool = False  # the area of this interval is asked for
    w: torch.Tensor | None = None
    n: torch.Tensor | None = None

    @property
    def length(self) -> float:
        return self.stop - self.start

    def split(self, at: float) -> tuple[Interval, Interval]:
        self.parts = (Interval(self.start, at, self), Interval(at, self.stop, self))
        return self.parts

    def needs_area(self) -> bool:
        return self.wanted or self.parts is not None


def same(a: float, b: float) -> bool:
    return abs(a - b) <= _ULPS * math.ulp(max(abs(a), abs(b)))


class Path:
    """The Brownian path of one clock, for every sample of the batch.

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
        self._roots: dict[tuple[float, float], Interval] = {}
        self._live: list[Interval] = []  # intervals that hold tensors
        self._free: list[torch.Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        # A flat list of the intervals: the tree may be deeper than pickle can recurse. The tensors
        # stay behind; they follow from the names.
        nodes: list[tuple[float, float, float | None, bool]] = []
        waiting = list(self._roots.values())
        while waiting:
            node = waiting.pop()
            cut = None if node.parts is None else node.parts[1].start
            nodes.append((node.start, node.stop, cut, node.wanted))
            waiting += node.parts or ()
        state = {**self.__dict__, "_nodes": nodes, "_live": [], "_free": []}
        del state["_roots"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        nodes = iter(state.pop("_nodes"))
        self.__dict__.update(state)
        self._roots = {}
        waiting: list[Interval] = []
        for start, stop, cut, wanted in nodes:
            if waiting:
                node = waiting.pop()
            else:
                node = self._roots[start, stop] = Interval(start, stop)
            node.wanted = wanted
            if cut is not None:
                waiting += node.split(cut)

    # -- the tree ------------------------------------------------------------------------------

    def _root(self, t: float, after: bool) -> Interval:
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
            # size = mantissa 2^exponent, mantissa in [1/2, 1)
            mantissa, exponent = math.frexp(size)
            if mantissa == 0.5 and not outward:
                exponent -= 1
            ends = (2.0 ** (exponent - 1), 2.0**exponent)
        start, stop = ends if side > 0 else (-ends[1], -ends[0])
        root = self._roots.get((start, stop))
        if root is None:
            root = self._roots[start, stop] = Interval(start, stop)
            self._halve(root, self.levels)
        return root

    def _halve(self, interval: Interval, levels: int) -> None:
        if levels:
            for part in interval.split(0.5 * (interval.start + interval.stop)):
                self._halve(part, levels - 1)

    def _at(self, t: float, after: bool) -> Interval:
        """The smallest interval that has t inside, or as its start (`after`) or its stop."""
        node = self._root(t, after)
        while node.parts is not None:
            cut = node.parts[1].start
            node = node.parts[after if same(t, cut) else t > cut]
        return node

    def insert(self, t: float) -> float:
        """Make t an end of intervals; returns the end that stands for it, t up to rounding."""
        node = self._at(t, True)
        for end in (node.start, node.stop):
            if same(t, end):
                return end
        for part in node.split(t):
            part.wanted = node.wanted
        return t

    def cover(self, start: float, stop: float) -> list[Interval]:
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

    # -- values --------------------------------------------------------------------------------

    def _buffer(self) -> torch.Tensor:
        if self._free:
            return self._free.pop()
        # A tensor made in inference mode could not be written to outside of it
        with torch.inference_mode(False):
            return torch.empty_like(self._like)

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

    def _drop(self, node: Interval) -> None:
        self._free += [tensor for tensor in (node.w, node.n) if tensor is not None]
        node.w = node.n = None

    def value(self, node: Interval, area: bool) -> None:
        """Fill in the interval's w and, with `area`, n."""
        chain = []
        top: Interval | None = node
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

    def _begin(self, root: Interval) -> None:
        if root.w is None:
            root.w = self._normal("root w", root.start, root.stop)
            self._live.append(root)
        if root.n is None and root.needs_area():
            root.n = self._normal("root n", root.start, root.stop)

    def _expand(self, node: Interval) -> None:
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
        """(w, n) of [start, stop]; n only with `area`.

        The tensors belong to the path: read them, do not keep them.
        """
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
            # n = sum_i l_i^(3/2) n_i + sqrt(3 l_i) w_i (r_i - s_i), with the fractions of the whole
            # that interval i is (l), has to its right (r) and has to its left (s)
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
