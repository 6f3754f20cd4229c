"""Hooks on the denoised prediction.

Each against its formula, and against moments integrated by scipy where the hooked process is
Gaussian.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.processes import EDM, VP
from srk.scores import Clip, Data, DynamicThreshold, Guided, Hooked, Project, Replace
from srk.targets import Gaussian

LEVEL = VP().level(0.5)


def denoised(shape=(6, 2, 4, 4), seed=0, scale=2.0):
    return scale * torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


# -- thresholding
# ------------------------------------------------------------------------------------------


def test_clip():
    d = denoised()
    out = Clip(-0.5, 2.0)(d, LEVEL)
    assert torch.equal(out, torch.where(d < -0.5, -0.5, torch.where(d > 2.0, 2.0, d)))


@pytest.mark.parametrize(
    ("quantile", "bound", "largest"),
    [(0.995, 1.0, None), (0.8, 1.0, None), (0.9, 0.5, 1.1), (1.0, 3.0, None)],
)
def test_dynamic_threshold_is_the_formula(quantile, bound, largest):
    """Saharia et al.: s the quantile of |D| over the sample, at least the bound.

    Clip to [-s, s], divide by s/bound. With torch.quantile.
    """
    d = denoised()
    out = DynamicThreshold(quantile, bound, largest)(d, LEVEL)
    for sample, result in zip(d, out, strict=True):
        s = max(float(torch.quantile(sample.abs().flatten(), quantile)), bound)
        s = s if largest is None else min(s, largest)
        assert torch.allclose(result, sample.clip(-s, s) * (bound / s), atol=1e-14)
    assert float(out.abs().max()) <= bound * (1 + 1e-14)


def test_dynamic_threshold_leaves_what_is_in_range_and_half_precision():
    d = denoised(scale=0.1)
    assert torch.equal(DynamicThreshold()(d, LEVEL), d)
    low = denoised().bfloat16()
    assert DynamicThreshold(0.9)(low, LEVEL).dtype == torch.bfloat16


@pytest.mark.parity
def test_dynamic_threshold_is_that_of_diffusers():
    schedulers = pytest.importorskip(
        "diffusers.schedulers.scheduling_ddpm", reason="diffusers is not installed"
    )
    peer = schedulers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5
    )
    d = denoised()
    assert torch.allclose(
        DynamicThreshold(0.9, largest=1.5)(d, LEVEL), peer._threshold_sample(d), atol=1e-14
    )


# -- the order of things
# ------------------------------------------------------------------------------------------


def test_hooks_run_in_order_with_the_level_wherever_the_network_is_asked():
    process, seen = VP(), []

    def note(d, level):
        seen.append(level.t)
        return d

    network = lambda x, t: 3.0 * x  # noqa: E731
    hooked = Hooked(Data(network), lambda d, level: d + 1.0, Clip(), note).bind(process)
    x = denoised((5, 3))
    assert torch.equal(hooked.denoise(x, LEVEL, process), (3.0 * x + 1.0).clamp(-1, 1))
    assert torch.allclose(
        hooked.score(x, LEVEL, process),
        (LEVEL.alpha * (3.0 * x + 1.0).clamp(-1, 1) - x) / LEVEL.sigma**2,
    )
    seen.clear()
    sol = srk.solve(
        process, Hooked(Data(network), Clip(), note), "srk2", shape=(5, 3), steps=4, seed=0
    )
    assert len(seen) == sol.nfe == 9
    assert float(sol.x.abs().max()) <= 1.0


def test_hooks_on_guidance_and_guidance_of_hooks():
    process = VP()
    a, b = (Gaussian(m, 0.3, event_shape=(3,)).score(process) for m in (1.0, 0.0))
    x = denoised((5, 3))
    outer = Hooked(Guided(a, b, 3.0), Clip()).bind(process)
    assert outer.calls() == outer.calls(0.5) == 2
    assert outer.event_shape == (3,)
    assert torch.equal(
        outer.denoise(x, LEVEL, process),
        Guided(a, b, 3.0).bind(process).denoise(x, LEVEL, process).clamp(-1, 1),
    )
    inner = Guided(Hooked(a, Clip()), Hooked(b, Clip()), 3.0).bind(process)
    by_hand = -2.0 * b.denoise(x, LEVEL, process).clamp(-1, 1) + 3.0 * a.denoise(
        x, LEVEL, process
    ).clamp(-1, 1)
    assert torch.allclose(inner.denoise(x, LEVEL, process), by_hand)
    assert torch.allclose(
        inner.score(x, LEVEL, process), (LEVEL.alpha * by_hand - x) / LEVEL.sigma**2
    )


# -- replacement and projection
# ------------------------------------------------------------------------------------------

CORRELATION = 0.8
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]], dtype=torch.float64)
KNOWN = 1.5


def flow_of(process, matrix, offset, x):
    """The probability-flow ODE of D = matrix(sigma) x + offset(sigma) by scipy, EDM frame."""

    def slope(sigma, flat):
        u = flat.reshape(-1, 2)
        return ((u - (u @ matrix(sigma).T + offset(sigma))) / sigma).ravel()

    sol = solve_ivp(
        slope,
        (process.t_max, process.t_min),
        x.numpy().ravel(),
        method="DOP853",
        rtol=1e-10,
        atol=1e-12,
    )
    last = sol.y[:, -1].reshape(-1, 2)
    return torch.from_numpy(last @ matrix(process.t_min).T + offset(process.t_min))


def gain(sigma):
    c = COVARIANCE.numpy()
    return c @ np.linalg.inv(c + sigma**2 * np.eye(2))


def test_replacement_is_the_ode_with_the_replaced_denoiser():
    """Inpainting two correlated Gaussian coordinates.

    Every sample against scipy's integration, and the known one exactly as given.
    """
    process, x = EDM(0.01, 30.0), denoised((40, 2), scale=30.0)
    hooked = Hooked(
        Gaussian([0.0, 0.0], COVARIANCE).score(process),
        Replace(torch.tensor([KNOWN, 0.0]), torch.tensor([True, False])),
    )
    sol = srk.solve(process, hooked, "dpmpp-3m-sde-corrected", eta=0.0, x_init=x, steps=600)
    keep = np.diag([0.0, 1.0])
    exact = flow_of(
        process, lambda sigma: keep @ gain(sigma), lambda sigma: np.array([KNOWN, 0.0]), x
    )
    assert (sol.x[:, 0] == KNOWN).all()
    assert (sol.x - exact).abs().max() < 1e-4


def test_replacement_is_exact_where_known_and_unknown_are_independent():
    """Without correlation nothing is lost.

    The unknown coordinate keeps its law, sample by sample.
    """
    process = VP()
    score = Gaussian(0.0, 1.0, event_shape=(2,)).score(process)
    hooked = Hooked(score, Replace(torch.tensor([KNOWN, 0.0]), torch.tensor([1.0, 0.0])))
    options = {"shape": (50, 2), "nfe": 20, "seed": 0}
    assert torch.equal(
        srk.solve(process, hooked, **options).x[:, 1], srk.solve(process, score, **options).x[:, 1]
    )


def test_projection_meets_the_measurement_and_is_the_projected_ode():
    """y = mean of the coordinates, A+ y = (y, y): the samples satisfy it to rounding.

    Against scipy with D -> D - A+(A D - y).
    """
    process, x = EDM(0.01, 30.0), denoised((40, 2), scale=30.0)
    c = torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
    mean = Project(
        lambda d: d.mean(1, keepdim=True), lambda y: y.expand(-1, 2), torch.tensor([[0.7]])
    )
    sol = srk.solve(
        process,
        Hooked(Gaussian([0.0, 0.0], c).score(process), mean),
        "dpmpp-3m-sde-corrected",
        eta=0.0,
        x_init=x,
        steps=600,
    )
    assert (sol.x.mean(1) - 0.7).abs().max() < 1e-6  # y is float32
    null = np.eye(2) - 0.5
    exact = flow_of(
        process,
        lambda s: null @ c.numpy() @ np.linalg.inv(c.numpy() + s**2 * np.eye(2)),
        lambda s: np.full(2, 0.7),
        x,
    )
    assert (sol.x - exact).abs().max() < 1e-4


def test_part_of_a_batch_keeps_its_mask_and_measurement():
    known, mask = denoised((6, 3)), torch.zeros(6, 3, dtype=torch.bool)
    mask[:, 0] = True
    d = torch.zeros(2, 3, dtype=torch.float64)
    network = Data(lambda x, t: 0.0 * x)
    hooked = Hooked(network, Replace(known, mask), lambda d, level: d + 1.0).select(slice(2, 4), 6)
    assert torch.equal(hooked.denoise(d, LEVEL, VP()), torch.where(mask[2:4], known[2:4], d) + 1.0)
    shared = Replace(known[:3, 0], torch.tensor([True, False, True])).select(
        slice(0, 3), 6
    )  # no batch axis: nothing to cut
    assert torch.equal(
        shared(torch.zeros(3, 3, dtype=torch.float64), LEVEL)[1],
        known[:3, 0] * torch.tensor([1, 0, 1]),
    )
    project = Project(
        lambda d: d[:, :1], lambda y: torch.nn.functional.pad(y, (0, 2)), known[:, :1]
    ).select(slice(2, 4), 6)
    assert torch.equal(project(d, LEVEL)[:, 0], known[2:4, 0])


# -- mistakes
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hook",
    [lambda d, level: d[:1], lambda d, level: d.float(), lambda d, level: None],
    ids=["shape", "dtype", "none"],
)
def test_a_hook_that_returns_something_else_is_refused(hook):
    with pytest.raises(ScoreError, match="like the denoised prediction"):
        srk.solve(VP(), Hooked(lambda x, t: -x, hook), shape=(4, 3), steps=2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Clip(1.0, 1.0), ArgumentError, "low < high"),
        (lambda: DynamicThreshold(99.5), ArgumentError, r"0\.995"),
        (lambda: DynamicThreshold(bound=0.0), ArgumentError, "positive"),
        (lambda: DynamicThreshold(largest=0.5), ArgumentError, "bound"),
        (
            lambda: Replace(torch.zeros(2), torch.zeros(2, dtype=torch.long)),
            ArgumentTypeError,
            "boolean",
        ),
        (lambda: Hooked(lambda x, t: -x, Clip), ArgumentTypeError, "Clip"),
        (lambda: Hooked(lambda x, t: -x, 3), ArgumentTypeError, "callable"),
    ],
)
def test_mistakes_are_refused_with_a_cure(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_nonlinear_processes_have_no_denoiser():
    class Nonlinear(srk.ForwardProcess):
        t_min, t_max = 0.0, 1.0

        def drift(self, t, x):
            return -x

        def diffusion(self, t):
            return math.sqrt(2.0)

        def sample_prior(self, shape, **options):
            return torch.randn(tuple(shape), **options)

    with pytest.raises(IncompatibleError, match="linear process"):
        srk.solve(
            Nonlinear(), Hooked(lambda x, t: -x, Clip()), "euler-maruyama", shape=(4, 3), steps=2
        )


def test_phase_space_states_are_hooked_where_they_are_read():
    score = Gaussian(0.0, 1.0, event_shape=(2,)).score(VP())
    with pytest.raises(IncompatibleError, match=r"srk\.Reduced\(srk\.Hooked"):
        srk.solve(srk.CLD(), Hooked(srk.Reduced(score), Clip()), "srk2m", shape=(3, 2, 2), steps=2)
    options = {"shape": (3, 2, 2), "steps": 4, "seed": 0}
    same = srk.solve(srk.CLD(), srk.Reduced(Hooked(score, lambda d, level: d)), "srk2m", **options)
    assert torch.equal(same.x, srk.solve(srk.CLD(), srk.Reduced(score), "srk2m", **options).x)


def test_a_hook_that_writes_into_the_prediction_is_told_so() -> None:
    """A network may return its input or its own memory, which the hook would change."""
    process = srk.EDM()
    hooked = srk.Hooked(srk.Data(lambda x, t: x), lambda denoised, level: denoised.clamp_(-1, 1))
    with pytest.raises(srk.errors.ScoreError, match="wrote into the denoised prediction"):
        srk.solve(process, hooked, shape=(2, 3), steps=3, seed=0)
