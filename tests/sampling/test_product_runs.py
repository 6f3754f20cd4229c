"""What runs of products can do besides drawing: each against the runs of the parts."""

from __future__ import annotations

import copy
import math
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.noise import KeyedNoise, part_seed

SHAPE = {"a": (5, 3), "b": (5, 2)}
PRODUCT = srk.Product(a=srk.VP(), b=srk.EDM())
VP, EDM = srk.VP(t_max=4.0), srk.EDM(sigma_max=1e4)


def data(x: Tensor, t: Tensor) -> Tensor:
    level = VP.level(float(t[0]))
    gain = 0.04 * level.alpha / (0.04 * level.alpha**2 + level.sigma**2)
    return (x * gain + 0.2).sin()


def noise(x: Tensor, t: Tensor) -> Tensor:
    level = EDM.level(float(t[0]))
    return x * (level.sigma / (0.5 + level.sigma**2))


def both(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"a": data(x["a"], t["a"]), "b": noise(x["b"], t["b"])}


JOINT = srk.scores.Joint(both, a="data", b="noise")
ALONE: dict[str, Any] = {"a": srk.Data(data), "b": srk.NoisePrediction(noise)}


def alone(name: str, solver: str = "srk2m", seed: int = 3, **options: Any) -> srk.Solution:
    """The run of a part by itself."""
    given = {"shape": SHAPE[name], "nfe": 9, **options}
    score = given.pop("score", ALONE[name])
    return srk.solve(PRODUCT.parts[name], score, solver, seed=part_seed(seed, name), **given)


def test_a_sampler_draws_what_solve_draws() -> None:
    sampler = srk.Sampler(PRODUCT, JOINT, "srk2m", nfe=9)  # type: ignore[arg-type]
    assert isinstance(sampler, srk.ProductSampler)
    again = srk.ProductSampler(PRODUCT, JOINT, {"a": "srk2m", "b": "ddpm"}, nfe=9)
    for seed in range(2):
        one = sampler(shape=SHAPE, seed=seed)
        two = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=seed)
        assert all(torch.equal(one.x[name], two.x[name]) for name in SHAPE)
        three = again(SHAPE, seed=seed)
        assert torch.equal(three.x["a"], one.x["a"])
        assert not torch.equal(three.x["b"], one.x["b"])
    for copied in (copy.copy(sampler), copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        made = copied(shape=SHAPE, seed=1)
        assert all(torch.equal(made.x[name], one.x[name]) for name in SHAPE)
    assert "ProductSampler" in repr(sampler)
    assert isinstance(srk.Sampler(srk.VP(), ALONE["a"]), srk.Sampler)


def test_a_sampler_is_shared_by_threads() -> None:
    """The answers of a joint network belong to the run that asked."""

    def slow(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        time.sleep(0.001)
        return both(x, t)

    score = srk.scores.Joint(slow, a="data", b="noise")
    sampler = srk.ProductSampler(PRODUCT, score, "srk2", nfe=9)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda seed: sampler(SHAPE, seed=seed).x, range(8)))
    for seed, x in enumerate(drawn):
        alone = sampler(SHAPE, seed=seed).x
        assert all(torch.equal(alone[name], x[name]) for name in SHAPE)


def test_a_callback_sees_all_parts_and_may_stop() -> None:
    seen: dict[str, list[Any]] = {"a": [], "b": []}
    infos: list[Any] = []

    def told(info: srk.ProductStepInfo) -> None:
        infos.append((info.index, info.steps, dict(info.t), info.nfe))
        for name in seen:
            denoised = info.denoised[name]
            assert denoised is not None
            seen[name].append((info.x[name].clone(), denoised.clone()))

    sol = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=3, callback=told)
    for name in seen:
        own: list[Any] = []
        plain = alone(
            name, callback=lambda info, own=own: own.append((info.x.clone(), info.denoised))
        )
        assert torch.equal(sol.x[name], plain.x)
        assert len(own) == len(seen[name]) == 8
        for (x, denoised), (x1, denoised1) in zip(seen[name], own, strict=True):
            assert torch.equal(x, x1)
            assert torch.equal(denoised, denoised1)
        assert [info[2][name] for info in infos] == list(plain.times[1:])
    assert infos[0][:2] == (0, 8)
    assert [info[3] for info in infos] == list(range(1, 9))
    stopped = srk.solve(
        PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=3, callback=lambda info: info.index == 2
    )
    assert (stopped.status, stopped.nfe, stopped.steps) == ("stopped", 3, {"a": 3, "b": 3})
    assert all(torch.equal(stopped.x[name], seen[name][2][0]) for name in SHAPE)


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, seed=0, progress=True)
    assert "a + b" in capsys.readouterr().out


