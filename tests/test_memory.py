"""Memory that is not ours: networks that write to, keep, return or share what they are given.

Each network here says the same as an ordinary one that returns a new tensor, so that the samples
must be the same to the bit, or the run stops with an error that names the cause.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import srk
from srk._engine import compiled
from srk._engine.memory import copy_of, owners
from srk.errors import IncompatibleError, ScoreError, SRKError

EDM = srk.EDM(0.02, 10.0)
VP = srk.VP()
MEAN, VARIANCE = 0.5, 0.25
Network = Callable[[Tensor, Tensor], Tensor]


def exact(x: Tensor, t: Tensor) -> Tensor:
    """The denoiser of N(1/2, 1/4) under `EDM`, and of no use to anybody under another process."""
    t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return MEAN + (x - MEAN) * (VARIANCE / (VARIANCE + t * t))


class OneBuffer:
    """Returns the same buffer at every call, as a CUDA graph or an inference engine does."""

    def __init__(self, inner: Network) -> None:
        self.inner, self.out = inner, torch.empty(0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        result = self.inner(x, t)
        if self.out.shape != result.shape or self.out.dtype != result.dtype:
            self.out = torch.empty_like(result)
        with torch.inference_mode(self.out.is_inference()):
            self.out.copy_(result)
        return self.out


class Keeper:
    """Keeps its input, or a part of it, and says something else if that has changed since."""

    def __init__(self, inner: Network, part: Callable[[Tensor], Any]) -> None:
        self.inner, self.part = inner, part
        self.kept: Any = None
        self.was: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        changed = self.was is not None and not torch.equal(torch.as_tensor(self.kept), self.was)
        self.kept = self.part(x)
        self.was = torch.as_tensor(self.kept).clone()
        return self.inner(x, t) + (100.0 if changed else 0.0)


def strided(inner: Network) -> Network:
    """Every second number of a buffer that is twice as large."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        result = inner(x, t)
        wide = torch.full((*x.shape, 2), torch.nan, dtype=x.dtype)
        wide[..., 0] = result
        return wide[..., 0]

    return network


def reordered(inner: Network) -> Network:
    """A result whose memory is laid out the other way round."""
    return lambda x, t: inner(x, t).movedim(0, -1).contiguous().movedim(-1, 0)


