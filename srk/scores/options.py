"""The options of adapters: what each may be, and the message where it is something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from srk._checks import integer, real, shown
from srk.errors import ArgumentTypeError


def event_shape_of(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    given = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ArgumentTypeError(
            f"event_shape is the shape of one sample, not {shown(value)}; e.g. (3, 32, 32)"
        )
    return tuple(integer(size, "a size in event_shape", least=1) for size in given)


def check_network(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, type) or not callable(value):
        raise ArgumentTypeError(
            f"a network is a callable (x, t) -> Tensor, not {value!r}; e.g. "
            f"srk.{type(instance).__name__}(lambda x, t: -x)"
        )


def training_steps(value: Any) -> int | None:
    """The number of training steps, or None."""
    cure = "it is the number of training steps, e.g. num_timesteps=1000"
    return None if value is None else integer(value, "num_timesteps", least=1, cure=cure)


def time_factor(value: Any) -> float:
    """The factor of the time that a network gets."""
    return real(value, "time_scale", cure="it is the factor of the time, e.g. time_scale=1000.0")


def check_kwargs(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ArgumentTypeError(
            "model_kwargs is a mapping from names to values, the keyword arguments of the network, "
            f"not {shown(value)}; e.g. model_kwargs={{'y': labels}}"
        )


def check_dtype(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise ArgumentTypeError(
            f"network_dtype is a floating-point torch.dtype, not {value!r}; e.g. "
            "network_dtype=torch.bfloat16"
        )


def shown_options(adapter: Any) -> list[str]:
    """The options of an adapter that are not the default, as its repr shows them; `model_kwargs`,
    which may hold tensors, is left out.
    """
    return [
        f"{field.name}={value!r}"
        for field in attrs.fields(type(adapter))[1:]
        if not _is_default(field, value := getattr(adapter, field.name))
    ]


def _is_default(field: attrs.Attribute[Any], value: Any) -> bool:
    return (
        field.name == "model_kwargs"
        or value is field.default
        or (isinstance(value, (str, float)) and value == field.default)
    )
