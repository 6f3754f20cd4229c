"""Memory of hooks, predictions and callbacks of a user's own: what they return, keep and write to.

Each says the same as an ordinary one that returns a new tensor, so that the samples must be the
same to the bit, or the run stops with an error that names the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ScoreError

VP = srk.VP()
SHAPE = (4, 3, 2)
LEVELS = srk.Levels.pyramid([1.0, 0.6, 0.3, 0.1, 0.01, 0.001], 3, 2)
Hook = Callable[[Tensor, Any], Tensor]


def network(x: Tensor, t: Tensor) -> Tensor:
    t = t.reshape(*t.shape, *[1] * (x.ndim - t.ndim)).to(x.dtype)
    return (0.7 * x * (1.0 - 0.5 * t)).tanh()


SCORE = srk.Data(network)


def plain(denoised: Tensor, level: Any) -> Tensor:
    return denoised * 0.9 + 0.05 * level.sigma


class OneBuffer:
    """Returns the same memory at every call."""

    def __init__(self) -> None:
        self.out: dict[Any, Tensor] = {}

    def __call__(self, denoised: Tensor, level: Any) -> Tensor:
        out = self.out.setdefault(denoised.shape, torch.empty_like(denoised))
        return out.copy_(plain(denoised, level))


class SpoilsResult:
    """Writes to what it returned at the call before."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, denoised: Tensor, level: Any) -> Tensor:
        if self.last is not None:
            self.last.fill_(7.0)
        self.last = plain(denoised, level)
        return self.last


class SpoilsInput:
    """Writes to what it got at the call before."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, denoised: Tensor, level: Any) -> Tensor:
        if self.last is not None:
            self.last.fill_(7.0)
        self.last = denoised
        return plain(denoised, level)


def strided(denoised: Tensor, level: Any) -> Tensor:
    made = plain(denoised, level)
    return torch.stack([made, made], -1)[..., 0]


def in_inference_mode(denoised: Tensor, level: Any) -> Tensor:
    with torch.inference_mode():
        return plain(denoised, level)


RUNS: dict[str, Callable[..., Any]] = {
    "plain": lambda hook, solver: srk.solve(
        VP, SCORE, solver, shape=SHAPE, steps=6, seed=0, hooks=[hook], save="denoised"
    ),
    "two": lambda hook, solver: srk.solve(
        VP, SCORE, solver, shape=SHAPE, steps=6, seed=0, hooks=[lambda d, level: d, hook]
    ),
    "levels": lambda hook, solver: srk.solve(
        VP, SCORE, solver, shape=SHAPE, grid=LEVELS, seed=0, hooks=[hook], save="denoised"
    ),
    "picard": lambda hook, solver: srk.solve(
        VP,
        SCORE,
        solver,
        shape=SHAPE,
        steps=6,
        seed=0,
        hooks=[hook],
        parallel=srk.Picard(window=3),
    ),
    "shifted": lambda hook, solver: srk.solve(
        srk.Shifted(VP, mean=0.3), SCORE, solver, shape=SHAPE, steps=6, seed=0, hooks=[hook]
    ),
    "guided": lambda hook, solver: srk.solve(
        VP,
        srk.Guided(srk.Hooked(SCORE, hook), srk.Hooked(SCORE, hook), 2.0),
        solver,
        shape=SHAPE,
        steps=6,
        seed=0,
    ),
}


def tensors(sol: srk.Solution) -> list[Tensor]:
    return [sol.x] if sol.denoised is None else [sol.x, sol.denoised.values.nan_to_num(9.0)]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "make",
    [OneBuffer, SpoilsResult, SpoilsInput, lambda: strided, lambda: in_inference_mode],
    ids=["one buffer", "spoils results", "spoils inputs", "strided", "inference"],
)
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "heun"])
def test_a_hooks_memory_is_its_own(run: str, make: Callable[[], Hook], solver: str) -> None:
    wanted = tensors(RUNS[run](plain, solver))
    found = None
    with suppress(ScoreError):
        found = tensors(RUNS[run](make(), solver))
    if found is None:
        with pytest.raises(ScoreError, match=r"wrote into the denoised|changed its input"):
            RUNS[run](make(), solver)
        return
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


def test_one_hook_for_all_groups_that_spoils_its_input_is_named() -> None:
    hook = SpoilsInput()
    with pytest.raises(ScoreError, match="wrote into the denoised prediction"):
        srk.solve(VP, SCORE, "srk2m", shape=SHAPE, grid=LEVELS, seed=0, hooks=[hook, hook])


class Own(srk.scores.Prediction):
    """A prediction of one's own with one buffer for all of its results."""

    def __init__(self, reuse: bool) -> None:
        self.reuse, self.out = reuse, torch.empty(0)

    def denoise(self, x: Tensor, level: Any, process: Any) -> Tensor:
        said = network(x, torch.full((len(x),), level.t))
        if not self.reuse:
            return said
        if self.out.shape != x.shape:
            self.out = torch.empty_like(x)
        return self.out.copy_(said)


@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "heun"])
@pytest.mark.parametrize("parallel", [None, srk.Picard(window=3)])
def test_a_prediction_of_ones_own_may_reuse_its_memory(solver: str, parallel: Any) -> None:
    one, two = (
        srk.solve(VP, Own(reuse), solver, shape=SHAPE, steps=6, seed=0, parallel=parallel).x
        for reuse in (True, False)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("options", [{"steps": 6}, {"grid": LEVELS}])
def test_a_callback_that_writes_to_the_prediction_changes_nothing_that_is_kept(
    options: dict[str, Any],
) -> None:
    def clip(info: srk.StepInfo) -> None:
        assert info.denoised is not None
        info.denoised.fill_(7.0)

    given: dict[str, Any] = {"shape": SHAPE, "seed": 0, "save": "denoised", **options}
    one = srk.solve(VP, SCORE, "srk2m", **given, callback=clip)
    two = srk.solve(VP, SCORE, "srk2m", **given)
    assert torch.equal(one.x, two.x)
    for found, wanted in zip(tensors(one), tensors(two), strict=True):
        assert torch.equal(found, wanted)


def in_place(x: Tensor, t: Tensor) -> Tensor:
    return x.copy_(network(x, t))


@pytest.mark.parametrize("parallel", [None, srk.Picard(window=3)])
@pytest.mark.parametrize("name", ["DDNM", "DDRM", "DiffPIR"])
def test_a_network_behind_a_posterior_that_writes_to_its_input_is_noticed(
    name: str, parallel: Any
) -> None:
    operator = srk.posterior.Linear(torch.eye(6)[:2])
    measurement = srk.posterior.Measurement(operator, torch.tensor([0.3, -0.2]), noise_std=0.1)
    posterior = srk.posterior.methods()[name](srk.Data(in_place), measurement)
    with pytest.raises(ScoreError, match="changed its input"):
        srk.solve(VP, posterior, "ddpm", shape=(4, 6), steps=6, seed=0, parallel=parallel)
