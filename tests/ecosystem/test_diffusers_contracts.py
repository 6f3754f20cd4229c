"""What pipelines of diffusers rely on in a scheduler, one contract a test, without a pipeline."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import srk

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers==0.42.1"
)

from srk.ecosystem.diffusers import SRKScheduler, from_diffusers  # noqa: E402  # needs diffusers
from srk.ecosystem.diffusers.configs import FAMILIES, OURS, REFUSED, class_of  # noqa: E402
from srk.errors import ArgumentError, IncompatibleError  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNIT = torch.randn(3, 2, generator=torch.Generator().manual_seed(3))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(x: Tensor, t: Any) -> Tensor:
    """Smooth, and the same whatever the kind of timestep."""
    time = torch.as_tensor(t, dtype=torch.float64).flatten()[0] / 300.0
    return 0.6 * torch.sin(1.3 * x + 0.2) + 0.3 * x * torch.cos(time).to(x.dtype)


def drive(
    scheduler: Any, x: Tensor, timesteps: Tensor | None = None, stop: Any = None, **options: Any
) -> Tensor:
    """The loop of a pipeline."""
    for t in scheduler.timesteps[:stop] if timesteps is None else timesteps:
        x = scheduler.step(network(x, t), t, x, return_dict=False, **options)[0]
    return x


def vp(**options: Any) -> SRKScheduler:
    config = diffusers.DDIMScheduler(clip_sample=False, **STABLE_DIFFUSION)
    made: SRKScheduler = SRKScheduler.from_config(config.config, **options)
    return made


def flow(**options: Any) -> SRKScheduler:
    made: SRKScheduler = SRKScheduler.from_config(
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config, **options
    )
    return made


# -- whose config it is ---------------------------------------------------------------------------


def test_the_arguments_are_those_of_the_class() -> None:
    keys = [key for key in SRKScheduler().config if not key.startswith("_")]
    assert tuple(keys) == OURS


#: Of those that take the same arguments, the config of one cannot be told from the other's.
TOLD = [name for name in (*FAMILIES, *REFUSED) if name != "FlowMapEulerDiscreteScheduler"]


@pytest.mark.parametrize("name", TOLD)
def test_a_constructed_scheduler_tells_its_class(name: str) -> None:
    """Its config names no class, but begins with the arguments of the class."""
    if not hasattr(diffusers, name):
        pytest.skip(f"not in diffusers {diffusers.__version__}")
    found = class_of(getattr(diffusers, name)().config)
    assert found is not None
    known = {**FAMILIES, **dict.fromkeys(REFUSED, "refused")}
    assert known[found] == known[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replaced_says_so(name: str) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"not in diffusers {diffusers.__version__}")
    for config in (getattr(diffusers, name)(), {"_class_name": name}):
        with pytest.raises(IncompatibleError, match=f"{name}, which SRKScheduler cannot replace"):
            SRKScheduler.from_config(config)


def test_two_changes_of_scheduler_in_a_row_keep_the_family() -> None:
    """What one change left in a config says nothing about the network of the next."""
    first = SRKScheduler.from_config(diffusers.DDPMScheduler(beta_end=0.03).config, solver="srk2")
    for again in (
        diffusers.FlowMatchEulerDiscreteScheduler.from_config(first.config, shift=3.0),
        diffusers.UniPCMultistepScheduler.from_config(
            first.config, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    ):
        ours = SRKScheduler.from_config(again.config)
        assert (ours.config.process, ours.config.host) == ("flow", type(again).__name__)
        twice = SRKScheduler.from_config(ours.config, solver="ddim")
        for scheduler in (again, ours, twice):
            scheduler.set_timesteps(7)
        assert torch.equal(twice.timesteps, again.timesteps)
    back = diffusers.DPMSolverMultistepScheduler.from_config(first.config)
    assert SRKScheduler.from_config(back.config).config.process == "vp"
    assert SRKScheduler.from_config(back.config).config.beta_end == 0.03


def test_a_scheduler_itself_is_taken() -> None:
    made = SRKScheduler.from_config(diffusers.KDPM2DiscreteScheduler(), solver="host")
    assert made.config.host == "KDPM2DiscreteScheduler"
    assert made.integrator.name == "dpm2"


def test_saved_and_loaded_keeps_the_host(tmp_path: Path) -> None:
    ours = SRKScheduler.from_config(diffusers.UniPCMultistepScheduler().config, solver="unipc-2")
    ours.save_pretrained(tmp_path)
    again = SRKScheduler.from_pretrained(tmp_path)
    for scheduler in (ours, again):
        scheduler.set_timesteps(11)
    assert torch.equal(ours.timesteps, again.timesteps)
    assert again.config.host == "UniPCMultistepScheduler"


def test_an_explicit_keyword_wins_over_what_the_config_inherited() -> None:
    karras = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True).config
    ours = SRKScheduler.from_config(karras, grid="log-snr")
    ours.set_timesteps(5)
    assert not ours.config.use_karras_sigmas
    back = SRKScheduler.from_config(ours.config, use_exponential_sigmas=True)
    assert back.config.grid is None and back.config.use_exponential_sigmas
    spaced = SRKScheduler.from_config(ours.config, timestep_spacing="trailing")
    assert spaced.config.grid is None
    solver = SRKScheduler.from_config(
        SRKScheduler(solver="srk2", solver_options={"data_variance": 0.5}, eta=0.5).config,
        solver="dpmpp-2m",
    )
    assert (solver.config.solver_options, solver.config.eta) == (None, None)
    solver.set_timesteps(5)
    dynamic = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    shifted = SRKScheduler.from_config(dynamic, shift=3.0)
    shifted.set_timesteps(5)  # needs no mu
    with pytest.raises(ArgumentError, match="exclude each other"):
        SRKScheduler.from_config(karras, grid="log-snr", use_karras_sigmas=True)


@pytest.mark.parametrize("name", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_snr_shift_scale(name: str) -> None:
    """The levels are those of the scheduler, which shifts and rescales alphas_cumprod."""
    peer = getattr(diffusers, name)(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=1.7,
    )
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    assert torch.equal(ours.alphas_cumprod, peer.alphas_cumprod.float())
    if name == "CogVideoXDDIMScheduler":
        for scheduler in (peer, ours):
            scheduler.set_timesteps(10)
        assert torch.equal(ours.timesteps, peer.timesteps)
        theirs, result = drive(peer, UNIT), drive(ours, UNIT)
        torch.testing.assert_close(result, theirs, rtol=1e-5, atol=1e-5)


def test_stable_audio() -> None:
    """The network's time is an angle, and D its preconditioned output."""
    peer = diffusers.CosineDPMSolverMultistepScheduler()
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(9)
    assert ours.timesteps.tolist() == pytest.approx(peer.timesteps.tolist(), rel=1e-6)
    assert ours.init_noise_sigma == pytest.approx(float(peer.init_noise_sigma))
    t, sigma = peer.timesteps[0], float(peer.sigmas[0])
    x = UNIT * ours.init_noise_sigma
    torch.testing.assert_close(
        ours.scale_model_input(x, ours.timesteps[0]), peer.scale_model_input(x, t)
    )
    output = network(UNIT, t)
    denoised = ours.step(output, ours.timesteps[0], x).pred_original_sample
    torch.testing.assert_close(
        denoised, peer.precondition_outputs(x, output, sigma), rtol=1e-5, atol=1e-5
    )


