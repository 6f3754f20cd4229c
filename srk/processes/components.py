"""What a state consists of: the data alone, or the data and auxiliary components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.kernel import Array, PhaseKernel
from srk.processes.level import Level


class Components:
    """How the state of a process relates to the data; the defaults are those of one component.

    Examples:
        >>> import srk
        >>> srk.VP().state_shape((3, 32, 32)), srk.CLD().state_shape((3, 32, 32))
        ((3, 32, 32), (2, 3, 32, 32))
    """

    components: int = 1
    """How many numbers of the state belong to each one of the data.

    With k > 1 states have shape (batch, k, *event), the data in [:, 0], and the process gives
    `statistic`, `kernel`, `reverse_drift`, and `read_score` and `flow_given_data` where it can.
    """

    def kernel(self, t: float) -> PhaseKernel:
        """The distribution of the state given the data, at own time `t`."""
        raise self._one_component("kernel")

    def reverse_drift(self, level: Level, eta: float) -> tuple[Any, Any] | None:
        """(A, B): the drift of the reverse process, in the clock -t, is A x + B D.

        D is the denoiser. Numbers, or arrays of shape (k, k) for k components; None where there is
        no denoiser.
        """
        return None

    def flow_given_data(
        self, start: Level, stop: Level, eta: float
    ) -> tuple[Array, Array, Array] | None:
        """How the state of k components moves from `start` down to `stop` when the data are known.

        Returns:
            (Phi, N, q) with z' = Phi z + (a' - Phi a) D + q D' + N(0, N), where D' is the slope of
            the denoiser in the half log-SNR; None where there is one component.
        """
        return None

    def read_score(self, t: float) -> tuple[Array, Array]:
        """(w, y), both of shape (k,), with D = w . score + y . z at own time `t`."""
        raise self._one_component("read_score")

    def _one_component(self, method: str) -> IncompatibleError:
        return IncompatibleError(
            f"{self!r} has no {method}, which belongs to states of several components, such as "
            "those of srk.CLD()"
        )

    def state_shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """The shape of one state, for data of shape `event`."""
        return tuple(event) if self.components == 1 else (self.components, *event)

    def data_shape(self, state: Sequence[int]) -> tuple[int, ...]:
        """The shape of the data in one state of shape `state`."""
        return tuple(state) if self.components == 1 else tuple(state[1:])

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise `ArgumentError` unless `shape` is that of states, (batch, *event) or
        (batch, k, *event).
        """
        k = self.components
        if k > 1 and (len(shape) < 2 or shape[1] != k):
            raise ArgumentError(
                f"states of {self!r} have shape (batch, {k}, *event), the data in "
                f"[:, 0], not {tuple(shape)}; "
                f"for data of shape (3, 32, 32) use shape=(batch, {k}, 3, 32, 32)"
            )

    def centre(self, like: torch.Tensor) -> torch.Tensor | None:
        """The mean that states of shape (batch, *event) are noised around, like them; None for 0.

        See `srk.Shifted`.
        """
        return None

    def select(self, rows: slice | torch.Tensor, batch: int) -> Self:
        """The process of some samples of a batch, where something of it belongs to samples."""
        return self

    def data_of(self, state: torch.Tensor) -> torch.Tensor:
        """The data in states, shape (batch, *event), as they are at the end of a run."""
        return state if self.components == 1 else state[:, 0]
