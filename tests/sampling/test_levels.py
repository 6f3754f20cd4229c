"""Elements with times of their own, against ordinary runs and Gaussian sequences."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    ScoreError,
    SolveError,
    TimeError,
)

VP = srk.VP(t_min=1e-4)
SHAPE = (3, 5, 2)
ABOVE = srk.VP(t_min=1e-4, t_max=4.0)  # some solvers go above the highest level of the process


def grid(steps: int) -> list[float]:
    return srk.steps.LogSNR().times(srk.steps.RunInfo(VP, None, steps))


def network(x: Tensor, t: Tensor) -> Tensor:
    """A bent denoiser of each element for itself."""
    if t.ndim == 1:
        t = t[:, None].expand(-1, x.shape[1])
    levels = [ABOVE.level(float(value)) for value in t[0]]
    gain = [0.3 * at.alpha / (0.3 * at.alpha**2 + at.sigma**2) for at in levels]
    return (x * torch.tensor(gain, dtype=x.dtype)[:, None]).tanh()


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_equal_columns_are_the_ordinary_run_bit_for_bit(solver: str) -> None:
    times, score = grid(6), srk.Data(network)
    levels = srk.Levels([[t] * 5 for t in times])
    for options in ({"noise": "generator"}, {"noise": "keyed"}, {"denoise_final": False}):
        one = srk.solve(VP, score, solver, shape=SHAPE, grid=levels, seed=1, **options)
        two = srk.solve(VP, score, solver, shape=SHAPE, grid=times, seed=1, **options)
        assert torch.equal(one.x, two.x)
        assert (one.nfe, one.steps, one.solver) == (two.nfe, two.steps, two.solver)
        assert one.times == pytest.approx(two.times, rel=1e-12)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_elements_that_know_nothing_of_each_other_need_not_move_together(solver: str) -> None:
    times, score = grid(6), srk.Data(network)
    ordinary = srk.solve(VP, score, solver, shape=SHAPE, grid=times, seed=1).x
    for delay in (1, 2, 6):
        levels = srk.Levels.pyramid(times, 5, delay)
        sol = srk.solve(VP, score, solver, shape=SHAPE, grid=levels, seed=1)
        assert torch.equal(sol.x, ordinary)
        assert sol.steps == 6 + 4 * delay


def test_each_step_of_an_element_has_its_own_eta() -> None:
    times, score, etas = grid(4), srk.Data(network), [1.0, 0.7, 0.3, 0.0]
    one = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=times, seed=1, eta=etas)
    levels = srk.Levels.pyramid(times, 5, 2)
    for eta in (etas, lambda level: etas[times.index(level.t)]):
        sol = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=levels, seed=1, eta=eta)
        assert torch.equal(sol.x, one.x)
        assert sol.eta == one.eta


def test_the_states_along_the_run() -> None:
    times, score = grid(4), srk.Data(network)
    equal = srk.Levels([[t] * 5 for t in times])
    one = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=equal, seed=1, save="x").trajectory
    two = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=times, seed=1, save="x").trajectory
    assert one is not None
    assert two is not None
    assert torch.equal(one.values, two.values)
    pyramid = srk.Levels.pyramid(times, 5, 2)
    saved = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=pyramid, seed=1, save="x").trajectory
    assert saved is not None
    for element in range(5):  # each has the states of the ordinary run, later by its delay
        first = 2 * element
        own = saved.values[first : first + 5, :, element]
        assert torch.equal(own, two.values[:, :, element])


def test_the_network_sees_all_elements_at_their_times() -> None:
    seen: list[list[float]] = []

    def spy(x: Tensor, t: Tensor, y: int) -> Tensor:
        assert x.shape == (3, 2, 5)
        assert t.shape == (3, 5)
        assert y == 1
        seen.append(t[0].tolist())
        return 0 * x

    levels = srk.Levels.pyramid(grid(4), 5, axis=-1)
    score = srk.Data(spy, model_kwargs={"y": 1})
    sol = srk.solve(VP, score, "ddpm", shape=(3, 2, 5), grid=levels, seed=0)
    assert sol.nfe == len(seen) == len(levels.schedule)  # a call a step, and the final denoising
    for found, wanted in zip(seen, levels.schedule, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


# A stationary Gaussian sequence: D = C A (A C A + S^2)^-1 x with A and S by element.
COVARIANCE = 0.8 ** (torch.arange(4)[:, None] - torch.arange(4)[None]).abs().double()


def sequence(x: Tensor, t: Tensor) -> Tensor:
    levels = [VP.level(float(value)) for value in t[0]]
    alpha = torch.diag(torch.tensor([level.alpha for level in levels], dtype=x.dtype))
    sigma = torch.diag(torch.tensor([level.sigma for level in levels], dtype=x.dtype))
    gain = COVARIANCE @ alpha @ torch.linalg.inv(alpha @ COVARIANCE @ alpha + sigma**2)
    return x @ gain.T


def columns(levels: srk.Levels, solver: str, x_init: Tensor | None = None) -> Tensor:
    """The columns of the linear map that takes all normals to what a solver gives."""
    row = [0]

    def draw(slot: Any, clock: str, out: Tensor) -> None:
        out.zero_()
        for element in range(4):
            out[row[0] + element, element] = 1.0
        row[0] += 4

    size = 4 * 4 * (len(levels.schedule) + 2)
    if x_init is not None:
        x_init = x_init.expand(size, -1)
    options: dict[str, Any] = {"noise": draw, "dtype": torch.float64, "grid": levels}
    return srk.solve(VP, srk.Data(sequence), solver, shape=(size, 4), x_init=x_init, **options).x


@pytest.mark.parametrize("make", ["pyramid", "rolling", "blocks", "one by one"])
def test_a_gaussian_sequence_has_its_autocovariance(make: str) -> None:
    errors = []
    for steps in (16, 32):
        levels = {
            "pyramid": lambda times: srk.Levels.pyramid(times, 4, 1),
            "rolling": lambda times: srk.Levels.rolling(times, 4, window=2),
            "blocks": lambda times: srk.Levels.blocks(times, 4, size=3),
            "one by one": lambda times: srk.Levels.blocks(times, 4, size=1),
        }[make](grid(steps))
        found = columns(levels, "srk2m")
        errors.append(float((found.T @ found - COVARIANCE).abs().max()))
    assert errors[1] < 5e-3
    assert errors[0] > 3 * errors[1]


def test_a_fixed_prefix_conditions_the_rest() -> None:
    given = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    levels = srk.Levels.prefix(grid(40), 4, fixed=2)
    zero = columns(levels, "srk2m", 0 * given)
    assert (zero[:, :2] == 0).all()
    gain = COVARIANCE[2:, :2] @ torch.linalg.inv(COVARIANCE[:2, :2])
    covariance = COVARIANCE[2:, 2:] - gain @ COVARIANCE[:2, 2:]
    assert (zero.T @ zero)[2:, 2:].sub(covariance).abs().max() < 5e-3
    mean = columns(levels, "srk2m", given)[-1]  # the last row has drawn nothing
    assert torch.equal(mean[:2], given[0])
    assert mean[2:].sub(gain @ given[0]).abs().max() < 5e-3


def test_a_whole_state_at_the_start_and_gradients() -> None:
    times, x_init = grid(5)[2:], torch.randn(SHAPE)
    levels = srk.Levels([[t] * 5 for t in times])
    kept = x_init.clone()
    one = srk.solve(VP, srk.Data(network), "ddpm", x_init=x_init, grid=levels, seed=0)
    two = srk.solve(VP, srk.Data(network), "ddpm", x_init=x_init, grid=times, seed=0)
    assert torch.equal(one.x, two.x)
    assert torch.equal(x_init, kept)
    start = x_init.requires_grad_()
    pyramid = srk.Levels.pyramid(times, 5)
    sol = srk.solve(VP, srk.Data(network), "ddpm", x_init=start, grid=pyramid, seed=0, grad=True)
    (slope,) = torch.autograd.grad(sol.x.sum(), start)
    assert slope.isfinite().all()
    assert (slope != 0).all()


def test_guidance_of_elements() -> None:
    """Two networks, each called once for all elements, and only where it has a weight."""
    calls = [0, 0]

    def pair(which: int, y: float) -> srk.Data:
        def conditioned(x: Tensor, t: Tensor) -> Tensor:
            assert x.shape == SHAPE
            assert t.shape == SHAPE[:2]
            calls[which] += 1
            return network(x, t) + y

        return srk.Data(conditioned)

    pyramid = srk.Levels.pyramid(grid(6), 5, 2)
    guided = srk.Guided(pair(0, 0.3), pair(1, 0.1), 2.0)
    one = srk.solve(VP, guided, "srk2m", shape=SHAPE, grid=pyramid, seed=1)
    two = srk.solve(VP, pair(0, 0.5), "srk2m", shape=SHAPE, grid=pyramid, seed=1)
    assert torch.allclose(one.x, two.x, atol=1e-5)
    assert one.nfe == 2 * two.nfe
    calls[:] = [0, 0]
    some = srk.scores.limited(2.0, 0.3, 5.0)  # elements outside need the condition alone
    limited = srk.Guided(pair(0, 0.3), pair(1, 0.1), some)
    sol = srk.solve(VP, limited, "srk2m", shape=SHAPE, grid=pyramid, seed=1)
    assert calls[1] < calls[0] == two.nfe
    assert sol.nfe == sum(calls)
    equal = srk.Levels([[t] * 5 for t in grid(6)])
    for score in (guided, limited):
        sol = srk.solve(VP, score, "srk2m", shape=SHAPE, grid=equal, seed=1)

        def ordinary(y: float) -> srk.Data:
            return srk.Data(lambda x, t: network(x, t) + y)

        plain = attrs.evolve(score, condition=ordinary(0.3), reference=ordinary(0.1))
        own = srk.solve(VP, plain, "srk2m", shape=SHAPE, grid=grid(6), seed=1)
        assert torch.equal(sol.x, own.x)
    for other, message in (
        (attrs.evolve(guided, rescale=0.7), "cannot be rescaled"),
        (srk.scores.APG(pair(0, 0.1), pair(1, 0.1)), "whole samples"),
    ):
        with pytest.raises(IncompatibleError, match=message):
            srk.solve(VP, other, shape=SHAPE, grid=pyramid, seed=1)


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ([1.0, 0.5], ArgumentTypeError, "a matrix of own times"),
        ([[1.0, 1.0]], ArgumentError, "two rows or more"),
        ([[1.0, 1.0], [0.5]], ArgumentError, r"rows of \[2, 1\] entries"),
        ([[1.0, 0.5], [0.5, 0.6]], TimeError, r"element 1 goes from 0.5 in row 0 to 0.6"),
        ([[1.0, float("nan")], [0.5, 0.5]], TimeError, "element 1"),
        ([[0.5, 0.1], [0.5, 0.1]], TimeError, "no element of the schedule moves"),
        ([["a", 1.0], [0.5, 0.5]], ArgumentTypeError, "an entry of a schedule"),
    ],
)
def test_wrong_schedules(schedule: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        srk.Levels(schedule)


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ([], ArgumentError, "two or more"),
        ([1.0], ArgumentError, "two or more"),
        (None, ArgumentTypeError, "times are own times"),
        ("abc", ArgumentTypeError, "times are own times"),
        (["a", "b"], ArgumentTypeError, "a time of an element"),
        ([0.1, 1.0], TimeError, "go from noise to data"),
    ],
)
def test_wrong_times_of_the_makers(times: Any, error: type[Exception], message: str) -> None:
    for make in (
        lambda: srk.Levels.prefix(times, 3, 1),
        lambda: srk.Levels.pyramid(times, 3),
        lambda: srk.Levels.blocks(times, 3, 2),
        lambda: srk.Levels.rolling(times, 3, 1),
    ):
        with pytest.raises(error, match=message):
            make()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 3}, IncompatibleError, "steps=3"),
        ({"nfe": 3}, IncompatibleError, "nfe=3"),
        ({"compile": "step"}, IncompatibleError, "compile"),
        ({"calls": "schedule"}, IncompatibleError, "calls='schedule'"),
        ({"shape": (3, 4, 2)}, ArgumentError, "5 elements.*has 4 along axis 1"),
        ({"x_init": torch.zeros(2, 5, 2)}, ArgumentError, "x_init of shape"),
        ({"grid": srk.Levels([[1.0, 0.5, 1, 1, 1], [0.1] * 5])}, ArgumentError, "element 1 starts"),
        ({"grid": srk.Levels([[1.0] * 5, [0.1] * 5], axis=3)}, ArgumentError, "axis=3"),
    ],
)
def test_what_such_a_run_does_not_take(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"shape": SHAPE, "grid": srk.Levels.pyramid(grid(3), 5), **options}
    with pytest.raises(error, match=message):
        srk.solve(VP, srk.Data(network), "ddpm", **given)


def test_other_errors_say_what_is_wrong() -> None:
    levels = srk.Levels.pyramid(grid(3), 5)
    exact = srk.targets.Gaussian(0.5, 0.04).score(VP)
    with pytest.raises(IncompatibleError, match="one of the adapters"):
        srk.solve(VP, exact, shape=SHAPE, grid=levels)
    with pytest.raises(ScoreError, match="returned shape"):
        srk.solve(VP, srk.Data(lambda x, t: x[:, :1]), shape=SHAPE, grid=levels)
    product, score = srk.Product(a=VP), srk.scores.Joint(lambda x, t: x, a="data")
    with pytest.raises(IncompatibleError, match="the part 'a' of a product has one time"):
        srk.solve(product, score, shape={"a": SHAPE}, grid=levels)  # type: ignore[call-overload]
    with pytest.raises(SolveError, match="'element 0', the score returned NaN"):
        srk.solve(VP, srk.Data(lambda x, t: x * float("nan")), shape=SHAPE, grid=levels)
    with pytest.raises(ArgumentError, match="axis=0 is the batch"):
        srk.Levels([[1.0], [0.5]], axis=0)
    with pytest.raises(ArgumentError, match="window=2 does not divide the 3 steps"):
        srk.Levels.rolling(grid(3), 4, window=2)
