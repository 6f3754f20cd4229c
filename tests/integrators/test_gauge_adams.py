"""`gauge-adams` against a literal reference, and where it must be exact, of order 4, or robust."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import srk
from srk.analysis import gaussian_kl, weak_order
from srk.integrators import GaugeAdams, SASolver

WEIGHTS, MEANS, STDS = np.array([0.3, 0.5, 0.2]), np.array([-1.0, 0.4, 1.3]), (0.2, 0.35, 0.1)
TARGET = srk.targets.GaussianMixture(WEIGHTS.tolist(), MEANS[:, None].tolist(), list(STDS))
CURVE = [(-2.0, math.log(0.5)), (0.5, math.log(0.2)), (3.0, math.log(0.01))]

# -- the reference ---------------------------------------------------------------------------------


def denoise(u: np.ndarray, s: float) -> np.ndarray:
    """The mean of the mixture given u = x0 + sqrt(s) z."""
    var = np.array(STDS) ** 2
    gap = u[:, None] - MEANS
    log = np.log(WEIGHTS) - 0.5 * np.log(var + s) - 0.5 * gap**2 / (var + s)
    posterior = np.exp(log - log.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    out: np.ndarray = (posterior * (MEANS + var / (var + s) * gap)).sum(1)
    return out


def integral(places: list[float], j: int, start: float, stop: float, v: float) -> float:
    """The integral of the Lagrange polynomial j over d(e^(-L/2)) from half log-SNR start to stop,
    e^(-L/2) = sqrt((s' + v)/(s + v)).
    """
    end = math.exp(-2.0 * stop)

    def integrand(lam: float) -> float:
        s = math.exp(-2.0 * lam)
        basis = math.prod(
            (lam - other) / (places[j] - other) for k, other in enumerate(places) if k != j
        )
        return basis * math.sqrt((end + v) / (s + v)) * s / (s + v)

    return float(quad(integrand, start, stop, epsabs=1e-13, epsrel=1e-12, limit=200)[0])


def reference(
    levels: list[tuple[float, float]],
    x: np.ndarray,
    v: float,
    predictor: int,
    corrector: int,
    response: Callable[[float], float],
) -> np.ndarray:
    """All steps, written out: the state x at the last of `levels` (alpha, sigma)."""
    infinite, mean = levels[0][0] == 0.0, float(WEIGHTS @ MEANS)
    if infinite:  # the first step, of one evaluation, whose R is that of all noise above 1e6 v
        (_, sigma), (a, b) = levels[:2]
        bare = math.sqrt((b / a) ** 2 + v) * x / sigma
        x = a * (bare + mean)
        levels = levels[1:]
    s = [(b / a) ** 2 for a, b in levels]
    lam = [-0.5 * math.log(value) for value in s]
    predicted, corrected = x / levels[0][0], None
    past: list[tuple[float, np.ndarray]] = []  # (half log-SNR, R), the latest first
    if infinite and v > 0.0:
        past = [(-0.5 * math.log(1e6 * v), np.full_like(x, mean))]
    for i in range(len(levels) - 1):
        R = ((s[i] + v) * denoise(predicted, s[i]) - v * predicted) / s[i]
        u = predicted
        if corrector and corrected is not None:
            nodes = [(lam[i], R), *past][:corrector]
            places = [place for place, _ in nodes]
            u = math.sqrt((s[i] + v) / (s[i - 1] + v)) * corrected
            for j, (_, value) in enumerate(nodes):
                u = u + integral(places, j, lam[i - 1], lam[i], v) * value
        elif corrector > 1 and past:
            far = past[0][0]
            places = [lam[0], far]
            above = math.sqrt((s[0] + v) / (math.exp(-2.0 * far) + v))
            u = bare + integral(places, 0, far, lam[0], v) * R
            u = u + (integral(places, 1, far, lam[0], v) + above) * mean
        if u is not predicted:
            R = R + ((s[i] + v) * response(lam[i]) - v) / s[i] * (u - predicted)
        past = [(lam[i], R), *past]
        nodes = past[:predictor]
        places = [place for place, _ in nodes]
        corrected = u
        predicted = math.sqrt((s[i + 1] + v) / (s[i] + v)) * u
        for j, (_, value) in enumerate(nodes):
            predicted = predicted + integral(places, j, lam[i], lam[i + 1], v) * value
    out: np.ndarray = levels[-1][0] * predicted
    return out


def counted(curve: Any, v: float, part: float) -> Callable[[float], float]:
    """dD/du of data that leave as much open as the curve says, as far as it is counted."""

    def response(lam: float) -> float:
        w = v
        if curve is not None:
            w = math.exp(float(np.interp(lam, *np.array(curve).T)))
        return part * w / (w + math.exp(-2.0 * lam))

    return response


@pytest.mark.parametrize(
    "process",
    [srk.VP(), srk.EDM(), srk.Flow(0.01, 0.99), srk.Flow(0.01, 1.0)],
    ids=["vp", "edm", "flow", "flow from pure noise"],
)
@pytest.mark.parametrize(
    "options",
    [
        {"data_variance": 0.6},
        {"data_variance": 0.6, "curve": CURVE},
        {"data_variance": 0.25, "curve": CURVE, "response": 0.4},
        {"data_variance": 0.6, "response": 0.0},
        {"data_variance": 0.6, "predictor": 2, "corrector": 0},
        {"data_variance": 1.5, "predictor": 5, "corrector": 5, "curve": CURVE},
        {"data_variance": 0.0, "curve": CURVE},
    ],
    ids=["plain", "curve", "part", "none", "predictor", "orders", "no gauge"],
)
def test_it_is_the_literal_reference(process: srk.LinearProcess, options: dict[str, Any]) -> None:
    """Uneven steps, on a target that is not Gaussian."""
    steps = 11
    at = process.t_max - (process.t_max - process.t_min) * (np.arange(steps + 1) / steps) ** 0.7
    if process.name == "edm":
        at = np.geomspace(20.0, 0.01, steps + 1) ** np.linspace(1.0, 1.05, steps + 1)
    times = [float(t) for t in at]
    start = process.level(times[0])
    x = start.sigma * np.linspace(-2.0, 2.0, 9) + 0.3 * start.alpha
    solver = GaugeAdams(**options)
    sol = srk.solve(
        process,
        TARGET.score(process),
        solver,
        grid=times,
        x_init=torch.tensor(x)[:, None],
        denoise_final=False,
    )
    levels = [(process.level(t).alpha, process.level(t).sigma) for t in times]
    v = solver.data_variance
    dD = counted(options.get("curve"), v, solver.response)
    if v == 0.0:
        assert options["curve"] is not None  # else w = v = 0 and there is nothing to carry
    expected = reference(levels, x, v, solver.predictor, solver.corrector, dD)
    assert sol.nfe == steps and sol.eta == 0.0
    assert np.allclose(sol.x[:, 0].numpy(), expected, rtol=1e-9, atol=1e-9)


# -- what it is equal to, and exact for ------------------------------------------------------------


@pytest.mark.parametrize("process", [srk.VP(), srk.EDM(), srk.Flow()], ids=lambda p: p.name)
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 30])
def test_no_gauge_is_unipc(process: srk.LinearProcess, steps: int) -> None:
    """Its exponential Adams form at all steps; `unipc-3` itself where its two first steps, of a
    form of their own, are at so much noise that D is the mean.
    """
    ours, theirs = (
        srk.solve(
            process, TARGET.score(process), solver, shape=(6, 1), steps=steps, seed=0, eta=0.0,
            dtype=torch.float64,
        ).x
        for solver in (GaugeAdams(data_variance=0.0), SASolver())
    )  # fmt: skip
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    far = srk.EDM(0.01, 1e12)
    score, grid = TARGET.score(far), [1e12, 1e10, 1e8, *np.geomspace(30.0, 0.01, steps + 1)]
    ours, theirs = (
        srk.solve(far, score, each, shape=(6, 1), grid=grid, seed=0, dtype=torch.float64).x
        for each in (GaugeAdams(data_variance=0.0), "unipc-3")
    )
    assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("v", [1e-4, 0.3, 25.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 40])
@pytest.mark.parametrize(
    "process", [srk.VP(), srk.EDM(), srk.Flow(), srk.VPCosine()], ids=lambda p: p.name
)
def test_gaussian_data_of_its_variance_are_solved_exactly(
    v: float, steps: int, process: srk.LinearProcess
) -> None:
    """From infinite noise too; without the gauge it is not so."""
    for options in ({}, {"corrector": 0}, {"response": 0.0}):
        solver = GaugeAdams(data_variance=v, **options)  # type: ignore[arg-type]
        assert gaussian_kl(solver, process, variance=v, steps=steps) < 1e-12
    if steps == 5:
        assert gaussian_kl("unipc-3", process, variance=v, steps=steps) > 1e-8


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, 4),
        ({"response": 0.0}, 4),
        ({"curve": CURVE}, 4),
        ({"corrector": 0}, 3),
        ({"predictor": 1, "corrector": 2}, 2),
        ({"predictor": 2, "corrector": 3}, 3),
    ],
    ids=str,
)
def test_order_on_gaussian_data_of_another_variance(options: dict[str, Any], order: int) -> None:
    """The run ends at a noise as large as the data, as in test_adams."""
    solver = GaugeAdams(data_variance=0.3, **options)
    process = srk.EDM(1.0, 500.0)
    measured = weak_order(solver, process, variance=1.0, mean=0.0, steps=(128, 256, 512)).slope
    assert measured == pytest.approx(order, abs=0.2) and solver.weak_order == order


def test_order_on_the_ode_of_a_mixture() -> None:
    """Pathwise, against many steps, with the carried R."""
    process, solver = srk.EDM(0.05, 20.0), GaugeAdams(data_variance=0.6, curve=CURVE)
    x = 20.0 * torch.linspace(-2.0, 2.0, 33, dtype=torch.float64)[:, None]

    def run(steps: int) -> torch.Tensor:
        score = TARGET.score(process)
        return srk.solve(process, score, solver, x_init=x, steps=steps, denoise_final=False).x

    fine = run(2048)
    errors = [float((run(n) - fine).abs().mean()) for n in (128, 256, 512)]
    slope = math.log2(errors[0] / errors[2]) / 2.0
    assert slope > 3.7 and errors[2] < 1e-6


# -- ends, dtypes, slivers -------------------------------------------------------------------------

VP_ZERO = srk.VPDiscrete(alphas_cumprod=torch.linspace(0.999, 0.0, 100).tolist())


@pytest.mark.parametrize(
    "process",
    [srk.Flow(t_min=0.0), srk.VPCosine(t_min=0.0), srk.EDM(0.0, 80.0), VP_ZERO],
    ids=["flow", "vp-cosine", "edm", "zero-snr"],
)
@pytest.mark.parametrize("options", [{}, {"curve": CURVE}], ids=["plain", "curve"])
def test_from_infinite_noise_and_to_none(
    process: srk.LinearProcess, options: dict[str, Any]
) -> None:
    """The same ODE from the same state as a fine run of heun."""
    score = TARGET.score(process)
    start = process.level(process.t_max)
    x = start.sigma * torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    ours, fine = (
        srk.solve(process, score, solver, x_init=x, steps=steps).x
        for solver, steps in ((GaugeAdams(data_variance=0.7, **options), 60), ("heun", 600))
    )
    assert float((ours - fine).abs().max()) < 0.01


@pytest.mark.parametrize("v", [0.01, 0.5, 20.0])
@pytest.mark.parametrize(
    ("dtype", "within"),
    [(torch.float32, 3e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)],
    ids=str,
)
@pytest.mark.parametrize("sigma_min", [0.002, 1e-9])
def test_precision(v: float, dtype: torch.dtype, within: float, sigma_min: float) -> None:
    """N(m, w) data at 30 steps: what rounding adds to the run in float64, in units of the data."""
    process = srk.EDM(sigma_min, 80.0)
    score = srk.targets.Gaussian(0.3, [0.25]).score(process)
    x = 80.0 * torch.linspace(-2.0, 2.0, 65, dtype=torch.float64)[:, None].to(torch.bfloat16)
    curve = [(-4.0, math.log(0.25)), (20.0, math.log(0.25))]
    runs = [
        srk.solve(
            process,
            score,
            GaugeAdams(data_variance=v, curve=curve),
            x_init=x.to(kind),
            steps=30,
        ).x.double()
        for kind in (dtype, torch.float64)
    ]
    assert float((runs[0] - runs[1]).abs().max()) < within


@pytest.mark.parametrize("gap", [1e-12, 1e-6, 1e-3])
@pytest.mark.parametrize("name", ["edm", "vp", "flow"])
def test_slivers_do_no_harm(gap: float, name: str) -> None:
    """Three pairs of times that nearly coincide change the run by about what a step of lower order
    does, in float32.
    """
    process: Any = {"edm": srk.EDM(), "vp": srk.VP(), "flow": srk.Flow(0.001, 0.999)}[name]
    score = TARGET.score(process)
    start = process.level(process.t_max)
    x = (start.sigma * torch.linspace(-2.0, 2.0, 33))[:, None]
    lams = np.linspace(start.lam, process.level(process.t_min).lam, 31)
    doubled = np.sort(np.concatenate([lams, lams[[5, 14, 22]] + gap]))

    def run(inner: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        times = [process.t_max, *[process.time(lam) for lam in inner[1:-1]], process.t_min]
        times = list(dict.fromkeys(times))
        solver = GaugeAdams(data_variance=0.7, curve=CURVE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", srk.errors.GridWarning)
            out: torch.Tensor = srk.solve(
                process, score, solver, x_init=x.to(dtype), grid=times
            ).x.double()
        return out

    fine = run(np.linspace(lams[0], lams[-1], 601), torch.float64)
    plain, sliver = ((run(each, torch.float32) - fine).abs().mean() for each in (lams, doubled))
    assert float(sliver) < 2.0 * float(plain) + 1e-4


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor": 0}, "predictor must be an int from 1 to 5"),
        ({"predictor": 6}, "predictor must be an int from 1 to 5"),
        ({"corrector": -1}, "corrector must be an int from 0 to 5"),
        ({"corrector": True}, "corrector must be an int from 0 to 5"),
        ({"corrector": 2.0}, "corrector must be an int from 0 to 5"),
        ({"response": 1.5}, "response"),
        ({"response": math.nan}, "response"),
        ({"data_variance": -0.1}, "data_variance"),
        ({"data_variance": math.inf}, "data_variance"),
        ({"curve": []}, "curve"),
        ({"curve": [(1.0, 0.0), (0.0, 0.0)]}, "curve"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(srk.errors.ArgumentError, match=message):
        GaugeAdams(**options)


def test_the_ode_only() -> None:
    score = TARGET.score(srk.VP())
    run = srk.solve(srk.VP(), score, "gauge-adams", shape=(2, 1), steps=5, seed=0)
    assert run.eta == 0.0 and run.solver == "gauge-adams"
    with pytest.raises(srk.errors.IncompatibleError, match=r"use eta=0, or solver='srk2m'"):
        srk.solve(srk.VP(), score, "gauge-adams", shape=(2, 1), steps=5, seed=0, eta=0.5)
