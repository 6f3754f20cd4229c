"""Products: several parts in one run, against separate runs and a joint Gaussian."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError, SolveError
from srk.noise import BrownianNoise, GeneratorNoise, KeyedNoise, part_seed

SHAPE = {"a": (5, 3), "b": (5, 2)}
PRODUCT = srk.Product(a=srk.VP(), b=srk.EDM())


def denoiser(x: Tensor, level: Any, mean: float, variance: float) -> Tensor:
    """E[x0 | x] of N(mean, variance) data."""
    total = level.alpha**2 * variance + level.sigma**2
    return x * (level.alpha * variance / total) + mean * level.sigma**2 / total


def networks() -> tuple[Any, Any]:
    """Networks of a bent denoiser and of the noise, in the shape of (x, t)."""
    # some solvers go above the highest level of the process
    vp, edm = srk.VP(t_max=4.0), srk.EDM(sigma_max=1e4)

    def data(x: Tensor, t: Tensor) -> Tensor:
        return denoiser(x, vp.level(float(t[0])), 0.5, 0.04).sin()

    def noise(x: Tensor, t: Tensor) -> Tensor:
        level = edm.level(float(t[0]))
        return (x - level.alpha * denoiser(x, level, -1.0, 0.5)) / level.sigma

    return data, noise


def joint() -> srk.scores.Joint:
    data, noise = networks()

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": data(x["a"], t["a"]), "b": noise(x["b"], t["b"])}

    return srk.scores.Joint(network, a="data", b="noise")


def separate(name: str, solver: Any, **options: Any) -> srk.Solution:
    data, noise = networks()
    score = {"a": srk.Data(data), "b": srk.NoisePrediction(noise)}[name]
    return srk.solve(PRODUCT.parts[name], score, solver, shape=SHAPE[name], **options)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_independent_parts_are_separate_runs_bit_for_bit(solver: str) -> None:
    data, noise = networks()
    both = srk.scores.Independent(a=srk.Data(data), b=srk.NoisePrediction(noise))
    for score in (both, joint()):
        sol = srk.solve(PRODUCT, score, solver, shape=SHAPE, nfe=25, seed=3)
        for name in PRODUCT.names:
            alone = separate(name, solver, nfe=25, seed=part_seed(3, name))
            assert torch.equal(sol.x[name], alone.x)
            assert sol.nfe == alone.nfe == sol.parts[name].nfe
            assert sol.steps[name] == alone.steps
            assert sol.times[name] == alone.times


@pytest.mark.parametrize("kind", [GeneratorNoise, KeyedNoise, BrownianNoise])
def test_each_noise_source_is_that_of_the_separate_run(kind: Any) -> None:
    noise = {"a": kind(5), "b": kind(6)}
    sol = srk.solve(PRODUCT, joint(), "srk2", shape=SHAPE, steps=6, noise=noise)
    for name, source in noise.items():
        assert torch.equal(sol.x[name], separate(name, "srk2", steps=6, noise=source).x)
    named = srk.solve(PRODUCT, joint(), shape=SHAPE, steps=6, noise=kind.name, seed=2)
    for name in PRODUCT.names:
        source = kind(part_seed(2, name))
        assert torch.equal(named.x[name], separate(name, "auto", steps=6, noise=source).x)


def test_each_part_has_its_own_grid_eta_solver_dtype_and_state() -> None:
    options: dict[str, Any] = {
        "grid": {"a": "uniform", "b": [80.0, 20.0, 5.0, 1.0, 0.1, 0.002]},
        "eta": {"a": 0.5, "b": 0.0},
        "solver": {"a": "ddpm", "b": "dpmpp-2m"},
        "steps": {"a": 5, "b": None},
        "dtype": {"a": torch.float64, "b": torch.float32},
        "denoise_final": True,
    }
    x_init = {name: torch.randn(shape) for name, shape in SHAPE.items()}
    for start in ({"shape": SHAPE}, {"x_init": x_init}):
        sol = srk.solve(PRODUCT, joint(), seed=1, save=("x", "denoised"), **options, **start)
        assert sol.trajectory is not None
        assert sol.denoised is not None
        for name in PRODUCT.names:
            own = {k: v[name] if isinstance(v, dict) else v for k, v in options.items()}
            place = {k: v[name] for k, v in start.items()}
            data, noise = networks()
            score = srk.Data(data) if name == "a" else srk.NoisePrediction(noise)
            alone = srk.solve(
                PRODUCT.parts[name],
                score,
                seed=part_seed(1, name),
                save=("x", "denoised"),
                **own,
                **place,
            )
            assert torch.equal(sol.x[name], alone.x)
            assert sol.x[name].dtype == options["dtype"][name]
            assert torch.equal(sol.trajectory[name].values, alone.trajectory.values)
            assert torch.equal(sol.denoised[name].values, alone.denoised.values)
            assert sol.solver[name] == alone.solver
            assert sol.eta[name] == alone.eta
    assert all(torch.equal(x_init[name], x_init[name].clone()) for name in x_init)


def test_one_call_serves_all_parts_at_their_own_times() -> None:
    seen: list[tuple[float, float]] = []

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        assert set(x) == set(t) == {"a", "b"}
        assert all(t[name].shape == (5,) for name in t)
        assert all(x[name].shape == SHAPE[name] for name in x)
        seen.append((float(t["a"][0]), float(t["b"][0])))
        return {name: 0 * x[name] for name in x}

    score = srk.scores.Joint(network, a="data", b="data")
    sol = srk.solve(PRODUCT, score, "ddpm", shape=SHAPE, nfe=8, seed=0)
    assert len(seen) == sol.nfe == 8
    for i, name in enumerate(PRODUCT.names):  # times reach the network in float32
        assert [t[i] for t in seen] == pytest.approx(sol.times[name], rel=1e-6)


def test_a_part_with_options_of_its_own() -> None:
    vp = PRODUCT.parts["a"]

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["a"] * t["a"][:, None], "b": 0 * x["b"]}

    def adapter(network: Any) -> srk.scores.NetworkPrediction:
        return srk.Data(network, time="flow", input_scale="flow")

    score = srk.scores.Joint(network, a=adapter, b="edm")
    sol = srk.solve(PRODUCT, score, "srk2m", shape=SHAPE, nfe=10, seed=0)
    alone = srk.Data(lambda x, t: x * t[:, None], time="flow", input_scale="flow")
    own = srk.solve(vp, alone, "srk2m", shape=SHAPE["a"], nfe=10, seed=part_seed(0, "a"))
    assert torch.equal(sol.x["a"], own.x)


# A joint Gaussian. With x = A x0 + S eps, A and S diagonal over the parts,
# D = m + C A (A C A + S^2)^-1 (x - A m); the parts know of each other through C.
MEAN = torch.tensor([0.3, -0.7], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.9], [0.9, 1.5]], dtype=torch.float64)


def gaussian(product: srk.Product, mean: Tensor = MEAN) -> srk.scores.Joint:
    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        levels = [part.level(float(t[name][0])) for name, part in product.parts.items()]
        alpha = torch.diag(torch.tensor([level.alpha for level in levels], dtype=torch.float64))
        sigma = torch.diag(torch.tensor([level.sigma for level in levels], dtype=torch.float64))
        gain = COVARIANCE @ alpha @ torch.linalg.inv(alpha @ COVARIANCE @ alpha + sigma**2)
        state = torch.cat([x[name] for name in product.names], 1)
        said = mean + (state - mean @ alpha) @ gain.T
        return {name: said[:, [i]] for i, name in enumerate(product.names)}

    return srk.scores.Joint(network, **dict.fromkeys(product.names, "data"))


def distribution(product: srk.Product, solver: str, nfe: int, **options: Any) -> tuple[Any, ...]:
    """Exact mean and covariance of what a solver gives: the linear map of all its draws."""
    size = 4 * nfe + 8
    rows = [0]

    def draw(slot: Any, clock: str, out: Tensor) -> None:
        out.zero_()
        if rows[0] >= 0:
            out[rows[0]] = 1.0
            rows[0] += 1

    def run(mean: Tensor) -> Tensor:
        shape = dict.fromkeys(product.names, (size, 1))
        sol = srk.solve(
            product,
            gaussian(product, mean),
            solver,
            shape=shape,
            nfe=nfe,
            dtype=torch.float64,
            noise=dict.fromkeys(product.names, draw),
            denoise_final=False,
            **options,
        )
        return torch.cat([sol.x[name] for name in product.names], 1)

    columns = run(torch.zeros(2, dtype=torch.float64))
    assert 2 <= rows[0] <= size
    rows[0] = -1  # no noise at all
    return run(MEAN)[0], columns.T @ columns


@pytest.mark.parametrize(
    ("solver", "eta", "order"), [("ddpm", 1.0, 1), ("dpmpp-2m", 0.0, 2), ("srk2m", 1.0, 2)]
)
def test_a_joint_gaussian_reaches_its_exact_distribution(
    solver: str, eta: float, order: int
) -> None:
    product = srk.Product(a=srk.VP(t_min=1e-4), b=srk.EDM(sigma_min=0.01))
    levels = [part.level(part.t_min) for part in product.parts.values()]
    alpha = torch.diag(torch.tensor([level.alpha for level in levels], dtype=torch.float64))
    noise = torch.tensor([level.sigma**2 for level in levels], dtype=torch.float64)
    truth = alpha @ COVARIANCE @ alpha + torch.diag(noise)
    found = [distribution(product, solver, nfe, eta=eta) for nfe in (40, 80)]
    assert found[-1][0].sub(alpha @ MEAN).abs().max() < 0.02  # what the prior does not know
    errors = [float((covariance - truth).abs().max()) for _, covariance in found]
    assert errors[0] / errors[1] > 0.85 * 2**order
    (_, coarse), (_, fine) = found
    limit = fine + (fine - coarse) / (2**order - 1)  # where the errors of that order are gone
    assert (limit - truth).abs().max() < 0.04
    if order > 1:
        assert (limit - truth).abs().max() < 1e-3


def test_parts_that_begin_or_end_without_noise() -> None:
    product = srk.Product(a=srk.VP(), b=srk.Flow(t_min=0.0))
    independent = srk.scores.Independent(
        a=srk.targets.Gaussian(0.5, 0.04).score(product.parts["a"]),
        b=srk.targets.Gaussian(-1.0, 0.5).score(product.parts["b"]),
    )
    shape = {"a": (4, 1), "b": 4}
    sol = srk.solve(product, independent, "srk2m", shape=shape, nfe=12, seed=0)
    assert sol.steps == {"a": 11, "b": 12}  # the last step of b is its denoiser, that of a is extra
    for name, part in product.parts.items():
        score = independent.parts[name]
        alone = srk.solve(part, score, "srk2m", shape=4, nfe=12, seed=part_seed(0, name))
        assert torch.equal(sol.x[name], alone.x)
    with pytest.raises(IncompatibleError, match=r"11 steps.*10"):
        srk.solve(product, independent, "ddpm", shape=4, steps=10, seed=0)
    with pytest.raises(IncompatibleError, match="step 0 has 2 evaluations in the part 'a' and 1"):
        srk.solve(product, independent, "heun", shape=4, steps={"a": 10, "b": 11}, seed=0)


def test_a_phase_space_part() -> None:
    product = srk.Product(a=srk.CLD(), b=srk.VP())
    target = srk.targets.Gaussian(0.5, 0.04)
    score = srk.scores.Independent(
        **{name: target.score(part) for name, part in product.parts.items()}
    )
    shape = {"a": (4, 2, 1), "b": 4}
    sol = srk.solve(product, score, "srk2m", shape=shape, nfe=10, seed=0)
    alone = srk.solve(
        product.parts["a"],
        score.parts["a"],
        "srk2m",
        shape=(4, 2, 1),
        nfe=10,
        seed=part_seed(0, "a"),
    )
    assert torch.equal(sol.x["a"], alone.x)


def test_guided_parts_pay_for_their_calls() -> None:
    network = lambda x, t: 0 * x  # noqa: E731
    guided = srk.Guided(srk.Data(network), srk.Data(network), scale=2.0)
    score = srk.scores.Independent(a=guided, b=srk.Data(network))
    sol = srk.solve(PRODUCT, score, "ddpm", shape=SHAPE, nfe=20, seed=0)
    assert sol.nfe == 2 * 10
    assert sol.steps == {"a": 9, "b": 9}
    with pytest.raises(ArgumentError, match="nfe=1 buys no evaluation"):
        srk.solve(PRODUCT, score, "ddpm", shape=SHAPE, nfe=1)


def test_a_network_may_return_its_inputs_of_other_parts() -> None:
    shape = {"a": (4, 2), "b": (4, 2)}

    def kept(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["b"], "b": x["a"]}

    def copied(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["b"].clone(), "b": x["a"].clone()}

    for solver in ("srk2", "dpmpp-2m", "srk2m"):
        one, two = (
            srk.solve(
                PRODUCT,
                srk.scores.Joint(network, a="data", b="data"),
                solver,
                shape=shape,
                nfe=12,
                seed=0,
            )
            for network in (kept, copied)
        )
        assert all(torch.equal(one.x[name], two.x[name]) for name in shape)


def test_a_network_that_writes_to_its_input_is_named() -> None:
    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.mul_(0.5) for name, value in x.items()}

    with pytest.raises(ScoreError, match="in place"):
        srk.solve(PRODUCT, srk.scores.Joint(network, a="data", b="data"), shape=SHAPE, steps=3)


def test_gradients_flow_through_all_parts() -> None:
    weight = torch.tensor(0.5, requires_grad=True)

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": weight * x["a"], "b": weight * x["a"][:, :2]}

    score = srk.scores.Joint(network, a="data", b="data")
    options: dict[str, Any] = {"shape": SHAPE, "steps": 3, "seed": 0}
    sol = srk.solve(PRODUCT, score, "ddpm", grad=True, **options)
    (slope,) = torch.autograd.grad(sol.x["b"].sum(), weight)
    assert math.isfinite(float(slope))
    assert float(slope) != 0.0
    plain = srk.solve(PRODUCT, score, "ddpm", **options)
    assert not plain.x["b"].requires_grad
    assert torch.allclose(sol.x["b"].detach(), plain.x["b"])


def test_a_failure_names_its_part() -> None:
    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": x["a"], "b": x["b"] * math.nan}

    score = srk.scores.Joint(network, a="data", b="data")
    with pytest.raises(SolveError, match="in the part 'b', the score returned NaN") as failure:
        srk.solve(PRODUCT, score, shape=SHAPE, steps=3)
    assert set(failure.value.solution.x) == {"a", "b"}
    sol = srk.solve(PRODUCT, score, shape=SHAPE, steps=3, on_failure="return")
    assert not sol.success
    assert "'b'" in sol.status


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (lambda x: x["a"], "returned Tensor; it must return a dict"),
        (lambda x: {"a": x["a"]}, "returned the parts 'a'; it must return exactly 'a', 'b'"),
        (lambda x: {"a": x["a"], "b": x["a"]}, "part 'b' of network.*returned shape"),
        (lambda x: {"a": x["a"], "b": None}, "part 'b' of network.*returned NoneType"),
    ],
)
def test_what_a_joint_network_must_return(said: Any, message: str) -> None:
    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> Any:
        return said(x)

    with pytest.raises(ScoreError, match=message):
        srk.solve(PRODUCT, srk.scores.Joint(network, a="data", b="data"), shape=SHAPE, steps=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compile": "loop"}, IncompatibleError, "use compile='step'"),
        ({"grad": "checkpoint"}, IncompatibleError, "grad=True"),
        ({"grid": "adaptive", "solver": "srk2"}, IncompatibleError, "noise='brownian'"),
        ({"parallel": srk.Picard()}, IncompatibleError, "leave parallel out"),
        ({"grid": {"a": "log-snr", "b": "budget"}}, IncompatibleError, "part 'b'"),
        ({"grid": {"a": "log-snr"}}, ArgumentError, "grid has one entry.*'b'.* missing"),
        ({"nfe": {"a": 3, "b": 3}}, ArgumentTypeError, "nfe counts calls"),
        ({"nfe": 0}, ArgumentError, "nfe"),
        ({"shape": (5, 3)}, ArgumentTypeError, "shape of a product is a dict"),
        ({"shape": {"a": (5, 3), "b": (4, 2)}}, ArgumentError, "5 of 'a', 4 of 'b'"),
        ({"shape": {"a": (5, 3)}}, ArgumentError, "shape has one entry"),
        ({"shape": None, "x_init": torch.zeros(5, 3)}, ArgumentTypeError, "x_init"),
        ({"noise": KeyedNoise(0)}, ArgumentTypeError, "independent noise"),
        ({"noise": {"a": KeyedNoise(1), "b": KeyedNoise(1)}}, ArgumentError, "same seed 1"),
        ({"noise": {"a": KeyedNoise(1), "b": KeyedNoise(2)}, "seed": 0}, ArgumentError, "seed"),
        ({"solver": {"a": "srk2", "b": "ddpm"}, "steps": 4}, IncompatibleError, "step 0 has 2"),
    ],
)
def test_what_a_product_does_not_take(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        srk.solve(PRODUCT, joint(), **{"shape": SHAPE, **options})


def test_wrong_products_and_scores_say_what_is_right() -> None:
    with pytest.raises(ArgumentError, match="at least one part"):
        srk.Product()
    with pytest.raises(ArgumentTypeError, match="part 'a'"):
        srk.Product(a=srk.VP)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match=r"srk\.scores\.Joint"):
        srk.solve(PRODUCT, srk.Data(lambda x, t: x), shape=SHAPE)  # type: ignore[call-overload]
    with pytest.raises(ArgumentTypeError, match="for the parts of a product"):
        srk.solve(srk.VP(), joint(), shape=(4, 1))  # type: ignore[call-overload]
    for other in (
        lambda: srk.invert(PRODUCT, joint(), torch.zeros(5, 3)),  # type: ignore[arg-type]
        lambda: srk.calibrate(PRODUCT, joint(), shape=(5, 3)),  # type: ignore[arg-type]
        lambda: srk.log_likelihood(PRODUCT, joint(), torch.zeros(5, 3)),  # type: ignore[arg-type]
    ):
        with pytest.raises(ArgumentTypeError, match=r"srk\.ForwardProcess such as"):
            other()
    with pytest.raises(ArgumentError, match="'c'"):
        srk.solve(PRODUCT, srk.scores.Joint(lambda x, t: x, a="data", c="data"), shape=SHAPE)
    with pytest.raises(ArgumentError, match="'epsilon'"):
        srk.scores.Joint(lambda x, t: x, a="epsilon")
    with pytest.raises(ArgumentTypeError, match="callable"):
        srk.scores.Joint(3, a="data")  # type: ignore[arg-type]
    conditioned = srk.scores.Joint(
        lambda x, t: x, a=lambda n: srk.Data(n, model_kwargs={"y": 1}), b="data"
    )
    with pytest.raises(ArgumentError, match="model_kwargs"):
        srk.solve(PRODUCT, conditioned, shape=SHAPE)


def test_seeds_and_copies() -> None:
    one = srk.solve(PRODUCT, joint(), shape=SHAPE, steps=3, seed=7)
    two = srk.solve(pickle.loads(pickle.dumps(PRODUCT)), joint(), shape=SHAPE, steps=3, seed=7)
    assert all(torch.equal(one.x[name], two.x[name]) for name in SHAPE)
    free = srk.solve(PRODUCT, joint(), shape=SHAPE, steps=3)
    again = srk.solve(PRODUCT, joint(), shape=SHAPE, steps=3, seed=free.seed)
    assert torch.equal(free.x["a"], again.x["a"])
    # equal shapes, other numbers
    same = {"a": (50, 1), "b": (50, 1)}
    zero = srk.scores.Joint(lambda x, t: {n: 0 * x[n] for n in x}, a="data", b="data")
    sol = srk.solve(PRODUCT, zero, shape=same, steps=3, seed=0, save="x")
    assert sol.trajectory is not None
    a, b = (sol.trajectory[name].values[0, :, 0] for name in ("a", "b"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.4
    assert "ProductSolution: done, 4 NFE, 2 parts" in repr(sol)
