"""Words of Philox4x64-10: from NumPy, or the same ones from a compiled loop."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
import torch

_WORD = (1 << 64) - 1

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

        function = CppCodeCache.load(
            (Path(__file__).parent / "philox.cpp").read_text(encoding="utf-8")
        ).philox
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
