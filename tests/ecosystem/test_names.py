"""Names of other libraries: each gives a run, and the docs have all of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import srk
from srk.ecosystem import names
from srk.errors import IncompatibleError, UnknownNameError

ALL = [entry for table in names._TABLES.values() for entry in table]
PAGE = Path(__file__).parents[2] / "docs" / "names.md"


@pytest.mark.parametrize("name", sorted({*ALL}))
def test_every_name_runs(name: str) -> None:
    """The keywords fit `srk.solve`, on a process whose time is that of the training."""
    process, target = srk.VPDiscrete(), srk.targets.Gaussian(0.5, 0.04)
    found = srk.find(name)
    sol = srk.solve(process, target.score(process), shape=(2, 1), steps=8, seed=0, **found)
    assert sol.success
    assert found.solver == found["solver"]


@pytest.mark.parametrize(
    ("name", "solver", "grid", "eta"),
    [
        ("DPM++ 2M Karras", "dpmpp-2m", "karras", None),
        ("DPM++ 2M", "dpmpp-2m", "karras", None),
        ("dpmpp_2m", "dpmpp-2m", None, None),
        ("dpmpp_2m karras", "dpmpp-2m", "karras", None),
        ("DPMSolverMultistepScheduler", "dpmpp-2m", "uniform", None),
        ("DPMSolverMultistep", "dpmpp-2m", "uniform", None),
        ("DPM++ 2M SDE Exponential", "dpmpp-2m-sde", "log-snr", None),
        ("DPM++ 2M SDE SGM Uniform", "dpmpp-2m-sde", "uniform", None),
        ("sample_euler_ancestral", "euler-ancestral", None, None),
        ("dpmpp_2m_sde_gpu", "dpmpp-2m-sde", None, None),
        ("Euler a", "euler-ancestral", "uniform", None),
        ("Euler", "ddim", "uniform", 0.0),
        ("FlowMatchEulerDiscreteScheduler", "ddim", "uniform", 0.0),
        ("srk2m", "srk2m", None, None),
        ("srk2m karras", "srk2m", "karras", None),
        ("srk2m_local", "srk2m-local", None, None),
    ],
)
def test_the_map(name: str, solver: str, grid: str | None, eta: float | None) -> None:
    found = srk.find(name)
    assert (found.solver, found.grid, found.options.get("eta")) == (solver, grid, eta)
    keywords = {"solver": solver, "grid": grid, "eta": eta}
    assert dict(found) == {key: value for key, value in keywords.items() if value is not None}


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_the_adapter_for_diffusers_says_the_same() -> None:
    from srk.ecosystem.diffusers.solvers import PLAIN

    for host, (solver, eta) in PLAIN.items():
        found = srk.find(host)
        assert found.solver == solver
        assert found.options.get("eta", srk.solvers()[solver].default_eta) == eta


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_the_classes_are_those_of_diffusers() -> None:
    import diffusers

    for name in names._DIFFUSERS:
        assert hasattr(diffusers, name), name


def test_what_is_not_found_is_said() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        srk.find("DPM++ 2N")
    with pytest.raises(IncompatibleError, match="deis-3"):
        srk.find("PNDMScheduler")
    turbo = srk.find("Euler a Turbo")
    assert turbo.grid is None and "Turbo" in turbo.note


def test_few_step_models_and_schedules_have_ours() -> None:
    assert srk.find("LCMScheduler").solver == srk.find("lcm").solver == "lcm"
    assert dict(srk.find("TCDScheduler"))["eta"] == 0.3
    assert srk.find("Euler a Beta").grid == "beta"
    assert srk.find("DPM++ 2M KL Optimal").grid == "kl-optimal"


def test_correctors_and_steps_that_go_up_have_ours() -> None:
    corrector = srk.integrators.PredictorCorrector
    assert srk.find("predictor-corrector").solver == corrector.score_sde("ve")
    assert srk.find("SGMSE").solver == corrector.sgmse()
    assert srk.find("reverse_diffusion").solver == "reverse-diffusion"
    restart = srk.find("Restart")
    assert restart.solver == "heun"
    assert restart.grid == srk.steps.Restart([(10, 1, 0.1, 2.0)])
    assert "36 steps" in restart.note
    repaint = srk.find("RePaint")
    assert isinstance(repaint.grid, srk.steps.RePaint)
    assert "hooks=" in repaint.note


def test_the_page_has_the_map() -> None:
    """docs/names.md is made by `python benchmarks/hosts.py names`."""
    assert names.table() in PAGE.read_text(encoding="utf-8")
