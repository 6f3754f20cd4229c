"""Hooks that see the state, against the loops of Boltz and Chai-1 written out, with the same draws.

The alignment is held to Kabsch's solution by a singular value decomposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from fake_cuda import fake_cuda, needs_fake_cuda
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.noise import KeyedNoise, ReplayNoise
from srk.processes.base import Level
from srk.scores import CenterRandomAugmentation, Clip, Hooked, RigidAlign, StateHook
from srk.scores.state_hooks import best_rotation, rotation

EXACT = 1e-10
BATCH, ATOMS = 3, 9
TEMPLATES = 20.0 * torch.randn(
    2, ATOMS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
)


def denoise(x: Tensor, s: float) -> Tensor:
    """The posterior mean under two fixed structures with some width: it knows a frame."""
    width = 1.0 + s**2
    distance = (x[:, None] - TEMPLATES.to(x)).square().sum((2, 3)) / (2 * width * ATOMS)
    means = torch.softmax(-distance, 1) @ TEMPLATES.to(x).flatten(1)
    means = means.reshape(x.shape)
    return means + (x - means) / width + 0.3 * torch.sin(x / (1 + s))


NETWORK = srk.EDMDenoiser(lambda x, sigma: denoise(x, float(sigma[0])))


def karras(n: int, high: float, low: float, rho: float) -> list[float]:
    a, b = high ** (1 / rho), low ** (1 / rho)
    return [16.0 * (a + i / (n - 1) * (b - a)) ** rho for i in range(n)] + [0.0]


def process_of(sigmas: list[float]) -> srk.EDM:
    return srk.EDM(sigma_min=0.0, sigma_max=sigmas[0])


def gaussians(seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(BATCH, ATOMS, 3, dtype=torch.float64, generator=generator)


def quaternion_matrix(q: Tensor) -> Tensor:
    """The rotation of a quaternion as PyTorch3D's formula has it, for points @ matrix."""
    r, i, j, k = q.unbind(-1)
    two = 2.0 / (q * q).sum(-1)
    matrix = torch.stack(
        [
            *(1 - two * (j * j + k * k), two * (i * j - k * r), two * (i * k + j * r)),
            *(two * (i * j + k * r), 1 - two * (i * i + k * k), two * (j * k - i * r)),
            *(two * (i * k - j * r), two * (j * k + i * r), 1 - two * (i * i + j * j)),
        ],
        -1,
    )
    return matrix.reshape(-1, 3, 3).mT


