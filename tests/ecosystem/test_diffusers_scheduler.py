"""SRKScheduler against `srk.solve`, to the bit, and against the schedulers of diffusers 0.42, to
rounding.

    pip install diffusers==0.42.1

Without it this module is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from srk.ecosystem.diffusers.configs import FAMILIES  # noqa: E402
from srk.ecosystem.diffusers.conventions import convention  # noqa: E402
from srk.errors import ArgumentError, IncompatibleError, ScoreError, TimeError  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)
BATCH = 3
STEPS = 6
ROUNDING = 5e-6
"""Both sides compute in float32: 40 units of the last place, for up to 20 steps. Measured: below
2e-6, mostly below 5e-7."""
CONFIGS: dict[str, Any] = {
    "vp": lambda: diffusers.DDPMScheduler(clip_sample=False).config,
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config,
    "edm": lambda: diffusers.EDMEulerScheduler().config,
    "zero": lambda: (
        diffusers.DDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        ).config
    ),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(scheduler: Any, seed: int = 0) -> Tensor:
    return torch.randn(BATCH, 2, generator=generator(seed)) * scheduler.init_noise_sigma


def network(config: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact network of the target, in the convention of a scheduler's config: input and time as
    a pipeline gives them.
    """
    made = convention(config)

    def call(x: Tensor, t: Tensor) -> Tensor:
        level = made.level(float(t.flatten()[0]))
        prediction = made.prediction(call)
        scale = (
            1.0 / math.hypot(level.sigma, made.options["sigma_data"])
            if made.family == "edm"
            else 1.0
        )
        a, b = prediction.coefficients(level)
        state = (x / scale).double()
        return ((TARGET.denoise(state, level) - a * state) / b).to(x.dtype)

    return call


