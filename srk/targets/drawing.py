"""Where the draws of a target come from: generator or seed, dtype and device."""

from __future__ import annotations

from typing import Any

import torch

from srk.errors import ArgumentError


def draw_options(
    generator: torch.Generator | None,
    seed: int | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> dict[str, Any]:
    """The arguments `generator`, `dtype` and `device` of PyTorch's random functions.

    Arguments:
        generator: where the randomness comes from; its device is the default device.
        seed: makes a generator of its own; alternative to `generator`. Without either, PyTorch's
            global generator is used.
        dtype: default torch.get_default_dtype().
        device: default PyTorch's default device.

    Raises:
        ArgumentError: both a generator and a seed are given.
    """
    if generator is not None and seed is not None:
        raise ArgumentError(f"generator and seed = {seed!r} are alternatives; give one of them")
    if device is not None:
        where = torch.device(device)
    else:
        # torch.get_default_device() of torch 2.4 does not see `with torch.device(...)`
        where = torch.empty(0).device if generator is None else generator.device
    if seed is not None:
        generator = torch.Generator(where).manual_seed(seed)
    return {"generator": generator, "dtype": dtype or torch.get_default_dtype(), "device": where}
