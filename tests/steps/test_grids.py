"""Fixed grids: their ends, their formulas, and starts at infinite noise."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from kinds import processes_with_denoiser

import srk
from srk.steps import Gauge, Karras, LogSNR, Quadratic, RunInfo, Times, Uniform

GRIDS = [Uniform(), Quadratic(), LogSNR(), Karras(), Gauge(data_variance=1.0)]
PROCESSES = list(processes_with_denoiser().values())


def times(grid: srk.steps.Grid, process: srk.ForwardProcess, steps: int) -> list[float]:
    return grid.times(RunInfo(process, None, steps))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_ends_are_exact_and_steps_positive(
    grid: srk.steps.Grid, process: srk.LinearProcess
) -> None:
    for steps in (1, 2, 17, 50):
        t = times(grid, process, steps)
        assert len(t) == steps + 1 and t[0] == process.t_max and t[-1] == process.t_min
        assert all(a > b for a, b in pairwise(t))


def test_log_snr_is_uniform_in_log_snr() -> None:
    vp = srk.VP()
    lams = [vp.lam(t) for t in times(LogSNR(), vp, 20)]
    assert np.allclose(np.diff(lams), (lams[-1] - lams[0]) / 20, rtol=1e-11)


def test_karras_is_the_paper_s_formula() -> None:
    edm = srk.EDM(sigma_min=0.002, sigma_max=80.0)
    i = np.arange(19)
    paper = (80 ** (1 / 7) + i / 18 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert np.allclose(times(Karras(), edm, 18), paper, rtol=1e-12)


def test_gauge_density() -> None:
    """The grid equidistributes 0.85 normalized[v/(v+s) s/(s+m)] + 0.15 uniform, checked by
    quadrature.
    """
    edm, v, m = srk.EDM(sigma_min=0.01, sigma_max=80.0), 0.6, 9e-4
    lam = np.array([edm.lam(t) for t in times(Gauge(data_variance=v, min_variance=m), edm, 8)])
    fine = np.linspace(lam[0], lam[-1], 400_001)
    s = np.exp(-2 * fine)
    shape = v / (v + s) * s / (s + m)
    density = 0.85 * shape / np.trapezoid(shape, fine) + 0.15 / (lam[-1] - lam[0])
    cumulative = np.concatenate(
        [[0], np.cumsum((density[1:] + density[:-1]) / 2) * (fine[1] - fine[0])]
    )
    assert np.allclose(np.diff(np.interp(lam, fine, cumulative)), 1 / 8, atol=1e-6)


@pytest.mark.parametrize("process", [srk.Flow(), srk.VPCosine()], ids=["flow", "vp-cosine"])
def test_infinite_noise(process: srk.LinearProcess) -> None:
    """At alpha = 0 the grid starts at t_max itself; the rest is the grid from sigma/alpha = 80
    without its first point.
    """
    t = times(LogSNR(), process, 10)
    lams = np.array([process.lam(x) for x in t[1:]])
    step = (process.lam(process.t_min) + math.log(80)) / 10
    assert np.allclose(np.diff(lams), step, rtol=1e-9) and lams[0] == pytest.approx(
        -math.log(80) + step
    )


def test_explicit_times_and_their_steps() -> None:
    vp = srk.VP()
    assert Times([1.0, 0.5, 0.001]).times(RunInfo(vp, None, None)) == [1.0, 0.5, 0.001]


@pytest.mark.parametrize("bad", [{"data_variance": -1.0}, {"data_variance": 0.0}, {}])
def test_gauge_without_a_variance(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"use grid=srk.steps.Gauge\(data_variance=1.0\)"):
        times(Gauge(**bad), srk.VP(), 5)


def test_the_old_name_of_the_package_works_for_one_release_and_says_the_new_one() -> None:
    program = """
import warnings
import srk
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from srk.control.grids import LogSNR
assert [str(w.message).split(";")[0] for w in seen] == ["srk.control is now srk.steps"], seen
assert seen[0].category is DeprecationWarning
assert srk.control.LogSNR is LogSNR is srk.steps.LogSNR
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
