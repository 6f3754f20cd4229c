"""Runs of angles and rotations, alone and as parts of a product, against exact distributions."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from scipy import stats
from torch import Tensor

import srk
from srk.errors import IncompatibleError
from srk.noise import part_seed
from srk.plans.increments import check_increments
from srk.plans.plan import StepPlan
from srk.processes import heat
from srk.processes.manifold import retraction

TORUS = srk.Torus(sigma_min=0.1, sigma_max=6.0)
ANGLES = srk.targets.TorusMixture([0.3, 0.7], [[-3.0], [1.0]], [0.2, 0.3])
SO3 = srk.SO3(sigma_min=0.1, sigma_max=3.5, schedule="exponential")
POINTS = srk.targets.RotationMixture([0.3, 0.7], [[0.3, -1.0, 2.0], [1.0, 0.5, 0.0]], 0.1)
N = 2000


def close(values: Tensor, wanted: float) -> bool:
    """Whether the mean of `values` is `wanted` within 6 standard errors."""
    return abs(float(values.mean()) - wanted) < 6 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize(
    ("solver", "eta"),
    [("euler-maruyama", 1.0), ("euler-maruyama", 0.0), ("sra1", 1.0), ("stochastic-heun", 0.0)],
)
def test_angles_reach_their_distribution(solver: str, eta: float) -> None:
    steps = 300 if solver == "euler-maruyama" else 100
    score = ANGLES.score(TORUS)
    sol = srk.solve(TORUS, score, solver, shape=(N, 1), steps=steps, seed=0, eta=eta)
    x = sol.x[:, 0].double()
    assert float(x.abs().max()) <= math.pi + 1e-6
    for n in (1, 2, 3):  # the moments of the circle
        damping = [math.exp(-0.5 * n**2 * (std**2 + 0.01)) for std in (0.2, 0.3)]
        real = 0.3 * damping[0] * math.cos(-3.0 * n) + 0.7 * damping[1] * math.cos(n)
        imaginary = 0.3 * damping[0] * math.sin(-3.0 * n) + 0.7 * damping[1] * math.sin(n)
        assert close(torch.cos(n * x), real)
        assert close(torch.sin(n * x), imaginary)
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    density = ANGLES.log_density(grid[:, None], TORUS, 0.0).exp()
    level = torch.cumulative_trapezoid(density, grid)
    cdf = lambda value: _interpolated(value, grid[1:], level)  # noqa: E731
    assert stats.kstest(x.numpy(), cdf).pvalue > 1e-6


def _interpolated(value: Any, grid: Tensor, level: Tensor) -> Any:
    at = torch.searchsorted(grid, torch.as_tensor(value)).clamp(max=len(grid) - 1)
    return level[at].numpy()


@pytest.mark.parametrize("frame", ["body", "space"])
@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_rotations_reach_their_distribution(frame: str, eta: float) -> None:
    process = attrs.evolve(SO3, frame=frame)
    score = POINTS.score(process)
    sol = srk.solve(process, score, "euler-maruyama", shape=(N, 3), steps=100, seed=0, eta=eta)
    x = sol.x.double()
    angles = torch.stack([process.between(mean, x).norm(dim=-1) for mean in POINTS.means])
    nearest = angles.argmin(0)
    assert close(nearest.double(), 0.7)
    cdf = lambda w: heat.rotation_cdf(  # noqa: E731
        torch.as_tensor(w), torch.tensor(0.02, dtype=torch.float64)
    ).numpy()
    assert stats.kstest(angles.min(0).values.numpy(), cdf).pvalue > 1e-6
    # E trace(R) = sum w trace(mean) (1 + 2 E cos(angle))/3, and E chi_1 = 3 e^(-s) for IGSO(3)
    traces = [1.0 + 2.0 * math.cos(float(mean.norm())) for mean in POINTS.means]
    wanted = (0.3 * traces[0] + 0.7 * traces[1]) * math.exp(-0.02)
    assert close(1.0 + 2.0 * torch.cos(x.norm(dim=-1)), wanted)


def test_a_run_is_the_formula_step_by_step() -> None:
    """Reverse geodesic random walk: R exp((sigma^2)' dt (1 + eta^2)/2 s + eta g sqrt(dt) z)."""
    score = POINTS.score(SO3)
    x_init = srk.SO3().sample_prior((5, 3), generator=torch.Generator().manual_seed(3))
    draws: list[Tensor] = []

    def draw(slot: Any, clock: str, out: Tensor) -> None:
        out.normal_(generator=torch.Generator().manual_seed(len(draws)))
        draws.append(out.clone())

    options: dict[str, Any] = {"x_init": x_init.double(), "steps": 7, "eta": 0.8, "noise": draw}
    sol = srk.solve(SO3, score, "euler-maruyama", **options)

    def hat(v: Tensor) -> Tensor:
        m = torch.zeros(len(v), 3, 3, dtype=v.dtype)
        m[:, 2, 1], m[:, 0, 2], m[:, 1, 0] = v.unbind(1)
        return m - m.mT

    matrix = torch.linalg.matrix_exp(hat(x_init.double()))
    rate = math.log(3.5 / 0.1)
    for k in range(7):
        t, dt = 1.0 - k / 7, 1.0 / 7
        g2 = 2 * rate * (0.1 ** (1 - t) * 3.5**t) ** 2
        s = score(srk.SO3.from_matrix(matrix), t)
        step = 0.5 * (1 + 0.8**2) * g2 * dt * s + 0.8 * math.sqrt(g2 * dt) * draws[k]
        matrix = matrix @ torch.linalg.matrix_exp(hat(step))
    assert torch.allclose(srk.SO3.matrix(sol.x), matrix, atol=1e-9)


def test_several_rotations_noise_sources_and_the_mean_of_the_last_step() -> None:
    target = srk.targets.RotationMixture([1.0], [[[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]]], 0.0)
    score = target.score(SO3)
    for noise in ("generator", "keyed", "brownian"):
        options: dict[str, Any] = {"steps": 40, "seed": 1, "noise": noise}
        sol = srk.solve(SO3, score, shape=(50, 2, 3), save="x", **options)
        assert sol.solver == "auto: euler-maruyama"
        assert sol.trajectory is not None
        assert float(sol.x.norm(dim=-1).max()) <= math.pi + 1e-6
        away = SO3.between(target.means[0].float(), sol.x).norm(dim=-1)
        still = srk.solve(SO3, score, shape=(50, 2, 3), denoise_final="mean", **options)
        nearer = SO3.between(target.means[0].float(), still.x).norm(dim=-1)
        assert float(nearer.mean()) < float(away.mean())
    whole = srk.solve(SO3, score, shape=(7, 2, 3), steps=5, seed=0, noise="keyed").x
    parts = srk.solve(SO3, score, shape=(7, 2, 3), steps=5, seed=0, microbatch=3).x
    assert torch.allclose(whole, parts, atol=1e-6)


def test_gradients_flow_through_rotations() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    slopes = []
    for grad in (True, "checkpoint"):
        sol = srk.solve(SO3, lambda x, t: -weight * x, shape=(4, 3), steps=3, seed=0, grad=grad)
        slopes.append(torch.autograd.grad(sol.x.square().sum(), weight)[0])
    assert slopes[0].isfinite() and slopes[0] != 0.0
    assert torch.allclose(slopes[0], slopes[1])


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_each_solver_makes_increments_or_says_why_not(solver: str) -> None:
    """On the torus the solvers in own time that add increments; of rotations those of one stage."""
    made = []
    for process, target in ((TORUS, ANGLES), (SO3, POINTS)):
        options: dict[str, Any] = {"shape": (3, *target.event_shape), "nfe": 12, "seed": 0}
        try:
            sol = srk.solve(process, target.score(process), solver, **options)
        except IncompatibleError as error:
            said = str(error)
            assert "euler-maruyama" in said
            made.append(False)
        else:
            assert sol.x.isfinite().all()
            made.append(True)
    assert made[0] or not made[1]
    if solver in ("euler-maruyama", "auto"):
        assert all(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "step"}, "compile is not for SO3"),
        ({"grid": "adaptive", "steps": None, "noise": "brownian"}, "an adaptive grid is not for"),
        ({"parallel": srk.Picard()}, "parallel is not for"),
        ({"save": "log_prob"}, "leave out log_prob"),
        ({"denoise_final": True}, "needs a denoiser"),
        ({"solver": "sra1"}, "increments from 2 states"),
        ({"solver": "srk2m"}, "needs a linear process"),
    ],
)
def test_what_rotations_do_not_take(options: dict[str, Any], message: str) -> None:
    given = {"solver": "euler-maruyama", "shape": (3, 3), "steps": 5, "seed": 0, **options}
    with pytest.raises(IncompatibleError, match=message):
        srk.solve(SO3, POINTS.score(SO3), **given)


