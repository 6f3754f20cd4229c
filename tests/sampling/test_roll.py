"""Windows that roll over endless sequences, against Gaussian sequences and separate runs."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError
from srk.noise import part_seed

VP = srk.VP(t_min=1e-4)


def frames(roll: Any, count: int) -> Tensor:
    return torch.stack(list(itertools.islice(roll, count)), 1)


def sequence(x: Tensor, t: Tensor) -> Tensor:
    """E[x0 | x_t] of the stationary sequence with the autocovariance 0.8^k: (batch, frames)."""
    lag = (torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])[None]).abs()
    covariance = (0.8**lag).to(x)
    levels = [VP.level(float(time)) for time in t[0]]
    alpha = torch.diag(torch.tensor([level.alpha for level in levels]).to(x))
    sigma = torch.diag(torch.tensor([level.sigma for level in levels]).to(x))
    total = alpha @ covariance @ alpha + sigma**2
    return torch.linalg.solve(total, x.T).T @ alpha @ covariance


def network(x: Tensor, t: Tensor) -> Tensor:
    """A bent denoiser of each frame for itself: x (batch, frames, 2) or (batch, 2)."""
    if t.ndim == 1:
        return network(x[:, None], t[:, None])[:, 0]
    levels = [VP.level(float(value)) for value in t[0]]
    gain = [0.3 * at.alpha / (0.3 * at.alpha**2 + at.sigma**2) for at in levels]
    return (x * torch.tensor(gain, dtype=x.dtype)[:, None]).tanh()


@pytest.mark.parametrize(("window", "context", "steps"), [(4, 1, 31), (3, 2, 29), (1, 1, 24)])
def test_a_gaussian_sequence_has_its_autocovariance(window: int, context: int, steps: int) -> None:
    """Frames are drawn given those before; the window does not divide the steps everywhere."""
    rolling = srk.roll(
        VP,
        srk.Data(sequence),
        "srk2m",
        window=window,
        shape=(400,),
        context=context,
        steps=steps,
        seed=0,
        dtype=torch.float64,
    )
    x = frames(rolling, 30)
    for lag in range(6):
        products = (x[:, lag:] * x[:, : 30 - lag]).mean(1)
        error = float(products.std()) / math.sqrt(len(x))
        assert abs(float(products.mean()) - 0.8**lag) < 6 * error
    assert abs(float(x.mean())) < 6 * float(x.mean(1).std()) / math.sqrt(len(x))
    newest = (x[:, 20:] ** 2).mean(1)  # stationary: the later frames are as the first ones
    oldest = (x[:, :10] ** 2).mean(1)
    change = newest - oldest
    assert abs(float(change.mean())) < 6 * float(change.std()) / math.sqrt(len(x))
    assert rolling.nfe == 29 * (steps + 1) // window + steps + 1


@pytest.mark.parametrize("solver", ["auto", "ddpm", "dpmpp-2m", "srk2m", "euler-maruyama"])
def test_frames_that_know_nothing_of_each_other_are_separate_runs(solver: str) -> None:
    """Each frame is a run of its own, bit for bit, whose seed is that of the frame."""
    eta = {"dpmpp-2m": 0.0}.get(solver, 1.0)
    options: dict[str, Any] = {"steps": 7, "eta": eta}
    for noise in ("keyed", "generator", "brownian"):
        rolled = srk.roll(
            VP, srk.Data(network), solver, window=3, shape=(2, 2), seed=5, noise=noise, **options
        )
        x = frames(rolled, 5)
        for number in range(5):
            seed = part_seed(5, f"frame {number}")
            own = srk.solve(
                VP,
                srk.Data(network),
                solver,
                shape=(2, 1, 2),
                seed=seed,
                noise=noise,
                grid=None,
                **options,
            )
            assert torch.equal(x[:, number], own.x[:, 0])


def test_a_frame_does_not_depend_on_window_batch_or_axis() -> None:
    score = srk.Data(network)
    options: dict[str, Any] = {"shape": (3, 2), "steps": 7, "seed": 1}
    one = frames(srk.roll(VP, score, window=2, **options), 4)
    assert torch.equal(one, frames(srk.roll(VP, score, window=4, context=0, **options), 4))
    wide = {**options, "shape": (5, 2)}
    assert torch.equal(one, frames(srk.roll(VP, score, window=2, **wide), 4)[:3])
    last = srk.Data(lambda x, t: network(x.mT, t).mT)
    turned = srk.roll(VP, last, window=2, axis=-1, **options)
    assert torch.equal(one, frames(turned, 4))


def test_what_the_network_sees() -> None:
    seen: list[list[float]] = []

    def spy(x: Tensor, t: Tensor, y: int) -> Tensor:
        assert x.shape[:2] == t.shape == (3, len(t[0]))
        assert y == 1
        seen.append(t[0].tolist())
        return 0 * x

    rolling = srk.roll(
        VP,
        srk.Data(spy, model_kwargs={"y": 1}),
        "ddpm",
        window=2,
        shape=(3, 2),
        context=2,
        grid=[1.0, 0.7, 0.4, 1e-4],
        seed=0,
    )
    next(rolling)
    times = [1.0, 0.7, 0.4, 1e-4]
    first = [[1.0, 1.0], [0.7, 1.0], [0.4, 1.0], [1e-4, 0.7]]
    assert seen == [pytest.approx(row, rel=1e-5) for row in first]
    assert rolling.nfe == 4
    next(rolling)
    assert seen[4] == pytest.approx([1e-4, 0.4, 1.0], rel=1e-5)  # the first is done
    for _ in range(4):
        next(rolling)
    assert all(len(row) == 4 for row in seen[-6:])
    assert seen[-1] == pytest.approx([1e-4, 1e-4, times[3], times[1]], rel=1e-5)


def test_frames_to_go_on_from() -> None:
    given = torch.tensor([[0.4, 2.5]]).double().expand(500, 2)
    rolling = srk.roll(
        VP,
        srk.Data(sequence),
        "srk2m",
        window=2,
        shape=(500,),
        x_init=given,
        steps=31,
        seed=0,
        dtype=torch.float64,
    )
    x = next(rolling)
    assert abs(float(x.mean()) - 0.8 * 2.5) < 6 * 0.6 / math.sqrt(500)
    assert float(x.std()) == pytest.approx(0.6, rel=0.15)


def test_guidance_of_frames() -> None:
    def conditioned(x: Tensor, t: Tensor, y: float) -> Tensor:
        return network(x, t) + y

    def pair(y: float) -> srk.Data:
        return srk.Data(conditioned, model_kwargs={"y": y})

    guided = srk.Guided(pair(0.3), pair(0.1), 2.0)
    rolling = srk.roll(VP, guided, "ddpm", window=3, shape=(2, 2), steps=5, seed=1)
    same = srk.roll(VP, pair(0.5), "ddpm", window=3, shape=(2, 2), steps=5, seed=1)
    assert torch.allclose(frames(rolling, 3), frames(same, 3), atol=1e-6)
    assert rolling.nfe == 2 * same.nfe


def test_memory_is_that_of_the_window() -> None:
    rolling = srk.roll(VP, srk.Data(network), "srk2m", window=2, shape=(2, 2), steps=5, seed=1)

    def held() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    for _ in range(4):
        next(rolling)
    before = held()
    for _ in range(20):
        next(rolling)
    assert held() <= before
    assert rolling.finished == 24


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": 9}, ArgumentError, "window=9 frames"),
        ({"window": 0}, ArgumentError, "window"),
        ({"axis": 0}, ArgumentError, "axis=0"),
        ({"axis": 3}, ArgumentError, "axis=3"),
        ({"noise": srk.noise.KeyedNoise(0)}, ArgumentTypeError, "name of a source"),
        (
            {"grid": "adaptive", "steps": None, "noise": "brownian", "solver": "srk2"},
            IncompatibleError,
            "all frames take theirs together",
        ),
        ({"solver": "heun"}, IncompatibleError, "evaluated together"),
        ({"process": srk.CLD()}, IncompatibleError, "linear process"),
        ({"process": srk.Torus()}, IncompatibleError, "linear process"),
        ({"x_init": torch.zeros(2, 2)}, ArgumentError, "x_init of shape"),
        ({"score": srk.targets.Gaussian(0.0, 1.0).score(VP)}, IncompatibleError, "srk.Guided"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {
        "process": VP,
        "score": srk.Data(network),
        "solver": "ddpm",
        "window": 2,
        "shape": (2, 2),
        "steps": 6,
        "seed": 0,
        **options,
    }
    with pytest.raises(error, match=message):
        srk.roll(**given)


def test_a_failure_is_that_of_a_run() -> None:
    rolling = srk.roll(VP, srk.Data(lambda x, t: x * math.nan), window=2, shape=(2, 2), steps=4)
    with pytest.raises(SolveError, match="'frame 0 of the window', the score returned NaN"):
        next(rolling)


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("solver", ["srk2m", "dpmpp-2m"])
def test_a_window_that_rolls_is_copied_and_pickled(solver: str, taken: int) -> None:
    def start() -> Any:
        made = srk.roll(VP, srk.Data(network), solver, window=3, shape=(2, 2), steps=7, seed=5)
        frames(made, taken) if taken else None
        return made

    ordinary = start()
    wanted = frames(ordinary, 4)
    for other in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        one = start()
        two = other(one)
        pairs = [(next(one), next(two)) for _ in range(4)]  # one after the other
        for number, pair in enumerate(pairs):
            for frame in pair:
                assert torch.equal(frame, wanted[:, number])
        assert one.nfe == two.nfe == ordinary.nfe


def test_a_copy_of_a_window_has_the_same_network() -> None:
    layer = torch.nn.Linear(2, 2)
    rolling = srk.roll(VP, srk.Data(lambda x, t: layer(x)), window=2, shape=(3, 2), steps=5, seed=0)
    other = copy.copy(rolling)
    first = next(rolling).clone()
    with torch.no_grad():
        layer.weight.zero_()
    assert not torch.equal(next(other), first)
