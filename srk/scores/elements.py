"""Predictions for elements with noise levels of their own: one network call for all of them.

Elements of the same level are one group. The network gets all elements and times of shape (batch,
elements); the prediction of a group is what it says of that group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._modes import ordinary_tensors, version
from srk.errors import ScoreError
from srk.processes.around_mean import AroundMean
from srk.scores.adapters import NetworkPrediction
from srk.scores.base import Prediction
from srk.scores.centred import Centred
from srk.scores.guidance import Guided
from srk.scores.hooks import Hooked
from srk.scores.inputs import scale_value
from srk.scores.joint import BoundPrediction
from srk.scores.rewire import rewired
from srk.scores.shared import Answer, Shared

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level

WHAT = "a run whose elements have times of their own"


def assemble(states: Mapping[str, Tensor], indices: Mapping[str, Tensor], axis: int) -> Tensor:
    """The elements of all groups in their order."""
    if len(states) == 1:
        return next(iter(states.values()))
    order = torch.argsort(torch.cat([indices[name] for name in states]))
    return torch.cat(list(states.values()), axis).index_select(axis, order)


class ElementsCall:
    """A network of all elements at their own times; its results by group.

    Arguments:
        adapter: the network.
        process: of all elements.
        axis: along which the elements lie.
        indices: the numbers of the elements of each group.
    """

    def __init__(
        self,
        adapter: NetworkPrediction,
        process: ForwardProcess,
        axis: int,
        indices: Mapping[str, Tensor],
    ) -> None:
        self.adapter, self.process, self.axis, self.indices = adapter, process, axis, indices

    def __call__(
        self, states: Mapping[str, Tensor], levels: Mapping[str, Level]
    ) -> Mapping[str, Any]:
        adapter, axis, inputs, times = self.adapter, self.axis, {}, {}
        states = {name: states[name] for name in self.indices}
        for name, x in states.items():
            scale = scale_value(adapter.input_scale, levels[name])
            inputs[name] = x if scale == 1.0 else x * scale
            t = adapter.time_of(x, levels[name], self.process)
            times[name] = t[:, None].expand(-1, x.shape[axis])
        x = assemble(inputs, self.indices, axis)
        x = x.to(adapter.network_dtype or x.dtype)
        said = adapter.network(x, assemble(times, self.indices, 1), **adapter.model_kwargs)
        checked = adapter._checked(said, assemble(states, self.indices, axis))
        return {name: checked.index_select(axis, index) for name, index in self.indices.items()}


class HookedGroups:
    """Hooks on the denoised prediction of all elements.

    A hook sees the denoised prediction of the whole state, once for each group, with the level of
    that group; what it returns counts for the elements of the group. So hooks that look at other
    elements, or that hold tensors of the shape of the state, mean what they mean in other runs.

    Arguments:
        hooked: the prediction with its hooks.
        inner: that of each group, without hooks.
        processes: of each group.
        axis: along which the elements lie.
        indices: the numbers of the elements of each group.
    """

    def __init__(
        self,
        hooked: Hooked,
        inner: Mapping[str, Prediction],
        processes: Mapping[str, ForwardProcess],
        axis: int,
        indices: Mapping[str, Tensor],
    ) -> None:
        self.hooked, self.inner, self.processes = hooked, inner, processes
        self.axis, self.indices = axis, indices
        self.levels: Mapping[str, Level] = {}
        self._states: Mapping[str, Tensor] = {}
        self._whole: tuple[Tensor, Tensor] | None = None
        self._version = 0

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        """Remember what the next call is about."""
        self._states, self.levels, self._whole = states, levels, None

    def forget(self) -> None:
        """Let go of states and results."""
        self._states, self.levels, self._whole = {}, {}, None

    def denoised(self, name: str) -> Tensor:
        """The denoised prediction of the elements of a group, after all hooks."""
        if self._whole is None:
            said = {
                group: one.denoise(self._states[group], self.levels[group], self.processes[group])
                for group, one in self.inner.items()
            }
            states = {group: self._states[group] for group in self.inner}
            self._whole = (
                assemble(said, self.indices, self.axis),
                assemble(states, self.indices, self.axis),
            )
            self._version = version(self._whole[0])
        if version(self._whole[0]) != self._version:
            raise ScoreError(
                f"a hook of {self.hooked!r} wrote into the denoised prediction that it got in an "
                "earlier call; return a new tensor, e.g. denoised.clamp(-1, 1)"
            )
        made = self.hooked._hooked(*self._whole, self.levels[name])
        return made.index_select(self.axis, self.indices[name]) if len(self.inner) > 1 else made


class HookedGroup(Prediction):
    """The prediction of one group after the hooks; arguments as of `HookedGroups.denoised`."""

    def __init__(self, groups: HookedGroups, name: str) -> None:
        self.groups, self.name = groups, name

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return self.groups.denoised(self.name)

    def calls(self, t: float | None = None) -> int:
        # The hooks need the prediction of every group, each at its level.
        inner, levels = self.groups.inner, self.groups.levels
        if t is None or not levels:
            return inner[self.name].calls(t)
        return max(one.calls(levels[name].t) for name, one in inner.items())


class BoundElements(BoundPrediction):
    """The predictions of all groups in one run.

    Arguments:
        parts: that of each group.
        shared: the networks.
        hooked: where hooks act on the elements of all groups.
        means: the mean of the elements of each group, of a process around a mean.
    """

    def __init__(
        self,
        parts: Mapping[str, Prediction],
        shared: Iterable[Shared],
        hooked: Iterable[HookedGroups] = (),
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(parts, shared)
        self.hooked, self.means = tuple(hooked), means

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        if self.means is not None:  # solvers move the state less the mean
            with ordinary_tensors():
                states = {name: x + self.means[name] for name, x in states.items()}
        for groups in self.hooked:
            groups.ask(states, levels)
        super().ask(states, levels)

    def forget(self) -> None:
        for groups in self.hooked:
            groups.forget()
        super().forget()


def bind_elements(
    prediction: Prediction,
    process: ForwardProcess,
    axis: int,
    indices: Mapping[str, Tensor],
    names: Iterable[str] | None = None,
    like: Tensor | None = None,
) -> BoundElements:
    """A prediction of all elements for each group of them: a network is called once for all.

    Arguments:
        prediction: an adapter, or guidance or hooks of some.
        process: of all elements.
        axis: along which the elements lie.
        indices: the numbers of the elements of each group, which may change between calls where
            `names` are given.
        names: the groups; those of `indices` by default. Hooks are refused with other ones.
        like: a state of all elements, for a process around a mean.

    Raises:
        IncompatibleError: the prediction looks at whole samples of one noise level.
    """
    shared: dict[int, Shared] = {}
    hooked: list[HookedGroups] = []
    own = list(names or indices)
    processes, means = _around(process, axis, indices, like)

    def of(name: str, prediction: Prediction) -> Prediction:
        def change(adapter: NetworkPrediction) -> Prediction:
            call = ElementsCall(adapter, process, axis, indices)
            asked = shared.setdefault(id(adapter), Shared(call))
            title = getattr(adapter.network, "__name__", type(adapter.network).__name__)
            return attrs.evolve(
                adapter,
                network=Answer(asked, name, title),
                model_kwargs={},
                channels="all",
                event_shape=None,
            )

        return rewired(prediction, change, WHAT)

    def each(prediction: Prediction) -> dict[str, Prediction]:
        if isinstance(prediction, Hooked) and names is None:
            inner = each(prediction.prediction)
            groups = HookedGroups(prediction, inner, processes, axis, indices)
            hooked.append(groups)
            return {name: HookedGroup(groups, name) for name in own}
        if isinstance(prediction, Guided) and not prediction.rescale:
            reference = each(prediction.reference)
            conditions = [each(one) for one in prediction.conditions]
            return {
                name: attrs.evolve(
                    prediction,
                    condition=[one[name] for one in conditions],
                    reference=reference[name],
                    batched=False,
                )
                for name in own
            }
        return {name: of(name, prediction) for name in own}

    parts = each(prediction)
    if means is not None:
        around: Any = processes
        parts = {name: Centred(part, around[name]) for name, part in parts.items()}
    return BoundElements(parts, shared.values(), hooked, means)


def _around(
    process: ForwardProcess, axis: int, indices: Mapping[str, Tensor], like: Tensor | None
) -> tuple[dict[str, ForwardProcess], dict[str, Tensor] | None]:
    """The process of each group, and the mean of its elements where there is one."""
    if not isinstance(process, AroundMean) or like is None:
        return dict.fromkeys(indices, process), None
    whole = process.centre(like).expand(like.shape)
    means = {name: whole.index_select(axis, index) for name, index in indices.items()}
    processes: dict[str, ForwardProcess] = {
        name: attrs.evolve(process, mean=mean, windows=())  # type: ignore[misc]
        for name, mean in means.items()
    }
    return processes, means


__all__ = ["BoundElements", "ElementsCall", "assemble", "bind_elements"]