@pytest.mark.parametrize("solver", ["ddpm", "euler-maruyama", "dpmpp-2m-sde"])
def test_log_densities_are_those_of_the_parts(solver: str) -> None:
    options: dict[str, Any] = {"nfe": 6, "save": ("x", "log_prob", "inputs")}
    sol = srk.solve(PRODUCT, JOINT, solver, shape=SHAPE, seed=3, **options)
    assert sol.log_prob is not None
    assert sol.inputs is not None
    sampler = srk.ProductSampler(PRODUCT, JOINT, solver, nfe=6)
    again = sampler.log_prob(sol)
    for name in SHAPE:
        own = alone(name, solver, **options)
        assert torch.equal(sol.x[name], own.x)
        assert torch.equal(sol.log_prob[name].values, own.log_prob.values)
        assert torch.equal(sol.inputs[name].values, own.inputs.values)
        assert sol.log_prob[name].times == own.log_prob.times == again[name].times
        assert torch.allclose(again[name].values, own.log_prob.values, rtol=1e-4, atol=1e-3)


def test_log_densities_have_gradients_in_the_joint_network() -> None:
    """The sum over the parts, against a replay of the formula of Euler-Maruyama in the test."""
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        mean = x["a"].mean(1, keepdim=True)
        return {"a": -weight * x["a"], "b": -weight * (x["b"] + mean)}

    product = srk.Product(a=srk.VE(sigma_max=2.0), b=srk.VE(sigma_max=3.0))
    score = srk.scores.Joint(network, a="score", b="score")
    sampler = srk.ProductSampler(product, score, "euler-maruyama", steps=4)
    sol = sampler(SHAPE, seed=0, save="x", dtype=torch.float64)
    values = sampler.log_prob(sol)
    total = sum(part.values.sum() for part in values.values())
    assert isinstance(total, Tensor)
    (slope,) = torch.autograd.grad(total, weight)
    assert sol.trajectory is not None
    x = {name: saved.values for name, saved in sol.trajectory.items()}
    wanted = torch.zeros((), dtype=torch.float64)
    for k in range(4):
        said = network({name: part[k] for name, part in x.items()}, {})
        for name, process in product.parts.items():
            t, dt = 1.0 - k / 4, 0.25
            g2 = process.diffusion(t) ** 2
            mean = x[name][k] + dt * g2 * said[name]
            normal = torch.distributions.Normal(mean, math.sqrt(g2 * dt))
            wanted = wanted + normal.log_prob(x[name][k + 1]).sum()
    assert float(total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-9)
    (exact,) = torch.autograd.grad(wanted, weight)
    assert float(slope) == pytest.approx(float(exact), rel=1e-9)
    with pytest.raises(ArgumentError, match="not the 4 times"):
        srk.ProductSampler(product, score, "euler-maruyama", steps=3).log_prob(sol)
    with pytest.raises(ArgumentError, match="save='x'"):
        sampler.log_prob(sampler(SHAPE, seed=0))
    with pytest.raises(IncompatibleError, match="draws enter an input"):
        srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=5, save="log_prob")


