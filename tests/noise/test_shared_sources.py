"""A source is only read by a run: threads, copies, pickles, modes and defaults change nothing."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, DuplicateNameError
from srk.noise import (
    BrownianNoise,
    GeneratorNoise,
    KeyedNoise,
    NoiseSource,
    ReplayNoise,
    ZeroNoise,
)
from srk.noise.counter import SampleNormals, normals
from srk.noise.seeds import generator_seed
from srk.plans.plan import Slot

PROCESS = srk.VP()
SCORE = srk.targets.Gaussian([0.5] * 3, 0.04).score(PROCESS)
DRAWS = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(0))
SOURCES: dict[str, NoiseSource] = {
    "generator": GeneratorNoise(1),
    "zero": ZeroNoise(1),
    "keyed": KeyedNoise(1),
    "keyed seeds": KeyedNoise(seeds=[3, 4, -5, 2**70]),
    "brownian": BrownianNoise(1),
    "replay": ReplayNoise(DRAWS),
}
each_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


def run(source: NoiseSource, solver: str = "ddpm", **options: object) -> torch.Tensor:
    given: dict[str, object] = {"shape": (4, 3), "steps": 8, "noise": source, **options}
    return srk.solve(PROCESS, SCORE, solver, **given).x  # type: ignore[arg-type]


@each_source
def test_threads_share_a_source(source: NoiseSource) -> None:
    expected = run(source)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: run(source), range(24)))
    assert all(torch.equal(x, expected) for x in found)


@each_source
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_of_a_source_is_the_source(source: NoiseSource, again: object) -> None:
    expected = run(source)
    assert torch.equal(run(again(source)), expected)  # type: ignore[operator]


SLOTS = [Slot(0.1 * k, 0.1 * (k + 1), (0.6, 0.8)) for k in range(8)]


def draws(source: NoiseSource, slots: list[Slot]) -> list[torch.Tensor]:
    out = []
    for slot in slots:
        out.append(torch.empty(4, 3))
        source.draw(slot, "clock", out[-1])
    return out


@each_source
@pytest.mark.parametrize("again", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_source_copied_in_the_middle_goes_on_from_there(
    source: NoiseSource, again: object
) -> None:
    source = source.fresh()
    source.start((4, 3), torch.float32, torch.device("cpu"))
    draws(source, SLOTS[:3])
    copied = again(source)  # type: ignore[operator]
    expected = draws(source, SLOTS[3:])
    assert all(map(torch.equal, draws(copied, SLOTS[3:]), expected))


def test_a_deep_brownian_tree_is_pickled() -> None:
    source = BrownianNoise(0)
    source.start((1, 2), torch.float32, torch.device("cpu"))
    for k in range(3000):  # every point splits the interval that is left
        source.increment("clock", 0.5 + k * 1e-4, 0.5 + (k + 1) * 1e-4)
    copied = pickle.loads(pickle.dumps(source))
    for a, b in ((0.5, 0.6), (0.8001, 0.80015)):
        expected = [x.clone() for x in source.increment("clock", a, b)]
        assert all(map(torch.equal, copied.increment("clock", a, b), expected))


@each_source
def test_one_source_serves_inference_mode_and_normal_mode(source: NoiseSource) -> None:
    expected = run(source)
    with torch.inference_mode():
        assert torch.equal(run(source), expected)
    assert torch.equal(run(source), expected)


@pytest.mark.parametrize("name", ["keyed", "brownian", "generator"])
def test_a_source_started_in_inference_mode_draws_outside_of_it(name: str) -> None:
    def source() -> NoiseSource:
        return srk.noise()[name](3)  # type: ignore[call-arg]

    with torch.inference_mode():
        started = source()
        started.start((4, 3), torch.float32, torch.device("cpu"))
        draws(started, SLOTS[:2])
    plain = source()
    plain.start((4, 3), torch.float32, torch.device("cpu"))
    draws(plain, SLOTS[:2])
    assert all(map(torch.equal, draws(started, SLOTS[2:]), draws(plain, SLOTS[2:])))


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@each_source
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_no_draw(source: NoiseSource, dtype: torch.dtype) -> None:
    source = source.fresh()
    source.start((4, 3), torch.float32, torch.device("cpu"))
    expected = draws(source, SLOTS)
    with default_dtype(dtype):
        source.start((4, 3), torch.float32, torch.device("cpu"))
        found = [torch.empty(4, 3, dtype=torch.float32) for _ in SLOTS]
        for slot, out in zip(SLOTS, found, strict=True):
            source.draw(slot, "clock", out)
    assert all(map(torch.equal, found, expected))


@each_source
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "heun", "etd-sra1", "euler-maruyama"])
def test_the_default_device_and_dtype_change_no_sample(source: NoiseSource, solver: str) -> None:
    expected = run(source, solver, steps=3)
    # a tensor made on "meta" by oversight has no numbers, so that any use of it fails or differs
    with torch.device("meta"), default_dtype(torch.float64):
        assert torch.equal(run(source, solver, steps=3, device="cpu"), expected)


def test_the_bits_lie_on_the_device_of_the_run_whatever_the_default_is() -> None:
    source = SampleNormals(3)
    source.start((2, 5))
    expected = source.words(torch.empty(0), "name")
    with torch.device("meta"):
        found = source.words(torch.empty(0, device="cpu"), "name")
    assert found.device.type == "cpu"
    assert torch.equal(found, expected)
    with default_dtype(torch.float16):
        made = normals(found, (2, 5), torch.float32)
    assert torch.equal(made, normals(expected, (2, 5), torch.float32))


@pytest.mark.parametrize("name", ["generator", "keyed", "brownian", "zero"])
def test_integers_of_all_libraries_are_seeds_of_all_sources(name: str) -> None:
    expected = run(name, seed=7)  # type: ignore[arg-type]
    for seed in (np.int64(7), np.uint8(7), torch.tensor(7), np.array(7)):
        assert torch.equal(run(name, seed=seed), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["generator", "keyed", "brownian", "zero"])
def test_seeds_of_any_size_and_sign_are_different_seeds(name: str) -> None:
    seeds = [
        0,
        1,
        -1,
        2**32,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        2**64,
        2**64 + 1,
        -(2**64) + 1,
        10**40,
    ]
    solutions = [
        srk.solve(PROCESS, SCORE, "ddpm", shape=(4, 3), steps=2, noise=name, seed=seed)
        for seed in seeds
    ]
    assert [solution.seed for solution in solutions] == seeds
    for i, one in enumerate(solutions):
        assert not any(torch.equal(one.x, other.x) for other in solutions[:i])


@pytest.mark.parametrize("name", ["generator", "keyed", "brownian", "zero"])
@pytest.mark.parametrize("seed", [True, 1.0, "1", np.float32(1), torch.tensor([1]), np.True_, 1j])
def test_what_is_not_an_integer_is_no_seed(name: str, seed: object) -> None:
    with pytest.raises(ArgumentTypeError, match="seed must be an int"):
        run(name, seed=seed)  # type: ignore[arg-type]


def test_usual_seeds_of_the_generator_are_pytorchs() -> None:
    assert [generator_seed(seed) for seed in (0, 5, 2**32 - 1)] == [0, 5, 2**32 - 1]
    for seed in (-1, 2**32, 2**64, -(2**70)):
        assert 0 <= generator_seed(seed) < 2**64
        torch.Generator().manual_seed(generator_seed(seed))


def test_a_source_that_was_not_started_says_so() -> None:
    with pytest.raises(ArgumentError, match="call start"):
        KeyedNoise(0).draw(SLOTS[0], "clock", torch.empty(4, 3))
    with pytest.raises(ArgumentError, match="draw number 0 has shape"):
        run(ReplayNoise(torch.zeros(9, 2, 3)))
    with pytest.raises(ArgumentTypeError, match="draws must be tensors"):
        ReplayNoise(5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="sequence of ints"):
        KeyedNoise(0, indices=5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("registries_restored")
def test_a_source_of_ones_own_has_a_name() -> None:
    @srk.register_noise
    class Quiet(GeneratorNoise):
        """`quiet`: half the noise."""

        name = "quiet"

        def draw(self, slot: Slot, clock: str, out: torch.Tensor) -> None:
            super().draw(slot, clock, out)
            out.mul_(0.5)

    assert "half the noise" in repr(srk.noise())
    assert torch.equal(run("quiet", seed=0), run(Quiet(0)))  # type: ignore[arg-type]
    with pytest.raises(DuplicateNameError, match="'quiet' is registered already"):
        srk.register_noise(Quiet)
    with pytest.raises(ArgumentTypeError, match="does not define draw, prior, start"):
        srk.register_noise(type("Nothing", (NoiseSource,), {"name": "nothing"}))
    with pytest.raises(ArgumentTypeError, match="from the seed alone"):
        srk.register_noise(ReplayNoise2)
    with pytest.raises(ArgumentTypeError, match="a subclass of srk"):
        srk.register_noise(3)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="has no name"):
        srk.register_noise(type("Unnamed", (Quiet,), {"name": ""}))


class ReplayNoise2(ReplayNoise):
    name = "replay2"

    def __init__(self, draws: torch.Tensor, second: int) -> None:
        super().__init__(draws)
