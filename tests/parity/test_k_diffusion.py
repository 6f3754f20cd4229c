"""Every sampler of k-diffusion 0.1.1.post1 against ours: same network, same sigmas, same noise, in
float64.

k-diffusion asks for image packages that its samplers do not use, so it is installed without them
and only its sampling code is loaded:

    pip install --no-deps k-diffusion==0.1.1.post1

(`torchsde` and `scipy`, which the sampling code imports, come with `srk[validation]`.) Without it
this module is skipped. k-diffusion acts on u = x/alpha and r = sigma/alpha; every comparison runs
on EDM, where that is the identity, and on VP.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import itertools
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk
from srk.integrators import (
    EDMDPM2,
    LMS,
    DPMpp2MSDE,
    DPMppSDE,
    DPMSolver2,
    DPMSolver3,
    EDMEuler,
    EDMHeun,
    Integrator,
    Slot,
)
from srk.noise import NoiseSource, ReplayNoise
from srk.processes import Level

pytestmark = pytest.mark.parity

TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.1, 0.3, 0.2]
)
BATCH = 3


@pytest.fixture(scope="module")
def sampling() -> Iterator[types.ModuleType]:
    """`k_diffusion.sampling` without the rest of the package.

    What it imports but does not need is stubbed where it is not installed.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    stubs: dict[str, types.ModuleType] = {"k_diffusion": package}
    names = (
        "PIL",
        "PIL.Image",
        "safetensors",
        "torchdiffeq",
        "torchvision",
        "torchvision.transforms",
        "tqdm",
        "tqdm.auto",
    )
    for name in names:
        if (
            name.partition(".")[0] in stubs
            or importlib.util.find_spec(name.partition(".")[0]) is None
        ):
            stub = types.ModuleType(name)
            stub.__path__ = []
            stub.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
            stubs[name] = stub
    if "tqdm.auto" in stubs:
        stubs["tqdm.auto"].trange = lambda *args, disable=None: range(*args)
    loaded = ("k_diffusion", "k_diffusion.utils", "k_diffusion.sampling", *names)
    before = {name: sys.modules[name] for name in loaded if name in sys.modules}
    sys.modules.update(stubs)
    try:
        yield importlib.import_module("k_diffusion.sampling")
    finally:
        for name in loaded:
            sys.modules.pop(name, None)
        sys.modules.update(before)


# -- the same noise on both sides
# ------------------------------------------------------------


class ByStep(ReplayNoise):
    """Draws by the step that asks, for peers that draw in every step."""

    def __init__(self, draws: Tensor, starts: Sequence[float]) -> None:
        super().__init__(draws)
        self.starts = starts

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self._next = min(range(len(self.starts)), key=lambda i: abs(self.starts[i] - slot.start))
        super().draw(slot, clock, out)


class Path(NoiseSource):
    """One Brownian path in sigma, known at given points."""

    name = "path"

    def __init__(self, sigmas: Sequence[float], seed: int) -> None:
        self.sigmas = torch.tensor(sorted(sigmas), dtype=torch.float64)
        steps = torch.diff(self.sigmas, prepend=torch.zeros(1, dtype=torch.float64)).sqrt()
        normals = torch.randn(
            len(sigmas),
            BATCH,
            2,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(seed),
        )
        self.values = torch.cumsum(normals * steps[:, None, None], 0)

    def at(self, sigma: float) -> tuple[float, Tensor]:
        index = int((self.sigmas - sigma).abs().argmin())
        assert abs(float(self.sigmas[index]) - sigma) <= 1e-9 * sigma
        return float(self.sigmas[index]), self.values[index]

    def increment(self, a: Any, b: Any) -> Tensor:
        (sa, wa), (sb, wb) = self.at(float(a)), self.at(float(b))
        return (wb - wa) / abs(sb - sa) ** 0.5 if sa != sb else torch.zeros_like(wa)

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        raise AssertionError("the state is given")

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        assert clock == "-sigma/alpha"
        out.copy_(self.increment(-slot.start, -slot.stop))


# -- the same problem on both sides
# ------------------------------------------------------------


