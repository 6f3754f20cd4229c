"""The draws of a run: from the host's noise sampler, or from sources of ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.ecosystem.k_diffusion.schedules import SAME, same
from srk.errors import ArgumentError
from srk.noise import BrownianNoise, GeneratorNoise, KeyedNoise, NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.processes import LinearProcess

NoiseName = Literal["brownian", "generator", "keyed"]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]

#: Halvings of an octave of the clock that Brownian paths share at all numbers of steps.
LEVELS = 4


def own_noise(name: NoiseName, seed: Any) -> NoiseSource:
    """A noise source of ours; a list of seeds is one for each sample, as in Forge."""
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    if name == "generator":
        # one off, so that the steps do not repeat the draws of the host's initial state
        return GeneratorNoise(int(seed if not isinstance(seed, list | tuple) else seed[0]) + 1)
    seeds = {"seeds": list(seed)} if isinstance(seed, list | tuple) else {"seed": int(seed)}
    made: NoiseSource = (
        KeyedNoise(**seeds) if name == "keyed" else BrownianNoise(**seeds, levels=LEVELS)
    )
    return made


class Scaled(NoiseSource):
    """Another source, times a number."""

    name: ClassVar[str] = "scaled"

    def __init__(self, source: NoiseSource, scale: float) -> None:
        self._source, self._scale = source, scale

    def fresh(self) -> Scaled:
        return Scaled(self._source.fresh(), self._scale)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._source.start(shape, dtype, device)

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        self._source.prepare(plans)

    def prior(self, out: Tensor) -> None:
        self._source.prior(out)

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self._source.draw(slot, clock, out)
        out.mul_(self._scale)


@attrs.define(eq=False)
class _Interval:
    """Draws that belong to one interval of sigma, and what the host's sampler says of its pieces.

    Arguments:
        ends: sigmas that cut the interval into as many pieces as there are draws.
        mixes: for each draw, its coordinates over the pieces; an orthogonal matrix.
        pieces: unit normals of the pieces, once they are asked for.
    """

    ends: list[Tensor]
    mixes: np.ndarray
    pieces: list[Tensor] = attrs.field(factory=list)


class HostNoise(NoiseSource):
    """The host's noise sampler, asked once for each piece of the path; or torch's global generator.

    The pieces do not overlap, and there is one for each draw, so that the draws are independent
    unit normals whether the host holds a path or not. A draw that is an increment of the solver's
    path gets the host's increment over the same interval; what it wants of the path beyond that is
    approximated by the pieces.
    """

    name: ClassVar[str] = "k-diffusion"

    def __init__(
        self, function: NoiseSampler | None, sigmas: Tensor, process: LinearProcess
    ) -> None:
        self._function, self._sigmas, self._process = function, sigmas, process
        self._draws: dict[int, tuple[_Interval, int]] = {}

    def fresh(self) -> HostNoise:
        return HostNoise(self._function, self._sigmas, self._process)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        if self._function is None:
            return
        for index, plan in enumerate(plans):
            if plan.stop.sigma == 0.0:  # a host's path ends at the smallest positive sigma
                continue
            for (start, stop), slots in self._groups(plan).items():
                count = len(slots)
                inner = [start + (stop - start) * j / count for j in range(1, count)]
                times = [start, *inner, stop]
                ends = [self._sigma(t, index) for t in times]
                lengths = np.abs(np.diff(times))
                interval = _Interval(ends, _mix([slot.weights for slot in slots], lengths))
                self._draws |= {id(slot): (interval, j) for j, slot in enumerate(slots)}

    def _groups(self, plan: StepPlan) -> dict[tuple[float, float], list[Slot]]:
        """The draws of a step by the interval of own time to which they belong."""
        groups: dict[tuple[float, float], list[Slot]] = {}
        for slot in plan.slots:
            ends = [_own_time(self._process, plan.clock, at) for at in (slot.start, slot.stop)]
            if None in ends or not ends[0] > ends[1]:  # type: ignore[operator]
                return {(plan.start.t, plan.stop.t): list(plan.slots)}
            groups.setdefault((ends[0], ends[1]), []).append(slot)  # type: ignore[arg-type]
        path = sorted(groups, reverse=True)
        if any(a[1] < b[0] * (1.0 - SAME) for a, b in pairwise(path)):  # they overlap
            return {(plan.start.t, plan.stop.t): list(plan.slots)}
        return groups

    def _sigma(self, t: float, index: int) -> Tensor:
        """A time as a sigma of the host's: its own where it has that one."""
        for sigma in (index, index + 1, index + 2):
            if sigma < len(self._sigmas) and same(self._values[sigma], t):
                return self._sigmas[sigma]
        return self._sigmas.new_tensor(t)

    @property
    def _values(self) -> list[float]:
        if not hasattr(self, "_floats"):
            self._floats: list[float] = self._sigmas.detach().cpu().double().tolist()
        return self._floats

    def prior(self, out: Tensor) -> None:
        raise NotImplementedError  # the state is given

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        if self._function is None or id(slot) not in self._draws:
            out.normal_()
            return
        interval, j = self._draws[id(slot)]
        if not interval.pieces:
            for ends in pairwise(interval.ends):
                piece = self._function(*ends)
                if not isinstance(piece, Tensor) or piece.shape != out.shape:
                    got = f"{tuple(piece.shape)}" if isinstance(piece, Tensor) else repr(piece)
                    raise ArgumentError(
                        "noise_sampler(sigma, sigma_next) must return unit normals of shape "
                        f"{tuple(out.shape)}, not {got}"
                    )
                interval.pieces.append(piece)
        if len(interval.pieces) == 1:
            out.copy_(interval.pieces[0])
            return
        out.zero_()
        for piece, share in zip(interval.pieces, interval.mixes[j].tolist(), strict=True):
            out.add_(piece.to(out), alpha=share)


