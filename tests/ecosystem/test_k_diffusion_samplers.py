"""The k-diffusion convention: samples of `srk.solve`, callbacks and noise of k-diffusion."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import math
import sys
import types

import pytest
import torch

import srk
from srk.ecosystem import k_diffusion
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ScoreError,
    SolveError,
    TimeError,
    UnknownNameError,
)
from srk.integrators import LMS, SRK2M
from srk.processes import Level

HOUSE = [
    "auto",
    "ddpm",
    "etd-sra1",
    "euler-maruyama",
    "srk1",
    "srk2",
    "srk2m",
    "srk2m-local",
    "srk2s",
    "wcw",
]
ON_SCHEDULE = ["auto", "srk2", "srk2m", "srk2m-local", "srk2s"]
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.1, 0.3, 0.2]
)
SIGMAS = torch.tensor([14.6, 6.0, 2.5, 1.1, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)


def model(x, sigma):
    """The exact denoiser, as k-diffusion calls it."""
    s = float(sigma[0])
    assert sigma.shape == (len(x),)
    return TARGET.denoise(x, Level(s, 1.0, s, -math.log(s)))


def start(batch=3, seed=1, scale=14.6):
    return scale * torch.randn(
        batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def seeded(x, seed=5):
    """A noise_sampler that ignores its interval."""
    generator = torch.Generator().manual_seed(seed)
    return lambda sigma, sigma_next: torch.randn(x.shape, dtype=x.dtype, generator=generator)


class Tree:
    """A Brownian path in sigma, drawn as it is asked for; no two questions may overlap."""

    def __init__(self, x, seed=5):
        self.draw, self.asked = seeded(x, seed), []

    def __call__(self, sigma, sigma_next):
        a, b = float(sigma), float(sigma_next)
        assert a > b > 0.0  # a tree ends at the smallest positive sigma
        assert all(b >= start or a <= stop for start, stop in self.asked), (
            "two draws share a piece of the path"
        )
        self.asked.append((a, b))
        return self.draw(sigma, sigma_next)


# -- the same as srk.solve -------------------------------------------------------------------------


@pytest.mark.parametrize("solver", HOUSE)
def test_house_samplers_are_solve_on_the_edm_process(solver):
    """The drift of each; how the noise comes in is tested below."""
    x, sample = start(), getattr(k_diffusion, "sample_" + solver.replace("-", "_"))
    before = x.clone()
    out = sample(model, x, SIGMAS, noise_sampler=lambda a, b: torch.zeros_like(x))
    process = srk.EDM(sigma_min=0.0, sigma_max=14.6)
    expected = srk.solve(
        process,
        TARGET.score(process),
        solver,
        x_init=x,
        grid=SIGMAS,
        noise=lambda slot, clock, out: out.zero_(),
        calls="schedule" if solver in ON_SCHEDULE else "free",
    )
    assert torch.allclose(out, expected.x, rtol=1e-12)
    assert torch.equal(x, before)
    assert sample.__name__ == "sample_" + solver.replace("-", "_")


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_samples_with_independent_draws(solver):
    """No two draws of a run ask for overlapping pieces of the host's Brownian path."""
    x = start()
    sample = k_diffusion.sampler(solver)
    tree = Tree(x)
    out = sample(model, x, SIGMAS, noise_sampler=tree)
    assert torch.isfinite(out).all()
    assert bool(tree.asked) == (srk.solvers()[solver].default_eta > 0.0)


@pytest.mark.parametrize("solver", [*HOUSE, "seeds-3", "dpmpp-sde", "sa-solver"])
def test_the_draws_are_independent_unit_normals(solver):
    """The pieces of the path that a run asks for, each once, mixed by an orthogonal matrix."""
    x = torch.full((64, 1), 14.6, dtype=torch.float64)
    sample, asked = k_diffusion.sampler(solver), []

    def pieces(a, b):
        """The k-th piece is the k-th basis vector: the result is linear in them for flat data."""
        asked.append((float(a), float(b)))
        return torch.eye(64, dtype=torch.float64)[:, len(asked) - 1 : len(asked)]

    def denoiser(y, sigma):
        return y / (1 + sigma[:, None] ** 2)  # data N(0, 1)

    out = sample(denoiser, x, SIGMAS[:-1], noise_sampler=pieces)[:, 0]
    process = srk.EDM(0.05, 14.6)
    method = srk.solvers()[solver]
    if solver in ON_SCHEDULE:
        method = srk.integrators.OnSchedule(method)
    drift = float(out[-1])  # no draw reaches the last row
    rest = float(((out - drift) ** 2).sum())
    law = srk.analysis.gaussian_distribution(method, process, 0.0, 1.0, grid=SIGMAS[:-1].tolist())
    start_variance = (drift / 14.6) ** 2 * (14.6**2 + 1)
    assert rest + start_variance == pytest.approx(law.variance[0], rel=1e-9)


