"""What a run gives back are ordinary tensors in inference mode, and changes are seen there too."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk

VP, TORUS = srk.VP(), srk.Torus()
SHIFTED = srk.Shifted(VP, mean=torch.linspace(-1.0, 1.0, 12).reshape(4, 3))
PRODUCT = srk.Product(a=VP, b=srk.EDM())
START = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)
LEVELS = srk.Levels.pyramid([1.0, 0.5, 0.001], 3)
DATA = srk.Data(lambda x, t: x * 0.9)
JOINT = srk.scores.Joint(
    lambda x, t: {name: 0.9 * part for name, part in x.items()}, a="data", b="data"
)
RUN: dict[str, Any] = {"steps": 4, "seed": 0}
SAVES = {"save": ["x", "denoised", "log_prob", "inputs"], "shape": (4, 3), **RUN}
PARTS = {"shape": {"a": (4, 3), "b": (4, 2)}, "save": ["x", "denoised"], **RUN}

RUNS: dict[str, Callable[[], Any]] = {
    "plain": lambda: srk.solve(VP, DATA, "ddpm", **SAVES),
    "pieces": lambda: srk.solve(VP, DATA, "ddpm", microbatch=3, **SAVES),
    "around a mean": lambda: srk.solve(SHIFTED, DATA, "ddpm", **SAVES),
    "complex": lambda: srk.solve(VP, DATA, "ddpm", dtype=torch.complex64, **SAVES),
    "x_init": lambda: srk.solve(
        VP, DATA, "ddpm", x_init=START.clone(), grid=[1.0, 0.5], denoise_final=False, seed=0
    ),
    "levels": lambda: srk.solve(VP, DATA, "ddpm", shape=(4, 3), grid=LEVELS, save="x", seed=0),
    "product": lambda: srk.solve(PRODUCT, JOINT, "ddpm", **PARTS),
    "pieces of a product": lambda: srk.solve(PRODUCT, JOINT, "ddpm", microbatch=3, **PARTS),
    "torus": lambda: srk.solve(
        TORUS, lambda x, t: -x.sin(), "euler-maruyama", shape=(4, 3), save="x", **RUN
    ),
    "rotations": lambda: srk.solve(
        srk.SO3(), lambda x, t: -0.1 * x, "euler-maruyama", shape=(4, 3), save="x", **RUN
    ),
    "inversion": lambda: srk.invert(VP, DATA, START.clone(), steps=4),
    "inversion around a mean": lambda: srk.invert(SHIFTED, DATA, START.clone(), steps=4),
    "roll": lambda: next(srk.roll(VP, DATA, "ddpm", window=2, shape=(4, 3), **RUN)),
}


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(tensors, value.values()))
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from tensors(getattr(value, field.name))


@pytest.mark.parametrize("name", RUNS)
def test_results_are_ordinary_tensors(name: str) -> None:
    expected = list(tensors(RUNS[name]()))
    with torch.inference_mode():
        made = list(tensors(RUNS[name]()))
    for one, other in zip(made, expected, strict=True):
        assert not one.is_inference()
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("process", [VP, SHIFTED], ids=["plain", "around a mean"])
def test_what_a_callback_writes_counts(process: Any, dtype: torch.dtype, inference: bool) -> None:
    def clear(info: srk.StepInfo) -> bool:
        info.x.zero_()
        return info.index == 1

    with torch.inference_mode(inference):
        sol = srk.solve(process, DATA, "ddpm", shape=(4, 3), dtype=dtype, callback=clear, **RUN)
    assert float(sol.x.abs().max()) < 1e-6


def test_frames_of_a_window_in_any_mode() -> None:
    def made(modes: list[bool]) -> list[Tensor]:
        frames, out = srk.roll(VP, DATA, "ddpm", window=2, shape=(4, 3), **RUN), []
        for mode in modes:
            with torch.inference_mode(mode):
                out.append(next(frames))
        return out

    expected = made([False] * 4)
    for modes in ([True, False, True, False], [False, True, True, False]):
        for frame, other in zip(made(modes), expected, strict=True):
            assert torch.equal(frame, other) and not frame.is_inference()


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("adapter", [srk.NoisePrediction, srk.Score, srk.Velocity, srk.Data])
@pytest.mark.parametrize("solver", ["ddpm", "srk2m"])
@pytest.mark.parametrize("process", ["shifted", "ouve", "cld"])
def test_a_change_of_a_state_made_for_the_network(
    process: str, solver: str, adapter: Any, inference: bool
) -> None:
    """A state around a mean, or read from phase space, is the adapter's after the call as well."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        return x.tanh_().mul_(0.3)

    score: Any = adapter(network)
    made: Any = {"shifted": SHIFTED, "ouve": srk.OUVE(mean=0.3), "cld": srk.CLD()}[process]
    shape: Any = (4, 3)
    if process == "cld":
        score, shape, solver = srk.Reduced(score), (4, 2, 3), "srk2m"
    with torch.inference_mode(inference), pytest.raises(srk.errors.ScoreError, match="in place"):
        srk.solve(made, score, solver, shape=shape, **RUN)


def test_a_change_of_the_input_on_a_torus() -> None:
    with torch.inference_mode(), pytest.raises(srk.errors.ScoreError, match="in place"):
        srk.solve(TORUS, lambda x, t: x.sin_().neg_(), "euler-maruyama", shape=(4, 3), **RUN)


def test_a_change_of_the_input_of_a_likelihood() -> None:
    for process in (VP, TORUS):
        with pytest.raises(srk.errors.ScoreError, match="in place"):
            srk.log_likelihood(
                process,
                srk.Score(lambda x, t: x.neg_()),
                START.clone(),
                prior=lambda x: x.flatten(1).sum(1),
            )


def test_what_was_saved_is_only_read() -> None:
    plain = srk.Sampler(VP, DATA, "ddpm", steps=4)
    writes = srk.Sampler(VP, srk.Data(lambda x, t: x.mul_(0.9)), "ddpm", steps=4)
    sol: Any = plain(shape=(4, 3), seed=0, save="x")
    kept = sol.trajectory.values.clone()
    with pytest.raises(srk.errors.ScoreError, match="in place"):
        writes.log_prob(sol)
    assert torch.equal(sol.trajectory.values, kept)

    def network(x: Any, t: Any) -> Any:
        return {name: part.mul_(0.9) for name, part in x.items()}

    joint = srk.scores.Joint(network, a="data", b="data")
    drawn: Any = srk.ProductSampler(PRODUCT, JOINT, "ddpm", steps=4)(
        shape=PARTS["shape"], seed=0, save="x"
    )
    states = {name: part.values.clone() for name, part in drawn.trajectory.items()}
    with pytest.raises(srk.errors.ScoreError, match="in place"):
        srk.ProductSampler(PRODUCT, joint, "ddpm", steps=4).log_prob(drawn)
    for name, value in states.items():
        assert torch.equal(drawn.trajectory[name].values, value)