def shifted(inner: Network) -> Network:
    """A result at an odd place of a larger buffer."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        wide = torch.empty(x.numel() + 1, dtype=x.dtype)
        wide[1:] = inner(x, t).reshape(-1)
        return wide[1:].view(x.shape)

    return network


def inference(inner: Network) -> Network:
    def network(x: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode():
            return inner(x, t).clone()

    return network


def numpy_kept(x: Tensor) -> Any:
    return x.numpy()


HARMLESS: dict[str, Callable[[Network], Network]] = {
    "one buffer": OneBuffer,
    "keeps its input": lambda inner: Keeper(inner, lambda x: x),
    "keeps a view": lambda inner: Keeper(inner, lambda x: x[1:]),
    "keeps a detached alias": lambda inner: Keeper(inner, lambda x: x.detach()),
    "keeps an array": lambda inner: Keeper(inner, numpy_kept),
    "strided": strided,
    "reordered": reordered,
    "shifted": shifted,
    "inference tensor": inference,
}

IDENTITIES: dict[str, tuple[Network, Network]] = {
    "its input": (lambda x, t: x, lambda x, t: x.clone()),
    "a view of its input": (lambda x, t: x[:], lambda x, t: x.clone()),
    "its input through numpy": (
        lambda x, t: torch.from_numpy(x.numpy()),
        lambda x, t: x.clone(),
    ),
    "a part of its input": (
        lambda x, t: x[1:2].expand_as(x),
        lambda x, t: x[1:2].expand_as(x).clone(),
    ),
    "its input turned round": (
        lambda x, t: x.detach()[..., :1].expand_as(x),
        lambda x, t: x[..., :1].expand_as(x).clone(),
    ),
}
"""Networks that return memory of ours, and the same with memory of their own."""


def run(network: Network, solver: str, **kwargs: Any) -> srk.Solution:
    arguments: dict[str, Any] = {"shape": (4, 3), "steps": 5, "seed": 0, "check_network": False}
    return srk.solve(kwargs.pop("process", EDM), srk.Data(network), solver, **arguments | kwargs)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.Kernel, "__call__", compiled.Kernel.interpret)


@pytest.mark.parametrize("compile", [False, "step"])
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_a_networks_memory_is_its_own(solver: str, compile: Any, interpreted: None) -> None:
    """Every solver, eager and compiled: the samples of a network that returns fresh tensors."""
    expected = run(exact, solver, compile=compile).x
    for name, wrap in HARMLESS.items():
        assert torch.equal(run(wrap(exact), solver, compile=compile).x, expected), name
    everything = OneBuffer(Keeper(strided(exact), lambda x: x[1:]))
    assert torch.equal(run(everything, solver, compile=compile).x, expected)
    for name, (ours, fresh) in IDENTITIES.items():
        whole = run(fresh, solver, compile=compile, process=VP).x
        assert torch.equal(run(ours, solver, compile=compile, process=VP).x, whole), name


@pytest.mark.parametrize("compile", [False, "step"])
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_a_change_of_the_input_is_seen(solver: str, compile: Any, interpreted: None) -> None:
    network = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 3))
    calls = 0

    def late(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        result = exact(x, t)
        return result if calls < 3 else (x[:, :1].add_(1.0), result)[1]

    for changing in (lambda x, t: network(x), late):
        with pytest.raises(srk.errors.ScoreError, match="changed its input in place"):
            run(changing, solver, compile=compile)


@pytest.mark.parametrize("solver", ["heun", "srk2m", "sra1", "dpmpp-2m"])
def test_in_the_k_diffusion_adapter(solver: str) -> None:
    """The same where a host drives the solver."""
    from srk.ecosystem.k_diffusion import sampler

    sample = sampler(solver)
    sigmas = torch.tensor([10.0, 4.0, 1.5, 0.5, 0.1, 0.0])
    x = 10.0 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def drawn(model: Network) -> Tensor:
        torch.manual_seed(0)
        return sample(model, x, sigmas, disable=True)

    expected = drawn(exact)
    for name, wrap in HARMLESS.items():
        assert torch.equal(drawn(wrap(exact)), expected), name
    with pytest.raises(srk.errors.ScoreError, match="in place"):
        drawn(lambda x, t: x.mul_(0.5))


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_in_the_diffusers_scheduler(solver: str) -> None:
    pytest.importorskip("diffusers")
    from srk.ecosystem.diffusers import SRKScheduler

    def drawn(network: Network) -> Tensor:
        scheduler = SRKScheduler(solver=solver)
        scheduler.set_timesteps(6)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 4, 4, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            with torch.no_grad():
                out = network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(out, t, x, generator=generator).prev_sample
        return x

    def noise(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * (0.9 + 1e-4 * t)

    expected = drawn(noise)
    for name, wrap in HARMLESS.items():
        assert torch.equal(drawn(wrap(noise)), expected), name
    assert torch.equal(drawn(lambda x, t: x), drawn(lambda x, t: x.clone()))


@pytest.mark.parametrize("adaptive", [False, True])
def test_in_inference_mode(adaptive: bool) -> None:
    """Samples are ordinary tensors, changes of the input are seen, and later modes are served."""
    kwargs: dict[str, Any] = {"noise": "brownian", "grid": "adaptive"} if adaptive else {}
    if adaptive:
        kwargs["steps"] = None
    expected = run(exact, "srk2", **kwargs).x
    source = srk.noise.KeyedNoise(0)
    plain = srk.solve(EDM, srk.Data(exact), "srk2", shape=(4, 3), steps=5, noise=source).x
    with torch.inference_mode():
        sol = run(exact, "srk2", **kwargs, save="x")
        again = srk.solve(EDM, srk.Data(exact), "srk2", shape=(4, 3), steps=5, noise=source).x
        with pytest.raises(srk.errors.ScoreError, match="in place"):
            run(lambda x, t: x.mul_(0.5), "srk2", **kwargs)
    assert torch.equal(sol.x, expected) and not sol.x.is_inference()
    assert sol.trajectory is not None and not sol.trajectory.values.is_inference()
    assert torch.equal(again, plain)
    sol.x.mul_(2.0)


def test_gradients_and_inference_mode() -> None:
    with torch.inference_mode(), pytest.raises(srk.errors.IncompatibleError, match="inference"):
        run(exact, "ddpm", grad=True)


def test_owners_sees_all_who_share_memory() -> None:
    x = torch.zeros(4)
    alone = owners(x)
    for share in (lambda: x, lambda: x[1:], lambda: x.detach(), lambda: x.numpy(), lambda: x.data):
        other: Any = share()
        assert owners(x) > alone
        del other
        assert owners(x) == alone
    assert copy_of(x.expand(2, 4)).is_contiguous()


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_a_used_sampler_is_copied_and_pickled(solver: str) -> None:
    sampler = srk.Sampler(EDM, srk.Data(exact), solver, steps=5)
    expected = sampler((4, 3), seed=0).x
    for other in (copy.copy(sampler), copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert torch.equal(other((4, 3), seed=0).x, expected)
    assert torch.equal(sampler((4, 3), seed=0).x, expected)


# -- NaN and inf, and in which dtype they are looked for -----------------------------------------


def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that must not be waited for, played by the CPU."""
    from srk._engine.finite import Watch

    begin = Watch.__init__

    def init(self: Watch, state: Tensor) -> None:
        begin(self, state)
        self.immediate = False

    monkeypatch.setattr(Watch, "__init__", init)


