"""Features together that were each right alone: what a search of pairs of them found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, SRKError

VP = srk.VP()
RUN: dict[str, Any] = {"steps": 5, "seed": 0}


@pytest.mark.parametrize("solver", list(srk.solvers()))
def test_every_solver_may_end_with_a_mean(solver: str) -> None:
    """Or says why not; those that draw before a call then ask at the state itself."""
    processes: list[Any] = [(VP, srk.Data(lambda x, t: 0.5 * x), (3, 8))]
    processes.append((srk.CLD(), srk.Reduced(processes[0][1]), (3, 2, 4)))
    for process, score, shape in processes:
        run = {"shape": shape, "noise": "keyed", **RUN}
        try:
            noisy = srk.solve(process, score, solver, denoise_final=False, save="x", **run)
            mean = srk.solve(process, score, solver, denoise_final="mean", save="x", **run)
        except SRKError:
            continue
        assert noisy.trajectory is not None and mean.trajectory is not None
        assert torch.equal(mean.trajectory.values[:-1], noisy.trajectory.values[:-1])
        assert bool(mean.x.isfinite().all())


def test_the_mean_of_a_step_that_draws_before_its_call() -> None:
    """A network of a constant makes every step linear: the mean is the step with draws of 0."""
    data = srk.Data(lambda x, t: torch.full_like(x, 0.3))
    start = torch.full((1, 3), 0.7, dtype=torch.float64)
    for solver in ("wcw", "shark", "sea", "accelerated-ddpm", "srk2m"):
        ends = (False, "mean")
        noisy, still = (
            srk.Sampler(VP, data, solver, steps=3, denoise_final=end)  # type: ignore[arg-type]
            for end in ends
        )
        first = sum(len(plan.slots) for plan in noisy.plans()[:-1])
        draws = torch.arange(1.0, 20.0, dtype=torch.float64)[:, None, None].expand(-1, 1, 3).clone()
        draws[first:] = 0.0
        expected = noisy(x_init=start, noise=srk.noise.ReplayNoise(draws)).x
        found = still(x_init=start, noise=srk.noise.ReplayNoise(draws)).x
        assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("hook", [srk.scores.RePaint, srk.scores.Replace])
def test_known_data_that_do_not_fit(hook: Any, dtype: torch.dtype) -> None:
    mask = torch.tensor([True, False, False])

    def run(known: Any, mask: Any = mask, **more: Any) -> Any:
        hooks, score = [hook(known, mask)], srk.Data(lambda x, t: 0.9 * x)
        return srk.solve(VP, score, "ddpm", shape=(5, 3), dtype=dtype, hooks=hooks, **RUN, **more)

    with pytest.raises(ArgumentError, match="does not broadcast to samples of shape"):
        run(torch.ones(4, 3))
    with pytest.raises(ArgumentError, match="does not broadcast to samples of shape"):
        run(torch.ones(4, 3), microbatch=2)
    with pytest.raises(ArgumentError, match="mask has shape"):
        run(torch.ones(3), mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ArgumentTypeError, match="known is a tensor"):
        run([1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="give known"):
        run(torch.ones(3, dtype=torch.complex64))
    assert bool((run(torch.ones(5, 3), microbatch=2).x[:, 0] == 1.0).all())


def test_pictures_of_complex_samples(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    score = srk.Data(lambda z, t: 0.5j * z)
    run: dict[str, Any] = {"dtype": torch.complex64, "save": "x", **RUN}
    sol = srk.solve(VP, score, "ddpm", shape=(6, 1), **run)
    points = torch.as_tensor(sol.plot().axes[0].collections[0].get_offsets().data)
    assert torch.allclose(points.float(), torch.view_as_real(sol.x[:, 0]))
    for bad in ("4", None, float("inf")):
        with pytest.raises(SRKError):
            sol.animate(tmp_path / "a.gif", seconds=bad)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no folder"):
        sol.animate(tmp_path / "nowhere" / "a.gif")


def test_garments_in_any_dtype() -> None:
    process, score = srk.targets.garments()
    plain = srk.solve(process, score, "dpmpp-2m", shape=1, nfe=3, seed=0, noise="keyed").x
    for dtype, bound in ((torch.float64, 1e-3), (torch.bfloat16, 0.2)):
        run: dict[str, Any] = {"shape": 1, "nfe": 3, "seed": 0, "noise": "keyed", "dtype": dtype}
        x = srk.solve(process, score, "dpmpp-2m", **run).x
        assert x.dtype == dtype and float((x.float() - plain).abs().mean()) < bound


@pytest.mark.parametrize(
    "grid", [srk.steps.RePaint(jump=1, resamplings=2, noise_scale=0.9), "log-snr"], ids=str
)
def test_sets_of_samples_on_grids_that_rise(grid: Any, tmp_path: Path) -> None:
    score = srk.Data(lambda x, t: 0.9 * x)
    run: dict[str, Any] = {"shape": (10, 3), "grid": grid, **RUN}
    made = srk.sample_to(tmp_path / "set", VP, score, "ddpm", batch=4, **run)
    expected = srk.solve(VP, score, "ddpm", noise="keyed", **run).x
    assert torch.allclose(made.load(), expected, atol=1e-6)


@pytest.mark.parametrize("bad", ["0.5", None, [0.5], torch.ones(2), 10**400], ids=str)
def test_options_of_hooks_and_guidance_are_numbers(bad: Any) -> None:
    data = srk.Data(lambda x, t: x)
    makers: list[Any] = [
        lambda: srk.scores.Clip(bad),
        lambda: srk.scores.hooks.DynamicThreshold(bad),
        lambda: srk.scores.state_hooks.LowTemperature(bad, sigma_data=0.5),
        lambda: srk.Guided(data, data, 2.0, rescale=bad),
    ]
    for make in makers:
        with pytest.raises(SRKError, match="number"):
            make()
