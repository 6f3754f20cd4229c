"""Stochasticity by level: what `eta=` takes beside a number.

Every solver that has `eta` plans each step with one number. That number may follow from the noise
level at the start of the step (`eta=lambda level: ...`), from its place in a list, or from a rule
that looks at both ends of the step. The rules of reinforcement learning on flow models are here by
name; `level` has the attributes t, alpha, sigma and lam (the half log-SNR).

    srk.solve(process, score, "euler-maruyama", eta=srk.eta.flow_grpo(0.7), ...)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import attrs

from srk._checks import integer, is_real, shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.base import Level

__all__ = ["Eta", "EtaRule", "cps", "dance", "flow_grpo", "window"]


class EtaRule(ABC):
    """A stochasticity that looks at both ends of a step. Subclasses write `between`.

    Examples:
        >>> import srk
        >>> class LongStepsOnly(srk.eta.EtaRule):
        ...     def between(self, start, stop, index, steps):
        ...         return 1.0 if stop.lam - start.lam > 0.5 else 0.0
        >>> target = srk.targets.Gaussian(0.5, 0.04)
        >>> vp = srk.VP()
        >>> srk.solve(vp, target.score(vp), "ddpm", eta=LongStepsOnly(), steps=8, seed=0).steps
        8
    """

    @abstractmethod
    def between(self, start: Level, stop: Level, index: int, steps: int) -> float:
        """The eta of step number `index` of `steps`, from the level `start` to `stop`."""

    def diffusion(self, start: Level, stop: Level, index: int, steps: int) -> float | None:
        """The product eta g in a step from alpha = 0, where g is infinite on its own.

        `euler-maruyama` then takes an Euler step there with this diffusion. None, the default, is
        the exponential Euler step with the eta of `between`, as of every other solver.
        """
        return None


Eta = float | Callable[[Level], float] | Sequence[float] | EtaRule
"""What `eta=` takes: a number, a function of a level, a list with one value a step, a rule."""


@attrs.frozen
class _FlowGRPO(EtaRule):
    a: float

    def between(self, start: Level, stop: Level, index: int, steps: int) -> float:
        return self.a / math.sqrt(2.0)

    def diffusion(self, start: Level, stop: Level, index: int, steps: int) -> float | None:
        return self.a * math.sqrt(start.sigma / stop.alpha)


@attrs.frozen
class _Dance(EtaRule):
    a: float

    def between(self, start: Level, stop: Level, index: int, steps: int) -> float:
        if start.sigma == 0.0:
            return 0.0
        return self.a * math.sqrt(start.alpha / (2.0 * start.sigma))

    def diffusion(self, start: Level, stop: Level, index: int, steps: int) -> float | None:
        return self.a


@attrs.frozen
class _CPS(EtaRule):
    a: float

    def between(self, start: Level, stop: Level, index: int, steps: int) -> float:
        if stop.sigma == 0.0:
            return 0.0
        # 1 - r'^2/r^2
        share = -math.expm1(-2.0 * (stop.lam - start.lam))
        return math.sin(0.5 * math.pi * self.a) / math.sqrt(share)


@attrs.frozen
class _Window(EtaRule):
    first: int
    last: int
    eta: Any

    def between(self, start: Level, stop: Level, index: int, steps: int) -> float:
        if not self.first <= index <= self.last:
            return 0.0
        return _value(self.eta, start, stop, index, steps)

    def diffusion(self, start: Level, stop: Level, index: int, steps: int) -> float | None:
        inside = self.first <= index <= self.last
        if not inside or not is_rule(self.eta):
            return None
        value: float | None = self.eta.diffusion(start, stop, index, steps)
        return value


def flow_grpo(a: float = 0.7) -> EtaRule:
    """Flow-GRPO's noise, diffusion a sqrt(t/(1 - t)) on `srk.Flow`: eta = a/sqrt2 at every level.

    With solver="euler-maruyama" the steps are Flow-GRPO's; so is the first one, from t = 1, which
    takes the next time in the denominator.

    Arguments:
        a: the noise level; Flow-GRPO's is 0.7.

    Source: Liu et al. 2025, Flow-GRPO, arXiv 2505.05470, eq. 8.

    Examples:
        >>> import srk
        >>> flow, target = srk.Flow(), srk.targets.Gaussian(0.5, 0.04)
        >>> sol = srk.solve(
        ...     flow,
        ...     target.score(flow),
        ...     "euler-maruyama",
        ...     eta=srk.eta.flow_grpo(0.7),
        ...     steps=8,
        ...     seed=0,
        ... )
        >>> round(sol.eta, 3)
        0.495
    """
    return _FlowGRPO(_positive(a, "a"))


def dance(a: float = 0.3) -> EtaRule:
    """DanceGRPO's noise, a constant diffusion a on `srk.Flow`: eta(t) = a sqrt((1 - t)/(2 t)).

    With solver="euler-maruyama" the steps are DanceGRPO's, the one from t = 1 included.

    Arguments:
        a: the diffusion coefficient.

    Source: Xue et al. 2025, DanceGRPO, arXiv 2505.07818.
    """
    return _Dance(_positive(a, "a"))


def cps(a: float = 0.5) -> EtaRule:
    """Coefficients-preserving sampling: the noise of a step is sin(a pi/2) sigma'.

    eta = sin(a pi/2)/sqrt(1 - r'^2/r^2) with r = sigma/alpha at both ends of the step, for
    solver="euler-ancestral", which takes eta above 1: short steps need it.

    Arguments:
        a: from 0 (no noise) to 1 (all noise of a step is new).

    Source: Wang and Yu 2025, Coefficients-preserving sampling, arXiv 2509.05952.
    """
    if not _positive(a, "a") <= 1.0:
        raise ArgumentError(f"a of srk.eta.cps lies between 0 and 1, not {a!r}")
    return _CPS(float(a))


def window(first: int, last: int, eta: Eta = 1.0) -> EtaRule:
    """Noise in the steps number `first` to `last` only, both included; eta = 0 in all others.

    Arguments:
        first, last: numbers of steps, from 0.
        eta: the stochasticity inside: a number, a function of the level, a list or a rule.

    Source: Li et al. 2025, MixGRPO, arXiv 2507.21802.

    Examples:
        >>> import srk
        >>> flow, target = srk.Flow(), srk.targets.Gaussian(0.5, 0.04)
        >>> eta = srk.eta.window(1, 2, 0.7)
        >>> srk.solve(flow, target.score(flow), "ddpm", eta=eta, steps=4, seed=0).eta
        (0.0, 0.7, 0.7, 0.0)
    """
    first, last = integer(first, "first", least=0), integer(last, "last", least=0)
    if last < first:
        raise ArgumentError(
            f"a window of steps ends after it begins, not at step {last} from step {first}; e.g. "
            f"srk.eta.window({last}, {first}, ...)"
        )
    return _Window(first, last, as_eta(eta))


def is_rule(eta: Any) -> bool:
    """Whether `eta` looks at both ends of a step, as an `EtaRule` does."""
    return callable(getattr(eta, "between", None)) and callable(getattr(eta, "diffusion", None))


def as_eta(eta: Any) -> Any:
    """What a user gave as eta in its one form: a float, a tuple of floats, a function or a rule.

    Raises:
        ArgumentTypeError: it is none of them.
    """
    if is_real(eta):
        return _number(eta)
    if not isinstance(eta, type) and (is_rule(eta) or callable(eta)):
        return eta
    given = eta.tolist() if hasattr(eta, "tolist") else eta
    listed = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    if listed and len(given) > 0 and all(map(is_real, given)):
        return tuple(map(_number, given))
    raise ArgumentTypeError(
        "eta must be a finite number >= 0, a function of the level at the start of a step, or a "
        f"list with one number a step, not {shown(eta)}; e.g. eta=lambda level: level.sigma"
    )


def eta_values(eta: Any, levels: Sequence[Level]) -> tuple[float, ...]:
    """The eta of each step.

    Arguments:
        eta: as `as_eta` returns it.
        levels: the ends of the steps, one more than steps.

    Raises:
        ArgumentError: a list has another length, or a value is no finite number >= 0.
    """
    steps = len(levels) - 1
    if isinstance(eta, tuple) and len(eta) != steps:
        raise ArgumentError(
            f"the list eta has {len(eta)} values, but the run has {steps} steps; give one value a "
            "step, or a function of the level"
        )
    values: list[float] = []
    for index, (start, stop) in enumerate(pairwise(levels)):
        up = stop.lam < start.lam and values  # a step of the forward process, which has no eta
        values.append(values[-1] if up else _value(eta, start, stop, index, steps))
    return tuple(values)


def first_diffusion(eta: Any, levels: Sequence[Level]) -> float | None:
    """The diffusion eta g that a rule gives the first step, where that starts at alpha = 0."""
    if not is_rule(eta) or levels[0].alpha != 0.0:
        return None
    value = eta.diffusion(levels[0], levels[1], 0, len(levels) - 1)
    return None if value is None else _positive(value, "the diffusion of an EtaRule")


def _value(eta: Any, start: Level, stop: Level, index: int, steps: int) -> float:
    if isinstance(eta, float):
        return eta
    if isinstance(eta, tuple):
        if index >= len(eta):
            raise ArgumentError(
                f"the list eta has {len(eta)} values, but the run has {steps} steps; give one "
                "value a step"
            )
        return float(eta[index])
    value: Any = eta.between(start, stop, index, steps) if is_rule(eta) else eta(start)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if not is_real(value) or not 0.0 <= value < math.inf:
        raise ArgumentError(
            f"eta of the step from t = {start.t!r} is {shown(value)}; a function of the level must "
            "return a finite number >= 0 (1: reverse SDE, 0: probability-flow ODE)"
        )
    return _number(value)


def _number(value: Any) -> float:
    """The value as a float; one that is 1 but for the rounding of float32 is 1.

    At 1, the reverse SDE, solvers may do what they cannot do beside it, and above 1 others serve.
    """
    number = float(value)
    return 1.0 if abs(number - 1.0) < 1e-6 else number


def _positive(value: Any, name: str) -> float:
    if not is_real(value) or not 0.0 <= value < math.inf:
        raise ArgumentError(f"{name} must be a finite number >= 0, not {shown(value)}")
    return float(value)