def drive(
    scheduler: Any,
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    timesteps: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The loop of a pipeline."""
    for t in scheduler.timesteps if timesteps is None else timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(net(seen, t), t, x, return_dict=False, **options)[0]
    return x


def draws_of(seed: int) -> Callable[[Any, str, Tensor], Tensor]:
    """The draws of a pipeline with a generator of that seed, for `srk.solve`."""
    draws = generator(seed)
    return lambda slot, clock, out: out.normal_(generator=draws)


def solved(
    scheduler: Any,
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    times: list[float],
    *,
    denoise: bool,
    seed: int = 1,
) -> srk.Solution:
    """What `srk.solve` makes of the same network, grid and draws."""
    process, score = from_diffusers(net, scheduler)
    return srk.solve(
        process,
        score,
        scheduler.integrator,
        x_init=x,
        grid=times,
        eta=scheduler.config.eta,
        noise=draws_of(seed),
        denoise_final=denoise,
    )


def times_of(family: str) -> tuple[list[float], bool]:
    """Own times of the grids of `CONFIGS` with `STEPS` steps, and whether the denoiser follows."""
    if family == "vp":
        return [166.0 * i for i in range(5, -1, -1)], True
    if family == "zero":
        return [999.0, 832.0, 666.0, 499.0, 332.0, 166.0], True
    peer = (
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        if family == "flow"
        else diffusers.EDMEulerScheduler()
    )
    peer.set_timesteps(STEPS)
    return [float(s) for s in peer.sigmas], False


# -- the same as solve, to the bit ----------------------------------------------------------------


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("solver", srk.solvers())
def test_equals_solve_bit_for_bit(solver: str, family: str) -> None:
    """Every registered solver, driven by a pipeline's loop, gives the samples of `srk.solve` and
    makes its network calls.
    """
    config = CONFIGS[family]()
    scheduler = SRKScheduler.from_config(config, solver=solver)
    times, denoise = times_of(family)
    given = (
        {"timesteps": times}
        if denoise
        else {
            "sigmas": [3.0 - 2.0 * s and s / (3.0 - 2.0 * s) for s in times]
            if family == "flow"
            else times
        }
    )
    scheduler.set_timesteps(**given)
    times = list(scheduler._route.times)  # float64 where the other's are float32
    assert times == pytest.approx(times_of(family)[0], rel=1e-6)
    x, net = start(scheduler), network(config)
    ours = drive(scheduler, net, x, generator=generator(1))
    sol = solved(scheduler, net, x, times, denoise=denoise)
    assert torch.equal(ours, sol.x)
    assert sol.nfe == len(scheduler.timesteps)


@pytest.mark.parametrize("solver", srk.solvers())
def test_eta_zero_equals_solve_or_is_refused(solver: str) -> None:
    """The probability-flow ODE, of the solvers that have it; the others say which has."""
    config = CONFIGS["vp"]()
    scheduler = SRKScheduler.from_config(config, solver=solver, eta=0.0)
    if srk.solvers()[solver].eta_range[0] > 0.0:
        with pytest.raises(IncompatibleError, match="is defined for"):
            scheduler.set_timesteps(STEPS)
        return
    scheduler.set_timesteps(STEPS)
    x, net = start(scheduler), network(config)
    assert torch.equal(
        drive(scheduler, net, x), solved(scheduler, net, x, *times_of("vp")[:1], denoise=True).x
    )


def test_only_a_first_step_that_draws_before_its_call_is_replaced() -> None:
    """A pipeline calls the network at the state that it drew. Where a solver would draw first, its
    first step is exponential Euler; all else is the solver's.
    """
    from srk.plans.exponential import exponential_step
    from srk.plans.plan import STATE
    from srk.plans.step import Step
    from srk.sampling.planning import plan_grid

    process, times = srk.EDM(), [80.0, 10.0, 1.0, 0.1]
    replaced = set()
    for name, method in srk.solvers().items():
        eta = method.default_eta
        ours = plan_grid(
            process, SRKScheduler(solver=name).integrator.choose(process, eta, 3), times, eta
        )
        theirs = plan_grid(process, method.choose(process, eta, 3), times, eta)
        if theirs[0].stages[0].row == ((STATE, 1.0),):
            assert ours == theirs
        else:
            replaced.add(name)
            first = exponential_step(Step(process, process.level(80.0), process.level(10.0), eta))
            assert (ours[0].stages[0], ours[0].update) == (first.stages[0], first.update)
            # what pipelines count on: as many calls as the other steps have
            assert len(ours[0].stages) == method.evaluations_per_step
            assert [[stage.level for stage in plan.stages] for plan in ours[1:]] == [
                [stage.level for stage in plan.stages] for plan in theirs[1:]
            ]
    assert {"srk2m", "auto"} <= replaced < set(srk.solvers())


# -- the same as diffusers, to rounding -----------------------------------------------------------


def run_peer(
    peer: Any, net: Callable[[Tensor, Tensor], Tensor], x: Tensor, **options: Any
) -> Tensor:
    return drive(
        peer, net, x * peer.init_noise_sigma if hasattr(peer, "init_noise_sigma") else x, **options
    )


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


UNIT = torch.randn(BATCH, 2, generator=generator(3))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_ddpm(spacing: str, kind: str) -> None:
    """`ddpm` is DDPMScheduler: the same timesteps, the same draws from the same generator, the same
    samples.
    """
    peer = diffusers.DDPMScheduler(
        clip_sample=False, timestep_spacing=spacing, prediction_type=kind
    )
    ours = SRKScheduler.from_config(peer.config, solver="ddpm")
    net = network(peer.config)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(20)
    assert torch.equal(ours.timesteps, peer.timesteps)
    assert (
        relative(
            drive(ours, net, UNIT, generator=generator(4)),
            run_peer(peer, net, UNIT, generator=generator(4)),
        )
        < ROUNDING
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"clip_sample": True, "clip_sample_range": 0.5},
        {"thresholding": True, "sample_max_value": 1.2},
    ],
)
def test_limits_on_the_prediction(limits: dict[str, Any]) -> None:
    """`clip_sample` and `thresholding` are those of DDPMScheduler."""
    peer = diffusers.DDPMScheduler(**limits)
    ours = SRKScheduler.from_config(peer.config, solver="ddpm")
    for scheduler in (peer, ours):
        scheduler.set_timesteps(20)

    def net(x: Tensor, t: Tensor) -> Tensor:  # its denoised predictions leave the bounds
        return 0.5 * torch.sin(3.0 * x)

    x = UNIT.view(BATCH, 2, 1, 1)
    theirs = run_peer(peer, net, x, generator=generator(4))
    assert relative(drive(ours, net, x, generator=generator(4)), theirs) < ROUNDING
    free = SRKScheduler.from_config(
        {**peer.config, "clip_sample": False, "thresholding": False}, solver="ddpm"
    )
    free.set_timesteps(20)
    assert relative(drive(free, net, x, generator=generator(4)), theirs) > 0.1


def test_ddim() -> None:
    """`ddim` at eta = 0 is DDIMScheduler."""
    peer = diffusers.DDIMScheduler(clip_sample=False)
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    net = network(peer.config)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(20)
    assert torch.equal(ours.timesteps, peer.timesteps)
    assert relative(drive(ours, net, UNIT), run_peer(peer, net, UNIT)) < ROUNDING


def test_zero_terminal_snr() -> None:
    """A start at alpha = 0: `ddim` is DDIMScheduler there too."""
    peer = diffusers.DDIMScheduler.from_config(CONFIGS["zero"](), clip_sample=False)
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    net = network(peer.config)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(10)
    assert float(ours.alphas_cumprod[-1]) == 0.0
    assert relative(drive(ours, net, UNIT), run_peer(peer, net, UNIT)) < ROUNDING


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_dpm_solver_multistep(final: str) -> None:
    """`dpmpp-2m` is DPMSolverMultistepScheduler on the same timesteps."""
    peer = diffusers.DPMSolverMultistepScheduler(lower_order_final=False, final_sigmas_type=final)
    ours = SRKScheduler.from_config(peer.config, solver="dpmpp-2m")
    net, timesteps = network(peer.config), [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    for scheduler in (peer, ours):
        scheduler.set_timesteps(timesteps=timesteps)
    assert ours.timesteps.tolist() == timesteps
    assert relative(drive(ours, net, UNIT), run_peer(peer, net, UNIT)) < ROUNDING


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("schedule", ["", "karras", "exponential", "beta"])
def test_sigma_schedules(schedule: str, spacing: str, final: str) -> None:
    """The grids are those of EulerDiscreteScheduler, whose Euler steps in sigma are `ddim` at eta =
    0.
    """
    options = {f"use_{schedule}_sigmas": True} if schedule else {}
    peer = diffusers.EulerDiscreteScheduler(
        timestep_spacing=spacing, final_sigmas_type=final, steps_offset=1, **options
    )
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(12)
    assert torch.equal(ours.timesteps, peer.timesteps)
    assert ours.sigmas.tolist() == pytest.approx(peer.sigmas.tolist(), rel=1e-6, abs=1e-9)
    net = network(peer.config)
    scale = float((1.0 + peer.sigmas[0] ** 2).sqrt())  # its state is x/alpha
    theirs = drive(peer, net, UNIT * scale)
    if final == "sigma_min":
        theirs = theirs / float((1.0 + peer.sigmas[-1] ** 2).sqrt())
    assert relative(drive(ours, net, UNIT), theirs) < ROUNDING


def test_custom_sigmas() -> None:
    """A published list of sigmas, the last of which is 0, as EulerDiscreteScheduler takes it."""
    from diffusers.schedulers import AysSchedules

    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    peer = diffusers.EulerDiscreteScheduler(**config)
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(sigmas=AysSchedules["StableDiffusionSigmas"])
    assert ours.timesteps.tolist() == pytest.approx(peer.timesteps.tolist(), abs=2e-2)
    assert ours.sigmas.tolist() == pytest.approx(peer.sigmas.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"shift": 3.0}, {}),
        ({"use_dynamic_shifting": True}, {"mu": 0.8}),
        ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, {"mu": 2.0}),
        ({"use_dynamic_shifting": True, "shift_terminal": 0.1}, {"mu": 0.8}),
        ({"use_karras_sigmas": True}, {}),
        ({"use_exponential_sigmas": True}, {}),
        ({"use_beta_sigmas": True, "shift": 2.0}, {}),
        ({"shift": 3.0}, {"sigmas": [1.0, 0.75, 0.5, 0.25]}),
    ],
)
def test_flow_euler(config: dict[str, Any], options: dict[str, Any]) -> None:
    """`ddim` at eta = 0 is FlowMatchEulerDiscreteScheduler, on its grids."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(
            len(options.get("sigmas", range(10))) if "sigmas" not in options else None, **options
        )
    assert ours.timesteps.tolist() == pytest.approx(peer.timesteps.tolist(), rel=1e-6)
    net = network(peer.config)
    assert relative(drive(ours, net, UNIT), drive(peer, net, UNIT)) < ROUNDING


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm(schedule: str, kind: str) -> None:
    """`ddim` at eta = 0 is EDMEulerScheduler, and `dpmpp-2m` EDMDPMSolverMultistepScheduler, with
    EDM's input scale, time and preconditioning.
    """
    config = {"sigma_schedule": schedule, "prediction_type": kind}
    for peer, solver in (
        (diffusers.EDMEulerScheduler(**config), "ddim"),
        (diffusers.EDMDPMSolverMultistepScheduler(lower_order_final=False, **config), "dpmpp-2m"),
    ):
        ours = SRKScheduler.from_config(peer.config, solver=solver, eta=0.0)
        for scheduler in (peer, ours):
            scheduler.set_timesteps(12)
        assert ours.timesteps.tolist() == pytest.approx(peer.timesteps.tolist(), abs=1e-5)
        assert float(ours.init_noise_sigma) == pytest.approx(float(peer.init_noise_sigma))
        net = network(peer.config)
        assert (
            relative(drive(ours, net, UNIT * ours.init_noise_sigma), run_peer(peer, net, UNIT))
            < ROUNDING
        )


