"""Targets: data distributions whose denoiser and score are exact at every noise level.

They are oracles for every solver and process.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import attrs
import torch
from torch import Tensor

from srk._checks import is_integer, need, shown
from srk._modes import uncast
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.around_mean import AroundMean
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.processes.phase import PhaseProcess
from srk.scores.base import Prediction, check_state
from srk.scores.convert import to_score
from srk.scores.pairs import paired, refuse
from srk.scores.phase import Reduced
from srk.targets.drawing import draw_options

TARGET = "a target such as srk.targets.Gaussian(0.0, 1.0)"
"""What messages call a target."""

DATA = Level(t=0.0, alpha=1.0, sigma=0.0, lam=math.inf)
"""The level of the data itself."""


class Target(ABC):
    """A distribution of data whose denoiser, and hence score, is known at every level.

    A subclass sets `event_shape` and implements `denoise` and `draw`; `log_density` where there is
    one. Everything follows the device and dtype of the states it is given: float64 parameters are
    moved once per device and dtype and kept. Half-precision states are computed in float32.
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        self.event_shape = event_shape
        self._moved: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @property
    def dimension(self) -> int:
        """Number of coordinates of one sample."""
        return math.prod(self.event_shape)

    @abstractmethod
    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The denoiser E[x0 | alpha x0 + sigma eps = x]; the mean of the data at alpha = 0.

        Arguments:
            x: states, shape (batch, *event).
            level: the noise level; alpha and sigma count.

        Returns:
            Tensor of the shape, dtype and device of `x`.
        """

    @abstractmethod
    def draw(
        self, n: int, *, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """`n` independent samples of the data, shape (n, *event); `sample` is the friendly form."""

    def score_at(self, x: Tensor, level: Level) -> Tensor:
        """The score grad log p(x) at `level` with sigma > 0; shapes as in `denoise`."""
        return to_score(self.denoise(x, level), x, level)

    def log_density(
        self, x: Tensor, process: ForwardProcess | None = None, t: float | None = None
    ) -> Tensor:
        """Log-density at own time `t` of `process`, or of the data; differentiable in `x`.

        Arguments:
            x: states, shape (batch, *event).
            process: a linear process, around a mean or not.
            t: a time in the process's own time.

        Returns:
            Tensor of shape (batch,).
        """
        raise IncompatibleError(f"{self!r} has no log-density in closed form")

    @overload
    def score(self, process: LinearProcess | AroundMean) -> ExactScore: ...
    @overload
    def score(self, process: PhaseProcess) -> Reduced: ...
    def score(self, process: LinearProcess | AroundMean | PhaseProcess) -> ExactScore | Reduced:
        """The exact score of this target under `process`.

        Give it to `srk.solve`, or (linear processes) call it as `(x, t) -> score`.

        Raises:
            ArgumentTypeError: `process` is neither linear nor a phase-space process, so that the
                distribution of x_t is not known.
        """
        given: ForwardProcess = process
        if given.components > 1:
            return Reduced(ExactScore(self, need_linear(given.statistic))).bind(given)
        return ExactScore(self, need_linear(given))

    def sample(
        self,
        n: int,
        process: ForwardProcess | None = None,
        t: float | None = None,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw samples of the data, or of the noised data at own time `t` of `process`.

        Arguments:
            n: how many.
            process: a linear process, around a mean or not, together with `t`.
            t: a time in the process's own time.
            generator: where the randomness comes from; its device is the default device.
            seed: makes a generator of its own; alternative to `generator`. Without either, torch's
                global generator is used.
            dtype: default torch.get_default_dtype().
            device: default torch's default device.

        Returns:
            Tensor of shape (n, *event).
        """
        n = check_count(n, 0, "n is the number of samples")
        options = draw_options(generator, seed, dtype, device)
        level = level_of(process, t)
        x0 = self.draw(n, **options)
        if process is None:
            return x0
        noise = torch.randn(x0.shape, **options)
        x = noise.mul_(level.sigma).add_(x0, alpha=level.alpha)
        mean = process.centre(x)
        return x if mean is None else x.add_(mean, alpha=1.0 - level.alpha)

    def _checked(self, x: Tensor) -> Tensor:
        """`x`, of the right shape, in the dtype of the computation."""
        check_state(x)
        if tuple(x.shape[1:]) != self.event_shape:
            raise ArgumentError(
                f"{self!r} has samples of shape {self.event_shape}, so states have shape "
                f"(batch, {', '.join(map(str, self.event_shape))}); "
                f"this one has shape {tuple(x.shape)}"
            )
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _on(self, name: str, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor `name` on the device of `like`, in the widest dtype there; moved once."""
        dtype = dtype or (torch.float32 if like.device.type == "mps" else torch.float64)
        key = name, like.device, dtype
        if key not in self._moved:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
            ):  # what is kept must serve autograd later
                self._moved[key] = self._make(name, like.device, dtype)
        return self._moved[key]

    def _make(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        value: Tensor = getattr(self, name)
        return value.to(device=device, dtype=dtype)


@attrs.frozen(eq=False)
class ExactScore(Prediction):
    """The exact score of `target` under `process`: a prediction, and a callable (x, t) -> score.

    The denoiser is computed directly, so it is exact at every level, alpha = 0 included, in every
    linear process.

    Arguments:
        target: the distribution of the data.
        process: the linear process whose own time the callable uses.

    Examples:
        >>> import torch
        >>> from srk.processes import VP
        >>> from srk.targets import Gaussian
        >>> score = Gaussian(0.0, 1.0).score(VP())  # N(0, 1) data stay N(0, 1)
        >>> score(torch.tensor([[2.0], [-1.0]]), torch.tensor([0.5, 0.9]))
        tensor([[-2.],
                [ 1.]])
    """

    target: Target = attrs.field()
    process: ForwardProcess = attrs.field()
    event_shape: tuple[int, ...] | None = attrs.field(init=False)

    @target.validator
    def _check_target(self, attribute: attrs.Attribute[Any], value: object) -> None:
        need(value, Target, "target", TARGET)

    @process.validator
    def _check_process(self, attribute: attrs.Attribute[Any], value: object) -> None:
        need_linear(value)

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...]:
        target: Target = need(self.target, Target, "target", TARGET)
        return target.event_shape

    def bind(self, process: ForwardProcess) -> Prediction:
        """The exact score of the same target under `process`."""
        return self if process is self.process else ExactScore(self.target, need_linear(process))

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        with uncast(x):
            return self.target.denoise(signal(x, level, process), level)

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        with uncast(x):
            return self.target.score_at(signal(x, level, process), level)

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The score at states `x` and times `t`, for other libraries and bare loops.

        Arguments:
            x: states, shape (batch, *event).
            t: times in the process's own time: a number, or a tensor of shape (), (1,) or (batch,).
                They are read on the CPU (one synchronisation; `srk.solve` needs none). An overshoot
                of the range by rounding in the dtype of `t` is clamped.

        Returns:
            Tensor of the shape of `x`; samples of different times are computed time by time.
        """
        if not isinstance(t, Tensor):
            return self.score(x, self.process.level(t), self.process)
        if t.numel() != 1 and tuple(t.shape) != (x.shape[0],):
            raise ArgumentError(
                f"t has shape {tuple(t.shape)}; for a state of shape {tuple(x.shape)} it is a "
                f"number or has shape ({x.shape[0]},)"
            )
        slack = 4 * torch.finfo(t.dtype).eps if t.dtype.is_floating_point else 0.0
        times, which = torch.unique(
            t.detach().reshape(-1).to("cpu", torch.float64), return_inverse=True
        )
        levels = [self.process.level(self._clamped(float(time), slack)) for time in times]
        if len(levels) == 1:
            return self.score(x, levels[0], self.process)
        which = which.to(x.device)
        out = torch.empty_like(x)
        for i, level in enumerate(levels):
            rows = torch.nonzero(which == i)[:, 0]
            out = out.index_copy(
                0, rows, self.score(x[rows], level, self.process.select(rows, len(x)))
            )
        return out

    def _clamped(self, t: float, slack: float) -> float:
        lo, hi = self.process.t_min, self.process.t_max
        near = slack * max(abs(lo), abs(hi))
        return min(max(t, lo), hi) if lo - near <= t <= hi + near else t


paired.register(ExactScore, refuse)


def signal(x: Tensor, level: Level, process: ForwardProcess | None) -> Tensor:
    """alpha x0 + sigma eps in states `x` of `process`: the states, less what a mean puts there."""
    mean = None if process is None else process.centre(x)
    return x if mean is None else x - (1.0 - level.alpha) * mean


def need_linear(process: object) -> ForwardProcess:
    """`process`, if it is linear, around a mean or not; `ArgumentTypeError` otherwise."""
    if isinstance(process, ForwardProcess) and isinstance(process.centred, LinearProcess):
        return process
    raise ArgumentTypeError(
        "an exact score needs a linear process x_t = alpha x0 + sigma eps, whose distribution is "
        f"known, not {process!r}; e.g. srk.VP()"
    )


def plain_level(process: ForwardProcess | None, t: float | None) -> Level:
    """`level_of`, for what is known without a mean only."""
    level = level_of(process, t)
    if process is not None and process.centred is not process:
        raise IncompatibleError(
            f"this is not known around a mean, of {process!r}; ask for {process.centred!r}, the "
            "process of the state less the mean, with the target moved by it"
        )
    return level


def level_of(process: ForwardProcess | None, t: float | None) -> Level:
    """The level at own time `t` of `process`; that of the data when both are None."""
    if process is None and t is None:
        return DATA
    if process is None or t is None:
        given, missing = ("t", "process") if process is None else ("process", "t")
        raise ArgumentError(
            f"{given} is given without {missing}; give both for the distribution at time t, or "
            "neither for the data"
        )
    return need_linear(process).level(t)


def event_of(shape: object) -> tuple[int, ...]:
    """The shape of one sample, as positive ints."""
    if isinstance(shape, Sequence) and all(is_integer(size) and size >= 1 for size in shape):
        return tuple(int(size) for size in shape)
    raise ArgumentTypeError(
        f"event_shape is a tuple of positive ints, not {shown(shape)}; e.g. event_shape=(3,)"
    )


def check_count(value: object, least: int, what: str) -> int:
    """`value` as an int of at least `least`; `ArgumentError` that begins with `what` otherwise."""
    if isinstance(value, SupportsIndex) and operator.index(value) >= least:
        return operator.index(value)
    raise ArgumentError(f"{what}, an integer >= {least}, not {value!r}")


def numbers(value: object, what: str, dtype: torch.dtype | None = None) -> Tensor:
    """`value` as a tensor, where it is numbers; `ArgumentTypeError` otherwise."""
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{what} must be numbers or a tensor, not {shown(value)}; e.g. [[-1.0], [1.0]]"
        ) from error


def parameter(value: object, what: str) -> Tensor:
    """`value` as a finite float64 tensor on the CPU."""
    tensor = numbers(value, what, torch.float64).to("cpu").detach().clone()
    if not bool(torch.isfinite(tensor).all()):
        raise ArgumentError(f"{what} must be finite, not {value!r}")
    return tensor