@pytest.mark.parametrize("device", ["cpu", "deferred"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_failure_names_its_step(
    device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large finite numbers, whose sum overflows in half precision, are none."""
    if device == "deferred":
        deferred(monkeypatch)
    calls = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.full_like(x, torch.nan) if calls == 5 else torch.full_like(x, 20.0)

    def draw(**kwargs: Any) -> srk.Solution:
        nonlocal calls
        calls = 0
        score = srk.Data(network)
        arguments: dict[str, Any] = {"shape": (2, 64, 64), "steps": 8, "seed": 0, "dtype": dtype}
        return srk.solve(VP, score, "ddpm", check_network=False, **arguments, **kwargs)

    failed = draw(on_failure="return")
    assert "the score returned NaN or inf at step 4" in failed.status
    calls = -100
    whole = srk.solve(
        VP,
        srk.Data(lambda x, t: torch.full_like(x, 20.0)),
        "ddpm",
        shape=(2, 64, 64),
        steps=8,
        seed=0,
        dtype=dtype,
        save="x",
        check_network=False,
    )
    assert whole.status == "done" and whole.trajectory is not None
    assert torch.equal(failed.x, whole.trajectory.values[4])


@pytest.mark.parametrize("device", ["cpu", "deferred"])
def test_a_state_that_is_not_finite(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The score is finite whatever it sees, so it is not to blame."""
    if device == "deferred":
        deferred(monkeypatch)
    score = srk.Data(lambda x, t: torch.zeros_like(x))

    def spoil(info: srk.StepInfo) -> None:
        if info.index == 2:
            info.x[0] = torch.inf

    def noise(slot: Any, clock: str, out: Tensor) -> None:
        out.fill_(torch.nan if slot is not None and slot.start > 0.1 else 1.0)

    kwargs: dict[str, Any] = {"steps": 6, "seed": 0, "on_failure": "return"}
    sol = srk.solve(VP, score, "ddpm", shape=(3, 2), callback=spoil, **kwargs)
    assert "the state is NaN or inf" in sol.status and not sol.success
    with pytest.raises(srk.errors.SolveError, match="look at x_init, the noise source"):
        srk.solve(VP, score, "ddpm", shape=(3, 2), steps=6, noise=noise)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (1, 4, 64, 64)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_densities_are_those_of_the_stored_states(shape: Any, dtype: torch.dtype) -> None:
    """What a run keeps and what is read from its trajectory are one number, and finite."""
    sampler = srk.Sampler(VP, srk.Data(lambda x, t: 0.3 * x), "ddpm", steps=6, check_network=False)
    sol = sampler(shape, seed=0, dtype=dtype, save=["x", "log_prob"])
    again = sampler.log_prob(sol)
    assert sol.log_prob is not None and bool(sol.log_prob.values.isfinite().all())
    assert sol.log_prob.values.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(again.values, sol.log_prob.values)


def test_a_coefficient_beyond_the_dtype_is_named() -> None:
    grid = [1.0, 0.5, 1e-3]
    plans = srk.Sampler(srk.VP(t_min=1e-5), srk.Data(exact), "ddpm", grid=grid).plans()
    import attrs

    huge = attrs.evolve(plans[0], update=((plans[0].update[0][0], 1e6),))
    from srk._engine.eager import Executor
    from srk.noise import GeneratorNoise

    executor = Executor(lambda x, stage: x, GeneratorNoise(0))
    with pytest.raises(srk.errors.IncompatibleError, match=r"numbers up to 6\.55e"):
        executor.run(huge, torch.ones(2, 2, dtype=torch.float16))


# -- several networks ----------------------------------------------------------------------------


class Arena:
    """Networks that all return the same memory, as engines with one arena for outputs do."""

    def __init__(self) -> None:
        self.out: Tensor | None = None

    def __call__(self, inner: Network) -> Network:
        def network(x: Tensor, t: Tensor) -> Tensor:
            result = inner(x, t)
            if self.out is None or self.out.shape != result.shape:
                self.out = torch.empty_like(result)
            return self.out.copy_(result.detach())

        return network


def toward(mean: float) -> Network:
    return lambda x, t: mean + (x - mean) * (VARIANCE / (VARIANCE + t.reshape(-1, 1) ** 2))


def log_prob(x: Tensor, t: Tensor) -> Tensor:
    return -(x**2).sum(1)


SEVERAL: dict[str, Callable[[Callable[[Network], Network]], Any]] = {
    "guided": lambda wrap: srk.Guided(
        srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.0))), 2.0
    ),
    "weights of 1": lambda wrap: srk.Guided(
        [srk.Data(wrap(toward(m))) for m in (1.0, 2.0)], srk.Data(wrap(toward(0.0))), [1.0, -1.0]
    ),
    "rescaled": lambda wrap: srk.Guided(
        srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.0))), 2.0, rescale=0.7
    ),
    "scores": lambda wrap: srk.Guided(
        srk.Score(wrap(lambda x, t: 1.0 - x)), srk.Score(wrap(lambda x, t: -x)), 2.0
    ),
    "apg": lambda wrap: srk.scores.APG(
        srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.0))), 2.0
    ),
    "cfg-zero": lambda wrap: srk.scores.CFGZero(
        srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.0))), 2.0
    ),
    "autoguidance": lambda wrap: srk.scores.autoguidance(
        srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.0))), 2.0, rescale=0.5
    ),
    "nested": lambda wrap: srk.Guided(
        srk.Guided(srk.Data(wrap(toward(1.0))), srk.Data(wrap(toward(0.5))), 1.5),
        srk.Data(wrap(toward(0.0))),
        2.0,
    ),
    "classifier": lambda wrap: srk.ClassifierGuided(
        srk.Data(wrap(toward(1.0))),
        lambda x, t: log_prob(x, t) + 0.0 * wrap(toward(2.0))(x.detach(), t).sum(1),
        0.1,
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "heun"])
@pytest.mark.parametrize("parallel", [None, srk.Picard(window=3, tolerance=1e-4)])
def test_networks_may_share_the_memory_of_their_results(
    name: str, solver: str, parallel: Any
) -> None:
    def run(wrap: Callable[[Network], Network]) -> Tensor:
        score = SEVERAL[name](wrap)
        options: dict[str, Any] = {"parallel": parallel, "check_network": False}
        return srk.solve(EDM, score, solver, shape=(5, 2), steps=5, seed=0, **options).x

    assert torch.equal(run(Arena()), run(lambda network: network))


