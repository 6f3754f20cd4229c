"""The house methods: matched weights, and `auto`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import srk
from srk.analysis import gaussian_distribution, gaussian_kl
from srk.integrators import SRK2M, Auto
from srk.plans.gauge import GaugeStep
from srk.plans.matching import FAMILY, GaussianStep, Moments
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
VARIANCES = np.logspace(-3, 1, 9)
SPECTRUM = np.logspace(-2, 0.5, 16)
MATCHED = SRK2M(weights="matched")


def test_the_moments_are_those_of_the_exact_law() -> None:
    """What the planner believes of Var(x) is what the plans do.

    Moments against `gaussian_distribution`, which runs them on basis vectors.
    """
    process, v = srk.VP(), 0.5
    times = srk.steps.Uniform().times(srk.steps.RunInfo(process, MATCHED, 9))
    plans = plan_grid(process, MATCHED, times)
    moments = plans[-1].notes[0].moments
    assert moments.variances[0] == v * FAMILY[0]
    for family in (0, 12, -1):
        law = gaussian_distribution(
            MATCHED, process, 0.0, float(moments.variances[family]), grid=times, start="exact"
        )
        assert moments.covariance[family, 0, 0] == pytest.approx(law.variance[0], rel=1e-9)


def test_moments_of_one_step_by_hand() -> None:
    """The first step, with no past.

    X' = A'x + B'g(Ax + s_c z/2) + s'z is what `after` says, and a step of exact Gaussian gauge
    keeps the distribution.
    """
    process = srk.VP()
    start, stop = process.level(0.8), process.level(0.5)
    gauge = GaugeStep(start, stop, 0.5, 1.0)
    moments = GaussianStep(
        gauge, gauge.node(process, 0.25), 0.25, Moments.at(start, 0.5, stop)
    ).after([], 3)
    exact = stop.alpha**2 * moments.variances + stop.sigma**2
    at = int(np.argmin(np.abs(moments.variances - 0.5)))
    own = Moments(
        np.array([0.5]),
        Moments.at(start, 0.5, stop).covariance[:1] * 0 + start.alpha**2 * 0.5 + start.sigma**2,
    )
    same = GaussianStep(gauge, gauge.node(process, 0.25), 0.25, own).after([], 3)
    assert same.covariance[0, 0, 0] == pytest.approx(stop.alpha**2 * 0.5 + stop.sigma**2, rel=1e-12)
    assert abs(moments.covariance[at, 0, 0] / exact[at] - 1) < 0.01 * abs(
        moments.covariance[0, 0, 0] / exact[0] - 1
    )


def test_matched_weights_sum_to_one() -> None:
    """On R equal to a constant the prediction is that constant, as for the martingale."""
    process = srk.VP()
    gauge = GaugeStep(process.level(0.5), process.level(0.4), 0.5, 1.0)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(len(FAMILY), 4, 4))
    past = tuple(process.level(t) for t in (0.55, 0.65, 0.75))
    step = GaussianStep(
        gauge,
        gauge.node(process, 0.25),
        0.25,
        Moments(0.5 * FAMILY, root @ root.transpose(0, 2, 1)),
        past,
    )
    weights = step.weights([1.5, -0.5, 0.0], 1e-4)
    assert sum(weights) == pytest.approx(1.0, abs=1e-12)
    assert max(abs(a - b) for a, b in zip(weights, [1.5, -0.5, 0.0], strict=True)) <= 1.0


@pytest.mark.parametrize(("nfe", "gain"), [(10, 10.0), (14, 100.0), (20, 100.0), (50, 1000.0)])
def test_matched_weights_win_on_gaussians(nfe: int, gain: float) -> None:
    """KL over nine scales, and a spectrum of 16 that no gauge is exact for.

    At least `gain` (two decades less for the spectrum) below the rule.
    """
    for process, targets, mean, factor in (
        (EDM, [[v] for v in VARIANCES], 0.0, gain),
        (srk.VP(), [SPECTRUM], 1.0, gain / 20),
    ):
        rule, matched = (
            np.mean([gaussian_kl(solver, process, variance=v, mean=mean, nfe=nfe) for v in targets])
            for solver in ("srk2m", MATCHED)
        )
        assert matched * factor < rule


def test_matched_on_other_grids_and_gauges() -> None:
    """The weights know the grid.

    On Karras steps too; and a gauge that is wrong by 16x either way still converges.
    """
    for variance in (0.03, 0.5, 8.0):
        assert gaussian_kl(MATCHED, EDM, variance=0.5 * variance, nfe=30, grid="karras") < 1e-5
        assert (
            gaussian_kl(SRK2M(data_variance=variance, weights="matched"), EDM, variance=0.3, nfe=30)
            < 1e-5
        )


@pytest.mark.parametrize(
    "solver", [MATCHED, SRK2M(data_variance=2.0, local=1.5, weights="matched")]
)
def test_matched_slope(solver: SRK2M) -> None:
    """Fourth order on linear problems, where the ridge still shrinks: KL falls as steps^-8."""
    kl = [gaussian_kl(solver, srk.VP(), variance=[0.1, 2.0], steps=n) for n in (24, 96)]
    assert np.log2(kl[1] / kl[0]) / 2 == pytest.approx(-8.0, abs=1.5)


@pytest.mark.parametrize("sigma_max", [10.0, 20.0, 80.0])
@pytest.mark.parametrize("steps", [100, 400])
def test_matched_weights_do_not_chase_the_first_step(sigma_max: float, steps: int) -> None:
    """What the first step gets wrong of data as wide as the noise cannot be taken back.

    Weights that try swing between their bounds, and KL stays above 1e-9.
    """
    process = srk.EDM(sigma_min=0.01, sigma_max=sigma_max)
    assert (
        np.mean(
            [
                gaussian_kl(MATCHED, process, variance=v, steps=steps)
                for v in VARIANCES[sigma_max**2 / 16 > VARIANCES]
            ]
        )
        < 1e-11
    )


def test_matched_with_little_noise_at_the_start() -> None:
    """Only the least variance of the family is left where the noise covers none."""
    process = srk.EDM(sigma_min=0.01, sigma_max=0.05)
    assert (
        len(
            Moments.at(
                process.level_at(process.lam(process.t_max)),
                1.0,
                process.level_at(process.lam(process.t_max) + 0.1),
            ).variances
        )
        == 1
    )
    assert gaussian_kl(MATCHED, process, variance=1e-4, steps=10) < 1e-4


def test_matched_from_infinite_noise() -> None:
    """A process that starts at alpha = 0."""
    process = srk.process("flow")
    target = srk.targets.Gaussian(0.0, 0.2)
    sol = srk.solve(process, target.score(process), MATCHED, shape=(20_000, 1), steps=12, seed=0)
    assert abs(float(sol.x.var()) / 0.2 - 1) < 4 * (2 / 20_000) ** 0.5 + 0.01


def test_matched_is_the_rule_away_from_eta_one() -> None:
    """Only at eta = 1 are the weights matched."""
    process, x = srk.VP(), torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    score = srk.targets.GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.1, 0.2]).score(process)
    runs = [
        srk.solve(process, score, s, x_init=x, steps=10, eta=0.5, seed=1).x
        for s in (SRK2M(), MATCHED)
    ]
    assert torch.equal(*runs)


def test_the_law_of_a_mixture_with_matched_weights() -> None:
    """Nonlinear.

    At 24 calls the shares of the three modes are exact within 4 standard errors plus 0.5%.
    """
    process = srk.VP()
    target = srk.targets.GaussianMixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])
    n = 40_000
    x = srk.solve(process, target.score(process), "auto", shape=n, nfe=24, seed=0).x[:, 0]
    for share, (a, b) in zip((0.3, 0.5), ((-9.0, -0.4), (-0.4, 0.6)), strict=True):
        exact = float(target.cdf(b) - target.cdf(a))
        assert exact == pytest.approx(share, abs=0.01)
        assert float(((x > a) & (x <= b)).double().mean()) == pytest.approx(
            exact, abs=4 * (share * (1 - share) / n) ** 0.5 + 0.005
        )


@pytest.mark.parametrize(
    ("options", "picked"),
    [
        ({"nfe": 6}, "auto: srk2m (matched)"),
        ({"nfe": 8}, "auto: srk2m (local, matched)"),
        ({"steps": 20}, "auto: srk2m (local, matched)"),
        ({}, "auto: srk2m (local, matched)"),
        ({"grid": [1.0, 0.5, 0.1, 0.01]}, "auto: srk2m (matched)"),
        (
            {"grid": srk.steps.Adaptive(estimate="doubling"), "noise": "brownian"},
            "auto: srk2s",
        ),
        ({"steps": 20, "eta": 0.5}, "auto: srk2m"),
        ({"steps": 15, "eta": 0.0}, "auto: gauge-adams"),
        ({"steps": 16, "eta": 0.0}, "auto: unipc-3"),
        ({"steps": 20, "eta": 1.5}, "auto: dpmpp-2m-sde"),
    ],
)
def test_auto_says_what_it_picked(options: dict[str, object], picked: str) -> None:
    process = srk.VP()
    score = srk.targets.Gaussian(0.0, 0.3).score(process)
    assert srk.solve(process, score, "auto", shape=(2, 1), seed=0, **options).solver == picked


def test_auto_is_what_it_picked() -> None:
    """The same samples, with or without solve() knowing that it is `auto`.

    And the same plans in the exact distributions.
    """
    process = srk.VP()
    score = srk.targets.Gaussian(0.0, 0.3).score(process)
    for eta, solver in (
        (0.5, SRK2M()),
        (1.0, SRK2M(data_variance=0.5, bound=0.2, local=0.7, node=1 / 3, weights="matched")),
    ):
        one, two = (
            srk.solve(process, score, s, shape=(8, 1), steps=20, eta=eta, seed=0).x
            for s in ("auto", solver)
        )
        assert torch.equal(one, two)
        kl = [gaussian_kl(s, process, steps=20, eta=eta, variance=0.2) for s in ("auto", solver)]
        assert kl[0] == kl[1]


def test_auto_on_a_process_that_is_not_linear() -> None:
    class Wells(srk.ForwardProcess):
        name = "wells"
        t_min, t_max = 0.01, 1.0

        def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
            return x - x**3

        def diffusion(self, t: float) -> float:
            return 1.0

        def sample_prior(self, shape, *, generator=None, device=None, dtype=None):
            return torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)

    sol = srk.solve(Wells(), lambda x, t: -x, "auto", shape=(4, 1), steps=5, seed=0)
    assert sol.solver == "auto: euler-maruyama" and sol.nfe == 5


def test_auto_keeps_its_gauge() -> None:
    assert Auto(data_variance=4.0, local=1.0).choose(srk.VP(), 1.0, 4) == SRK2M(
        data_variance=4.0, local=1.0, node=0.27, weights="matched"
    )
    assert Auto(data_variance=4.0).choose(srk.VP(), 0.5, 4) == SRK2M(data_variance=1.0)
    labels = [
        Auto(**options).label(srk.VP(), 1.0, 9)
        for options in ({}, {"local": np.inf}, {"data_variance": 0.0})
    ]
    assert labels == ["auto: srk2m (local, matched)", "auto: srk2m (matched)", "auto: srk2m"]
    with pytest.raises(srk.errors.ArgumentError, match="data_variance"):
        Auto(data_variance=-1.0)
