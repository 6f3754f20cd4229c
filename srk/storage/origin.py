"""Where a function, class or module comes from, and what it is called."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from typing import Any


def is_code(value: object) -> bool:
    """Whether it is a function, a method, or what a compiled library has for one."""
    return callable(value) and not isinstance(value, type) and hasattr(value, "__qualname__")


_LIBRARIES = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@functools.cache
def _in_library(file: str) -> bool:
    return file.startswith((*_LIBRARIES, "<frozen")) or "-packages/" in file


def ours(cls: type) -> bool:
    return cls.__module__ == "srk" or cls.__module__.startswith("srk.")


def installed(value: Any) -> bool:
    """Whether a function, class or module belongs to an installed package or to Python.

    Its name and the versions in the settings then say what it does.
    """
    code = getattr(value, "__code__", None)
    if code is not None:
        module = getattr(value, "__module__", None) or ""
        return _in_library(code.co_filename) or module.split(".")[0] == "srk"
    module = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    if module in sys.builtin_module_names or module.split(".")[0] in ("srk", "builtins"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    # A module without a file that is not a script or a notebook is part of Python.
    return module != "__main__" and module in sys.modules and (not file or _in_library(file))


def is_python(cls: type) -> bool:
    """Whether the class and all its bases are written in Python: their attributes are all."""
    for base in cls.__mro__[:-1]:
        module = sys.modules.get(base.__module__)
        file = getattr(module, "__file__", None) or ""
        if base.__module__ == "builtins" or (
            module and file and not file.endswith((".py", ".pyc"))
        ):
            return False
    return True


def name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', value)}"