def test_stable_video_config() -> None:
    """EulerDiscreteScheduler with continuous time and v_prediction (Stable Video) is an EDM network
    with sigma_data = 1.
    """
    peer = diffusers.EulerDiscreteScheduler(
        timestep_type="continuous",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    ours = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(12)
    assert ours.timesteps.tolist() == pytest.approx(peer.timesteps.tolist(), abs=1e-5)
    net = network(peer.config)
    assert relative(drive(ours, net, UNIT * 700.0), drive(peer, net, UNIT * 700.0)) < ROUNDING


def test_noising() -> None:
    """`add_noise` at training steps is DDPMScheduler's, `scale_noise` in a run
    FlowMatchEulerDiscreteScheduler's.
    """
    peer = diffusers.DDPMScheduler()
    x, noise, times = (
        UNIT,
        torch.randn(BATCH, 2, generator=generator(9)),
        torch.tensor([0, 500, 999]),
    )
    ours = SRKScheduler.from_config(peer.config)
    torch.testing.assert_close(ours.add_noise(x, noise, times), peer.add_noise(x, noise, times))
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = SRKScheduler.from_config(flow.config, solver="ddim")
    for scheduler in (flow, ours):
        scheduler.set_timesteps(10)
    torch.testing.assert_close(
        ours.scale_noise(x, ours.timesteps[3:4], noise),
        flow.scale_noise(x, flow.timesteps[3:4], noise),
    )
    with pytest.raises(ArgumentError, match="one for all, or one for each"):
        ours.add_noise(x, noise, ours.timesteps[:2])


# -- the order of calls ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver", ["heun", "srk2", "seeds-3", "awr3", "srk2m", "dpmpp-3m-sde", "dpmpp-2s-ancestral"]
)
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_start_in_the_middle(solver: str, family: str) -> None:
    """A run that starts at step j, as pipelines slice it, is `srk.solve` from there where the entry
    begins a step; else it goes to the step's end.
    """
    config = CONFIGS[family]()
    scheduler = SRKScheduler.from_config(config, solver=solver)
    net, x = network(config), UNIT
    for j in range(1, STEPS):
        scheduler.set_timesteps(STEPS)
        times, begin = (
            list(scheduler._route.times),
            min(j * scheduler.order, len(scheduler.timesteps) - 1),
        )
        scheduler.set_begin_index(begin)
        noisy = scheduler.add_noise(x, UNIT.flip(0), scheduler.timesteps[begin : begin + 1])
        ours = drive(scheduler, net, noisy, scheduler.timesteps[begin:], generator=generator(1))
        assert scheduler.step_index == len(scheduler.timesteps)
        assert torch.isfinite(ours).all()
        entry = scheduler._entries[begin]
        if entry.stage == 0 and entry.level.t == times[entry.step] and entry.step < len(times) - 1:
            assert torch.equal(
                ours, solved(scheduler, net, noisy, times[entry.step :], denoise=family == "vp").x
            )
            again = SRKScheduler.from_config(config, solver=solver)
            again.set_timesteps(
                STEPS
            )  # an element of `timesteps` tells its place without set_begin_index
            assert torch.equal(
                ours, drive(again, net, noisy, again.timesteps[begin:], generator=generator(1))
            )