@pytest.mark.parametrize("name", ["independent", "guided"])
def test_networks_of_a_product_may_share_the_memory_of_their_results(name: str) -> None:
    product = srk.Product(a=EDM, b=EDM, c=EDM)

    def run(wrap: Callable[[Network], Network]) -> dict[str, Tensor]:
        means = {"a": 0.0, "b": 1.0, "c": 2.0}
        if name == "independent":
            score: Any = srk.scores.Independent(
                **{part: srk.Data(wrap(toward(mean))) for part, mean in means.items()}
            )
        else:
            arenas = {part: wrap if wrap is plain else Arena() for part in means}

            def joint(shift: float) -> Any:
                return srk.scores.Joint(
                    lambda x, t: {
                        part: arenas[part](toward(means[part] + shift))(x[part], t[part])
                        for part in means
                    },
                    **dict.fromkeys(means, "data"),
                )

            score = srk.scores.JointGuided(joint(1.0), joint(0.0), {"a": 2.0, "b": 1.0, "c": 0.5})
        shape = dict.fromkeys(means, (5, 2))
        return dict(srk.solve(product, score, "srk2m", shape=shape, steps=5, seed=0).x)

    def plain(network: Network) -> Network:
        return network

    fresh, shared = run(plain), run(Arena())
    assert all(torch.equal(shared[part], fresh[part]) for part in fresh)


