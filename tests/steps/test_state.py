"""The state of a run lives in the run: controllers are shared by threads, copied and pickled at any
moment, and every run equals the serial one bit for bit.
"""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch

import srk
from srk.steps import Adaptive, Budget, Decision, Report, RunInfo, StepController

VP = srk.VP()
TARGET = srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.05, 0.1])
SCORE = TARGET.score(VP)


class Growing(StepController):
    """Steps that grow; what it remembers stands on `self`, as a user would write it."""

    name = "growing"

    def first(self, info: RunInfo) -> tuple[float, float]:
        self.process, self.length = info.process, 0.05
        return VP.t_max, VP.t_max - self.length

    def next(self, report: Report) -> Decision:
        self.length *= 1.2
        left = report.stop - VP.t_min
        if left <= 0.0:
            return Decision(True, None)
        return Decision(True, VP.t_min if left < 1.5 * self.length else report.stop - self.length)


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adaptive": (Adaptive(rtol=0.05, atol=0.05), {}),
    "adaptive by sample": (Adaptive(rtol=0.02, atol=0.02, norm="sample"), {}),
    "adaptive by doubling": (Adaptive(rtol=0.1, atol=0.1, estimate="doubling"), {}),
    "a controller of a user": (Growing(), {}),
    "budget": (Budget(samples=16, steps=8), {"steps": 6}),
    "karras": (srk.steps.Karras(), {"steps": 6}),
    "times": (srk.steps.Times([1.0, 0.5, 0.1, 0.001]), {}),
}


def run(grid: Any, seed: int, **options: Any) -> torch.Tensor:
    noise = srk.noise.BrownianNoise(seed)
    sol = srk.solve(VP, SCORE, "srk2", shape=(8, 1), grid=grid, noise=noise, **options)
    assert sol.success
    return sol.x


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_controller(kind: str) -> None:
    grid, options = KINDS[kind]
    serial = [run(copy.deepcopy(grid), seed, **options) for seed in range(4)]
    found: list[Any] = [None] * 4

    def work(seed: int) -> None:
        found[seed] = run(grid, seed, **options)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(serial, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", [False, True])
def test_copies_are_the_controller(kind: str, used: bool) -> None:
    grid, options = KINDS[kind]
    grid = copy.deepcopy(grid)
    before = run(copy.deepcopy(grid), 1, **options)
    if used:
        run(grid, 7, **options)
    for other in (
        grid,
        copy.copy(grid),
        copy.deepcopy(grid),
        pickle.loads(pickle.dumps(grid)),
    ):
        assert torch.equal(run(other, 1, **options), before)


def test_a_copy_within_a_run_is_one_too() -> None:
    """Copied and pickled between two steps of its run."""
    grid = Adaptive(rtol=0.05, atol=0.05)
    copies: list[Any] = []

    def callback(info: srk.StepInfo) -> None:
        copies.append(pickle.loads(pickle.dumps(copy.deepcopy(grid))))

    noise = srk.noise.BrownianNoise(1)
    whole = srk.solve(VP, SCORE, "srk2", shape=(8, 1), grid=grid, noise=noise, callback=callback).x
    assert torch.equal(whole, run(copies[2], 1)) and len(copies) > 3


def test_a_controller_alone_says_that_it_remembers_no_run() -> None:
    info = RunInfo(VP, srk.solvers()["srk2"], None, noise=srk.noise.BrownianNoise(0))
    assert Adaptive().first(info)[0] == VP.t_max
    with pytest.raises(srk.errors.IncompatibleError, match="fresh"):
        Adaptive().next(None)  # type: ignore[arg-type]


def test_microbatches_share_one_pilot() -> None:
    """Also where conditions belong to samples, so that the pieces are other networks."""

    def network(x: torch.Tensor, t: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = SCORE(x - shift, t)
        return out

    score = srk.Score(network, model_kwargs={"shift": torch.linspace(-1, 1, 6)[:, None]})
    whole, cut = (
        srk.solve(
            VP,
            score,
            "srk2",
            shape=(6, 1),
            grid=Budget(samples=16, steps=8),
            steps=5,
            noise="keyed",
            seed=3,
            microbatch=size,
        )
        for size in (6, 2)
    )
    assert whole.times == cut.times and torch.equal(whole.x, cut.x)
