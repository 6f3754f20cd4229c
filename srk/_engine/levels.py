"""Groups of elements as one state: their noise, and what is kept of a run of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from srk._engine.memory import version
from srk._engine.product import Lockstep, PartRun
from srk._engine.recorder import Recorder
from srk._modes import ordinary_tensors
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, StepPlan
from srk.processes.base import Level
from srk.scores.elements import assemble


class SlicedNoise(NoiseSource):
    """The noise of some elements: those of the draws of all, so that any grouping gives the same.

    Arguments:
        source: a started source for the whole state.
        like: a tensor of the shape of the whole state.
        axis, index: the elements.
    """

    def __init__(self, source: NoiseSource, like: Tensor, axis: int, index: Tensor) -> None:
        self.source, self.axis, self.index = source, axis, index
        self._whole = torch.empty_like(like)

    @property
    def seed(self) -> int | None:
        return self.source.seed

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass  # the source has been started

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        self.source.prepare(plans)

    def prior(self, out: Tensor) -> None:
        self.source.prior(self._whole)
        out.copy_(self._whole.index_select(self.axis, self.index))

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self.source.draw(slot, clock, self._whole)
        out.copy_(self._whole.index_select(self.axis, self.index))


class Groups:
    """What the groups of a run are together: its state, and the record of its steps.

    Arguments:
        parts: the run of each group.
        indices: the numbers of the elements of each.
        axis: along which the elements lie.
        rows: the level of the noisiest element at each end of a step.
        recorder: of the whole run.
    """

    def __init__(
        self,
        parts: Mapping[str, PartRun],
        indices: Mapping[str, Tensor],
        axis: int,
        rows: Sequence[Level],
        recorder: Recorder,
    ) -> None:
        self.parts, self.indices, self.axis = parts, indices, axis
        self.rows, self.recorder = rows, recorder
        self.lockstep: Lockstep | None = None
        self._wanted = recorder.callback is not None or bool(recorder.saves & {"x", "denoised"})
        if recorder.wants_denoised:
            for part in parts.values():
                part.run.network.records = True

    def whole(self, states: Mapping[str, Tensor]) -> Tensor:
        """The states of all groups as one."""
        return assemble(states, self.indices, self.axis)

    def visit(self, step: int) -> bool:
        """So many steps are taken; whether the callback ends the run."""
        recorder, state = self.recorder, self.recorder.x
        if self._wanted:
            with ordinary_tensors():  # a change of it by a callback is to be seen
                state = self.whole({name: part.run.recorder.x for name, part in self.parts.items()})
        if step == len(self.rows):
            recorder.finish(state)
            return False
        recorder.x = state
        if step == 0:
            recorder.begin(self.rows[0])
            return False
        moved = {
            name: part.plans[number]
            for name, part in self.parts.items()
            if (number := part.order[step - 1]) is not None
        }
        end = self.rows[step]
        asked = max((plan.asked for plan in moved.values()), default=end.t)
        self.density(moved, end.t)
        assert self.lockstep is not None
        before = version(state)
        denoised = self._denoised() if recorder.wants_denoised else None
        stopping = recorder.accept(end, state, asked, denoised, self.lockstep.calls)
        if version(state) != before and len(self.parts) > 1:
            with torch.no_grad():  # the callback has changed the state
                for name, part in self.parts.items():
                    part.run.recorder.x.copy_(state.index_select(self.axis, self.indices[name]))
        return stopping

    def density(self, moved: Mapping[str, StepPlan], t: float) -> None:
        """The log-density of a step: the draws of the groups are independent given all before."""
        found = [self.parts[name].density for name in moved]
        known = [density for density in found if density is not None]
        if known:
            self.recorder.density(t, torch.stack(known).sum(0) if len(known) > 1 else known[0])

    def _denoised(self) -> Tensor:
        """What was said last of each element; NaN before its first step.

        Of an element that is given and stays, it is the element.
        """
        said = {}
        for name, part in self.parts.items():
            x, last = part.run.recorder.x, part.denoised
            if last is None:
                last = torch.full_like(x, torch.nan) if part.plans else x
            said[name] = last
        return self.whole(said)


__all__ = ["Groups", "SlicedNoise"]