# -- runs repeat ----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddpm", "srk2m", "seeds-3"])
@pytest.mark.parametrize("noise", ["generator", "keyed", "brownian"])
def test_a_run_repeats_without_a_generator(solver: str, noise: str) -> None:
    """The first states seed the noise; the global generator is neither read nor moved."""
    made = vp(solver=solver, noise=noise)
    made.set_timesteps(5)
    before = torch.get_rng_state()
    first = drive(made, UNIT)
    torch.manual_seed(123)
    torch.rand(7)
    assert torch.equal(first, drive(made, UNIT))
    torch.set_rng_state(before)
    drive(made, UNIT)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.allclose(first, drive(made, UNIT.flip(0)).flip(0) + 1.0)


def test_the_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    made = vp(solver="ddpm")
    made.set_timesteps(5)
    whole = drive(made, UNIT)
    torch.testing.assert_close(drive(made, UNIT[1:2]), whole[1:2])
    same = drive(made, UNIT[:1].expand(3, 2))  # equal states still get noise of their own
    assert not torch.equal(same[0], same[1])


def test_seed_is_that_of_the_noise_where_there_is_no_generator() -> None:
    made = vp(solver="ddpm", seed=7)
    made.set_timesteps(5)
    torch.testing.assert_close(drive(made, UNIT), drive(made, UNIT, generator=generator(7)))
    assert not torch.equal(drive(made, UNIT), drive(made, UNIT, generator=generator(8)))


