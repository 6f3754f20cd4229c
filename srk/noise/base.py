"""The contract of a noise source."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch

from srk.errors import IncompatibleError

if TYPE_CHECKING:
    from typing import Self

    from srk.noise.counter import SampleNormals
    from srk.plans.plan import Slot, StepPlan


class NoiseSource(ABC):
    """A source of the Gaussian draws of a run.

    A run takes a source of its own from the one it is given (`fresh`), and then calls `start` once,
    `prior` once unless the initial state is given, `prepare` once if the steps are known, and
    `draw` for one slot after the other. So the object that a user holds is only read: several
    threads may share it, and each run begins anew.

    Attributes:
        name: the name under which it is registered.
        refines: True if draws on overlapping intervals are those of one path. A rejected step of an
            adaptive run then loses nothing.
    """

    name: ClassVar[str] = ""
    refines: ClassVar[bool] = False

    def fresh(self) -> Self:
        """A source for one run, with the same numbers.

        The default is a shallow copy: attributes that `start` sets anew belong to the copy. A
        source that changes an attribute in place (a list, a generator) overrides this.
        """
        return copy.copy(self)

    @abstractmethod
    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        """Begin a run whose state has shape (batch, *event)."""

    def prepare(self, plans: Sequence[StepPlan]) -> None:  # noqa: B027  # most need no warning
        """Look at the plans of a run whose steps are all known, in order, before the first draw.

        What `draw` will be asked for stands in them.
        """

    @abstractmethod
    def prior(self, out: torch.Tensor) -> None:
        """Fill `out` (batch, *event) with the unit normals of the initial state."""

    words: Callable[[Slot, str], torch.Tensor] | None = None
    """A function (slot, clock) that gives the random bits of a draw, or None.

    Only for sources whose draws are `srk.noise.counter.normals` of these bits: a compiled kernel
    then turns the bits into the draw where it uses it.
    """

    @abstractmethod
    def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
        """Fill `out` (batch, *event) with unit normals: the draw `slot` on the clock `clock`."""

    def part(self, first: int, count: int) -> NoiseSource:
        """A source for the samples first, ..., first + count - 1 of this one's batch.

        It gives each of them the same numbers as the whole does, so only a source whose noise
        belongs to the sample has it.

        Raises:
            IncompatibleError: the source draws for a batch as a whole.
        """
        raise IncompatibleError(
            f"the noise source {self.name or type(self).__name__!r} draws for a batch as a whole, "
            "so a batch cut in pieces would get other numbers; use noise='keyed'"
        )

    def kind(self) -> Hashable:
        """What two sources have in common that differ in seed and samples alone."""
        return type(self)

    def sample_normals(self) -> SampleNormals | None:
        """Where all of its draws come from, if each is a function of sample and name alone.

        With such a source `compile="loop"` repeats a recorded run with other seeds and samples.
        """
        return None

    @property
    def seed(self) -> int | None:
        """The seed, to repeat the run; None if there is none."""
        return None
