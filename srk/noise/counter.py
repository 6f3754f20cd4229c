r"""Unit normals that are a function of (seed, sample, name of the draw).

They are Philox bits, mapped by Box and Muller.

The 128-bit key of NumPy's `Philox` (4 x 64 bits, 10 rounds; Salmon et al. 2011) is a hash of the
seed and of the draw's name. Its counter is the number of the sample times the blocks of eight
normals that a sample needs. So a batch of consecutive samples is one consecutive stretch of one
stream, and a sample's numbers do not know which batch they are drawn in. The bits are the same on
every machine.

On the CPU the bits come from NumPy or from a compiled loop. On any other device they are made
there, so that a draw sends nothing but its key: by a Triton kernel where Triton is installed, else
by integer operations of PyTorch.

The bits become normals in float32, whatever the dtype of the state is: 31 bits of radius, 32 of
angle. Another dtype is a cast of the same numbers. Another device rounds the logarithm and the
cosine in its own way, which changes a few units in the last place.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from srk._checks import integer, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.noise import philox
from srk.noise.seeds import check_seed

Name = tuple[str | float, ...]
"""What a draw is called."""


def draw_key(seed: int, *name: str | float) -> bytes:
    """128 bits that identify a draw: a BLAKE2 hash of the seed and of the draw's name.

    Arguments:
        seed: any integer.
        name: the strings and float64 numbers that name the draw.
    """
    h = hashlib.blake2b(b"%d" % seed, digest_size=16, person=b"srk noise")
    for part in name:
        # + 0.0 makes -0.0 and 0.0 one
        h.update(
            b"\0s" + part.encode()
            if isinstance(part, str)
            else b"\0f" + struct.pack("<d", part + 0.0)
        )
    return h.digest()


class SampleNormals:
    """Unit normals for a batch of samples, each a function of (seed, sample index, draw's name).

    Arguments:
        seed: any integer; None takes a seed from the operating system.
        first_index: index of the first sample of the batch; the others follow.
        indices: the index of each sample instead.
        seeds: a seed of its own for each sample instead; sample k is then the sample of index 0
            of seeds[k].
    """

    def __init__(
        self,
        seed: int | None,
        first_index: int = 0,
        indices: Iterable[int] | None = None,
        seeds: Iterable[int] | None = None,
    ) -> None:
        first = _index(first_index, "first_index")
        if (first != 0) + (indices is not None) + (seeds is not None) > 1:
            raise ArgumentError(
                "first_index, indices and seeds are three ways to say which samples these are; "
                "give one of them"
            )
        if seeds is not None and seed is not None:
            raise ArgumentError("seeds gives every sample a seed of its own; leave seed out")
        self.seeds = None if seeds is None else [_given_seed(s) for s in _list(seeds, "seeds")]
        self.seed = None if self.seeds is not None else check_seed(seed)
        self.first_index = first
        self.indices = (
            None
            if indices is None
            else [_index(i, "an entry of indices") for i in _list(indices, "indices")]
        )
        self._forget()

    def _forget(self) -> None:
        """Drop what belongs to one run."""
        self._reference = philox.Reference()
        self._runs: list[tuple[int, int]] = []  # consecutive samples: index of the first, how many
        self._shape: tuple[int, ...] = ()
        self._scratch: torch.Tensor | None = None
        self._counters: torch.Tensor | None = None
        self._keys: dict[Name, torch.Tensor] = {}
        self._bound = False
        self._names: dict[Name, None] | None = None

    def fresh(self) -> SampleNormals:
        """The same normals for another run, with buffers of its own."""
        made = object.__new__(type(self))
        made.seed, made.seeds = self.seed, self.seeds
        made.first_index, made.indices = self.first_index, self.indices
        made._forget()
        return made

    def __getstate__(self) -> dict[str, Any]:
        # The generator and the buffer hold nothing that a later draw needs
        dropped: dict[str, Any] = {
            "_reference": None,
            "_scratch": None,
            "_counters": None,
            "_keys": {},
        }
        return {**self.__dict__, **dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reference = philox.Reference()

    def start(self, shape: Sequence[int]) -> None:
        """Begin a run of samples of shape (batch, *event)."""
        batch = shape[0]
        given = self.indices if self.indices is not None else self.seeds
        if given is not None and len(given) != batch:
            what = "indices" if self.indices is not None else "seeds"
            raise ArgumentError(
                f"{what} has {len(given)} entries, but the batch has {batch} samples; "
                "give one entry per sample"
            )
        self._shape = tuple(shape)
        self._counters, self._keys, self._bound = None, {}, False
        self._runs = []
        for index in self.indices or ():
            if self._runs and index == sum(self._runs[-1]):
                self._runs[-1] = (self._runs[-1][0], self._runs[-1][1] + 1)
            else:
                self._runs.append((index, 1))
        if self.indices is None:
            self._runs = [(self.first_index, batch)]

    def part(self, first: int, count: int) -> dict[str, Any]:
        """The arguments that make the normals of the samples first, ..., first + count - 1."""
        if self.seeds is not None:
            return {"seed": None, "seeds": self.seeds[first : first + count]}
        if self.indices is not None:
            return {"seed": self.seed, "indices": self.indices[first : first + count]}
        return {"seed": self.seed, "first_index": self.first_index + first}

    def prepare(self, names: Iterable[Name], device: torch.device) -> None:
        """Send the keys of all draws called `names` to `device` at once; the CPU needs no keys."""
        if device.type == "cpu" or self._bound:
            return
        wanted = list(dict.fromkeys(names))
        if wanted:
            table = self.key_table(wanted, device)
            self._keys |= dict(zip(wanted, table.unbind(), strict=True))

    def key_table(self, names: Sequence[Name], device: torch.device) -> torch.Tensor:
        """The keys of draws on `device`: int64 of shape (names, 1 or batch, 2)."""
        return _to(_table([self._key_words(name) for name in names]), device)

    def counter_table(self, device: torch.device) -> torch.Tensor:
        """The counter of each sample's first block on `device`: int64 of shape (batch, 2)."""
        return _to(self._first_counters(), device)

    def listen(self) -> dict[Name, None]:
        """From now on the names of all draws are entered here, in their order."""
        self._names = {}
        return self._names

    def bind(self, names: Sequence[Name], keys: torch.Tensor, counters: torch.Tensor) -> None:
        """Draw with the keys and counters that stand in these tensors, and with no others.

        What is recorded of the draws can then be repeated with other numbers in the same memory.

        Arguments:
            names: the draws that are asked for.
            keys, counters: as `key_table` and `counter_table` give them.
        """
        self._keys = dict(zip(names, keys.unbind(), strict=True))
        self._counters, self._bound = counters, True

    def words(self, like: torch.Tensor, *name: str | float) -> torch.Tensor:
        """The random bits behind the draw called `name`: int32 of shape (batch, words).

        They are made on the device of `like`, and `normals` turns them into the draw. On the CPU
        they come from a compiled loop where there is a compiler, which this asks for at its first
        call.
        """
        if self._names is not None:
            self._names.setdefault(name)
        if like.device.type != "cpu" or self._bound:
            keys, counters = self._on_device(like.device, name)
            return philox.on_device(keys, counters, self._blocks)
        return self._words(name, philox.compiled() or self._reference)

    def fill(self, out: torch.Tensor, *name: str | float) -> None:
        """Fill `out` (batch, *event) with the unit normals of the draw called `name`.

        They are what `normals` makes of `words`, computed in buffers that stay.
        """
        if self._names is not None:
            self._names.setdefault(name)
        if out.device.type != "cpu" or self._bound:
            self._fill_on_device(out, name)
            return
        batch = out.shape[0]
        n = math.prod(out.shape[1:])
        bits = self._words(name, self._reference)
        half = (n + 1) // 2  # pairs that are needed
        direct = out.dtype == torch.float32 and out.is_contiguous() and n % 2 == 0
        flat = (
            out.view(batch, n)
            if direct
            else torch.empty(batch, 2 * half, dtype=torch.float32, device=out.device)
        )
        # The radius is sqrt(-2 log u), u = (k + 1)/2^31 in (0, 1], from the first half of a
        # sample's words; the angle comes from the second. Integers are cast to float32 before they
        # meet a number: otherwise the product would be made in PyTorch's default dtype.
        radius, angle, cosine = self._buffers((batch, half), out.device)
        radius.copy_(bits[:, :half].bitwise_and_(0x7FFFFFFF)).mul_(2.0**-31)
        radius.add_(2.0**-31).log_().mul_(-2.0).sqrt_()
        angle.copy_(bits[:, bits.shape[1] // 2 :][:, :half]).mul_(math.pi * 2.0**-31)
        torch.mul(torch.cos(angle, out=cosine), radius, out=flat[:, :half])
        torch.mul(angle.sin_(), radius, out=flat[:, half:])
        if not direct:
            out.copy_(flat[:, :n].reshape(out.shape))

    def _buffers(self, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
        if (
            self._scratch is None
            or self._scratch.shape[1:] != shape
            or self._scratch.device != device
        ):
            # A tensor made in inference mode could not be written to outside of it
            with torch.inference_mode(False):
                self._scratch = torch.empty((3, *shape), dtype=torch.float32, device=device)
        return self._scratch

    def _fill_on_device(self, out: torch.Tensor, name: Name) -> None:
        keys, counters = self._on_device(out.device, name)
        if out.device.type == "cuda" and (kernel := _triton()) is not None:
            direct = out.dtype == torch.float32 and out.is_contiguous()
            made = out if direct else torch.empty(out.shape, dtype=torch.float32, device=out.device)
            kernel.fill(made.view(out.shape[0], -1), keys, counters)
            if not direct:
                out.copy_(made)
        else:
            words = philox.on_device(keys, counters, self._blocks)
            out.copy_(normals(words, out.shape, torch.float32))

    def _on_device(
        self, device: torch.device, name: Name
    ) -> tuple[torch.Tensor | philox.Key, torch.Tensor]:
        """The key or keys of a draw and the samples' first counters, int64 of shape (batch, 2).

        A key that all samples share goes into the operations as two numbers, which sends nothing.
        """
        self._check_started()
        keys: torch.Tensor | philox.Key
        if name in self._keys:
            keys = self._keys[name]
        elif self._bound:
            raise IncompatibleError(
                f"the draw {name!r} was not among those of the first run, but compile='loop' "
                "repeats the draws that it has recorded; use compile='step' or compile=False"
            )
        else:  # the steps of an adaptive run, or the halves of a path's intervals
            words = self._key_words(name)
            keys = words[0] if self.seeds is None else _to(_table(words), device)
        if self._counters is None or self._counters.device != device:
            self._counters = self.counter_table(device)
        return keys, self._counters

    def _first_counters(self) -> torch.Tensor:
        """The counter of each sample's first block; NumPy's generator begins one after it."""
        if self.seeds is not None:
            return torch.tensor([[1, 0]] * self._shape[0], device="cpu")
        parts = []
        for first, count in self._runs:
            if (first + count) * self._blocks < 1 << 62:
                lower = torch.arange(first, first + count, device="cpu") * self._blocks + 1
                parts.append(torch.stack([lower, torch.zeros_like(lower)], 1))
            else:
                numbers = [(first + k) * self._blocks + 1 for k in range(count)]
                words = [[philox.signed(m), philox.signed(m >> 64)] for m in numbers]
                parts.append(torch.tensor(words, device="cpu"))
        return torch.cat(parts)

    def _key_words(self, name: Name) -> list[philox.Key]:
        """The two words of the key of a draw, for all samples or for each."""
        seeds = [self.seed] if self.seeds is None else self.seeds
        made = [struct.unpack("<2q", draw_key(seed, *name)) for seed in seeds if seed is not None]
        return [(lower, upper) for lower, upper in made]

    @property
    def _blocks(self) -> int:
        """Blocks of eight words for each sample."""
        return -(-math.prod(self._shape[1:]) // 8)

    def _check_started(self) -> None:
        if not self._shape:
            raise ArgumentError(
                "the noise source has no run yet: call start(shape, dtype, device) before it draws"
            )

    def _words(
        self,
        name: Sequence[str | float],
        make: Callable[[Sequence[philox.Stretch]], torch.Tensor],
    ) -> torch.Tensor:
        self._check_started()
        blocks = self._blocks
        if self.seed is not None:
            key = draw_key(self.seed, *name)
            stretches = [(key, first * blocks, count * blocks) for first, count in self._runs]
        else:
            assert self.seeds is not None
            stretches = [(draw_key(seed, *name), 0, blocks) for seed in self.seeds]
        return make(stretches).view(self._shape[0], 8 * blocks)


@cache
def _triton() -> ModuleType | None:
    """The Triton kernel; None where Triton is not installed."""
    try:
        return import_module("srk.noise.philox_triton")
    except ImportError:
        return None


def _table(words: Any) -> torch.Tensor:
    return torch.tensor(words, dtype=torch.int64, device="cpu")


def _to(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A table that is made on the CPU, on `device`, without waiting for that device."""
    return (table.pin_memory() if device.type == "cuda" else table).to(device, non_blocking=True)


def normals(words: torch.Tensor, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Unit normals of shape (batch, *event) from `SampleNormals.words`.

    It is a pure function, so that a compiler can make it part of a kernel.
    """
    n = math.prod(shape[1:])
    half, second = (n + 1) // 2, 4 * -(-n // 8)
    radius = torch.sqrt(
        -2.0 * torch.log((words[:, :half] & 0x7FFFFFFF).to(torch.float32) * 2.0**-31 + 2.0**-31)
    )
    angle = words[:, second : second + half].to(torch.float32) * (math.pi * 2.0**-31)
    return (
        torch.cat([torch.cos(angle) * radius, torch.sin(angle) * radius], 1)[:, :n]
        .reshape(tuple(shape))
        .to(dtype)
    )


def _index(value: Any, what: str) -> int:
    made = integer(value, what, least=0)
    return integer(
        made, what, most=(1 << 63) - 1
    )  # counters have 128 bits, of which blocks take some


def _given_seed(value: Any) -> int:
    return integer(value, "an entry of seeds")


def _list(values: Any, what: str) -> list[Any]:
    made = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(made, str | bytes | dict) or not isinstance(made, Iterable):
        raise ArgumentTypeError(f"{what} must be a sequence of ints, not {shown(values)}")
    return list(made)
