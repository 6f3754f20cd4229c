"""Predictions for the parts of a product: one network for all of them, or one for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError
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
JointNetwork = Callable[[dict[str, Tensor], dict[str, Tensor]], Mapping[str, Tensor]]


class ProductPrediction(ABC):
    """What is known of the data behind the parts of a noisy state.

    Base of `Joint` and `Independent`.
    """

    @abstractmethod
    def bind(self, product: Product) -> BoundPrediction:
        """The predictions of the parts of `product` for one run.

        Raises:
            ArgumentError: the parts of the product have other names.
        """


class BoundPrediction:
    """The predictions of all parts in one run.

    Arguments:
        parts: the prediction of each part by its name.
    """

    def __init__(self, parts: Mapping[str, Prediction]) -> None:
        self.parts = dict(parts)

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        """What is to be known of all parts at once, before each part is asked for its own.

        Arguments:
            states: the state of each part, (batch, *event).
            levels: the noise level of each part.
        """


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

    def bind(self, product: Product) -> BoundPrediction:
        check_names(self.parts, product.names, "srk.scores.Joint")
        return _BoundJoint(self.network, product, self.parts)

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

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={part!r}" for name, part in self.parts.items())
        return f"Independent({given})"


class _Answer:
    """The network of one part: it gives what the joint network has said of that part."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.value: Any = None

    def __call__(self, x: Tensor, t: Tensor, **kwargs: Any) -> Any:
        value, self.value = self.value, None
        return value


class _BoundJoint(BoundPrediction):
    """A joint network in one run: it is called once, and each part then reads its answer."""

    def __init__(
        self, network: JointNetwork, product: Product, adapters: Mapping[str, Adapter]
    ) -> None:
        self.network, self.product = network, product
        self.answers = {
            name: _Answer(f"part {name!r} of {_name(network)}") for name in product.names
        }
        self.adapters: dict[str, NetworkPrediction] = {}
        for name, answer in self.answers.items():
            made: Any = adapters[name](answer)
            if not isinstance(made, NetworkPrediction) or made.network is not answer:
                raise ArgumentTypeError(
                    f"the function of the part {name!r} returned {shown(made)}; it puts an adapter "
                    f"around the network that it is given, e.g. {name}=lambda network: "
                    "srk.NoisePrediction(network, time='log-snr')"
                )
            if made.model_kwargs:
                raise ArgumentError(
                    f"the adapter of the part {name!r} has model_kwargs, but the network is that "
                    "of all parts; give it the conditions yourself, e.g. "
                    "srk.scores.Joint(lambda x, t: network(x, t, y=labels), ...)"
                )
            self.adapters[name] = made
        super().__init__(self.adapters)

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        inputs: dict[str, Tensor] = {}
        times: dict[str, Tensor] = {}
        for name, adapter in self.adapters.items():
            x, level = states[name], levels[name]
            scale = scale_value(adapter.input_scale, level)
            scaled = x if scale == 1.0 else x * scale
            inputs[name] = scaled.to(adapter.network_dtype or x.dtype)
            times[name] = adapter.time_of(x, level, self.product.parts[name])
        said: Any = self.network(inputs, times)
        if not isinstance(said, Mapping):
            raise ScoreError(
                f"the joint network {_name(self.network)} returned {type(said).__name__}; it must "
                "return a dict with one tensor for each part, "
                f"{', '.join(map(repr, self.product.names))}"
            )
        if set(said) != set(self.product.names):
            raise ScoreError(
                f"the joint network {_name(self.network)} returned the parts "
                f"{', '.join(map(repr, said)) or 'of an empty dict'}; it must return exactly "
                f"{', '.join(map(repr, self.product.names))}"
            )
        for name, answer in self.answers.items():
            answer.value = said[name]


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