def test_options_and_eta_reach_the_solver():
    x, process = start(), srk.EDM(sigma_min=0.0, sigma_max=14.6)
    score = TARGET.score(process)
    assert torch.equal(
        k_diffusion.sample_srk2m(model, x, SIGMAS, eta=0.0),
        srk.solve(process, score, "srk2m", eta=0.0, x_init=x, grid=SIGMAS, calls="schedule").x,
    )
    own = k_diffusion.sampler(SRK2M(data_variance=0.0))
    assert own.__name__ == "sample_srk2m"
    assert not torch.equal(
        own(model, x, SIGMAS, eta=0.0), k_diffusion.sample_srk2m(model, x, SIGMAS, eta=0.0)
    )
    assert k_diffusion.sampler(LMS(order=2)).__name__ == "sample_lms"


def test_the_law_is_right_on_gaussian_data():
    """4096 samples of N(0.5, 0.3^2), 40 steps: mean and deviation within 4 standard errors."""
    n, mean, std = 4096, 0.5, 0.3
    sigmas = torch.cat(
        [torch.logspace(1.5, -2, 40, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    )
    x = mean + float(sigmas[0]) * torch.randn(
        n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def denoiser(x, sigma):
        return mean + std**2 / (std**2 + sigma[:, None] ** 2) * (x - mean)

    for sample in (k_diffusion.sample_srk2m, k_diffusion.sample_wcw):
        out = sample(denoiser, x, sigmas, noise_sampler=seeded(x))
        assert abs(float(out.mean()) - mean) < 4 * std / math.sqrt(n)
        assert abs(float(out.std()) / std - 1) < 4 / math.sqrt(2 * n)


def test_flow_frame_is_solve_on_the_flow_process():
    """The state at sigma = 1 is pure noise, and the model is asked at x_t = (1 - t) x0 + t eps."""
    sigmas, x = torch.linspace(1, 0, 9), start(scale=1.0)
    process = srk.Flow(t_min=0.0)

    def flow_model(x, sigma):
        return TARGET.denoise(x, process.level(float(sigma[0])))

    sample = k_diffusion.sampler("srk2m", frame="flow")
    out = sample(flow_model, x, sigmas, noise_sampler=lambda a, b: torch.zeros_like(x))
    expected = srk.solve(
        process,
        srk.Data(lambda x, t: flow_model(x, t), time="t"),
        "srk2m",
        x_init=x,
        grid=sigmas,
        noise=lambda slot, clock, out: out.zero_(),
        calls="schedule",
    )
    assert torch.allclose(out, expected.x, rtol=1e-12)
    with pytest.raises(TimeError, match="frame='edm'"):
        sample(flow_model, x, torch.tensor([2.0, 1.0, 0.0]))


# -- noise -----------------------------------------------------------------------------------------


def test_default_noise_is_the_global_generator():
    x = start()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        first = k_diffusion.sample_srk2m(model, x, SIGMAS)
        second = k_diffusion.sample_srk2m(model, x, SIGMAS)
        torch.manual_seed(7)
        again = k_diffusion.sample_srk2m(model, x, SIGMAS)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_s_noise_scales_the_noise():
    x = start()
    silent = k_diffusion.sample_ddpm(model, x, SIGMAS, s_noise=0.0, noise_sampler=seeded(x))
    assert torch.equal(
        silent,
        k_diffusion.sample_ddpm(model, x, SIGMAS, noise_sampler=lambda a, b: torch.zeros_like(x)),
    )
    noise = seeded(x)
    loud = k_diffusion.sample_ddpm(model, x, SIGMAS, noise_sampler=lambda a, b: 1.5 * noise(a, b))
    assert torch.equal(
        k_diffusion.sample_ddpm(model, x, SIGMAS, s_noise=1.5, noise_sampler=seeded(x)), loud
    )


def test_a_step_of_one_draw_asks_for_the_sigmas_of_the_host():
    x, tree = start(), Tree(start())
    k_diffusion.sampler("srk2m", calls="free")(model, x, SIGMAS, noise_sampler=tree)
    assert tree.asked == list(zip(SIGMAS[:-2].tolist(), SIGMAS[1:-1].tolist(), strict=True))


@pytest.mark.parametrize("solver", ["srk2m", "srk2m-local", "auto", "wcw", "seeds-3"])
def test_a_run_asks_for_the_whole_path_once(solver):
    """From the first sigma to the last positive one, in pieces that join."""
    x, tree = start(), Tree(start())
    k_diffusion.sampler(solver)(model, x, SIGMAS, noise_sampler=tree)
    asked = sorted(tree.asked, reverse=True)
    assert (asked[0][0], asked[-1][1]) == (14.6, 0.05)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(asked))


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ArgumentError, match=r"unit normals of shape \(3, 2\)"):
        k_diffusion.sample_srk2m(model, start(), SIGMAS, noise_sampler=lambda a, b: torch.zeros(3))


# -- edges and errors ------------------------------------------------------------------------------


def test_fewer_than_two_sigmas_return_the_state():
    x = start()
    assert k_diffusion.sample_srk2(model, x, SIGMAS[:1]) is x
    assert k_diffusion.sample_srk2(model, x, SIGMAS[:0]) is x


def test_part_of_a_grid_ends_noisy_and_without_a_further_call():
    calls = []

    def counted(x, sigma):
        calls.append(float(sigma[0]))
        return model(x, sigma)

    x = start()
    k_diffusion.sample_ddpm(counted, x, SIGMAS[:4], noise_sampler=seeded(x))
    assert calls == SIGMAS[:3].tolist()


def test_extra_args_reach_the_model_and_its_dtype_is_cast():
    def half(x, sigma, *, seed, scale):
        assert (seed, scale) == (3, 2.0)
        assert sigma.dtype == torch.float32
        return model(x, sigma).half()

    x = start().float()
    out = k_diffusion.sample_ddpm(
        half, x, SIGMAS.float(), extra_args={"seed": 3, "scale": 2.0}, noise_sampler=seeded(x)
    )
    assert out.dtype == torch.float32


def test_hosts_run_in_inference_mode_and_half_precision():
    x = start()
    with torch.inference_mode():
        inside = k_diffusion.sample_srk2(model, x.clone(), SIGMAS, noise_sampler=seeded(x))
    assert torch.equal(inside, k_diffusion.sample_srk2(model, x, SIGMAS, noise_sampler=seeded(x)))
    low = k_diffusion.sample_srk2(
        lambda x, sigma: (x / (1 + sigma[:, None] ** 2)).to(x),
        x.bfloat16(),
        SIGMAS.float(),
        noise_sampler=seeded(x),
    )
    assert low.dtype == torch.bfloat16 and torch.isfinite(low).all()


@pytest.mark.parametrize(
    ("sigmas", "error", "match"),
    [
        (torch.tensor([1.0, 0.5, 0.7, 0.0]), TimeError, "decrease"),
        (torch.tensor([0.5, 1.0]), TimeError, "eta=0"),
        (torch.tensor([0.0, 1.0]), TimeError, "start above 0|eta=0"),
        (torch.tensor([1.0, -1.0]), TimeError, "negative"),
        (torch.tensor([math.nan, 1.0]), TimeError, "finite"),
        (torch.tensor([[2.0, 1.0]]), ArgumentTypeError, "shape"),
        ([2.0, 1.0], ArgumentTypeError, "tensor"),
    ],
)
def test_sigmas_that_are_no_schedule_are_refused(sigmas, error, match):
    with pytest.raises(error, match=match):
        k_diffusion.sample_srk2(model, start(), sigmas)


def test_other_mistakes_say_their_cure():
    with pytest.raises(UnknownNameError, match="srk2m"):
        k_diffusion.sampler("srk2n")
    with pytest.raises(ArgumentError, match="frame"):
        k_diffusion.sampler("srk2", frame="vp")  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match=r"\[0\]"):
        k_diffusion.sample_srk2(lambda x, sigma: (x,), start(), SIGMAS)
    with pytest.raises(SolveError, match="NaN"):
        k_diffusion.sample_srk2(lambda x, sigma: x * math.nan, start(), SIGMAS)


