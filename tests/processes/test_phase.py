"""Phase-space processes.

Transitions against matrix exponentials, the kernel, the sufficient statistic, and what is refused.
"""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import srk
from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.processes import CLD, PhaseProcess
from srk.processes.differentiate import derivative
from srk.processes.kernel import mix
from srk.processes.linear_flow import linear_flow

pytestmark = pytest.mark.filterwarnings("error")


@attrs.frozen
class Chain(PhaseProcess):
    """Three components (third-order Langevin dynamics) with a rate that grows.

    Noise enters the last one. Everything by default methods.
    """

    name = "chain"
    components = 3
    t_min: float = 0.05
    t_max: float = 2.0
    auxiliary_variance = (0.1, 0.2)

    def drift_matrix(self, t: float) -> Any:
        return (1.0 + t) * np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [0.0, -2.0, -3.0]])

    def diffusion(self, t: float) -> Any:
        return math.sqrt(6.0 * (1.0 + t)) * np.diag([0.0, 0.0, 1.0])


PROCESSES = [CLD(), CLD(beta=2.0, mass=1.0, velocity_scale=1.0, t_max=3.0), Chain()]


def van_loan(f: Any, s: Any, length: float) -> tuple[Any, Any]:
    """Transition and noise covariance of constant coefficients, from matrix exponentials.

    They go an eighth of the way each, for the inverse in them loses digits.
    """
    k = len(f)
    block = expm(np.block([[-f, s], [np.zeros((k, k)), f.T]]) * (length / 8))
    psi = block[k:, k:].T
    q = psi @ block[:k, k:]
    for _ in range(3):
        psi, q = psi @ psi, psi @ q @ psi.T + q
    return psi, q


