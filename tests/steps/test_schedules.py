"""Schedules by name, against diffusers and literal transcriptions of the formulas of hosts; those
of k-diffusion are in tests/parity.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import srk
from srk.steps import Beta, FlowShift, Karras, KLOptimal, Laplace, PolyExponential, RunInfo

EDM = srk.EDM(sigma_min=0.03, sigma_max=14.6)
EDM0 = srk.EDM(sigma_min=0.0, sigma_max=14.6)
FLOW = srk.Flow(t_min=0.0)
NAMES = (
    "sgm-uniform",
    "beta",
    "linear-quadratic",
    "kl-optimal",
    "exponential",
    "polyexponential",
    "laplace",
    "karras",
)
SD = srk.process("vp-discrete", betas=np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def times(grid: Any, process: Any, steps: int) -> np.ndarray:
    return np.array(srk.steps.as_grid(grid).times(RunInfo(process, None, steps)))


def calls(grid: Any, process: Any, n: int) -> np.ndarray:
    """The times of the n network calls of `ddpm`, the final denoising included."""
    seen: list[float] = []

    def network(x: Any, t: Any) -> Any:
        seen.append(float(t[0]))
        return 0.0 * x

    srk.solve(
        process,
        srk.Data(network),
        "ddpm",
        shape=(1, 1),
        nfe=n,
        grid=grid,
        seed=0,
        dtype=torch.float64,
    )
    return np.array(seen)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("process", [EDM, EDM0, srk.VP(), FLOW, srk.Flow(), SD], ids=repr)
def test_every_schedule_has_its_steps_and_no_sliver(name: str, process: Any) -> None:
    for steps in (1, 2, 3, 7, 20, 50):
        t = times(name, process, steps)
        assert len(t) == steps + 1 and t[0] == process.t_max
        assert all(a > b for a, b in pairwise(t)) and t[-1] >= process.t_min
        lam = np.array([process.lam(float(x)) for x in t])
        h = np.diff(lam[np.isfinite(lam)])
        if len(h) > 1:
            assert max(h[1:] / h[:-1]) < 60 and max(h[:-1] / h[1:]) < 60
        assert srk.solve(
            process,
            srk.targets.Gaussian(0.0, 1.0).score(process),
            "dpmpp-2m-sde",
            shape=(1, 1),
            grid=name,
            steps=steps,
            seed=0,
        ).success


def test_karras_between_given_ends() -> None:
    """Karras et al., eq. 5."""
    grid = Karras(sigma_min=0.1, sigma_max=5.0)
    share = np.arange(8) / 7
    theirs = (5.0 ** (1 / 7) + share * (0.1 ** (1 / 7) - 5.0 ** (1 / 7))) ** 7
    assert np.allclose(times(grid, EDM, 7), theirs, rtol=1e-9)
    assert np.allclose(times(grid, EDM0, 8), [*theirs, 0.0], rtol=1e-9)
    same = times(Karras(sigma_min=0.03, sigma_max=14.6), EDM, 7)
    assert np.array_equal(same, times("karras", EDM, 7))
    with pytest.raises(srk.errors.ArgumentError, match=r"sigma_max = 80\.0 is outside"):
        times(Karras(sigma_max=80.0), EDM, 7)
    with pytest.raises(srk.errors.ArgumentError, match="sigma_min must be below sigma_max"):
        times(Karras(sigma_min=2.0, sigma_max=1.0), EDM, 7)


@pytest.mark.parametrize("n", [2, 3, 8, 20, 51])
def test_formulas_of_comfyui(n: int) -> None:
    """Each formula as ComfyUI's samplers.py computes it; its last entry is no noise."""
    # sgm_uniform: start, end are timesteps of the largest and smallest sigma
    start, end = 999.0, 0.0
    theirs = np.linspace(start, end, n + 1)[:-1]
    assert np.allclose(calls("sgm-uniform", SD, n), theirs, atol=1e-9)
    # beta: indices into the training times, rounded there
    ts = 1.0 - np.linspace(0.0, 1.0, n, endpoint=False)
    theirs = np.rint(stats.beta.ppf(ts, 0.6, 0.6) * 999)
    assert np.abs(calls("beta", SD, n) - theirs).max() <= 0.5 + 1e-9
    # kl_optimal
    share = np.arange(n) / (n - 1)
    theirs = np.tan(share * math.atan(0.03) + (1 - share) * math.atan(14.6))
    assert np.allclose(calls("kl-optimal", EDM, n), theirs, rtol=1e-9)
    # laplace, mu = 0, beta = 0.5
    x = np.linspace(0.0, 1.0, n)
    lmb = 0.0 - 0.5 * np.sign(0.5 - x) * np.log(1 - 2 * np.abs(0.5 - x) + 1e-5)
    theirs = np.clip(np.exp(lmb), 0.03, 14.6)
    assert np.allclose(calls("laplace", EDM, n), theirs, rtol=1e-9)
    # linear_quadratic, of sigma_max = 1
    assert np.allclose(calls("linear-quadratic", FLOW, n), mochi(n)[:-1], atol=1e-12)


