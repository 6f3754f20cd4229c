"""The errors that srk raises. Each message states the fact, the value, the cause and a corrected call."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srk.solution import Solution


class SRKError(Exception):
    """Base of every error that srk raises on purpose."""


class ArgumentError(SRKError, ValueError):
    """An argument has a value that makes no sense here."""


class ArgumentTypeError(SRKError, TypeError):
    """An argument has a type that makes no sense here."""


class UnknownNameError(SRKError, KeyError):
    """A name that no registry entry carries."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        super().__init__(f"there is no {kind} named {name!r}.{hint} Known: {', '.join(known)}.")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class DuplicateNameError(SRKError, ValueError):
    """A name is registered twice."""


class TimeError(ArgumentError):
    """A time lies outside the process's range, or a grid of times is not usable."""


class IncompatibleError(ArgumentError):
    """A process, solver, noise source or controller that cannot work with another."""


class ScoreError(SRKError, ValueError):
    """The network returned something that is not a score of the state it was given."""


class TableauError(ArgumentError):
    """Coefficients that do not satisfy the conditions of the order they declare."""


class MissingExtraError(SRKError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}; install it with: pip install 'srk[{extra}]'"
        )


class MissingDataError(SRKError, FileNotFoundError):
    """A data set is not on this machine; the message names the command that brings it."""


class SolveError(SRKError, RuntimeError):
    """The run failed. `solution` holds the last finite state, the step and the time."""

    def __init__(self, message: str, solution: Solution | Any) -> None:
        super().__init__(message)
        self.solution = solution
