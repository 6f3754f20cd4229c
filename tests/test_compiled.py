"""compile='step': the same plans through fused kernels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk._engine import compiled
from srk._engine.eager import Executor, Stepper
from srk.integrators import Stage, StepPlan
from srk.noise import NoiseSource, philox
from srk.noise.counter import SampleNormals, normals

VP = srk.VP()
TARGET = srk.targets.GaussianMixture(
    torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.2, 0.3])
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="compile='step' needs a C++ compiler; none here",
)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' Python text is run as it is.

    What is tested is the text and who owns which buffer.
    """
    monkeypatch.setattr(
        compiled.Kernel, "__call__", lambda self, *tensors: self.interpret(*tensors)
    )


def both(solver: str, noise: str, **kwargs: Any) -> tuple[srk.Solution, srk.Solution]:
    def run(compile: Any) -> srk.Solution:
        return srk.solve(
            VP,
            TARGET.score(VP),
            solver,
            shape=(5, 2),
            steps=7,
            seed=0,
            noise=noise,
            dtype=torch.float64,
            compile=compile,
            **kwargs,
        )

    return run(False), run("step")


@pytest.mark.parametrize("noise", ["generator", "keyed"])
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_is_the_same(solver: str, noise: str, interpreted: None) -> None:
    """All states along the way."""
    eager, fused = both(solver, noise, save="x")
    assert torch.allclose(fused.x, eager.x, rtol=1e-9, atol=1e-9)
    assert torch.allclose(fused.trajectory.values, eager.trajectory.values, rtol=1e-9, atol=1e-9)


def test_a_kernel_reads_and_writes_once(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """ddpm.

    One kernel a step, with the state, the network's result and the random bits in, and the state
    out.
    """
    calls: list[int] = []
    monkeypatch.setattr(
        compiled.Kernel,
        "__call__",
        lambda self, *tensors: (calls.append(len(tensors)), self.interpret(*tensors))[1],
    )
    srk.solve(
        VP,
        srk.NoisePrediction(lambda x, t: 0.1 * x),
        "ddpm",
        shape=(5, 2),
        steps=7,
        noise="keyed",
        compile="step",
        denoise_final=False,
    )
    assert (
        calls == [5] * 7
    )  # numbers, bits, state, result, and the state again as the place of the outcome


def walk(executor: Stepper, plans: list[StepPlan], x: Tensor) -> list[Tensor]:
    """The states after each step, from a copy of `x`."""
    state, memory, states = x.clone(), [], []
    for plan in plans:
        outcome = executor.run(plan, state, memory)
        state, memory = outcome.state, outcome.keep
        states.append(state.clone())
    return states


def started(noise: str, x: Tensor) -> NoiseSource:
    source: NoiseSource = srk.noise()[noise](0)
    source.start(x.shape, x.dtype, x.device)
    return source


@pytest.mark.parametrize("noise", ["generator", "keyed"])
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_steps_joined_are_the_same(solver: str, noise: str, interpreted: None) -> None:
    """The first stage of a step formed in one kernel with the end of the step before.

    All states along the way, and again with the same plans.
    """
    plans = srk.Sampler(VP, TARGET.score(VP), solver, steps=7).plans()
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def evaluate(x: Tensor, stage: Stage) -> Tensor:
        return TARGET.score(VP).denoise(x, stage.level, VP)

    eager = walk(Executor(evaluate, started(noise, x)), plans, x)
    for _ in range(2):
        place = tuple(x.shape), x.dtype, x.device
        joined = walk(
            compiled.CompiledExecutor(evaluate, started(noise, x), place, plans), plans, x
        )
        for a, b in zip(joined, eager, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", ["generator", "keyed"])
def test_joined_steps_are_one_kernel_each(noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """srk2m, whose stage is not the state.

    One kernel between two network calls instead of two, which touches fewer tensors than the two
    did.
    """
    plans, x = srk.Sampler(VP, srk.Data(lambda x, t: x), "srk2m", steps=7).plans(), torch.ones(5, 2)
    place = tuple(x.shape), x.dtype, x.device

    def touched(joined: bool) -> list[int]:
        calls: list[int] = []
        monkeypatch.setattr(
            compiled.Kernel,
            "__call__",
            lambda self, *tensors: (calls.append(len(tensors)), self.interpret(*tensors))[1],
        )
        executor = compiled.CompiledExecutor(
            lambda x, stage: 0.5 * x, started(noise, x), place, plans if joined else ()
        )
        walk(executor, plans, x)
        return calls

    one, two = touched(True), touched(False)
    assert (len(one), len(two)) == (
        8,
        14,
    )  # joined: the first stage, six in between, the last update
    assert (
        sum(one) <= sum(two) - 6 * 3
    )  # in each of the six: the coefficients, the state and the kept row are there already


def test_a_callback_may_write_to_the_state(interpreted: None) -> None:
    def damp(info: srk.StepInfo) -> None:
        info.x.mul_(0.5)

    eager, fused = both("srk2m", "keyed", callback=damp)
    assert torch.allclose(fused.x, eager.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 7), (3, 2, 4, 4), (5, 1)])
def test_normals_of_words_are_the_draws(shape: tuple[int, ...]) -> None:
    source = SampleNormals(3)
    source.start(shape)
    out = torch.empty(shape)
    source.fill(out, "name", 0.5)
    assert torch.allclose(
        normals(source.words(out, "name", 0.5), shape, torch.float32), out, rtol=0, atol=1e-6
    )


@needs_compiler
@pytest.mark.parametrize(
    "solver",
    [
        "ddpm",
        pytest.param("srk2m", marks=pytest.mark.slow),
        pytest.param("srk2s", marks=pytest.mark.slow),
    ],
)
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
        srk.solve(VP, TARGET.score(VP), "srk2s", shape=(5, 2), grid="adaptive", compile="step")


def test_the_loop_needs_a_gpu() -> None:
    with pytest.raises(
        srk.errors.IncompatibleError, match="captures a CUDA graph, but the state is on cpu"
    ):
        srk.solve(VP, TARGET.score(VP), "ddpm", shape=(5, 2), steps=3, compile="loop")


@pytest.mark.gpu
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "srk2s", "sra1"])
def test_a_captured_loop_draws_the_same_numbers(solver: str) -> None:
    """A graph replayed with other seeds equals the eager runs with them.

    A wait for the device inside would have failed the capture.
    """
    weight = (
        torch.randn(2, 2, device="cuda", generator=torch.Generator("cuda").manual_seed(0)) * 0.3
    )

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x @ weight)

    eager = srk.Sampler(VP, srk.Data(network), solver, steps=6)
    loop = srk.Sampler(VP, srk.Data(network), solver, steps=6, compile="loop")
    for seed in (0, 1, 0):
        a, b = eager((64, 2), seed=seed, device="cuda"), loop((64, 2), seed=seed, device="cuda")
        assert torch.allclose(a.x, b.x, rtol=1e-5, atol=1e-6)
        assert (b.nfe, b.steps, b.seed, b.times) == (a.nfe, a.steps, a.seed, a.times)
    x_init = torch.randn(64, 2, device="cuda")
    assert torch.allclose(
        eager(x_init=x_init, seed=3).x, loop(x_init=x_init, seed=3).x, rtol=1e-5, atol=1e-6
    )
    for noise in ("keyed", "brownian"):
        for seed in (0, 1):
            a, b = (run((64, 2), seed=seed, device="cuda", noise=noise) for run in (eager, loop))
            assert torch.allclose(a.x, b.x, rtol=1e-5, atol=1e-6)
    with pytest.raises(srk.errors.IncompatibleError, match="without the host"):
        loop((64, 2), seed=0, device="cuda", save="x")


