"""Every option of a run whose elements have times of their own: taken, or refused with a reason."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, IncompatibleError, SolveError

VP = srk.VP(t_min=1e-4)
SHAPE = (3, 5, 2)


def grid(steps: int) -> list[float]:
    return srk.steps.LogSNR().times(srk.steps.RunInfo(VP, None, steps))


def network(x: Tensor, t: Tensor) -> Tensor:
    """A bent denoiser of each element for itself."""
    if t.ndim == 1:
        t = t[:, None].expand(-1, x.shape[1])
    levels = [VP.level(float(value)) for value in t[0]]
    gain = [0.3 * at.alpha / (0.3 * at.alpha**2 + at.sigma**2) for at in levels]
    return (x * torch.tensor(gain, dtype=x.dtype)[:, None]).tanh()


SCORE = srk.Data(network)
TIMES = grid(5)
EQUAL = srk.Levels([[t] * 5 for t in TIMES])
PYRAMID = srk.Levels.pyramid(TIMES, 5, 2)
PROFILE = srk.Profile([-4.0, 0.0, 4.0], [1.0, 0.5])

TAKEN: dict[str, list[Any]] = {
    "eta": [0.0, 0.6, lambda level: 0.5, [1.0, 0.8, 0.6, 0.4, 0.2]],
    "denoise_final": [True, False, "mean"],
    "autocast": [torch.bfloat16],
    "check_network": [False],
    "hooks": [[srk.scores.hooks.Clip(-0.2, 0.2)], [lambda denoised, level: denoised * level.sigma]],
    "noise": ["generator", "keyed", "brownian", "zero", srk.noise.KeyedNoise(4)],
    "device": ["cpu"],
    "dtype": [torch.float64, torch.bfloat16],
    "save": ["x", "denoised", "log_prob", ("x", "denoised", "log_prob")],
    "callback": [lambda info: None, lambda info: info.index == 2],
    "progress": [True],
    "on_failure": ["return"],
    "grad": [True],
    "microbatch": [2, 8],
    "x_init": [torch.linspace(-1, 1, 30).reshape(SHAPE)],
    "seed": [7],
}
"""Options with which equal columns are the ordinary run."""

REFUSED: dict[str, Any] = {
    "steps": 5,
    "nfe": 5,
    "controller": "log-snr",
    "profile": PROFILE,
    "compile": "step",
    "calls": "schedule",
    "parallel": srk.Picard(),
}
OTHERS = {"process", "score", "solver", "grid", "shape"}


def test_every_option_is_in_one_of_the_tables() -> None:
    of_sampler = inspect.signature(srk.Sampler.__init__).parameters
    of_call = inspect.signature(srk.Sampler.__call__).parameters
    options = {*of_sampler, *of_call} - {"self"}
    assert options == {*TAKEN, *REFUSED, *OTHERS}
    made = inspect.signature(srk.LevelsSampler.__init__).parameters
    called = inspect.signature(srk.LevelsSampler.__call__).parameters
    assert {*made, *called} - {"self"} == options
    assert {*of_call} == {*called}


def same(one: srk.Solution, two: srk.Solution) -> None:
    """Whether both tell the same, bit for bit."""
    assert torch.equal(one.x, two.x)
    for name in ("status", "nfe", "steps", "solver", "eta", "mean_nfe"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("trajectory", "denoised", "log_prob"):
        ours, wanted = getattr(one, name), getattr(two, name)
        assert (ours is None) == (wanted is None)
        if wanted is not None:
            assert torch.equal(ours.values, wanted.values)
            assert ours.times == pytest.approx(wanted.times)


@pytest.mark.filterwarnings("ignore:.*brownian")
@pytest.mark.parametrize("solver", ["ddpm", "srk2m"])
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in TAKEN.items() for value in values]
)
def test_equal_columns_with_an_option_are_the_ordinary_run(
    name: str, value: Any, solver: str
) -> None:
    if solver == "srk2m" and "log_prob" in str(value):
        pytest.skip("a step of srk2m has no density")
    given: dict[str, Any] = {"shape": SHAPE, "seed": 1, name: value}
    if isinstance(value, srk.noise.NoiseSource):
        given.pop("seed")
    if name == "x_init":
        given.pop("shape")
    one = srk.solve(VP, SCORE, solver, grid=EQUAL, **given)
    two = srk.solve(VP, SCORE, solver, grid=TIMES, **given)
    same(one, two)
    if name != "callback":
        sol = srk.solve(VP, SCORE, solver, grid=PYRAMID, **given)
        assert sol.x.isfinite().all()
        if name not in ("eta", "hooks", "autocast") and value != "zero":
            assert torch.equal(sol.x, two.x)  # elements that know nothing of each other


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_why(name: str) -> None:
    for call in (srk.solve, srk.Sampler, srk.LevelsSampler):
        with pytest.raises(IncompatibleError, match=rf"{name}=.*srk\.Levels.*: .+") as caught:
            call(VP, SCORE, "ddpm", grid=PYRAMID, **{name: REFUSED[name]})  # type: ignore[operator]
        assert any(word in str(caught.value) for word in ("leave it out", "use grid", "make"))
    options: list[dict[str, Any]] = [{"grad": "checkpoint"}, {"save": "inputs"}]
    for option in options:
        with pytest.raises(IncompatibleError, match=r"; (use|.*save).*"):
            srk.solve(VP, SCORE, "ddpm", shape=SHAPE, grid=PYRAMID, **option)
    augmentation = srk.scores.CenterRandomAugmentation()
    with pytest.raises(IncompatibleError, match="elements that stand still"):
        srk.solve(VP, SCORE, shape=SHAPE, grid=PYRAMID, hooks=[augmentation])


UNTYPED: Any = PYRAMID
"""For functions whose types know no levels."""


@pytest.mark.parametrize(
    "use",
    [
        lambda: srk.posterior.steer(VP, SCORE, lambda x: x.sum(), shape=SHAPE, grid=UNTYPED),
        lambda: srk.sample_to("nowhere", VP, SCORE, shape=SHAPE, grid=UNTYPED, batch=2, seed=0),
        lambda: srk.roll(VP, SCORE, window=2, shape=(3, 2), grid=PYRAMID),  # type: ignore[arg-type]
        lambda: srk.invert(VP, SCORE, torch.zeros(SHAPE), "ddim", grid=PYRAMID),
    ],
    ids=["steer", "sample_to", "roll", "invert"],
)
def test_what_has_one_time_says_so(use: Any) -> None:
    with pytest.raises(IncompatibleError, match="one time for all elements"):
        use()


def test_a_sampler_is_kept_copied_and_shared_by_threads() -> None:
    sampler = srk.Sampler(VP, SCORE, "srk2m", grid=PYRAMID)
    assert isinstance(sampler, srk.LevelsSampler)
    assert "5 elements" in repr(sampler)
    wanted = [srk.solve(VP, SCORE, "srk2m", shape=SHAPE, grid=PYRAMID, seed=s).x for s in range(6)]
    for made in (sampler, copy.copy(sampler), copy.deepcopy(sampler), sampler):
        assert torch.equal(made(SHAPE, seed=0).x, wanted[0])
    again = pickle.loads(pickle.dumps(srk.Sampler(VP, SCORE, "srk2m", grid=PYRAMID)))
    assert torch.equal(again(SHAPE, seed=0).x, wanted[0])
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda seed: sampler(SHAPE, seed=seed).x, range(6))
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


def test_what_is_saved_of_elements_that_stand_still() -> None:
    sol = srk.solve(VP, SCORE, "ddpm", shape=SHAPE, grid=PYRAMID, seed=1, save=("x", "denoised"))
    plain = srk.solve(VP, SCORE, "ddpm", shape=SHAPE, grid=TIMES, seed=1, save="denoised")
    assert sol.denoised is not None and plain.denoised is not None
    steps = len(PYRAMID.schedule) - 1
    assert len(sol.denoised.times) == steps + 1  # and the final denoising
    for element in range(5):
        found, first = sol.denoised.values[:, :, element], 2 * element
        assert found[:first].isnan().all()
        assert torch.equal(found[first : first + 5], plain.denoised.values[:5, :, element])
        assert (found[first + 5 : -1] == plain.denoised.values[4, :, element]).all()
        assert torch.equal(found[-1], plain.x[:, element])
    assert sol.times == tuple(map(max, PYRAMID.schedule))
    known = torch.full((3, 2, 2), 0.3)
    prefix = srk.Levels.prefix(TIMES, 5, fixed=2)
    given: dict[str, Any] = {"x_init": known, "grid": prefix, "save": "denoised", "seed": 1}
    part = srk.solve(VP, SCORE, "ddpm", shape=SHAPE, **given)
    assert part.denoised is not None
    assert (part.denoised.values[:, :, :2] == 0.3).all()


def test_a_callback_sees_and_changes_the_state_and_ends_the_run() -> None:
    seen: list[Any] = []

    def look(info: srk.StepInfo) -> bool:
        seen.append((info.index, info.steps, info.t, info.nfe, info.x.clone()))
        assert info.denoised is not None and info.denoised.shape == SHAPE
        info.x[:, 0] = 0.125
        return info.index == 6

    sol = srk.solve(VP, SCORE, "ddpm", shape=SHAPE, grid=PYRAMID, seed=1, callback=look)
    assert sol.status == "stopped"
    assert (sol.steps, sol.nfe) == (7, 7)
    assert [one[:2] for one in seen] == [(index, 13) for index in range(7)]
    assert (sol.x[:, 0] == 0.125).all()
    assert sol.times == tuple(max(row) for row in PYRAMID.schedule[:8])
    assert sol.x.shape == SHAPE
    ordinary: list[Tensor] = []

    def halve(info: srk.StepInfo) -> None:
        info.x.mul_(0.5)
        ordinary.append(info.x.clone())

    for noise in ("generator", "keyed"):
        options: dict[str, Any] = {"seed": 1, "callback": halve, "noise": noise, "save": "x"}
        with torch.inference_mode():
            one = srk.solve(VP, SCORE, "srk2m", shape=SHAPE, grid=EQUAL, **options)
        two = srk.solve(VP, SCORE, "srk2m", shape=SHAPE, grid=TIMES, **options)
        same(one, two)
    still = srk.Levels([[1.0] * 5, [1.0] * 5, *EQUAL.schedule[1:]])
    count: list[int] = []

    def told(info: Any) -> None:
        count.append(info.index)

    srk.solve(VP, SCORE, shape=SHAPE, grid=still, callback=told)
    assert count == list(range(6))  # the step in which nothing moves is told, too


def test_microbatches_are_cut_with_conditions_and_prefix() -> None:
    def conditioned(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        assert len(y) == len(x)
        return network(x, t) + y[:, None, None]

    labels, known = torch.arange(7.0), torch.randn(7, 2, 2)
    score = srk.Data(conditioned, model_kwargs={"y": labels})
    for levels, x_init in (
        (srk.Levels.prefix(TIMES, 5, fixed=2), known),
        (PYRAMID, None),
    ):
        options: dict[str, Any] = {"x_init": x_init, "noise": "keyed", "seed": 3, "save": "x"}
        sampler = srk.Sampler(VP, score, "srk2m", grid=levels)
        one = sampler((7, 5, 2), **options)
        two = sampler((7, 5, 2), microbatch=3, **options)
        same(one, two)
    with pytest.raises(IncompatibleError, match="draws for a batch as a whole"):
        sampler((7, 5, 2), microbatch=3, noise="generator", seed=0)


def test_log_densities_add_up_over_elements() -> None:
    weight = torch.tensor(1.0, requires_grad=True)

    def learned(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t) * weight + 0.1 * x.mean(1, keepdim=True)

    for levels in (PYRAMID, EQUAL, srk.Levels.prefix(TIMES, 5, fixed=2)):
        given = torch.randn(3, 2, 2) if levels.schedule[0][0] < 1 else None
        sampler = srk.Sampler(VP, srk.Data(learned), "ddpm", grid=levels)
        sol = sampler(SHAPE, x_init=given, seed=0, save=("x", "log_prob"))
        found = sampler.log_prob(sol)
        assert sol.log_prob is not None
        assert found.times == sol.log_prob.times
        assert torch.equal(found.values, sol.log_prob.values)
        assert found.values.shape == (len(levels.schedule) - 1, 3)
        (slope,) = torch.autograd.grad(found.values.sum(), weight)
        assert slope.isfinite() and slope != 0
        some = sampler.log_prob(sol, samples=[2, 0])
        assert torch.allclose(some.values, found.values[:, [2, 0]])
    plain = srk.Sampler(VP, SCORE, "ddpm", grid=TIMES)
    whole = plain(SHAPE, seed=0, save=("x", "log_prob"))
    stepped = srk.Sampler(VP, SCORE, "ddpm", grid=PYRAMID)(SHAPE, seed=0, save="log_prob")
    assert whole.log_prob is not None and stepped.log_prob is not None
    # elements that know nothing of each other: the same steps in another order
    total = whole.log_prob.values.sum(0)
    assert torch.allclose(stepped.log_prob.values.sum(0), total, rtol=1e-4)
    with pytest.raises(ArgumentError, match=r"6 states.*not the 14"):
        srk.Sampler(VP, SCORE, "ddpm", grid=PYRAMID).log_prob(whole)
    with pytest.raises(ArgumentError, match="no trajectory"):
        srk.Sampler(VP, SCORE, "ddpm", grid=PYRAMID).log_prob(stepped)
    with pytest.raises(IncompatibleError, match="not Gaussian"):
        srk.solve(VP, SCORE, "srk2m", shape=SHAPE, grid=PYRAMID, save="log_prob")


def test_hooks_see_all_elements_and_count_for_those_of_their_level() -> None:
    known, mask = torch.linspace(-1, 1, 30).reshape(SHAPE), torch.rand(SHAPE) < 0.5
    replace = srk.scores.hooks.Replace(known, mask)
    levels: list[float] = []

    def share(denoised: Tensor, level: Any) -> Tensor:
        assert denoised.shape == SHAPE
        levels.append(level.t)
        return denoised + 0.1 * denoised.mean(1, keepdim=True)

    for score, options in (
        (SCORE, {"hooks": [share, replace]}),
        (srk.Hooked(SCORE, share, replace), {}),
        (srk.Guided(srk.Hooked(SCORE, share), SCORE, 1.5), {"hooks": [replace]}),
    ):
        given: dict[str, Any] = {"shape": SHAPE, "seed": 2, "save": ("x", "denoised"), **options}
        one = srk.solve(VP, score, "srk2m", grid=EQUAL, **given)
        same(one, srk.solve(VP, score, "srk2m", grid=TIMES, **given))
        levels.clear()
        sol = srk.solve(VP, score, "srk2m", grid=PYRAMID, **given)
        assert torch.equal(sol.x[mask], known[mask])
        assert len(levels) > len(TIMES)  # once for each group that moves
    # one that acts on each element for itself is the ordinary run of each
    given = {"shape": SHAPE, "seed": 2, "hooks": [lambda d, level: d * (1 - level.sigma)]}
    one = srk.solve(VP, SCORE, "srk2m", grid=PYRAMID, **given)
    assert torch.allclose(one.x, srk.solve(VP, SCORE, "srk2m", grid=TIMES, **given).x)


def test_hooks_and_guidance_count_what_was_called() -> None:
    calls = [0, 0]

    def pair(which: int) -> srk.Data:
        def counted(x: Tensor, t: Tensor) -> Tensor:
            calls[which] += 1
            return network(x, t)

        return srk.Data(counted)

    guided = srk.Guided(pair(0), pair(1), srk.scores.limited(2.0, 0.3, 5.0))
    hooks = [srk.scores.hooks.Clip()]
    sol = srk.solve(VP, guided, "srk2m", shape=SHAPE, grid=PYRAMID, hooks=hooks, seed=0)
    assert sol.nfe == sum(calls)


@pytest.mark.parametrize("around", ["shifted", "ouve", "per sample"])
def test_a_process_around_a_mean(around: str) -> None:
    mean = torch.linspace(-2, 2, 10).reshape(5, 2)
    process: Any = {
        "shifted": srk.Shifted(VP, mean=mean),
        "ouve": srk.OUVE(mean=mean.double()),
        "per sample": srk.Shifted(VP, mean=mean * torch.ones(3, 1, 1)),
    }[around]
    times = srk.steps.LogSNR().times(srk.steps.RunInfo(process.centred, None, 5))
    inputs: list[Tensor] = []

    def said(x: Tensor, t: Tensor) -> Tensor:
        inputs.append(x)
        levels = t if t.ndim == 2 else t[:, None].expand(-1, x.shape[1])
        return (x * (1.0 - 0.3 * levels[:, :, None])).tanh()

    hook = srk.scores.hooks.Clip(-0.9, 0.8)
    given: dict[str, Any] = {"seed": 1, "hooks": [hook], "save": ("x", "denoised")}
    equal = srk.Levels([[t] * 5 for t in times])
    pyramid = srk.Levels.pyramid(times, 5, 2)
    for score in (srk.Data(said), srk.NoisePrediction(said), srk.Velocity(said)):
        for start in ({"shape": SHAPE}, {"x_init": torch.randn(SHAPE)}):
            for solver in ("ddpm", "srk2m"):
                one = srk.solve(process, score, solver, grid=equal, **given, **start)
                two = srk.solve(process, score, solver, grid=times, **given, **start)
                same(one, two)
                sol = srk.solve(process, score, solver, grid=pyramid, **given, **start)
                assert torch.allclose(sol.x, two.x, atol=1e-6)
    seen: list[Tensor] = []
    options: dict[str, Any] = {"shape": SHAPE, "seed": 1, "noise": "keyed", "save": "x"}
    watched = srk.solve(
        process, score, "ddpm", grid=pyramid, callback=lambda i: seen.append(i.x.clone()), **options
    )
    assert watched.trajectory is not None
    assert torch.equal(torch.stack(seen), watched.trajectory.values[1:])
    cut = srk.solve(process, score, "ddpm", grid=pyramid, microbatch=2, **options)
    assert torch.allclose(cut.x, watched.x, atol=1e-6)
    sampler = srk.Sampler(process, score, "ddpm", grid=pyramid)
    sol = sampler(SHAPE, seed=1, save=("x", "log_prob"))
    assert sol.log_prob is not None
    found = sampler.log_prob(sol).values  # of the stored states, which are rounded once more
    assert torch.allclose(found, sol.log_prob.values, rtol=1e-3, atol=0.02)
    some = sampler.log_prob(sol, samples=torch.tensor([2, 0])).values
    assert torch.allclose(some, found[:, [2, 0]], rtol=1e-4, atol=1e-3)
    prefix = srk.Levels.prefix(times, 5, fixed=2)
    kept = torch.randn(3, 2, 2)
    part = srk.solve(process, score, shape=SHAPE, x_init=kept, grid=prefix, seed=0)
    assert torch.allclose(part.x[:, :2], kept, atol=1e-6)
    assert torch.allclose(inputs[-1][:, :2], kept, atol=1e-6)


def test_a_shifted_gaussian_sequence_has_its_mean() -> None:
    """Exact denoiser of N(m, 0.04) around y: the mean of the samples does not depend on y."""
    y = torch.tensor([3.0, -1.0, 0.5, 2.0])
    wanted = torch.tensor([1.0, -2.0, 0.0, 4.0])
    process = srk.Shifted(VP, mean=y)

    def exact(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape
        levels = [VP.level(float(value)) for value in t[0]]
        alpha = torch.tensor([one.alpha for one in levels]).to(x)
        sigma = torch.tensor([one.sigma for one in levels]).to(x)
        gain = 0.04 * alpha / (0.04 * alpha**2 + sigma**2)
        centre = wanted.to(x)
        return centre + gain * (x - y.to(x) - alpha * (centre - y.to(x)))

    levels = srk.Levels.pyramid(grid(30), 4, 5)
    x = srk.solve(process, srk.Data(exact), "srk2m", shape=(4000, 4), grid=levels, seed=0).x
    assert (x.mean(0) - wanted).abs().max() < 6 * 0.2 / 4000**0.5
    assert (x.std(0) - 0.2).abs().max() < 0.02


def test_a_network_with_the_wrong_adapter_is_noticed() -> None:
    times, process = grid(12), srk.VP(t_min=1e-4)

    def noise(x: Tensor, t: Tensor) -> Tensor:  # the data are N(0, 0.01)
        t = t if t.ndim == 2 else t[:, None].expand(-1, x.shape[1])
        alpha, sigma = process.alpha(t)[:, :, None].to(x), process.sigma(t)[:, :, None].to(x)
        return sigma * x / (0.01 * alpha**2 + sigma**2)

    for levels in (srk.Levels([[t] * 5 for t in times]), srk.Levels.pyramid(times, 5, 1)):
        with pytest.warns(srk.errors.ConventionWarning, match="NoisePrediction"):
            srk.solve(process, noise, "ddpm", shape=(100, 5, 2), grid=levels, seed=0)


def test_what_fails_and_gradients() -> None:
    def bad(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, :, None] < 0.01, torch.nan, network(x, t))

    sol = srk.solve(
        VP, srk.Data(bad), shape=SHAPE, grid=PYRAMID, seed=0, on_failure="return", save="x"
    )
    assert sol.status.startswith("failed: in the part 'element 0'")
    assert sol.x.shape == SHAPE
    assert sol.x.isfinite().all()
    assert sol.trajectory is not None and len(sol.trajectory.times) == sol.steps + 1
    with pytest.raises(SolveError, match="element 0"):
        srk.solve(VP, srk.Data(bad), shape=SHAPE, grid=PYRAMID, seed=0)
    with pytest.raises(IncompatibleError, match=r"torch\.inference_mode"), torch.inference_mode():
        srk.solve(VP, SCORE, shape=SHAPE, grid=PYRAMID, grad=True)
    start = torch.randn(SHAPE, requires_grad=True)
    plain = srk.solve(VP, SCORE, "ddpm", x_init=start, grid=PYRAMID, seed=0, save="x")
    assert not plain.x.requires_grad
    assert plain.trajectory is not None and not plain.trajectory.values.requires_grad
    slopes = []
    for levels in (EQUAL, TIMES):
        process = srk.Shifted(VP, mean=0.4)
        sol = srk.solve(process, SCORE, "ddpm", x_init=start, grid=levels, seed=0, grad=True)
        slopes.append(torch.autograd.grad(sol.x.square().sum(), start)[0])
    assert torch.equal(*slopes)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_noise_source_and_equal_columns(solver: str) -> None:
    times = grid(3)
    equal = srk.Levels([[t] * 3 for t in times])
    for noise in sorted(srk.noise()):
        options: dict[str, Any] = {"shape": (2, 3), "noise": noise, "seed": 3}
        score = srk.Data(lambda x, t: network(x[:, :, None], t)[:, :, 0])
        try:
            two = srk.solve(VP, score, solver, grid=times, **options)
        except srk.errors.SRKError as error:
            with pytest.raises(type(error)):
                srk.solve(VP, score, solver, grid=equal, **options)
            continue
        same(srk.solve(VP, score, solver, grid=equal, **options), two)
        one = srk.solve(VP, score, solver, grid=srk.Levels.pyramid(times, 3), **options)
        assert torch.equal(one.x, two.x)


def test_the_number_of_times_is_that_of_the_solution() -> None:
    sampler = srk.LevelsSampler(VP, SCORE, "ddpm", grid=PYRAMID)
    assert sampler(SHAPE, seed=0).times == sampler.times
    with pytest.raises(srk.errors.ArgumentTypeError, match=r"srk\.Levels"):
        srk.LevelsSampler(VP, SCORE, grid=TIMES)  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="needs a linear process"):
        srk.Sampler(srk.Torus(), SCORE, grid=PYRAMID)
    assert attrs.asdict(PYRAMID)["axis"] == 1
