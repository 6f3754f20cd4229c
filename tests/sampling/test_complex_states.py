"""Complex states against runs of their real and imaginary parts, and against formulas.

Complex noise has variance 1: 1/2 in the real part and in the imaginary part.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from repository import script
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError, SolveError
from srk.noise import KeyedNoise, ReplayNoise
from srk.processes.base import Level
from srk.scores import APG, CFGZero, ClassifierGuided, Clip, Guided, Hooked, Replace, StateHook

C = torch.complex128
MEAN, VARIANCE = 0.5 - 1.0j, 0.04
PROCESS = srk.VP()


def denoiser(mean: complex = MEAN, variance: float = VARIANCE, process: Any = PROCESS) -> Any:
    """The posterior mean of circular Gaussian data, for a state z = alpha z0 + sigma eps."""

    def network(z: Tensor, t: Tensor) -> Tensor:
        assert z.is_complex() and not t.is_complex()
        level = process.level(float(t[0]))
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        return mean + gain * (z - level.alpha * mean)

    return network


DATA = srk.Data(denoiser())


def real_part_of(prediction: Any) -> Any:
    """The same network for states (batch, *event, 2) that hold the parts, times sqrt(2)."""

    def network(u: Tensor, t: Tensor) -> Tensor:
        z = torch.view_as_complex(u.contiguous()) / math.sqrt(2)
        return torch.view_as_real(prediction.network(z, t)) * math.sqrt(2)

    return srk.Data(network)


def parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z) * math.sqrt(2)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver(solver: str) -> None:
    """The same as the run of the parts, with the same seed, for whatever that does."""
    method = srk.solvers()[solver]
    process: Any = PROCESS
    try:
        method.check(process, method.default_eta)
    except IncompatibleError as error:
        pytest.skip(str(error))
    run: dict[str, Any] = {"steps": 6, "seed": 1, "check_network": False}
    ours = srk.solve(process, DATA, solver, shape=(3, 4), dtype=C, **run)
    wanted = srk.solve(
        process, real_part_of(DATA), solver, shape=(3, 4, 2), dtype=torch.float64, **run
    )
    assert ours.x.dtype == C and ours.x.shape == (3, 4)
    assert torch.allclose(parts(ours.x), wanted.x, rtol=1e-9, atol=1e-9)
    assert ours.nfe == wanted.nfe


def test_the_formula_of_ancestral_sampling() -> None:
    """ddpm written out in complex numbers, with complex draws of variance 1."""
    times = [1.0, 0.7, 0.4, 0.2, 0.05]
    draws = [
        torch.randn(4, 3, dtype=C, generator=torch.Generator().manual_seed(i)) for i in range(5)
    ]
    assert abs(float(torch.stack(draws).abs().square().mean()) - 1) < 0.5
    z, states = draws[0] * PROCESS.level(1.0).sigma, []
    for t, t_next, draw in zip(times[:-1], times[1:], draws[1:], strict=True):
        a, b = PROCESS.level(t), PROCESS.level(t_next)
        data = denoiser()(z, torch.full((4,), t, dtype=torch.float64))
        ratio = a.alpha / b.alpha
        variance = a.sigma**2 - ratio**2 * b.sigma**2  # of z_t given z_t'
        mean = ratio * b.sigma**2 / a.sigma**2 * z + b.alpha * variance / a.sigma**2 * data
        z = mean + math.sqrt(variance) * b.sigma / a.sigma * draw
        states.append(z)
    sol = srk.solve(
        PROCESS, DATA, "euler-ancestral", grid=times, shape=(4, 3), dtype=C, save="x",
        noise=ReplayNoise(draws), denoise_final=False,
    )  # fmt: skip
    assert sol.trajectory is not None
    for ours, theirs in zip(sol.trajectory.values[1:], states, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["data", "noise", "score", "velocity", "edm"])
def test_every_adapter(kind: str) -> None:
    """Networks of any output, told in complex numbers, give the samples of the denoiser."""
    process: Any = srk.EDM() if kind == "edm" else PROCESS
    d = denoiser(process=process)

    def network(z: Tensor, t: Tensor) -> Tensor:
        level = process.level(float(t[0]))
        data = d(z, t)
        noise = (z - level.alpha * data) / level.sigma
        if kind == "noise":
            return noise
        if kind == "score":
            return -noise / level.sigma
        if kind == "velocity":
            return level.alpha * noise - level.sigma * data
        return data

    adapter: Any = {
        "data": srk.Data,
        "noise": srk.NoisePrediction,
        "score": srk.Score,
        "velocity": srk.Velocity,
        "edm": srk.EDMDenoiser,
    }[kind]
    run: dict[str, Any] = {"shape": (3, 4), "dtype": C, "steps": 8, "seed": 0}
    ours = srk.solve(process, adapter(network), "srk2m", **run).x
    wanted = srk.solve(process, srk.Data(d), "srk2m", **run).x
    assert torch.allclose(ours, wanted, rtol=1e-8, atol=1e-8)


def test_the_distribution() -> None:
    """Circular Gaussian data come out: mean, variance, and no pseudo-variance, to 6 errors."""
    n = 20000
    sol = srk.solve(PROCESS, DATA, "srk2m", shape=(n, 1), dtype=torch.complex64, nfe=30, seed=0)
    z = sol.x[:, 0] - MEAN
    assert abs(z.mean()) < 6 * math.sqrt(VARIANCE / n)
    assert abs(z.abs().square().mean() - VARIANCE) < 6 * VARIANCE / math.sqrt(n)
    assert abs(z.square().mean()) < 6 * VARIANCE / math.sqrt(n)


def test_guidance_is_that_of_complex_numbers() -> None:
    """Classifier-free guidance, APG and CFG-Zero* in complex formulas, with inner products
    Re sum(conj(a) b).
    """
    one, two = srk.Data(denoiser(1.0 + 1.0j, 0.5)), srk.Data(denoiser(-0.5j, 1.0))
    from srk.scores.pairs import paired

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, dtype=C, generator=generator)
    level = PROCESS.level(0.5)
    t = torch.full((3,), 0.5, dtype=torch.float64)
    c, u = one.network(z, t), two.network(z, t)

    def said(prediction: Any) -> Tensor:
        out = paired(prediction.bind(PROCESS)).denoise(parts(z), level, PROCESS)
        return torch.view_as_complex(out) / math.sqrt(2)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a.conj() * b).real.sum(1, keepdim=True)

    assert torch.allclose(said(Guided(one, two, 3.0)), u + 3.0 * (c - u))
    rho, d = 0.7, c - u
    d = d * (rho / inner(d, d).sqrt()).clamp_max(1.0)
    wanted = c + 2.0 * (d - 0.8 * inner(d, c) / inner(c, c) * c)
    assert torch.allclose(said(APG(one, two, 3.0, eta=0.2, norm_threshold=rho)), wanted)
    v, w = ((z - level.alpha * q) / level.sigma - q for q in (c, u))  # the flow's velocities
    w = w * inner(v, w) / inner(w, w)
    wanted = (z - level.sigma * (w + 3.0 * (v - w))) / (level.alpha + level.sigma)
    assert torch.allclose(said(CFGZero(one, two, 3.0)), wanted)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        assert x.is_complex()
        return -(x - 1.0j).abs().square().sum(1)

    # p(z) ~ exp(-|z - 1j|^2): the gradient in the parts is -2 (z - 1j), the complex score half
    weight = level.sigma**2 / level.alpha
    wanted = c - weight * (z - 1.0j)
    assert torch.allclose(said(ClassifierGuided(one, log_prob)), wanted)
    hooked = Hooked(one, lambda d, level: d.conj().resolve_conj())
    assert torch.allclose(said(hooked), c.conj())
    mask = torch.tensor([True, False, False, True])
    known = torch.full((4,), 2.0j, dtype=C)
    assert torch.equal(said(Hooked(one, Replace(known, mask)))[:, 0], known[:3] * 1.0)
    blended = said(Hooked(one, Replace(known, mask * 0.25)))
    assert torch.allclose(blended[:, 0], 0.75 * c[:, 0] + 0.25 * known[0])


@pytest.mark.parametrize("noise", ["generator", "keyed", "brownian", "zero"])
def test_every_source(noise: str) -> None:
    run: dict[str, Any] = {"steps": 6, "seed": 1, "noise": noise, "check_network": False}
    ours = srk.solve(PROCESS, DATA, "ddpm", shape=(3, 4), dtype=C, **run).x
    wanted = srk.solve(
        PROCESS, real_part_of(DATA), "ddpm", shape=(3, 4, 2), dtype=torch.float64, **run
    ).x
    assert torch.allclose(parts(ours), wanted, rtol=1e-9, atol=1e-9)


def test_a_noise_function_may_return_complex_numbers() -> None:
    seen = []

    def noise(slot: Any, clock: str, out: Tensor) -> Tensor:
        seen.append(out.shape)
        return torch.ones(out.shape[:-1], dtype=C)

    z = torch.full((2, 3), 1.0 + 1.0j, dtype=C)
    options: dict[str, Any] = {"grid": [0.9, 0.5], "denoise_final": False, "x_init": z}
    ours = srk.solve(PROCESS, DATA, "euler-ancestral", noise=noise, **options).x
    draws = [torch.ones(2, 3, dtype=C)]
    wanted = srk.solve(PROCESS, DATA, "euler-ancestral", noise=ReplayNoise(draws), **options).x
    assert seen == [(2, 3, 2)]
    assert torch.equal(ours, wanted)


def test_batches_masks_and_conditions() -> None:
    """Micro-batches and keyed noise give the same samples, with conditions and hooks cut."""
    means = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None] * (1 + 2j)

    def network(z: Tensor, t: Tensor, mean: Tensor) -> Tensor:
        return mean + 0.1 * z

    class Turn(StateHook):
        normals = 1

        def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
            assert x.is_complex()
            return x * torch.exp(1j * normals)

    def run(**options: Any) -> Tensor:
        hooks = [Turn(), lambda d, level: d + 0.1j]
        given: dict[str, Any] = {"shape": (5, 3), "dtype": C, "steps": 5, "hooks": hooks}
        score = srk.Data(network, model_kwargs={"mean": options.pop("mean", means)})
        return srk.solve(PROCESS, score, "ddpm", **given | options).x

    whole = run(noise="keyed", seed=2)
    assert torch.allclose(run(microbatch=2, seed=2), whole, rtol=1e-9, atol=1e-9)
    part = run(noise=KeyedNoise(2, first_index=3), shape=(2, 3), mean=means[3:])
    assert torch.allclose(part, whole[3:], rtol=1e-9, atol=1e-9)


def test_log_densities() -> None:
    """Those of complex normals: -|z - m|^2/s^2 - log(pi s^2) for each number."""
    sampler = srk.Sampler(PROCESS, DATA, "euler-ancestral", steps=6)
    sol = sampler((4, 3), dtype=C, seed=0, save=("x", "log_prob"))
    assert sol.log_prob is not None and sol.trajectory is not None
    again = sampler.log_prob(sol)
    assert torch.allclose(again.values, sol.log_prob.values)
    for k in range(6):
        a, b = (PROCESS.level(t) for t in sol.trajectory.times[k : k + 2])
        z, after = sol.trajectory.values[k : k + 2]
        data = denoiser()(z, torch.full((4,), a.t, dtype=torch.float64))
        ratio = a.alpha / b.alpha
        variance = a.sigma**2 - ratio**2 * b.sigma**2
        mean = ratio * b.sigma**2 / a.sigma**2 * z + b.alpha * variance / a.sigma**2 * data
        s2 = variance * b.sigma**2 / a.sigma**2
        density = (-(after - mean).abs().square() / s2 - math.log(math.pi * s2)).sum(1)
        assert torch.allclose(sol.log_prob.values[k], density, rtol=1e-8, atol=1e-8)


def test_adaptive_steps_parallel_steps_and_gradients() -> None:
    run: dict[str, Any] = {"seed": 0, "check_network": False}
    how: dict[str, Any] = {"grid": srk.steps.Adaptive(), "noise": "brownian", **run}
    ours = srk.solve(PROCESS, DATA, "srk2", shape=(3, 4), dtype=C, **how)
    wanted = srk.solve(
        PROCESS, real_part_of(DATA), "srk2", shape=(3, 4, 2), dtype=torch.float64, **how
    )
    assert ours.times == wanted.times
    assert torch.allclose(parts(ours.x), wanted.x)
    picard = srk.Picard(window=8, tolerance=1e-10)
    at_once = srk.solve(PROCESS, DATA, "ddpm", shape=(3, 4), dtype=C, parallel=picard, **run).x
    one = srk.solve(PROCESS, DATA, "ddpm", shape=(3, 4), dtype=C, noise="keyed", **run).x
    assert torch.allclose(at_once, one, atol=1e-7)
    start = torch.ones(2, 3, dtype=C, requires_grad=True)
    x = srk.solve(
        PROCESS, DATA, "ddim", eta=0.0, x_init=start, grad=True, steps=4, check_network=False
    ).x
    (gradient,) = torch.autograd.grad(x.abs().square().sum(), start)
    assert gradient.dtype == C and bool((gradient != 0).all())


def test_callbacks_see_and_write_complex_states() -> None:
    def stop(info: srk.StepInfo) -> bool:
        assert info.x.dtype == C and info.denoised is not None and info.denoised.dtype == C
        info.x.fill_(3.0j)
        return info.index == 2

    sol = srk.solve(
        PROCESS, DATA, "ddpm", shape=(2, 3), dtype=C, steps=9, callback=stop, save="denoised"
    )
    assert sol.status == "stopped" and bool(((sol.x - 3.0j).abs() < 1e-12).all())
    assert sol.denoised is not None and sol.denoised.values.dtype == C


def test_phase_space() -> None:
    score = srk.Reduced(srk.Data(lambda z, t: 0.1 * z))
    sol = srk.solve(srk.CLD(), score, "srk2m", shape=(3, 2, 4), dtype=C, steps=4, seed=0)
    assert sol.x.shape == (3, 2, 4) and sol.x.dtype == C
    bare = srk.solve(
        srk.CLD(), lambda z, t: -z, "euler-maruyama", shape=(3, 2, 4), dtype=C, steps=4, seed=0
    )
    assert bare.x.dtype == C


def test_a_prediction_of_ones_own() -> None:
    class Mine(srk.scores.Prediction):
        def denoise(self, x: Tensor, level: Level, process: Any) -> Tensor:
            assert x.is_complex()
            return denoiser()(x, torch.full((len(x),), level.t))

    run: dict[str, Any] = {"shape": (3, 4), "dtype": C, "steps": 5, "seed": 0}
    ours = srk.solve(PROCESS, Mine(), "srk2m", **run).x
    assert torch.allclose(ours, srk.solve(PROCESS, DATA, "srk2m", **run).x)


def test_failures_carry_complex_states() -> None:
    with pytest.raises(SolveError) as caught:
        srk.solve(PROCESS, srk.Data(lambda z, t: z * math.nan), shape=(2, 3), dtype=C, steps=3)
    assert caught.value.solution.x.dtype == C


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: {"dtype": torch.complex32}, ArgumentError, "complex64"),
        (
            lambda: {"x_init": torch.ones(2, 3, dtype=C), "dtype": torch.float64},
            ArgumentError,
            "imaginary",
        ),
        (lambda: {"score": srk.Data(lambda z, t: z.real)}, ScoreError, "complex"),
        (lambda: {"score": srk.Data(lambda z, t: z[:1])}, ScoreError, "shape"),
        (
            lambda: {"score": srk.Data(lambda z, t: z, network_dtype=torch.bfloat16)},
            IncompatibleError,
            "float32",
        ),
        (lambda: {"hooks": [Clip()]}, IncompatibleError, "modulus"),
        (lambda: {"hooks": [lambda d, level: d.real]}, ScoreError, "complex"),
        (
            lambda: {"score": srk.targets.Gaussian(0.0, 1.0).score(PROCESS)},
            IncompatibleError,
            "real states",
        ),
        (lambda: {"x_init": torch.full((2, 3), math.nan, dtype=C)}, ArgumentError, "NaN"),
        (
            lambda: {"grid": srk.Levels([[1.0], [0.1]]), "steps": None},
            (ArgumentError, ArgumentTypeError),
            "dtype|elements",
        ),
    ],
)
def test_what_cannot_be_is_refused(call: Any, error: Any, match: str) -> None:
    given = call()
    score = given.pop("score", DATA)
    if "x_init" not in given:
        given["shape"] = (2, 3)
    with pytest.raises(error, match=match):
        srk.solve(PROCESS, score, **{"dtype": C, "steps": 3, **given})


def test_the_example_of_spectrograms() -> None:
    small = ["--training-steps", "40", "--nfe", "6", "--steps", "6"]
    before, ours, theirs = script("examples/spectrogram.py").main(small)
    assert ours > before + 2.0
    assert math.isfinite(theirs)


def test_the_sampler_of_sgmse() -> None:
    """OUVE around a complex recording, annealed Langevin and Euler-Maruyama, written out with
    complex draws of variance 1; the result is the mean of the last step.
    """
    theta, low, high, n, snr = 1.5, 0.05, 0.5, 12, 0.5
    generator = torch.Generator().manual_seed(3)

    def draw() -> Tensor:
        return torch.randn(4, 3, dtype=C, generator=generator)

    y, log = draw(), math.log(high / low)
    times = torch.linspace(1.0, 0.03, n, dtype=torch.float64).tolist()

    def std(t: float) -> float:
        growth = math.exp(-2 * theta * t) * math.expm1(2 * (theta + log) * t)
        return low * math.sqrt(growth * log / (theta + log))

    def score(z: Tensor, t: float) -> Tensor:
        mean = math.exp(-theta * t) * 0.3j + (1 - math.exp(-theta * t)) * y
        return -(z - mean) / (std(t) ** 2 + math.exp(-2 * theta * t) * 0.2)

    draws = [draw() for _ in range(2 * n)]
    left = iter(draws)
    z = y + next(left) * std(1.0)
    for i, t in enumerate(times):
        size = 2 * (snr * std(t)) ** 2
        z = z + size * score(z, t) + math.sqrt(2 * size) * next(left)
        step = t - times[i + 1] if i + 1 < n else t
        g = low * (high / low) ** t * math.sqrt(2 * log) * math.sqrt(step)
        z = z - (theta * (y - z) * step - g**2 * score(z, t))
        z = z + g * next(left) if i + 1 < n else z
    sol = srk.solve(
        srk.OUVE(theta=theta, sigma_min=low, sigma_max=high, mean=y, t_min=0.0),
        srk.Score(lambda z, t: score(z, float(t[0]))),
        srk.integrators.PredictorCorrector.sgmse(),
        grid=[*times, 0.0],
        shape=(4, 3),
        dtype=C,
        noise=ReplayNoise(draws),
        denoise_final=False,
    )
    assert sol.nfe == 2 * n
    assert (sol.x - z).abs().max() < 1e-10


@pytest.mark.parametrize("norms", ["sample", "batch"])
def test_correctors_with_norms(norms: str) -> None:
    """Langevin steps from the norms of noise and score: those of complex numbers."""
    method = srk.integrators.PredictorCorrector(
        "euler-maruyama", corrector="langevin", snr=0.16, norms=norms
    )
    run: dict[str, Any] = {"steps": 5, "seed": 1, "check_network": False}
    ours = srk.solve(PROCESS, DATA, method, shape=(3, 4), dtype=C, **run)
    wanted = srk.solve(
        PROCESS, real_part_of(DATA), method, shape=(3, 4, 2), dtype=torch.float64, **run
    )
    assert torch.allclose(parts(ours.x), wanted.x, rtol=1e-9, atol=1e-9)


def test_nonlinear_processes_are_refused() -> None:
    class Nonlinear(srk.ForwardProcess):
        t_min, t_max = 0.0, 1.0

        def drift(self, t: Any, x: Any) -> Any:
            return -x

        def diffusion(self, t: Any) -> Any:
            return math.sqrt(2.0)

        def sample_prior(self, shape: Any, **options: Any) -> Tensor:
            return torch.randn(tuple(shape), **options)

    with pytest.raises(IncompatibleError, match="view_as_real"):
        srk.solve(Nonlinear(), lambda x, t: -x, "euler-maruyama", shape=(2, 3), dtype=C, steps=2)