def _own_time(process: LinearProcess, clock: str, value: float) -> float | None:
    """The time of a value of a clock that depends on sigma/alpha alone; None of others."""
    if clock == "-sigma/alpha":
        ratio = -value
    else:
        gauge = re.fullmatch(r"gauge\((\S+),(\S+)\)", clock)
        if gauge is None or math.isinf(float(gauge[1])):
            return None
        v, e = float(gauge[1]), float(gauge[2]) ** 2
        if e == 0.0 or not math.isfinite(value):
            return None
        square = (e * value) ** (-1.0 / e) - v if value > 0.0 else math.inf
        ratio = math.sqrt(max(square, 0.0))
    ends = process.level(process.t_max), process.level(process.t_min)
    if ratio >= ends[0].r:
        return process.t_max
    return process.t_min if ratio <= ends[1].r else process.time(-math.log(ratio))


def _mix(weights: Sequence[tuple[float, ...]], lengths: np.ndarray) -> np.ndarray:
    """Orthogonal coordinates of draws over the unit normals of consecutive pieces of an interval.

    The draws are given by their weights over the increment W, the space-time area H and more (see
    `Slot`). W is a sum over the pieces, and H nearly so; the nearest orthogonal matrix to these
    coordinates keeps the draws independent.
    """
    count = len(lengths)
    shares = lengths / lengths.sum()
    middles = np.cumsum(shares) - 0.5 * shares
    basis = np.zeros((count, count))
    basis[0] = np.sqrt(shares)
    if count > 1:
        basis[1] = np.sqrt(shares) * (0.5 - middles)
    basis += 1e-6 * np.eye(count)  # what is not on the path may point anywhere
    path = np.linalg.qr(basis.T)[0].T
    path *= np.where((path * basis).sum(1) < 0.0, -1.0, 1.0)[:, None]
    wanted = np.zeros((count, count))
    for row, weight in zip(wanted, weights, strict=True):
        row[: min(count, len(weight))] = weight[:count]
    left, _, right = np.linalg.svd(wanted @ path)
    return np.asarray(left @ right)
