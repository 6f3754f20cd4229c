"""No wait and no transfer in the loop, for what stands around the solvers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import Watch, fake_cuda, needs_fake_cuda
from torch import Tensor

import srk
from srk.scores import hooks, state_hooks

pytestmark = needs_fake_cuda

VP = srk.VP()
ZEROS, KNOWN = torch.zeros(6), torch.tensor([True, False] * 3)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fake_cuda")


def network(watch: Watch, dtype: torch.dtype = torch.float32) -> Callable[..., Tensor]:
    """A network with its weights on the fake GPU; a condition is added to its output."""
    weight = torch.empty(6, 6, device="cuda", dtype=dtype)

    def answer(x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        assert x.device == t.device == weight.device
        y = (x @ weight) * t.to(dtype)[:, None]
        return y if c is None else y + c[:, None]

    return watch.counted(answer)


def solve(score: Any, solver: Any = "srk2m", process: Any = VP, **options: Any) -> srk.Solution:
    options = {"steps": 4, "seed": 0, "shape": (4, 6), "device": "cuda"} | options
    return srk.solve(process, score, solver, **options)


def check(watch: Watch, solution: Any, allowed: dict[str, int] | None = None) -> None:
    """Nothing happened inside but what is allowed; the flags are read once, after the run."""
    assert solution.x.device.type == "cuda"
    assert watch.calls > 1
    inside = Counter(event.kind for event in watch.inside())
    for kind, count in inside.items():
        assert count <= (allowed or {}).get(kind, 0), watch.inside()
    assert Counter(event.kind for event in watch.after())["cuda to cpu"] <= 1


@pytest.mark.parametrize(
    ("adapter", "process"),
    [
        (srk.Data, VP),
        (srk.NoisePrediction, VP),
        (srk.Velocity, VP),
        (srk.Score, VP),
        (srk.EDMDenoiser, srk.EDM()),
        (srk.FlowVelocity, srk.Flow()),
    ],
)
def test_adapters(adapter: Any, process: Any, folder: Path) -> None:
    with fake_cuda(folder) as watch:
        check(watch, solve(adapter(network(watch)), process=process))


@pytest.mark.parametrize("kind", ["network_dtype", "autocast", "half state", "complex state"])
def test_dtypes(kind: str, folder: Path) -> None:
    with fake_cuda(folder) as watch:
        if kind == "network_dtype":
            half = network(watch, torch.bfloat16)
            made = solve(srk.Data(half, network_dtype=torch.bfloat16))
        elif kind == "autocast":
            made = solve(srk.Data(network(watch)), autocast=torch.bfloat16)
        elif kind == "half state":
            made = solve(srk.Data(network(watch, torch.float16)), dtype=torch.float16)
        else:
            made = solve(srk.Data(watch.counted(lambda x, t: x * 0.5)), dtype=torch.complex64)
        check(watch, made)


GUIDANCE: dict[str, Callable[[Any, Any], Any]] = {
    "guided": lambda a, b: srk.Guided(a, b, 2.0),
    "batched": lambda a, b: srk.Guided(a, b, 2.0, batched=True, rescale=0.5),
    "limited": lambda a, b: srk.Guided(a, b, srk.scores.limited(2.0, 0.3, 5.0), batched=True),
    "apg": lambda a, b: srk.scores.APG(a, b, 2.0),
    "cfg-zero": lambda a, b: srk.scores.CFGZero(a, b, 2.0),
    "autoguidance": lambda a, b: srk.scores.autoguidance(a, b, 2.0),
    "classifier": lambda a, b: srk.ClassifierGuided(a, lambda x, t: -x.square().sum(1), 2.0),
}


@pytest.mark.parametrize("kind", GUIDANCE)
def test_guidance(kind: str, folder: Path) -> None:
    with fake_cuda(folder) as watch:
        asked = network(watch)
        pair = [
            srk.Data(asked, model_kwargs={"c": torch.empty(4, device="cuda")}) for _ in range(2)
        ]
        check(watch, solve(GUIDANCE[kind](*pair)))


def spread(y: Tensor) -> Tensor:
    return torch.cat([y, 0 * y, 0 * y], 1)


HOOKS: dict[str, Callable[[], Any]] = {
    "clip": lambda: hooks.Clip(-1.0, 1.0),
    "threshold": lambda: hooks.DynamicThreshold(0.99),
    "replace": lambda: hooks.Replace(ZEROS.clone(), KNOWN.clone()),
    "project": lambda: hooks.Project(lambda x: x[:, :2], spread, torch.zeros(2)),
    "repaint": lambda: srk.scores.RePaint(ZEROS.clone(), KNOWN.clone()),
    "augmentation": lambda: state_hooks.CenterRandomAugmentation(),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_move_what_they_hold_once(kind: str, folder: Path) -> None:
    hook = HOOKS[kind]()
    with fake_cuda(folder) as watch:
        if kind == "augmentation":
            score, shape = srk.Data(watch.counted(lambda x, t: x * 0.5)), (4, 5, 3)
        else:
            score, shape = srk.Data(network(watch)), (4, 6)
        check(watch, solve(score, "ddpm", shape=shape, hooks=[hook]), {"cpu to cuda": 2})


@pytest.mark.parametrize("kind", ["DPS", "MMPS", "PiGDM", "TMPD", "DDNM", "DiffPIR", "DDRM", "SDA"])
def test_posterior_predictions(kind: str, folder: Path) -> None:
    operator = srk.posterior.mask(KNOWN)
    given = srk.posterior.Measurement(operator, torch.zeros(3), noise_std=0.1)
    with fake_cuda(folder) as watch:
        score = getattr(srk.posterior, kind)(srk.Data(network(watch)), given)
        check(watch, solve(score, "ddpm"), {"cpu to cuda": 2})


@pytest.mark.parametrize("what", [("x",), ("x", "denoised", "log_prob")], ids=len)
def test_saves(what: tuple[str, ...], folder: Path) -> None:
    with fake_cuda(folder) as watch:
        check(watch, solve(srk.Data(network(watch)), "ddpm", save=what))


def test_callbacks_correctors_and_denoising(folder: Path) -> None:
    with fake_cuda(folder) as watch:
        made = solve(
            srk.Data(network(watch)),
            srk.integrators.PredictorCorrector("ddpm"),
            callback=lambda info: None,
            denoise_final="mean",
        )
        check(watch, made)


def test_an_adaptive_run_waits_once_a_step(folder: Path) -> None:
    with fake_cuda(folder) as watch:
        grid = srk.steps.Adaptive()
        made = solve(srk.Data(network(watch)), "srk2", grid=grid, steps=None, eta=0.0)
        waits = made.steps + made.rejected
        check(watch, made, {"wait": waits})


def test_steps_in_parallel_wait_once_a_round(folder: Path) -> None:
    with fake_cuda(folder) as watch:
        picard = srk.Picard(window=3)
        made = solve(srk.Data(network(watch)), shape=(2, 6), parallel=picard, noise="generator")
        assert made.rounds is not None
        waits = [event for event in watch.inside() if event.kind == "wait"]
        assert len(waits) <= made.rounds
        # which samples are asked what is sent in each round, from pinned memory
        check(watch, made, {"wait": made.rounds, "cpu to cuda": 20 * made.rounds})


def test_products_and_levels(folder: Path) -> None:
    ramp = torch.linspace(1.0, 0.001, 5)[:, None].expand(5, 6).clone()
    levels = srk.steps.Levels(ramp)
    with fake_cuda(folder) as watch:
        asked = network(watch)
        score = srk.scores.Joint(
            lambda x, t: {name: asked(x[name], t[name]) for name in "ab"}, a="data", b="data"
        )
        process = srk.Product(a=VP, b=srk.EDM())
        options = {"shape": {"a": (4, 6), "b": (4, 6)}, "steps": 4, "seed": 0, "device": "cuda"}
        made = srk.solve(process, score, "srk2m", **options)
        assert all(part.device.type == "cuda" for part in made.x.values())
        assert watch.inside() == []
    with fake_cuda(folder) as watch:
        asked = watch.counted(lambda x, t: x * t.reshape(*t.shape, *[1] * (x.ndim - t.ndim)))
        check(watch, solve(srk.Data(asked), "ddpm", steps=None, grid=levels))


@pytest.mark.parametrize(("process", "shape"), [(srk.Torus(), (4, 3)), (srk.SO3(), (4, 3, 3))])
def test_angles_and_rotations(process: Any, shape: tuple[int, ...], folder: Path) -> None:
    with fake_cuda(folder) as watch:
        score = srk.Score(watch.counted(lambda x, t: -x))
        check(watch, solve(score, "auto", process, shape=shape))


@pytest.mark.parametrize("solver", ["srk2m", "srk2s"])
def test_a_scheduler_of_diffusers(
    solver: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    from srk.ecosystem.diffusers import SRKScheduler, noise

    # the seeds are made of the numbers of the first state, which fake tensors have not
    monkeypatch.setattr(noise, "seeds_of", lambda states: list(range(len(states))))

    scheduler = SRKScheduler(solver=solver)
    scheduler.set_timesteps(5)
    steps = list(scheduler.timesteps)
    with fake_cuda(folder) as watch:
        asked = watch.counted(lambda x, t: x * 0.5)
        generator = torch.Generator("cuda")
        x = torch.empty(2, 4, 8, 8, device="cuda")
        for t in steps:
            output = asked(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t, x, generator=generator).prev_sample
        assert x.device.type == "cuda"
        # a key for each draw and sample is sent from pinned memory, and nobody waits
        assert {event.kind for event in watch.inside()} <= {"cpu to cuda"}


def test_a_sampler_of_k_diffusion(folder: Path) -> None:
    from srk.ecosystem.k_diffusion import sampler

    sigmas = torch.linspace(10.0, 0.1, 6)
    with fake_cuda(folder) as watch:
        model = watch.counted(lambda x, sigma, **kwargs: x * 0.5)
        x = sampler("srk2m")(model, torch.empty(4, 6, device="cuda"), sigmas)
        assert x.device.type == "cuda"
        assert watch.calls > 1
        assert watch.inside() == []


def test_a_planted_wait_is_seen_everywhere(folder: Path) -> None:
    """The same checks fail where a hook, a guidance function or a callback looks at a value."""

    def look(x: Tensor) -> float:
        return float(x.sum().item())

    class Looking:
        def __call__(self, denoised: Tensor, level: Any) -> Tensor:
            return denoised * (1.0 + 0.0 * look(denoised))

    plants: list[Callable[[Watch], srk.Solution]] = [
        lambda watch: solve(srk.Hooked(srk.Data(network(watch)), Looking())),
        lambda watch: solve(srk.Data(network(watch)), callback=lambda info: look(info.x) > 1e9),
        lambda watch: solve(
            srk.ClassifierGuided(srk.Data(network(watch)), lambda x, t: x.sum(1) * look(x), 2.0)
        ),
    ]
    for plant, _ in zip(plants, itertools.count(), strict=False):
        with fake_cuda(folder) as watch:
            made = plant(watch)
            with pytest.raises(AssertionError):
                check(watch, made)
