"""The bend of a profile against closed forms, the grid that goes by it, and its files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

import srk
from srk.errors import ArgumentError
from srk.steps import Bend, Budget, Profile, RunInfo
from srk.steps.budget import CRITERIA

EDM = srk.EDM()
LAM = np.linspace(-5.0, 7.0, 61)
Q = np.exp(-np.abs(0.5 * (LAM[1:] + LAM[:-1])))
PLACES = np.linspace(-3.5, 5.5, 31)
BENDS = np.exp(np.sin(PLACES) - 0.2 * PLACES**2 / 4.0)
PROFILE = Profile(LAM, Q, bend_lam=PLACES, bend=BENDS)


def bend_of(lam: Any, v: float, variances: list[float]) -> Any:
    """Of N(0, diag w) data: R = (w - v) u/(w + s), u^2 ~ w + s along a path, and so
    d2R/dlam2 = (w - v) s (s - 2 w) (w + s)^(-5/2) times a unit normal.
    """
    s = np.exp(-2.0 * np.asarray(lam))[:, None]
    w = np.array(variances)
    second = (w - v) * s * (s - 2.0 * w) * (w + s) ** -2.5
    return s[:, 0] * (s[:, 0] + v) ** -1.5 * np.sqrt(np.mean(second**2, axis=1))


def differences_of(lam: Any, h: float, v: float, variances: list[float]) -> Any:
    """The same with the second difference of steps h in place of the derivative."""
    s = np.exp(-2.0 * np.asarray(lam))
    w = np.array(variances)

    def R(x: Any) -> Any:
        return (w - v) * (w + np.exp(-2.0 * np.asarray(x))[:, None]) ** -0.5

    second = (R(lam + h) - 2.0 * R(lam) + R(lam - h)) / h**2
    return s * (s + v) ** -1.5 * np.sqrt(np.mean(second**2, axis=1))


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [EDM, srk.VP(), srk.Flow(0.002, 0.998)], ids=lambda p: p.name)
def test_calibration_measures_the_closed_form(process: srk.LinearProcess) -> None:
    """Against second differences of the closed form, where the bend is large: the rms over n paths
    of one coordinate is known to sqrt(1/(2 n)) relative, and 4.5 of that are allowed. Against the
    derivative, from a fiftieth of the largest on: second differences over 33 steps, and the error
    of their ODE, are up to an eighth off where the bend has its dip.
    """
    n, variances = 4000, [0.02, 0.7]
    target = srk.targets.Gaussian(
        torch.zeros(2, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)
    )
    found = srk.calibrate(process, target.score(process), shape=(n, 2), seed=1)
    lam, bend = np.array(found.bend_lam), np.array(found.bend)
    ends = srk.steps.base.Range.of(process)
    assert len(lam) == 31 and ends.noisy < lam[0] and lam[-1] < ends.clean
    h = np.diff(lam)
    assert np.allclose(h, h[0], rtol=1e-3)
    v = found.variance
    assert v == pytest.approx(0.36, rel=0.1)
    large, seen = bend > 0.1 * bend.max(), bend > 0.02 * bend.max()
    assert large.sum() >= 9 and seen.sum() >= 14
    expected = differences_of(lam, h[0], v, variances)
    assert np.abs(bend / expected - 1.0)[large].max() < 4.5 * math.sqrt(0.5 / n)
    assert np.allclose(bend[seen], bend_of(lam, v, variances)[seen], rtol=0.15)


def test_gaussian_data_of_the_variance_do_not_bend() -> None:
    """N(0, v): R = 0, so that what is left is what v was measured wrong by, and rounding."""
    target = srk.targets.Gaussian(torch.zeros(64), 0.3)
    found = srk.calibrate(EDM, target.score(EDM), shape=(400, 64), seed=1)
    wrong = abs(found.variance - 0.3)
    lam = np.array(found.bend_lam)
    other = bend_of(lam, 0.3 + max(wrong, 1e-3), [0.3])
    near = np.abs(lam) < 2.0
    assert np.array(found.bend)[near].max() < 3.0 * other.max() + 1e-4


def test_it_does_not_depend_on_how_the_pilot_is_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.randn(4, 8, generator=generator)
    target = srk.targets.GaussianMixture([1.0] * 4, means, [0.1, 0.2, 0.2, 0.3])
    whole, cut = (
        srk.calibrate(EDM, target.score(EDM), shape=(30, 8), batch=batch) for batch in (None, 7)
    )
    assert whole.calls == cut.calls == 30 * 99 and whole.bend_lam == cut.bend_lam
    bend = np.array(whole.bend)
    large = bend > 1e-3 * bend.max()
    assert large.sum() > 15 and np.allclose(cut.bend, bend, rtol=1e-3, atol=1e-4 * bend.max())


def test_it_is_not_measured_in_phase_space_or_around_a_mean() -> None:
    target = srk.targets.Gaussian([0.0], 0.3)
    cld = srk.CLD()
    around = srk.OUVE(mean=0.5)
    for process, shape in ((cld, (32, 2, 1)), (around, (32, 1))):
        assert srk.calibrate(process, target.score(process), shape=shape).bend == ()
    assert srk.calibrate(srk.VP(), target.score(srk.VP()), shape=(32, 1)).bend != ()


def test_a_pilot_of_a_sampler_follows_the_ode_only_where_its_steps_go_by_it() -> None:
    """Of `gauge-adams` and of the criterion "bend": the other grids do not look at it."""
    calls = 0
    target = srk.targets.GaussianMixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3])
    score = target.score(EDM)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        out: torch.Tensor = score(x, t)
        return out

    profile = srk.calibrate(EDM, srk.Score(network), shape=(64, 1), seed=0)
    for solver, criterion, evaluations in (
        ("ddpm", None, 65),
        ("gauge-adams", "kl", 65),
        ("gauge-adams", None, 99),
        ("ddpm", "bend", 99),
    ):
        calls = 0
        grid = Budget(samples=64, criterion=criterion)
        sol = srk.solve(EDM, srk.Score(network), solver, shape=(64, 1), nfe=9, seed=0, grid=grid)
        assert calls - sol.nfe == evaluations
        placed = Budget(profile, criterion).times(RunInfo(EDM, srk.solvers()[solver], sol.steps))
        assert sol.times == pytest.approx(placed, rel=1e-4)


# -- the grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "criterion", ["bend", Bend(0.5, 0.0), Bend(0.25, 0.4), Bend(0.0), Bend(uniform=1.0)], ids=str
)
def test_every_step_has_the_same_share(criterion: Any) -> None:
    """By quadrature of the formula; beyond the ends the bend falls with the distance."""
    times = Budget(PROFILE, criterion).times(RunInfo(EDM, None, 12))
    lam = np.array([EDM.level(t).lam for t in times])
    assert times[0] == EDM.t_max and times[-1] == EDM.t_min and (np.diff(lam) > 0).all()
    x = np.linspace(lam[0], lam[-1], 200_001)
    c = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    assert isinstance(c, Bend)
    beyond = np.maximum(PLACES[0] - x, 0.0) + np.maximum(x - PLACES[-1], 0.0)
    shape = np.exp(c.power * (np.interp(x, PLACES, np.log(BENDS)) - beyond))
    density = (1.0 - c.uniform) * shape / np.trapezoid(shape, x) + c.uniform / (x[-1] - x[0])
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)]) * (x[1] - x[0])
    assert np.allclose(np.diff(np.interp(lam, x, mass)), 1.0 / 12.0, atol=2e-5)
    if c.power == 0.0 or c.uniform == 1.0:
        assert np.allclose(np.diff(lam), np.diff(lam).mean(), rtol=1e-6)


def test_by_name_it_is_a_quarter_and_a_tenth() -> None:
    assert CRITERIA["bend"] == Bend() == Bend(power=0.25, uniform=0.1)


def test_gauge_adams_takes_it_and_falls_back() -> None:
    """It is "network" where the profile has no bend; and so it is on a schedule."""
    solver, n = srk.solvers()["gauge-adams"], 9
    without = attrs.evolve(PROFILE, bend_lam=(), bend=())
    auto = srk.integrators.Auto().calibrated(PROFILE)
    scheduled = srk.integrators.OnSchedule(auto)

    def times(profile: Profile, criterion: Any, solver: Any = None) -> list[float]:
        return Budget(profile, criterion).times(RunInfo(EDM, solver, n, 0.0))

    assert times(PROFILE, None, solver) == times(PROFILE, "bend")
    assert times(without, None, solver) == times(without, "network") != times(PROFILE, "bend")
    assert times(PROFILE, None, scheduled) == times(PROFILE, "bend")
    noisy = RunInfo(EDM, scheduled, n, 1.0)
    assert Budget(PROFILE).times(noisy) == times(PROFILE, "network")


@pytest.mark.parametrize("n", [1, 4, 10, 50])
def test_a_peak_of_the_bend_makes_no_sliver(n: int) -> None:
    for width in (1e-9, 1e-3, 0.1):
        profile = attrs.evolve(
            PROFILE, bend_lam=[-3.0, 0.3, 0.3 + width, 5.0], bend=[1e-12, 1e-12, 1e12, 1e-12]
        )
        lam = [EDM.level(t).lam for t in Budget(profile, "bend").times(RunInfo(EDM, None, n))]
        h = np.diff(lam)
        assert h.min() > 0.01 * h.mean()


def test_the_error_without_a_bend_names_the_cure() -> None:
    without = attrs.evolve(PROFILE, bend_lam=(), bend=())
    with pytest.raises(ArgumentError, match=r"no bend.*srk\.calibrate.*criterion='network'"):
        Budget(without, "bend").times(RunInfo(EDM, None, 5))


@pytest.mark.parametrize(
    "options", [{"power": -0.1}, {"power": math.nan}, {"uniform": -0.1}, {"uniform": 1.1}], ids=str
)
def test_wrong_numbers_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Bend(**options)


# -- files -----------------------------------------------------------------------------------------


def test_older_files_have_no_bend(tmp_path: Path) -> None:
    path = PROFILE.save(tmp_path / "p.json")
    data = json.loads(path.read_text())
    assert data["srk-profile"] == 3 and Profile.load(path) == PROFILE
    del data["bend_lam"], data["bend"]
    for version in (2, 1):
        path.write_text(json.dumps(data | {"srk-profile": version}))
        old = Profile.load(path)
        assert old == attrs.evolve(PROFILE, bend_lam=(), bend=())
    for version in (0, 4, 2.0, "3", None):
        path.write_text(json.dumps(data | {"srk-profile": version}))
        with pytest.raises(ArgumentError, match=r"of version .*reads 1 to 3"):
            Profile.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bend": [1.0, 1.0]}, "one bend for each"),
        ({"bend_lam": []}, "one bend for each"),
        ({"bend": []}, "one bend for each"),
        ({"bend_lam": [0.0, 0.0, 1.0]}, "increase"),
        ({"bend_lam": [2.0, 1.0, 0.0]}, "increase"),
        ({"bend_lam": [0.0, math.nan, 2.0]}, "is not JSON"),
        ({"bend_lam": [0.0, 1.0, math.inf]}, "is not JSON"),
        ({"bend": [1.0, -1.0, 1.0]}, "finite and positive"),
        ({"bend": [1.0, 0.0, 1.0]}, "finite and positive"),
        ({"bend": [1.0, math.nan, 1.0]}, "is not JSON"),
        ({"bend": [1.0, math.inf, 1.0]}, "is not JSON"),
        ({"bend": "111"}, "damaged"),
        ({"bend": [1.0, True, 1.0]}, "damaged"),
        ({"bend_lam": {}}, "damaged"),
        ({"bend": None}, "damaged"),
        ({"bend_lam": list(range(9000)), "bend": [1] * 9000}, "damaged"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_bends_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = attrs.evolve(PROFILE, bend_lam=[0, 1, 2], bend=[1, 1, 1]).save(tmp_path / "p.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | change))
    with pytest.raises(ArgumentError, match=rf"p\.json.*{message}"):
        Profile.load(path)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(ArgumentError, match="finite half log-SNRs"):
        attrs.evolve(PROFILE, bend_lam=[0.0, 1.0, number], bend=[1.0, 1.0, 1.0])
    with pytest.raises(ArgumentError, match="finite and positive"):
        attrs.evolve(PROFILE, bend_lam=[0.0, 1.0, 2.0], bend=[1.0, 1.0, number])
