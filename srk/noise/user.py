"""Noise from the user, and no noise at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from srk.errors import ArgumentError
from srk.noise.base import NoiseSource
from srk.noise.generator import GeneratorNoise

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class CallableNoise(NoiseSource):
    """Draws from a function of the user's: `function(slot, clock, out)`; what `solve(noise=function)` means.

    The function either fills `out` (batch, *event) with unit normals and returns None, or returns a tensor of that shape, which is
    copied. `slot` says what the draw is: its interval on the clock and its `weights` (`srk.integrators.Slot`); for the initial state
    `slot` is None and `clock` is "prior". A function that ignores both and returns fresh unit normals is right.

    Arguments:
        function: the callable.
        refines: True if its draws on overlapping intervals are those of one path, so that adaptive steps may use it.

    Examples:
        >>> import srk, torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> draw = lambda slot, clock, out: out.normal_(generator=generator)
        >>> sol = srk.solve(process, target.score(process), shape=(4, 1), steps=5, noise=draw)
    """

    name = "callable"

    def __init__(
        self,
        function: Callable[[Slot | None, str, torch.Tensor], torch.Tensor | None],
        *,
        refines: bool = False,
    ) -> None:
        self.function = function
        self.refines = refines  # type: ignore[misc]  # known per object here

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: torch.Tensor) -> None:
        self._fill(None, "prior", out)

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        self._fill(slot, clock, out)

    def _fill(self, slot: Slot | None, clock: str, out: torch.Tensor) -> None:
        result = self.function(slot, clock, out)
        if result is None or result is out:
            return
        if not isinstance(result, torch.Tensor) or result.shape != out.shape:
            got = (
                f"a tensor of shape {tuple(result.shape)}"
                if isinstance(result, torch.Tensor)
                else repr(result)
            )
            raise ArgumentError(
                f"the noise function returned {got}; it must fill `out`, or return a tensor, of shape {tuple(out.shape)}"
            )
        out.copy_(result)


class ReplayNoise(NoiseSource):
    """Given draws, in the order in which a run asks for them: what another program has drawn, or a recorded run.

    Arguments:
        draws: tensors of shape (batch, *event), or one of shape (draws, batch, *event). A state that is not given as `x_init` takes the first.

    Raises:
        ArgumentError: on a draw, when none is left.

    Examples:
        >>> import srk, torch
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> draws = torch.randn(6, 4, 1, generator=torch.Generator().manual_seed(0))
        >>> srk.solve(process, target.score(process), "ddpm", shape=(4, 1), steps=5, noise=srk.noise.ReplayNoise(draws)).success
        True
    """

    name = "replay"

    def __init__(self, draws: torch.Tensor | Sequence[torch.Tensor]) -> None:
        self.draws = list(draws)
        self._next = 0

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._next = 0

    def prior(self, out: torch.Tensor) -> None:
        self._give(out)

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        self._give(out)

    def _give(self, out: torch.Tensor) -> None:
        if self._next == len(self.draws):
            raise ArgumentError(
                f"all {len(self.draws)} given draws are used, and the run asks for one more; give one for every draw of every step"
            )
        out.copy_(self.draws[self._next])
        self._next += 1


class ZeroNoise(GeneratorNoise):
    """`zero`: no noise on the way, only in the initial state; at eta = 0 nothing is drawn anyway.

    For eta > 0 this is not a sample of the process: it is the drift alone, to look at.

    Arguments:
        seed: seed of the initial state.
    """

    name = "zero"

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        out.zero_()
