"""A table of named things that users may add to: processes, solvers, tableaus, and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar

from srk._checks import shown
from srk._columns import aligned
from srk.errors import ArgumentTypeError, DuplicateNameError, UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to entry; `register` adds one, and its repr is a table.

    Arguments:
        kind: what an entry is called in messages, e.g. "solver".
        columns: header -> function (name, entry) that gives the cell of a column of the table.
        listed_by: the call that shows the table, e.g. "srk.solvers()", for messages.
    """

    def __init__(
        self,
        kind: str,
        columns: Mapping[str, Callable[[str, T], str]] | None = None,
        listed_by: str = "",
    ) -> None:
        self.kind = kind
        self.columns = dict(columns or {})
        self.listed_by = listed_by
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add `entry` under `name`; a name that is taken is refused (`DuplicateNameError`)."""
        if not (isinstance(name, str) and name):
            raise ArgumentTypeError(
                f"the name of a {self.kind} must be a non-empty string, not {shown(name)}"
            )
        if name in self._entries:
            raise DuplicateNameError(
                f"a {self.kind} named {name!r} is registered already "
                f"({shown(self._entries[name])}); choose another name"
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
            raise UnknownNameError(self.kind, name, self._entries, self.listed_by) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

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

    def _repr_html_(self) -> str:
        from srk._views import table_html

        return table_html(["name", *self.columns], self.rows(), self._title())

    def _title(self) -> str:
        return f"{len(self)} {self.kind}{'es' if self.kind.endswith('s') else 's'}"

    def __repr__(self) -> str:
        rows = [["name", *self.columns], *self.rows()]
        return f"{self._title()}\n" + "\n".join(aligned(rows))


def callable_package(package: ModuleType, registry: Registry[Any]) -> None:
    """Let a package be called like a function that returns its registry.

    So `srk.processes()` is the table of the processes, beside `srk.processes.VP`.
    """

    class CallablePackage(ModuleType):
        def __call__(self) -> Registry[Any]:
            return registry

    package.__class__ = CallablePackage
