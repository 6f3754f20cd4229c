"""The budget controller: q against closed forms, the grid against its criterion, files and
failures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import processes_with_denoiser

import srk
from srk.steps import Budget, Criterion, Profile, RunInfo
from srk.steps.budget import CRITERIA

VP = srk.VP()
V = 0.25
TARGET = srk.targets.Gaussian(0.3, V)
PROCESSES = list(processes_with_denoiser().values())


def mmse(lam: Any, v: float = V) -> Any:
    """Of N(m, v) data at half log-SNR `lam`."""
    s = np.exp(-2.0 * np.asarray(lam))
    return v * s / (v + s)


def exact(process: Any, v: float = V) -> Profile:
    """The profile of N(m, v) data in closed form, on 400 intervals."""
    ends = srk.steps.base.Range.of(process)
    lam = np.linspace(ends.noisy, ends.clean, 401)
    return Profile(lam, -np.diff(mmse(lam, v)) / np.diff(lam))


@pytest.fixture(scope="module")
def profile() -> Profile:
    return srk.calibrate(VP, TARGET.score(VP), shape=2000)


# -- the profile -----------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_pilot_measures_the_closed_form(process: Any) -> None:
    """n samples of a one-dimensional Gaussian: the mean of n squares has the relative deviation
    sqrt(2/n); 4.5 of them for some 32 intervals.
    """
    n = 4000
    found = srk.calibrate(process, TARGET.score(process), shape=n)
    lam = np.array(found.lam)
    q = -np.diff(mmse(lam)) / np.diff(lam)
    assert len(q) >= 30
    assert np.abs(np.array(found.q) / q - 1.0).max() < 4.5 * math.sqrt(2.0 / n)


def test_pilot_is_per_coordinate_and_averages_over_the_spectrum() -> None:
    target = srk.targets.Gaussian(
        torch.zeros(3, dtype=torch.float64), torch.tensor([0.01, 0.25, 4.0], dtype=torch.float64)
    )
    found = srk.calibrate(VP, target.score(VP), shape=4000)
    lam = np.array(found.lam)
    q = -np.diff(np.mean([mmse(lam, v) for v in (0.01, 0.25, 4.0)], axis=0)) / np.diff(lam)
    assert np.abs(np.array(found.q) / q - 1.0).max() < 4.5 * math.sqrt(2.0 / 4000)


def test_total_variation_of_a_mixture_is_its_variance() -> None:
    """mmse falls from the variance of the data to almost 0, whatever their law: here two far
    modes, where the pilot's own law matters.
    """
    target = srk.targets.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.1, 0.1])
    found = srk.calibrate(VP, target.score(VP), shape=4000)
    variance = float(target.sample(100_000, seed=0, dtype=torch.float64).var())
    assert np.dot(found.q, np.diff(found.lam)) == pytest.approx(variance, rel=0.05)


def test_pilot_does_not_depend_on_how_it_is_cut() -> None:
    target = srk.targets.Gaussian(torch.zeros(1024, dtype=torch.float64), V)
    whole, cut = (srk.calibrate(VP, target.score(VP), shape=10, batch=batch) for batch in (None, 4))
    assert (
        np.allclose(whole.q, cut.q, rtol=1e-5)
        and whole.lam == cut.lam
        and whole.calls == cut.calls == 10 * 99
    )
    assert whole.bend_lam == cut.bend_lam


def test_conditions_of_the_run_are_cut_with_the_pilot() -> None:
    """A network with a condition for each sample sees as many conditions as states, also where the
    pilot has more samples than the run.
    """
    score = TARGET.score(VP)

    def network(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        assert label.shape == (len(x),)
        return score(x, t)

    conditioned = srk.Score(network, model_kwargs={"label": torch.arange(3)})
    grid = Budget(samples=8, steps=4)
    sol = srk.solve(VP, conditioned, "ddpm", shape=(3, 1), grid=grid, nfe=6, seed=0)
    assert sol.success and grid == Budget(samples=8, steps=4)  # nothing is kept in the grid


def test_the_pilot_runs_under_the_autocast_of_the_run() -> None:
    seen: set[torch.dtype] = set()
    linear = torch.nn.Linear(4, 4)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = linear(x)
        seen.add(out.dtype)
        return out

    srk.solve(
        VP,
        srk.Data(network),
        "srk2m",
        shape=(4, 4),
        nfe=6,
        seed=0,
        grid="budget",
        autocast=torch.bfloat16,
    )
    assert seen == {torch.bfloat16}


def test_losses_give_the_same_profile(profile: Profile) -> None:
    """A curve of losses at levels in any order, with noise of 1% that isotonic regression has to
    take, gives the closed form and the pilot.
    """
    lam = np.linspace(-5.2, 4.8, 101)
    noise = 1.0 + 0.01 * np.random.default_rng(0).standard_normal(101)
    order = np.random.default_rng(1).permutation(101)
    clean = Profile.from_losses(VP, np.exp(-lam)[order], mmse(lam)[order])
    middle = (lam[1:] + lam[:-1]) / 2
    assert np.allclose(clean.density(middle), -np.diff(mmse(lam)) / np.diff(lam), rtol=1e-9)
    rough = Profile.from_losses(VP, np.exp(-lam), mmse(lam) * noise)
    grids = [
        Budget(profile=p, criterion="broad").times(RunInfo(VP, None, 10))
        for p in (clean, rough, profile)
    ]
    lams = np.array([[VP.lam(t) for t in times] for times in grids])
    assert np.abs(lams[0] - lams[2]).max() < 0.1
    assert np.abs(lams[0] - lams[1]).max() < 0.5


def test_tails_are_those_of_a_gaussian() -> None:
    part = Profile(np.linspace(-3.0, 3.0, 61), -np.diff(mmse(np.linspace(-3.0, 3.0, 61))) / 0.1)
    far = np.array([-4.0, -5.0, 4.0, 5.0])
    assert np.allclose(part.density(far), 2.0 * mmse(far) ** 2 * np.exp(2 * far), rtol=0.05)


def test_mmse_is_the_closed_form_also_beyond_the_ends() -> None:
    inner = Profile(np.linspace(-4.0, 4.0, 81), -np.diff(mmse(np.linspace(-4.0, 4.0, 81))) / 0.1)
    x = np.linspace(-5.0, 5.0, 101)
    assert np.allclose(inner.mmse(x), mmse(x), rtol=0.005)


# -- the grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_ends_are_exact_and_steps_positive(process: Any, steps: int) -> None:
    times = Budget(profile=exact(process)).times(RunInfo(process, None, steps))
    assert len(times) == steps + 1 and times[0] == process.t_max and times[-1] == process.t_min
    assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize(
    "criterion",
    [
        *(name for name in CRITERIA if name != "bend"),
        Criterion(0.7, 0.2, 0.5, 0.3),
        Criterion(0.0, 0.0, 0.0, 0.0),
    ],
    ids=str,
)
def test_every_step_has_the_same_share_of_the_criterion(criterion: Any) -> None:
    """By quadrature of the formula, with the closed form of q; of "bend" in test_bend."""
    times = Budget(profile=exact(VP), criterion=criterion).times(RunInfo(VP, None, 12))
    lam = np.array([VP.lam(t) for t in times])
    x = np.linspace(lam[0], lam[-1], 200_001)
    c = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    q = 2.0 * mmse(x) ** 2 * np.exp(2.0 * x)
    residual = np.maximum(np.exp(-2.0 * x) / (V + np.exp(-2.0 * x)), 0.02)
    shape = q**c.power * np.exp(c.slope * x) * residual**c.residual
    density = (1.0 - c.uniform) * shape / np.trapezoid(shape, x) + c.uniform / (x[-1] - x[0])
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)]) * (x[1] - x[0])
    assert np.allclose(np.diff(np.interp(lam, x, mass)), 1.0 / 12.0, atol=2e-5)


def test_uniform_criterion_is_the_log_snr_grid() -> None:
    times = Budget(profile=exact(VP), criterion=Criterion(0.0, 0.0, uniform=1.0)).times(
        RunInfo(VP, None, 9)
    )
    assert np.allclose(times, srk.steps.LogSNR().times(RunInfo(VP, None, 9)), rtol=1e-10)


def test_default_criterion_is_the_solver_s() -> None:
    made = {}
    for name in ("srk2m", "ddpm", "dpmpp-2m-sde"):
        made[name] = Budget(profile=exact(VP)).times(RunInfo(VP, srk.solvers()[name], 8))
    for name, criterion in (
        ("srk2m", "concentrated"),
        ("ddpm", "concentrated"),
        ("dpmpp-2m-sde", "broad"),
    ):
        assert made[name] == Budget(profile=exact(VP), criterion=criterion).times(
            RunInfo(VP, None, 8)
        )
    assert made["ddpm"] != made["dpmpp-2m-sde"]


def test_data_that_are_known_from_some_level_on_leave_only_the_uniform_share_there() -> None:
    """q = 0 at small noise, as for a finite set of points."""
    lam = np.linspace(-5.1, 4.7, 99)
    q = np.where(lam[1:] < 1.0, 1.0, 0.0)
    times = Budget(profile=Profile(lam, q), criterion=Criterion(0.5, 0.0, uniform=0.2)).times(
        RunInfo(VP, None, 50)
    )
    share = np.mean(np.array([VP.lam(t) for t in times[1:]]) > 1.2)
    assert share == pytest.approx(
        0.2 * (VP.lam(VP.t_min) - 1.2) / (VP.lam(VP.t_min) - VP.lam(1.0)), abs=0.02
    )


# -- with solve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddpm", "srk2", "srk2m", "dpmpp-2m-sde"])
@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_nfe_is_respected_exactly(solver: str, eta: float) -> None:
    sol = srk.solve(VP, TARGET.score(VP), solver, shape=4, nfe=21, eta=eta, seed=0, grid="budget")
    assert sol.success and sol.nfe == 21


def test_controller_is_the_old_name_of_grid() -> None:
    options: dict[str, Any] = {"shape": 4, "nfe": 9, "seed": 0}
    with pytest.warns(DeprecationWarning, match="is now grid='karras'") as seen:
        old = srk.solve(VP, TARGET.score(VP), "ddpm", controller="karras", **options)
    assert seen[0].filename == __file__
    new = srk.solve(VP, TARGET.score(VP), "ddpm", grid="karras", **options)
    assert torch.equal(old.x, new.x)
    with pytest.raises(srk.errors.ArgumentError, match="give one of them"):
        srk.solve(VP, TARGET.score(VP), controller="karras", grid="karras", **options)


@pytest.mark.usefixtures("global_rng_untouched")
def test_a_sampler_pilots_once_and_a_grid_keeps_nothing() -> None:
    calls = 0

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(x)
        return score(x, t)

    score = TARGET.score(VP)
    grid = Budget(samples=20, steps=8)
    sampler = srk.Sampler(VP, network, "ddpm", grid=grid, nfe=10)
    first = sampler(shape=(5, 1), seed=0)
    assert calls == 20 * 17 + 5 * first.nfe
    second = sampler(shape=(5, 1), seed=3)
    assert calls == 20 * 17 + 5 * 10 + 5 * 10
    assert first.times == second.times  # the seed of a run does not move the grid
    assert grid == Budget(samples=20, steps=8)
    # another network with the same grid object is measured itself
    wide = srk.targets.Gaussian(0.3, 16.0).score(VP)
    others = [
        srk.solve(VP, wide, "ddpm", shape=(5, 1), grid=each, nfe=10, seed=0).times
        for each in (grid, Budget(samples=20, steps=8))
    ]
    assert others[0] == others[1] != first.times


def test_same_samples_again() -> None:
    runs = [
        srk.solve(VP, TARGET.score(VP), "srk2m", shape=6, grid="budget", nfe=12, seed=5)
        for _ in range(2)
    ]
    assert torch.equal(runs[0].x, runs[1].x) and runs[0].times == runs[1].times
    other = srk.solve(VP, TARGET.score(VP), "srk2m", shape=6, grid=Budget(seed=1), nfe=12, seed=5)
    assert other.times != runs[0].times


def test_better_than_the_default_grid_where_it_is_exact() -> None:
    """KL of ddpm on N(0, v) against log-snr, for small and large v: the exact laws, so no luck.
    Measured 0.33 to 0.45.
    """
    for v in (0.01, 0.25, 4.0):
        budget = Budget(profile=exact(VP, v))
        kl = [
            srk.analysis.gaussian_kl("ddpm", VP, variance=v, steps=16, grid=grid)
            for grid in (budget, "log-snr")
        ]
        assert kl[0] < 0.5 * kl[1]


# -- files and failures ----------------------------------------------------------------------------


def test_round_trip(tmp_path: Path, profile: Profile) -> None:
    path = profile.save(tmp_path / "p.json")
    assert Profile.load(path) == profile
    assert path.stat().st_size < 4000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: "{", "is not JSON"),
        (lambda data: "[1, 2]", "holds no profile"),
        (lambda data: json.dumps({"lam": data["lam"]}), "holds no profile"),
        (lambda data: json.dumps(data | {"srk-profile": 99}), "of version 99"),
        (lambda data: json.dumps({k: v for k, v in data.items() if k != "q"}), "lacks 'q'"),
        (lambda data: json.dumps(data | {"q": data["q"][1:]}), r"damaged: .*n \+ 1 edges"),
        (
            lambda data: json.dumps(data | {"q": ["a"] * len(data["q"])}),
            "damaged: .*no list of at most",
        ),
        (lambda data: json.dumps(data | {"lam": data["lam"][::-1]}), "damaged: .*increase"),
        (lambda data: json.dumps(data | {"q": [-1.0] * len(data["q"])}), "damaged: .*not negative"),
        (lambda data: json.dumps(data | {"calls": "many"}), "damaged"),
    ],
)
def test_files_that_are_no_profile(
    tmp_path: Path, profile: Profile, spoil: Callable[[Any], str], message: str
) -> None:
    path = profile.save(tmp_path / "p.json")
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(srk.errors.ArgumentError, match=message):
        Profile.load(path)


def test_profile_of_another_range(profile: Profile) -> None:
    fine = srk.EDM(sigma_min=1e-4, sigma_max=80.0)
    with pytest.raises(
        srk.errors.ArgumentError,
        match=r"covers half log-SNRs from -5.0.* runs from .* to 9.21; measure one",
    ):
        srk.solve(fine, TARGET.score(fine), "ddpm", shape=4, grid=Budget(profile=profile), nfe=8)
    within = srk.EDM(
        sigma_min=0.02, sigma_max=80.0
    )  # q belongs to the data: a narrower range of another process is served
    assert (
        srk.solve(
            within,
            TARGET.score(within),
            "ddpm",
            shape=4,
            grid=Budget(profile=profile),
            nfe=8,
            seed=0,
        ).nfe
        == 8
    )


def test_a_process_without_log_snr_is_refused() -> None:
    class Nonlinear(srk.ForwardProcess):
        name, t_min, t_max = "cubic", 0.0, 1.0

        def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
            return -(x**3)

        def diffusion(self, t: float) -> float:
            return 1.0

        def sample_prior(self, shape: Any, **options: Any) -> torch.Tensor:
            return torch.randn(tuple(shape), generator=options["generator"])

    process = Nonlinear()
    with pytest.raises(
        srk.errors.IncompatibleError, match=r"'budget' needs a log-SNR.*use grid='uniform'"
    ):
        srk.solve(process, lambda x, t: -x, "euler-maruyama", shape=(2, 1), grid="budget", steps=4)
    with pytest.raises(srk.errors.IncompatibleError, match="a profile needs a log-SNR"):
        srk.calibrate(process, lambda x, t: -x, shape=(32, 1))


def test_other_failures_name_the_cure() -> None:
    score = TARGET.score(VP)
    with pytest.raises(
        srk.errors.ArgumentError, match=r"no network to measure here.*Budget\(srk.calibrate"
    ):
        srk.analysis.gaussian_kl("ddpm", VP, steps=8, grid="budget")
    with pytest.raises(
        srk.errors.ArgumentError, match="'concentrated', 'broad', 'network', 'bend', 'kl', 'l2'"
    ):
        Budget(criterion="l3")
    with pytest.raises(srk.errors.ArgumentError, match="shape=\\(32, 3, 32, 32\\)"):
        srk.calibrate(VP, lambda x, t: -x)
    for options, name in (
        ({"shape": 0}, "shape"),
        ({"shape": 2.0}, "shape"),
        ({"steps": 3}, "steps of a pilot"),
        ({"batch": -1}, "batch of a pilot"),
        ({"seed": -1}, "seed of a pilot"),
    ):
        with pytest.raises(
            (srk.errors.ArgumentError, srk.errors.ArgumentTypeError), match=f"{name} must be a"
        ):
            srk.calibrate(VP, score, **options)
    with pytest.raises(srk.errors.ArgumentError, match="does the network use its input"):
        srk.calibrate(VP, srk.Data(lambda x, t: torch.zeros_like(x)), shape=(32, 1))
    for sigma, error, message in (
        ([1.0, 0.5], [1.0, 0.5], "at least 3"),
        ([1.0, 0.5, 0.5], [1.0, 0.5, 0.4], "all different"),
        ([1.0, 0.5, -0.5], [1.0, 0.5, 0.4], "positive"),
        ([1.0, 0.5, 0.1], [1.0, math.nan, 0.4], "finite"),
        ([1.0, 0.5, 0.1], [1.0, 0.5, 0.1], "covers half log-SNRs from 0 to 2.303"),
    ):
        with pytest.raises(srk.errors.ArgumentError, match=message):
            Profile.from_losses(VP, sigma, error)
