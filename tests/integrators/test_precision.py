"""Samples in every dtype have the solver's own exact distribution, at tiny noise levels too."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import srk
from srk.integrators import WCW, Integrator, Step, StepPlan

N = 4000
MEAN, VARIANCE = 0.3, 0.25
PROCESSES = {name: srk.process(name) for name in srk.processes()}
PROCESSES["edm to 1e-9"] = srk.EDM(1e-9, 80.0)
# Rounding of the state, step after step, is a bias of some units of the last place
MARGIN = {torch.float64: 6.0, torch.float32: 6.0, torch.bfloat16: 14.0, torch.float16: 8.0}
HALVES = [torch.bfloat16, torch.float16]


def check(process: str, solver: str | Integrator, dtype: torch.dtype, steps: int) -> None:
    """Mean and variance within the sampling error, and in half precision its rounding, of the
    distribution's.
    """
    forward, target = PROCESSES[process], srk.targets.Gaussian(MEAN, [VARIANCE])
    law = srk.analysis.gaussian_distribution(
        solver, forward, MEAN, VARIANCE, steps=steps, start="prior", denoise_final=True
    )
    shape = (N, 2, 1) if process == "cld" else (N, 1)
    sol = srk.solve(
        forward, target.score(forward), solver, shape=shape, steps=steps, seed=1, dtype=dtype
    )
    x = (sol.x[:, 0] if process == "cld" else sol.x).double().flatten()
    std, margin = math.sqrt(law.variance[0]), MARGIN[dtype]
    assert abs(x.mean().item() - law.mean[0]) < margin * std / math.sqrt(N)
    assert abs(x.var().item() / law.variance[0] - 1.0) < margin * math.sqrt(2.0 / N)


@given(
    process=st.sampled_from(sorted(PROCESSES)),
    dtype=st.sampled_from([torch.float64, torch.float32, *HALVES]),
    steps=st.integers(1, 120),
    kappa=st.sampled_from([1.0, 0.1, 3.0, "no-amplification"]),
)
@example("sub-vp", torch.float32, 64, 1.0)
@example("vp", torch.float16, 20, 1.0)
@example("edm to 1e-9", torch.float64, 30, 1.0)
@settings(max_examples=40, deadline=None)
def test_the_probe_of_wcw_is_one_that_the_numbers_resolve(
    process: str, dtype: torch.dtype, steps: int, kappa: float
) -> None:
    check(process, WCW(kappa=kappa), dtype, steps)


@pytest.mark.parametrize("solver", list(srk.solvers()))
@given(process=st.sampled_from(sorted(srk.processes())), dtype=st.sampled_from(HALVES))
@settings(max_examples=3, deadline=None)
def test_half_precision_gives_the_solvers_own_distribution(
    solver: str, process: str, dtype: torch.dtype
) -> None:
    check(process, solver, dtype, 20)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_network_in_half_precision_is_resolved_too(dtype: torch.dtype) -> None:
    """A float64 state does not make the network's answers finer: `network_dtype` is what counts."""
    process = srk.SubVP()
    target = srk.targets.Gaussian(MEAN, [VARIANCE])

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        level = process.level(float(t[0]))
        return target.denoise(x.double(), level).to(x.dtype)

    score = srk.Data(network, network_dtype=dtype)
    sol = srk.solve(process, score, "wcw", shape=(N, 1), steps=64, seed=1, dtype=torch.float64)
    assert abs(sol.x.var().item() / VARIANCE - 1.0) < 14.0 * math.sqrt(2.0 / N)


def test_every_run_tells_the_planner_its_resolution() -> None:
    seen: list[float] = []

    class Recorder(Integrator):
        evaluations_per_step = 2
        eta_range = (0.0, 0.0)

        def plan(self, step: Step) -> StepPlan:
            seen.append(step.resolution)
            return srk.solvers()["srk2s"].plan(step)

    process, target = srk.VP(), srk.targets.Gaussian(MEAN, [VARIANCE])
    score = target.score(process)
    for grid in ("log-snr", srk.steps.Adaptive()):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            seen.clear()
            options = {"shape": (8, 1), "dtype": dtype, "grid": grid}
            srk.solve(process, score, Recorder(), steps=4 if grid == "log-snr" else None, **options)
            assert max(seen) == torch.finfo(dtype).eps
