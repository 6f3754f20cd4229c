"""The sampler.

Prepared once, called often; folding, gradients, log-densities, autocast, pieces of a batch.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import srk
from srk.plans.plan import Stage, fold
from srk.sampling import planning

VP = srk.VP()
TARGET = srk.targets.GaussianMixture(
    torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.2], [0.3]])
)


class Affine(nn.Module):
    """A denoiser with parameters: D = a x + b."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.3, dtype=dtype))
        self.b = nn.Parameter(torch.tensor(0.1, dtype=dtype))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(self.a * x + self.b)


def test_a_sampler_is_solve_prepared() -> None:
    sampler = srk.Sampler(VP, TARGET.score(VP), "srk2m", nfe=12, grid="karras")
    for seed in (0, 1):
        alone = srk.solve(
            VP, TARGET.score(VP), "srk2m", nfe=12, grid="karras", shape=(5, 1), seed=seed
        )
        assert torch.equal(sampler((5, 1), seed=seed).x, alone.x)
    # planned once: the same objects again
    assert all(a is b for a, b in zip(sampler.plans(), sampler.plans(), strict=True))
    assert "srk2m" in repr(sampler)


def noise_network(x: Tensor, t: Tensor) -> Tensor:
    level = VP.level(float(t[0]))
    return (x - level.alpha * TARGET.score(VP).denoise(x, level, VP)) / level.sigma


@pytest.mark.parametrize(
    "solver",
    [
        "ddpm",
        "srk2m",
        "srk2s",
        "dpmpp-2m-sde",
        "dpmpp-3m-sde",
        "etd-sra1",
        "sra1",
        "sa-solver",
        "unipc-3",
    ],
)
def test_folding_changes_rounding_only(solver: str) -> None:
    """The same network as noise, v and denoiser: one plan in three coordinates."""
    exact = TARGET.score(VP)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        level = VP.level(float(t[0]))
        denoised = exact.denoise(x, level, VP)
        return level.alpha * (x - level.alpha * denoised) / level.sigma - level.sigma * denoised

    def run(score: Any) -> srk.Solution:
        return srk.solve(
            VP, score, solver, shape=(16, 1), steps=12, seed=0, dtype=torch.float64, save="denoised"
        )

    expected = run(exact)
    for score in (srk.NoisePrediction(noise_network), srk.Velocity(velocity)):
        sol = run(score)
        assert torch.allclose(sol.x, expected.x, rtol=0, atol=1e-9)
        assert torch.allclose(sol.denoised.values, expected.denoised.values, rtol=0, atol=1e-8)


def test_fold_is_substitution() -> None:
    """Rows over outputs, evaluated with random numbers, equal the rows over denoisers."""
    times = [0.9, 0.6, 0.3]
    plan = srk.Sampler(VP, srk.Data(lambda x, t: x), "srk2s", grid=times).plans()[1]
    pairs = ((0.3, -1.7), (0.8, 0.4))[: len(plan.stages)]
    folded = fold(plan, pairs)
    numbers = torch.rand(100, generator=torch.Generator().manual_seed(0)).tolist()

    def walk(p: Any, denoised: bool) -> list[float]:
        values: dict[Any, float] = {}

        def row(r: Any) -> float:
            return sum(c * values.setdefault(k, numbers[hash(k) % 97]) for k, c in r)

        for i, stage in enumerate(p.stages):
            x = row(stage.row)
            values[("X", i)] = x
            output = math.sin(3 * x)
            values[("E", i)] = pairs[i][0] * x + pairs[i][1] * output if denoised else output
        return [row(p.update), *(row(r) for r in p.keep)]

    assert walk(folded, False) == pytest.approx(walk(plan, True), rel=1e-12)


