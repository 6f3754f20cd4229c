"""Diffusion models of bayesflow: the flow of its own integrator, and the exact distribution."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.ecosystem.bayesflow import from_bayesflow
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError


@pytest.fixture
def bayesflow() -> Iterator[Any]:
    if not find_spec("bayesflow"):
        pytest.skip("bayesflow is not installed")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    grad = torch.is_grad_enabled()
    import keras

    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend than torch")
    import bayesflow as package

    try:
        yield package
    finally:
        torch.set_grad_enabled(grad)  # bayesflow turns gradients off for everybody


class Schedule:
    def __init__(self, kind: str) -> None:
        self._variance_type, self.log_snr_min, self.log_snr_max = kind, -12.0, 12.0


class Exact:
    """The score of data N(mean, 0.04), the mean being the condition."""

    def __init__(self, kind: str) -> None:
        self.noise_schedule = Schedule(kind)

    def score(self, z: Tensor, log_snr_t: Tensor, conditions: Any, training: bool) -> Tensor:
        assert log_snr_t.shape == (len(z), 1) and not training
        mean = 0.5 if conditions is None else conditions
        if self.noise_schedule._variance_type == "preserving":
            alpha, variance = log_snr_t.sigmoid().sqrt(), (-log_snr_t).sigmoid()
        else:
            alpha, variance = torch.ones_like(log_snr_t), (-log_snr_t).exp()
        return -(z - alpha * mean) / (0.04 * alpha**2 + variance)


@pytest.mark.parametrize("kind", ["preserving", "exploding"])
def test_the_exact_distribution(kind: str) -> None:
    process, score = from_bayesflow(Exact(kind))
    assert abs(process.level(process.t_max).lam + 6.0) < 1e-9
    assert abs(process.level(process.t_min).lam - 6.0) < 1e-9
    run: dict[str, Any] = {"shape": (20000, 2), "nfe": 40, "seed": 0, "dtype": torch.float64}
    x = srk.solve(process, score, "srk2m", **run).x
    assert (x.mean(0) - 0.5).abs().max() < 0.01
    assert (x.var(0) - 0.04).abs().max() < 0.003


def test_conditions_are_cut_with_the_batch() -> None:
    means = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)[:, None]
    process, score = from_bayesflow(Exact("preserving"), means)
    run: dict[str, Any] = {"shape": (5, 2), "steps": 10, "seed": 0, "dtype": torch.float64}
    whole = srk.solve(process, score, "ddpm", noise="keyed", **run).x
    assert torch.allclose(srk.solve(process, score, "ddpm", microbatch=2, **run).x, whole)
    assert whole[4, 0] > whole[0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "edm"])
def test_the_flow_is_that_of_bayesflow(schedule: str, bayesflow: Any) -> None:
    """An untrained network: our probability flow and its own, both with many steps."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"subnet": "time_mlp", "subnet_kwargs": {"widths": (16, 16)}}
    kind = "F" if schedule == "edm" else "velocity"
    network = bayesflow.networks.DiffusionModel(
        noise_schedule=schedule, prediction_type=kind, **options
    )
    network.build((None, 2), (None, 3))
    generator = torch.Generator().manual_seed(1)
    z, conditions = (torch.randn(6, n, generator=generator) for n in (2, 3))
    theirs = network(z, conditions=conditions, inverse=True, method="rk45", steps=120)
    process, score = from_bayesflow(network, conditions)
    ours = srk.solve(
        process, score, "heun", eta=0.0, steps=120, x_init=z, denoise_final=False,
        check_network=False,
    ).x  # fmt: skip
    assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()


def test_mistakes() -> None:
    with pytest.raises(ArgumentTypeError, match="DiffusionModel"):
        from_bayesflow(torch.nn.Identity())
    with pytest.raises(ArgumentError, match="'other'"):
        from_bayesflow(Exact("other"))

    class OnNumpy(Exact):
        def score(self, *args: Any, **kwargs: Any) -> Any:
            return super().score(*args, **kwargs).numpy()

    process, score = from_bayesflow(OnNumpy("preserving"))
    with pytest.raises(ScoreError, match="KERAS_BACKEND"):
        srk.solve(process, score, shape=(2, 2), steps=2)