# -- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", srk.solvers())
@pytest.mark.parametrize("noise", ["generator", "keyed"])
def test_a_scheduler_is_copied_and_pickled_at_any_moment(solver: str, noise: str) -> None:
    """Fresh, between the steps and in the middle of one; the copies go on as the original does."""
    made = vp(solver=solver, noise=noise)
    copy.deepcopy(made)
    pickle.loads(pickle.dumps(made))
    made.set_timesteps(3)
    whole = drive(made, UNIT)
    made.set_timesteps(3)
    x = UNIT
    for i, t in enumerate(made.timesteps):
        copies = [made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
        following = [one.step(network(x, t), t, x).prev_sample for one in copies]
        assert torch.equal(following[0], following[1]) and torch.equal(following[0], following[2])
        made, x = copies[i % 3], following[0]
    assert torch.equal(x, whole)


# -- where a run starts ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [vp, flow])
@pytest.mark.parametrize("solver", srk.solvers())
def test_order_times_skipped_steps_is_the_index(make: Any, solver: str) -> None:
    """Pipelines skip `order` entries for each step that they leave out: each step has as many."""
    made = make(solver=solver)
    made.set_timesteps(6)
    for k in range(6):
        entry = made._entries[k * made.order]
        assert (entry.step, entry.stage) == (k, 0)


@pytest.mark.parametrize("solver", ["srk2", "srk2s", "seeds-3", "etd-sra1", "heun"])
def test_the_first_step_of_a_flow_is_the_solvers(solver: str) -> None:
    """From pure noise too: the scheduler adds calls at most, and changes no number."""
    made = flow(solver=solver)
    made.set_timesteps(5)
    assert made._route is not None
    result = drive(made, UNIT, generator=generator(1))
    draws = generator(1)
    process, score = from_diffusers(network, made)
    other = srk.solve(
        process,
        score,
        solver,
        x_init=UNIT,
        grid=made._route.grid,
        noise=lambda slot, clock, out: out.normal_(generator=draws),
    )
    assert torch.equal(result, other.x)


def test_order_where_the_pipeline_counts_entries() -> None:
    """Flux passes sigmas, takes the number of entries for that of steps, and skips by `order`."""
    made = flow(solver="seeds-3")
    made.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    n = len(made.timesteps)
    start = int(n - n * 0.6)
    left = made.timesteps[start * made.order :]
    made.set_begin_index(start * made.order)
    noisy = made.scale_noise(UNIT, left[:1], UNIT.flip(0))
    assert len(left) == n - start
    assert torch.isfinite(drive(made, noisy, left)).all()


@pytest.mark.parametrize("solver", srk.solvers())
def test_every_solver_starts_at_any_step(solver: str) -> None:
    """As image-to-image pipelines do; one whose nodes are random by the step's number too."""
    made = vp(solver=solver)
    made.set_timesteps(5)
    for k in range(5):
        left = made.timesteps[k * made.order :]
        made.set_begin_index(k * made.order)
        noisy = made.add_noise(UNIT, UNIT.flip(0), left[:1])
        assert torch.isfinite(drive(made, noisy, left)).all()


@pytest.mark.parametrize(("strength", "time"), [(0.3, 263.9), (0.05, None)])
def test_img2img_of_a_flow_by_two_stages(strength: float, time: float | None) -> None:
    """Case 1f: strength 0.3 of 20 steps starts at the 15th, and 0.05 makes one step."""
    config = diffusers.FlowMatchEulerDiscreteScheduler().config
    made = SRKScheduler.from_config(config, solver="heun")
    made.set_timesteps(20)
    start = 20 - min(int(20 * strength), 20)
    left = made.timesteps[start * made.order :]
    assert len(left) > 0
    assert time is None or float(left[0]) == pytest.approx(time, abs=0.05)
    made.set_begin_index(start * made.order)
    noisy = made.scale_noise(UNIT, left[:1], UNIT.flip(0))
    result = drive(made, noisy, left)
    route = made._route
    assert route is not None
    process, score = from_diffusers(network, made)
    grid = list(route.times[start:])
    other = srk.solve(process, score, "heun", x_init=noisy, grid=grid).x
    torch.testing.assert_close(result, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["heun", "dpm2", "dpm-solver-2", "dpm-solver-3"])
def test_the_first_call_is_at_the_state_at_every_level(solver: str) -> None:
    """Case 1e: x/alpha times alpha is x but for rounding, and edits between the steps are kept."""
    made = vp(solver=solver)
    for n in range(2, 40):
        made.set_timesteps(n)
        assert len(made.timesteps) == made.order * (n - 1) + 1, n
    made.set_timesteps(7)
    x = UNIT
    for t in made.timesteps:  # an edit before each step
        if made._entries[made._index(t)].stage == 0:
            x = x.clone()
            x[:, 0] = 0.25
        x = made.step(network(x, t), t, x).prev_sample
    process, score = from_diffusers(network, made)
    assert made._route is not None
    grid, state = made._route.grid, UNIT
    for i in range(len(grid)):
        state = state.clone()
        state[:, 0] = 0.25
        steps: dict[str, Any] = {"grid": grid[i : i + 2], "denoise_final": False}
        if i == len(grid) - 1:  # the denoising step
            t = torch.tensor(grid[-1])
            level = process.level(grid[-1])
            state = (state - level.sigma * network(state, t)) / level.alpha
        else:
            state = srk.solve(process, score, solver, x_init=state, eta=0.0, **steps).x
    torch.testing.assert_close(x, state, rtol=1e-5, atol=1e-6)


# -- the split of SDXL ----------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "srk2m", "heun", "srk2", "seeds-3"])
def test_base_and_refiner_lose_nothing(solver: str, shared: bool) -> None:
    """A run cut where SDXL cuts it, and gone on with by another scheduler, is the whole run."""
    for cut in (0.8, 0.5, 0.93):
        base, whole = vp(solver=solver, eta=None), vp(solver=solver)
        refiner = base if shared else vp(solver=solver)
        for scheduler in (base, whole):
            scheduler.set_timesteps(9)
        expected = drive(whole, UNIT)
        limit = round(1000 - cut * 1000)
        first = [t for t in base.timesteps if t >= limit]
        x = drive(base, UNIT, torch.stack(first))
        x = drive_refiner(refiner, x.clone(), limit)
        assert torch.equal(x, expected), cut


def drive_refiner(refiner: Any, x: Tensor, limit: int) -> Tensor:
    """The part of the loop after the cut, which counts the entries as SDXL's pipeline does."""
    refiner.set_timesteps(9)
    n = int((refiner.timesteps < limit).sum())
    if refiner.order == 2 and n % 2 == 0:
        n += 1
    start = len(refiner.timesteps) - n
    left = refiner.timesteps[start:]
    refiner.set_begin_index(start)
    return drive(refiner, x, left)


def test_another_state_is_not_taken_for_a_run_handed_over() -> None:
    """A state that no run left starts anew, also where another run stopped at that level."""
    base, refiner, fresh = (vp(solver="dpmpp-2m") for _ in range(3))
    base.set_timesteps(9)
    drive(base, UNIT, base.timesteps[:5])
    results = []
    for scheduler in (refiner, fresh):
        scheduler.set_timesteps(9)
        scheduler.set_begin_index(5)
        results.append(drive(scheduler, UNIT, scheduler.timesteps[5:]))
        base.set_timesteps(9)  # the second without a run to take
    assert torch.equal(*results)


# -- small parts of the interface -----------------------------------------------------------------


def test_betas_velocity_and_previous_timestep() -> None:
    peer = diffusers.DDPMScheduler(**STABLE_DIFFUSION)
    ours = SRKScheduler.from_config(peer.config)
    torch.testing.assert_close(ours.betas, peer.betas, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(ours.alphas, peer.alphas)
    times = torch.tensor([0, 500, 999])
    torch.testing.assert_close(
        ours.get_velocity(UNIT, UNIT.flip(0), times), peer.get_velocity(UNIT, UNIT.flip(0), times)
    )
    assert ours.previous_timestep(5) == 4
    for scheduler in (peer, SRKScheduler.from_config(peer.config, solver="ddpm")):
        scheduler.set_timesteps(10)
        assert int(scheduler.previous_timestep(scheduler.timesteps[3])) == int(
            scheduler.timesteps[4]
        )
        assert int(scheduler.previous_timestep(scheduler.timesteps[-1])) == -1


def test_a_step_before_set_timesteps_is_one_of_the_training_grid() -> None:
    peer = diffusers.DDPMScheduler(clip_sample=False)
    ours = SRKScheduler.from_config(peer.config, solver="ddpm")
    for t in (999, 998, 997):
        theirs = peer.step(network(UNIT, t), t, UNIT, generator=generator(1)).prev_sample
        result = ours.step(network(UNIT, t), t, UNIT, generator=generator(1)).prev_sample
        torch.testing.assert_close(result, theirs, rtol=1e-5, atol=1e-5)


def test_as_many_steps_as_the_training_had_with_an_offset() -> None:
    peer = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False, **STABLE_DIFFUSION)
    made = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, made):
        scheduler.set_timesteps(1000)
    assert torch.equal(made.timesteps, peer.timesteps)
    assert torch.isfinite(drive(made, UNIT)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [vp, flow])
