"""Schedules in which the elements of a state, such as frames, have times of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

from srk._checks import integer, shown
from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.processes.parameters import as_number

Matrix = tuple[tuple[float, ...], ...]


def _matrix(schedule: Any) -> Matrix:
    rows = schedule.tolist() if hasattr(schedule, "tolist") else schedule
    if not isinstance(rows, Sequence) or not all(
        isinstance(row, Sequence) and not isinstance(row, str) for row in rows
    ):
        raise ArgumentTypeError(
            "a schedule of levels is a matrix of own times, one row for each end of a step and one "
            f"column for each element, not {shown(schedule)}; e.g. [[1.0, 1.0], [0.5, 1.0], "
            "[0.001, 0.5], [0.001, 0.001]]"
        )
    made = tuple(
        tuple(as_number(value, "an entry of a schedule of levels") for value in row) for row in rows
    )
    if len(made) < 2 or not made[0] or len({len(row) for row in made}) > 1:
        raise ArgumentError(
            "a schedule of levels has two rows or more, all with as many entries as there are "
            f"elements, not rows of {[len(row) for row in made]} entries"
        )
    for column, values in enumerate(zip(*made, strict=True)):
        for row, (before, after) in enumerate(pairwise(values)):
            if not after <= before:
                raise TimeError(
                    f"the times of an element go from noise to data or stay, but element {column} "
                    f"goes from {before!r} in row {row} to {after!r} in row {row + 1}"
                )
    if made[0] == made[-1]:
        raise TimeError("no element of the schedule moves; let the times decrease in some column")
    return made


def _times(times: Any) -> tuple[float, ...]:
    """The times of one element, for the makers."""
    given = times.tolist() if hasattr(times, "tolist") else times
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ArgumentTypeError(
            f"times are own times of the process that decrease, not {shown(times)}; e.g. "
            "[1.0, 0.5, 0.001]"
        )
    made = tuple(as_number(value, "a time of an element") for value in given)
    if len(made) < 2:
        raise ArgumentError(
            f"the times of an element are two or more, from noise to data, not {shown(times)}; "
            "e.g. [1.0, 0.5, 0.001]"
        )
    return made


def _axis(value: Any) -> int:
    return integer(value, "axis")


@attrs.frozen
class Levels:
    """Own times for each element along an axis of the state: frames, tokens, atoms.

    `srk.solve(..., grid=srk.Levels(schedule))` takes each element through the times of its column.
    An element whose time stays the same in a step is carried along; the network sees it at that
    time. The network gets times of shape (batch, elements).

    Arguments:
        schedule: own times of the process, a matrix (steps + 1, elements) whose columns do not
            increase.
        axis: the axis of the state (batch, *event) along which the elements lie; not the batch.

    Raises:
        ArgumentError, ArgumentTypeError: the schedule is not such a matrix, or the axis is 0.
        TimeError: a column increases, or none decreases.

    Source: for diffusion with a noise level for each frame, Chen et al., "Diffusion Forcing:
    Next-token Prediction Meets Full-Sequence Diffusion", 2024.

    Examples:
        >>> import srk
        >>> levels = srk.Levels([[1.0, 1.0], [0.5, 1.0], [0.001, 0.5], [0.001, 0.001]])
        >>> levels.elements, levels == srk.Levels.pyramid([1.0, 0.5, 0.001], 2)
        (2, True)
    """

    schedule: Matrix = attrs.field(converter=_matrix)
    axis: int = attrs.field(default=1, converter=_axis)

    @axis.validator
    def _check_axis(self, attribute: attrs.Attribute[Any], value: int) -> None:
        if value == 0:
            raise ArgumentError(
                "axis=0 is the batch, whose samples share their times; the elements lie along "
                "another axis, e.g. axis=1"
            )

    @property
    def elements(self) -> int:
        """The number of elements."""
        return len(self.schedule[0])

    @classmethod
    def prefix(cls, times: Sequence[float], elements: int, fixed: int, *, axis: int = 1) -> Levels:
        """The first elements are data and stay; all others go through `times` together.

        Give the data of the fixed elements as `x_init`.

        Arguments:
            times: own times, decreasing, (steps + 1,); the fixed elements are seen at the last.
            elements: number of elements.
            fixed: how many of them stay.
            axis: as in `Levels`.

        Examples:
            >>> import srk
            >>> srk.Levels.prefix([1.0, 0.5, 0.001], 3, fixed=1).schedule[1]
            (0.001, 0.5, 0.5)
        """
        elements = integer(elements, "elements", least=2)
        fixed = integer(fixed, "fixed", least=1, most=elements - 1)
        times = _times(times)
        return cls([[times[-1]] * fixed + [t] * (elements - fixed) for t in times], axis)

    @classmethod
    def pyramid(
        cls, times: Sequence[float], elements: int, delay: int = 1, *, axis: int = 1
    ) -> Levels:
        """Each element goes through `times` some steps later than the element before it.

        With a delay of all steps, elements are drawn one after the other.

        Arguments:
            times: own times, decreasing, (steps + 1,).
            elements: number of elements.
            delay: the steps by which each element follows the one before.
            axis: as in `Levels`.

        Examples:
            >>> import srk
            >>> srk.Levels.pyramid([1.0, 0.001], 3).schedule
            ((1.0, 1.0, 1.0), (0.001, 1.0, 1.0), (0.001, 0.001, 1.0), (0.001, 0.001, 0.001))
        """
        elements = integer(elements, "elements", least=1)
        delay = integer(delay, "delay", least=0)
        times = _times(times)
        last = len(times) - 1
        rows = range(last + (elements - 1) * delay + 1)
        return cls(
            [[times[min(max(k - i * delay, 0), last)] for i in range(elements)] for k in rows],
            axis,
        )

    @classmethod
    def blocks(cls, times: Sequence[float], elements: int, size: int, *, axis: int = 1) -> Levels:
        """One block of elements after the other, each from noise to data, given those before it.

        Arguments:
            times: own times, decreasing, (steps + 1,).
            elements: number of elements.
            size: how many of them a block has; the last block has those that are left.
            axis: as in `Levels`.

        Source: Arriola et al., "Block Diffusion", 2025; with size 1 it is an autoregressive model.

        Examples:
            >>> import srk
            >>> srk.Levels.blocks([1.0, 0.001], 3, size=2).schedule
            ((1.0, 1.0, 1.0), (0.001, 0.001, 1.0), (0.001, 0.001, 0.001))
        """
        size = integer(size, "size", least=1)
        times = _times(times)
        elements = integer(elements, "elements", least=1)
        last = len(times) - 1
        rows = range(last * -(-elements // size) + 1)
        return cls(
            [
                [times[min(max(k - (i // size) * last, 0), last)] for i in range(elements)]
                for k in rows
            ],
            axis,
        )

    @classmethod
    def rolling(
        cls, times: Sequence[float], elements: int, window: int, *, axis: int = 1
    ) -> Levels:
        """A window of elements between noise and data rolls over all of them.

        At any step at most `window` elements move, spread evenly over the times; when the first of
        them is done, the next one enters.

        Arguments:
            times: own times, decreasing, (steps + 1,); `window` divides the number of steps.
            elements: number of elements.
            window: how many elements move at a time.
            axis: as in `Levels`.

        Examples:
            >>> import srk
            >>> levels = srk.Levels.rolling([1.0, 0.7, 0.5, 0.2, 0.001], 4, window=2)
            >>> levels.schedule[4]
            (0.001, 0.5, 1.0, 1.0)
        """
        window = integer(window, "window", least=1)
        times = _times(times)
        steps = len(times) - 1
        if steps % window:
            raise ArgumentError(
                f"window={window} does not divide the {steps} steps of the times; give times for "
                f"{window * max(1, round(steps / window))} steps, or another window"
            )
        return cls.pyramid(times, elements, steps // window, axis=axis)