def model(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser as k-diffusion calls it."""
    s = float(sigma[0])
    return TARGET.denoise(x, Level(s, 1.0, s, -math.log(s)))


@attrs.frozen
class Problem:
    """A process, own times, the levels there, and a state in units of u at the first of them."""

    process: Any
    times: list[float]

    @property
    def levels(self) -> list[Level]:
        return [self.process.level(t) for t in self.times]

    @property
    def sigmas(self) -> Tensor:
        return torch.tensor([level.r for level in self.levels], dtype=torch.float64)

    @property
    def u(self) -> Tensor:
        noise = torch.randn(
            BATCH, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        return noise * self.levels[0].r

    def draws(self) -> Tensor:
        return torch.randn(
            len(self.times),
            BATCH,
            2,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(2),
        )

    def solve(
        self, solver: str | Integrator, noise: NoiseSource | None = None, eta: float | None = None
    ) -> Tensor:
        sol = srk.solve(
            self.process,
            TARGET.score(self.process),
            solver,
            x_init=self.u * self.levels[0].alpha,
            grid=self.times,
            eta=eta,
            noise=noise,
            denoise_final=False,
        )
        return sol.x / self.levels[-1].alpha


def _times(process: Any, lams: Sequence[float]) -> list[float]:
    return [process.time(lam) for lam in lams]


EDM0, VP0 = srk.EDM(sigma_min=0.0), srk.VP(t_min=0.0)
IRREGULAR = [-3.9, -3.1, -2.7, -1.4, -0.9, 0.0, 0.8, 1.0, 2.2, 3.0]
PROBLEMS = {
    # k-diffusion's usual grid, from sigma = 80 to 0
    "edm-karras-to-0": Problem(
        EDM0,
        [(80 ** (1 / 7) + (0.01 ** (1 / 7) - 80 ** (1 / 7)) * i / 11) ** 7 for i in range(12)]
        + [0.0],
    ),
    "edm-irregular": Problem(EDM0, _times(EDM0, IRREGULAR)),
    "edm-log-snr": Problem(EDM0, _times(EDM0, [-4.3 + 0.4 * i for i in range(20)])),
    "vp-irregular": Problem(VP0, _times(VP0, IRREGULAR)),
    "vp-uniform-to-0": Problem(VP0, [0.95 - 0.95 * i / 12 for i in range(12)] + [0.0]),
}


@pytest.fixture(params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]


def assert_equal(ours: Tensor, theirs: Tensor, rtol: float = 1e-10) -> None:
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    assert error < rtol, f"relative difference {error:.2e}"


def sampler_of(draws: Tensor) -> Callable[[Any, Any], Tensor]:
    """The list of draws as a noise_sampler of k-diffusion."""
    rest = iter(draws)
    return lambda sigma, sigma_next: next(rest)


# -- the samplers
# ------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "function", "options"),
    [
        (DPMpp2MSDE(), "sample_dpmpp_2m_sde", {"solver_type": "midpoint"}),
        (DPMpp2MSDE(variant="heun"), "sample_dpmpp_2m_sde", {"solver_type": "heun"}),
        ("dpmpp-3m-sde", "sample_dpmpp_3m_sde", {}),
    ],
    ids=["2m-midpoint", "2m-heun", "3m"],
)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0, 1.3])
def test_multistep_sde(
    sampling: Any, problem: Problem, solver: Any, function: str, options: dict[str, str], eta: float
) -> None:
    """dpmpp-2m-sde and dpmpp-3m-sde: their eta is our eta squared."""
    draws = problem.draws()
    theirs = getattr(sampling, function)(
        model,
        problem.u,
        problem.sigmas,
        eta=eta**2,
        noise_sampler=sampler_of(draws),
        disable=True,
        **options,
    )
    assert_equal(problem.solve(solver, ReplayNoise(draws), eta), theirs)


@pytest.mark.parametrize(
    ("solver", "function"),
    [
        ("euler-ancestral", "sample_euler_ancestral"),
        ("dpm2-ancestral", "sample_dpm_2_ancestral"),
        ("dpmpp-2s-ancestral", "sample_dpmpp_2s_ancestral"),
    ],
)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ancestral(sampling: Any, problem: Problem, solver: str, function: str, eta: float) -> None:
    """The ancestral samplers: their eta is ours."""
    draws = problem.draws()
    theirs = getattr(sampling, function)(
        model, problem.u, problem.sigmas, eta=eta, noise_sampler=sampler_of(draws), disable=True
    )
    assert_equal(problem.solve(solver, ReplayNoise(draws), eta), theirs)


def test_euler_ancestral_beyond_eta_1(sampling: Any, problem: Problem) -> None:
    """For eta > 1 the noise is cut at the noise level, as there."""
    draws = problem.draws()
    theirs = sampling.sample_euler_ancestral(
        model, problem.u, problem.sigmas, eta=1.5, noise_sampler=sampler_of(draws), disable=True
    )
    assert_equal(problem.solve("euler-ancestral", ReplayNoise(draws), 1.5), theirs)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("node", [0.5, 0.3])
def test_dpmpp_sde(sampling: Any, problem: Problem, eta: float, node: float) -> None:
    """dpmpp-sde with one Brownian path in sigma for both of a step's draws, which k-diffusion's
    own noise sampler is too.
    """
    lams = [level.lam for level in problem.levels if level.sigma > 0]
    stages = [math.exp(-(a + node * (b - a))) for a, b in itertools.pairwise(lams)]
    path = Path([*(math.exp(-lam) for lam in lams), *stages], seed=3)
    theirs = sampling.sample_dpmpp_sde(
        model,
        problem.u,
        problem.sigmas,
        eta=eta,
        r=node,
        noise_sampler=path.increment,
        disable=True,
    )
    assert_equal(problem.solve(DPMppSDE(node=node), path, eta), theirs)


def test_dpmpp_2m(sampling: Any, problem: Problem) -> None:
    """dpmpp-2m, and dpmpp-2m-sde at eta = 0."""
    theirs = sampling.sample_dpmpp_2m(model, problem.u, problem.sigmas, disable=True)
    assert_equal(problem.solve("dpmpp-2m"), theirs)
    assert_equal(problem.solve("dpmpp-2m-sde", eta=0.0), theirs)


def test_dpmpp_3m(sampling: Any, problem: Problem) -> None:
    """dpmpp-3m is k-diffusion's 3M at eta = 0, half second-order term included."""
    theirs = sampling.sample_dpmpp_3m_sde(
        model, problem.u, problem.sigmas, eta=0.0, noise_sampler=lambda a, b: None, disable=True
    )
    assert_equal(problem.solve("dpmpp-3m"), theirs)
    corrected = problem.solve("dpmpp-3m-sde-corrected", eta=0.0)
    assert float((corrected - theirs).abs().max()) > 1e-4  # another method


@pytest.mark.parametrize("order", [1, 2, 4])
def test_lms(sampling: Any, problem: Problem, order: int) -> None:
    """lms, the step to sigma = 0 included.

    Their quadrature is adaptive, but exact for polynomials.
    """
    theirs = sampling.sample_lms(model, problem.u, problem.sigmas, order=order, disable=True)
    assert_equal(problem.solve(LMS(order=order)), theirs)


@pytest.mark.parametrize(
    ("solver", "function"),
    [
        ("heun", "sample_heun"),
        ("dpm2", "sample_dpm_2"),
        ("ddim", "sample_euler"),
        ("euler", "sample_euler"),
    ],
)
def test_deterministic(sampling: Any, problem: Problem, solver: str, function: str) -> None:
    """heun, dpm2 and euler (the deterministic DDIM) without churn."""
    theirs = getattr(sampling, function)(model, problem.u, problem.sigmas, disable=True)
    assert_equal(problem.solve(solver, eta=0.0), theirs)


@pytest.mark.parametrize(
    ("solver", "function"),
    [(EDMHeun, "sample_heun"), (EDMDPM2, "sample_dpm_2"), (EDMEuler, "sample_euler")],
    ids=["heun", "dpm2", "euler"],
)
@pytest.mark.parametrize(
    ("churn", "low", "high", "noise"),
    [(5.0, 0.0, math.inf, 1.0), (40.0, 0.0, math.inf, 1.003), (3.0, 0.05, 10.0, 1.007)],
    ids=["everywhere", "capped", "in-a-range"],
)
def test_churn(
    sampling: Any,
    problem: Problem,
    solver: type[EDMHeun],
    function: str,
    churn: float,
    low: float,
    high: float,
    noise: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EDM's Algorithm 2 with S_churn, S_min, S_max, S_noise.

    On EDM the first step is evaluated above sigma_max, as there.
    """
    draws = problem.draws()
    rest = iter(draws)
    monkeypatch.setattr(
        sampling.torch, "randn_like", lambda x: next(rest)
    )  # they draw in every step, churned or not
    theirs = getattr(sampling, function)(
        model,
        problem.u,
        problem.sigmas,
        s_churn=churn,
        s_tmin=low,
        s_tmax=high,
        s_noise=noise,
        disable=True,
    )
    replay = ByStep(draws, [level.lam for level in problem.levels[:-1]])
    assert_equal(
        problem.solve(solver(s_churn=churn, s_min=low, s_max=high, s_noise=noise), replay), theirs
    )


@pytest.mark.parametrize("name", ["edm-irregular", "vp-irregular"])
@pytest.mark.parametrize(
    ("solver", "step", "nodes"),
    [
        (DPMSolver2(), "dpm_solver_2_step", {}),
        (DPMSolver2(node=0.7), "dpm_solver_2_step", {"r1": 0.7}),
        (DPMSolver3(), "dpm_solver_3_step", {}),
        (DPMSolver3(nodes=(0.25, 0.6)), "dpm_solver_3_step", {"r1": 0.25, "r2": 0.6}),
    ],
)
def test_dpm_solver(
    sampling: Any, name: str, solver: Integrator, step: str, nodes: dict[str, float]
) -> None:
    """The single steps of DPM-Solver-2 and -3, which `sample_dpm_fast` and `sample_dpm_adaptive`
    string together in their own ways.
    """
    problem = PROBLEMS[name]
    peer = sampling.DPMSolver(model)
    times = -problem.sigmas.log()
    x = problem.u
    for t, t_next in itertools.pairwise(times):
        x, _ = getattr(peer, step)(x, t, t_next, **nodes)
    assert_equal(problem.solve(solver), x)


def test_the_peer_ignores_curvature_by_half(sampling: Any) -> None:
    """The fault of 3M that our `dpmpp-3m-sde` reproduces.

    A denoiser quadratic in lam is not integrated exactly, by half its curvature.
    """

    def quadratic(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.full_like(x, float(sigma[0].log() ** 2))

    sigmas = torch.tensor(
        [1.0, math.exp(-0.1), math.exp(-0.2), math.exp(-0.3)], dtype=torch.float64
    )
    three = sampling.sample_dpmpp_3m_sde(
        quadratic,
        torch.zeros(1, 1, dtype=torch.float64),
        sigmas,
        eta=0.0,
        noise_sampler=0,
        disable=True,
    )
    two = sampling.sample_dpmpp_3m_sde(
        quadratic,
        torch.zeros(1, 1, dtype=torch.float64),
        sigmas[:3],
        eta=0.0,
        noise_sampler=0,
        disable=True,
    )
    h = 0.1
    moments = [-math.expm1(-h)]  # int_0^1 h e^{-h(1-t)} t^k dt
    for k in (1, 2):
        moments.append(1.0 - k * moments[-1] / h)
    exact = 0.2**2 * moments[0] + 2 * 0.2 * h * moments[1] + h**2 * moments[2]
    step = float(three - math.exp(-h) * two)
    assert step == pytest.approx(exact - 0.5 * h**2 * moments[2], rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_schedules(sampling: Any, n: int) -> None:
    """Theirs ends with 0, which is where the final denoising of ours leads to."""
    ends = {"sigma_min": 0.03, "sigma_max": 14.6}
    process = srk.EDM(**ends)
    for grid, theirs in (
        ("karras", sampling.get_sigmas_karras(n, **ends)),
        (srk.steps.Karras(rho=5.0), sampling.get_sigmas_karras(n, rho=5.0, **ends)),
        ("exponential", sampling.get_sigmas_exponential(n, **ends)),
        ("polyexponential", sampling.get_sigmas_polyexponential(n, **ends)),
        (
            srk.steps.PolyExponential(rho=1.7),
            sampling.get_sigmas_polyexponential(n, rho=1.7, **ends),
        ),
    ):
        ours = srk.steps.as_grid(grid).times(srk.steps.RunInfo(process, None, n - 1))
        assert ours == pytest.approx(theirs[:-1].tolist(), rel=2e-6)
