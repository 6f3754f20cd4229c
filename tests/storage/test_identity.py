"""Two values share an identity only if they do the same, in every Python process."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import srk
from srk.storage.identity import UnknownError, describe, identity

SCALE = 1.0
TABLE = {"scale": 1.0}


class Buffered(nn.Module):
    """A module whose number is in a buffer that state_dict leaves out."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Private(nn.Module):
    def __init__(self, scale: Any) -> None:
        super().__init__()
        self._scale = scale


class Slotted:
    __slots__ = ("_scale", "unset")

    def __init__(self, scale: Any) -> None:
        self._scale = scale


class Plain:
    def __init__(self, scale: Any) -> None:
        self._scale = scale

    def call(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x


class Listed(list):  # type: ignore[type-arg]
    def __init__(self, scale: float) -> None:
        super().__init__([1.0])
        self.scale = scale


class Doubled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.scale


def layer(scale: float = 1.0) -> nn.Linear:
    made = nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(scale)
    return made


def closure(scale: Any) -> Callable[..., Any]:
    return lambda x, t: x * scale


def through_defaults(scale: float) -> Callable[..., Any]:
    def network(x: Any, t: Any, *, factor: float = scale) -> Any:
        return x * factor

    return network


def hooked(register: str) -> Callable[[float], nn.Module]:
    def make(scale: float) -> nn.Module:
        module = layer()
        getattr(module, register)(lambda *values: values[-1] if scale == 1.0 else None)
        return module

    return make


def with_code(scale: float) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(f"def network(x, t):\n    return x * {scale}", space)
    found: Callable[..., Any] = space["network"]
    return found


def with_class_code(scale: float) -> object:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"class Network:\n    def __call__(self, x, t):\n        return x * {scale}", space)
    return space["Network"]()


def with_class_attribute(scale: float) -> object:
    return type("Network", (), {"scale": scale, "__module__": "__main__"})()


def with_helper(scale: float) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(
        f"def helper(x):\n    return x * {scale}\ndef network(x, t):\n    return helper(x)",
        space,
    )
    found: Callable[..., Any] = space["network"]
    return found


def with_module(scale: float) -> Callable[..., Any]:
    module = ModuleType("settings_of_the_user")
    module.scale = scale  # type: ignore[attr-defined]
    space: dict[str, Any] = {"settings": module}
    exec("def network(x, t):\n    return x * settings.scale", space)
    found: Callable[..., Any] = space["network"]
    return found


def with_global(scale: Any) -> Callable[..., Any]:
    space: dict[str, Any] = {"SCALE": scale}
    exec("def network(x, t):\n    return [x * SCALE for _ in range(2)][0]", space)
    found: Callable[..., Any] = space["network"]
    return found


def parametrized(scale: float) -> nn.Module:
    module = layer()
    parametrize.register_parametrization(module, "weight", Doubled(scale))
    return module


def in_evaluation(scale: float) -> nn.Module:
    return nn.Dropout(0.5).train(scale == 1.0)


def in_a_cycle(scale: float) -> object:
    one, other = Plain(scale), Plain(None)
    one.other, other.other = other, one  # type: ignore[attr-defined]
    return other


