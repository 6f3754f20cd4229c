"""Processes by name."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import torch

import srk.processes
from srk.errors import ArgumentError, ArgumentTypeError, DuplicateNameError, UnknownNameError
from srk.processes import (
    EDM,
    PROCESSES,
    VP,
    ForwardProcess,
    LinearProcess,
    VPDiscrete,
    process,
    register_process,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = set(PROCESSES)
    yield
    for name in set(PROCESSES) - before:
        PROCESSES.unregister(name)


def _class() -> type[LinearProcess]:
    @attrs.frozen
    class Mine(LinearProcess):
        """Mine, for the test."""

        name = "mine"
        scale: float
        t_min: float = 0.0
        t_max: float = 1.0

        def alpha(self, t: Any) -> Any:
            return 1.0 - t

        def sigma(self, t: Any) -> Any:
            return self.scale * t

    return Mine


def test_what_is_registered() -> None:
    assert list(PROCESSES) == [
        "vp",
        "vp-cosine",
        "vp-discrete",
        "sub-vp",
        "ve",
        "edm",
        "ou",
        "flow",
        "cld",
    ]
    for name, cls in PROCESSES.items():
        assert cls.name == name
        assert type(process(name)) is cls


def test_process_passes_parameters_on() -> None:
    assert process("vp", beta_max=10.0) == VP(beta_max=10.0)
    assert process("vp-discrete", betas=[0.1, 0.2]) == VPDiscrete([0.1, 0.2])


def test_wrong_parameters_list_the_valid_ones() -> None:
    with pytest.raises(
        ArgumentTypeError,
        match=r"'edm'.*it takes sigma_min=0.002, sigma_max=80.0. Did you mean 'sigma_max'",
    ):
        process("edm", sigmamax=3.0)
    with pytest.raises(ArgumentError, match="0 <= sigma_min < sigma_max"):
        process("edm", sigma_max=-3.0)
    register_process(_class())
    with pytest.raises(
        ArgumentTypeError, match=r"missing a required argument: 'scale'; it takes scale, t_min=0.0"
    ):
        process("mine")


def test_unknown_names_show_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'vp-cosine'"):
        process("vp_cosine")


def test_register_as_function_and_as_decorator() -> None:
    cls = _class()
    assert register_process(cls) is cls
    assert register_process(cls, "mine-too") is cls
    assert register_process(name="mine-three")(cls) is cls
    assert process("mine-three", scale=2.0).t_max == 1.0


def test_duplicates_and_strangers_are_refused() -> None:
    register_process(_class())
    with pytest.raises(DuplicateNameError, match="'mine' is registered already"):
        register_process(_class())
    with pytest.raises(ArgumentTypeError, match="subclass of ForwardProcess"):
        register_process(dict)  # type: ignore[type-var]
    with pytest.raises(ArgumentTypeError, match="register its class"):
        register_process(EDM())  # type: ignore[call-overload]
    with pytest.raises(ArgumentTypeError, match="does not define alpha, sigma"):
        register_process(LinearProcess, "abstract")  # type: ignore[type-abstract]
    with pytest.raises(ArgumentError, match="has no name"):
        register_process(type("Anonymous", (_class(),), {"name": ""}))
    with pytest.raises(ArgumentTypeError, match="non-empty string"):
        register_process(_class(), 3)  # type: ignore[call-overload]


def test_table_has_a_row_for_everyone() -> None:
    register_process(_class())

    class Nonlinear(ForwardProcess):
        t_min, t_max = 0.0, 2.0

        def drift(self, t: float, x: Any) -> Any:
            return -(x**3)

        def diffusion(self, t: float) -> float:
            return 1.0

        def sample_prior(self, shape: Any, **_: Any) -> Any:
            raise NotImplementedError

    register_process(Nonlinear, "nonlinear")
    rows = {row[0]: row[1:] for row in PROCESSES.rows()}
    assert rows["edm"][:2] == ["0.002 to 80", "6.21 to -4.38"]
    assert rows["flow"][1] == "6.91 to -inf"
    assert rows["mine"] == ["by parameters", "by parameters", "Mine, for the test."]
    assert rows["nonlinear"] == ["0 to 2", "-", ""]
    assert all(
        rows[name][2]
        for name in ("vp", "vp-cosine", "vp-discrete", "sub-vp", "ve", "edm", "ou", "flow")
    )
    assert "half log-SNR" in repr(PROCESSES)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(srk.processes.__path__)])
def test_docstring_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"srk.processes.{module}"))
    assert result.failed == 0
    assert result.attempted > 0


@pytest.mark.parametrize(
    "process",
    [
        srk.VP(),
        srk.CLD(),
        srk.Torus(),
        srk.SO3(),
        srk.OUVE(mean=0.5),
        srk.Shifted(srk.VP(), mean=0.5),
    ],
    ids=lambda process: process.name,
)
def test_data_that_noise_cannot_be_added_to(process: srk.ForwardProcess) -> None:
    """Whole numbers would round the noise, and a mean, away."""
    given: Any = process
    for x0 in (torch.zeros(2, 3).long(), torch.zeros(2, 3).bool(), [[0.0]], torch.tensor(0.0)):
        for t in (0.5, torch.tensor([0.1, 0.5])):
            with pytest.raises(srk.errors.ArgumentTypeError, match="data are a floating-point"):
                given.perturb(x0, t)
