"""Every built-in process against its definition in 60 digits, at both ends and in the middle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf  # type: ignore[import-untyped]

from srk.processes import EDM, OU, VE, VP, Flow, LinearProcess, SubVP, VPCosine, VPDiscrete

pytestmark = pytest.mark.filterwarnings("error")
EPS = np.finfo(float).eps

# Relative to the value, or to 1 for a log-SNR: an exponent of up to 10 is right to some EPS of
# itself, so its exponential to some 10 EPS;
# the worst quotient (cot near its zero in VPCosine) loses a factor of 80. 1e-13 is 450 EPS.
TOLERANCE = 1e-13

Scales = Callable[[Any], tuple[Any, Any]]  # t -> (alpha, sigma^2)


def _vp(p: Any) -> Scales:
    def scales(t: Any) -> tuple[Any, Any]:
        alpha = mp.exp(-(mpf(p.beta_min) * t / 2 + (mpf(p.beta_max) - mpf(p.beta_min)) * t**2 / 4))
        return alpha, 1 - alpha**2

    return scales


def _sub_vp(p: Any) -> Scales:
    return lambda t: (_vp(p)(t)[0], _vp(p)(t)[1] ** 2)


def _cosine(p: Any) -> Scales:
    def scales(t: Any) -> tuple[Any, Any]:
        s = mpf(p.s)
        alpha = mp.cos(mp.pi / 2 * (t + s) / (1 + s)) / mp.cos(mp.pi / 2 * s / (1 + s))
        return alpha, 1 - alpha**2

    return scales


def _discrete(p: Any) -> Scales:
    def half_log_snr(i: int) -> Any:
        return mp.log(mpf(p.alphas_cumprod[i]) / mpf(p.variances[i])) / 2

    def scales(t: Any) -> tuple[Any, Any]:
        i = min(int(mp.floor(t)), len(p.alphas_cumprod) - 2)
        if p.alphas_cumprod[i + 1] == 0:
            lam = half_log_snr(i) + mp.log(i + 1 - t)
        else:
            lam = half_log_snr(i) + (t - i) * (half_log_snr(i + 1) - half_log_snr(i))
        return 1 / mp.sqrt(1 + mp.exp(-2 * lam)), 1 / (1 + mp.exp(2 * lam))

    return scales


CASES: list[tuple[LinearProcess, Callable[[Any], Scales]]] = [
    (VP(), _vp),
    (VP(t_min=0.0), _vp),
    (VP(beta_min=0.0, beta_max=3.0, t_min=0.0, t_max=2.0), _vp),
    (VP(beta_min=2.0, beta_max=2.0), _vp),
    (SubVP(), _sub_vp),
    (SubVP(t_min=0.0), _sub_vp),
    (VPCosine(), _cosine),
    (VPCosine(t_min=0.0), _cosine),
    (VPCosine(s=0.0, t_min=0.0), _cosine),
    (VPDiscrete(), _discrete),
    (VPDiscrete(alphas_cumprod=[0.99, 0.7, 0.2, 0.0]), _discrete),
    (
        VE(),
        lambda p: (
            lambda t: (mpf(1), (mpf(p.sigma_min) * (mpf(p.sigma_max) / mpf(p.sigma_min)) ** t) ** 2)
        ),
    ),
    (EDM(), lambda p: lambda t: (mpf(1), t**2)),
    (EDM(sigma_min=0.0), lambda p: lambda t: (mpf(1), t**2)),
    (OU(), lambda p: lambda t: (mp.exp(-t), 1 - mp.exp(-2 * t))),
    (OU(horizon=20.0, t_min=0.0), lambda p: lambda t: (mp.exp(-t), 1 - mp.exp(-2 * t))),
    (Flow(), lambda p: lambda t: (1 - t, t**2)),
    (Flow(t_min=0.0), lambda p: lambda t: (1 - t, t**2)),
]
FRACTIONS = (
    0.0,
    1e-15,
    1e-9,
    1e-4,
    0.01,
    0.1,
    0.2503,
    0.5001,
    0.7501,
    0.9,
    0.99,
    1 - 1e-4,
    1 - 1e-9,
    1 - 1e-13,
    1.0,
)


def _times(process: LinearProcess) -> list[float]:
    return [
        min(process.t_min + (process.t_max - process.t_min) * u, process.t_max) for u in FRACTIONS
    ]


def _close(value: float, truth: Any, scale: Any = None) -> bool:
    if mp.isinf(truth):
        return value == float(truth)
    return bool(abs(mpf(value) - truth) <= TOLERANCE * abs(truth if scale is None else scale))


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mp.workdps(60):
        yield


@pytest.mark.parametrize(
    ("process", "reference"),
    CASES,
    ids=lambda case: repr(case) if isinstance(case, LinearProcess) else "",
)
def test_level_time_and_rates_agree_with_the_definition(
    process: LinearProcess, reference: Callable[[Any], Scales]
) -> None:
    scales = reference(process)

    def half_log_snr(s: Any) -> Any:
        alpha, variance = scales(s)
        return mp.log(alpha) - mp.log(variance) / 2

    for t in _times(process):
        level = process.level(t)
        alpha, variance = scales(mpf(t))
        pure_noise, pure_data = t == process.t_max and process.alpha(t) == 0.0, variance == 0
        if pure_noise:
            alpha = mpf(0)
        assert level.t == t
        assert _close(level.alpha, alpha), t
        assert _close(level.sigma, mp.sqrt(variance)), t
        lam = mp.mpf("-inf") if pure_noise else mp.mpf("inf") if pure_data else half_log_snr(mpf(t))
        assert _close(level.lam, lam, max(1, abs(lam))), t
        assert process.level(process.time(level.lam)).t == process.time(level.lam)
        if pure_noise:
            assert process.time(-math.inf) == t
            assert process.log_alpha_rate(t) == process.lam_rate(t) == -math.inf
            assert process.diffusion(t) == math.inf
            continue
        # one-sided differences where the definition has a kink or ends: the 60 digits pay for it
        side = (
            1
            if isinstance(process, VPDiscrete) and t < process.t_max
            else -1
            if isinstance(process, VPDiscrete)
            else 0
        )

        def rate(function: Callable[[Any], Any], t: float = t, side: int = side) -> Any:
            return mp.diff(function, mpf(t), h=mpf(10) ** -30, direction=side)

        f = rate(lambda s: mp.log(scales(s)[0]))
        g2 = rate(lambda s: scales(s)[1]) - 2 * f * variance
        assert _close(process.log_alpha_rate(t), f), t
        assert _close(process.diffusion(t) ** 2, g2, max(g2, mpf(10) ** -25)), t
        if pure_data:
            assert process.lam_rate(t) == -math.inf
            assert process.time(math.inf) == t
            continue
        lam_rate = f - rate(lambda s: scales(s)[1]) / (2 * variance)
        assert _close(process.lam_rate(t), lam_rate), t
        # lam in float64 is off by up to EPS max(1, |lam|), which time cannot undo
        slack = TOLERANCE * t + 16 * EPS * max(1, abs(lam)) / abs(lam_rate)
        assert abs(process.time(level.lam) - t) <= slack, t
        assert abs(process.time(float(lam)) - t) <= slack, t


@pytest.mark.parametrize("process", [case[0] for case in CASES], ids=repr)
def test_rates_obey_the_identity_of_the_noise(process: LinearProcess) -> None:
    """g^2 = d sigma^2/dt - 2 f sigma^2 = -2 sigma^2 dlam/dt, with all three as coded."""
    for t in _times(process):
        sigma, lam_rate = process.sigma(t), process.lam_rate(t)
        if math.isfinite(lam_rate):
            assert process.diffusion(t) ** 2 == pytest.approx(
                -2 * sigma**2 * lam_rate, rel=TOLERANCE
            )


@pytest.mark.parametrize("process", [case[0] for case in CASES], ids=repr)
def test_arrays_and_floats_agree(process: LinearProcess) -> None:
    times = np.array(_times(process)).reshape(3, 5)
    for name in ("alpha", "sigma", "lam"):
        function = getattr(process, name)
        array = function(times)
        assert array.shape == times.shape
        assert array.dtype == np.float64
        floats = [function(float(t)) for t in times.ravel()]
        assert all(isinstance(value, float) for value in floats)
        # math and numpy may round exp and log differently
        np.testing.assert_allclose(
            array.ravel(), floats, rtol=8 * EPS, atol=8 * EPS if name == "lam" else 0
        )


@pytest.mark.parametrize("process", [case[0] for case in CASES], ids=repr)
def test_levels_at_both_ends_are_the_same_however_they_are_reached(process: LinearProcess) -> None:
    for t in (process.t_min, process.t_max):
        assert process.level_at(process.lam(t)) == process.level(t)


@pytest.mark.parametrize("process", [case[0] for case in CASES], ids=repr)
def test_level_at_has_the_half_log_snr_it_was_asked_for(process: LinearProcess) -> None:
    """Also where own time in float64 cannot resolve it, near alpha = 0.

    And its alpha and sigma agree with it.
    """
    low, high = max(process.lam(process.t_max), -60.0), min(process.lam(process.t_min), 60.0)
    for u in np.linspace(0.001, 0.999, 37):
        lam = float(low + u * (high - low))
        level = process.level_at(lam)
        assert abs(level.lam - lam) <= 1e-14 * max(1.0, abs(lam))
        assert math.log(level.alpha / level.sigma) == pytest.approx(lam, abs=TOLERANCE)
        assert level.r == pytest.approx(math.exp(-lam), rel=TOLERANCE * max(1.0, abs(lam)))


@pytest.mark.parametrize("process", [case[0] for case in CASES], ids=repr)
def test_validate_accepts_the_built_ins(process: LinearProcess) -> None:
    process.validate()


@pytest.mark.parametrize(
    "process",
    [VPCosine(), Flow(), VPCosine(s=0.0), VPDiscrete(alphas_cumprod=[0.9, 0.0])],
    ids=repr,
)
def test_pure_noise_is_exact(process: LinearProcess) -> None:
    level = process.level(process.t_max)
    assert (level.alpha, level.sigma, level.lam, level.r) == (0.0, 1.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    "process",
    [VP(t_min=0), SubVP(t_min=0), VPCosine(t_min=0), OU(t_min=0), Flow(t_min=0), EDM(sigma_min=0)],
    ids=repr,
)
def test_pure_data_is_exact(process: LinearProcess) -> None:
    level = process.level(0.0)
    assert (level.alpha, level.sigma, level.lam, level.r) == (1.0, 0.0, math.inf, 0.0)
    assert math.isfinite(process.diffusion(0.0))
    assert math.isfinite(process.log_alpha_rate(0.0))
