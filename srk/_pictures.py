"""Samples as a picture: a grid of images, pixel by pixel."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srk.errors import ArgumentError, MissingExtraError

LARGEST = 64
"""Images in a grid."""


def is_image(event: tuple[int, ...]) -> bool:
    """Whether samples of this shape are images: (h, w), (1, h, w) or (3, h, w)."""
    return len(event) == 2 or (len(event) == 3 and event[0] in (1, 3))


def image_grid(
    images: Tensor, path: str | os.PathLike[str], *, low: float = -1.0, high: float = 1.0
) -> None:
    """Write the first 64 images as a PNG.

    They stand in rows from the top left, with a frame of one pixel. Small images are enlarged by a
    whole factor.

    Arguments:
        images: shape (n, h, w), (n, 1, h, w) or (n, 3, h, w).
        low, high: values shown as black and white; values beyond are clipped.

    Raises:
        ArgumentError: another shape, or an empty range.
        MissingExtraError: Pillow is not installed.
    """
    sheet = image_sheet(images, low=low, high=high)
    pillow("a picture of samples").fromarray(sheet).save(Path(path), format="PNG")


def image_sheet(images: Tensor, *, low: float = -1.0, high: float = 1.0) -> np.ndarray[Any, Any]:
    """The pixels of the picture that `image_grid` writes, uint8, (height, width) or (..., 3)."""
    check_images(tuple(images.shape[1:]))
    if not low < high:
        raise ArgumentError(
            f"the range of values must increase, not {low!r} to {high!r}; e.g. -1 to 1"
        )
    x = images[:LARGEST].detach().float().cpu()
    x = x[:, None] if x.ndim == 3 else x
    factor = max(1, 32 // max(x.shape[-2:]))
    x = x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    pixels = ((x - low) / (high - low)).clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    count, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(count))
    sheet = torch.full(
        (channels, math.ceil(count / columns) * (height + 1) + 1, columns * (width + 1) + 1),
        255,
        dtype=torch.uint8,
    )
    for i, pixel in enumerate(pixels):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        sheet[:, top : top + height, left : left + width] = pixel
    found: np.ndarray[Any, Any] = (
        (sheet[0] if channels == 1 else sheet.permute(1, 2, 0)).contiguous().numpy()
    )
    return found


def image_of(sample: Tensor, *, low: float = -1.0, high: float = 1.0) -> Any:
    """One image as a `PIL.Image`.

    Arguments:
        sample: shape (h, w), (1, h, w) or (3, h, w).
        low, high: values shown as black and white; values beyond are clipped.
    """
    check_images(tuple(sample.shape))
    x = sample.detach().float().cpu()
    pixels = ((x - low) / (high - low)).clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)
    return pillow("a picture of samples").fromarray(pixels.contiguous().numpy())


def check_images(event: tuple[int, ...]) -> None:
    """Raise `ArgumentError` unless samples of this shape are images."""
    if not is_image(event):
        raise ArgumentError(
            f"samples of shape {event} are not images, which are (h, w), (1, h, w) or (3, h, w)"
        )


def pillow(what: str) -> Any:
    """`PIL.Image`, or `MissingExtraError` that says `what` needs it."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(what, "pillow", "plot") from None
    return Image


__all__ = ["check_images", "image_grid", "image_of", "image_sheet", "is_image", "pillow"]
