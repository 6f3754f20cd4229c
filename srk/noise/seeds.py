"""What a seed is: any integer, for every source alike."""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from typing import Any

from srk._checks import integer, need

_PASSED = 1 << 32


def check_seed(seed: Any) -> int:
    """The seed as an int; a new one from the operating system for None.

    Arguments:
        seed: an integer of any size and sign (an int, a NumPy integer, an integer tensor without
            axes), or None.

    Raises:
        ArgumentTypeError: it is none of these.

    Examples:
        >>> import numpy as np
        >>> check_seed(np.int64(7))
        7
    """
    if seed is None:
        return secrets.randbits(62)
    return integer(seed, "seed", kind="an int or None")


def part_seed(seed: int, name: str) -> int:
    """The seed of the part `name` of a product whose run has the seed `seed`.

    It depends on both alone, so that a part draws the same numbers whatever other parts there are,
    and parts of different names draw independent ones.

    Arguments:
        seed: the seed of the run, any integer.
        name: the name of the part.

    Returns:
        An integer from 0 to 2^63 - 1, for any noise source.

    Examples:
        >>> part_seed(0, "a") == part_seed(0, "a"), part_seed(0, "a") == part_seed(0, "b")
        (True, False)
    """
    need(name, str, "name", "the name of a part, a str")
    return _part_seed(check_seed(seed), name)


@lru_cache(maxsize=256)
def _part_seed(seed: int, name: str) -> int:
    told = b"%d:" % seed + name.encode()
    digest = hashlib.blake2b(told, digest_size=8, person=b"srk part").digest()
    return int.from_bytes(digest, "little") >> 1


def generator_seed(seed: int) -> int:
    """The seed that PyTorch's generator gets for `seed`.

    Seeds from 0 to 2^32 - 1 are passed as they are. All others are hashed to 64 bits, for PyTorch
    would confuse them: on the CPU it reads the lower 32 bits alone, so that 2^32 would give the
    samples of 0, it takes -1 for 2^64 - 1, and it refuses 2^64.

    Examples:
        >>> generator_seed(7)
        7
        >>> generator_seed(-1) == generator_seed(2**64 - 1)
        False
    """
    if 0 <= seed < _PASSED:
        return seed
    digest = hashlib.blake2b(b"%d" % seed, digest_size=8, person=b"srk seed").digest()
    return int.from_bytes(digest, "little")