# -- times ---------------------------------------------------------------------------------------

ADAPTERS: dict[str, Callable[[Network], Any]] = {
    "own time": srk.Data,
    "scaled time": lambda network: srk.NoisePrediction(network, time_scale=1000.0),
    "index": lambda network: srk.NoisePrediction(network, time="index-rounded", num_timesteps=1000),
    "another input": lambda network: srk.EDMDenoiser(network),
    "a function": lambda network: srk.Data(network, time=lambda level: level.sigma),
    "half": lambda network: srk.Data(lambda x, t: network(x, t), network_dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("batch", [1, 5, 64, 3000])
def test_times_are_what_the_adapter_says_and_stay_so(name: str, batch: int) -> None:
    """Networks that keep their times and write to them: no other time changes by that."""
    kept: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),) and t.is_contiguous() and t.data_ptr() % 16 == 0
        kept.append((t, t.clone()))
        if len(kept) % 3 == 0:
            t.fill_(7)
        return 0.5 * x

    process = srk.VP()
    score = ADAPTERS[name](network)
    sampler = srk.Sampler(process, score, "srk2m", steps=80, denoise_final=False)
    sampler((batch, 2), seed=0)
    levels = [stage.level for plan in sampler.plans() for stage in plan.stages]
    state = torch.zeros(batch, 2)
    for number, ((t, was), level) in enumerate(zip(kept, levels, strict=True)):
        told = score.time_of(state, level, process)
        assert was.dtype == told.dtype and torch.equal(was, told)
        assert torch.equal(t, torch.full_like(told, 7) if number % 3 == 2 else told)


# -- all of it together --------------------------------------------------------------------------

WRAPPERS = [*HARMLESS.values()]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_network_gives_the_exact_distribution_or_an_error(data: st.DataObject) -> None:
    """Networks that misbehave in several ways at once, on drawn states, dtypes, grids and threads.

    The distribution of the samples is that of `analysis.gaussian_distribution`, within five
    standard errors of 4096 numbers; a network that changes its input ends in an error of ours.
    """
    draw = data.draw
    solver = draw(st.sampled_from(sorted(srk.solvers())))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    shape = draw(st.sampled_from([(4096,), (4096, 1), (1024, 2, 2), (512, 2, 1, 4)]))
    steps = draw(st.integers(2, 6))
    grid = draw(st.sampled_from(["log-snr", "karras", "uniform"]))
    noise = draw(st.sampled_from(["generator", "keyed"]))
    wraps = draw(st.lists(st.sampled_from(WRAPPERS), max_size=3))
    changes = draw(st.integers(0, 9)) == 0
    threads = draw(st.sampled_from([1, 1, 3]))

    def network() -> Network:
        made: Network = exact
        for wrap in wraps:
            made = wrap(made)
        return (lambda x, t: (made(x, t), x.add_(1.0))[0]) if changes else made

    def one(seed: int) -> Tensor | None:
        score = srk.Data(network())
        try:
            sol = srk.solve(
                EDM, score, solver, shape=shape, steps=steps, grid=grid, noise=noise, seed=seed,
                dtype=dtype, check_network=False,
            )  # fmt: skip
        except SRKError:
            return None
        assert sol.success
        return sol.x

    with ThreadPoolExecutor(threads) as pool:
        samples = list(pool.map(one, range(threads)))
    try:
        law = srk.analysis.gaussian_distribution(
            solver, EDM, MEAN, VARIANCE, steps=steps, grid=grid, start="prior", denoise_final=True
        )
    except SRKError:
        return
    assert changes or all(x is not None for x in samples)
    for x in samples:
        assert not (changes and x is not None), "a change of the input went unseen"
        if x is not None:
            values, n = x.double().flatten(), x.numel()
            variance = float(law.variance.flatten()[0])
            mean = float(law.mean.flatten()[0])
            assert abs(values.mean().item() - mean) < 5.0 * (variance / n) ** 0.5 + 1e-5
            assert abs(values.var().item() / variance - 1.0) < 5.0 * (2.0 / n) ** 0.5 + 1e-4


