"""One call of a network for several parts of a run, made when the first of them needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srk.scores import conventions
from srk.scores.inputs import scale_value
from srk.scores.network_prediction import NetworkPrediction

if TYPE_CHECKING:
    from srk.processes.level import Level

Call = Callable[[Mapping[str, Tensor], Mapping[str, "Level"]], Mapping[str, Any]]


class Shared:
    """A network that is called once for all parts, if any of them asks.

    Arguments:
        call: the network with the states and levels of all parts; its results by part.

    Attributes:
        copies: whether to copy the results, since another network is called before all are read.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.copies = False
        self._asked: tuple[Mapping[str, Tensor], Mapping[str, Level]] | None = None
        self._said: Mapping[str, Any] | None = None

    def prepare(self, levels: Mapping[str, Sequence[Level]], states: Mapping[str, Tensor]) -> None:
        """Let the network make ready what it needs at these levels, if it can."""
        make = getattr(self.call, "prepare", None)
        if make is not None:
            make(levels, states)

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        """Remember what the next call is about."""
        self._asked, self._said = (states, levels), None

    def forget(self) -> None:
        """Let go of states and results."""
        self._asked = self._said = None

    def answer(self, name: str) -> Any:
        """What the network says of a part."""
        said = self._said
        if said is None:
            assert self._asked is not None
            # The states belong to the parts again when the network has answered.
            asked, self._asked = self._asked, None
            said = self.call(*asked)
            if self.copies and isinstance(said, Mapping):
                said = {
                    part: value.clone() if isinstance(value, Tensor) else value
                    for part, value in said.items()
                }
            self._said = said
        return said[name]


class Answer:
    """The network of one part: it gives what the shared one has said of that part.

    Arguments:
        shared: the network of all parts.
        name: the part.
        title: what messages call it.
    """

    def __init__(self, shared: Shared, name: str, title: str) -> None:
        self.shared, self.name, self.__name__ = shared, name, title

    def __call__(self, x: Tensor, t: Tensor, **kwargs: Any) -> Any:
        return self.shared.answer(self.name)


def heard(
    adapter: NetworkPrediction, levels: Sequence[Level], like: Tensor
) -> Callable[[Tensor, int], Tensor] | None:
    """What `adapter.outputs` gives where its network is an `Answer`, else None.

    An answer is there whatever input and time it is asked with, so that nothing makes them.

    Arguments:
        adapter: the adapter of a part.
        levels: where it will be asked, in order.
        like: a state of the shape, dtype and device of those to come.
    """
    network = adapter.network
    if not isinstance(network, Answer) or adapter._asks_in_its_own_way("output"):
        return None
    answer, name = network.shared.answer, network.name
    watched = levels if conventions.current() is not None else ()  # else nobody asks for scales
    scales = [scale_value(adapter.input_scale, level) for level in watched]
    listen = adapter._listener(levels, like, scales, network)

    def output(x: Tensor, number: int) -> Tensor:
        return listen(answer(name), x, number)

    return output