def test_a_denoiser_of_ones_own_is_not_bypassed() -> None:
    class Clipped(srk.NoisePrediction):
        def denoise(self, x: Tensor, level: Any, process: Any) -> Tensor:
            return super().denoise(x, level, process).clamp(-0.5, 0.5)

    sol = srk.solve(VP, Clipped(noise_network), "ddpm", shape=(64, 1), steps=10, seed=0)
    assert sol.x.abs().max() <= 0.5


@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "srk2s", "dpmpp-2m-sde"])
@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_gradients_flow_and_are_right(solver: str, grad: Any) -> None:
    """Against central differences, in the parameters and in the initial state.

    A recomputed step gives the same.
    """
    network = Affine()
    x0 = torch.linspace(-1, 1, 3, dtype=torch.float64)[:, None].requires_grad_()

    def loss(grad: Any) -> Tensor:
        sol = srk.solve(VP, srk.Data(network), solver, x_init=x0, steps=5, seed=3, grad=grad)
        return sol.x.square().sum()

    value = loss(grad)
    by_a, by_x = torch.autograd.grad(value, [network.a, x0])
    h = 1e-6
    with torch.no_grad():
        network.a += h
        up = loss(False)
        network.a -= 2 * h
        down = loss(False)
        network.a += h
    assert by_a.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-6)
    direction = torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    with torch.no_grad():
        x0 += h * direction
        up = loss(False)
        x0 -= 2 * h * direction
        down = loss(False)
        x0 += h * direction
    assert (by_x * direction).sum().item() == pytest.approx(
        ((up - down) / (2 * h)).item(), rel=1e-6, abs=1e-10
    )  # the quotient rounds
    assert loss(grad).item() == loss(False).item()


def test_checkpointing_calls_the_network_twice() -> None:
    network = Affine()
    sol = srk.solve(
        VP,
        srk.Data(network),
        "ddpm",
        shape=(2, 1),
        steps=5,
        seed=0,
        dtype=torch.float64,
        grad="checkpoint",
        denoise_final=False,
    )
    assert network.calls == sol.nfe == 5
    sol.x.sum().backward()
    assert network.calls == 10


def test_gradients_need_a_fixed_grid() -> None:
    with pytest.raises(srk.errors.IncompatibleError, match="grad needs a fixed grid"):
        srk.solve(VP, TARGET.score(VP), "srk2s", shape=(2, 1), grid="adaptive", grad=True)
    with pytest.raises(srk.errors.ArgumentError, match="grad must be"):
        srk.solve(VP, TARGET.score(VP), shape=(2, 1), grad="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "solver", ["ddpm", "srk1", "euler-maruyama", "ddim", "dpmpp-2m-sde", "euler-ancestral"]
)
def test_log_prob_is_the_density_of_the_step(solver: str) -> None:
    """Against torch.distributions, with the mean from the same step without its draw.

    And the sampler's own second reading of a trajectory.
    """
    n = srk.integrators.integrator("ddim") if solver == "ddim" else solver
    sampler = srk.Sampler(VP, TARGET.score(VP), n, steps=6, eta=1.0, denoise_final=False)
    sol = sampler((4, 1), seed=0, dtype=torch.float64, save=["x", "log_prob"])
    assert sol.log_prob is not None and sol.trajectory is not None
    means = [sampler.process.level(t) for t in sol.times]
    assert len(means) == 7
    plans = sampler.plans()
    states = sol.trajectory.values
    memory: list[Tensor] = []
    from srk._engine.eager import Executor
    from srk.noise import ReplayNoise

    def evaluate(x: Tensor, stage: Stage) -> Tensor:
        return TARGET.score(VP).denoise(x, stage.level, VP)

    expected = []
    for plan, x, after in zip(plans, states[:-1], states[1:], strict=True):
        outcome = Executor(evaluate, ReplayNoise([torch.zeros_like(x)] * 9), reuse=False).run(
            plan, x, memory
        )
        memory = outcome.keep
        std = math.sqrt(sum(c * c for k, c in plan.update if k.kind == "z"))
        expected.append(torch.distributions.Normal(outcome.state, std).log_prob(after).sum(1))
    assert torch.allclose(sol.log_prob.values, torch.stack(expected), rtol=1e-9, atol=1e-9)
    again = sampler.log_prob(sol)
    assert again.times == sol.log_prob.times
    assert torch.allclose(again.values, sol.log_prob.values, rtol=1e-9, atol=1e-9)


