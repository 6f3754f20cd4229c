"""Networks from a name or a file.

Weights are read as numbers; code that comes with a file runs only where the user says so.
"""

from __future__ import annotations

import importlib
import inspect
import io
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srk.errors import ArgumentError, ArgumentTypeError, MissingExtraError, SRKError
from srk.scores import Prediction

TORCH_FILES = (".pt", ".pth", ".ckpt", ".bin")
PICKLES = (".pkl", ".pickle")
SAFE_TORCH = (2, 10)
"""First release whose weights_only loading has no known way around it.

Known are CVE-2025-32434 before 2.6 and CVE-2026-24747 before 2.10.
"""


def imported(name: str) -> Any:
    """The object called `name`, "package.module:attribute". Importing runs the module.

    Raises:
        ArgumentError: no such module or attribute, or the name has another form.

    Examples:
        >>> imported("srk.processes:VP")
        <class 'srk.processes.vp.VP'>
    """
    module, _, attribute = name.partition(":")
    if not (
        attribute
        and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    ):
        raise ArgumentError(
            f"{name!r} is not of the form package.module:attribute; e.g. my_models.unet:UNet"
        )
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(
            f"cannot import {module!r}: {error}; install it, run in the folder that holds it, or "
            "add that folder to PYTHONPATH"
        ) from error
    except Exception as error:  # the user's code
        raise ArgumentError(
            f"importing {module!r} failed with {_first_line(error)} ({_place(error)})"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = (
                ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))[:20])
                if hasattr(found, "__dict__")
                else ""
            )
            raise ArgumentError(
                f"{module!r} has no {attribute!r}; it has {public or 'nothing public'}"
            )
        found = getattr(found, part)
    return found


def load_network(
    model: str,
    *,
    cls: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
) -> Prediction | Callable[..., Tensor]:
    """A network by import or from a file of weights.

    Arguments:
        model: "package.module:attribute", which is a network, a `Prediction`, or a class or
            function that makes one; or the path of a file with the network's state_dict:
            `.safetensors`, or `.pt`, `.pth`, `.ckpt`, `.bin` as torch.save writes them.
        cls: for a file, "package.module:Class" of the network that the weights are for.
        arguments: keyword arguments of that class, or of the class or function that `model` names.
        key: the entry that holds the state_dict, where a file has several, e.g. "ema" or
            "state_dict".
        trust_pickle: read a file that holds more than tensors, or a `.pkl`, by running the code in
            it. Only for files that you trust as you trust a program.

    Returns:
        A `Prediction`, or the network; an `nn.Module` is in evaluation mode, on the CPU, and wants
        no gradients.

    Raises:
        ArgumentError: the file or the name is not there or is not what it should be; the weights do
            not fit the class.
        MissingExtraError: a `.safetensors` file without the package safetensors.

    Examples:
        >>> load_network("torch.nn:Linear", arguments={"in_features": 2, "out_features": 2})
        Linear(in_features=2, out_features=2, bias=True)
    """
    path = Path(model)
    if path.exists() or ":" not in model:
        found = _from_file(path, cls, arguments, key, trust_pickle)
    else:
        if cls is not None or key is not None or trust_pickle:
            raise ArgumentError(
                f"{model!r} is imported, not read from a file: model class, key and trust in "
                "pickles are for files; leave them out"
            )
        found = _made(imported(model), model, arguments)
    if isinstance(found, nn.Module):
        found.eval().requires_grad_(False)
    elif not isinstance(found, Prediction) and (not callable(found) or isinstance(found, type)):
        raise ArgumentTypeError(
            f"{model!r} is {_kind(found)}, not a network (x, t) -> Tensor, a prediction such as "
            "srk.NoisePrediction(network), or a function that makes one"
        )
    result: Prediction | Callable[..., Tensor] = found
    return result


def load_weights(path: Path, *, key: str | None = None, trust_pickle: bool = False) -> Any:
    """The tensors of a file, name -> tensor on the CPU.

    With `trust_pickle` it is whatever the file holds, e.g. a whole network.

    Arguments:
        path: see `load_network`.
        key: the entry to take of a file with several.
        trust_pickle: run the code in the file.

    Raises:
        ArgumentError: no such file, damaged, of another format, or not only tensors.
    """
    if not path.is_file():
        raise ArgumentError(
            f"there is no file {str(path)!r}; a network to import is written "
            "package.module:attribute"
        )
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        found = _safetensors(path)
    elif suffix in TORCH_FILES:
        found = _torch_file(path, trust_pickle)
    elif suffix in PICKLES:
        if not trust_pickle:
            raise ArgumentError(
                f"{str(path)!r} is a pickle, whose loading runs the code in it; if you trust it as "
                "a program, add --trust-pickle"
            )
        found = _unpickled(path, pickle.load)
    else:
        raise ArgumentError(
            f"{str(path)!r} is of no known kind; weights are .safetensors or "
            f"{', '.join(TORCH_FILES)} files"
        )
    if key is not None:
        if not isinstance(found, Mapping) or key not in found:
            raise ArgumentError(f"{str(path)!r} has no entry {key!r}; {_entries(found)}")
        found = found[key]
    if isinstance(found, nn.Module) and trust_pickle:
        return found
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    ):
        raise ArgumentError(
            f"{str(path)!r} is not a state_dict (name -> tensor); {_entries(found)}; --model-key "
            "names the entry that is one"
        )
    return dict(found)


