"""Parts around a mean: each against the run of that part alone, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ScoreError
from srk.noise import part_seed

MEAN = torch.linspace(-2.0, 2.0, 15).reshape(5, 3)
PRODUCT = srk.Product(
    a=srk.Shifted(srk.VP(), mean=MEAN), b=srk.EDM(), c=srk.OUVE(mean=torch.tensor([1.0, -1.0]))
)
SHAPE = {"a": (5, 3), "b": (5, 2), "c": (5, 2)}
KINDS: dict[str, Any] = {"a": srk.Data, "b": srk.NoisePrediction, "c": srk.Score}


def said(name: str, x: Tensor, t: Tensor) -> Tensor:
    """Something that depends on state and time; of `c` a score that pulls towards the data."""
    t = t.to(x.dtype)[:, None]
    if name == "c":
        return -x / (0.25 + t * t)
    return (0.7 * x / (1.0 + t)).sin() + 0.3


def joint(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: said(name, x[name], t[name]) for name in x}


JOINT = srk.scores.Joint(joint, a="data", b="noise", c="score")


def alone(name: str, solver: str, seed: int = 3, **options: Any) -> srk.Solution:
    adapter = KINDS[name](lambda x, t: said(name, x, t))
    given = {"shape": SHAPE[name], "nfe": 9, **options}
    return srk.solve(PRODUCT.parts[name], adapter, solver, seed=part_seed(seed, name), **given)


@pytest.mark.parametrize("noise", ["generator", "keyed"])
@pytest.mark.parametrize("solver", ["srk2m", "ddpm", "dpmpp-2m", "heun"])
def test_a_part_around_a_mean_is_the_run_of_that_part(solver: str, noise: str) -> None:
    options: dict[str, Any] = {"nfe": 9, "noise": noise, "save": ("x", "denoised")}
    sol = srk.solve(PRODUCT, JOINT, solver, shape=SHAPE, seed=3, **options)
    assert sol.trajectory is not None
    assert sol.denoised is not None
    for name in SHAPE:
        own = alone(name, solver, **options)
        assert torch.equal(sol.x[name], own.x)
        assert torch.equal(sol.trajectory[name].values, own.trajectory.values)
        assert torch.equal(sol.denoised[name].values, own.denoised.values)


def test_states_that_are_given_callbacks_and_densities() -> None:
    x_init = {name: torch.randn(shape) for name, shape in SHAPE.items()}
    own: dict[str, list[Tensor]] = {name: [] for name in SHAPE}
    together: dict[str, list[Tensor]] = {name: [] for name in SHAPE}

    def told(info: Any) -> None:
        for name, x in info.x.items():
            together[name] += [x.clone(), info.denoised[name].clone()]
            x.mul_(0.5)  # what a callback writes, the run goes on from

    options: dict[str, Any] = {"nfe": 6, "save": ("x", "log_prob", "inputs")}
    sampler = srk.ProductSampler(PRODUCT, JOINT, "ddpm", nfe=6)
    sol = sampler(x_init=x_init, seed=3, save=options["save"])
    again = sampler.log_prob(sol)
    srk.solve(PRODUCT, JOINT, "ddpm", x_init=x_init, nfe=6, seed=3, callback=told)
    assert sol.log_prob is not None
    assert sol.inputs is not None
    for name in SHAPE:
        given = {**options, "shape": None, "x_init": x_init[name]}
        plain = alone(name, "ddpm", **given)
        assert torch.equal(sol.x[name], plain.x)
        assert torch.equal(sol.log_prob[name].values, plain.log_prob.values)
        assert torch.equal(sol.inputs[name].values, plain.inputs.values)
        assert torch.allclose(again[name].values, plain.log_prob.values, rtol=1e-4, atol=1e-3)

        def seen(info: Any, name: str = name) -> None:
            own[name].extend([info.x.clone(), info.denoised.clone()])
            info.x.mul_(0.5)

        alone(name, "ddpm", shape=None, x_init=x_init[name], nfe=6, callback=seen)
        assert len(own[name]) == len(together[name]) > 0
        assert all(map(torch.equal, own[name], together[name]))


def test_pieces_of_a_batch_have_their_means() -> None:
    whole = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=3, noise="keyed")
    parts = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=3, microbatch=2)
    for name in SHAPE:
        assert torch.allclose(parts.x[name], whole.x[name], atol=1e-6)


def test_guidance_hooks_and_adaptive_steps_around_a_mean() -> None:
    def network(x: dict[str, Tensor], t: dict[str, Tensor], y: float) -> dict[str, Tensor]:
        return {name: part + y for name, part in joint(x, t).items()}

    product = srk.Product(a=PRODUCT.parts["a"], b=PRODUCT.parts["b"])
    shape = {name: SHAPE[name] for name in product.names}
    of = srk.scores.Joint(network, a="data", b="noise")
    guided = srk.scores.JointGuided(of.given(y=0.3), of.given(y=0.1), {"a": 1.0, "b": 2.0})
    hooks = {"a": [srk.scores.hooks.Clip(-1.0, 1.0)]}
    sol = srk.solve(product, guided, "ddpm", shape=shape, steps=7, seed=3, hooks=hooks)
    for name, scale in (("a", 1.0), ("b", 2.0)):
        pair = [KINDS[name](lambda x, t, y=y, n=name: said(n, x, t) + y) for y in (0.3, 0.1)]
        own = srk.solve(
            product.parts[name],
            srk.Guided(*pair, scale),
            "ddpm",
            shape=shape[name],
            steps=7,
            seed=part_seed(3, name),
            hooks=hooks.get(name, ()),
        )
        assert torch.equal(sol.x[name], own.x)
    moved = {"a": torch.tensor([3.0, -3.0, 9.0]), "b": torch.zeros(2)}
    product = srk.Product(a=srk.Shifted(srk.VP(), mean=moved["a"]), b=srk.VP())

    def still(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: 0 * x[name] + moved[name] + 1.0 for name in x}

    score = srk.scores.Joint(still, a="data", b="data")
    options: dict[str, Any] = {"grid": srk.steps.Adaptive(rtol=0.05, atol=0.05)}
    options |= {"shape": shape, "noise": "brownian", "seed": 0}
    adaptive = srk.solve(product, score, "srk2", **options)
    for name in shape:
        assert torch.allclose(adaptive.x[name], (moved[name] + 1.0).expand(5, -1), atol=1e-4)


def test_a_network_that_writes_to_what_it_is_shown_is_told_so() -> None:
    def writes(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        x["a"].mul_(0.5)
        return joint(x, t)

    score = srk.scores.Joint(writes, a="data", b="noise", c="score")
    with pytest.raises(ScoreError, match="changed its input"):
        srk.solve(PRODUCT, score, "ddpm", shape=SHAPE, nfe=5, seed=0)