def test_log_prob_has_the_policy_gradient() -> None:
    """d log p of a fixed trajectory, from the run itself and from a second reading.

    Central differences agree.
    """
    network = Affine()
    sampler = srk.Sampler(VP, srk.Data(network), "ddpm", steps=5, denoise_final=False)
    sol = sampler((3, 2), seed=0, dtype=torch.float64, save=["x", "log_prob"], grad=True)
    fixed = srk.Sampler(VP, srk.Data(network), "ddpm", steps=5, denoise_final=False)
    with torch.no_grad():
        trajectory = type(sol.trajectory)(sol.trajectory.times, sol.trajectory.values.detach())
    (second,) = torch.autograd.grad(fixed.log_prob(trajectory).values.sum(), [network.a])
    h = 1e-6
    with torch.no_grad():
        network.a += h
        up = fixed.log_prob(trajectory).values.sum()
        network.a -= 2 * h
        down = fixed.log_prob(trajectory).values.sum()
        network.a += h
    assert second.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-5)


@pytest.mark.parametrize("solver", ["srk2m", "srk2", "srk2m-local", "auto", "sra1", "ddpm"])
def test_log_prob_of_what_the_network_saw(solver: str) -> None:
    """The densities of the inputs multiply to the joint one.

    On Gaussian data everything is jointly Gaussian, with a covariance that runs on unit vectors for
    draws tell.
    """
    target = srk.targets.Gaussian(0.5, 0.25)
    sampler = srk.Sampler(VP, target.score(VP), solver, steps=4, denoise_final=False)
    draws = sum(len(plan.slots) for plan in sampler.plans())
    x = torch.zeros(1, 1, dtype=torch.float64)

    def states(values: list[float]) -> tuple[Tensor, srk.Solution]:
        noise = srk.noise.ReplayNoise([torch.full_like(x, value) for value in values])
        sol = sampler(x_init=x, noise=noise, save=("x", "inputs"))
        assert sol.inputs is not None
        return torch.cat([sol.inputs.values.flatten(), sol.x.flatten()]), sol

    mean, _ = states([0.0] * draws)
    rows = torch.eye(draws, dtype=torch.float64)
    effects = torch.stack([states(row.tolist())[0] - mean for row in rows])
    covariance = effects.T @ effects
    seen, sol = states(torch.linspace(-1.0, 1.5, draws).tolist())
    joint, known = 0.0, []
    for k in range(len(mean)):
        variance, expected = covariance[k, k], mean[k]
        if known:
            weight = torch.linalg.solve(covariance[known][:, known], covariance[known, k])
            variance = variance - weight @ covariance[known, k]
            expected = expected + weight @ (seen[known] - mean[known])
        if variance > 1e-9:
            joint += float(torch.distributions.Normal(expected, variance.sqrt()).log_prob(seen[k]))
            known.append(k)
    values = sampler.log_prob(sol).values
    assert float(values.sum()) == pytest.approx(joint, rel=1e-7)
    assert len(values) == len(known)


def test_log_prob_of_inputs_has_the_policy_gradient() -> None:
    """d log p of what `srk2m` saw, in parts of the batch, against central differences."""
    network = Affine()
    sampler = srk.Sampler(VP, srk.Data(network), "srk2m", steps=5, denoise_final=False)
    sol = sampler((6, 2), seed=0, dtype=torch.float64, save=("x", "inputs"))
    whole = sampler.log_prob(sol).values
    for rows in torch.arange(6).split(4):
        part = sampler.log_prob(sol, samples=rows).values
        assert torch.allclose(part, whole[:, rows], rtol=1e-12)
        part.sum().backward()
    assert network.a.grad is not None
    h = 1e-6
    with torch.no_grad():
        network.a += h
        up = sampler.log_prob(sol).values.sum()
        network.a -= 2 * h
        down = sampler.log_prob(sol).values.sum()
        network.a += h
    assert network.a.grad.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-5)