@pytest.mark.gpu
@pytest.mark.parametrize("noise", ["generator", "keyed"])
def test_compiled_step_on_the_gpu(noise: str) -> None:
    """Fused kernels against eager ones; the keyed draws are those of the CPU."""
    network = srk.Data(lambda x, t: torch.tanh(0.3 * x))
    kwargs: dict[str, Any] = {"shape": (64, 3, 8, 8), "steps": 6, "seed": 0, "noise": noise}
    eager = srk.solve(VP, network, "srk2m", device="cuda", **kwargs)
    fused = srk.solve(VP, network, "srk2m", device="cuda", compile="step", **kwargs)
    assert torch.allclose(eager.x, fused.x, rtol=1e-4, atol=1e-4)
    if noise == "keyed":
        assert torch.allclose(
            srk.solve(VP, network, "srk2m", **kwargs).x, eager.x.cpu(), rtol=1e-4, atol=1e-4
        )


@pytest.mark.gpu
def test_a_bf16_network_with_a_float32_state() -> None:
    layer = torch.nn.Linear(64, 64, device="cuda", dtype=torch.bfloat16)
    sol = srk.solve(
        VP,
        srk.Data(lambda x, t: layer(x), network_dtype=torch.bfloat16),
        "srk2m",
        shape=(32, 64),
        steps=6,
        device="cuda",
        seed=0,
    )
    assert sol.x.dtype == torch.float32 and bool(torch.isfinite(sol.x).all())
    whole = torch.nn.Linear(64, 64, device="cuda")
    auto = srk.solve(
        VP,
        srk.Data(lambda x, t: whole(x)),
        "srk2m",
        shape=(32, 64),
        steps=6,
        device="cuda",
        seed=0,
        autocast=torch.bfloat16,
    )
    assert auto.x.dtype == torch.float32 and bool(torch.isfinite(auto.x).all())


def test_a_missing_compiler_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor as inductor

    def broken(*args: Any, **kwargs: Any) -> Callable[[Tensor], None]:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(inductor, "compile", broken)
    compiled.kernel.cache_clear()
    with pytest.raises(srk.errors.IncompatibleError, match="No working C"):
        srk.solve(VP, TARGET.score(VP), "ddpm", shape=(6, 2), steps=3, compile="step")


@needs_compiler
def test_compiling_leaves_denormal_numbers_alone() -> None:
    """What torch 2.4 compiles is linked so that loading it makes the thread flush them."""
    least = torch.tensor(5e-324, dtype=torch.float64)
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            flushed = bool(least + least == 0)
            score = TARGET.score(VP)
            philox.compiled.cache_clear()
            srk.solve(VP, score, "ddpm", shape=(3, 2), steps=2, seed=0, noise="keyed")
            # its own shape, so that its kernels are not those of another test
            srk.solve(VP, score, "ddpm", shape=(3 + flush, 2), steps=2, seed=0, compile="step")
            assert bool(least + least == 0) == flushed
        finally:
            torch.set_flush_denormal(False)