def test_other_uses_of_rotations() -> None:
    hooked = srk.Hooked(POINTS.score(SO3), srk.scores.hooks.Clip())
    with pytest.raises(IncompatibleError, match="hooks act on the denoiser"):
        srk.solve(SO3, hooked, shape=(3, 3), steps=3)
    with pytest.raises(IncompatibleError, match="curved"):
        srk.log_likelihood(SO3, POINTS.score(SO3), torch.zeros(2, 3), prior=lambda x: x.sum(1))
    guided = srk.Guided(POINTS.score(SO3), lambda x, t: 0 * x, 2.0)
    assert srk.solve(SO3, guided, shape=(3, 3), steps=5, seed=0).nfe == 10


@attrs.frozen
class Circle(srk.ForwardProcess):
    """A process of one's own with a retraction: points of the unit circle in the plane."""

    name = "circle"
    t_min: float = 0.0
    t_max: float = 4.0

    def drift(self, t: float, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, t: float) -> float:
        return 1.0

    def retract(self, x: Tensor, dx: Tensor) -> Tensor:
        turned = torch.stack([-x[:, 1], x[:, 0]], 1)
        angle = (turned * dx).sum(1, keepdim=True)
        return torch.cos(angle) * x + torch.sin(angle) * turned

    def sample_prior(
        self, shape: Any, *, generator: Any = None, device: Any = None, dtype: Any = None
    ) -> Tensor:
        z = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        return z / z.norm(dim=1, keepdim=True)


