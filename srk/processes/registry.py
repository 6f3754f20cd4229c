"""The processes by name, and how to add one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from srk.errors import ArgumentError, ArgumentTypeError
from srk.processes.base import ForwardProcess
from srk.processes.cld import CLD
from srk.processes.cosine import VPCosine
from srk.processes.discrete import VPDiscrete
from srk.processes.edm import EDM
from srk.processes.flow import Flow
from srk.processes.ou import OU
from srk.processes.subvp import SubVP
from srk.processes.ve import VE
from srk.processes.vp import VP
from srk.registry import Registry

P = TypeVar("P", bound=ForwardProcess)


def _default(entry: type[ForwardProcess]) -> ForwardProcess | None:
    try:
        return entry()
    except (TypeError, ValueError):  # it has required parameters
        return None


def _own_time(_name: str, entry: type[ForwardProcess]) -> str:
    process = _default(entry)
    return f"{process.t_min:g} to {process.t_max:g}" if process is not None else "by parameters"


def _half_log_snr(_name: str, entry: type[ForwardProcess]) -> str:
    process = _default(entry)
    if process is None:
        return "by parameters"
    statistic = process.statistic
    if statistic is None:
        return "-"
    low, high = float(statistic.lam(process.t_min)), float(statistic.lam(process.t_max))
    return f"{low:.3g} to {high:.3g}"


def _what(_name: str, entry: type[ForwardProcess]) -> str:
    if not entry.__dict__.get("__doc__"):
        return ""
    return (inspect.getdoc(entry) or "").partition("\n")[0]


PROCESSES: Registry[type[ForwardProcess]] = Registry(
    "process",
    listed_by="srk.processes()",
    columns={"own time": _own_time, "half log-SNR": _half_log_snr, "what and when": _what},
)


@overload
def register_process(cls: type[P], name: str | None = None) -> type[P]: ...
@overload
def register_process(cls: None = None, name: str | None = None) -> Callable[[type[P]], type[P]]: ...
def register_process(
    cls: type[P] | None = None, name: str | None = None
) -> type[P] | Callable[[type[P]], type[P]]:
    """Make a forward process available by name; usable as a decorator.

    Arguments:
        cls: a concrete subclass of `ForwardProcess` (usually of `LinearProcess`).
        name: the name; default `cls.name`.

    Returns:
        `cls`, unchanged; without `cls`, a decorator.

    Raises:
        ArgumentTypeError: `cls` is not a subclass of `ForwardProcess`, or methods are missing.
        DuplicateNameError: the name is taken.

    Examples:
        >>> from srk.processes import LinearProcess, PROCESSES, process, register_process
        >>> @register_process
        ... class Quadratic(LinearProcess):
        ...     '''Flow with a slow start.'''
        ...
        ...     name, t_min, t_max = "quadratic", 1e-3, 1.0
        ...
        ...     def alpha(self, t):
        ...         return 1.0 - t**2
        ...
        ...     def sigma(self, t):
        ...         return t**2
        >>> process("quadratic").level(0.5).sigma
        0.25
        >>> PROCESSES.unregister("quadratic")
    """
    if cls is None:
        return lambda decorated: register_process(decorated, name)
    given: Any = cls  # the annotation is a promise that callers may break
    if not (isinstance(given, type) and issubclass(given, ForwardProcess)):
        hint = (
            "; register its class, parameters are given to process(name, ...)"
            if isinstance(given, ForwardProcess)
            else ""
        )
        raise ArgumentTypeError(
            "a process must be a subclass of ForwardProcess (usually of LinearProcess), not "
            f"{cls!r}{hint}"
        )
    if inspect.isabstract(cls):
        raise ArgumentTypeError(
            f"{cls.__name__} cannot be registered: it does not define "
            f"{', '.join(sorted(cls.__abstractmethods__))}"
        )
    name = cls.name if name is None else name
    if name == "":
        raise ArgumentError(
            f'{cls.__name__} has no name; set `name = "..."` in the class, or write '
            f'register_process({cls.__name__}, "...")'
        )
    return PROCESSES.register(name, cls)  # type: ignore[return-value]


def process(name: str, **parameters: Any) -> ForwardProcess:
    """Build the process registered under `name`.

    Arguments:
        name: one of `PROCESSES`.
        parameters: those of its class.

    Raises:
        UnknownNameError: no such name; the closest are listed.
        ArgumentTypeError: parameters that the class does not take; those it takes are listed.

    Examples:
        >>> from srk.processes import process
        >>> process("edm", sigma_max=10.0)
        EDM(sigma_min=0.002, sigma_max=10.0)
    """
    cls = PROCESSES[name]
    signature = inspect.signature(cls)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        shown = [
            str(p.replace(annotation=inspect.Parameter.empty))
            for p in signature.parameters.values()
        ]
        takes = f"it takes {', '.join(shown)}" if shown else "it takes no parameters"
        unknown = [p for p in parameters if p not in signature.parameters]
        close = (
            difflib.get_close_matches(unknown[0], list(signature.parameters), n=1)
            if unknown
            else []
        )
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentTypeError(
            f"wrong parameters for the process {name!r}: {error}; {takes}.{hint}"
        ) from None
    return cls(**parameters)


# All that a name alone makes and that every solver reverses. OUVE needs a mean, and states of
# angles and rotations (Torus, SO3) need solvers that make increments: their classes make these.
for _cls in (VP, VPCosine, VPDiscrete, SubVP, VE, EDM, OU, Flow, CLD):
    register_process(_cls)
