"""No wait, no transfer and no mix of devices inside the loop, shown on a GPU that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import Watch, fake_cuda, needs_fake_cuda
from torch import Tensor

import srk

pytestmark = needs_fake_cuda

PROCESSES = {"vp": srk.VP(), "edm": srk.EDM(), "flow": srk.Flow(), "cld": srk.CLD()}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fake_cuda")


def run(watch: Watch, process: Any, solver: Any = "srk2m", **options: Any) -> srk.Solution:
    """A run with a network that is counted; its weights are on the fake GPU."""
    phase = isinstance(process, srk.PhaseProcess)
    weight = torch.empty(6, 6, device="cuda")

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert x.device == t.device == weight.device
        return (x.flatten(1) @ weight).view_as(x) * t[:, None].reshape(-1, *[1] * (x.ndim - 1))

    counted = watch.counted(network)
    wrap = options.pop("wrap", srk.Score if phase else srk.Data)
    shape = (4, 2, 3) if phase else (4, 6)
    options = {"steps": 4, "seed": 0, "shape": shape, "device": "cuda"} | options
    return srk.solve(process, wrap(counted), solver, **options)


def check(watch: Watch, solution: srk.Solution) -> None:
    assert solution.x.device.type == "cuda" and solution.status == "done"
    assert watch.calls > 1
    assert watch.inside() == []
    # the flags of the finite watch are read once, after the run
    assert [event.kind for event in watch.after() if event.kind != "wait"] in ([], ["cuda to cpu"])


@pytest.mark.parametrize(
    "name",
    ["vp", *(pytest.param(name, marks=pytest.mark.slow) for name in PROCESSES if name != "vp")],
)
@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_every_solver(solver: str, name: str, folder: Path) -> None:
    process, method = PROCESSES[name], srk.solvers()[solver]
    try:
        method.check(process, method.default_eta)
    except srk.errors.IncompatibleError as error:
        pytest.skip(str(error))
    with fake_cuda(folder) as watch:
        check(watch, run(watch, process, solver))


@pytest.mark.parametrize("solver", ["ddpm", "srk2m"])
@pytest.mark.parametrize("noise", ["keyed", pytest.param("brownian", marks=pytest.mark.slow)])
def test_noise_is_made_where_it_is_used(solver: str, noise: str, folder: Path) -> None:
    with fake_cuda(folder) as watch:
        check(watch, run(watch, PROCESSES["vp"], solver, noise=noise, steps=3))


@pytest.mark.parametrize("corrector", ["ald", "langevin"])
@pytest.mark.parametrize("norms", ["sample", "batch"])
def test_correctors(corrector: Any, norms: Any, folder: Path) -> None:
    """The step that follows from norms is a number of the device, and stays there."""
    solver = srk.integrators.PredictorCorrector("srk2m", corrector=corrector, norms=norms, steps=2)
    with fake_cuda(folder) as watch:
        check(watch, run(watch, PROCESSES["vp"], solver))


def test_steps_that_go_up(folder: Path) -> None:
    grid = srk.steps.Rising([1.0, 0.5, 0.2, 0.6, 0.3, 0.01])
    with fake_cuda(folder) as watch:
        check(watch, run(watch, PROCESSES["vp"], "srk2m", grid=grid, steps=None))


def test_a_planted_wait_is_seen(folder: Path) -> None:
    """The check fails for a network that looks at a value, and for one that fetches from the
    CPU.
    """
    table = torch.ones(6)
    faults = {
        "wait": lambda x: x * (1.0 if x.sum().item() > 0 else 2.0),
        "cpu to cuda": lambda x: x * torch.ones(6).to("cuda"),
        "cuda to cpu": lambda x: x.cpu().to("cuda"),
    }
    assert table.device.type == "cpu"
    for kind, fault in faults.items():
        with fake_cuda(folder) as watch:
            network = watch.counted(lambda x, t, fault=fault: fault(x))
            srk.solve(
                srk.VP(), srk.Data(network), "ddpm", shape=(4, 6), steps=4, seed=0, device="cuda"
            )
            assert kind in {event.kind for event in watch.inside()}