def test_log_prob_refusals() -> None:
    score = TARGET.score(VP)
    with pytest.raises(srk.errors.IncompatibleError, match=r"not Gaussian given the state.*'ddpm'"):
        srk.solve(VP, score, "srk2m", shape=(2, 1), steps=4, save="log_prob")
    with pytest.raises(srk.errors.IncompatibleError, match="draws no noise"):
        srk.solve(VP, score, "ddim", shape=(2, 1), steps=4, eta=0.0, save="log_prob")
    with pytest.raises(srk.errors.IncompatibleError, match="fixed grid"):
        srk.solve(VP, score, "srk2s", shape=(2, 1), grid="adaptive", save="log_prob")
    sampler = srk.Sampler(VP, score, "ddpm", steps=4)
    with pytest.raises(srk.errors.ArgumentError, match="save='x'"):
        sampler.log_prob(sampler((2, 1)))
    other = srk.solve(VP, score, "ddpm", shape=(2, 1), steps=5, save="x")
    with pytest.raises(srk.errors.ArgumentError, match="not the 5 times"):
        sampler.log_prob(other)


def test_autocast_runs_the_network_in_its_dtype() -> None:
    """Matrix products in bfloat16, the state in float64; near the float64 run."""
    seen: list[torch.dtype] = []
    linear = nn.Linear(2, 2, dtype=torch.float32)

    def network(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = linear(x.float())
        seen.append(out.dtype)
        return out

    with pytest.raises(srk.errors.ScoreError, match="network_dtype"):
        srk.solve(VP, srk.Data(network), "ddpm", shape=(4, 2), steps=3, seed=0, dtype=torch.float64)
    sol = srk.solve(
        VP,
        srk.Data(network),
        "ddpm",
        shape=(4, 2),
        steps=3,
        seed=0,
        dtype=torch.float64,
        autocast=torch.bfloat16,
    )
    assert sol.x.dtype == torch.float64
    assert seen[-1] == torch.bfloat16
    exact = srk.solve(
        VP,
        srk.Data(lambda x, t: linear(x.float()).double()),
        "ddpm",
        shape=(4, 2),
        steps=3,
        seed=0,
        dtype=torch.float64,
    )
    assert torch.allclose(sol.x, exact.x, atol=0.05) and not torch.equal(sol.x, exact.x)
    with pytest.raises(srk.errors.ArgumentTypeError, match="autocast"):
        srk.solve(VP, srk.Data(network), shape=(4, 2), autocast="bf16")  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", ["keyed", "brownian", None])
@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_pieces_of_a_batch_are_the_batch(noise: str | None, size: int) -> None:
    """With conditions that belong to samples, with and without an initial state."""
    shift = torch.arange(8.0)[:, None]
    score = srk.Data(lambda x, t, shift: 0.1 * x + shift, model_kwargs={"shift": shift})

    def run(**kwargs: Any) -> srk.Solution:
        return srk.solve(VP, score, "srk2m", steps=5, **kwargs)

    whole = run(shape=(8, 1), noise=noise or "keyed", seed=1, save="x")
    cut = run(shape=(8, 1), noise=noise, seed=1, microbatch=size, save="x")
    assert torch.equal(cut.x, whole.x)
    assert torch.equal(cut.trajectory.values, whole.trajectory.values)  # type: ignore[union-attr]
    assert cut.nfe == whole.nfe
    x_init = torch.linspace(-2, 2, 8)[:, None]
    source = srk.noise.KeyedNoise(seeds=list(range(10, 18)))
    assert torch.equal(
        run(x_init=x_init, noise=source, microbatch=size).x,
        run(x_init=x_init, noise=srk.noise.KeyedNoise(seeds=list(range(10, 18)))).x,
    )


def test_pieces_need_noise_that_belongs_to_the_sample() -> None:
    with pytest.raises(srk.errors.IncompatibleError, match="noise='keyed'"):
        srk.solve(VP, TARGET.score(VP), shape=(8, 1), noise="generator", microbatch=4)
    with pytest.raises(srk.errors.ArgumentError, match="microbatch must be"):
        srk.solve(VP, TARGET.score(VP), shape=(8, 1), microbatch=0)


def test_remembered_plans_are_nobodys_to_change() -> None:
    """An exact law with a final denoising step adds a step of its own to the plans.

    The next run of that grid must not have it.
    """
    first = srk.analysis.gaussian_distribution("ddpm", VP, 0.0, 0.25, steps=7, denoise_final=True)
    again = srk.analysis.gaussian_distribution("ddpm", VP, 0.0, 0.25, steps=7, denoise_final=True)
    assert first.nfe == again.nfe == 8
    assert srk.solve(VP, TARGET.score(VP), "ddpm", shape=(2, 1), steps=7).nfe == 8


def test_solutions_and_steps_are_compared_as_objects() -> None:
    """Tensors have no one truth value: `sol == other` or `sol in list` is not to raise."""
    process = srk.VP()
    seen: list[Any] = []
    options: dict[str, Any] = {"shape": (3, 2), "steps": 3, "save": "x", "callback": seen.append}
    one, two = (srk.solve(process, lambda x, t: -x, seed=0, **options) for _ in range(2))
    product = srk.Product(a=process)
    score = srk.scores.Independent(a=lambda x, t: -x)
    three = srk.solve(product, score, shape={"a": (3, 2)}, steps=3, seed=0, callback=seen.append)
    assert three != one
    for value in (one, three, one.trajectory, *seen):
        assert value == value
        assert value != two
        assert [two, value].index(value) == 1
        assert len({value, two}) == 2


def test_a_network_may_write_to_its_times() -> None:
    """The times of a run are its own: what a network does to them is not there in the next run."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        result = x * t[:, None]
        t.fill_(7.0)
        return result

    for batch in (16, 5):  # rows without and with numbers between them
        sampler = srk.Sampler(srk.VP(), srk.Data(network), "ddpm", steps=4)
        first, second = sampler((batch, 2), seed=0), sampler((batch, 2), seed=0)
        assert torch.equal(first.x, second.x)
        plain = srk.Sampler(srk.VP(), srk.Data(lambda x, t: x * t[:, None]), "ddpm", steps=4)
        assert torch.equal(first.x, plain((batch, 2), seed=0).x)


def test_a_sampler_plans_once_for_each_resolution() -> None:
    """Plans of unchanging values are the sampler's own; another dtype or problem has others."""
    sampler = srk.Sampler(srk.VP(), srk.Data(lambda x, t: 0.5 * x), "srk2m", steps=5)
    info = sampler.settings.info(dtype=torch.float32)
    once, etas = sampler._planned(info)
    assert sampler._planned(info)[0] is once
    planning.forget()
    assert sampler._planned(sampler.settings.info(dtype=torch.float32))[0] is once
    other = sampler._planned(attrs.evolve(info, steps=6))[0]
    assert len(other) == 6 and len(etas) == 5
    half = sampler._planned(sampler.settings.info(dtype=torch.bfloat16))[0]
    assert half is not once and len(half) == 5
    mean = srk.Sampler(
        srk.VP(), srk.Data(lambda x, t: 0.5 * x), "ddpm", steps=5, denoise_final="mean"
    )
    assert not mean.plans()[-1].slots and mean.plans()[-2].slots
