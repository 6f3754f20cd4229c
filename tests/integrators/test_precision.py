"""Samples in every dtype have the solver's own exact distribution, at tiny noise levels too."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kinds import processes_with_denoiser

import srk
from srk.integrators import WCW, Integrator, Step, StepPlan

N = 4000
MEAN, VARIANCE = 0.3, 0.25
PROCESSES = processes_with_denoiser()
PROCESSES["edm to 1e-9"] = srk.EDM(1e-9, 80.0)
# Rounding of the state, step after step, is a bias of some units of the last place
MARGIN = {torch.float64: 6.0, torch.float32: 6.0, torch.bfloat16: 14.0, torch.float16: 8.0}
HALVES = [torch.bfloat16, torch.float16]


def check(process: str, solver: str | Integrator, dtype: torch.dtype, steps: int) -> None:
    """Mean and variance within the sampling error, and in half precision its rounding, of the
    distribution's; of numbers that a distribution narrower than their spacing may have, too.
    """
    forward, target = PROCESSES[process], srk.targets.Gaussian(MEAN, [VARIANCE])
    law = srk.analysis.gaussian_distribution(
        solver, forward, MEAN, VARIANCE, steps=steps, start="prior", denoise_final=True, dtype=dtype
    )
    shape = (N, 2, 1) if process == "cld" else (N, 1)
    sol = srk.solve(
        forward, target.score(forward), solver, shape=shape, steps=steps, seed=1, dtype=dtype
    )
    x = (sol.x[:, 0] if process == "cld" else sol.x).double().flatten()
    std, margin = math.sqrt(law.variance[0]), MARGIN[dtype]
    # Each number is off by its rounding, which may go along with its deviation from the mean.
    spacing = torch.finfo(dtype).eps * math.hypot(law.mean[0], std)
    assert abs(x.mean().item() - law.mean[0]) < margin * std / math.sqrt(N) + spacing
    rounding = 2.0 * std * spacing + spacing**2
    assert abs(x.var().item() - law.variance[0]) < margin * math.sqrt(2.0 / N) * std**2 + rounding


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
@given(process=st.sampled_from(sorted(processes_with_denoiser())), dtype=st.sampled_from(HALVES))
@settings(max_examples=3, deadline=None)
def test_half_precision_gives_the_solvers_own_distribution(
    solver: str, process: str, dtype: torch.dtype
) -> None:
    check(process, solver, dtype, 20)


@pytest.mark.parametrize("solver", ["boltz1", "boltz2"])
@pytest.mark.parametrize("process", ["vp", "vp-discrete", "edm", "flow"])
def test_a_distribution_narrower_than_the_spacing_of_the_numbers(solver: str, process: str) -> None:
    """Sampling at a low temperature ends in a standard deviation of 0.004 around 0.3."""
    check(process, solver, torch.bfloat16, 20)


@pytest.mark.parametrize(
    "solver", ["dpmpp-3m-sde", "dpmpp-3m-sde-corrected", "sa-solver", "gddim", "unipc-3", "deis-3"]
)
@pytest.mark.parametrize("steps", [20, 40, 80])
def test_slopes_below_the_resolution_are_left_out(solver: str, steps: int) -> None:
    """At sigma = 1e-9 the denoiser is the state, and extrapolating it adds up its rounding."""
    check("edm to 1e-9", solver, torch.bfloat16, steps)


def test_a_step_whose_rounding_is_felt_is_told() -> None:
    """Heun's slope at sigma = 1e-9, one step from 80: no correct digit of it is left in float32."""
    process = PROCESSES["edm to 1e-9"]
    score = srk.targets.Gaussian(MEAN, [VARIANCE]).score(process)
    run = {"shape": (8, 1), "seed": 0}
    for solver in ("heun", "edm-heun", "dpm2-ancestral"):
        with pytest.warns(srk.errors.GridWarning, match=r"dtype=torch\.float64"):
            srk.solve(process, score, solver, steps=1, dtype=torch.float32, **run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        srk.solve(process, score, "heun", steps=1, dtype=torch.float64, **run)
        srk.solve(process, score, "heun", steps=12, dtype=torch.float32, **run)
        srk.solve(process, score, "ddpm", steps=1, dtype=torch.bfloat16, **run)


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