def test_timesteps_in_half_precision(make: Any, dtype: torch.dtype) -> None:
    """A pipeline may cast the timesteps to the dtype of its states."""
    made = make(solver="heun")
    made.set_timesteps(20)
    whole, x = drive(made, UNIT), UNIT
    for t in made.timesteps:
        x = made.step(network(x, t), t.to(dtype), x).prev_sample
    assert torch.equal(x, whole)
    entry = made.timesteps[7:8]
    torch.testing.assert_close(
        made.add_noise(UNIT, UNIT, entry.to(dtype)), made.add_noise(UNIT, UNIT, entry)
    )


def test_eta_of_a_step() -> None:
    """`step(..., eta=)` is the stochasticity of the run; pipelines find no such argument."""
    import inspect

    assert "eta" not in inspect.signature(SRKScheduler.step).parameters
    deterministic, stochastic = vp(solver="ddim", eta=0.0), vp(solver="ddim", eta=0.7)
    for scheduler in (deterministic, stochastic):
        scheduler.set_timesteps(6)
    first = drive(deterministic, UNIT, generator=generator(1), eta=0.7)
    assert torch.equal(first, drive(stochastic, UNIT, generator=generator(1)))
    assert torch.equal(
        drive(stochastic, UNIT, eta=0.0), drive(deterministic, UNIT, generator=generator(2))
    )
    x = UNIT  # a change within the run
    for i, t in enumerate(deterministic.timesteps):
        eta = 0.0 if i < 3 else 0.7
        options = {"generator": generator(i), "eta": eta}
        x = deterministic.step(network(x, t), t, x, **options).prev_sample
    assert torch.isfinite(x).all()
    with pytest.raises(ArgumentError, match="no option s_churn"):
        deterministic.step(UNIT, deterministic.timesteps[0], UNIT, s_churn=3.0)