def _from_file(
    path: Path,
    cls: str | None,
    arguments: Mapping[str, Any] | None,
    key: str | None,
    trust_pickle: bool,
) -> Any:
    weights = load_weights(path, key=key, trust_pickle=trust_pickle)
    if isinstance(weights, nn.Module):
        if cls is not None:
            raise ArgumentError(
                f"{str(path)!r} holds a whole network, {_kind(weights)}; leave --model-class out"
            )
        return weights
    if cls is None:
        raise ArgumentError(
            f"{str(path)!r} holds weights; --model-class package.module:Class names the network "
            "that they are for"
        )
    network = _made(imported(cls), cls, arguments or {})
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            f"{cls!r} made {_kind(network)}, not a torch.nn.Module; weights need one"
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        shown = " ".join(line if len(line) <= 200 else line[:200] + " ..." for line in lines[:3])
        raise ArgumentError(
            f"the weights of {str(path)!r} do not fit {cls!r}: {shown}; check --model-class, "
            "--model-args and --model-key"
        ) from None
    return network


def _made(found: Any, name: str, arguments: Mapping[str, Any] | None) -> Any:
    """What `found` makes, if it is a class or a function that makes something; else itself."""
    maker = isinstance(found, type) or (
        inspect.isroutine(found) and (arguments is not None or _binds(found))
    )
    if not maker:
        if arguments is not None:
            raise ArgumentError(
                f"{name!r} is {_kind(found)}, which takes no --model-args; they are for a class or "
                "a function that makes the network"
            )
        return found
    try:
        inspect.signature(found).bind(**(arguments or {}))
    except TypeError as error:
        raise ArgumentError(
            f"wrong --model-args for {name!r}: {error}; it takes {inspect.signature(found)}"
        ) from None
    except ValueError:  # no signature to check
        pass
    try:
        return found(**(arguments or {}))
    except SRKError:
        raise
    except Exception as error:  # the user's code
        raise ArgumentError(
            f"making {name!r} failed with {_first_line(error)} ({_place(error)}); check "
            "--model-args"
        ) from error


def _binds(function: Any) -> bool:
    """Whether it can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _safetensors(path: Path) -> Any:
    try:
        with _installed_only():
            from safetensors import SafetensorError
            from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError(f"reading {str(path)!r}", "safetensors", "safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ArgumentError(
            f"{str(path)!r} is not a readable safetensors file ({_first_line(error)}); fetch or "
            "save it again"
        ) from error


@contextmanager
def _installed_only() -> Iterator[None]:
    """Import a library from where it is installed, and never from the working directory.

    Weights are often loaded in the folder that they came in, and what else came in it is not run.
    """
    kept = list(sys.path)
    sys.path[:] = [folder for folder in kept if folder not in ("", ".", str(Path.cwd()))]
    try:
        yield
    finally:
        sys.path[:] = kept


def _torch_file(path: Path, trust_pickle: bool) -> Any:
    if trust_pickle:
        return _unpickled(
            path, lambda file: torch.load(file, map_location="cpu", weights_only=False)
        )
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release < SAFE_TORCH:
        raise ArgumentError(
            f"torch {torch.__version__} has known ways to run code from a file that it should read "
            "as numbers (CVE-2025-32434, CVE-2026-24747); "
            "upgrade to torch 2.10, save the weights as safetensors, or, if you trust the file as "
            "a program, add --trust-pickle"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArgumentError(
            f"{str(path)!r} is damaged or holds more than tensors, and nothing of it was run "
            f"({_reason(error)}); save the network's state_dict() alone, or, "
            "if you trust the file as a program, add --trust-pickle"
        ) from error
    except Exception as error:  # a damaged archive fails in many ways, none of which runs its code
        raise ArgumentError(
            f"{str(path)!r} is not a readable file of torch.save ({_first_line(error)}); fetch or "
            "save it again"
        ) from error


def _unpickled(path: Path, load: Callable[[io.BufferedReader], Any]) -> Any:
    try:
        with path.open("rb") as file:
            return load(file)
    except Exception as error:  # the code in the file may raise anything
        raise ArgumentError(
            f"{str(path)!r} could not be unpickled ({_first_line(error)}); the modules that it "
            "names must be importable"
        ) from error


def _reason(error: Exception) -> str:
    """The line of torch's long message that says what was refused."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(
        (
            line.split(". ")[0]
            for line in lines
            if line.startswith(("WeightsUnpickler error", "Unsupported"))
        ),
        _first_line(error),
    )[:160]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{at.filename}:{at.lineno}"


def _entries(found: Any) -> str:
    if isinstance(found, Mapping):
        shown = [str(key) for key in found][:8]
        return (
            f"its entries are {', '.join(shown)}{', ...' if len(found) > len(shown) else ''}"
            if shown
            else "it is empty"
        )
    return f"it holds {_kind(found)}"


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__module__}.{type(value).__name__}".replace("a builtins.", "a ")


__all__ = ["imported", "load_network", "load_weights"]
