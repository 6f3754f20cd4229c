"""Products: several tensors that are reversed together, each by a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.base import ForwardProcess

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Product:
    """Several parts, each with a forward process of its own, that one network reverses together.

    The state is a dict of tensors with the names of the parts and one batch axis. Each part has its
    own process, and so its own time; the network sees all parts at the times of all parts. A part
    may be given its own grid, eta, solver, dtype and device: see `srk.solve`.

    Arguments:
        parts: the processes by the names of the parts, as keywords.

    Raises:
        ArgumentError: there is no part.
        ArgumentTypeError: a part is not a process.

    Examples:
        >>> import srk
        >>> product = srk.Product(video=srk.Flow(), sound=srk.EDM())
        >>> product.names
        ('video', 'sound')
    """

    parts: Mapping[str, ForwardProcess]
    """The process of each part by its name, in the order in which they were given."""

    def __init__(self, /, **parts: ForwardProcess) -> None:
        if not parts:
            raise ArgumentError(
                "a product has at least one part; e.g. srk.Product(a=srk.VP(), b=srk.EDM())"
            )
        given: Mapping[str, Any] = parts  # the annotation is a promise that callers may break
        for name, process in given.items():
            if not isinstance(process, ForwardProcess):
                raise ArgumentTypeError(
                    f"the part {name!r} of a product is an srk.ForwardProcess such as srk.VP(), "
                    f"not {shown(process)}"
                )
        self.parts = MappingProxyType(dict(parts))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, in the order in which they were given."""
        return tuple(self.parts)

    @property
    def centred(self) -> dict[str, ForwardProcess]:
        """What solvers reverse of each part: its process, or for one around a mean that less it."""
        return {name: process.centred for name, process in self.parts.items()}

    def select(self, rows: slice | Tensor, batch: int) -> Product:
        """The product of some samples of a batch, where the samples of a part have means.

        Arguments:
            rows: which samples, a slice or their numbers.
            batch: size of the whole batch.
        """
        made = {name: one.select(rows, batch) for name, one in self.parts.items()}
        same = all(made[name] is one for name, one in self.parts.items())
        return self if same else Product(**made)

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{name}={part!r}' for name, part in self.parts.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _product, (dict(self.parts),)


def _product(parts: Mapping[str, ForwardProcess]) -> Product:
    return Product(**parts)


def check_names(given: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    """Raise `ArgumentError` unless `given` has an entry for each of `names`, and no other."""
    names = tuple(names)
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        faults = [f"{missing} is missing"] if missing else []
        faults += [f"{unknown} is no part"] if unknown else []
        raise ArgumentError(
            f"{what} has one entry for each part of the product, {', '.join(map(repr, names))}, "
            f"but {' and '.join(faults)}"
        )


def for_each(value: T | Mapping[str, T], names: Iterable[str], what: str) -> dict[str, T]:
    """`value` for each part: a mapping by name as it is, anything else for all parts alike.

    Raises:
        ArgumentError: it is a mapping whose names are not those of the parts.
    """
    names = tuple(names)
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    check_names(value, names, what)
    return {name: value[name] for name in names}
