"""heun, dpm2 and the churned samplers of EDM."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import srk
from srk.analysis import gaussian_distribution, gaussian_kl
from srk.errors import IncompatibleError
from srk.integrators import EDMDPM2, Column, EDMEuler, EDMHeun, Integrator
from srk.integrators.edm import LARGEST_GAMMA
from srk.sampling.planning import plan_grid
from srk.steps import Decision, Report, StepController

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
VP = srk.VP()


@pytest.mark.parametrize("solver", ["heun", "dpm2"])
@pytest.mark.parametrize("process", [EDM, VP])
def test_order_two_of_the_ode(process: srk.LinearProcess, solver: str) -> None:
    """KL slope -4."""
    kl = [gaussian_kl(solver, process, variance=[0.2, 1.0], steps=n) for n in (128, 256)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-4.0, abs=0.15)


@pytest.mark.parametrize(
    ("solver", "slope"), [("edm-heun", -4.0), ("edm-dpm2", -4.0), ("edm-euler", -2.0)]
)
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("process", [EDM, VP])
def test_weak_orders(process: srk.LinearProcess, solver: str, slope: float, eta: float) -> None:
    """Churn keeps the distribution exactly, so that the weak order is that of the ODE step."""
    kl = [gaussian_kl(solver, process, variance=[0.2, 1.0], steps=n, eta=eta) for n in (192, 384)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(slope, abs=0.15)


@pytest.mark.parametrize(
    ("churned", "plain"), [("edm-heun", "heun"), ("edm-dpm2", "dpm2"), ("edm-euler", "ddim")]
)
def test_without_churn_they_are_the_ode_methods(churned: str, plain: str) -> None:
    """At eta = 0 nothing is drawn and the distribution is that of the ODE method.

    So it is with S_churn = 0 at any eta.
    """
    ode = gaussian_distribution(plain, VP, 0.3, 0.5, steps=10, eta=0.0)
    still = {"edm-heun": EDMHeun, "edm-dpm2": EDMDPM2, "edm-euler": EDMEuler}[churned](s_churn=0.0)
    for law in (
        gaussian_distribution(churned, VP, 0.3, 0.5, steps=10, eta=0.0),
        gaussian_distribution(still, VP, 0.3, 0.5, steps=10),
    ):
        assert law.variance == pytest.approx(ode.variance, rel=1e-12)
        assert law.mean == pytest.approx(ode.mean, rel=1e-12)


def _hats(
    solver: Integrator, process: srk.LinearProcess, times: list[float], eta: float = 1.0
) -> list[float]:
    """1 + gamma of each step: where the first evaluation lies, over the start."""
    return [
        plan.stages[0].level.r / plan.start.r for plan in plan_grid(process, solver, times, eta)
    ]


TIMES = [80.0, 20.0, 5.0, 1.0, 0.2, 0.05, 0.01]


def test_gamma_of_algorithm_2() -> None:
    """gamma = min(S_churn/N, sqrt2 - 1) between S_min and S_max, else 0; eta scales its square."""
    assert _hats(EDMHeun(s_churn=1.2), EDM, TIMES) == pytest.approx([1.2] * 6, rel=1e-13)
    assert _hats(EDMHeun(s_churn=40.0), EDM, TIMES) == pytest.approx(
        [math.sqrt(2.0)] * 6, rel=1e-13
    )
    assert _hats(EDMHeun(s_churn=1.2, s_min=0.2, s_max=5.0), EDM, TIMES) == pytest.approx(
        [1, 1, 1.2, 1.2, 1.2, 1], rel=1e-13
    )
    assert _hats(EDMHeun(s_churn=1.2), EDM, TIMES, eta=0.5) == pytest.approx([1.05] * 6, rel=1e-13)


def test_gamma_that_follows_from_eta() -> None:
    """Without S_churn, gamma = eta^2 h, cut at sqrt2 - 1.

    A step to sigma = 0 is the denoiser without churn.
    """
    process = srk.EDM(sigma_min=0.0)
    times = [1.0, math.exp(-0.1), math.exp(-0.4), math.exp(-1.4), 0.0]
    assert _hats(EDMHeun(), process, times) == pytest.approx(
        [1.1, 1.3, 1 + LARGEST_GAMMA, 1.0], rel=1e-13
    )
    assert _hats(EDMHeun(), process, times, eta=0.5) == pytest.approx(
        [1.025, 1.075, 1.25, 1.0], rel=1e-13
    )


def test_s_churn_that_is_eta_1() -> None:
    """On a log-SNR grid S_churn = log(r_max/r_min) is the churn that eta = 1 gives."""
    total = math.log(80.0 / 0.01)
    assert gaussian_kl(EDMHeun(s_churn=total), EDM, steps=64) == pytest.approx(
        gaussian_kl("edm-heun", EDM, steps=64), rel=1e-9
    )


def test_above_the_range() -> None:
    """EDM goes on above sigma_max, as Algorithm 2 does.

    On VP churn stops at t_max, and there is none where a step starts there.
    """
    assert _hats(EDMHeun(s_churn=1.2), EDM, TIMES)[0] == pytest.approx(1.2)
    assert plan_grid(EDM, EDMHeun(s_churn=1.2), TIMES)[0].stages[0].level.t == pytest.approx(96.0)
    near = VP.time(VP.level(VP.t_max).lam + 0.05)
    ratios = _hats(EDMHeun(s_churn=1.0), VP, [VP.t_max, near, 0.5, 0.2, 0.1])
    assert ratios[0] == 1.0
    assert ratios[1] == pytest.approx(math.exp(0.05), rel=1e-9)
    assert ratios[2] == pytest.approx(1.25, rel=1e-12)


def test_churn_noise_in_units_of_x() -> None:
    """The input of the first evaluation is x plus S_noise times the noise that is missing, also
    on VP, where the state is scaled too.
    """
    plan = plan_grid(VP, EDMHeun(s_churn=0.2, s_noise=1.01), [0.5, 0.3])[0]
    hat, start = plan.stages[0].level, plan.start
    row = dict(plan.stages[0].row)
    assert row[Column("x")] == pytest.approx(hat.alpha / start.alpha, rel=1e-13)
    assert row[Column("z", 0)] == pytest.approx(
        1.01 * hat.alpha * math.sqrt(hat.r**2 - start.r**2), rel=1e-12
    )


def test_s_churn_needs_a_number_of_steps() -> None:
    """A controller that decides as it goes cannot spread S_churn.

    The error says what can be done, and eta alone works.
    """

    class Halving(StepController):
        name = "halving"

        def first(self, problem: object) -> tuple[float, float]:
            return 80.0, 40.0

        def next(self, report: Report) -> Decision:
            return Decision(True, report.stop / 2 if report.stop > 0.1 else None)

    target = srk.targets.Gaussian(0.0, 1.0)
    run: Callable[[Integrator], object] = lambda solver: srk.solve(  # noqa: E731
        EDM, target.score(EDM), solver, shape=(4, 1), grid=Halving(), seed=0
    )
    with pytest.raises(IncompatibleError, match="leave s_churn out"):
        run(EDMHeun(s_churn=10.0))
    assert torch.isfinite(run(EDMHeun()).x).all()  # type: ignore[attr-defined]


def test_options_are_checked() -> None:
    """S_churn and the bounds are not negative."""
    for bad in ({"s_churn": -1.0}, {"s_min": -1.0}, {"s_noise": 0.0}):
        with pytest.raises(ValueError):
            EDMHeun(**bad)


def test_euler_is_eulers_method_for_the_ode() -> None:
    """`euler` is what the field calls Euler.

    U' = u + (r' - r)(u - D)/r, deterministic, DDIM's step.
    """
    process = srk.process("flow")
    target = srk.targets.Gaussian(0.3, [0.25])
    sampler = srk.Sampler(process, target.score(process), "euler", steps=7, grid="uniform")
    assert sampler.eta == 0.0
    x = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sol = sampler(x_init=x)
    for start, stop in zip(sol.times[:-1], sol.times[1:], strict=True):
        level = process.level(start)
        velocity = (x - target.denoise(x, level)) / start  # x = (1 - t) x0 + t eps
        x = x + (stop - start) * velocity
    last = process.level(sol.times[-1])
    assert torch.allclose(sol.x, target.denoise(x, last), rtol=0, atol=1e-12)
    ddim = srk.Sampler(process, target.score(process), "ddim", steps=7, grid="uniform", eta=0.0)
    assert torch.allclose(
        ddim(x_init=torch.ones(2, 1).double()).x, sampler(x_init=torch.ones(2, 1).double()).x
    )
    with pytest.raises(srk.errors.IncompatibleError, match="eta = 0 only"):
        srk.solve(process, target.score(process), "euler", shape=2, steps=3, eta=1.0)