def plain(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * torch.tanh(x)


class WritesLater:
    """A network that keeps its input, and writes to it in its next call."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.kept is not None:
            with torch.no_grad():
                self.kept.fill_(7.0)
        self.kept = x
        return plain(x, t)


@pytest.mark.parametrize("solver", ["auto", "srk2", "sra1", "heun"])
@pytest.mark.parametrize(
    "options",
    [
        {"steps": 6},
        {"steps": 6, "grad": True},
        {"steps": 6, "grad": "checkpoint"},
        {"steps": 6, "save": "inputs"},
        {"grid": "adaptive", "noise": "brownian"},
        {"grid": srk.steps.Adaptive(norm="sample"), "noise": "brownian"},
    ],
    ids=["plain", "grad", "checkpoint", "inputs", "adaptive", "by sample"],
)
def test_an_input_that_is_written_to_in_a_later_call(solver: str, options: dict[str, Any]) -> None:
    """The samples are those of another network, or the error says what happened."""
    eta = {"heun": 0.0}.get(solver, 1.0)

    def draw(network: Network) -> srk.Solution:
        return srk.solve(VP, srk.Data(network), solver, shape=(4, 3), seed=0, eta=eta, **options)

    try:
        wanted = draw(plain)
    except IncompatibleError:
        return  # a solver without an estimate of its error
    _same_or_told(lambda: draw(WritesLater()), wanted)


@pytest.mark.parametrize("solver", ["euler-maruyama", "sra1", "stochastic-heun"])
def test_an_angle_that_is_written_to_in_a_later_call(solver: str) -> None:
    options: dict[str, Any] = {"shape": (4, 3), "seed": 0, "steps": 6}
    wanted = srk.solve(srk.Torus(), plain, solver, **options)
    _same_or_told(lambda: srk.solve(srk.Torus(), WritesLater(), solver, **options), wanted)


def _same_or_told(draw: Callable[[], srk.Solution], wanted: srk.Solution) -> None:
    found = None
    with suppress(ScoreError):
        found = draw()
    if found is None:
        with pytest.raises(ScoreError, match="changed its input"):
            draw()
        return
    assert torch.equal(found.x, wanted.x)
    if wanted.inputs is not None and found.inputs is not None:
        assert torch.equal(found.inputs.values, wanted.inputs.values)


def test_spare_buffers_do_not_pile_up() -> None:
    """A copy of what the network returned takes a buffer that is free, if there is one."""
    from srk._engine import eager

    most = 0
    end = eager.Executor._end

    def seen(self: Any, layout: Any, values: Any) -> Any:
        nonlocal most
        outcome = end(self, layout, values)
        most = max(most, len(self._free))
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager.Executor, "_end", seen)
        for solver in srk.solvers():
            srk.solve(VP, srk.Data(exact), solver, shape=(2, 2), steps=30, seed=0)
    assert most < 12  # as many as the widest step needs, not one more for each step
