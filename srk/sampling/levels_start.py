"""The state at the start of a run whose elements have times of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srk.errors import ArgumentError
from srk.noise import NoiseSource
from srk.processes.base import LinearProcess
from srk.sampling.arguments import batch_shape, state_given
from srk.steps.levels import Levels


class Start:
    """Of which shape the state is, what of it is given, and what is drawn.

    Arguments:
        event: the shape of one sample, where the score knows it.
        levels: the times.
        shape, x_init, device, dtype: as in the call; `x_init` is the whole state or the first
            elements of it.
        grad: whether gradients flow through `x_init`.
    """

    def __init__(
        self,
        event: tuple[int, ...] | None,
        levels: Levels,
        shape: Any,
        x_init: Any,
        device: torch.device | None,
        dtype: torch.dtype | None,
        grad: bool = False,
    ) -> None:
        given = None if x_init is None else state_given(x_init, None, None)
        if given is not None and shape is None and event is None:
            whole: tuple[int, ...] = tuple(given.shape)
        else:
            whole = batch_shape(shape if given is None or shape else len(given), event)
        if event is not None and whole[1:] != tuple(event):
            raise ArgumentError(
                f"the samples would have event shape {whole[1:]}, but the score is for "
                f"{tuple(event)}; use shape=(batch, *{tuple(event)})"
            )
        if not -len(whole) < levels.axis < len(whole):
            raise ArgumentError(
                f"axis={levels.axis} is none of a state of shape {whole} besides the batch"
            )
        self.axis = levels.axis % len(whole)
        if whole[self.axis] != levels.elements:
            raise ArgumentError(
                f"the schedule is for {levels.elements} elements, but the state of shape {whole} "
                f"has {whole[self.axis]} along axis {levels.axis}; make both the same"
            )
        if given is not None:
            known = given.shape[self.axis] if given.ndim > self.axis else 0
            cut = (*whole[: self.axis], known, *whole[self.axis + 1 :])
            if tuple(given.shape) != cut or known > levels.elements:
                raise ArgumentError(
                    f"x_init of shape {tuple(given.shape)} is neither the state of shape {whole} "
                    f"nor the beginning of it along axis {levels.axis}"
                )
            given = given if grad else given.detach()
            device, dtype = device or given.device, dtype or given.dtype
        self.given = given
        self.known = 0 if given is None else given.shape[self.axis]
        self.drawn = self.known < levels.elements
        self.place: dict[str, Any] = {"device": device, "dtype": dtype or torch.float32}
        self.shape = whole

    def empty(self) -> Tensor:
        """A state of this shape, whose numbers mean nothing."""
        return torch.empty(self.shape, **self.place)

    def draw(
        self, process: LinearProcess, source: NoiseSource, levels: Levels, mean: Tensor | None
    ) -> Tensor:
        """The state at the start, less the mean of a process around one.

        Elements that are drawn must start where the prior is known.
        """
        for element, t in enumerate(levels.schedule[0][self.known :], self.known):
            if process.snap(t) != process.t_max:
                raise ArgumentError(
                    f"element {element} starts at t = {t!r}, below t_max = {process.t_max!r}, "
                    "where its distribution is not known; give its state there in x_init"
                )
        x = self.empty()
        source.start(x.shape, x.dtype, x.device)
        if self.drawn:
            source.prior(x)
            x = process.initial_state(x)
        if self.given is None:
            return x
        given = self.given.to(**self.place)
        if mean is not None:
            given = given - mean.narrow(self.axis, 0, self.known)
        rest = x.narrow(self.axis, self.known, self.shape[self.axis] - self.known)
        return torch.cat([given, rest], self.axis)


__all__ = ["Start"]
