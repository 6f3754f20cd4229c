"""A named table of things a user may add to: processes, solvers, tableaus, controllers, noise sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar

from srk.errors import ArgumentTypeError, DuplicateNameError, UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to entry, with `register` to add one and a table as its repr.

    Arguments:
        kind: what an entry is called in messages ("solver").
        columns: header -> function of (name, entry) that gives the cell, for the repr and the command line.
    """

    def __init__(
        self, kind: str, columns: Mapping[str, Callable[[str, T], str]] | None = None
    ) -> None:
        self.kind = kind
        self.columns = dict(columns or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add `entry` under `name`; a name that is taken is refused (`DuplicateNameError`)."""
        if not (isinstance(name, str) and name):
            raise ArgumentTypeError(
                f"the name of a {self.kind} must be a non-empty string, not {name!r}"
            )
        if name in self._entries:
            raise DuplicateNameError(
                f"a {self.kind} named {name!r} is registered already ({self._entries[name]!r}); choose another name"
            )
        self._entries[name] = entry
        return entry

    def unregister(self, name: str) -> None:
        """Remove the entry `name` (for tests and interactive work)."""
        self[name]
        del self._entries[name]

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def rows(self) -> list[list[str]]:
        """The table: one list of cells per entry, the name first."""
        return [
            [name, *(cell(name, entry) for cell in self.columns.values())]
            for name, entry in self.items()
        ]

    def __repr__(self) -> str:
        rows = [["name", *self.columns], *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        plural = self.kind + ("es" if self.kind.endswith("s") else "s")
        return f"{len(self)} {plural}\n" + "\n".join(lines)


def callable_room(module: ModuleType, registry: Registry[Any]) -> None:
    """Let a package be called like a function that returns its registry: `srk.processes()` beside `srk.processes.VP`."""

    class Room(ModuleType):
        def __call__(self) -> Registry[Any]:
            return registry

    module.__class__ = Room
