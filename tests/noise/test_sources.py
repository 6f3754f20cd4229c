"""Noise sources by name, by function, and none."""

from __future__ import annotations

import math

import attrs
import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from srk.noise import BrownianNoise, CallableNoise, KeyedNoise
from srk.plans.plan import Slot

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


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_a_draw_is_named_by_what_it_is(solver: str) -> None:
    """Not by weights that an integration gives, whose last bits depend on the machine's BLAS.

    With every computed weight a few units in the last place off, the keyed normals are the same,
    and no two draws of a run have one name.
    """
    process = srk.VP()
    plans = srk.Sampler(process, SCORE, solver, steps=6).plans()
    draws = [(slot, plan.clock) for plan in plans for slot in plan.slots]
    source = KeyedNoise(0)
    source.start((3, 4), torch.float32, torch.device("cpu"))

    def drawn(slot: Slot, clock: str) -> torch.Tensor:
        out = torch.empty(3, 4)
        source.draw(slot, clock, out)
        return out

    assert len({(clock, slot.name) for slot, clock in draws}) == len(draws)
    for slot, clock in draws:
        if slot.number is None:
            assert all(weight == round(weight) for weight in slot.weights)
            continue
        near = tuple(math.nextafter(weight, 2.0) for weight in slot.weights)
        other = attrs.evolve(slot, weights=(*near, 1e-16))
        assert torch.equal(drawn(slot, clock), drawn(other, clock))


def test_a_draw_keeps_its_number_where_an_earlier_one_is_not_used() -> None:
    """Whether rounding drops a draw says nothing about the names of the others."""
    from srk.plans.step import Draft, Step

    step = Step(PROCESS, PROCESS.level(0.5), PROCESS.level(0.4), 1.0, 0, (), 1)
    draft = Draft(step, "clock")
    two = draft.orthonormal(0.0, 1.0, [lambda u: u, lambda u: u * u])
    one = draft.functionals(0.0, 1.0, [lambda u: u**3])
    node = draft.evaluate(draft.state, step.start)
    plan = draft.finish(node.value + two[1] + one[0])
    assert [slot.number for slot in plan.slots] == [1, 2]
    assert plan.slots[0].name == (0.0, 1.0, "computed", 1.0)
    assert Slot(0.0, 1.0, (0.0, 1.0)).name == (0.0, 1.0, 0.0, 1.0)
