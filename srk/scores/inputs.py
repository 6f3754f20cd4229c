"""What a network is told.

The noise level in the unit it was trained with, and the state in the scale it was trained with.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, UnknownNameError
from srk.processes import Level, VPDiscrete

if TYPE_CHECKING:
    from srk.processes import ForwardProcess

LevelFunction = Callable[[Level], float]

TIMES: Mapping[str, LevelFunction] = {
    "t": lambda level: level.t,
    "sigma": lambda level: noise_to_signal(level),
    "log-snr": lambda level: 2.0 * level.lam,
    "half-log-snr": lambda level: level.lam,
    "flow": lambda level: level.sigma / (level.alpha + level.sigma),
}
"""Noise level in a named unit.

"flow" is the time of the flow alpha = 1 - t, sigma = t with the same signal-to-noise ratio.
"""

INDICES = ("index", "index-rounded")
"""Units that need the number of training steps."""

SCALES: Mapping[str, LevelFunction] = {
    "x": lambda level: 1.0,
    "u": lambda level: 1.0 / level.alpha if level.alpha else math.inf,
    "vp": lambda level: 1.0 / math.hypot(level.alpha, level.sigma),
    "flow": lambda level: 1.0 / (level.alpha + level.sigma),
}
"""Factor k of the input k x.

The state itself, data scale (alpha = 1), variance preserving, flow (alpha + sigma = 1).
"""


def noise_to_signal(level: Level) -> float:
    """sigma/alpha without the rounding of exp(log); inf where alpha = 0."""
    return level.sigma / level.alpha if level.alpha else math.inf


def check_time_unit(unit: object) -> None:
    """Raise an error of ours unless `unit` is a named unit of time or a callable."""
    if not callable(unit):
        _check_name("time unit", unit, (*TIMES, *INDICES))


def check_input_scale(scale: object) -> None:
    """Raise an error of ours unless `scale` is a named scale or a callable."""
    if not callable(scale):
        _check_name("input scale", scale, tuple(SCALES))


def time_value(
    unit: str | LevelFunction, level: Level, process: ForwardProcess, num_timesteps: int | None
) -> float:
    """The noise level in `unit`, a finite float.

    Raises:
        IncompatibleError: it is infinite (sigma/alpha where alpha = 0), or an index is asked of a
            process that has none.
    """
    if unit == "t":
        return level.t
    if callable(unit):
        return _number(unit(level), f"time={unit!r}", level)
    if unit in INDICES:
        return training_index(level, process, num_timesteps)
    return _finite(
        TIMES[unit](level),
        f"time={unit!r}",
        level,
        "time='t' or a function of the level that stays finite",
    )


def training_index(level: Level, process: ForwardProcess, num_timesteps: int | None) -> float:
    """The fractional training index.

    (N - 1) t / max(t_max, 1), or the own time of a discrete process, which is its index.

    So unit time keeps its meaning in a process that starts below the end, e.g.
    srk.Flow(t_max=0.999).

    Raises:
        IncompatibleError: no `num_timesteps`, and the process is not discrete.
    """
    check_process("index", process, num_timesteps)
    return (
        level.t
        if num_timesteps is None
        else (num_timesteps - 1) * level.t / max(process.t_max, 1.0)
    )


def check_process(
    unit: str | LevelFunction, process: ForwardProcess, num_timesteps: int | None
) -> None:
    """Raise `IncompatibleError` if `unit` is an index that has no meaning here.

    Either `num_timesteps` or the process gives it one.
    """
    if unit in INDICES and num_timesteps is None and not isinstance(process, VPDiscrete):
        raise IncompatibleError(
            f"time={unit!r} is the training step, which {process!r} does not have: its time is "
            "continuous; give the number of training "
            "steps, e.g. srk.NoisePrediction(network, time='index', num_timesteps=1000), or a "
            "function of the level, time=lambda level: ..."
        )


def scale_value(scale: str | LevelFunction, level: Level) -> float:
    """The factor k of the network's input k x, a finite positive float."""
    if scale == "x":
        return 1.0
    if callable(scale):
        value = _number(scale(level), f"input_scale={scale!r}", level)
        if value > 0.0:
            return value
        raise ArgumentError(
            f"input_scale={scale!r} gave {value!r} at {level!r}; the factor of the input must be "
            "positive"
        )
    return _finite(
        SCALES[scale](level),
        f"input_scale={scale!r}",
        level,
        "input_scale='x' or 'vp' with a network trained in that scale",
    )


def time_dtype(state: torch.dtype, network: torch.dtype | None) -> torch.dtype:
    """The dtype in which a time reaches the network.

    That of its input, but never less than float32.
    """
    return torch.promote_types(network or state, torch.float32)


def time_tensor(value: float, x: Tensor, dtype: torch.dtype) -> Tensor:
    """`value` as a (batch,) tensor, made on the device of `x`, which is not waited for."""
    return torch.full((x.shape[0],), value, dtype=dtype, device=x.device)


def time_rows(values: Sequence[float], x: Tensor, dtype: torch.dtype) -> list[Tensor] | None:
    """`time_tensor` of each value, as rows of one tensor; None where that would be a large one."""
    batch = x.shape[0]
    wide = -(-batch // _ALIGNED) * _ALIGNED
    if wide * len(values) > _MANY:
        return None
    # A copy, for the network may write to its times.
    rows = _filled_rows(tuple(values), wide, dtype, x.device).clone()
    return list((rows if wide == batch else rows[:, :batch]).unbind())


@lru_cache(maxsize=16)
def _filled_rows(
    values: tuple[float, ...], wide: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A row of `wide` equal numbers for each of the values; nobody may write to it."""
    with torch.inference_mode(False):
        rows = torch.tensor(values, dtype=dtype, device=device)[:, None]
        return rows.expand(-1, wide).contiguous()


_ALIGNED = 16
"""Each row of `time_rows` begins at a multiple of so many numbers, as a tensor of its own does."""

_MANY = 1 << 18
"""A tensor of more numbers than these is not made for the times of a run."""


def row_numbers(values: Sequence[float], x: Tensor) -> Tensor:
    """A number for each row of `x`, in a shape that multiplies it."""
    wide = torch.promote_types(x.dtype, torch.float32)
    made = torch.tensor(values, dtype=wide, device="cpu").to(x.dtype)
    if x.device.type == "cuda":  # sent without waiting for the device
        made = made.pin_memory()
    return made.to(x.device, non_blocking=True).reshape(-1, *[1] * (x.ndim - 1))


def _check_name(kind: str, name: object, known: tuple[str, ...]) -> None:
    if not isinstance(name, str):
        raise ArgumentTypeError(
            f"a {kind} is one of {', '.join(map(repr, known))} or a function of the level, not "
            f"{name!r}"
        )
    if name not in known:
        raise UnknownNameError(kind, name, known)


def _number(value: object, what: str, level: Level) -> float:
    if not isinstance(value, numbers.Real):
        raise ArgumentTypeError(
            f"{what} returned {value!r} of type {type(value).__name__}; it must return a Python "
            "float, computed on the CPU"
        )
    return _finite(float(value), what, level, "a function that stays finite")


def _finite(value: float, what: str, level: Level, cure: str) -> float:
    if math.isfinite(value):
        return value
    end, bound = (
        ("alpha = 0", "t_max below the end, e.g. srk.Flow(t_max=0.999)")
        if level.alpha == 0.0
        else ("sigma = 0", "t_min > 0")
    )
    raise IncompatibleError(
        f"{what} is {value!r} at t = {level.t!r}, where {end}; use {cure}, or build the process "
        f"with {bound}"
    )
