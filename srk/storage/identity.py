"""What tells one process, network or solver from another, so that a set is never drawn by two."""

from __future__ import annotations

import re
import sys

from srk.storage.digest import Digest, UnknownError
from srk.storage.origin import is_code, name_of, ours

__all__ = ["UnknownError", "describe", "identity"]


def identity(value: object) -> str:
    """A short text that two values share only if they do the same.

    It is the value's name and a digest of all that can change what it returns: numbers and
    arrays at any depth, private attributes and slots, parameters, every buffer and the hooks of
    modules, and the code of functions and classes with the defaults, closures and globals that
    they read. Installed packages, PyTorch among them, are known by their names.

    Arguments:
        value: a process, prediction, network, solver, step controller, or data.

    Returns:
        The same text in every Python process of the same Python version.

    Raises:
        UnknownError: the value holds something that cannot be looked into, such as a handle of a
            compiled library.

    Examples:
        >>> import srk
        >>> identity(srk.VP()) == identity(srk.VP()) != identity(srk.VP(beta_max=10.0))
        True
    """
    return describe(value)[0]


def describe(value: object) -> tuple[str, dict[str, str]]:
    """The `identity` of a value, and the versions of the installed packages that it uses."""
    digest = Digest()
    short = digest.of(value, type(value).__name__).hex()[:16]
    named = isinstance(value, type) or is_code(value)
    # Only our own classes are sure to print the same in every process.
    text = repr(value) if ours(type(value)) else name_of(value if named else type(value))
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in digest.packages}
    versions = {name: str(found[name]) for name in sorted(found) if found[name] is not None}
    return f"{text if len(text) <= 200 else type(value).__name__} {short}", versions