def test_per_token_timesteps() -> None:
    """LTX's tokens with a time of their own stay until the run reaches it."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler()
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    limits = torch.tensor([[0.0, 1000.0, 480.0, 1000.0]])
    start = torch.randn(1, 4, 5, generator=generator(0))
    results = []
    for scheduler in (peer, ours):
        scheduler.set_timesteps(8)
        x = start
        for t in scheduler.timesteps:
            own = torch.minimum(t.expand(1, 4), limits)
            moved = scheduler.step(
                -network(x, t), t, x, per_token_timesteps=own, return_dict=False
            )[0]
            free = (t / 1000 - 1e-6 < limits / 1000).unsqueeze(-1)  # as the pipeline has it
            x = torch.where(free, moved, x)
        results.append(x)
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    made = vp(solver="ddim")
    made.set_timesteps(3)
    with pytest.raises(ArgumentError, match="for flow networks"):
        made.step(UNIT, made.timesteps[0], UNIT, per_token_timesteps=UNIT)


def test_original_inference_steps() -> None:
    peer = diffusers.LCMScheduler(**STABLE_DIFFUSION)
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(4, original_inference_steps=25)
    assert torch.equal(ours.timesteps, peer.timesteps)
    made = SRKScheduler.from_config(diffusers.EulerDiscreteScheduler().config)
    with pytest.raises(ArgumentError, match="argument of other schedulers"):
        made.set_timesteps(4, original_inference_steps=25)


@pytest.mark.parametrize("options", [{"grid": "log-snr"}, {"use_karras_sigmas": True}, {}])
def test_timesteps_rounded_to_the_training_grid(options: dict[str, Any]) -> None:
    """For pipelines that index with them (Kandinsky 2.1 from image to image)."""
    config = diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION).config
    made = SRKScheduler.from_config(config, solver="srk2m", round_timesteps=True, **options)
    made.set_timesteps(9)
    assert made.timesteps.dtype == torch.int64
    assert made.alphas_cumprod[made.timesteps].shape == made.timesteps.shape
    assert torch.isfinite(drive(made, UNIT)).all()


def test_timesteps_and_sigmas_of_a_flow() -> None:
    """Some pipelines give both: the levels, and what the network is told at each."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler()
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(timesteps=[999.0, 700.0, 250.0], sigmas=[0.98, 0.6, 0.2])
    assert torch.equal(ours.timesteps, peer.timesteps)
    torch.testing.assert_close(drive(ours, UNIT), drive(peer, UNIT), rtol=1e-5, atol=1e-6)


