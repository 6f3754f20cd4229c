"""Where randomness comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch

from srk.errors import IncompatibleError

if TYPE_CHECKING:
    from srk.plans.plan import Slot, StepPlan


class NoiseSource(ABC):
    """A source of the Gaussian draws of a run. One object serves one run: `start`, then `prior` once, `prepare` if the steps are known,
    then `draw` slot by slot.

    Attributes:
        name: the registered name.
        refines: True if draws on overlapping intervals are consistent (one path): then a rejected step loses nothing.
    """

    name: ClassVar[str] = ""
    refines: ClassVar[bool] = False

    @abstractmethod
    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        """Begin a run whose state has shape (batch, *event)."""

    def prepare(self, plans: Sequence[StepPlan]) -> None:  # noqa: B027  # most sources need no warning
        """Called before a run whose steps are all known, with their plans in order; what `draw` will ask is in them."""

    @abstractmethod
    def prior(self, out: torch.Tensor) -> None:
        """Fill `out` (batch, *event) with the unit normals of the initial state."""

    words: Callable[[Slot, str], torch.Tensor] | None = None
    """If the draws are `srk.noise.counter.normals` of random bits: a function (slot, clock) that gives the bits, for a kernel to turn into draws."""

    @abstractmethod
    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        """Fill `out` (batch, *event) with the unit-variance draw that `slot` describes on the clock named `clock`."""

    def part(self, first: int, count: int) -> NoiseSource:
        """A source for the samples first, ..., first + count - 1 of this one's batch, with the same numbers; for sources whose noise belongs to the sample."""
        raise IncompatibleError(
            f"the noise source {self.name or type(self).__name__!r} draws for a batch as a whole, so a batch cut in pieces would get other numbers; use noise='keyed'"
        )

    @property
    def seed(self) -> int | None:
        """The seed, to repeat the run; None if there is none."""
        return None
