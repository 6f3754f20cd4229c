"""What all commands share: modules of the user, and messages in the words of the command line."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

__all__ = [
    "GridName",
    "ProcessArgs",
    "ProcessName",
    "SolverName",
    "as_command",
    "in_words_of",
    "names_of",
]


def names_of(table: str) -> Callable[[str], list[str]]:
    """What the shell offers for an option: the names in `srk.TABLE()` that begin so.

    Arguments:
        table: "solvers", "processes", "controllers" or "tableaus".
    """

    def begun(incomplete: str) -> list[str]:
        import srk

        return [name for name in getattr(srk, table)() if name.startswith(incomplete)]

    return begun


ProcessName = Annotated[
    str, typer.Option(help="A process of `srk processes`.", autocompletion=names_of("processes"))
]
ProcessArgs = Annotated[str | None, typer.Option(help='Its parameters, JSON: {"beta_max": 15}.')]
SolverName = Annotated[
    str, typer.Option(help="A solver of `srk solvers`.", autocompletion=names_of("solvers"))
]
GridName = Annotated[
    str | None,
    typer.Option(
        help="Where the steps go, of `srk controllers`.", autocompletion=names_of("controllers")
    ),
]

Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Module to import first, which registers your solvers, tableaus, ...; repeatable.",
        metavar="MODULE",
    ),
]


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """A command with the option `--import`, whose errors name options and not arguments."""

    @functools.wraps(function)
    def command(*args: Any, modules: list[str] | None = None, **options: Any) -> None:
        from srk.errors import SRKError

        for module in modules or ():
            _import(module)
        try:
            function(*args, **options)
        except SRKError as error:
            told = in_words_of(str(error), inspect.signature(function).parameters)
            error.args = (told, *error.args[1:])
            raise

    # typer reads the signature, in which annotations may still be text.
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    given = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in signature.parameters.items()
    ]
    extra = inspect.Parameter(
        "modules", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Modules
    )
    command.__doc__ = paragraphs(function.__doc__ or "")
    setattr(command, "__signature__", signature.replace(parameters=[*given, extra]))  # noqa: B010
    command.__annotations__ = {**hints, "modules": Modules}
    return command


def paragraphs(text: str) -> str:
    """A docstring with one line a paragraph: the terminal wraps it, at its own width.

    Examples:
        >>> paragraphs("Draw samples.\\n\\n    A set is an array\\n    with settings.")
        'Draw samples.\\n\\nA set is an array with settings.'
    """
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def in_words_of(message: str, names: Any) -> str:
    """A message of the library in the words that were typed: `nfe=8` is `--nfe 8`.

    Arguments:
        message: what an error says.
        names: the arguments of the command.

    Examples:
        >>> in_words_of("nfe=1 buys no step; use noise='keyed'", ["nfe", "noise"])
        '--nfe 1 buys no step; use --noise keyed'
        >>> in_words_of("there is no solver named 'x'. srk.solvers() lists all 62.", ["solver"])
        "there is no solver named 'x'. `srk solvers` lists all 62; --import MODULE adds your own."
        >>> in_words_of("another run (seed was 0, is 1)", ["seed"])
        'another run (--seed was 0, is 1)'
        >>> in_words_of("nfe must be a positive int, not 0", ["nfe"])
        '--nfe must be a positive int, not 0'
    """
    message = re.sub(r"srk\.(solvers|processes|tableaus|controllers)\(\)", r"`srk \1`", message)
    message = re.sub(r"(` lists all \d+)\.", r"\1; --import MODULE adds your own.", message)
    options = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not options:
        return message

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    message = re.sub(
        rf"(?<![\w.(\"'-])({options})=(?:'([^']*)'|\"([^\"]*)\"|([\w.+-]+))(?![\w(])",
        lambda m: f"{option(m[1])} {m[2] or m[3] or m[4]}",
        message,
    )
    message = re.sub(rf"^({options})(?= must be )", lambda m: option(m[1]), message)
    return re.sub(rf"(?<=[(;] )({options})(?= was )|(?<=\()({options})(?= was )",
                  lambda m: option(m[1] or m[2]), message)  # fmt: skip


def _import(name: str) -> None:
    """Import a module of the working directory or of an installed package."""
    from srk.errors import ArgumentError, SRKError

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except SRKError:
        raise
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"--import {name}: {error}; run in the folder that holds it, or add that folder to "
            "PYTHONPATH"
        ) from error
    except Exception as error:  # the user's code
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise ArgumentError(
            f"--import {name} failed with {type(error).__name__}: {error} "
            f"({at.filename}:{at.lineno})"
        ) from error