def kabsch(source: Tensor, goal: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, c, g): source goes to (source - c) R + g, nearest to goal; by SVD."""
    w = weights[..., None]
    c = (source * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    g = (goal * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    u, _, vh = torch.linalg.svd(((source - c) * w).mT @ (goal - g))
    sign = torch.eye(3, dtype=source.dtype).repeat(len(source), 1, 1)
    sign[:, 2, 2] = torch.det(u @ vh)
    return u @ sign @ vh, c, g


@pytest.mark.parametrize("seed", range(3))
def test_the_rotation_is_that_of_kabsch(seed: int) -> None:
    draws = gaussians(seed)
    a, b = next(draws), next(draws)
    weights = next(draws)[..., 0].abs()
    matrix, c, g = kabsch(a, b, weights)
    level = srk.EDM().level(1.0)
    aligned = RigidAlign(weights).after_call(a, b, level)
    assert (aligned - ((a - c) @ matrix + g)).abs().max() < EXACT
    # a network that returns the mirror image is turned, not mirrored
    turn = best_rotation(a - a.mean(1, keepdim=True), -(a - a.mean(1, keepdim=True)))
    assert torch.allclose(torch.det(turn), torch.ones(BATCH, dtype=a.dtype))


def test_alignment_without_a_unique_answer() -> None:
    """One point, points on a line, points with weight 0: a rotation, never NaN."""
    level = srk.EDM().level(1.0)
    line = torch.linspace(-1, 1, ATOMS, dtype=torch.float64)[None, :, None].expand(2, -1, 3)
    goal = line @ rotation(torch.tensor([[0.3, -0.4, 0.5, 0.1]], dtype=torch.float64)) + 2.0
    assert (RigidAlign().after_call(line, goal, level) - goal).abs().max() < EXACT
    one = torch.ones(2, 1, 3, dtype=torch.float64)
    assert torch.equal(RigidAlign().after_call(one, 5 * one, level), 5 * one)
    nothing = RigidAlign(torch.zeros(ATOMS)).after_call(line, goal, level)
    assert bool(nothing.isfinite().all())


def test_alignment_is_differentiable_and_follows_alpha() -> None:
    draws = gaussians(1)
    a, b = next(draws)[:, :4], next(draws)[:, :4]
    level = srk.VP().level(0.3)
    assert torch.autograd.gradcheck(
        lambda d: RigidAlign().after_call(d, b, level), a.clone().requires_grad_()
    )
    aligned = RigidAlign().after_call(a, level.alpha * b, level)
    assert (aligned - RigidAlign().after_call(a, b, srk.EDM().level(1.0))).abs().max() < EXACT
    start = srk.Flow().level(1.0)
    assert start.alpha == 0.0
    assert RigidAlign().after_call(a, b, start) is a


def test_rotations_are_uniform() -> None:
    """Of four normals: E R = 0 and E R_ij R_kl = delta_ik delta_jl/3, to six standard errors."""
    n = 40000
    q = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = rotation(q)
    assert (r - quaternion_matrix(q)).abs().max() < 1e-14
    assert (r @ r.mT - torch.eye(3, dtype=r.dtype)).abs().max() < 1e-14
    flat = r.flatten(1)
    assert flat.mean(0).abs().max() < 6 / math.sqrt(3 * n)
    second = flat.T @ flat / n
    assert (second - torch.eye(9, dtype=r.dtype) / 3).abs().max() < 6 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("solver", "gamma_0", "gamma_min", "noise_scale", "step_scale", "low", "rho"),
    [
        ("boltz1", 0.605, 1.107, 0.901, 1.638, 4e-4, 8.0),
        ("boltz2", 0.8, 1.0, 1.003, 1.5, 1e-4, 7.0),
    ],
)
def test_the_loop_of_boltz(
    solver: str,
    gamma_0: float,
    gamma_min: float,
    noise_scale: float,
    step_scale: float,
    low: float,
    rho: float,
) -> None:
    """Centre random augmentation, churn, denoise, align, step: each as in boltz 2.2.1.

    Boltz aligns the noisy points to the denoised ones. We align the denoised points to the noisy
    ones, which gives the same sample in another frame: G maps ours to theirs. The next rotation of
    theirs is G^-1 times ours, which is as uniform; so the same structures come out.
    """
    sigmas = karras(14, 160.0, low, rho)
    process, draws = process_of(sigmas), gaussians(2)
    mask = torch.ones(BATCH, ATOMS, dtype=torch.bool)
    mask[1, 6:] = False
    start = next(draws)
    x, used, states = start * sigmas[0], [start], []
    frame = torch.eye(3, dtype=torch.float64).expand(BATCH, 3, 3)
    for s, s_next in pairwise(sigmas):
        z = next(draws)
        used.append(z)
        normals = z.flatten(1)[:, :7]
        turn = frame.mT @ quaternion_matrix(normals[:, :4])
        x = x - x.mean(1, keepdim=True)
        x = torch.einsum("bmd,bds->bms", x, turn) + normals[:, None, 4:]
        gamma = gamma_0 if s_next > gamma_min else 0.0
        t_hat = s * (1 + gamma)
        noisy = x
        if gamma > 0:
            used.append(next(draws))
            noisy = x + math.sqrt(noise_scale**2 * (t_hat**2 - s**2)) * used[-1]
        denoised = denoise(noisy, t_hat)
        frame, c, g = kabsch(noisy, denoised, mask.double())
        noisy = (noisy - c) @ frame + g
        x = noisy + step_scale * (s_next - t_hat) * (noisy - denoised) / t_hat
        states.append((x - g) @ frame.mT + c)  # theirs in our frame
    noise = ReplayNoise(used)
    sol = srk.solve(
        process,
        NETWORK,
        solver,
        grid=sigmas,
        shape=(BATCH, ATOMS, 3),
        dtype=torch.float64,
        hooks=[CenterRandomAugmentation(), RigidAlign(mask)],
        noise=noise,
        save="x",
        check_network=False,
    )
    assert sol.trajectory is not None
    assert len(used) == 1 + 14 + sum(s > gamma_min for s in sigmas[1:])
    for ours, theirs in zip(sol.trajectory.values[1:], states, strict=True):
        assert (ours - theirs).abs().max() <= EXACT * theirs.abs().max()


def test_augmentation_around_a_method_of_two_calls() -> None:
    """Chai-1: one augmentation a step, of the atoms that are there, then EDM's Heun."""
    sigmas = karras(12, 160.0, 4e-4, 7.0)
    mask = torch.arange(ATOMS) < 7
    draws = gaussians(4)
    x, used = next(draws) * sigmas[0], []
    start = x
    for s, s_next in pairwise(sigmas):
        used.append(next(draws))
        normals = used[-1].flatten(1)[:, :7]
        x = x - x[:, mask].mean(1, keepdim=True)
        x = x @ quaternion_matrix(normals[:, :4]) + normals[:, None, 4:]
        gamma = min(80 / 12, math.sqrt(2) - 1) if 4e-4 <= s <= 80 else 0.0
        s_hat = s * (1 + gamma)
        if gamma > 0:
            used.append(next(draws))
            x = x + 1.003 * math.sqrt(s_hat**2 - s**2) * used[-1]
        d = (x - denoise(x, s_hat)) / s_hat
        if s_next > 0:
            euler = x + (s_next - s_hat) * d
            d = (d + (euler - denoise(euler, s_next)) / s_next) / 2
        x = x + (s_next - s_hat) * d
    sol = srk.solve(
        process_of(sigmas),
        NETWORK,
        "chai1",
        grid=sigmas,
        x_init=start,
        hooks=[CenterRandomAugmentation(mask=mask)],
        noise=ReplayNoise(used),
        check_network=False,
    )
    assert (sol.x - x).abs().max() <= EXACT * x.abs().max()