def test_microbatches_do_not_change_the_samples() -> None:
    labels = torch.arange(5.0)

    def network(x: dict[str, Tensor], t: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        assert len(y) == len(x["a"])
        return {"a": data(x["a"], t["a"]) + y[:, None], "b": noise(x["b"], t["b"])}

    score = srk.scores.Joint(network, a="data", b="noise").given(y=labels)
    keep = srk.scores.hooks.Replace(torch.arange(10.0).reshape(5, 2), torch.tensor([True, False]))
    options: dict[str, Any] = {"nfe": 9, "seed": 3, "noise": "keyed", "hooks": {"b": [keep]}}
    whole = srk.solve(PRODUCT, score, "srk2m", shape=SHAPE, **options)
    for size in (1, 2, 5, 9):
        parts = srk.solve(
            PRODUCT, score, "srk2m", shape=SHAPE, microbatch=size, save="x", **options
        )
        for name in SHAPE:
            assert torch.allclose(parts.x[name], whole.x[name], atol=1e-6)
        assert parts.trajectory is not None
        assert parts.trajectory["a"].values.shape == (9, 5, 3)
        assert parts.nfe == 9
        assert parts.seed == 3
    assert torch.equal(whole.x["b"][:, 0], torch.arange(0.0, 10.0, 2.0))
    x_init = {name: torch.randn(shape) for name, shape in SHAPE.items()}
    options.pop("noise")
    one = srk.solve(PRODUCT, score, x_init=x_init, microbatch=2, **options)
    two = srk.solve(PRODUCT, score, x_init=x_init, noise="keyed", **options)
    assert torch.allclose(one.x["a"], two.x["a"], atol=1e-6)
    with pytest.raises(IncompatibleError, match="keyed"):
        srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, noise="generator", microbatch=2)
    with pytest.raises(ArgumentError, match="one batch axis"):
        srk.solve(PRODUCT, JOINT, shape={"a": (5, 3), "b": (4, 2)}, nfe=5, microbatch=2)


def test_guidance_of_a_joint_network() -> None:
    calls = []

    def network(x: dict[str, Tensor], t: dict[str, Tensor], y: float) -> dict[str, Tensor]:
        calls.append(y)
        return {"a": data(x["a"], t["a"]) + y, "b": noise(x["b"], t["b"]) + y}

    network_of = srk.scores.Joint(network, a="data", b="noise")
    pair = network_of.given(y=0.3), network_of.given(y=0.1)
    weak = srk.scores.limited(2.0, 0.3, 5.0)
    for scale in (2.0, {"a": 2.0, "b": 1.0}, {"a": weak, "b": weak}):
        calls.clear()
        score = srk.scores.JointGuided(*pair, scale)
        sol = srk.solve(PRODUCT, score, "ddpm", shape=SHAPE, steps=7, seed=3)
        assert sol.nfe == len(calls)
        for name in SHAPE:
            own = scale[name] if isinstance(scale, dict) else scale

            def said(y: float, name: str = name) -> Any:
                inner = {"a": data, "b": noise}[name]
                return type(ALONE[name])(lambda x, t: inner(x, t) + y)

            guided = srk.Guided(said(0.3), said(0.1), own)
            plain = alone(name, "ddpm", nfe=None, steps=7, score=guided)
            assert torch.equal(sol.x[name], plain.x)
    rescaled = srk.scores.JointGuided(*pair, 2.0, rescale=0.5)
    assert srk.solve(PRODUCT, rescaled, shape=SHAPE, nfe=8, seed=0).nfe == 8
    with pytest.raises(ArgumentTypeError, match="two predictions of all its parts"):
        srk.scores.JointGuided(srk.Data(data), network_of)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="the scale of guidance"):
        srk.solve(PRODUCT, srk.scores.JointGuided(*pair, {"a": 1.0}), shape=SHAPE, nfe=5)


def test_hooks_of_a_part() -> None:
    clip = srk.scores.hooks.Clip(-0.1, 0.1)
    hooks = {"b": [clip, lambda denoised, level: denoised * 0.9]}
    sol = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, nfe=9, seed=3, hooks=hooks)
    assert torch.equal(sol.x["a"], alone("a").x)
    assert torch.equal(sol.x["b"], alone("b", hooks=hooks["b"]).x)
    with pytest.raises(ArgumentTypeError, match="hooks is a dict"):
        srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, hooks=[clip])  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="hooks of"):
        srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, hooks={"c": [clip]})


def test_hooks_that_change_the_state_of_a_part() -> None:
    class Shift(srk.scores.StateHook):
        normals = 1

        def before_step(self, x: Tensor, level: Any, normals: Tensor) -> Tensor:
            return x + 0.1 * normals

    sol = srk.solve(PRODUCT, JOINT, "ddpm", shape=SHAPE, nfe=9, seed=3, hooks={"a": [Shift()]})
    assert torch.equal(sol.x["a"], alone("a", "ddpm", hooks=[Shift()]).x)
    assert torch.equal(sol.x["b"], alone("b", "ddpm").x)
    with pytest.raises(IncompatibleError, match="log-densities"):
        srk.solve(
            PRODUCT, JOINT, "ddpm", shape=SHAPE, nfe=9, hooks={"a": [Shift()]}, save="log_prob"
        )