def mochi(steps: int, threshold_noise: float = 0.025) -> np.ndarray:
    linear_steps = steps // 2
    linear = [i * threshold_noise / linear_steps for i in range(linear_steps)]
    difference = linear_steps - threshold_noise * steps
    quadratic_steps = steps - linear_steps
    quadratic_coef = difference / (linear_steps * quadratic_steps**2)
    linear_coef = threshold_noise / linear_steps - 2 * difference / quadratic_steps**2
    const = quadratic_coef * linear_steps**2
    quadratic = [
        quadratic_coef * i**2 + linear_coef * i + const for i in range(linear_steps, steps)
    ]
    return np.array([1.0 - x for x in [*linear, *quadratic, 1.0]])


def test_laplace_points_beyond_an_end_are_spread() -> None:
    """A narrow range, where the host's formula repeats its ends."""
    process = srk.EDM(sigma_min=0.5, sigma_max=2.0)
    lam = -np.log(times(Laplace(), process, 40))
    h = np.diff(lam)
    assert h.min() > 0 and max(h[1:] / h[:-1]) < 30


def test_flow_shift_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    for n in (4, 10, 28):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1.0 / n, n)))
        theirs = scheduler.sigmas.numpy()
        assert np.allclose(times("flow-shift", FLOW, n), theirs, atol=1e-6)
        assert np.allclose(calls("flow-shift", srk.Flow(), n), theirs[:-1], atol=1e-6)


def test_dynamic_flow_shift_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    for tokens in (256, 1000, 4096):
        m = (1.15 - 0.5) / (4096 - 256)
        mu = tokens * m + 0.5 - m * 256
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 0.1, 10)), mu=mu)
        ours = times(FlowShift.dynamic(tokens), FLOW, 10)
        assert np.allclose(ours, scheduler.sigmas.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "process", "theirs"),
    [
        ("ays-sd", SD, [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]),
        ("ays-sdxl", SD, [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]),
    ],
)
def test_align_your_steps_calls_at_the_timesteps_of_the_paper(
    name: str, process: Any, theirs: list[int]
) -> None:
    """Timesteps are published rounded, and so are the noise levels that we interpolate."""
    assert np.abs(calls(name, process, 10) - theirs).max() < 6.0


def test_align_your_steps_between_its_entries() -> None:
    """ComfyUI: log-linear in the number of the entry, n + 1 points, the last of them no noise."""
    process = srk.EDM(sigma_min=0.002, sigma_max=700.0)
    table = np.array([700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002])
    for n in (5, 10, 17):
        xs = np.linspace(0, 1, len(table))
        new = np.exp(np.interp(np.linspace(0, 1, n + 1), xs, np.log(table[::-1])))[::-1]
        assert np.allclose(calls("ays-svd", process, n), new[:-1], rtol=1e-9)
    with pytest.raises(srk.errors.IncompatibleError, match=r"is for Stable Diffusion 1\.5"):
        times("ays-sd", process, 10)


def test_beta_is_symmetric_in_its_parameters() -> None:
    """Quantiles of Beta(a, b) are 1 minus those of Beta(b, a)."""
    one, other = times(Beta(0.6, 1.2), FLOW, 11), times(Beta(1.2, 0.6), FLOW, 11)
    assert np.allclose(one[1:-1], 1.0 - other[1:-1][::-1], atol=1e-12)


def test_wrong_options_are_named() -> None:
    with pytest.raises(srk.errors.IncompatibleError, match=r"use srk.Flow\(\)"):
        times("flow-shift", srk.VP(), 5)
    for make in (
        lambda: FlowShift(0.0),
        lambda: Beta(alpha=-1.0),
        lambda: Laplace(beta=0.0),
        lambda: PolyExponential(rho=math.inf),
        lambda: Karras(sigma_min=-1.0),
    ):
        with pytest.raises(ValueError):
            make()
    assert KLOptimal() == KLOptimal() and hash(KLOptimal()) == hash(KLOptimal())
