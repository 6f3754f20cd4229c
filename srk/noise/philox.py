"""Words of Philox4x64-10, which are those of NumPy wherever they are made.

They come from NumPy itself, from a compiled loop on the CPU, or from integer operations of PyTorch
on any device.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
import torch

from srk._modes import denormals_kept

_WORD = (1 << 64) - 1

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF

Key = tuple[int, int]
"""The two words of a key, as int64 holds them."""

Stretch = tuple[bytes, int, int]
"""Blocks of four words that follow each other in one stream.

The key (128 bits, little-endian), the counter before the first block, the number of blocks.
"""


class Reference:
    """`numpy.random.Philox`, set to one stretch after the other.

    Called with stretches, it gives their words in a row, int32 of shape (8 * blocks,).
    """

    def __init__(self) -> None:
        self._generator = np.random.Philox(key=0)  # takes longer to make than to set

    def __call__(self, stretches: Sequence[Stretch]) -> torch.Tensor:
        words = [self._words(*stretch) for stretch in stretches]
        return torch.from_numpy(
            (words[0] if len(words) == 1 else np.concatenate(words)).view(np.int32)
        )

    def _words(self, key: bytes, counter: int, blocks: int) -> np.ndarray:
        self._generator.state = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.array(
                    [(counter >> 64 * i) & _WORD for i in range(4)], dtype=np.uint64
                ),
                "key": np.frombuffer(key, dtype="<u8").astype(np.uint64),
            },
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        words: np.ndarray = self._generator.random_raw(4 * blocks)
        return words


@cache
def compiled() -> Callable[[Sequence[Stretch]], torch.Tensor] | None:
    """The same as a loop in C++ (philox.cpp); None where it cannot be compiled.

    It is built once, with TorchInductor's compiler into TorchInductor's cache.
    """
    try:
        from torch._inductor.codecache import CppCodeCache  # seconds to import

        text = (Path(__file__).parent / "philox.cpp").read_text(encoding="utf-8")
        with denormals_kept():
            function = CppCodeCache.load(text).philox
    except Exception:  # whatever is missing, NumPy has the same words
        return None

    def loop(stretches: Sequence[Stretch]) -> torch.Tensor:
        # The loop writes to this memory itself, so it must lie on the CPU whatever the default is
        out = torch.empty(
            8 * sum(blocks for _, _, blocks in stretches), dtype=torch.int32, device="cpu"
        )
        table = b"".join(
            struct.pack(
                "=5Q",
                *struct.unpack("<2Q", key),
                (counter + 1) & _WORD,
                (counter + 1) >> 64,
                blocks,
            )
            for key, counter, blocks in stretches
        )
        function(c_int64(len(stretches)), table, c_void_p(out.data_ptr()), torch.get_num_threads())
        return out

    return loop


def signed(word: int) -> int:
    """The lowest 64 bits of an integer as PyTorch's int64 holds them."""
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def on_device(keys: torch.Tensor | Key, counters: torch.Tensor, blocks: int) -> torch.Tensor:
    """The words of a draw by integer operations alone, on the device of `counters`.

    Arguments:
        keys: the key of all samples as two numbers, or a tensor with the key of each sample or of
            all of them, int64 of shape (batch or 1, 2).
        counters: the counter of each sample's first block, int64 of shape (batch, 2), the lower
            word first.
        blocks: how many blocks of eight words each sample takes.

    Returns:
        int32 of shape (batch, 8 * blocks).
    """
    first = counters[:, :1]
    c0 = first + torch.arange(blocks, device=counters.device)
    # The lower word has overflowed where it is below its start; flipping the sign compares int64
    # as the unsigned numbers that they stand for.
    flip = -(1 << 63)
    c1 = counters[:, 1:] + ((c0 ^ flip) < (first ^ flip)).to(torch.int64)
    c2 = c3 = torch.zeros_like(c0)
    k0: torch.Tensor | int
    k1: torch.Tensor | int
    k0, k1 = keys if isinstance(keys, tuple) else (keys[:, :1], keys[:, 1:])
    m0, m1 = _MULTIPLIERS
    for _ in range(10):
        p, upper_p = c0 * signed(m0), _upper(c0, m0)
        q, upper_q = c2 * signed(m1), _upper(c2, m1)
        c0, c1, c2, c3 = upper_q ^ c1 ^ k0, q, upper_p ^ c3 ^ k1, p
        k0, k1 = _next(k0, _WEYL[0]), _next(k1, _WEYL[1])
    words = torch.stack([c0, c1, c2, c3], -1)
    return words.view(torch.int32).view(counters.shape[0], 8 * blocks)


def _next(key: torch.Tensor | int, weyl: int) -> torch.Tensor | int:
    return signed(key + weyl) if isinstance(key, int) else key + signed(weyl)


def _upper(x: torch.Tensor, m: int) -> torch.Tensor:
    """The upper 64 bits of the unsigned product x m, from products of 32-bit halves."""
    x0, x1, m0, m1 = x & _LOW, (x >> 32) & _LOW, m & _LOW, m >> 32
    a = x1 * m0 + ((x0 * m0 >> 32) & _LOW)
    b = x0 * m1 + (a & _LOW)
    return x1 * m1 + ((a >> 32) & _LOW) + ((b >> 32) & _LOW)