def test_a_start_inside_a_step_goes_to_its_end() -> None:
    """From the second entry of a step of a flow: `ddpm` to the end of the step, then the solver."""
    config = CONFIGS["flow"]()
    scheduler = SRKScheduler.from_config(config, solver="srk2")
    scheduler.set_timesteps(4)
    entry, times = scheduler._entries[5], scheduler._route.times
    assert (entry.step, entry.stage) == (2, 1)
    scheduler.set_begin_index(5)
    net = network(config)
    ours = drive(scheduler, net, UNIT, scheduler.timesteps[5:], generator=generator(1))
    process, score = from_diffusers(net, scheduler)
    noise = draws_of(1)
    there = srk.solve(
        process,
        score,
        "ddpm",
        x_init=UNIT,
        grid=[entry.level.t, times[3]],
        noise=noise,
        denoise_final=False,
    ).x
    assert torch.equal(
        ours, srk.solve(process, score, "srk2", x_init=there, grid=list(times[3:]), noise=noise).x
    )


def test_repeated_timesteps_are_counted() -> None:
    """The second stage of `heun` is at the next step's time: entries repeat, and numbers or copies
    of them still find their place.
    """
    config = CONFIGS["vp"]()
    results = []
    for spell in (lambda t: t, lambda t: t.clone(), float, lambda t: t.expand(BATCH)):
        scheduler = SRKScheduler.from_config(config, solver="heun")
        scheduler.set_timesteps(4)
        times = scheduler.timesteps.tolist()
        assert times == [750, 500, 500, 250, 250, 0, 0]
        x, net = UNIT, network(config)
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t), spell(t), x).prev_sample
        results.append(x)
        with pytest.raises(ArgumentError, match="is not among the timesteps"):
            scheduler.step(x, 123, x)
        scheduler.step(
            net(x, scheduler.timesteps[0]), scheduler.timesteps[0], x
        )  # a new run begins
        assert scheduler.step_index == 1
        with pytest.raises(ArgumentError, match="entry 1, which is 500, comes next"):
            scheduler.step(x, scheduler.timesteps[2], x)
        with pytest.raises(ArgumentError, match="entry 1, which is 500, comes next"):
            scheduler.step(x, 750, x)
    assert all(torch.equal(result, results[0]) for result in results)