MAKERS: dict[str, Callable[[float], object]] = {
    "parameters": layer,
    "adapter": lambda scale: srk.NoisePrediction(layer(scale)),
    "conditions": lambda scale: srk.Data(closure(1.0), model_kwargs={"c": torch.tensor(scale)}),
    "buffer that is not saved": Buffered,
    "private attribute": Private,
    "tensor in a private attribute": lambda scale: Private(torch.tensor(scale)),
    "module in a private list": lambda scale: Private([layer(scale)]),
    "slot": Slotted,
    "bound method": lambda scale: Plain(scale).call,
    "attribute of a list": Listed,
    "attribute of a parameter": lambda scale: (
        setattr(p := nn.Parameter(torch.ones(1)), "s", scale) or p
    ),
    "closure": closure,
    "module in a closure": lambda scale: closure(layer(scale)),
    "closure in a closure": lambda scale: closure(closure(scale)),
    "default of a keyword": through_defaults,
    "partial": lambda scale: functools.partial(torch.mul, scale),
    "wrapped function": lambda scale: functools.wraps(with_code(1.0))(closure(scale)),
    "cached function": lambda scale: functools.cache(closure(scale)),
    "code": with_code,
    "code of a class": with_class_code,
    "attribute of a class": with_class_attribute,
    "code of a helper": with_helper,
    "global of a module": with_module,
    "global": with_global,
    "global module": lambda scale: with_global(layer(scale)),
    "forward hook": hooked("register_forward_hook"),
    "forward pre-hook": hooked("register_forward_pre_hook"),
    "parametrization": parametrized,
    "training mode": in_evaluation,
    "number of a library's module": nn.LeakyReLU,
    "compiled module": lambda scale: torch.compile(layer(scale)),
    "cycle": in_a_cycle,
    "namespace": lambda scale: SimpleNamespace(scale=scale),
    "array": lambda scale: np.array([scale]),
    "array of objects": lambda scale: np.array([scale, "a"], dtype=object),
    "frozenset": lambda scale: frozenset([scale, "a", "b", "c"]),
    "sparse": lambda scale: torch.eye(3).mul(scale).to_sparse(),
    "expanded": lambda scale: torch.tensor([scale]).expand(5),
    "exact score": lambda scale: srk.targets.Empirical([[0.0], [scale]]).score(srk.VP()),
    "process": lambda scale: srk.VP(beta_max=10.0 + scale),
    "generator": lambda scale: torch.Generator().manual_seed(int(scale)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_all_that_changes_an_output_is_seen(kind: str) -> None:
    make = MAKERS[kind]
    assert identity(make(1.0)) == identity(make(1.0)) != identity(make(2.0))


def test_a_global_hook_of_all_modules_is_seen() -> None:
    before = identity(layer())
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: out * 2)
    try:
        assert identity(layer()) != before
    finally:
        handle.remove()
    assert identity(layer()) == before


def test_what_does_not_change_an_output_is_not_seen() -> None:
    """Docstrings, line numbers, the number of hooks made before, and our own caches."""

    def document(text: str) -> Any:
        space: dict[str, Any] = {}
        exec(f"{text}\ndef network(x, t):\n    {text}\n    return 2 * x\n", space)
        return space["network"]

    assert identity(document("'one'")) == identity(document("'another\\nwith two lines'"))
    module = layer()
    before = identity(module)
    module.register_forward_hook(lambda module, args, out: None).remove()
    assert identity(module) == before
    score = srk.targets.Empirical([[0.0], [1.0]]).score(srk.VP())
    before = identity(score)
    srk.solve(srk.VP(), score, shape=2, nfe=6)
    assert identity(score) == before


@pytest.mark.parametrize("make", [lambda: (x for x in ()), lambda: torch.ones(2, device="meta")])
def test_what_cannot_be_looked_into_is_said(make: Callable[[], object]) -> None:
    held = Plain(None)
    held._handle = make()  # type: ignore[attr-defined]
    with pytest.raises(UnknownError, match=r"_handle is a .*(cannot be looked into|no numbers)"):
        identity(held)


def test_versions_of_the_packages_that_are_used() -> None:
    assert describe(lambda x, t: np.tanh(x))[1] == {"numpy": np.__version__}


def test_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes, and whether a module was imported or pickled."""
    (tmp_path / "networks.py").write_text(
        textwrap.dedent("""
        import torch
        from torch import nn

        NAMES = {"one", "two", "three", "four"}

        class Network(nn.Module):
            kinds = frozenset(NAMES)

            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(2, 2)
                nn.init.ones_(self.layer.weight), nn.init.zeros_(self.layer.bias)
                self.layer.register_forward_hook(lambda *values: values[-1])
                self._names = dict.fromkeys(sorted(NAMES)), {"x", "y", "z"}

            def forward(self, x, t):
                return self.layer(x) if "one" in {"one", "two"} else NAMES
        """)
    )
    code = (
        "import networks, srk; from srk.storage.identity import identity; "
        "print(identity(srk.NoisePrediction(networks.Network())))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{Path(srk.__file__).parents[1]}:{tmp_path}",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
