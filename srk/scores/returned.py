"""What a network returns: checked, halved where asked, in the dtype of the state."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from srk.errors import ScoreError


class Options(Protocol):
    """An adapter, as far as its options say what its network may return."""

    @property
    def channels(self) -> Any: ...
    @property
    def network_dtype(self) -> torch.dtype | None: ...


def checked_output(adapter: Options, out: object, x: Tensor) -> Tensor:
    """What the network of an adapter returned for the state `x`, in the dtype of the state.

    Raises:
        ScoreError: it is no tensor, or has another shape, device or dtype than it may have.
    """
    if not isinstance(out, Tensor):
        hint = (
            ".sample"
            if isinstance(getattr(out, "sample", None), Tensor)
            else "[0]"
            if isinstance(out, (tuple, list))
            else ""
        )
        cure = (
            f"; e.g. srk.{type(adapter).__name__}(lambda x, t: network(x, t){hint})" if hint else ""
        )
        raise ScoreError(
            f"the network of {adapter!r} returned {type(out).__name__}, not a tensor of the "
            f"state's shape {tuple(x.shape)}{cure}"
        )
    if adapter.channels == "first-half":
        if out.ndim < 2 or out.shape[1] % 2:
            raise ScoreError(
                f"the network of {adapter!r} returned shape {tuple(out.shape)}, whose channels "
                "(dim 1) cannot be halved; use channels='all'"
            )
        out = out[:, : out.shape[1] // 2]
    if out.shape != x.shape:
        raise ScoreError(_shape_message(adapter, tuple(out.shape), tuple(x.shape)))
    if out.device != x.device:
        raise ScoreError(
            f"the network of {adapter!r} returned a tensor on {out.device} for a state on "
            f"{x.device}; move the network, or pass device={str(out.device)!r} to srk.solve"
        )
    if out.dtype != x.dtype:
        if not out.dtype.is_floating_point:
            raise ScoreError(
                f"the network of {adapter!r} returned {out.dtype} for a state of {x.dtype}; it "
                "must return real floating-point numbers"
            )
        if adapter.network_dtype is None and not torch.is_autocast_enabled(x.device.type):
            raise ScoreError(
                f"the network of {adapter!r} returned {out.dtype} for a state of {x.dtype}; if "
                f"it works in {out.dtype}, say so: "
                f"srk.{type(adapter).__name__}(network, network_dtype={out.dtype}) casts its "
                "input there and its output back"
            )
        out = out.to(x.dtype)
    return out


def _shape_message(adapter: Options, out: tuple[int, ...], x: tuple[int, ...]) -> str:
    message = f"the network of {adapter!r} returned shape {out} for a state of shape {x}"
    name = type(adapter).__name__
    if len(out) == len(x) >= 2 and out == (x[0], 2 * x[1], *x[2:]):
        return (
            f"{message}: twice the channels, as when it also learns the variance; use "
            f"srk.{name}(network, channels='first-half')"
        )
    if len(out) < len(x):
        return (
            f"{message}: axes are missing; return one number for every number of the state, "
            "e.g. by keepdim=True or unsqueeze"
        )
    return (
        f"{message}; it must return one number for every number of the state: check the "
        "`shape` of the run and that of the network"
    )
