"""States of several components belong to any process that says so, not to a class of ours."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

import srk
from srk.errors import IncompatibleError
from srk.processes import ForwardProcess, LinearProcess
from srk.processes.kernel import Array, PhaseKernel, mix
from srk.processes.level import Level

CLD = srk.CLD()


@attrs.frozen
class Mine(ForwardProcess):
    """Critically damped Langevin dynamics by the contract alone: no class of ours but the root."""

    name = "mine"
    components = 2
    t_min = CLD.t_min
    t_max = CLD.t_max

    @property
    def statistic(self) -> LinearProcess:
        return CLD.statistic

    def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
        return CLD.drift(t, x)

    def diffusion(self, t: float) -> Any:
        return CLD.diffusion(t)

    def sample_prior(self, shape: Any, **options: Any) -> torch.Tensor:
        return CLD.sample_prior(shape, **options)

    def initial_state(self, normals: torch.Tensor) -> torch.Tensor:
        return mix(CLD.prior_factor, normals)

    def data_scale(self, t: float) -> float:
        return CLD.data_scale(t)

    def kernel(self, t: float) -> PhaseKernel:
        return CLD.kernel(t)

    def reverse_drift(self, level: Level, eta: float) -> tuple[Array, Array]:
        return CLD.reverse_drift(level, eta)

    def read_score(self, t: float) -> tuple[Array, Array]:
        return CLD.read_score(t)

    def flow_given_data(self, start: Level, stop: Level, eta: float) -> tuple[Array, Array, Array]:
        return CLD.flow_given_data(start, stop, eta)


def draws(process: Any, score: Any, solver: str, **options: Any) -> Any:
    options = {"steps": 4, "shape": (2, 2, 3), "seed": 1, **options}
    try:
        return srk.solve(process, score, solver, **options).x
    except IncompatibleError as error:
        return type(error)


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver_reverses_a_foreign_process_as_ours(solver: str) -> None:
    target: Any = srk.targets.Gaussian([0.3, -0.2, 0.1], [0.1, 1.0, 0.5])
    network = srk.Score(lambda z, t: -z[:, 1])
    for options in ({}, {"eta": 0.0}, {"noise": "brownian"}, {"grid": "adaptive", "steps": None}):
        ours = draws(CLD, target.score(CLD), solver, **options)
        mine = draws(Mine(), target.score(Mine()), solver, **options)
        assert mine is ours if isinstance(ours, type) else torch.equal(mine, ours), options
    ours, mine = draws(CLD, network, solver), draws(Mine(), network, solver)
    assert mine is ours if isinstance(ours, type) else torch.equal(mine, ours)


def test_a_foreign_process_is_measured_and_analysed_as_ours() -> None:
    target: Any = srk.targets.Gaussian([0.3, -0.2], [0.1, 1.0])
    ours, mine = (
        srk.calibrate(p, target.score(p), shape=(4, 2, 2), steps=8) for p in (CLD, Mine())
    )
    assert list(ours.q) == list(mine.q)
    exact: Any = [
        srk.analysis.gaussian_kl("gddim", p, variance=0.3, steps=8, start=start)
        for start in ("exact", "prior")
        for p in (CLD, Mine())
    ]
    assert exact[0] == exact[1]
    assert exact[2] == exact[3]


def test_what_acts_on_the_data_refuses_its_states() -> None:
    score = srk.Score(lambda z, t: -z)
    for wrong in (
        srk.Hooked(score, srk.scores.hooks.Clip()),
        srk.NoisePrediction(lambda x, t: x),
        srk.ClassifierGuided(score, lambda x, t: x.sum(1)),
    ):
        with pytest.raises(IncompatibleError, match=r"srk\.Reduced"):
            srk.solve(Mine(), wrong, "ddpm", steps=2, shape=(2, 2, 3))
    with pytest.raises(srk.errors.ArgumentError, match=r"have shape \(batch, 2, \*event\)"):
        srk.solve(Mine(), score, "ddpm", steps=2, shape=(2, 3))


def test_shapes_of_states_and_data() -> None:
    assert Mine().state_shape((3, 8)) == (2, 3, 8)
    assert Mine().data_shape((2, 3, 8)) == (3, 8)
    assert srk.VP().state_shape((3, 8)) == srk.VP().data_shape((3, 8)) == (3, 8)
    with pytest.raises(IncompatibleError, match="has no kernel"):
        srk.VP().kernel(0.5)
    with pytest.raises(IncompatibleError, match="has no read_score"):
        srk.VP().read_score(0.5)