def test_importing_it_imports_no_k_diffusion():
    assert "k_diffusion" not in sys.modules


# -- callbacks -------------------------------------------------------------------------------------


def recorded(sample, *args, **kwargs):
    calls = []
    sample(*args, callback=calls.append, **kwargs)
    return calls


@pytest.mark.parametrize("solver", HOUSE)
def test_callback_says_what_the_network_saw_and_said(solver):
    x = start()
    calls = recorded(k_diffusion.sampler(solver), model, x, SIGMAS, noise_sampler=seeded(x))
    assert [call["i"] for call in calls] == list(range(len(SIGMAS) - 1))
    for i, call in enumerate(calls):
        assert set(call) == {"x", "i", "sigma", "sigma_hat", "denoised"}
        assert call["sigma"] == SIGMAS[i]
        assert torch.equal(
            call["denoised"], model(call["x"], call["sigma_hat"].expand(3))
        )  # nothing is overwritten later
    assert all(call["sigma"] == call["sigma_hat"] for call in calls)
    assert torch.equal(calls[0]["x"], x)


def test_an_exception_of_the_callback_stops_the_run():
    class Interrupted(Exception):
        pass

    def interrupt(info):
        if info["i"] == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        k_diffusion.sample_srk2(
            model, start(), SIGMAS, callback=interrupt, noise_sampler=seeded(start())
        )


