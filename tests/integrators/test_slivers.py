"""Two times that nearly coincide do no harm to multistep methods; a sudden long step is told."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import srk
from srk.integrators import LMS, Integrator, SASolver, integrator
from srk.integrators.on_schedule import OnSchedule

VARIANCES = [0.001, 0.03, 0.3, 1.0]
NAMES = ["edm", "vp", "flow"]
ONE_CALL = [name for name, solver in srk.solvers().items() if solver.evaluations_per_step == 1]


def times(process: srk.LinearProcess, lams: list[float]) -> list[float]:
    inner = [process.time(lam) for lam in lams[1:-1]]
    return [process.t_max, *inner, process.t_min]


def even(process: srk.LinearProcess, steps: int) -> list[float]:
    top = process.level(process.t_max).lam
    if math.isinf(top):
        top = process.level(0.999 * process.t_max).lam
    return list(np.linspace(top, process.level(process.t_min).lam, steps + 1))


SDE3 = "dpmpp-3m-sde-corrected"
CLUSTERS: list[tuple[str | Integrator, str, list[tuple[int, float]], bool]] = [
    (SDE3, "vp", [(27, -9.656), (25, -7.824), (27, -10.034)], False),
    (SDE3, "flow", [(31, -9.412), (31, -8.106), (33, -8.368)], False),
    (SDE3, "edm", [(20, -9.0), (21, -9.0), (22, -9.0)], True),
    ("dpmpp-3m-sde", "edm", [(21, -10.53), (21, -10.815)], False),
    ("dpmpp-3m", "edm", [(27, -9.791), (27, -7.882), (26, -7.82)], False),
    ("er-sde-3", "edm", [(29, -9.429), (29, -8.742)], False),
    ("deis-3", "vp", [(13, -8.971), (13, -9.139), (13, -9.546)], False),
    *[(LMS(order=order), "edm", [(16, -6.773), (15, -9.599), (16, -10.384)], False)
      for order in (2, 3, 4)],
    *[(name, "vp", [(13, -8.971), (13, -9.139), (14, -9.546)], False)
      for name in ("unipc-2", "unipc-3")],
    *[(SASolver(predictor=order, corrector=order), "flow", [(9, -9.0), (9, -10.0)], True)
      for order in (2, 3, 4)],
    *[(OnSchedule(srk.solvers()[name]), "edm", [(21, -10.53), (21, -10.815), (22, -9.0)], True)
      for name in ("srk2m", "srk2s", "srk2m-local", "auto", "dpmpp-3m-sde")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("solver", "name", "slivers", "noisy"), CLUSTERS, ids=lambda value: str(value)[:40]
)
def test_several_slivers_in_a_row(
    solver: str | Integrator, name: str, slivers: list[tuple[int, float]], noisy: bool
) -> None:
    """Differences of differences divide by each gap, so that their rounding multiplies."""
    cost_at_most_their_order(integrator(solver), name, slivers, noisy)


@pytest.mark.parametrize("solver", ONE_CALL)
@given(
    name=st.sampled_from(NAMES),
    # a sliver of rather less than a step's length is as any other step
    slivers=st.lists(st.tuples(st.integers(1, 34), st.floats(-11.0, -2.5)), min_size=1, max_size=3),
    noisy=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_slivers_cost_at_most_the_order_of_their_steps(
    solver: str, name: str, slivers: list[tuple[int, float]], noisy: bool
) -> None:
    """Up to three pairs of times a factor 1e-11 to 3e-3 apart, in the exact distribution."""
    cost_at_most_their_order(srk.solvers()[solver], name, slivers, noisy)


def cost_at_most_their_order(
    method: Integrator, name: str, slivers: list[tuple[int, float]], noisy: bool
) -> None:
    process = srk.process(name)
    eta = method.default_eta if noisy else method.eta_range[0]
    grid = even(process, 36)
    more = sorted({*grid, *(grid[i] + 10.0**exponent for i, exponent in slivers)})
    kl = [
        srk.analysis.gaussian_distribution(
            method, process, 0.0, VARIANCES, grid=times(process, lams), eta=eta
        ).kl
        for lams in (grid, more)
    ]
    euler = srk.analysis.gaussian_distribution(
        "ddpm", process, 0.0, VARIANCES, grid=times(process, grid), eta=min(eta, 1.0)
    ).kl
    assert kl[1] < 2.0 * kl[0] + 0.1 * euler


@pytest.mark.parametrize("solver", ONE_CALL)
@pytest.mark.parametrize("gap", [1e-9, 1e-6, 1e-4])
def test_slivers_in_float32(solver: str, gap: float) -> None:
    process, target = srk.EDM(), srk.targets.Gaussian(0.0, [0.25])
    if solver == "euler-maruyama":
        pytest.skip("its own error on this grid is larger than what is tested")
    lams = even(process, 36)
    lams = sorted([*lams, lams[20] + gap])
    grid = times(process, lams)
    if len(set(grid)) < len(grid):
        pytest.skip("the two times are one in float64")
    law = srk.analysis.gaussian_distribution(solver, process, 0.0, 0.25, grid=grid)
    sol = srk.solve(
        process,
        target.score(process),
        solver,
        shape=(4000, 1),
        grid=grid,
        seed=0,
        denoise_final=False,
        dtype=torch.float32,
    )
    assert abs(sol.x.var().item() / law.variance[0] - 1.0) < 6.0 * math.sqrt(2.0 / 4000)


@pytest.mark.parametrize(
    "solver", ["dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver", "gddim", "er-sde-3"]
)
def test_a_sudden_long_step_is_told(solver: str) -> None:
    """Of a step of 12 where others are 1 a warning tells; grids in common use pass in silence."""
    process = srk.EDM()
    lams = even(process, 40)
    grid = times(process, lams[:20] + lams[31:])
    method = srk.solvers()[solver]
    growth = {} if solver != "er-sde-3" else {"growth": math.log}
    method = type(method)(**growth)
    with pytest.warns(srk.errors.GridWarning, match="times as long"):
        srk.analysis.gaussian_distribution(method, process, grid=grid, eta=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (8, 20, 50):
            srk.analysis.gaussian_distribution(solver, process, grid="log-snr", steps=steps)
