"""Solvers in phase space.

The exact conditional flow, distributions and orders, and scalar plans lifted through the statistic.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import kstest

import srk
from srk._engine.eager import Executor
from srk._engine.rows import add_mixed
from srk.analysis import gaussian_distribution
from srk.integrators import GDDIM, SRK2S, SSCS, LinearForm, Matrix, Step
from srk.noise.basis import BasisNoise
from srk.plans.form import row_of
from srk.plans.phase import factor
from srk.plans.plan import STATE, Column
from srk.sampling.planning import plan_grid

pytestmark = pytest.mark.filterwarnings("error")

PROCESS = srk.CLD()
ENDS = [(0.9, 0.6), (0.31, 0.3), (0.01, 0.002), (1.0, 0.01)]


# -- matrices
# ------------------------------------------------------------


def test_matrix_arithmetic_is_that_of_arrays() -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, -1.0], [2.0, 0.0]])
    A, B = Matrix.of(a), Matrix.of(b)
    assert (
        Matrix.of(a + b) == A + B
        and Matrix.of(a @ b) == A @ B
        and A * 2.0 == 2.0 * A == Matrix.of(2 * a)
    )
    assert A + 1.0 == 1.0 + A == Matrix.of(a + np.eye(2))  # a number is a multiple of the identity
    assert Matrix.of(3.0 * np.eye(2)).simplify() == 3.0 and A.simplify() is A
    x, e = LinearForm({STATE: 1.0}), LinearForm({Column("E", 0): 2.0})
    form = ((x * a + e) * b - x * 0.5) * 2.0
    assert form.terms[STATE] == Matrix.of(2 * (b @ a - 0.5 * np.eye(2))) and form.terms[
        Column("E", 0)
    ] == Matrix.of(4 * b)
    assert row_of(x * a - x * a) == ()
    assert row_of(x * (2.0 * np.eye(2))) == ((STATE, 2.0),)


def test_a_matrix_acts_on_the_component_axis() -> None:
    generator = torch.Generator().manual_seed(0)
    total, source = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    matrix = [[1.5, 0.0], [-2.0, 0.25]]
    expected = total + torch.einsum("ij,bjcd->bicd", torch.tensor(matrix).double(), source)
    add_mixed(total, source, Matrix.of(matrix))
    assert torch.allclose(total, expected, rtol=1e-14)


@pytest.mark.parametrize("reuse", [True, False])
def test_rows_with_matrices_leave_buffers_right(reuse: bool) -> None:
    """A two-stage multistep plan run on tensors against the same linear algebra on arrays, with
    every buffer policy.
    """
    process, target = PROCESS, srk.targets.Gaussian(0.5, 0.3)
    plans = plan_grid(process, srk.solvers()["dpmpp-sde"], [1.0, 0.7, 0.5, 0.2, 0.1])
    score = target.score(process)
    executor = Executor(
        lambda x, stage: score.denoise(x, stage.level, process), BasisNoise(-1), reuse=reuse
    )
    z = torch.randn(6, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    state, reference = z.clone(), z.clone()
    for plan in plans:
        begun = state.clone()
        outcome = executor.run(plan, state, [])
        if not reuse:
            assert torch.equal(state, begun)
        state = outcome.state
        values = {STATE: reference}

        def apply(row: object, values: dict = values) -> torch.Tensor:
            total = torch.zeros_like(z)
            for column, value in row:  # type: ignore[attr-defined]
                if column.kind != "z":
                    matrix = torch.from_numpy(
                        np.array(value.rows) if isinstance(value, Matrix) else value * np.eye(2)
                    )
                    total = total + torch.einsum("ij,bjc->bic", matrix, values[column])
            return total

        for i, stage in enumerate(plan.stages):
            values[Column("X", i)] = apply(stage.row)
            values[Column("E", i)] = score.denoise(values[Column("X", i)], stage.level, process)
        reference = apply(plan.update)
    assert torch.allclose(state, reference, rtol=1e-12)


# -- the exact conditional flow
# ------------------------------------------------------------


@pytest.mark.parametrize("ends", ENDS)
def test_the_reverse_sde_with_known_data_is_the_gaussian_posterior(
    ends: tuple[float, float],
) -> None:
    """eta = 1.

    The gain C' Psi^T C^-1 and the covariance of z' given z and x0, by conditioning Gaussians.
    """
    start, stop = PROCESS.level(ends[0]), PROCESS.level(ends[1])
    phi, noise, _ = PROCESS.flow_given_data(start, stop, 1.0)
    c0, c1 = PROCESS.kernel(start.t).covariance, PROCESS.kernel(stop.t).covariance
    psi, q = PROCESS.transition(stop.t, start.t)
    gain = c1 @ psi.T @ np.linalg.inv(c0)
    joint = (np.eye(2) - gain @ psi) @ c1 @ (np.eye(2) - gain @ psi).T + gain @ q @ gain.T
    np.testing.assert_allclose(phi, gain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(noise, joint, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_every_eta_keeps_the_law_given_the_data(ends: tuple[float, float], eta: float) -> None:
    start, stop = PROCESS.level(ends[0]), PROCESS.level(ends[1])
    phi, noise, _ = PROCESS.flow_given_data(start, stop, eta)
    c0, c1 = PROCESS.kernel(start.t).covariance, PROCESS.kernel(stop.t).covariance
    np.testing.assert_allclose(phi @ c0 @ phi.T + noise, c1, rtol=1e-9, atol=1e-12)
    if eta == 0.0:
        assert not noise.any()
    scale = np.sqrt(np.diag(c1))
    lower = factor(noise)
    assert lower[0, 1] == 0.0
    np.testing.assert_allclose((lower @ lower.T - noise) / np.outer(scale, scale), 0.0, atol=1e-13)


def test_eta_zero_is_the_step_of_the_gddim_paper() -> None:
    """z' = Psi z + [int (1/2) Psi(t', tau) G G^T R_tau^-T dtau] eps with eps = R^-1 (z - a D) and
    dR/dt = (F + (1/2) G G^T C^-1) R, by an ODE solver.

    The paper's eq. 21 and 17; the integral is a column of the same system.
    """
    start, stop = PROCESS.level(0.6), PROCESS.level(0.35)
    f, g = PROCESS.drift_matrix(0.0), PROCESS.diffusion(0.0)
    half = 0.5 * g @ g.T

    def grow(t: float, y: np.ndarray) -> np.ndarray:
        return ((f + half @ np.linalg.inv(PROCESS.kernel(t).covariance)) @ y.reshape(2, 2)).ravel()

    r0 = np.linalg.cholesky(PROCESS.kernel(0.05).covariance)
    r = solve_ivp(
        grow, (0.05, 0.6), r0.ravel(), method="DOP853", rtol=1e-12, atol=1e-14, dense_output=True
    ).sol

    def back(t: float, y: np.ndarray) -> np.ndarray:
        psi, integral = y.reshape(2, 2, 2)
        return np.concatenate(
            [f @ psi, f @ integral + half @ np.linalg.inv(r(t).reshape(2, 2)).T]
        ).ravel()

    solution = solve_ivp(
        back,
        (0.6, 0.35),
        np.concatenate([np.eye(2), np.zeros((2, 2))]).ravel(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
    )
    psi, integral = solution.y[:, -1].reshape(2, 2, 2)
    inverse, a = np.linalg.inv(r(0.6).reshape(2, 2)), PROCESS.kernel(0.6).mean
    plan = GDDIM(order=1).plan_step(Step(PROCESS, start, stop, eta=0.0))
    row = dict(plan.update)
    np.testing.assert_allclose(row[STATE].rows, psi + integral @ inverse, atol=1e-9)
    np.testing.assert_allclose(
        np.array(row[Column("E", 0)].rows)[:, 0], -integral @ inverse @ a, atol=1e-9
    )
    assert plan.slots == ()


def test_the_statistic_of_the_reverse_sde_is_a_scalar_reverse_sde() -> None:
    """Frozen at D, the statistic of the exact posterior step moves as in DDPM of the scalar
    process, whatever the rest of the state is.
    """
    for ends in ENDS:
        start, stop = PROCESS.level(ends[0]), PROCESS.level(ends[1])
        row = dict(GDDIM(order=1).plan_step(Step(PROCESS, start, stop)).update)
        scalar = dict(srk.solvers()["ddpm"].plan_step(Step(PROCESS.statistic, start, stop)).update)
        before, after = PROCESS.kernel(start.t).reading, PROCESS.kernel(stop.t).reading
        np.testing.assert_allclose(
            after @ row[STATE].rows,
            scalar[STATE] * before,
            rtol=1e-6,
            atol=1e-9 * np.abs(before).max(),
        )
        assert after @ np.array(row[Column("E", 0)].rows)[:, 0] == pytest.approx(
            scalar[Column("E", 0)], rel=1e-7
        )
        assert np.linalg.norm(after @ row[Column("z", 0)].rows) == pytest.approx(
            scalar[Column("z", 0)], rel=1e-7
        )


# -- distributions and orders
# ------------------------------------------------------------


def slope(solver: object, eta: float, steps: int = 100) -> float:
    """Of the exact KL in the number of steps: -2 for order 1, -4 for order 2."""
    kl = [
        gaussian_distribution(solver, PROCESS, 0.5, [0.3, 0.02], steps=n, eta=eta).kl
        for n in (steps, 2 * steps)
    ]  # type: ignore[arg-type]
    return math.log2(kl[1] / kl[0])


@pytest.mark.parametrize(
    ("solver", "eta", "expected"),
    [
        (GDDIM(order=1), 1.0, -2),
        (GDDIM(order=1), 0.0, -2),
        (GDDIM(), 1.0, -4),
        (GDDIM(), 0.5, -4),
        (GDDIM(), 0.0, -4),
        (SSCS(), 1.0, -2),
        ("euler-maruyama", 1.0, -2),
        ("sra1", 1.0, -4),
        ("ddpm", 1.0, -2),
        ("dpmpp-2m-sde", 1.0, -4),
    ],
)
def test_orders(solver: object, eta: float, expected: float) -> None:
    assert slope(solver, eta) == pytest.approx(expected, abs=0.3)


def test_known_data_make_the_exponential_step_exact() -> None:
    """One step over nearly the whole range, data of variance 1e-10.

    What is left is the kernel N(a m, C).
    """
    for eta in (0.0, 0.7, 1.0):
        for order in (1, 2):
            law = gaussian_distribution(
                GDDIM(order=order), PROCESS, 2.0, 1e-10, grid=[1.0, 0.4, 0.05], eta=eta
            )
            assert law.kl < 1e-12


@pytest.mark.parametrize(
    "solver", ["srk2m", "srk2s", "dpmpp-3m-sde", "sa-solver", "etd-sra1", "ddpm"]
)
@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_a_lifted_solver_has_the_law_of_the_scalar_one(solver: str, eta: float) -> None:
    """The position is a m + d xi with m as the scalar solver makes it and xi ~ N(0, 1)
    independent of it.
    """
    law = gaussian_distribution(solver, PROCESS, 0.5, [0.3, 0.02], steps=12, eta=eta)
    scalar = gaussian_distribution(solver, PROCESS.statistic, 0.5, [0.3, 0.02], steps=12, eta=eta)
    end = PROCESS.kernel(PROCESS.t_min)
    np.testing.assert_allclose(law.mean, end.mean[0] * scalar.mean, rtol=1e-9)
    np.testing.assert_allclose(
        law.variance, end.mean[0] ** 2 * scalar.variance + end.complement[0, 0] ** 2, rtol=1e-9
    )
    assert law.nfe == scalar.nfe


@pytest.mark.parametrize("solver", ["srk2s", "seeds-3", "dpmpp-sde"])
def test_a_lifted_solver_calls_the_network_at_states_of_the_stage(solver: str) -> None:
    """Every stage input has its m from the scalar plan and the xi that the step started with, in
    the coordinates of its own noise level.
    """
    start, stop = PROCESS.level(0.5), PROCESS.level(0.3)
    lifted = srk.solvers()[solver].plan_step(Step(PROCESS, start, stop))
    scalar = srk.solvers()[solver].plan_step(Step(PROCESS.statistic, start, stop))
    begun = PROCESS.kernel(start.t)
    rows = [(a.row, b.row, a.level) for a, b in zip(lifted.stages, scalar.stages, strict=True)] + [
        (lifted.update, scalar.update, stop)
    ]
    assert len(rows) > 2
    for row, expected, level in rows:
        kernel, x = PROCESS.kernel(level.t), dict(row)[STATE]
        matrix = np.array(x.rows) if isinstance(x, Matrix) else x * np.eye(2)
        np.testing.assert_allclose(
            kernel.reading @ matrix, dict(expected).get(STATE, 0.0) * begun.reading, atol=1e-12
        )
        np.testing.assert_allclose(kernel.rest @ matrix, begun.rest, atol=1e-12)
        for column, value in row:
            if column.kind in "zE":
                assert not np.array(value.rows)[:, 1].any()  # type: ignore[union-attr]
                np.testing.assert_allclose(
                    kernel.reading @ np.array(value.rows)[:, 0], dict(expected)[column], atol=1e-12
                )  # type: ignore[union-attr]
                np.testing.assert_allclose(
                    kernel.rest @ np.array(value.rows)[:, 0], 0.0, atol=1e-12
                )  # type: ignore[union-attr]


def test_house_methods_are_exact_on_their_reference() -> None:
    """N(0, v) data: exact in one step, as for a scalar process."""
    assert gaussian_distribution(SRK2S(data_variance=0.25), PROCESS, 0.0, 0.25, steps=1).kl < 1e-18


def test_the_end_without_noise_is_the_denoiser() -> None:
    process = srk.CLD(t_min=0.0)
    for solver in ("srk2m", "gddim", "euler-maruyama", "sra1"):
        plan = plan_grid(process, srk.solvers()[solver], [1.0, 0.01, 0.0])[-1]
        row = dict(plan.update)
        assert plan.evaluations == 1 and plan.slots == ()
        assert row[Column("E", 0)].rows == ((1.0, 0.0), (0.0, 0.0))  # type: ignore[union-attr]
        assert row[STATE].rows[0] == (0.0, 0.0)  # type: ignore[union-attr]
        # v0 = sqrt(gamma M) xi
        np.testing.assert_allclose(row[STATE].rows[1], 0.1 * process.kernel(0.01).rest[0])


def test_the_prior_is_close_to_the_law_at_the_start() -> None:
    exact, prior = (
        gaussian_distribution("srk2m", PROCESS, 1.0, 0.5, steps=40, start=start).kl
        for start in ("exact", "prior")
    )
    assert exact < prior < 1e-4  # the mean of the data is a(1) = 3e-3 away


N = 20_000


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("srk2m", {"nfe": 40}),
        ("gddim", {"nfe": 100}),
        (GDDIM(), {"nfe": 100, "eta": 0.0}),
        (SSCS(), {"nfe": 200}),
        ("sra1", {"nfe": 200}),
        ("srk2s", {"grid": srk.steps.Adaptive(rtol=0.02, atol=0.02), "noise": "brownian"}),
    ],
    ids=["srk2m", "gddim", "gddim-ode", "sscs", "sra1", "adaptive"],
)
def test_positions_and_velocities_have_their_law(solver: object, options: dict) -> None:
    """A mixture, by Kolmogorov-Smirnov at the one-in-a-million level.

    The velocity is normal and its correlation with the position that of the kernel.
    """
    weights, means, stds = np.array([0.3, 0.7]), np.array([-1.0, 0.6]), np.array([0.2, 0.4])
    target = srk.targets.GaussianMixture(weights, means[:, None], stds)
    process = srk.CLD(t_min=0.02)
    grid = {} if "grid" in options else {"grid": "log-snr"}
    sol = srk.solve(
        process,
        target.score(process),
        solver,
        shape=N,
        seed=1,
        denoise_final=False,
        dtype=torch.float64,
        **grid,
        **options,
    )  # type: ignore[arg-type]
    x, v = sol.x[:, 0, 0].numpy(), sol.x[:, 1, 0].numpy()
    kernel = process.kernel(process.t_min)
    for i, values in enumerate((x, v)):
        end = srk.targets.GaussianMixture(
            weights,
            kernel.mean[i] * means[:, None],
            np.sqrt((kernel.mean[i] * stds) ** 2 + kernel.covariance[i, i]),
        )
        assert kstest(values, lambda q, end=end: end.cdf(q).numpy()).pvalue > 1e-6
    variance = float(weights @ stds**2 + weights @ means**2 - (weights @ means) ** 2)
    covariance = variance * np.outer(kernel.mean, kernel.mean) + kernel.covariance
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert np.corrcoef(x, v)[0, 1] == pytest.approx(expected, abs=5 / math.sqrt(N))


def test_three_components() -> None:
    """A chain of two auxiliary variables, with no closed form but its matrices.

    Raw, exponential and lifted solvers converge to the same distribution.
    """

    @attrs.frozen
    class Chain(srk.PhaseProcess):
        components = 3
        t_min: float = 0.1
        t_max: float = 3.0
        auxiliary_variance = (0.1, 0.2)

        def drift_matrix(self, t: float) -> np.ndarray:
            return (1.0 + t) * np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [0.0, -2.0, -3.0]])

        def diffusion(self, t: float) -> np.ndarray:
            return math.sqrt(6.0 * (1.0 + t)) * np.diag([0.0, 0.0, 1.0])

    process = Chain()
    assert gaussian_distribution("srk2m", process, 0.5, 0.3, steps=16).kl < 1e-3
    for solver in ("gddim", "sra1"):
        kl = [
            gaussian_distribution(solver, process, 0.5, 0.3, steps=n, grid="uniform").kl
            for n in (40, 80)
        ]
        assert kl[1] < 1e-3 and math.log2(kl[1] / kl[0]) < -3.0
    sol = srk.solve(
        process, srk.targets.Gaussian(0.5, 0.3).score(process), "srk2m", shape=10, nfe=10, seed=0
    )
    assert sol.x.shape == (10, 3, 1)


def test_what_is_refused() -> None:
    with pytest.raises(
        srk.errors.IncompatibleError,
        match=r"splits critically damped Langevin diffusion, srk\.CLD, .*use solver='srk2m' or "
        r"'ddpm'",
    ):
        srk.solve(srk.VP(), lambda x, t: -x, SSCS(), shape=(4, 1))
    with pytest.raises(srk.errors.IncompatibleError, match="defined for eta = 1 only"):
        srk.solve(PROCESS, lambda z, t: -z, SSCS(), shape=(4, 2, 1), eta=0.0)


def test_gddim_of_a_scalar_process_has_its_usual_name() -> None:
    vp = srk.VP()
    for order, twin in ((1, "ddpm"), (2, srk.integrators.DPMpp2MSDE(variant="heun"))):
        for eta in (0.0, 1.0):
            a, b = (
                gaussian_distribution(s, vp, 0.5, 0.3, steps=9, eta=eta)
                for s in (GDDIM(order=order), twin)
            )  # type: ignore[arg-type]
            assert a.variance == b.variance and a.mean == b.mean