# -- k-diffusion itself ----------------------------------------------------------------------------


@pytest.fixture
def sampling(monkeypatch):
    """`k_diffusion.sampling`, with stand-ins for what it imports and its samplers do not use."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    for name in (
        "PIL",
        "PIL.Image",
        "safetensors",
        "torchdiffeq",
        "torchvision",
        "torchvision.transforms",
        "tqdm",
        "tqdm.auto",
    ):
        stub = types.ModuleType(name)
        stub.__path__ = []
        stub.__getattr__ = lambda attribute: None
        monkeypatch.setitem(sys.modules, name, stub)
    sys.modules["tqdm.auto"].trange = lambda *args, disable=None: range(*args)
    loaded = importlib.import_module("k_diffusion.sampling")
    yield loaded
    for name in [name for name in sys.modules if name.startswith("k_diffusion")]:
        monkeypatch.delitem(sys.modules, name)


def close(ours, theirs):
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-10


@pytest.mark.parity
@pytest.mark.parametrize(
    ("solver", "function", "eta", "their_eta"),
    [
        ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", 1.0, 1.0),
        ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", 0.5, 0.25),
        ("dpmpp-3m-sde", "sample_dpmpp_3m_sde", 1.0, 1.0),
        ("euler-ancestral", "sample_euler_ancestral", 1.0, 1.0),
        ("euler-ancestral", "sample_euler_ancestral", 0.6, 0.6),
        ("dpmpp-2s-ancestral", "sample_dpmpp_2s_ancestral", 1.0, 1.0),
        ("dpmpp-2m", "sample_dpmpp_2m", None, None),
        ("heun", "sample_heun", None, None),
    ],
)
def test_our_functions_are_theirs(sampling, solver, function, eta, their_eta):
    """Same call, same noise sampler: the same samples, and callbacks with the same values."""
    x, peer, ours = start(), getattr(sampling, function), k_diffusion.sampler(solver)
    mine = {} if eta is None else {"eta": eta, "noise_sampler": seeded(x)}
    theirs = {} if eta is None else {"eta": their_eta, "noise_sampler": seeded(x)}
    close(
        ours(model, x, SIGMAS, disable=True, **mine), peer(model, x, SIGMAS, disable=True, **theirs)
    )
    mine, theirs = (
        ({} if eta is None else options | {"noise_sampler": seeded(x)})
        for options in (mine, theirs)
    )
    seen, expected = (
        recorded(ours, model, x, SIGMAS, **mine),
        recorded(peer, model, x, SIGMAS, disable=True, **theirs),
    )
    assert len(seen) == len(expected)
    for a, b in zip(seen, expected, strict=True):
        assert set(a) == set(b)
        assert a["i"] == b["i"]
        assert a["sigma"] == b["sigma"] and a["sigma_hat"] == b["sigma_hat"]
        close(a["x"], b["x"])
        close(a["denoised"], b["denoised"])


@pytest.mark.parity
@pytest.mark.filterwarnings(
    "ignore:Should have tb<=t1:UserWarning"
)  # torchsde, of the rounding in k-diffusion's exp(log(sigma))
def test_dpmpp_sde_on_their_brownian_tree(sampling):
    """With a Brownian tree, two draws a step lie on the path of k-diffusion's own sampler."""
    pytest.importorskip("torchsde", reason="k-diffusion's Brownian tree needs torchsde")
    x = start()
    tree = sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=3)
    close(
        k_diffusion.sampler("dpmpp-sde")(model, x, SIGMAS, noise_sampler=tree),
        sampling.sample_dpmpp_sde(model, x, SIGMAS, noise_sampler=tree, disable=True),
    )


@pytest.mark.parity
def test_signatures_are_theirs(sampling):
    """Every argument of theirs is in ours, in the same order, but for options of the solver."""
    for solver, function in [
        ("euler-ancestral", "sample_euler_ancestral"),
        ("dpmpp-2m", "sample_dpmpp_2m"),
        ("dpmpp-2m-sde", "sample_dpmpp_2m_sde"),
    ]:
        ours = [
            (p.name, p.default)
            for p in inspect.signature(k_diffusion.sampler(solver)).parameters.values()
        ]
        theirs = [
            (p.name, p.default)
            for p in inspect.signature(getattr(sampling, function)).parameters.values()
        ]
        theirs = [p for p in theirs if p[0] != "solver_type"]
        assert ours[: len(theirs)] == theirs
        assert set(ours[len(theirs) :]) <= {("noise_sampler", None)}  # which Forge passes to all
