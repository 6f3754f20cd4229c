"""Noise sources by name, by function, and none."""

from __future__ import annotations

import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from srk.noise import BrownianNoise, CallableNoise, KeyedNoise

PROCESS = srk.VP()
SCORE = srk.targets.Gaussian([0.5] * 3, 0.04).score(PROCESS)
pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def run(**options: object) -> srk.Solution:
    return srk.solve(PROCESS, SCORE, "ddpm", shape=(4, 3), steps=5, **options)


@pytest.mark.parametrize("name", ["generator", "keyed", "brownian", "zero"])
def test_sources_by_name_repeat_with_the_seed(name: str) -> None:
    first = run(noise=name, seed=3)
    assert first.seed == 3
    assert torch.equal(first.x, run(noise=name, seed=3).x)
    assert not torch.equal(first.x, run(noise=name, seed=4).x)
    unseeded = run(noise=name)
    assert unseeded.seed is not None
    assert torch.equal(unseeded.x, run(noise=name, seed=unseeded.seed).x)


def test_one_source_object_serves_several_runs_alike() -> None:
    for source in (KeyedNoise(0), BrownianNoise(0)):
        assert torch.equal(run(noise=source).x, run(noise=source).x)


def test_the_initial_state_is_a_stream_of_its_own() -> None:
    # The same start at every number of steps, and not one of the step draws
    starts = [
        srk.solve(
            PROCESS, SCORE, "ddpm", shape=(4, 3), steps=n, noise="keyed", seed=0, save="x"
        ).trajectory.values[0]
        for n in (3, 7)
    ]
    assert torch.equal(*starts)


def test_without_stochasticity_only_the_start_is_drawn() -> None:
    drawn: list[str] = []

    def function(slot: object, clock: str, out: torch.Tensor) -> None:
        drawn.append(clock)
        out.zero_()

    run(noise=function, eta=0.0)
    assert drawn == ["prior"]


def test_zero_noise_is_the_start_without_noise_on_the_way() -> None:
    x = run(noise="zero", seed=0, save="x").trajectory.values  # type: ignore[union-attr]
    assert torch.equal(x[0], run(noise="generator", seed=0, save="x").trajectory.values[0])
    one = srk.solve(PROCESS, SCORE, "ddpm", x_init=x[0], steps=5, noise="zero", seed=1).x
    assert torch.equal(
        one, run(noise="zero", seed=0).x
    )  # nothing but the start depends on the seed


def test_a_function_fills_or_returns() -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    a, b = generator(), generator()
    filled = run(noise=lambda slot, clock, out: out.normal_(generator=a)).x
    returned = run(
        noise=CallableNoise(lambda slot, clock, out: torch.randn(out.shape, generator=b))
    ).x
    assert torch.equal(filled, returned)
    assert torch.equal(filled, run(noise="generator", seed=0).x)


def test_a_function_that_returns_something_else_is_told_so() -> None:
    with pytest.raises(ArgumentError, match=r"shape \(3,\)"):
        run(noise=lambda slot, clock, out: torch.zeros(3))
    with pytest.raises(ArgumentError, match="seed it yourself"):
        run(noise=lambda slot, clock, out: out.zero_(), seed=0)


def test_what_is_not_a_source_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="brownian"):
        run(noise="brownain")
    with pytest.raises(ArgumentTypeError, match="noise='keyed'"):
        run(noise=3)
    with pytest.raises(ArgumentError, match="not to both"):
        run(noise=KeyedNoise(0), seed=1)
    with pytest.raises(ArgumentError, match="levels"):
        BrownianNoise(0, levels=-1)
