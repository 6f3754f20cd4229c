"""compile='step': the same plans through fused kernels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk import compiled
from srk.noise.counter import SampleNormals, normals

VP = srk.VP()
TARGET = srk.targets.GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.2, 0.3]))
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="compile='step' needs a C++ compiler; none here"
)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' Python text is run as it is: what is tested is the text and who owns which buffer."""
    monkeypatch.setattr(compiled.Kernel, "__call__", lambda self, *tensors: self.function(*tensors))


def both(solver: str, noise: str, **kwargs: Any) -> tuple[srk.Solution, srk.Solution]:
    def run(compile: Any) -> srk.Solution:
        return srk.solve(
            VP, TARGET.score(VP), solver, shape=(5, 2), steps=7, seed=0, noise=noise, dtype=torch.float64, compile=compile, **kwargs
        )

    return run(False), run("step")


@pytest.mark.parametrize("noise", ["generator", "keyed"])
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_is_the_same(solver: str, noise: str, interpreted: None) -> None:
    """All states along the way."""
    eager, fused = both(solver, noise, save="x")
    assert torch.allclose(fused.x, eager.x, rtol=1e-9, atol=1e-9)
    assert torch.allclose(fused.trajectory.values, eager.trajectory.values, rtol=1e-9, atol=1e-9)  # type: ignore[union-attr]


def test_a_kernel_reads_and_writes_once(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """ddpm: one kernel a step, with the state, the network's result and the random bits in, and the state out."""
    calls: list[int] = []
    monkeypatch.setattr(compiled.Kernel, "__call__", lambda self, *tensors: (calls.append(len(tensors)), self.function(*tensors))[1])
    srk.solve(VP, srk.Noise(lambda x, t: 0.1 * x), "ddpm", shape=(5, 2), steps=7, noise="keyed", compile="step", denoise_final=False)
    assert calls == [5] * 7  # numbers, bits, state, result, and the state again as the place of the outcome


@pytest.mark.parametrize("shape", [(4, 7), (3, 2, 4, 4), (5, 1)])
def test_normals_of_words_are_the_draws(shape: tuple[int, ...]) -> None:
    source = SampleNormals(3)
    source.start(shape)
    out = torch.empty(shape)
    source.fill(out, "name", 0.5)
    assert torch.allclose(normals(source.words(out, "name", 0.5), shape, torch.float32), out, rtol=0, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("solver", ["ddpm", pytest.param("srk2m", marks=pytest.mark.slow), pytest.param("srk2s", marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", ["keyed", pytest.param("generator", marks=pytest.mark.slow)])
def test_compiled_by_inductor(solver: str, noise: str) -> None:
    eager, fused = both(solver, noise)
    assert torch.allclose(fused.x, eager.x, rtol=1e-6, atol=1e-6)  # the draws are made in float32


def test_refusals() -> None:
    def solve(**kwargs: Any) -> Callable[[], srk.Solution]:
        return lambda: srk.solve(VP, TARGET.score(VP), "srk2s", shape=(5, 2), steps=3, **kwargs)

    with pytest.raises(srk.errors.ArgumentError, match="compile must be"):
        solve(compile="fast")()
    with pytest.raises(srk.errors.IncompatibleError, match="compile=False"):
        solve(compile="step", grad=True)()
    with pytest.raises(srk.errors.IncompatibleError, match="fixed grid"):
        srk.solve(VP, TARGET.score(VP), "srk2s", shape=(5, 2), controller="adaptive", compile="step")


def test_a_missing_compiler_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor as inductor

    def broken(*args: Any, **kwargs: Any) -> Callable[[Tensor], None]:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(inductor, "compile", broken)
    compiled._kernel.cache_clear()
    with pytest.raises(srk.errors.IncompatibleError, match="No working C"):
        srk.solve(VP, TARGET.score(VP), "ddpm", shape=(6, 2), steps=3, compile="step")