def test_parts_with_one_process_are_told_their_own_times_and_see_their_own_scale() -> None:
    """Two parts share the levels of their steps; each has a unit of time and a scale of its own."""
    seen: dict[str, list[Any]] = {"a": [], "b": []}

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in seen:
            seen[name].append((x[name].clone(), t[name].clone()))
        return {name: 0.5 * x[name] for name in x}

    process = srk.VP()
    options: dict[str, Any] = {"time_scale": 1000.0, "input_scale": "u"}
    score = srk.scores.Joint(network, a="noise", b=lambda n: srk.NoisePrediction(n, **options))
    product = srk.Product(a=process, b=process)
    sol = srk.solve(product, score, "ddpm", shape=dict.fromkeys(seen, (4, 2)), nfe=6, seed=3)
    for name in seen:
        own: list[Any] = []

        def alone(x: Tensor, t: Tensor, own: list[Any] = own) -> Tensor:
            own.append((x.clone(), t.clone()))
            return 0.5 * x

        adapter = srk.NoisePrediction(alone, **(options if name == "b" else {}))
        plain = srk.solve(process, adapter, "ddpm", shape=(4, 2), nfe=6, seed=part_seed(3, name))
        assert torch.equal(sol.x[name], plain.x)
        for (x, t), (x1, t1) in zip(seen[name], own, strict=True):
            assert torch.equal(x, x1)
            assert torch.equal(t, t1)


def test_parts_that_see_each_other_swapped_keep_their_states() -> None:
    """What the network says of one part may be the memory of the other's state."""

    def swapped(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["b"], "b": x["a"]}

    def copied(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["b"].clone(), "b": x["a"].clone()}

    product = srk.Product(a=srk.VP(), b=srk.EDM())
    for solver in ("srk2m", "ddpm", "dpmpp-2m", "heun"):
        found = [
            srk.solve(
                product,
                srk.scores.Joint(network, a="data", b="data"),
                solver,
                shape={"a": (4, 2), "b": (4, 2)},
                nfe=8,
                seed=0,
            ).x
            for network in (swapped, copied)
        ]
        assert all(torch.equal(found[0][name], found[1][name]) for name in ("a", "b"))


def test_autocast_of_all_parts() -> None:
    weight = torch.eye(3)

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        assert (x["a"] @ weight).dtype == torch.bfloat16
        return {"a": data(x["a"] @ weight, t["a"]), "b": noise(x["b"], t["b"])}

    score = srk.scores.Joint(network, a="data", b="noise")
    options: dict[str, Any] = {"nfe": 6, "autocast": torch.bfloat16}
    sol = srk.solve(PRODUCT, score, shape=SHAPE, seed=3, **options)
    own = alone("a", "auto", score=srk.Data(lambda x, t: data(x @ weight, t)), **options)
    assert torch.equal(sol.x["a"], own.x)


# Adaptive steps -----------------------------------------------------------------------------


def gaussian(product: srk.Product, covariance: Tensor) -> srk.scores.Joint:
    """The exact network of two joint Gaussian parts of mean 0."""

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        levels = [part.level(float(t[name][0])) for name, part in product.parts.items()]
        state = torch.cat([x[name] for name in product.names], 1)
        alpha = torch.diag(torch.tensor([level.alpha for level in levels]).to(state))
        sigma = torch.diag(torch.tensor([level.sigma for level in levels]).to(state))
        c = covariance.to(state)
        gain = c @ alpha @ torch.linalg.inv(alpha @ c @ alpha + sigma**2)
        said = state @ gain.T
        return {name: said[:, [i]] for i, name in enumerate(product.names)}

    return srk.scores.Joint(network, **dict.fromkeys(product.names, "data"))


