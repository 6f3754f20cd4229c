"""Predictions for the parts of a product: one network for all of them, or one for each."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srk._checks import shown
from srk._modes import changed_in_place, version
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError
from srk.processes.around_mean import AroundMean
from srk.processes.product import Product, check_names
from srk.scores.adapters import (
    Data,
    EDMDenoiser,
    FlowVelocity,
    NetworkPrediction,
    NoisePrediction,
    Score,
    Velocity,
    as_prediction,
)
from srk.scores.base import Prediction
from srk.scores.inputs import scale_value
from srk.scores.shared import Answer, Shared

if TYPE_CHECKING:
    from srk.processes.base import Level

KINDS: dict[str, type[NetworkPrediction]] = {
    "score": Score,
    "noise": NoisePrediction,
    "data": Data,
    "velocity": Velocity,
    "flow-velocity": FlowVelocity,
    "edm": EDMDenoiser,
}
"""The adapter of a part by what the network says of it."""

Adapter = Callable[[Callable[..., Tensor]], NetworkPrediction]
JointNetwork = Callable[..., Mapping[str, Tensor]]


class ProductPrediction(ABC):
    """What is known of the data behind the parts of a noisy state.

    Base of `Joint`, `JointGuided` and `Independent`.
    """

    @abstractmethod
    def bind(self, product: Product) -> BoundPrediction:
        """The predictions of the parts of `product` for one run.

        Raises:
            ArgumentError: the parts of the product have other names.
        """

    def select(self, rows: slice | Tensor, batch: int) -> ProductPrediction:
        """The prediction for some samples of a batch; the default is itself.

        Arguments:
            rows: which samples, a slice or their numbers.
            batch: size of the whole batch.
        """
        return self


class BoundPrediction:
    """The predictions of all parts in one run.

    Arguments:
        parts: the prediction of each part by its name.
        shared: networks that are called once for all parts.

    Attributes:
        several: whether more than one network is called for a step of all parts. A result must
            then be copied before the next call, which may write to its memory.
    """

    def __init__(self, parts: Mapping[str, Prediction], shared: Iterable[Shared] = ()) -> None:
        self.parts, self.shared = dict(parts), tuple(shared)
        self.several = len(self.shared) > 1 or (not self.shared and len(self.parts) > 1)
        for network in self.shared:
            network.copies = self.several

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        """What is to be known of all parts at once, before each part is asked for its own.

        Arguments:
            states: the state of each part, (batch, *event).
            levels: the noise level of each part.
        """
        for shared in self.shared:
            shared.ask(states, levels)

    def prepare(self, levels: Mapping[str, Sequence[Level]], states: Mapping[str, Tensor]) -> None:
        """Make ready what a run needs at the levels of its parts, for states like these.

        Arguments:
            levels: where each part will be asked.
            states: the state of each part.
        """
        for shared in self.shared:
            shared.prepare(levels, states)

    def forget(self) -> None:
        """All parts have been asked: let go of their states."""
        for shared in self.shared:
            shared.forget()


class Joint(ProductPrediction):
    """One network for all parts of a product: it takes and returns dicts.

    Each evaluation of a solver is one call `network(x, t)`. `x` is a dict of tensors (batch,
    *event) and `t` a dict of (batch,) tensors, both with the names of the parts; `t` is the own
    time of each part's process. The network returns a dict with one tensor for each part, of the
    shape of that part.

    Arguments:
        network: callable (x, t) -> dict.
        parts: what the network says of each part, as keywords: "score", "noise", "data",
            "velocity", "flow-velocity" or "edm"; or a function that puts an adapter with options
            around the part, e.g. `lambda network: srk.NoisePrediction(network, time="log-snr")`.

    Raises:
        ArgumentError: no part is given, or a part's word is unknown.
        ArgumentTypeError: the network cannot be called, or a part is neither a word nor a function.
        ScoreError: on a call, when the network returns something else than one tensor for each
            part.

    Examples:
        >>> import srk, torch
        >>> def network(x, t):  # the data of both parts are zero
        ...     return {"a": 0 * x["a"], "b": x["b"] / t["b"][:, None]}
        >>> score = srk.scores.Joint(network, a="data", b="noise")
        >>> product = srk.Product(a=srk.VP(), b=srk.EDM())
        >>> shape = {"a": (4, 3), "b": (4, 2)}
        >>> sol = srk.solve(product, score, "ddpm", shape=shape, nfe=20, seed=0)
        >>> sol.nfe, sol.x["b"].shape, bool((sol.x["b"].abs() < 1e-6).all())
        (20, torch.Size([4, 2]), True)
    """

    def __init__(self, network: JointNetwork, /, **parts: str | Adapter) -> None:
        given: Any = network
        if isinstance(given, type) or not callable(given):
            raise ArgumentTypeError(
                f"a joint network is a callable (x, t) -> dict, not {shown(network)}; e.g. "
                "srk.scores.Joint(network, a='data', b='noise')"
            )
        if not parts:
            raise ArgumentError(
                "say what the network returns for each part of the product; e.g. "
                "srk.scores.Joint(network, a='data', b='noise')"
            )
        self.network = network
        self.parts = {name: _adapter(name, part) for name, part in parts.items()}
        self.conditions: dict[str, Any] = {}

    def given(self, **conditions: Any) -> Joint:
        """The same network with these conditions, which it gets as keyword arguments.

        Tensors whose first axis is the batch are cut where the batch is (`microbatch`).

        Examples:
            >>> import srk, torch
            >>> def network(x, t, label):
            ...     return {"a": 0 * x["a"] + label[:, None]}
            >>> score = srk.scores.Joint(network, a="data").given(label=torch.tensor([1.0, 2.0]))
            >>> product = srk.Product(a=srk.Flow(t_min=0.0))
            >>> srk.solve(product, score, shape={"a": (2, 1)}, steps=3, seed=0).x["a"].tolist()
            [[1.0], [2.0]]
        """
        made = copy.copy(self)
        made.conditions = {**self.conditions, **conditions}
        return made

    def bind(self, product: Product) -> BoundPrediction:
        check_names(self.parts, product.names, "srk.scores.Joint")
        call = _JointCall(self.network, product, self.conditions)
        shared = Shared(call)
        for name in product.names:
            answer = Answer(shared, name, f"part {name!r} of {_name(self.network)}")
            made: Any = self.parts[name](answer)
            if not isinstance(made, NetworkPrediction) or made.network is not answer:
                raise ArgumentTypeError(
                    f"the function of the part {name!r} returned {shown(made)}; it puts an adapter "
                    f"around the network that it is given, e.g. {name}=lambda network: "
                    "srk.NoisePrediction(network, time='log-snr')"
                )
            if made.model_kwargs:
                raise ArgumentError(
                    f"the adapter of the part {name!r} has model_kwargs, but the network is that "
                    "of all parts; give it the conditions, e.g. "
                    "srk.scores.Joint(network, ...).given(y=labels)"
                )
            call.adapters[name] = made
        return BoundPrediction(call.adapters, [shared])

    def select(self, rows: slice | Tensor, batch: int) -> Joint:
        """The same network with the conditions of these samples."""
        cut = {
            name: value[rows]
            for name, value in self.conditions.items()
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
        }
        return self.given(**cut) if cut else self

    def __repr__(self) -> str:
        return f"Joint({_name(self.network)}, {', '.join(self.parts)})"


class Independent(ProductPrediction):
    """Parts that know nothing of each other: a prediction for each.

    A run is then what separate runs of the parts are, in one call. An evaluation counts as many
    network calls as the part that makes most of them.

    Arguments:
        parts: the prediction of each part, as keywords: an adapter, the exact score of a target, or
            a callable (x, t) -> score.

    Raises:
        ArgumentError: no part is given.
        ArgumentTypeError: a part is not a prediction.

    Examples:
        >>> import srk
        >>> product = srk.Product(a=srk.VP(), b=srk.EDM())
        >>> target = srk.targets.Gaussian(0.5, 0.04)
        >>> exact = {name: target.score(part) for name, part in product.parts.items()}
        >>> score = srk.scores.Independent(**exact)
        >>> srk.solve(product, score, shape={"a": (4, 1), "b": (4, 1)}, nfe=20, seed=0).nfe
        20
    """

    def __init__(self, /, **parts: Prediction | Callable[..., Tensor]) -> None:
        if not parts:
            raise ArgumentError(
                "give a prediction for each part of the product; e.g. "
                "srk.scores.Independent(a=srk.Data(network), b=srk.NoisePrediction(other))"
            )
        self.parts = {name: as_prediction(part) for name, part in parts.items()}

    def bind(self, product: Product) -> BoundPrediction:
        check_names(self.parts, product.names, "srk.scores.Independent")
        return BoundPrediction({name: self.parts[name] for name in product.names})

    def select(self, rows: slice | Tensor, batch: int) -> Independent:
        """The same for some samples of a batch."""
        return Independent(**{name: part.select(rows, batch) for name, part in self.parts.items()})

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={part!r}" for name, part in self.parts.items())
        return f"Independent({given})"


class _JointCall:
    """A joint network with the inputs and times that its adapters want."""

    def __init__(
        self, network: JointNetwork, product: Product, conditions: Mapping[str, Any]
    ) -> None:
        self.network, self.product, self.conditions = network, product, conditions
        self.adapters: dict[str, NetworkPrediction] = {}
        self._around = {
            name: process
            for name, process in product.parts.items()
            if isinstance(process, AroundMean)
        }
        self._known: dict[str, dict[int, tuple[Level, Tensor, float]]] = {}
        self._coming: list[tuple[tuple[Level, ...], tuple[Tensor, ...]]] = []
        """The levels and times of the calls that are likely to come, the next one last."""

    def prepare(self, levels: Mapping[str, Sequence[Level]], states: Mapping[str, Tensor]) -> None:
        """The times and scales at these levels, made at once."""
        self._known, self._coming = {}, []
        for name, around in self._around.items():
            self._around[name] = around.placed(states[name])
        made: list[Sequence[Tensor]] = []
        plain = True  # the network sees the states as they are
        for name, adapter in self.adapters.items():
            times = adapter._times(levels[name], states[name], self.product.parts[name])
            made.append(times or ())
            plain = plain and adapter.input_scale == "x" and adapter.network_dtype is None
        names = self.adapters
        if plain and len({*map(len, made), *(len(levels[name]) for name in names)}) == 1:
            rows = zip(*[levels[name] for name in names], strict=True)
            self._coming = [*zip(rows, zip(*made, strict=True), strict=True)][::-1]
            return
        for (name, adapter), ready in zip(names.items(), made, strict=True):
            scales = [scale_value(adapter.input_scale, level) for level in levels[name]]
            known = zip(levels[name], ready, scales, strict=False)  # none without times
            self._known[name] = {id(level): (level, t, scale) for level, t, scale in known}

    def __call__(
        self, states: Mapping[str, Tensor], levels: Mapping[str, Level]
    ) -> Mapping[str, Any]:
        if self._around:
            shown = {**states}
            for name, around in self._around.items():
                shown[name] = around.visible(states[name])
            before = {name: version(shown[name]) for name in self._around}
            said = self._ask(shown, levels)
            if any(version(shown[name]) != known for name, known in before.items()):
                raise changed_in_place()
            return said
        return self._ask(states, levels)

    def _ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> Mapping[str, Any]:
        coming, asked = self._coming, tuple(levels.values())
        while coming:
            known, ready = coming.pop()
            if known == asked:
                # The network may keep the dicts, and gets others in the next call.
                inputs, times = {**states}, dict(zip(self.adapters, ready, strict=True))
                break
        else:
            inputs, times = self._inputs(states, levels)
        said: Any = self.network(inputs, times, **self.conditions)
        if said.__class__ is not dict and not isinstance(said, Mapping):
            raise ScoreError(
                f"the joint network {_name(self.network)} returned {type(said).__name__}; it must "
                "return a dict with one tensor for each part, "
                f"{', '.join(map(repr, self.product.names))}"
            )
        if said.keys() != self.adapters.keys():
            raise ScoreError(
                f"the joint network {_name(self.network)} returned the parts "
                f"{', '.join(map(repr, said)) or 'of an empty dict'}; it must return exactly "
                f"{', '.join(map(repr, self.product.names))}"
            )
        return said

    def _inputs(
        self, states: Mapping[str, Tensor], levels: Mapping[str, Level]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the network gets: the states and times as the adapters want them."""
        inputs: dict[str, Tensor] = {}
        times: dict[str, Tensor] = {}
        ready = self._known
        for name, adapter in self.adapters.items():
            x, level = states[name], levels[name]
            known = ready[name].get(id(level)) if ready else None
            if known is None:
                scale = scale_value(adapter.input_scale, level)
                times[name] = adapter.time_of(x, level, self.product.parts[name])
            else:
                _, times[name], scale = known
            if scale != 1.0:
                x = x * scale
            wanted = adapter.network_dtype
            inputs[name] = x if wanted is None else x.to(wanted)
        return inputs, times


def _adapter(name: str, part: Any) -> Adapter:
    if isinstance(part, str):
        if part not in KINDS:
            raise ArgumentError(
                f"{name}={part!r} is not what a network says of a part; use one of "
                f"{', '.join(map(repr, KINDS))}, or a function that puts an adapter around it"
            )
        return KINDS[part]
    if not callable(part) or isinstance(part, Prediction):
        raise ArgumentTypeError(
            f"what the network says of the part {name!r} is one of {', '.join(map(repr, KINDS))}, "
            "or a function that puts an adapter around the part, e.g. "
            f"{name}=lambda network: srk.NoisePrediction(network, time='log-snr'), not "
            f"{shown(part)}"
        )
    made: Adapter = part
    return made


def _name(network: object) -> str:
    return getattr(network, "__name__", type(network).__name__)
