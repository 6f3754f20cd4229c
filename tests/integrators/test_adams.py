"""SA-Solver, UniPC and DEIS: exact distributions, orders, and where they equal each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import srk
from srk.analysis import gaussian_kl, weak_order
from srk.integrators import DEIS2, DEIS3, Integrator, SASolver, UniPC2, UniPC3
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)
SPECTRUM = np.logspace(-2, 0.5, 16)
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)


def run(
    solver: str | Integrator, process: srk.LinearProcess | None = None, **options: object
) -> torch.Tensor:
    """A run of 20 steps on a mixture, always with the same draws."""
    process = process or srk.VP()
    return srk.solve(
        process,
        TARGET.score(process),
        solver,
        shape=(4, 2),
        steps=20,
        seed=0,
        dtype=torch.float64,
        **options,
    ).x  # type: ignore[arg-type]


# -- SA-Solver
# ------------------------------------------------------------


@pytest.mark.parametrize(("nfe", "kl"), [(50, 7.4e-5), (100, 4.3e-6), (200, 2.7e-7)])
def test_sa_solver_on_a_spectrum(nfe: int, kl: float) -> None:
    """P3C4 on a 16-D Gaussian, eigenvalues logspace(-2, 0.5), mean 1, VP on a log-SNR grid:
    numerics.md, second suite.

    The note's values come from a run whose start and end are not recorded (at NFE 20 it has 1.6e-2,
    here 6.4e-3); these three agree to 13, 6 and 5 percent. A test decided: our steps are those of
    diffusers' SASolverScheduler to 4e-14 in float64 (tests/parity).
    """
    ours = gaussian_kl("sa-solver", srk.VP(), variance=SPECTRUM, mean=1.0, nfe=nfe)
    assert ours == pytest.approx(kl, rel=0.15)


def test_sa_solver_values() -> None:
    """Our own values on that suite, so that they do not change unseen."""
    kls = [
        gaussian_kl("sa-solver", srk.VP(), variance=SPECTRUM, mean=1.0, nfe=n)
        for n in (20, 50, 100, 200)
    ]
    assert kls == pytest.approx([6.382e-3, 6.472e-5, 4.062e-6, 2.580e-7], rel=1e-3)


@pytest.mark.parametrize(
    ("predictor", "corrector", "order"),
    [
        (1, 0, 1),
        (2, 1, 1),
        (2, 0, 2),
        (1, 2, 2),
        (3, 0, 2),
        (3, 4, 2),
        (4, 4, 2),
        (2, 2, 3),
        (3, 2, 3),
    ],
)
def test_weak_orders_of_sa_solver(predictor: int, corrector: int, order: int) -> None:
    """Weak order 2 at eta = 1 whatever the orders above 1.

    3 on linear problems with a corrector of order 2 and a predictor above 1.
    """
    solver = SASolver(predictor=predictor, corrector=corrector)
    measured = weak_order(solver, srk.VP(), steps=(128, 256, 512)).slope
    assert measured == pytest.approx(order, abs=0.15)
    assert solver.weak_order == min(order, 2)


@pytest.mark.parametrize(
    ("predictor", "corrector", "order"), [(1, 0, 1), (3, 2, 2), (2, 3, 3), (3, 4, 4)]
)
def test_orders_of_sa_solver_without_noise(predictor: int, corrector: int, order: int) -> None:
    """At eta = 0 the order is that of the corrector, here where the predictor is at most one
    below it.
    """
    solver = SASolver(predictor=predictor, corrector=corrector)
    measured = weak_order(solver, srk.VP(), steps=(128, 256, 512), eta=0.0).slope
    assert measured == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_sa_solver_of_order_1_is_ddpm(eta: float) -> None:
    """(1, 0) is exponential Euler, draw by draw."""
    ours, theirs = run(SASolver(predictor=1, corrector=0), eta=eta), run("ddpm", eta=eta)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_sa_solver_without_noise_is_unipc() -> None:
    """At eta = 0 (3, 4) is unipc-3, with few_steps to the last step its variant bh1.

    (2, 0) with few_steps is UniP-2 bh1.
    """
    assert torch.allclose(
        run(SASolver(few_steps=True), eta=0.0), run(UniPC3(variant="bh1")), rtol=1e-12, atol=1e-13
    )
    two = run(SASolver(predictor=2, corrector=0, few_steps=True), eta=0.0)
    assert torch.allclose(two, run(UniPC2(variant="bh1", corrector=False)), rtol=1e-12, atol=1e-13)


def test_tau() -> None:
    """tau as a function multiplies eta.

    An interval switches the noise off outside of it, draws included.
    """
    constant = run("sa-solver", eta=0.5)
    assert torch.equal(run(SASolver(tau=lambda r: 0.5), eta=1.0), constant)
    assert torch.equal(run(SASolver(tau=(0.0, 1e6)), eta=0.5), constant)
    process = srk.VP()
    plans = plan_grid(
        process, SASolver(tau=(0.1, 10.0)), [process.time(-5.0 + 0.45 * i) for i in range(21)]
    )
    assert [bool(plan.slots) for plan in plans] == [0.1 <= plan.start.r <= 10.0 for plan in plans]


@pytest.mark.parametrize(
    "options",
    [
        {"predictor": 0},
        {"predictor": 5},
        {"corrector": 5},
        {"corrector": True},
        {"tau": 0.5},
        {"tau": (2.0, 1.0)},
    ],
)
def test_sa_solver_refuses(options: dict[str, object]) -> None:
    with pytest.raises(srk.errors.ArgumentError):
        SASolver(**options)  # type: ignore[arg-type]


# -- UniPC and DEIS
# ------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "sigma_min", "order"),
    [
        (UniPC2(), 2.0, 3),
        (UniPC2(variant="bh1"), 0.5, 3),
        (UniPC2(corrector=False), 1.0, 2),
        (UniPC3(), 1.0, 4),
        (UniPC3(corrector=False), 1.0, 3),
        (DEIS2(), 1.0, 2),
        (DEIS3(), 1.0, 3),
    ],
    ids=lambda value: str(value) if isinstance(value, Integrator) else None,
)
def test_orders(solver: Integrator, sigma_min: float, order: int) -> None:
    """Order by the slope of the exact distribution; the corrector of UniPC adds one.

    The run ends at a noise as large as the data. Down to small noise the leading error of these
    methods, an integral over the run, all but vanishes on Gaussian data, and the slope is one too
    steep.
    """
    process = srk.EDM(sigma_min=sigma_min, sigma_max=500.0 * sigma_min)
    measured = weak_order(solver, process, variance=1.0, mean=0.0, steps=(64, 128, 256)).slope
    assert measured == pytest.approx(order, abs=0.15)
    assert solver.weak_order == order


def test_unip_2_is_dpmpp_2m() -> None:
    """The predictor alone, with bh2, is DPM-Solver++(2M)."""
    assert torch.allclose(run(UniPC2(corrector=False)), run("dpmpp-2m"), rtol=1e-12, atol=1e-13)


def test_one_call_a_step() -> None:
    """NFE of all of them: the correctors re-use the evaluation of the next step."""
    score = TARGET.score(srk.VP())
    for name in ("sa-solver", "unipc-2", "unipc-3", "deis-2", "deis-3"):
        assert (
            srk.solve(
                srk.VP(), score, name, shape=(2, 2), steps=11, seed=0, denoise_final=False
            ).nfe
            == 11
        )


@pytest.mark.parametrize("name", ["unipc-2", "unipc-3", "deis-2", "deis-3"])
def test_probability_flow_only(name: str) -> None:
    """The default eta of a run follows the solver.

    A stochastic run is refused, with the cure in the message.
    """
    assert run(name).isfinite().all()
    with pytest.raises(srk.errors.IncompatibleError, match="eta=0"):
        run(name, eta=1.0)


@pytest.mark.parametrize("name", ["sa-solver", "unipc-2", "unipc-3", "deis-2", "deis-3"])
@pytest.mark.parametrize(
    "process", [srk.Flow(t_min=0.0), srk.VPCosine(t_min=0.0), EDM], ids=lambda p: p.name
)
def test_starts_and_ends_at_the_limits(name: str, process: srk.LinearProcess) -> None:
    """From alpha = 0 to sigma = 0.

    The history starts after the first step, and nothing is infinite.
    """
    x = run(name, process)
    if name == "sa-solver":
        assert float(x.abs().max()) < 5.0
    else:  # the same ODE from the same state
        assert float((x - run("heun", process)).abs().max()) < 0.1