# -- how they run --------------------------------------------------------------------------------

SIGMAS = karras(8, 160.0, 4e-4, 7.0)


def sampled(**options: Any) -> Tensor:
    given: dict[str, Any] = {
        "grid": SIGMAS,
        "shape": (5, ATOMS, 3),
        "dtype": torch.float64,
        "hooks": [CenterRandomAugmentation(), RigidAlign()],
        "check_network": False,
        "noise": "keyed",
        "seed": 3,
        **options,
    }
    solver = given.pop("solver", "boltz2")
    return srk.solve(process_of(SIGMAS), given.pop("score", NETWORK), solver, **given).x


def test_a_sample_is_the_same_in_any_batch() -> None:
    whole = sampled()
    assert torch.allclose(sampled(microbatch=2), whole, rtol=1e-9, atol=1e-9)
    second = sampled(shape=(2, ATOMS, 3), noise=KeyedNoise(3, first_index=2), seed=None)
    assert torch.allclose(second, whole[2:4], rtol=1e-9, atol=1e-9)


def test_masks_are_cut_with_the_batch() -> None:
    mask = torch.rand(5, ATOMS, generator=torch.Generator().manual_seed(0)) > 0.3
    hooks = [CenterRandomAugmentation(mask=mask), RigidAlign(mask.double()), Clip(-50, 50)]
    whole = sampled(hooks=hooks)
    assert torch.allclose(sampled(hooks=hooks, microbatch=2), whole, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(sampled(), whole)


@pytest.mark.parametrize("noise", ["generator", "keyed", "brownian", "zero"])
def test_every_source_gives_the_random_numbers(noise: str) -> None:
    shape = (4, ATOMS, 3)
    a, b = sampled(noise=noise, shape=shape), sampled(noise=noise, shape=shape)
    assert torch.equal(a, b)
    if noise != "zero":
        assert not torch.allclose(sampled(noise=noise, seed=4, shape=shape), a)


def test_steps_at_once_and_compiled_steps() -> None:
    """The same samples, to the tolerance of the iteration."""
    plain = sampled()
    at_once = sampled(parallel=srk.Picard(window=8, tolerance=1e-10))
    assert torch.allclose(at_once, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_compiled_steps() -> None:
    """The kernel rounds the float32 normals of "keyed" in its own way, with hooks and without."""
    assert torch.allclose(sampled(compile="step"), sampled(), rtol=1e-5, atol=1e-5)


@needs_fake_cuda
@pytest.mark.parametrize("noise", ["generator", "keyed"])
def test_no_wait_for_the_device(noise: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with fake_cuda(tmp_path_factory.mktemp("fake_cuda")) as watch:
        mask = torch.empty(4, ATOMS, device="cuda") > 0
        hooks = [CenterRandomAugmentation(mask=mask), RigidAlign(mask)]
        network = srk.EDMDenoiser(watch.counted(lambda x, sigma: 0.5 * x))
        options: dict[str, Any] = {"shape": (4, ATOMS, 3), "device": "cuda", "noise": noise}
        sol = srk.solve(
            process_of(SIGMAS), network, "boltz2", grid=SIGMAS, seed=0, hooks=hooks, **options
        )
        assert sol.status == "done" and watch.calls == 8
        assert watch.inside() == []


def test_the_final_denoising_is_a_step() -> None:
    """It is asked with a state that was changed, as every other step."""
    seen: list[tuple[float, int]] = []

    class Note(StateHook):
        normals = 2

        def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
            seen.append((level.sigma, normals.shape[1]))
            return x + 1.0

    process = srk.EDM()
    asked: list[Tensor] = []
    network = srk.EDMDenoiser(lambda x, sigma: asked.append(x.clone()) or 0 * x)
    sol = srk.solve(
        process, network, "edm-euler", shape=(2, 3), steps=4, hooks=[Note()], save="x", seed=0,
        check_network=False,
    )  # fmt: skip
    assert [n for _, n in seen] == [2] * 5
    assert seen[-1][0] == process.level(process.t_min).sigma
    assert sol.trajectory is not None
    assert torch.allclose(asked[-1], sol.trajectory.values[-1] + 1.0)


def test_gradients_go_through_both() -> None:
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    score = srk.EDMDenoiser(lambda x, sigma: scale * denoise(x, float(sigma[0])))
    grads = []
    for grad in (True, "checkpoint"):
        x = sampled(score=score, grad=grad, shape=(2, ATOMS, 3))
        grads.append(torch.autograd.grad(x.square().sum(), scale)[0])
    assert torch.allclose(*grads)
    assert float(grads[0].abs()) > 0


def test_both_halves_of_one_hook() -> None:
    class Both(StateHook):
        def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
            return x + 1.0

        def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
            return denoised + x

    asked: list[Tensor] = []
    network = srk.EDMDenoiser(lambda x, sigma: asked.append(x.clone()) or 0 * x)
    x = torch.ones(1, 2, dtype=torch.float64)
    options: dict[str, Any] = {"grid": [2.0, 1.0], "denoise_final": False, "check_network": False}
    sol = srk.solve(srk.EDM(), network, "euler-maruyama", eta=0.0, x_init=x, hooks=[Both()],
                    **options)  # fmt: skip
    assert torch.equal(asked[0], x + 1.0)
    assert torch.allclose(sol.x, x + 1.0)  # D = x, so that the flow stands still


# -- mistakes ------------------------------------------------------------------------------------


class Mover(StateHook):
    """Moves the state as it is told."""

    def __init__(self, move: Callable[[Tensor], Any]) -> None:
        self.move = move

    def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Any:
        return self.move(x)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"solver": "dpmpp-2m", "eta": 0.0}, IncompatibleError, "keeps what the network said"),
        ({"grid": srk.steps.Adaptive(), "solver": "srk2s"}, IncompatibleError, "fixed grid"),
        ({"solver": "ddpm", "save": "log_prob"}, IncompatibleError, "at random"),
        ({"hooks": Clip()}, ArgumentTypeError, "list of hooks"),
        ({"hooks": [3]}, ArgumentTypeError, "StateHook"),
        ({"hooks": [Mover(lambda x: x[:1])]}, ScoreError, "like the state"),
        ({"hooks": [Mover(lambda x: x.add_(1.0))]}, ScoreError, "wrote into the state"),
        ({"hooks": [Mover(lambda x: None)]}, ScoreError, "like the state"),
        ({"hooks": [RigidAlign(torch.ones(4))]}, ArgumentError, "one for each point"),
        ({"shape": (2, 2, 3), "score": srk.EDMDenoiser(lambda x, s: 0 * x)}, ArgumentError, "7"),
        ({"dtype": torch.complex128}, IncompatibleError, "points in space are real"),
        ({"shape": (2, 9), "score": srk.EDMDenoiser(lambda x, s: 0 * x)}, ArgumentError, "points"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        sampled(**options)


def test_hooks_of_the_state_belong_to_a_run() -> None:
    with pytest.raises(ArgumentError, match="hooks=\\[hook\\]"):
        Hooked(NETWORK, CenterRandomAugmentation())
    with pytest.raises(ArgumentTypeError, match="sees the state"):
        RigidAlign()(torch.zeros(1), srk.EDM().level(1.0))
    Hooked(NETWORK, RigidAlign())  # acts on the prediction alone
    with pytest.raises(ArgumentError):
        CenterRandomAugmentation(shift=-1.0)
    with pytest.raises(ArgumentTypeError, match=r"mask\.bool"):
        CenterRandomAugmentation(mask=torch.ones(3, dtype=torch.long))
    with pytest.raises(IncompatibleError, match="linear process"):
        srk.solve(srk.CLD(), lambda x, t: -x, "euler-maruyama", shape=(2, 2, 9, 3), steps=2,
                  hooks=[CenterRandomAugmentation()])  # fmt: skip
    sampler = srk.Sampler(srk.VP(), NETWORK, "ddpm", steps=3, hooks=[CenterRandomAugmentation()])
    with pytest.raises(IncompatibleError, match="at random"):
        sampler.log_prob(srk.solution.Saved((1.0,), torch.zeros(1, 2, ATOMS, 3)))
