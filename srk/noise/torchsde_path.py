"""A Brownian path in the form that torchsde takes."""

from __future__ import annotations

from typing import Protocol

import torch

from srk.errors import ArgumentError


class _Increments(Protocol):
    """A started noise source that holds a Brownian path, such as `BrownianNoise`."""

    _like: torch.Tensor

    def increment(
        self, clock: str, start: float, stop: float
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


class TorchSDEPath:
    """A path in the form of `torchsde.BaseBrownian`.

    `W, U = path(ta, tb, return_U=True)` gives the increment and U = h (W/2 + H) = int W. A time
    beyond the range by rounding is moved to its end; farther out is an error.
    """

    levy_area_approximation = "space-time"

    def __init__(self, noise: _Increments, clock: str, start: float, stop: float) -> None:
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
                "this path has the space-time Levy area (return_U), not the space-space one "
                "(return_A)"
            )
        a, b = (self.start, float(ta)) if tb is None else (float(ta), float(tb))
        a, b = self._clamp(a), self._clamp(b)
        w, h = self.noise.increment(self.clock, a, b)
        return (w, (0.5 * w + h).mul_(b - a)) if return_U else w