def test_a_grid_is_kept_where_the_pipeline_gives_its_own_sigmas() -> None:
    """Flux passes a list of sigmas in every call; what its user wants is the grid."""
    with_grid, plain = (flow(solver="ddim", grid=grid) for grid in ("log-snr", None))
    usual = [1.0, 0.75, 0.5, 0.25]
    with_grid.set_timesteps(sigmas=usual)
    plain.set_timesteps(sigmas=usual)
    other = flow(solver="ddim", grid="log-snr")
    other.set_timesteps(4)
    assert torch.equal(with_grid.timesteps, other.timesteps)
    assert not torch.equal(with_grid.timesteps, plain.timesteps)
    with_grid.set_timesteps(sigmas=[1.0, 0.9, 0.2])  # not the usual list: the user's
    assert with_grid.sigmas[1] == pytest.approx(3.0 * 0.9 / (1.0 + 2.0 * 0.9))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_states_in_the_frame_of_the_host(name: str) -> None:
    """frame="sigma": first state, network input, noising and results are those of the host."""
    peer = getattr(diffusers, name)(**STABLE_DIFFUSION, timestep_spacing="leading")
    ours = SRKScheduler.from_config(peer, solver="host", frame="sigma")
    for scheduler in (peer, ours):
        scheduler.set_timesteps(6)
    assert ours.init_noise_sigma == pytest.approx(float(peer.init_noise_sigma), rel=1e-6)
    t = peer.timesteps[2:3]
    torch.testing.assert_close(
        ours.add_noise(UNIT, UNIT.flip(0), t), peer.add_noise(UNIT, UNIT.flip(0), t)
    )
    results = []
    for scheduler in (peer, ours):
        x = UNIT * scheduler.init_noise_sigma
        scheduler.set_begin_index(0)
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, t)
            x = scheduler.step(network(seen, t), t, x, return_dict=False)[0]
        results.append(x)
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_pipelines_that_do_their_own_scaling_are_refused() -> None:
    made = SRKScheduler.from_config(diffusers.EulerDiscreteScheduler().config)
    made.set_timesteps(3)
    with pytest.raises(IncompatibleError, match="frame='sigma'"):
        made.scale_model_input(made.sigmas[0], made.timesteps[0])
    made.sigmas[-1] = made.sigmas[-2]
    with pytest.raises(IncompatibleError, match=r"changed scheduler\.sigmas"):
        made.step(UNIT, made.timesteps[0], UNIT)
    made.set_timesteps(3)
    made.step(UNIT, made.timesteps[0], UNIT)
    made._step_index -= 1
    with pytest.raises(IncompatibleError, match="set the scheduler back"):
        made.step(UNIT, made.timesteps[0], UNIT)


def test_the_shift_of_a_flow_follows_the_installed_version() -> None:
    """Whether the end of the grid is shifted once or twice is the host's, whatever it does."""
    for shift in (1.0, 3.0, 7.0):
        peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        ours = SRKScheduler.from_config(peer.config)
        direct = SRKScheduler(process="flow", shift=shift, solver="ddim")
        for scheduler in (peer, ours, direct):
            scheduler.set_timesteps(13)
        assert torch.equal(direct.timesteps, peer.timesteps)
        assert torch.equal(direct.sigmas, peer.sigmas)


@pytest.mark.parametrize("steps", [1, 2])
def test_shift_terminal_and_sigma_min_in_few_steps(steps: int) -> None:
    """Section 2: "t = nan" was the answer to one step with shift_terminal."""
    made = SRKScheduler.from_config(
        diffusers.FlowMatchEulerDiscreteScheduler(shift_terminal=0.1).config, solver="ddim"
    )
    made.set_timesteps(steps)
    assert made.timesteps[0] == 1000.0 and torch.isfinite(drive(made, UNIT)).all()
    least = vp(solver="ddim", final_sigmas_type="sigma_min")
    least.set_timesteps(steps)
    assert torch.isfinite(drive(least, UNIT)).all()
