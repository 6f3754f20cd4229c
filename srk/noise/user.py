"""Noise from the user, and no noise at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise.base import NoiseSource
from srk.noise.generator import GeneratorNoise

if TYPE_CHECKING:
    from srk.plans.plan import Slot


class CallableNoise(NoiseSource):
    """Draws from a function (slot, clock, out) of the user's: what `solve(noise=function)` means.

    The function fills `out` (batch, *event) with unit normals and returns None, or it returns a
    tensor of that shape, which is copied. `slot` says what the draw is: its interval on the clock,
    and its `weights` (`srk.integrators.Slot`). For the initial state `slot` is None and `clock` is
    "prior". A function that ignores both and gives fresh unit normals is right.

    Arguments:
        function: the callable.
        refines: True if its draws on overlapping intervals are those of one path, so that adaptive
            steps may use it.

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
        if not callable(function):
            raise ArgumentTypeError(
                f"a noise function is a callable (slot, clock, out), not {shown(function)}"
            )
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
        result = _parts(result)
        if not isinstance(result, torch.Tensor) or result.shape != out.shape:
            got = (
                f"a tensor of shape {tuple(result.shape)}"
                if isinstance(result, torch.Tensor)
                else shown(result)
            )
            raise ArgumentError(
                f"the noise function returned {got}; it must fill `out`, or return a tensor, of "
                f"shape {tuple(out.shape)}"
            )
        out.copy_(result)


class ReplayNoise(NoiseSource):
    """Given draws, in the order in which a run asks for them.

    They may come from another program, or from a recorded run.

    Arguments:
        draws: tensors of shape (batch, *event), or one tensor of shape (draws, batch, *event). A
            state that is not given as `x_init` takes the first.

    Raises:
        ArgumentError: on a draw, when none is left, or the next one has another shape.

    Examples:
        >>> import srk, torch
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> draws = torch.randn(6, 4, 1, generator=torch.Generator().manual_seed(0))
        >>> noise = srk.noise.ReplayNoise(draws)
        >>> score = target.score(process)
        >>> srk.solve(process, score, "ddpm", shape=(4, 1), steps=5, noise=noise).success
        True
    """

    name = "replay"

    def __init__(self, draws: torch.Tensor | Sequence[torch.Tensor]) -> None:
        try:
            self.draws = list(draws)
        except TypeError:
            self.draws = [None]  # refused below
        if not all(isinstance(draw, torch.Tensor) for draw in self.draws):
            raise ArgumentTypeError(
                "draws must be tensors of shape (batch, *event), or one tensor of shape "
                f"(draws, batch, *event), not {shown(draws)}"
            )
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
                f"all {len(self.draws)} given draws are used, and the run asks for one more; give "
                "one for every draw of every step"
            )
        draw = _parts(self.draws[self._next])
        if draw.shape != out.shape:
            raise ArgumentError(
                f"draw number {self._next} has shape {tuple(draw.shape)}, but the state has shape "
                f"{tuple(out.shape)}; give draws of the shape of the state"
            )
        out.copy_(draw)
        self._next += 1


def _parts(draw: Any) -> Any:
    """A draw as real numbers: those of complex noise of variance 1 are unit normals times 1/2^0.5.

    So a run of complex states, which are pairs of real numbers, takes complex draws.
    """
    if not isinstance(draw, torch.Tensor) or not draw.is_complex():
        return draw
    return torch.view_as_real(draw.resolve_conj()) * math.sqrt(2.0)


class ZeroNoise(GeneratorNoise):
    """`zero`: noise in the initial state only, none in the steps.

    At eta = 0 no step draws noise anyway. For eta > 0 this is not a sample of the process: it is
    the drift alone, to look at.

    Arguments:
        seed: seed of the initial state.
    """

    name = "zero"

    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        out.zero_()