@pytest.mark.parametrize("estimate", ["embedded", "doubling"])
@pytest.mark.parametrize("norm", ["batch", "worst"])
def test_adaptive_steps_reach_a_joint_gaussian(estimate: Any, norm: Any) -> None:
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.5]])
    product = srk.Product(a=srk.VP(), b=srk.EDM())
    grid = srk.steps.Adaptive(rtol=0.02, atol=0.02, estimate=estimate, norm=norm)
    sol = srk.solve(
        product,
        gaussian(product, covariance),
        "srk2",
        shape={"a": (3000, 1), "b": (3000, 1)},
        grid=grid,
        noise="brownian",
        seed=0,
    )
    assert sol.success
    assert sol.steps["a"] == sol.steps["b"]
    assert sol.times["a"][-1] == product.parts["a"].t_min
    assert sol.times["b"][0] == 80.0
    x = torch.cat([sol.x["a"], sol.x["b"]], 1)
    products = x[:, :, None] * x[:, None]
    error = (products.mean(0) - covariance).abs() / (products.std(0) / math.sqrt(3000))
    assert float(error.max()) < 6.0


def test_adaptive_steps_of_one_part_are_those_of_its_run() -> None:
    """On the common clock a length is a fraction of the half log-SNR. At eta = 0, for the bits of a
    path depend on the rounding of its times.
    """
    process = srk.VP()
    target = srk.targets.Gaussian(0.5, 0.04)
    ends = process.lam(process.t_min) - process.lam(process.t_max)
    own = srk.steps.Adaptive(rtol=1e-3, atol=1e-3, first_step=0.25)
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = target.score(process)
    one = srk.solve(process, score, "srk2", x_init=x, grid=own, eta=0.0, seed=0)
    product = srk.Product(a=process)
    common = srk.steps.Adaptive(rtol=1e-3, atol=1e-3, first_step=0.25 / ends)
    both = srk.scores.Independent(a=score)
    two = srk.solve(product, both, "srk2", x_init={"a": x}, grid=common, eta=0.0, seed=0)
    assert two.nfe == one.nfe > 20
    assert two.rejected == one.rejected
    assert two.times["a"] == pytest.approx(one.times, rel=1e-9)
    assert torch.allclose(two.x["a"], one.x, atol=1e-10)


def test_one_norm_decides_about_all_parts() -> None:
    """A tight part makes the other take its short steps."""
    product = srk.Product(a=srk.VP(), b=srk.VP())
    wide, narrow = (
        srk.targets.Gaussian(0.5, 0.04),
        srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.01, 0.01]),
    )
    calls = []
    for second in (wide, narrow):
        score = srk.scores.Independent(
            a=wide.score(product.parts["a"]), b=second.score(product.parts["b"])
        )
        seen: list[int] = []
        sol = srk.solve(
            product,
            score,
            "srk2",
            shape=32,
            grid="adaptive",
            noise="brownian",
            seed=1,
            save=("x", "denoised"),
            callback=lambda info, seen=seen: seen.append(info.index),
        )
        assert seen == list(range(sol.steps["a"]))
        assert sol.trajectory is not None
        assert len(sol.trajectory["a"].times) == sol.steps["a"] + 1
        calls.append(sol.nfe)
    assert calls[1] > calls[0]
    few = srk.steps.Adaptive(max_nfe=10)
    stopped = srk.solve(product, score, "srk2", shape=32, grid=few, noise="brownian", seed=1)
    assert "max_nfe=10" in stopped.status
    assert stopped.nfe <= 10
    assert stopped.success is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": None}, "noise='brownian'"),
        ({"solver": "ddpm"}, "needs a solver with an error estimate"),
        ({"grid": {"a": "adaptive", "b": "log-snr"}}, "for all of them"),
        ({"grid": srk.steps.Adaptive(norm="sample")}, "norm='sample'"),
        ({"steps": 10}, "decides how many steps"),
        ({"save": "log_prob"}, "fixed grid"),
        ({"product": srk.Product(a=srk.Flow(t_min=0.0), b=srk.EDM())}, "infinite at an end"),
        (
            {"product": srk.Product(a=srk.SO3(), b=srk.EDM()), "solver": "sra1"},
            "adaptive grid is not for SO3",
        ),
    ],
)
def test_what_adaptive_products_do_not_take(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "product": PRODUCT,
        "solver": "srk2",
        "shape": SHAPE,
        "grid": "adaptive",
        "noise": "brownian",
        "seed": 0,
        **options,
    }
    score = srk.scores.Joint(both, a="score", b="noise")
    with pytest.raises((IncompatibleError, ArgumentError), match=message):
        srk.solve(given.pop("product"), score, given.pop("solver"), **given)