def test_two_runs_do_not_mix() -> None:
    """A second run, after the first or in its middle, starts afresh: no memory of a multistep
    method, no count, is left.
    """
    config = CONFIGS["vp"]()
    net = network(config)
    scheduler = SRKScheduler.from_config(config, solver="dpmpp-3m")
    scheduler.set_timesteps(STEPS)
    first = drive(scheduler, net, UNIT)
    assert torch.equal(first, drive(scheduler, net, UNIT))
    drive(scheduler, net, UNIT + 1.0, scheduler.timesteps[:3])
    scheduler.set_timesteps(STEPS)
    assert torch.equal(first, drive(scheduler, net, UNIT))


def test_the_pipeline_may_change_the_state_between_steps() -> None:
    """Inpainting pastes into the state after each step: the next step starts from what it was
    given, and nothing given is overwritten.
    """
    config = CONFIGS["vp"]()
    scheduler = SRKScheduler.from_config(config, solver="ddim", eta=0.0)
    scheduler.set_timesteps(STEPS)
    net, x = network(config), UNIT.clone()
    for i, t in enumerate(scheduler.timesteps):
        if i == 3:
            x = x.clone()
            x[:, 0] = 0.25
            pasted = x.clone()
        before = x.clone()
        following = scheduler.step(net(x, t), t, x).prev_sample
        assert torch.equal(x, before)
        x = following
    times = times_of("vp")[0]
    assert torch.equal(x, solved(scheduler, net, pasted, times[3:], denoise=True).x)


