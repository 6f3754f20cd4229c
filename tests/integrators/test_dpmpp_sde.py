"""dpmpp-sde: exact distributions, the correlation of its draws, order."""

from __future__ import annotations

import math

import attrs
import pytest

import srk
from srk.analysis import gaussian_kl
from srk.integrators import Column, DPMppSDE, Step, StepPlan
from srk.sampling.planning import plan_grid

EDM = srk.EDM(sigma_min=0.01, sigma_max=80.0)


@pytest.mark.parametrize(("nfe", "kl"), [(24, 2.84e-3), (48, 1.86e-4), (64, 5.51e-5)])
def test_oracles(nfe: int, kl: float) -> None:
    """Target N(0, 1), sigma from 80 to 0.01, log-SNR grid, eta = 1.

    Values of an independent implementation, to 1%.
    """
    assert gaussian_kl("dpmpp-sde", EDM, nfe=nfe) == pytest.approx(kl, rel=0.01)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_weak_order_two(eta: float) -> None:
    """KL falls as steps^-4."""
    kl = [
        gaussian_kl("dpmpp-sde", srk.VP(), variance=[0.2, 1.0], steps=n, eta=eta)
        for n in (256, 512)
    ]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-4.0, abs=0.25)


def test_independent_draws_would_have_order_one() -> None:
    """The known fault of copies of this method.

    With independent noise at the stage the KL slope is that of weak order 1.
    """

    @attrs.frozen(kw_only=True)
    class Independent(DPMppSDE):
        def plan(self, step: Step) -> StepPlan:
            plan = super().plan(step)
            z0, z1 = Column("z", 0), Column("z", 1)
            row = dict(plan.update)
            size = math.hypot(row.pop(z0), row.pop(z1))
            return attrs.evolve(plan, update=(*row.items(), (z1, size)))

    kl = [gaussian_kl(Independent(), EDM, steps=n) for n in (96, 192)]
    assert math.log2(kl[1] / kl[0]) == pytest.approx(-2.0, abs=0.3)


@pytest.mark.parametrize("process", [EDM, srk.VP()])
def test_one_path_in_sigma(process: srk.LinearProcess) -> None:
    """The draws lie on adjoining intervals of one path in r.

    The noises of stage and step correlate as sqrt((r - r_s)/(r - r')).
    """
    plan = plan_grid(process, srk.solvers()["dpmpp-sde"], [process.t_max, 0.3 * process.t_max])[0]
    first, second = plan.slots
    r, rs, r1 = plan.start.r, plan.stages[1].level.r, plan.stop.r
    assert (first.start, first.stop) == (-r, -rs)
    assert (second.start, second.stop) == (-rs, -r1)
    update = dict(plan.update)
    a, b = update[Column("z", 0)], update[Column("z", 1)]
    assert a / math.hypot(a, b) == pytest.approx(math.sqrt((r - rs) / (r - r1)), rel=1e-12)


def test_node_at_the_end() -> None:
    """With c = 1 the stage lies at the end of the step and one draw remains."""
    plans = plan_grid(EDM, DPMppSDE(node=1.0), [80.0, 5.0, 0.01])
    assert all(plan.stages[1].level == plan.stop and len(plan.slots) == 1 for plan in plans)
