"""The errors that srk raises.

Each message states the fact, the value, the cause and a corrected call.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SRKError(Exception):
    """Base of every error that srk raises on purpose."""


class ArgumentError(SRKError, ValueError):
    """An argument has a value that makes no sense here."""


class ArgumentTypeError(SRKError, TypeError):
    """An argument has a type that makes no sense here."""


class NumberError(ArgumentTypeError, ArgumentError):
    """An argument is not a number of the kind that is needed, e.g. `steps=True`.

    It is a wrong type to some callers and a wrong value to others, so it can be caught as either.
    """


class UnknownNameError(SRKError, KeyError):
    """A name that no registry entry carries.

    Arguments:
        kind: what the name is for, e.g. "solver".
        name: what the user gave.
        known: the names that exist.
        listed_by: a call that lists them, e.g. "srk.solvers()"; a long list is left to it.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], listed_by: str = "") -> None:
        known = sorted(known)
        close = close_names(name, known)
        text = repr(name) if len(repr(name)) <= 80 else repr(name)[:60] + " ..."
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        if len(known) <= FEW or not listed_by:
            rest = f" Known: {', '.join(known)}."
        else:
            verb = "list" if " and " in listed_by else "lists"
            rest = f" {listed_by} {verb} all {len(known)}."
        super().__init__(f"there is no {kind} named {text}.{hint}{rest}")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # made again from the message, for the arguments are not kept
        return _again, (type(self), self.args)


def _again(kind: type[SRKError], args: tuple[Any, ...]) -> SRKError:
    made = kind.__new__(kind)
    made.args = args
    return made


FEW = 12
"""So many names are listed in a message; of more, it says where they are listed."""


def close_names(name: object, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that `name` may be a slip of, the closest first.

    Upper case, spaces and underscores do not count, so that "DPM++_2M" finds "dpmpp-2m".

    Examples:
        >>> close_names("Euler_A", ["euler-ancestral", "euler-a", "heun"])
        ['euler-a', 'euler-ancestral']
    """
    spelled = {_plain(entry): entry for entry in known}
    wanted = _plain(str(name)[:80])
    close = difflib.get_close_matches(wanted, spelled, n=count, cutoff=0.5)
    return [spelled[entry] for entry in close]


def _plain(name: str) -> str:
    return name.lower().replace("+", "p").replace("_", "-").replace(" ", "-")


class DuplicateNameError(SRKError, ValueError):
    """A name is registered twice."""


class TimeError(ArgumentError):
    """A time lies outside the process's range, or a grid of times is not usable."""


class IncompatibleError(ArgumentError):
    """A process, solver, noise source or controller that cannot work with another."""


class GridWarning(UserWarning):
    """A step of the grid is one over which the solver amplifies noise or rounding."""


class ConventionWarning(UserWarning):
    """A network does not say what its adapter takes it to say: noise, score, data, v or flow."""


class ScoreError(SRKError, ValueError):
    """The network returned something that is not a score of the state it was given."""


class TableauError(ArgumentError):
    """Coefficients that do not satisfy the conditions of the order they declare."""


class MissingExtraError(SRKError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}; install it with: pip install 'srk[{extra}]' "
            f"(in a clone of the repository: pip install -e '.[{extra}]')"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args)


class MissingDataError(SRKError, FileNotFoundError):
    """A data set or a file is not on this machine; the message says what brings or writes it."""


class SolveError(SRKError, RuntimeError):
    """The run failed.

    Its attribute `solution`, a `srk.Solution`, holds the last finite state, the step and the time.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.solution)