def test_a_process_of_ones_own_with_a_retraction() -> None:
    """Data at (1, 0): the score in the plane is the slope of the wrapped normal, turned."""
    process = Circle(t_min=0.05)
    assert retraction(process) is not None and retraction(srk.VP()) is None

    def score(x: Tensor, t: Tensor) -> Tensor:
        angle = torch.atan2(x[:, 1], x[:, 0])
        slope = heat.circle_slope(angle, t)[:, None]
        return slope * torch.stack([-x[:, 1], x[:, 0]], 1)

    sol = srk.solve(
        process,
        score,
        "euler-maruyama",
        shape=(N, 2),
        steps=400,
        seed=0,
        grid=[4.0 * (0.05 / 4.0) ** (k / 400) for k in range(401)],
    )
    assert torch.allclose(sol.x.norm(dim=1), torch.ones(N), atol=1e-4)
    assert close(sol.x[:, 0], math.exp(-0.025))
    with pytest.raises(IncompatibleError, match="curved space"):
        srk.solve(process, score, "sra1", shape=(3, 2), steps=4)


def test_parts_of_a_product_are_their_own_runs() -> None:
    product = srk.Product(place=srk.EDM(), turn=SO3, torsions=TORUS)
    place = srk.targets.Gaussian(0.5, 0.04, event_shape=(3,))
    score = srk.scores.Independent(
        place=place.score(product.parts["place"]),
        turn=POINTS.score(SO3),
        torsions=ANGLES.score(TORUS),
    )
    shape = {"place": (5, 3), "turn": (5, 3), "torsions": (5, 1)}
    options: dict[str, Any] = {"nfe": 12, "save": "x"}
    sol = srk.solve(product, score, "euler-maruyama", shape=shape, seed=4, **options)
    for name, part in product.parts.items():
        alone = srk.solve(
            part,
            score.parts[name],
            "euler-maruyama",
            shape=shape[name],
            seed=part_seed(4, name),
            **options,
        )
        assert torch.equal(sol.x[name], alone.x)
    assert sol.steps == {"place": 11, "turn": 12, "torsions": 12}
    assert sol.nfe == 12


def test_each_plan_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run and its repetition with the same plans, and of their network's repeated steps."""
    from srk._engine import retract

    checked: list[StepPlan] = []

    def counted(plan: StepPlan, *given: Any) -> Any:
        checked.append(plan)
        return check_increments(plan, *given)

    monkeypatch.setattr(retract, "check_increments", counted)
    process = srk.Torus(sigma_min=0.11, sigma_max=5.0)  # of no other test
    score = ANGLES.score(process)
    sampler = srk.Sampler(process, score, "euler-maruyama", steps=7)
    for grad in (False, True, "checkpoint"):
        sol = sampler((4, 1), seed=0, grad=grad)
        assert sol.steps == 7
    assert len(checked) == len({id(plan) for plan in checked}) == 7
