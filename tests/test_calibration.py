"""Calibration: what is measured, what it costs, files that are hostile, and what it is for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

import srk
from srk.analysis.metrics import sliced_w2
from srk.integrators.auto import Auto
from srk.sampling.pilot_sums import Meter
from srk.steps import Budget

EDM = srk.EDM()
NARROW_AND_BROAD = srk.targets.GaussianMixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3])


def counted(score: Any, calls: list[int]) -> Any:
    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        out: torch.Tensor = score(x, t)
        return out

    return network


# -- what is measured -----------------------------------------------------------------------------


def test_variance_and_directions_of_gaussian_data() -> None:
    """Data of variance 1 in 3 of 8 coordinates and almost none in the others: at the noise of
    those three the denoiser moves in 3 directions. (tr C)^2/tr C^2 of 4096 samples, whose pairs
    number 1.7e7, is known to about 3%.
    """
    variances = torch.tensor([1.0] * 3 + [1e-6] * 5, dtype=torch.float64)
    target = srk.targets.Gaussian(torch.zeros(8, dtype=torch.float64), variances)
    profile = srk.calibrate(EDM, target.score(EDM), shape=(4096, 8), seed=1)
    assert profile.variance == pytest.approx(3 / 8, rel=0.05)
    middle = np.array([(a + b) / 2 for a, b in zip(profile.lam, profile.lam[1:], strict=False)])
    near = np.abs(middle) < 1.0
    assert near.sum() >= 4
    assert np.allclose(np.array(profile.directions)[near], 3.0, rtol=0.1)


def test_it_costs_at_most_100_calls_whatever_an_evaluation_costs() -> None:
    score = NARROW_AND_BROAD.score(EDM)
    for guided in range(1, 9):
        calls: list[int] = []
        network = counted(score, calls)
        conditions = [srk.Score(network)] * (guided - 1)
        prediction = (
            srk.Guided(conditions, srk.Score(network), [1.5] * len(conditions))
            if conditions
            else srk.Score(network)
        )
        profile = srk.calibrate(EDM, prediction, shape=(32, 1), seed=0)
        assert len(calls) <= 100 and set(calls) == {32}
        assert profile.calls == 32 * len(calls)
        assert profile.guidance == (1.5,) * len(conditions)
        # with too few levels on the ODE its bend is not seen
        assert bool(profile.bend) == (guided <= 4)


def test_two_seeds_give_the_same_grid() -> None:
    """32 samples in 64 dimensions: the grids of two seeds differ by little against their steps."""
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.randn(4, 64, generator=generator)
    target = srk.targets.GaussianMixture([1.0] * 4, means, [0.1, 0.2, 0.2, 0.3])
    lams = [
        -np.log(
            Budget(srk.calibrate(EDM, target.score(EDM), shape=(32, 64), seed=seed)).times(
                srk.steps.RunInfo(EDM, srk.solvers()["srk2m-local"], 10)
            )
        )
        for seed in (0, 1)
    ]
    assert np.abs(lams[0] - lams[1]).max() < 0.25 * np.diff(lams[0]).mean()


def test_the_measured_gauge_of_gaussian_data_is_their_variance() -> None:
    """mmse = v s/(v + s), so that the curve is v at all levels where less than 0.95 of the noise
    is left open (s > v/19), and falls as 19 s below.
    """
    v = 0.3
    lam = np.linspace(-6.0, 6.0, 2001)
    s = np.exp(-2.0 * lam)
    q = -np.diff(v * s / (v + s)) / np.diff(lam)
    curve = srk.Profile(lam, q).curve()
    for at, log_v in curve[::100]:
        expected = v if np.exp(-2.0 * at) > v / 19 else 19 * np.exp(-2.0 * at)
        assert np.exp(log_v) == pytest.approx(expected, rel=1e-2)
    assert srk.Profile(lam, q).curve(2.0)[7][1] == pytest.approx(curve[7][1] + np.log(2.0))


def test_a_constant_curve_is_a_constant_gauge() -> None:
    """Numbers of a step in the gauge v, whether v is given as a number or as a curve; with the
    first step, of which the denoiser and state are kept in place of R, within rounding.
    """
    score = NARROW_AND_BROAD.score(EDM)
    options = {"shape": 64, "nfe": 9, "seed": 0, "dtype": torch.float64}
    for eta in (0.0, 0.5, 1.0):
        one, two = (
            srk.solve(EDM, score, srk.integrators.SRK2M(**given), eta=eta, **options).x
            for given in (
                {"data_variance": 0.4},
                {"data_variance": 0.4, "curve": [(0.0, np.log(0.4))]},
            )
        )
        assert torch.allclose(one, two, rtol=1e-8, atol=1e-10)
    for bad in ([], [(0, 0), (0, 1)], [(0, np.inf)], 3, [(1, 2, 3)]):
        with pytest.raises(srk.errors.ArgumentError, match="curve"):
            srk.integrators.SRK2M(curve=bad)  # type: ignore[arg-type]


def test_guidance_takes_the_variance_for_the_gauge() -> None:
    lam = np.linspace(-5.0, 5.0, 20)
    q = np.exp(-np.abs(lam[1:]))
    plain, guided = (srk.Profile(lam, q, guidance=g) for g in ((), (3.0,)))
    assert len(Auto().calibrated(plain).curve or ()) == 20
    assert Auto().calibrated(guided).curve == ((0.0, np.log(guided.variance)),)
    given = Auto(local=0.3).calibrated(plain)
    assert given.curve is None and given.data_variance == 4.0 * plain.variance


@pytest.mark.parametrize("eta", [None, 1.0])
def test_two_seeds_give_the_same_error(eta: float | None) -> None:
    """Errors along the trajectory on the profiles of two seeds, 32 samples in 64 dimensions each,
    are within 10%. (In 16 dimensions, 28% were seen: a calibration without `shape` takes more
    samples there.)
    """
    generator = torch.Generator().manual_seed(2)
    means = 0.6 * torch.randn(6, 64, generator=generator)
    target = srk.targets.GaussianMixture([1.0] * 6, means, [0.1, 0.2, 0.2, 0.3, 0.1, 0.4])
    score, errors = target.score(EDM), []
    for seed in (0, 1):
        profile = srk.calibrate(EDM, score, shape=(32, 64), seed=seed)
        # one clock for both, and so one path
        solver = attrs.evolve(Auto().calibrated(profile), data_variance=2.0)
        run, fine = (
            srk.solve(
                EDM,
                score,
                solver,
                shape=500,
                nfe=nfe,
                eta=eta,
                grid=Budget(profile),
                noise=srk.noise.BrownianNoise(5, levels=4),
            ).x
            for nfe in (12, 120)
        )
        errors.append(float((run - fine).norm(dim=1).median()))
    assert abs(errors[0] / errors[1] - 1) < 0.1


def test_the_same_seed_gives_the_same_profile_however_it_is_cut() -> None:
    score = srk.targets.Gaussian(torch.zeros(256), 0.25).score(EDM)
    one, two = (srk.calibrate(EDM, score, shape=12, batch=batch) for batch in (None, 5))
    assert np.allclose(one.q, two.q, rtol=1e-5) and one.calls == two.calls == 12 * 99
    assert srk.calibrate(EDM, score, shape=12) == one


def test_a_calibration_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """The network fails in the third of four pieces; the second call repeats that piece only, and
    the profile is that of a calibration which was not stopped.
    """
    score = NARROW_AND_BROAD.score(EDM)
    calls: list[int] = []
    network = counted(score, calls)

    def failing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(calls) >= 230:
            raise KeyboardInterrupt
        out: torch.Tensor = network(x, t)
        return out

    file = tmp_path / "part.json"
    whole = srk.calibrate(EDM, srk.Score(score), shape=(32, 1), seed=3, batch=8)
    with pytest.raises(KeyboardInterrupt):
        srk.calibrate(EDM, srk.Score(failing), shape=(32, 1), seed=3, resume=file)
    assert file.exists() and set(calls) == {8}
    half = json.loads(file.read_text())
    assert half["done"] == 16 and len(half["bends"]) == 3 * len(half["places"]) > 60
    with pytest.raises(
        srk.errors.ArgumentError, match="unfinished calibration of seed 3, not of 4"
    ):
        srk.calibrate(EDM, score, shape=(32, 1), seed=4, resume=file)
    calls.clear()
    again = srk.calibrate(EDM, srk.Score(network), shape=(32, 1), seed=3, resume=file)
    assert again == whole and len(whole.bend) > 20
    assert len(calls) == 2 * 99 and not file.exists()
    for text in ("", "[]", *(f'{{"srk-pilot": {n}, "moved": []}}' for n in (1, 2, 3))):
        file.write_text(text)
        with pytest.raises(srk.errors.ArgumentError, match="no unfinished calibration"):
            srk.calibrate(EDM, score, shape=(32, 1), resume=file)


# -- use ------------------------------------------------------------------------------------------


def test_a_profile_helps_where_modes_are_narrow_and_broad() -> None:
    """numerics.md, section 12: log-SNR steps serve one mode at a time. At 8 calls the error is
    0.6 of that without a profile (20000 samples, whose own error is about 0.012).
    """
    score = NARROW_AND_BROAD.score(EDM)
    profile = srk.calibrate(EDM, score, seed=0)
    truth = NARROW_AND_BROAD.sample(100_000, seed=1)
    errors = [
        sliced_w2(srk.solve(EDM, score, shape=(20_000, 1), nfe=8, seed=2, profile=p).x, truth)
        for p in (profile, None)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_solve_and_sampler_take_a_profile() -> None:
    score = NARROW_AND_BROAD.score(EDM)
    profile = srk.calibrate(EDM, score, seed=0)
    sol = srk.solve(EDM, score, shape=4, nfe=10, seed=0, profile=profile)
    assert sol.nfe == 10 and sol.solver == "auto: gauge-adams (calibrated)" and sol.eta == 0.0
    again = srk.Sampler(EDM, score, nfe=10, profile=profile)(shape=4, seed=0)
    assert torch.equal(sol.x, again.x)
    # the same, written out
    solver = Auto().calibrated(profile)
    parts = srk.solve(EDM, score, solver, shape=4, nfe=10, seed=0, grid=Budget(profile))
    assert torch.equal(sol.x, parts.x)
    # what is said wins over the profile
    karras = srk.solve(EDM, score, "ddpm", shape=4, nfe=10, seed=0, profile=profile, grid="karras")
    plain = srk.solve(EDM, score, "ddpm", shape=4, nfe=10, seed=0, grid="karras")
    assert torch.equal(karras.x, plain.x)
    # another solver of the ODE keeps its grid
    with_it, without = (
        srk.solve(EDM, score, "deis-3", shape=4, nfe=10, seed=0, profile=p) for p in (profile, None)
    )
    assert with_it.solver == without.solver
    assert np.allclose(with_it.times, without.times, rtol=1e-9)
    # `auto` takes one solver of the ODE at any number of steps, and another with noise
    for nfe in (3, 10, 24, 60):
        run = srk.solve(EDM, score, shape=4, nfe=nfe, seed=0, eta=0.0, profile=profile)
        assert run.solver == "auto: gauge-adams (calibrated)" and run.nfe == nfe
        assert nfe != 10 or torch.equal(run.x, sol.x)
    noisy = srk.solve(EDM, score, shape=4, nfe=10, seed=0, eta=1.0, profile=profile)
    assert noisy.solver == "auto: srk2m (calibrated, matched)" and noisy.times != sol.times


def test_another_guidance_scale_warns_and_the_same_does_not() -> None:
    score = srk.Score(NARROW_AND_BROAD.score(EDM))

    def guided(scale: Any) -> srk.Guided:
        return srk.Guided(score, score, scale)

    def run(prediction: Any, profile: srk.Profile) -> None:
        srk.solve(EDM, prediction, shape=(2, 1), nfe=12, seed=0, profile=profile)

    profile = srk.calibrate(EDM, guided(3.0), shape=(32, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(guided(3.0), profile)
        run(score, srk.calibrate(EDM, score, shape=(32, 1)))
        by_level = guided(lambda level: 1.0 + level.r / (1.0 + level.r))
        run(by_level, srk.calibrate(EDM, by_level, shape=(32, 1)))
    for prediction, used in ((guided(7.5), "7.5"), (score, "none")):
        with pytest.warns(UserWarning, match=f"measured at guidance scale 3 and is used at {used}"):
            run(prediction, profile)


def test_wrong_profiles_are_refused() -> None:
    score = NARROW_AND_BROAD.score(EDM)
    with pytest.raises(srk.errors.ArgumentTypeError, match=r"srk\.Profile\.load"):
        srk.solve(EDM, score, shape=2, nfe=8, profile="profile.json")  # type: ignore[arg-type]
    profile = srk.calibrate(EDM, score)
    other = srk.EDM(sigma_min=1e-5, sigma_max=80.0)
    with pytest.raises(srk.errors.ArgumentError, match=r"measure one: srk\.calibrate"):
        srk.solve(other, NARROW_AND_BROAD.score(other), shape=2, nfe=8, profile=profile)
    with pytest.raises(srk.errors.ArgumentError, match=r"shape must be \(batch, \*event\)"):
        srk.calibrate(EDM, score, shape=(32, 7))


# -- no slivers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spike", [1e-9, 1e-3, 0.1])
def test_a_peak_of_q_makes_no_sliver(spike: float) -> None:
    lam = np.array([-4.4, 0.3, 0.3 + spike, 6.3])
    profile = srk.Profile(lam, [1e-6, 1.0 / spike, 1e-6])
    for criterion in ("network", "concentrated", "kl"):
        for n in (4, 10, 50):
            times = Budget(profile, criterion).times(srk.steps.RunInfo(EDM, None, n))
            h = np.diff(-np.log(times))
            ratio = np.maximum(h[1:] / h[:-1], h[:-1] / h[1:])
            assert h.min() > 0.01 * h.mean() and ratio.max() < 60


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile() -> srk.Profile:
    return srk.calibrate(EDM, NARROW_AND_BROAD.score(EDM), seed=0)


def test_files_come_back_and_are_small(tmp_path: Path, profile: srk.Profile) -> None:
    path = profile.save(tmp_path / "p.json")
    assert srk.Profile.load(path) == profile and path.stat().st_size < 5000
    data = json.loads(path.read_text())
    del data["directions"], data["guidance"], data["bend_lam"], data["bend"]
    path.write_text(json.dumps(data | {"srk-profile": 1}))
    old = srk.Profile.load(path)
    assert old.q == profile.q and old.directions == () == old.guidance


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000 + "]" * 100_000,
        '{"srk-profile": ' + "9" * 5000 + "}",
        '{"srk-profile": true}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [NaN, 1], "process": "", "calls": 0}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [1e999, 1], "process": "", "calls": 0}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": "11", "process": "", "calls": 0}',
        '{"srk-profile": 2, "lam": [0, true, 2], "q": [1, 1], "process": "", "calls": 0}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [1, 1], "process": [], "calls": 0}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [1, 1], "process": "", "calls": -1}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [1, 1], "process": "", "calls": 0, "run": 1}',
        '{"srk-profile": 2, "lam": {}, "q": [1, 1], "process": "", "calls": 0}',
        '{"srk-profile": 2, "lam": [0, 1, 2], "q": [1, 1], "process": "", "calls": 0, '
        '"directions": [0.5, 1]}',
        json.dumps({"srk-profile": 2, "lam": list(range(9000)), "q": [1] * 8999}),
        "\x00" * 100,
        " " * (2**20 + 1),
    ],
    ids=range(16),
)
def test_hostile_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(srk.errors.ArgumentError, match=r"p\.json"):
        srk.Profile.load(path)


def test_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(srk.errors.ArgumentError, match="is not JSON"):
        srk.Profile.load(path)


@pytest.mark.parametrize("shape", [(40, 2), (3, 200_000)], ids=["many samples", "many coordinates"])
def test_products_of_moves_are_those_of_different_samples(shape: tuple[int, int]) -> None:
    """Beside the squares of the diagonal, which are left out, they may be small."""
    made = torch.Generator().manual_seed(0)
    move = torch.randn(shape, generator=made)
    meter = Meter(EDM)
    meter.see(torch.zeros(shape))
    meter.see(move)
    products = (move.double() @ move.double().T).fill_diagonal_(0.0)
    expected = float(products.square().sum())
    assert float(meter.crossed[0]) == pytest.approx(expected, rel=1e-4)
