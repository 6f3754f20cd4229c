"""The protocol between a network and the executor.

Whatever the network says, a `Prediction` answers with the denoiser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from srk._modes import asked
from srk.errors import ArgumentTypeError
from srk.scores.convert import to_score

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level


class Rows(NamedTuple):
    """States at several levels, to be answered together.

    Rows of one level stand next to each other.

    Arguments:
        x: states, shape (rows, *event).
        levels: the level of each row.
        samples: the number of the sample that each row belongs to, int64, on the device of `x`.
        batch: how many samples there are; conditions belong to these.
    """

    x: Tensor
    levels: Sequence[Level]
    samples: Tensor
    batch: int

    def groups(self) -> Iterator[tuple[slice, Level]]:
        """The rows of each level, and the level."""
        first = 0
        for i in range(1, len(self.levels) + 1):
            if i == len(self.levels) or self.levels[i] != self.levels[first]:
                yield slice(first, i), self.levels[first]
                first = i

    def part(self, rows: slice) -> Rows:
        """Some of the rows, next to each other."""
        return Rows(self.x[rows], self.levels[rows], self.samples[rows], self.batch)


class Prediction(ABC):
    """What is known about the data behind a noisy state.

    Base of the adapters and of the exact scores.

    Subclass it and implement `denoise` to bring a prediction of your own; the rest has defaults.
    """

    event_shape: tuple[int, ...] | None = None
    """Shape of one sample where it is known, which makes `shape` optional in `srk.solve`."""

    def bind(self, process: ForwardProcess) -> Prediction:
        """The prediction to use with `process`; called once before a run. The default is itself."""
        return self

    @abstractmethod
    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The denoiser D = E[x0 | x_t = x].

        Arguments:
            x: states, shape (batch, *event).
            level: the noise level, with the process's own time.
            process: the process that is reversed.

        Returns:
            D, of the shape, dtype and device of `x`.
        """

    def output(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """What the network says at `x`, checked.

        The default, for predictions without a network, is the denoiser.
        """
        return self.denoise(x, level, process)

    def coefficients(self, level: Level) -> tuple[float, float] | None:
        """(a, b) with D = a x + b output, in float64; None where D is not of this form."""
        return 0.0, 1.0

    def calls(self, t: float | None = None) -> int:
        """Network calls that one evaluation at own time `t` makes for each sample; None.

        The most at any time. The default is 1.

        `srk.solve` adds these up in `Solution.nfe`, and divides a budget `nfe=` by `calls()`.
        """
        return 1

    def select(self, rows: slice | Tensor, batch: int) -> Prediction:
        """The prediction for some samples of a batch.

        Override it where conditions belong to samples. The default is itself.

        Arguments:
            rows: which samples, a slice or their numbers (an int64 tensor on the device of the
                state).
            batch: size of the whole batch.
        """
        return self

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The score grad log p_t at `x`; the default goes through the denoiser."""
        denoised, mean = self.denoise(x, level, process), process.centre(x)
        if mean is not None:
            denoised, x = denoised - mean, x - mean
        return to_score(denoised, x, level)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        """The denoiser at states of several levels, (rows, *event), which `srk.Picard` asks for.

        The default asks `denoise` for one level after the other, which is right for every
        prediction. Override it where all levels can go through the network in one batch.
        """
        return one_by_one(self, "denoise", rows, process)

    def score_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        """The score at states of several levels; otherwise as `denoise_each`."""
        return one_by_one(self, "score", rows, process)


def one_by_one(prediction: Prediction, what: str, rows: Rows, process: ForwardProcess) -> Tensor:
    """`denoise` or `score` of the rows, one level after the other."""
    groups, values = [*rows.groups()], []
    for group, level in groups:
        ask = getattr(prediction.select(rows.samples[group], rows.batch), what)
        # A state of its own, so that a network which writes to it is noticed.
        own = process.select(rows.samples[group], rows.batch)
        value = asked(ask, rows.x[group].clone(), level, own)
        # The next evaluation may write to the memory of this one.
        values.append(value.clone() if len(groups) > 1 else value)
    return values[0] if len(values) == 1 else torch.cat(values)


def check_state(x: object) -> None:
    """Raise `ArgumentTypeError` unless `x` is a real floating-point tensor with a batch axis."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(
            f"the state must be a torch.Tensor of shape (batch, *event), not {type(x).__name__}"
        )
    if x.ndim == 0 or not x.dtype.is_floating_point:
        raise ArgumentTypeError(
            f"the state must be a floating-point tensor of shape (batch, *event), not {x.dtype} "
            f"of shape {tuple(x.shape)}; "
            "e.g. x.float()[None]"
        )