def test_a_keyed_source_for_each_part() -> None:
    sources = {"a": KeyedNoise(1), "b": KeyedNoise(2)}
    one = srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, noise=sources)
    two = srk.solve(PRODUCT, JOINT, shape=SHAPE, nfe=5, noise=sources, microbatch=2)
    assert torch.allclose(one.x["a"], two.x["a"], atol=1e-6)


def test_a_network_may_keep_the_dicts_that_it_gets() -> None:
    kept: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    seen: list[dict[str, Tensor]] = []

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        kept.append((x, t))
        seen.append(
            {name: value.clone() for name, value in {**x, "ta": t["a"], "tb": t["b"]}.items()}
        )
        told = both(x, t)
        t["a"] = t["b"].add_(1.0)  # they are its own
        return told

    score = srk.scores.Joint(network, a="data", b="noise")
    sampler = srk.ProductSampler(PRODUCT, score, "srk2", nfe=9)
    for _ in range(2):
        sol = sampler(SHAPE, seed=3)
        assert all(torch.equal(sol.x[name], alone(name, "srk2").x) for name in SHAPE)
    assert len({id(x) for x, _ in kept} | {id(t) for _, t in kept}) == 4 * 9
    for (x, _), before in zip(kept, seen, strict=True):
        assert list(x) == ["a", "b"]
        assert all(torch.equal(x[name], before[name]) for name in SHAPE)
    for first, again in zip(seen[:9], seen[9:], strict=True):
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_sampler_sees_that_its_score_is_another() -> None:
    def network(
        x: dict[str, Tensor], t: dict[str, Tensor], label: float = 1.0
    ) -> dict[str, Tensor]:
        return {name: 0.0 * value + label for name, value in x.items()}

    def other(x: dict[str, Tensor], t: dict[str, Tensor], label: float = 1.0) -> dict[str, Tensor]:
        return {name: 0.0 * value - label for name, value in x.items()}

    process = srk.Flow(t_min=0.0)
    score = srk.scores.Joint(network, a="data", b="data")
    sampler = srk.ProductSampler(srk.Product(a=process, b=process), score, steps=3)

    def drawn() -> list[float]:
        return [float(x.mean()) for x in sampler(SHAPE, seed=0).x.values()]

    assert drawn() == drawn() == [1.0, 1.0]
    score.conditions = {"label": 2.0}
    assert drawn() == [2.0, 2.0]
    score.network = other
    assert drawn() == [-2.0, -2.0]
    sampler.score = srk.scores.Joint(network, a="data", b="data")
    assert drawn() == [1.0, 1.0]


@pytest.mark.parametrize("solver", ["srk2m", "dpmpp-2m", "euler", "heun", "srk2"])
def test_a_callback_changes_no_bit(solver: str) -> None:
    """Parts wait for each other at the end of a step only where somebody looks."""
    options: dict[str, Any] = {"shape": SHAPE, "nfe": 9, "seed": 3}
    told: list[int] = []
    one = srk.solve(PRODUCT, JOINT, solver, **options)
    two = srk.solve(PRODUCT, JOINT, solver, callback=lambda info: told.append(info.nfe), **options)
    assert len(told) == one.steps["a"]
    assert one.nfe == two.nfe
    assert one.times == two.times
    for name in SHAPE:
        assert torch.equal(one.x[name], two.x[name])
        assert torch.equal(one.x[name], alone(name, solver).x)


def test_a_reference_that_is_left_out_for_a_while_hears_the_right_times() -> None:
    def weight(level: srk.Level) -> float:
        return 2.0 if -2.0 < level.lam < 0.0 or level.lam > 2.0 else 1.0

    other = srk.scores.Joint(lambda x, t: both(x, t), a="data", b="noise")
    guided = srk.scores.JointGuided(JOINT, other, weight)
    sol = srk.solve(PRODUCT, guided, "ddpm", shape=SHAPE, steps=9, seed=3)
    for name, network in ALONE.items():
        score = srk.Guided(network, network, weight)
        one = alone(name, "ddpm", score=score, nfe=None, steps=9)
        assert torch.equal(sol.x[name], one.x)
