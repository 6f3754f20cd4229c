"""The network of `srk sample` and `srk calibrate`, from a module or a file of weights."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srk.errors import ArgumentError, ArgumentTypeError, ScoreError, SRKError

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

PANEL = "The network"
"""Heading of these options in the help."""

Predicts = Annotated[
    str | None,
    typer.Option(
        help="What the network returns: noise, data, v, flow, score, edm.",
        rich_help_panel=PANEL,
    ),
]
TimeUnit = Annotated[
    str | None,
    typer.Option(
        help="Time that it wants: t, sigma, log-snr, half-log-snr, flow, index, index-rounded.",
        rich_help_panel=PANEL,
    ),
]
TimeScale = Annotated[
    float | None, typer.Option(help="Factor of that time.", rich_help_panel=PANEL)
]
TrainingSteps = Annotated[
    int | None,
    typer.Option(help="Training steps, for the index units.", min=1, rich_help_panel=PANEL),
]
InputScale = Annotated[
    str | None,
    typer.Option(help="Scale of its input: x, u, vp, flow.", rich_help_panel=PANEL),
]
Channels = Annotated[
    str | None,
    typer.Option(help="all, or first-half if it learns the variance too.", rich_help_panel=PANEL),
]
NetworkDtype = Annotated[
    str | None,
    typer.Option(help="Of the network: bfloat16, float16, ...", rich_help_panel=PANEL),
]
Autocast = Annotated[
    str | None, typer.Option(help="dtype of torch.autocast around it.", rich_help_panel=PANEL)
]
ModelClass = Annotated[
    str | None,
    typer.Option(help="package.module:Class that a file of weights is for.", rich_help_panel=PANEL),
]
ModelArgs = Annotated[
    str | None,
    typer.Option(help='Its keyword arguments, JSON: {"width": 64}.', rich_help_panel=PANEL),
]
ModelKey = Annotated[
    str | None,
    typer.Option(help="Entry of the file that holds the weights, e.g. ema.", rich_help_panel=PANEL),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Run the code in a pickled file. Only if you trust it.",
        rich_help_panel=PANEL,
    ),
]


def adapter_options(
    prediction: str | None,
    time: str | None,
    time_scale: float | None,
    num_timesteps: int | None,
    input_scale: str | None,
    channels: str | None,
    network_dtype: str | None,
) -> dict[str, Any]:
    """The options of the adapter that were given, by their names in the library."""
    given = {
        "prediction": prediction,
        "time": time,
        "time_scale": time_scale,
        "num_timesteps": num_timesteps,
        "input_scale": input_scale,
        "channels": channels,
        "network_dtype": dtype_of("--network-dtype", network_dtype),
    }
    return {name: value for name, value in given.items() if value is not None}


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


@contextlib.contextmanager
def errors_of_network() -> Iterator[None]:
    """What the network raises, as an error that names the options by which it is called."""
    try:
        yield
    except SRKError:
        raise
    except Exception as error:  # the network is the user's code
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise ScoreError(
            f"the network raised {type(error).__name__}: {error} ({at.filename}:{at.lineno}); do "
            "--shape, --time, --model-args and --network-dtype suit it?"
        ) from error


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


JSON = {"--process-args": '{"beta_max": 15}', "--model-args": '{"width": 64}'}
"""An example of each option that is JSON."""


def json_object(option: str, text: str | None) -> dict[str, Any]:
    example = f"{option} '{JSON[option]}'"
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{option} is not JSON ({error}); e.g. {example}") from None
    if not isinstance(found, dict):
        raise ArgumentTypeError(
            f"{option} is a JSON object, name -> value, not {text}; e.g. {example}"
        )
    return found


def dtype_of(option: str, text: str | None) -> torch.dtype | None:
    import torch

    if text is None:
        return None
    found = getattr(torch, text, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(
            f"{option} {text} is not a floating-point dtype; e.g. float32, float64, bfloat16"
        )
    return found


def shape_of(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(word) for word in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ArgumentError(
            f"--shape {text} is not positive whole numbers with commas; e.g. --shape 3,32,32"
        )
    return shape


def need_shape(event: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one sample, where it is known."""
    if event is None:
        raise ArgumentError(
            "the network does not say which shape a sample has; give --shape, e.g. --shape 3,32,32"
        )
    return event
