"""The network of `srk sample` and `srk calibrate`, from a module or a file of weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srk.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from srk.scores import Prediction

PREDICTIONS = {
    "noise": "NoisePrediction",
    "data": "Data",
    "v": "Velocity",
    "flow": "FlowVelocity",
    "score": "Score",
    "edm": "EDMDenoiser",
}
"""What a network returns -> its adapter."""


def network_of(
    model: str | None,
    options: dict[str, Any],
    event: tuple[int, ...] | None,
    place: torch.device,
    cls: str | None,
    arguments: dict[str, Any] | None,
    key: str | None,
    trust_pickle: bool,
) -> Prediction:
    """The network, on its device, in the adapter that says what it returns."""
    from torch import nn

    import srk
    from srk.scores import Prediction
    from srk.storage.networks import load_network

    if model is None:
        raise ArgumentError(
            "say what to sample: --model package.module:attribute, --model weights.safetensors, or "
            "--target digits to try it"
        )
    here = str(Path.cwd())
    if here not in sys.path:  # python -m has it there, the installed command has not
        sys.path.append(here)  # behind what is installed: a file beside the weights is no library
    network = load_network(model, cls=cls, arguments=arguments, key=key, trust_pickle=trust_pickle)
    if isinstance(network, Prediction):
        if options:
            raise ArgumentError(
                f"{model!r} is {network!r}, which says what it returns; leave out "
                f"{', '.join(map(option, options))}"
            )
        inner = getattr(network, "network", None)
        if isinstance(inner, nn.Module):
            inner.to(place).eval()
        return network
    kind = options.pop("prediction", None)
    if kind not in PREDICTIONS:
        said = "" if kind is None else f", not {kind!r}"
        raise ArgumentError(
            f"say what the network returns: --prediction {', '.join(PREDICTIONS)}{said}"
        )
    if isinstance(network, nn.Module):
        network.to(place, options.get("network_dtype"))
    made: Prediction = getattr(srk, PREDICTIONS[kind])(network, event_shape=event, **options)
    return made


def option(name: str) -> str:
    return "--" + name.replace("_", "-")