@pytest.mark.parametrize("solver", ["seeds-3", "dpmpp-3m-sde", "srk2m", "unipc-3"])
def test_nothing_handed_over_is_written_to_later(solver: str) -> None:
    """Callbacks may keep what goes in and out of `step`."""
    config = CONFIGS["vp"]()
    scheduler = SRKScheduler.from_config(config, solver=solver)
    scheduler.set_timesteps(STEPS)
    net, x = network(config), UNIT
    seen: list[tuple[Tensor, Tensor]] = []
    for t in scheduler.timesteps:
        output = net(x, t)
        result = scheduler.step(output, t, x, generator=generator(1))
        seen += [
            (tensor, tensor.clone())
            for tensor in (x, output, result.prev_sample, result.pred_original_sample)
        ]
        x = result.prev_sample
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)


# -- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["generator", "keyed", "brownian"])
def test_a_list_of_generators_makes_samples_independent_of_the_batch(noise: str) -> None:
    config = CONFIGS["vp"]()
    net = network(config)

    def run(seeds: list[int], x: Tensor) -> Tensor:
        scheduler = SRKScheduler.from_config(config, solver="srk2", noise=noise)
        scheduler.set_timesteps(STEPS)
        return drive(scheduler, net, x, generator=[generator(seed) for seed in seeds])

    whole = run([5, 6, 7], UNIT)
    torch.testing.assert_close(whole[2:], run([7], UNIT[2:]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole[[2, 0]], run([7, 5], UNIT[[2, 0]]), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(whole, run([5, 6, 8], UNIT))


@pytest.mark.parametrize("noise", ["keyed", "brownian"])
def test_keyed_noise_is_that_of_solve(noise: str) -> None:
    """`noise` and `seed` mean what they mean in `srk.solve`, and leave the global random state
    alone.
    """
    config = CONFIGS["vp"]()
    scheduler = SRKScheduler.from_config(config, solver="srk2", noise=noise, seed=11)
    scheduler.set_timesteps(STEPS)
    net, state = network(config), torch.get_rng_state()
    ours = drive(scheduler, net, UNIT)
    assert torch.equal(state, torch.get_rng_state())
    process, score = from_diffusers(net, scheduler)
    sol = srk.solve(
        process, score, "srk2", x_init=UNIT, grid=times_of("vp")[0], noise=noise, seed=11
    )
    assert torch.equal(ours, sol.x)


# -- options and the config -----------------------------------------------------------------------


def test_grids_of_srk() -> None:
    """`grid="log-snr"`: the grid of `srk.solve` with the same number of network calls."""
    for family in ("vp", "flow"):
        config = CONFIGS[family]()
        scheduler = SRKScheduler.from_config(config, solver="ddpm", grid="log-snr")
        scheduler.set_timesteps(12)
        net = network(config)
        ours = drive(scheduler, net, UNIT, generator=generator(1))
        process, score = from_diffusers(net, scheduler)
        sol = srk.solve(process, score, "ddpm", x_init=UNIT, nfe=12, noise=draws_of(1))
        assert torch.equal(ours, sol.x)
        assert len(scheduler.timesteps) == sol.nfe == 12
    with pytest.raises(IncompatibleError, match="decides its steps as it goes"):
        SRKScheduler(grid="adaptive").set_timesteps(5)


def test_one_step_is_the_denoiser() -> None:
    for spacing in ("linspace", "trailing"):
        scheduler = SRKScheduler(timestep_spacing=spacing, prediction_type="sample")
        scheduler.set_timesteps(1)
        assert scheduler.timesteps.tolist() == [999]
        assert torch.equal(drive(scheduler, lambda x, t: 0.5 * x, UNIT), 0.5 * UNIT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    """Samples come back in the dtype they came in; what is lost is the rounding of the state
    between the calls.
    """
    config = CONFIGS["vp"]()
    net = network(config)
    scheduler = SRKScheduler.from_config(config, solver="ddim", eta=0.0)
    scheduler.set_timesteps(STEPS)
    full = drive(scheduler, net, UNIT)
    half = drive(scheduler, lambda x, t: net(x.float(), t).to(dtype), UNIT.to(dtype))
    assert half.dtype == dtype
    assert relative(half.float(), full) < 20 * torch.finfo(dtype).eps


def test_learned_variance_is_dropped() -> None:
    config = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False).config
    scheduler, plain = (
        SRKScheduler.from_config(config, solver="ddpm", variance_type=kind)
        for kind in ("learned_range", "fixed_small")
    )
    for one in (scheduler, plain):
        one.set_timesteps(STEPS)
    net = network(plain.config)
    both = lambda x, t: torch.cat([net(x, t), torch.ones_like(x)], dim=1)  # noqa: E731
    assert torch.equal(
        drive(scheduler, both, UNIT, generator=generator(1)),
        drive(plain, net, UNIT, generator=generator(1)),
    )
    with pytest.raises(ScoreError, match="variance_type='learned_range'"):
        drive(plain, both, UNIT)


def test_config_is_saved_and_loaded(tmp_path: Path) -> None:
    """Through a directory, with the options of the solver; and a saved scheduler of diffusers loads
    as ours.
    """
    peer = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        skip_prk_steps=True,
    )
    ours = SRKScheduler.from_config(
        peer.config,
        solver="srk2",
        solver_options={"data_variance": 0.25},
        eta=0.5,
        noise="keyed",
        seed=3,
    )
    ours.save_pretrained(tmp_path / "ours")
    again = SRKScheduler.from_pretrained(tmp_path / "ours")
    assert {key: again.config[key] for key in ours.config if not key.startswith("_")} == {
        key: value for key, value in ours.config.items() if not key.startswith("_")
    }
    assert again.integrator == ours.integrator != SRKScheduler(solver="srk2").integrator
    peer.save_pretrained(tmp_path / "peer")
    loaded = SRKScheduler.from_pretrained(tmp_path / "peer", solver="srk2")
    assert torch.equal(loaded.alphas_cumprod, peer.alphas_cumprod)
    back = diffusers.PNDMScheduler.from_config(ours.config)
    assert torch.equal(back.alphas_cumprod, peer.alphas_cumprod) and back.config.skip_prk_steps


@pytest.mark.parametrize("name", FAMILIES)
def test_the_config_of_every_known_scheduler_is_taken(name: str) -> None:
    """With what its class takes by default, which a config does not say where it was a default."""
    ours = SRKScheduler.from_config(getattr(diffusers, name)().config)
    assert ours.config.process == FAMILIES[name]
    ours.set_timesteps(4)
    assert len(ours.timesteps) == 4
    peer = getattr(diffusers, name)()
    for key in (
        "clip_sample",
        "timestep_spacing",
        "beta_schedule",
        "prediction_type",
        "sigma_data",
    ):
        if key in peer.config:
            assert ours.config[key] == peer.config[key]


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_flow_configs_of_the_multistep_schedulers(name: str) -> None:
    peer = getattr(diffusers, name)(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    for options in ({}, {"process": "flow"}):
        ours = SRKScheduler.from_config(peer.config, **options)
        assert (ours.config.process, ours.config.shift) == ("flow", 3.0)


def test_an_unknown_scheduler_is_taken_at_the_user_s_word() -> None:
    config = {"_class_name": "TheirScheduler", "num_train_timesteps": 100, "beta_end": 0.2}
    with pytest.raises(IncompatibleError, match="TheirScheduler is not that of a scheduler"):
        SRKScheduler.from_config(config)
    ours = SRKScheduler.from_config(config, process="vp", prediction_type="sample")
    ours.set_timesteps(4)
    assert (ours.config.prediction_type, ours.timesteps.tolist()[-1], len(ours)) == (
        "sample",
        0,
        100,
    )


def test_clear_errors() -> None:
    with pytest.raises(
        IncompatibleError, match="ScoreSdeVeScheduler, which SRKScheduler cannot replace"
    ):
        SRKScheduler.from_config(diffusers.ScoreSdeVeScheduler().config)
    with pytest.raises(IncompatibleError, match="invert_sigmas=True"):
        SRKScheduler.from_config(
            diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True).config
        )
    with pytest.raises(ArgumentError, match="num_inference_steps=5 contradicts the 2 timesteps"):
        SRKScheduler().set_timesteps(5, timesteps=[20, 10])
    with pytest.raises(srk.errors.UnknownNameError, match="Did you mean"):
        SRKScheduler(solver="srk2mm")
    with pytest.raises(ArgumentError, match="it has: data_variance"):
        SRKScheduler(solver="srk2", solver_options={"nu": 1.0})
    with pytest.raises(ArgumentError, match="noise must be"):
        SRKScheduler(noise="blue")
    with pytest.raises(ArgumentError, match="not among the timesteps"):
        SRKScheduler(solver="ddpm").step(UNIT, 1.5, UNIT)
    with pytest.raises(ArgumentError, match="exclude each other"):
        SRKScheduler(use_karras_sigmas=True, grid="log-snr").set_timesteps(5)
    with pytest.raises(ArgumentError, match="needs mu"):
        SRKScheduler(process="flow", use_dynamic_shifting=True).set_timesteps(5)
    with pytest.raises(ArgumentError, match="timestep_spacing must be one of"):
        SRKScheduler(timestep_spacing="even").set_timesteps(5)
    with pytest.raises(ArgumentError, match="more than the 1000 training steps"):
        SRKScheduler().set_timesteps(1001)
    with pytest.raises(ArgumentError, match="is not known for process='vp'"):
        SRKScheduler(prediction_type="score").set_timesteps(5)
    with pytest.raises(TimeError, match="must decrease"):
        SRKScheduler().set_timesteps(timesteps=[10, 20])
    with pytest.raises(ArgumentError, match="outside the range of the network"):
        SRKScheduler().set_timesteps(sigmas=[1000.0, 1.0, 0.0])
    for family in ("vp", "flow", "edm"):
        with pytest.raises(ArgumentError, match="must decrease from the noise"):
            SRKScheduler(process=family).set_timesteps(sigmas=[0.0])
    with pytest.raises(ArgumentError, match="make no step"):
        SRKScheduler(final_sigmas_type="sigma_min").set_timesteps(timesteps=[0])
    with pytest.raises(ArgumentError, match="not an entry"):
        SRKScheduler().set_begin_index(7)
    epsilon = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ).config
    scheduler = SRKScheduler.from_config(epsilon)
    scheduler.set_timesteps(5)
    with pytest.raises(IncompatibleError, match="does not determine the denoiser"):
        drive(scheduler, lambda x, t: x, UNIT)
