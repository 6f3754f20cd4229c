"""The compiled Philox loop against NumPy's generator: every word."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch

from srk.noise import philox
from srk.noise.counter import SampleNormals

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler; none here"
)


def numpys(stretches: list[philox.Stretch]) -> np.ndarray:
    """By the constructor of NumPy's generator, which takes key and counter as integers."""
    words = [
        np.random.Philox(key=int.from_bytes(key, "little"), counter=counter).random_raw(4 * n)
        for key, counter, n in stretches
    ]
    return np.concatenate(words).view(np.int32)


def stretches() -> list[philox.Stretch]:
    """Lengths around the number of lanes; counters up to 128 bits, some of which carry."""
    rng = np.random.default_rng(0)
    lengths = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 1000]
    far = [
        (rng.bytes(16), int(rng.integers(1 << 63)) * int(rng.integers(1 << 62)), n) for n in lengths
    ]
    return far + [
        ((1 << 64 | 5).to_bytes(16, "little"), counter, n)
        for n in lengths
        for counter in (0, (1 << 64) - 1, (1 << 64) - 20)
    ]


@needs_compiler
def test_the_loop_has_numpys_words() -> None:
    loop = philox.compiled()
    assert loop is not None, "there is a compiler, so the loop must build"
    assert np.array_equal(loop(stretches()).numpy(), numpys(stretches()))
    for stretch in stretches():
        assert np.array_equal(loop([stretch]).numpy(), numpys([stretch]))


@needs_compiler
def test_threads_share_a_stretch() -> None:
    loop, stretch = philox.compiled(), (bytes(range(16)), (1 << 64) - 5000, 10_001)
    assert loop is not None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert np.array_equal(loop([stretch]).numpy(), numpys([stretch]))
    finally:
        torch.set_num_threads(before)


def test_the_reference_sets_key_and_counter() -> None:
    reference = philox.Reference()
    assert np.array_equal(reference(stretches()).numpy(), numpys(stretches()))


@pytest.mark.parametrize(
    "which",
    [
        {"seed": 3, "first_index": 5},
        {"seed": 3, "indices": [4, 5, 9, 0]},
        {"seed": None, "seeds": [3, 8, 3, 1]},
    ],
)
@pytest.mark.parametrize("compiler", [pytest.param(True, marks=needs_compiler), False])
def test_a_batch_has_the_words_of_its_samples(
    which: dict[str, object], compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiler:
        monkeypatch.setattr(philox, "compiled", lambda: None)
    source = SampleNormals(**which)  # type: ignore[arg-type]
    source.start((4, 3, 7))
    words = source.words(torch.empty(0), "draw", 0.25)
    for row in range(4):
        alone = SampleNormals(**source.part(row, 1))
        alone.start((1, 3, 7))
        assert torch.equal(alone.words(torch.empty(0), "draw", 0.25)[0], words[row])


def test_without_a_compiler_there_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._inductor.codecache", None)
    philox.compiled.cache_clear()
    try:
        assert philox.compiled() is None
    finally:
        philox.compiled.cache_clear()