@pytest.mark.parametrize("process", PROCESSES[:2], ids=["paper", "other"])
@pytest.mark.parametrize("length", [1e-2, 0.1, 0.7])
def test_cld_transition_is_the_matrix_exponential(process: CLD, length: float) -> None:
    g = process.diffusion(0.0)
    psi, q = process.transition(0.2, 0.2 + length)
    psi1, q1 = van_loan(process.drift_matrix(0.0), g @ g.T, length)
    np.testing.assert_allclose(psi, psi1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(q, q1, rtol=0, atol=1e-13)


def test_cld_covariance_keeps_its_digits_in_short_steps() -> None:
    """Q_xx = (2 Gamma/(3 M^2)) B^3 - ..., where a difference of O(1) numbers has no digit left.

    The series in B has four terms here.
    """
    process = CLD()
    b, m, gamma = 4e-6, process.mass, process.friction
    kappa = 1 / math.sqrt(m)
    integral = b**3 / 3 - 2 * kappa * b**4 / 4 + (2 * kappa) ** 2 * b**5 / 10
    assert process.transition(0.3, 0.3 + 1e-6)[1][0, 0] == pytest.approx(
        2 * gamma / m**2 * integral, rel=1e-9
    )
    assert process.transition(0.3, 0.3)[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_cld_is_critically_damped_and_approaches_its_equilibrium() -> None:
    process = CLD(t_max=4.0)
    assert process.friction**2 == 4 * process.mass
    rates = np.linalg.eigvals(process.drift_matrix(0.0))
    np.testing.assert_allclose(
        rates, -process.beta / math.sqrt(process.mass), rtol=1e-6
    )  # a double one
    np.testing.assert_allclose(process.kernel(4.0).covariance, process.equilibrium, atol=1e-10)
    psi, q = process.transition(0.0, 0.37)
    np.testing.assert_allclose(
        psi @ process.equilibrium @ psi.T + q, process.equilibrium, atol=1e-14
    )


def test_default_transition_agrees_with_the_closed_form_and_with_an_ode_solver() -> None:
    for start, stop in ((0.0, 1e-3), (0.0, 1.0), (0.4, 0.41)):
        for a, b in zip(
            CLD().transition(start, stop), PhaseProcess.transition(CLD(), start, stop), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    chain = Chain()

    def rhs(t: float, y: Any) -> Any:
        psi, q = y.reshape(2, 3, 3)
        f, g = chain.drift_matrix(t), chain.diffusion(t)
        return np.concatenate([f @ psi, f @ q + q @ f.T + g @ g.T]).ravel()

    psi, q = (
        solve_ivp(
            rhs,
            (0.3, 1.7),
            np.concatenate([np.eye(3), np.zeros((3, 3))]).ravel(),
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
        )
        .y[:, -1]
        .reshape(2, 3, 3)
    )
    for a, b in zip(chain.transition(0.3, 1.7), (psi, q), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


def test_transitions_compose() -> None:
    for process in PROCESSES:
        (p1, q1), (p2, q2), (p, q) = (
            process.transition(0.1, 0.4),
            process.transition(0.4, 0.9),
            process.transition(0.1, 0.9),
        )
        np.testing.assert_allclose(p2 @ p1, p, atol=1e-13)
        np.testing.assert_allclose(p2 @ q1 @ p2.T + q2, q, atol=1e-13)


def test_linear_flow_runs_backwards_too() -> None:
    """There and back.

    The flows are inverse, what the response does is undone, and the noise is added both ways.
    """
    m, s, b = (
        np.array([[-0.5, 2.0], [-2.0, 0.1]]),
        np.array([[1.0, 0.3], [0.3, 0.5]]),
        np.array([1.0, -2.0]),
    )
    phi, noise, q = linear_flow(lambda t: (m, s, b), 2, 0.2, 1.1)
    back, noise1, q1 = linear_flow(lambda t: (m, s, b), 2, 1.1, 0.2)
    np.testing.assert_allclose(back @ phi, np.eye(2), atol=1e-13)
    np.testing.assert_allclose(back @ q + q1, 0.0, atol=1e-12)
    np.testing.assert_allclose(phi, expm(0.9 * m), atol=1e-13)
    np.testing.assert_allclose(noise, van_loan(m, s, 0.9)[1], atol=1e-13)
    np.testing.assert_allclose(noise1, van_loan(-m, s, 0.9)[1], atol=1e-13)


@pytest.mark.parametrize("process", PROCESSES, ids=["paper", "other", "chain"])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 1.0])
def test_the_statistic_knows_all_that_the_state_knows_of_the_data(
    process: PhaseProcess, fraction: float
) -> None:
    """In the coordinates (m, xi) the kernel is N(x0, rho^2) times N(0, I).

    M is sufficient, xi ancillary.
    """
    t = process.t_min + fraction * (process.t_max - process.t_min)
    kernel = process.kernel(t)
    psi, q = process.transition(0.0, t)
    initial = np.diag([0.0, *process.auxiliary_variance])
    np.testing.assert_allclose(kernel.covariance, psi @ initial @ psi.T + q, rtol=1e-13)
    read = np.vstack([kernel.reading, kernel.rest])
    np.testing.assert_allclose(read @ kernel.mean, np.eye(process.components)[0], atol=1e-10)
    expected = np.diag([kernel.rho**2] + [1.0] * (process.components - 1))
    np.testing.assert_allclose(
        read @ kernel.covariance @ read.T, expected, rtol=1e-8, atol=1e-10 * kernel.rho
    )
    np.testing.assert_allclose(
        np.column_stack([kernel.mean, kernel.complement]) @ read,
        np.eye(process.components),
        atol=1e-8,
    )


def test_levels_are_those_of_the_statistic() -> None:
    for process in PROCESSES:
        process.validate()
        statistic = process.statistic
        statistic.validate()
        for t in (process.t_min, 0.4, process.t_max):
            level = process.level(t)
            assert level == statistic.level(t) and level.alpha == 1.0
            assert level.sigma == pytest.approx(process.kernel(t).rho, rel=1e-13)
            assert process.time(process.lam(t)) == pytest.approx(t, rel=1e-12)
            exact = derivative(
                lambda s, p=statistic: float(p.lam(s)), t, process.t_min, process.t_max
            )
            assert statistic.lam_rate(t) == pytest.approx(exact, rel=1e-8)
        assert process.level_at(0.3).sigma == pytest.approx(math.exp(-0.3), rel=1e-12)
        np.testing.assert_allclose(
            process.lam(np.array([0.3, 0.6])), [process.lam(0.3), process.lam(0.6)]
        )


def test_the_end_without_noise() -> None:
    process = CLD(t_min=0.0)
    process.validate()
    assert process.level(0.0).sigma == 0.0 and process.lam(0.0) == math.inf
    kernel = process.kernel(0.0)
    assert kernel.mean.tolist() == [1.0, 0.0] and kernel.complement.tolist() == [[0.0], [0.1]]


def test_perturb_and_prior_have_their_moments() -> None:
    n = 200_000
    for process in (CLD(), Chain()):
        k, kernel = process.components, process.kernel(0.5)
        x0 = torch.full((n, 1), 3.0, dtype=torch.float64)
        z = process.perturb(x0, 0.5, generator=torch.Generator().manual_seed(1))
        assert z.shape == (n, k, 1) and z.dtype == torch.float64 and bool(x0.eq(3.0).all())
        std = np.sqrt(np.diag(kernel.covariance))
        assert np.all(np.abs(z.mean(0)[:, 0].numpy() - 3.0 * kernel.mean) < 5 * std / math.sqrt(n))
        np.testing.assert_allclose(
            np.cov(z[:, :, 0].numpy().T) / np.outer(std, std),
            kernel.covariance / np.outer(std, std),
            atol=5 * math.sqrt(2 / n),
        )
        z = process.sample_prior(
            (n, k, 1), generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        prior = process.kernel(process.t_max).covariance
        np.testing.assert_allclose(
            np.cov(z[:, :, 0].numpy().T), prior, atol=5 * math.sqrt(2 / n) * prior.max()
        )


def test_drift_and_mix_act_on_components() -> None:
    z = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert torch.allclose(
        mix(matrix, z), torch.einsum("ij,bjcd->bicd", torch.from_numpy(matrix), z)
    )
    process = CLD()
    drift = process.drift(0.5, z)
    assert torch.allclose(drift[:, 0], process.beta / process.mass * z[:, 1])
    assert torch.allclose(
        drift[:, 1], -process.beta * (z[:, 0] + process.friction / process.mass * z[:, 1])
    )


def test_what_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"velocity_scale < 2, not .* usual values are 4, 0\.25 and 0\.04"
    ):
        CLD(velocity_scale=0.0)
    with pytest.raises(
        ArgumentError, match=r"shape \(batch, 2, \*event\).*use shape=\(batch, 2, 3, 32, 32\)"
    ):
        srk.solve(CLD(), lambda z, t: -z, shape=(4, 3, 32, 32))
    with pytest.raises(TimeError, match="outside the range"):
        CLD().level(1.1)

    class Silent(CLD):
        def diffusion(self, t: float) -> Any:
            return np.zeros((2, 2))

        transition = PhaseProcess.transition

    with pytest.raises(ArgumentError, match="noise must reach every component"):
        Silent().validate()

    class Flat(CLD):
        def diffusion(self, t: float) -> Any:
            return 1.0

    with pytest.raises(ArgumentError, match="must be a finite 2 x 2 array"):
        Flat().validate()

    class Short(CLD):
        auxiliary_variance = ()

    with pytest.raises(ArgumentError, match="must hold 1 variances"):
        Short().validate()

    class Single(CLD):
        components = 1

    with pytest.raises(
        ArgumentError, match=r"at least two components, not 1; .* srk\.LinearProcess"
    ):
        Single().validate()

    class Changing(CLD):
        __hash__ = None  # as attrs.define leaves it

    with pytest.raises(ArgumentTypeError, match=r"make Changing an attrs\.frozen class"):
        Changing().validate()


def test_processes_are_values() -> None:
    for process in PROCESSES:
        for twin in (copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
            assert (
                twin == process
                and hash(twin) == hash(process)
                and twin.statistic == process.statistic
            )
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            process.t_max = 2.0
    assert srk.process("cld", mass=1.0) == CLD(mass=1.0)
    assert (
        srk.processes.statistic(CLD()) == CLD().statistic
        and srk.processes.statistic(srk.VP()) == srk.VP()
    )


def test_kernels_of_a_learned_process_follow_its_numbers() -> None:
    class Learned(PhaseProcess):
        name, t_min, t_max = "learned", 1e-2, 1.0
        auxiliary_variance = (0.01,)

        def __init__(self) -> None:
            self.rate = torch.nn.Parameter(torch.tensor(4.0))

        def drift_matrix(self, t: float) -> np.ndarray:
            beta = self.rate.item()
            return beta * np.array([[0.0, 4.0], [-1.0, -4.0]])

        def diffusion(self, t: float) -> np.ndarray:
            return np.array([[0.0, 0.0], [0.0, math.sqrt(2.0 * self.rate.item())]])

    process, other = Learned(), Learned()
    first = process.kernel(0.5).covariance
    np.testing.assert_array_equal(process.kernel(0.5).covariance, first)
    with torch.no_grad():
        process.rate.fill_(2.0)
        other.rate.fill_(2.0)
    changed = process.kernel(0.5).covariance
    assert abs(changed - first).max() > 1e-3
    np.testing.assert_array_equal(changed, other.kernel(0.5).covariance)
    # halving the rate is halving the time
    fresh = Learned().kernel(0.25).covariance
    np.testing.assert_allclose(changed, fresh, rtol=1e-10)
