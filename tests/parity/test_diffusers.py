"""The schedulers of diffusers 0.42 against ours: same process, same timesteps, same network, same
noise, in float64.

    pip install diffusers==0.42.1

Without it this module is skipped. diffusers computes its coefficients, and in some schedulers the
state, in float32; here its modules see a torch and a numpy whose float32 is float64 (`double`), so
that the comparison is one of methods and not of rounding. `test_in_float32` shows what is left in
the dtype that it ships with.

Where its rules differ from ours, the options are set so that they agree:

- `lower_order_final=False`: our multistep methods do not drop their order at the end. Where that is
needed, in a step to sigma = 0, ours
  are the denoiser itself (`test_the_step_to_zero`).
- `clip_sample=False`: clipping belongs to the network's adapter.

Differences that are no options are tests below: the wrong sign of sde-dpmsolver++ of order 3, the
stage noise of the single-step SDE variant, and the order-2 weights of SA-Solver.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import srk
from srk.integrators import (
    DDPM,
    LMS,
    SEEDS2,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp3MSDE,
    EDMEuler,
    Integrator,
    LinearForm,
    SASolver,
    UniPC2,
    UniPC3,
)
from srk.noise import ReplayNoise
from srk.plans.multistep import multistep_step, quadratic
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes import Level, VPDiscrete

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TARGET = srk.targets.GaussianMixture(
    [0.3, 0.5, 0.2], [[-1.0, 0.5], [0.3, -0.8], [1.2, 1.0]], [0.4, 0.6, 0.5]
)
BATCH = 3
EXACT = 1e-12


# -- diffusers in float64
# ------------------------------------------------------------


class _Double:
    """A module whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@pytest.fixture(scope="module")
def module_of() -> Callable[[str], Any]:
    """The module of a scheduler of diffusers, by the class's name."""
    if importlib.util.find_spec("diffusers") is None:
        pytest.skip("diffusers is not installed: pip install diffusers==0.42.1")
    diffusers = importlib.import_module("diffusers")
    return lambda name: importlib.import_module(getattr(diffusers, name).__module__)


Make = Callable[..., Any]


@pytest.fixture
def scheduler(module_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Make:
    """A scheduler by name, computing in float64 (unless double=False), whose draws are the given
    ones in order.
    """

    def make(
        name: str, steps: int, draws: Tensor | None = None, *, double: bool = True, **config: Any
    ) -> Any:
        module = module_of(name)
        if double:
            for library in ("torch", "np"):
                if not isinstance(getattr(module, library, None), _Double | None):
                    monkeypatch.setattr(module, library, _Double(getattr(module, library)))
        if draws is not None:
            rest = iter(draws)
            monkeypatch.setattr(
                module, "randn_tensor", lambda *args, **kwargs: next(rest), raising=True
            )
        made = getattr(module, name)(**config)
        made.set_timesteps(steps)
        return made

    return make


# -- the same problem on both sides
# ------------------------------------------------------------


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def process_of(scheduler: Any) -> VPDiscrete:
    return VPDiscrete(alphas_cumprod=scheduler.alphas_cumprod)


def run_peer(scheduler: Any, levels: Sequence[Level], x: Tensor, **options: Any) -> Tensor:
    """The scheduler's loop, with a network that predicts the noise of the target.

    `x` is the state as the scheduler scales it.
    """
    for t, level in zip(scheduler.timesteps, levels, strict=True):
        inputs = scheduler.scale_model_input(x, t)  # in the variance-preserving scale
        noise = (inputs - level.alpha * TARGET.denoise(inputs, level)) / level.sigma
        x = scheduler.step(noise, t, x, **options).prev_sample
    return x


def run_ours(
    process: Any,
    solver: str | Integrator,
    times: Sequence[float],
    x: Tensor,
    draws: Tensor | None = None,
    *,
    final: bool = False,
    **options: Any,
) -> Tensor:
    noise = None if draws is None else ReplayNoise(draws)
    return srk.solve(
        process,
        TARGET.score(process),
        solver,
        x_init=x,
        grid=list(times),
        noise=noise,
        denoise_final=final,
        **options,
    ).x


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_equal(ours: Tensor, theirs: Tensor, rtol: float = EXACT) -> None:
    assert difference(ours, theirs) < rtol, f"relative difference {difference(ours, theirs):.2e}"


@attrs.frozen
class Run:
    """A scheduler of the variance-preserving family, its process and grid, and both sides'
    results on it.
    """

    scheduler: Any
    draws: Tensor | None = None
    ends_at: float | None = 0.0
    """Own time at the end, or None where the scheduler ends at sigma = 0."""

    @property
    def process(self) -> VPDiscrete:
        return process_of(self.scheduler)

    @property
    def times(self) -> list[float]:
        times = [float(t) for t in self.scheduler.timesteps]
        return times if self.ends_at is None else [*times, self.ends_at]

    def theirs(self, **options: Any) -> Tensor:
        process = self.process
        levels = [process.level(float(t)) for t in self.scheduler.timesteps]
        return run_peer(self.scheduler, levels, normal(BATCH, 2, seed=1), **options)

    def ours(self, solver: str | Integrator, **options: Any) -> Tensor:
        return run_ours(
            self.process,
            solver,
            self.times,
            normal(BATCH, 2, seed=1),
            self.draws,
            final=self.ends_at is None,
            **options,
        )


GRIDS = [(8, "linspace"), (15, "leading"), (20, "trailing")]


# -- ancestral: DDPM, DDIM
# ------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "euler-ancestral"])
def test_ddpm(scheduler: Make, spacing: str, solver: str) -> None:
    """DDPMScheduler is `ddpm`, and with it the other names of that step; it ends with the denoiser.

    Its step goes to t - 1000 // steps, which is a point of its grid if `steps` divides 1000 and the
    spacing is not "linspace".
    """
    draws = normal(20, BATCH, 2, seed=2)
    run = Run(
        scheduler("DDPMScheduler", 20, draws, clip_sample=False, timestep_spacing=spacing),
        draws,
        ends_at=None,
    )
    # "trailing" ends above index 0: the last step should add no noise, but its variance is clamped
    # at 1e-20
    assert_equal(run.ours(solver, eta=1.0), run.theirs(), 1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(scheduler: Make, eta: float) -> None:
    """DDIMScheduler is `ddim` with its eta."""
    draws = normal(20, BATCH, 2, seed=2)
    run = Run(scheduler("DDIMScheduler", 20, draws, clip_sample=False), draws, ends_at=None)
    assert_equal(run.ours("ddim", eta=eta), run.theirs(eta=eta))


# -- DPM-Solver
# ------------------------------------------------------------


@pytest.mark.parametrize(("steps", "spacing"), GRIDS)
@pytest.mark.parametrize(
    ("algorithm", "order", "kind", "solver", "eta"),
    [
        ("dpmsolver++", 1, "midpoint", "ddim", 0.0),
        ("dpmsolver++", 2, "midpoint", DPMpp2M(), 0.0),
        ("dpmsolver++", 2, "heun", DPMpp2M(variant="heun"), 0.0),
        ("dpmsolver++", 3, "heun", "dpmpp-3m", 0.0),
        ("sde-dpmsolver++", 1, "midpoint", "ddpm", 1.0),
        ("sde-dpmsolver++", 2, "midpoint", DPMpp2MSDE(), 1.0),
        ("sde-dpmsolver++", 2, "heun", DPMpp2MSDE(variant="heun"), 1.0),
        ("sde-dpmsolver", 1, "midpoint", DDPM(frame="noise"), 1.0),
    ],
)
def test_dpm_multistep(
    scheduler: Make,
    steps: int,
    spacing: str,
    algorithm: str,
    order: int,
    kind: str,
    solver: str | Integrator,
    eta: float,
) -> None:
    """DPMSolverMultistepScheduler, orders 1 to 3 of the ODE and 1 and 2 of the SDE.

    Order 3 starts with solver_type "heun".
    """
    draws = normal(steps, BATCH, 2, seed=2)
    config = {
        "algorithm_type": algorithm,
        "solver_order": order,
        "solver_type": kind,
        "timestep_spacing": spacing,
    }
    made = scheduler(
        "DPMSolverMultistepScheduler",
        steps,
        draws,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
        **config,
    )
    run = Run(made, draws)
    assert_equal(run.ours(solver, eta=eta), run.theirs())


@attrs.frozen(kw_only=True)
class WrongSign(DPMpp3MSDE):
    """diffusers' sde-dpmsolver++ of order 3.

    Weight -(1/2 + psi_1/x) on the second-order term; half the curvature is 1/2 - psi_1/x.
    """

    def plan(self, step: Step) -> StepPlan:
        return multistep_step(step, wrong_sign, depth=3, name=self.name)


def wrong_sign(history: Sequence[tuple[LinearForm, float]], h: float, ah: float) -> LinearForm:
    if len(history) < 3:
        return quadratic(0.5)(history, h, ah)
    (d, lam), (d1, lam1), (d2, lam2) = history
    r0, r1 = (lam - lam1) / h, (lam1 - lam2) / h
    first, second = (d - d1) / r0, (d1 - d2) / r1
    bend = (first - second) / (r0 + r1)
    return (first + bend * r0) * psi(1, ah) - bend * (psi(1, ah) / ah + 0.5)


def test_sde_dpmsolver_3_has_a_wrong_sign(scheduler: Make) -> None:
    """Order 3 of sde-dpmsolver++ differs from `dpmpp-3m-sde` by the sign of 1/2 in one
    coefficient, and by nothing else.
    """
    draws = normal(20, BATCH, 2, seed=2)
    config = {
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 3,
        "solver_type": "heun",
        "lower_order_final": False,
    }
    run = Run(
        scheduler(
            "DPMSolverMultistepScheduler", 20, draws, final_sigmas_type="sigma_min", **config
        ),
        draws,
    )
    theirs = run.theirs()
    assert_equal(run.ours(WrongSign(), eta=1.0), theirs)
    assert difference(run.ours("dpmpp-3m-sde", eta=1.0), theirs) > 1e-3


def single_step(
    scheduler: Make, orders: int, steps: int, draws: Tensor | None = None, **config: Any
) -> tuple[Any, Any, list[float], Tensor]:
    """A single-step scheduler on a uniform half log-SNR grid of `steps` sub-steps, the process, our
    times and its result.

    Its stages are the points of its grid, which no spacing of its own puts in the middle of a step;
    so it is given the sigmas.
    """
    made = scheduler(
        "DPMSolverSinglestepScheduler",
        steps,
        draws,
        solver_order=orders,
        lower_order_final=False,
        **config,
    )
    process = process_of(made)
    top, bottom = float(process.lam(990.0)), float(process.lam(3.0))
    lams = [top + (bottom - top) * i / steps for i in range(steps + 1)]
    made.sigmas = torch.tensor([math.exp(-lam) for lam in lams], dtype=torch.float64)
    theirs = run_peer(made, [process.level_at(lam) for lam in lams[:-1]], normal(BATCH, 2, seed=1))
    return made, process, [process.time(lam) for lam in lams[::orders]], theirs


@pytest.mark.parametrize(
    ("algorithm", "kind", "solver"),
    [
        ("dpmsolver++", "midpoint", SEEDS2()),
        ("dpmsolver++", "midpoint", "dpmpp-2s-ancestral"),
        ("dpmsolver++", "heun", SEEDS2(weights="phi2")),
        ("dpmsolver", "midpoint", "dpm-solver-2"),
    ],
)
def test_dpm_single_step(
    scheduler: Make, algorithm: str, kind: str, solver: str | Integrator
) -> None:
    """DPMSolverSinglestepScheduler of order 2.

    DPM-Solver++(2S) is `seeds-2` and `dpmpp-2s-ancestral` at eta = 0; DPM-Solver-2.
    """
    config = {"algorithm_type": algorithm, "solver_type": kind, "final_sigmas_type": "sigma_min"}
    _, process, times, theirs = single_step(scheduler, 2, 16, **config)
    assert_equal(run_ours(process, solver, times, normal(BATCH, 2, seed=1), eta=0.0), theirs)


def test_dpm_single_step_3_is_another_method(scheduler: Make) -> None:
    """Its order 3 takes the slope of the second stage by solver_type too, and with "heun" the
    curvature of all three; none of ours does.
    """
    for kind in ("midpoint", "heun"):
        config = {
            "algorithm_type": "dpmsolver++",
            "solver_type": kind,
            "final_sigmas_type": "sigma_min",
        }
        _, process, times, theirs = single_step(scheduler, 3, 18, **config)
        assert (
            1e-6
            < difference(
                run_ours(process, "seeds-3", times, normal(BATCH, 2, seed=1), eta=0.0), theirs
            )
            < 0.1
        )


def test_single_step_sde_draws_its_stage_anew(scheduler: Make) -> None:
    """The SDE variant of order 2 draws the noise of stage and update independently.

    `seeds-2` but for that, and less accurate.
    """
    draws = normal(16, BATCH, 2, seed=2)
    config = {
        "algorithm_type": "sde-dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "sigma_min",
    }
    _, process, times, theirs = single_step(scheduler, 2, 16, draws, **config)
    assert_equal(
        run_ours(process, _IndependentStage(), times, normal(BATCH, 2, seed=1), draws), theirs
    )
    law = srk.analysis.gaussian_kl
    assert law(_IndependentStage(), srk.VP(), steps=24) > 3.0 * law("seeds-2", srk.VP(), steps=24)


class _IndependentStage(Integrator):
    """DPM-Solver++(2S) for the SDE with independent noise in stage and update, as diffusers has
    it.
    """

    name = "independent-stage"
    evaluations_per_step = 2

    def plan(self, step: Step) -> StepPlan:
        start, stop, x = step.start, step.stop, 2.0 * step.h
        level = step.process.level_at(start.lam + 0.5 * step.h)
        draft = step.draft()
        first = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha
        z1, z2 = draft.normal(0.0, 1.0), draft.normal(1.0, 2.0)
        stage = (
            u * math.exp(-0.5 * x)
            + first.value * psi(0, 0.5 * x)
            + z1 * (level.r * math.sqrt(psi(0, 0.5 * x)))
        )
        node = draft.evaluate(stage * level.alpha, level)
        return draft.finish(
            (u * math.exp(-x) + node.value * psi(0, x) + z2 * (stop.r * math.sqrt(psi(0, x))))
            * stop.alpha
        )


# -- DEIS, UniPC, SA-Solver
# ------------------------------------------------------------


@pytest.mark.parametrize(("steps", "spacing"), GRIDS)
@pytest.mark.parametrize(("order", "solver"), [(1, "ddim"), (2, "deis-2"), (3, "deis-3")])
def test_deis(scheduler: Make, steps: int, spacing: str, order: int, solver: str) -> None:
    """DEISMultistepScheduler (log-rho), orders 1 to 3."""
    made = scheduler(
        "DEISMultistepScheduler",
        steps,
        solver_order=order,
        lower_order_final=False,
        timestep_spacing=spacing,
    )
    run = Run(made)
    assert_equal(run.ours(solver, eta=0.0), run.theirs())


@pytest.mark.parametrize(("steps", "spacing"), GRIDS)
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(("order", "solver"), [(2, UniPC2), (3, UniPC3)])
@pytest.mark.parametrize("corrector", [True, False])
def test_unipc(
    scheduler: Make,
    steps: int,
    spacing: str,
    variant: str,
    order: int,
    solver: type[UniPC2],
    corrector: bool,
) -> None:
    """UniPCMultistepScheduler, orders 2 and 3, both B(h), with the corrector and without."""
    config = {
        "solver_type": variant,
        "solver_order": order,
        "timestep_spacing": spacing,
        "final_sigmas_type": "sigma_min",
    }
    off = [] if corrector else list(range(steps))
    run = Run(
        scheduler(
            "UniPCMultistepScheduler",
            steps,
            lower_order_final=False,
            disable_corrector=off,
            **config,
        )
    )
    assert_equal(run.ours(solver(variant=variant, corrector=corrector)), run.theirs())


@pytest.mark.parametrize(("steps", "spacing"), GRIDS[1:])
@pytest.mark.parametrize(
    ("predictor", "corrector"), [(1, 1), (2, 2), (3, 3), (3, 4), (4, 4), (1, 3), (4, 1)]
)
@pytest.mark.parametrize("eta", [0.6, 1.0])
def test_sa_solver(
    scheduler: Make, steps: int, spacing: str, predictor: int, corrector: int, eta: float
) -> None:
    """SASolverScheduler with constant tau, all orders, in float64.

    Its order-2 weights are those of few_steps.
    """
    draws = normal(steps, BATCH, 2, seed=2)
    config = {
        "predictor_order": predictor,
        "corrector_order": corrector,
        "timestep_spacing": spacing,
        "lower_order_final": False,
    }
    made = scheduler(
        "SASolverScheduler",
        steps,
        draws,
        tau_func=lambda t: torch.tensor(eta, dtype=torch.float64),
        **config,
    )
    run = Run(made, draws)
    assert_equal(
        run.ours(SASolver(predictor=predictor, corrector=corrector, few_steps=True), eta=eta),
        run.theirs(),
    )


def test_sa_solver_tau(scheduler: Make) -> None:
    """The default tau of diffusers (1 for 200 <= t <= 800, else 0) as an interval of
    sigma/alpha, and as a function of it.
    """
    steps = 20
    draws = normal(steps, BATCH, 2, seed=2)
    made = scheduler(
        "SASolverScheduler",
        steps,
        draws,
        lower_order_final=False,
        tau_func=lambda t: torch.tensor(float(200 <= t <= 800), dtype=torch.float64),
    )
    run = Run(made, draws)
    theirs = run.theirs()
    low, high = run.process.level(200.0).r, run.process.level(800.0).r
    # steps without noise draw nothing here: leave their draws out
    run = attrs.evolve(run, draws=draws[[200.0 <= t <= 800.0 for t in run.times[:-1]]])
    assert_equal(
        run.ours(SASolver(predictor=2, corrector=2, few_steps=True, tau=(low, high))), theirs
    )
    function = SASolver(
        predictor=2, corrector=2, few_steps=True, tau=lambda r: float(low <= r <= high)
    )
    assert_equal(run.ours(function), theirs)


# -- in sigma/alpha: Heun, Euler, LMS, DPM2, EDM
# ------------------------------------------------------------


def preserving(r: float) -> Level:
    """The level of noise-to-signal ratio `r` in the variance-preserving scale (its time is not
    used).
    """
    alpha = 1.0 / math.hypot(1.0, r)
    return Level(math.nan, alpha, r * alpha, -math.log(r))


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("HeunDiscreteScheduler", "heun"),
        ("EulerAncestralDiscreteScheduler", "euler-ancestral"),
        ("EulerAncestralDiscreteScheduler", "ddpm"),
        ("EulerDiscreteScheduler", "ddim"),
        ("LMSDiscreteScheduler", LMS()),
        ("KDPM2DiscreteScheduler", "dpm2"),
        ("KDPM2AncestralDiscreteScheduler", "dpm2-ancestral"),
    ],
)
def test_schedulers_in_sigma(scheduler: Make, name: str, solver: str | Integrator) -> None:
    """The schedulers whose state is x/alpha: on EDM with their sigmas, which end at 0."""
    stochastic = "Ancestral" in name
    draws = normal(12, BATCH, 2, seed=2) if stochastic else None
    made = scheduler(name, 12, draws, timestep_spacing="trailing")
    asked = list(made.sigmas[: len(made.timesteps)])
    if (
        "KDPM2" in name
        # every second call is in the middle of a step, in a list of its own that the two index
        # differently
    ):
        middles = (
            made.sigmas_interpol[1::2]
            if name == "KDPM2DiscreteScheduler"
            else made.sigmas_interpol[0::2]
        )
        asked[1::2] = middles[: len(asked) // 2]
    x = normal(BATCH, 2, seed=1) * float(made.sigmas[0])
    theirs = run_peer(made, [preserving(float(r)) for r in asked], x)
    times = list(
        dict.fromkeys(float(r) for r in made.sigmas)
    )  # where a step makes two calls, most stand there twice
    ours = run_ours(
        srk.EDM(sigma_min=0.0, sigma_max=times[0]),
        solver,
        times,
        x,
        draws,
        eta=1.0 if stochastic else 0.0,
    )
    assert_equal(ours, theirs)


def run_edm_peer(made: Any, x: Tensor, **options: Any) -> Tensor:
    """The loop of an EDM scheduler, with a network whose preconditioned output is the target's
    denoiser.
    """
    data = made.config.sigma_data
    for i, t in enumerate(made.timesteps):
        r = float(made.sigmas[i])
        denoised = TARGET.denoise(
            made.scale_model_input(x, t) * math.hypot(r, data), Level(r, 1.0, r, -math.log(r))
        )
        output = (denoised - data**2 / (r**2 + data**2) * x) * (math.hypot(r, data) / (r * data))
        x = made.step(output, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize(
    ("name", "config", "solver", "eta"),
    [
        ("EDMEulerScheduler", {}, EDMEuler(s_churn=0.0), 1.0),
        ("EDMEulerScheduler", {}, "ddim", 0.0),
        ("EDMDPMSolverMultistepScheduler", {"solver_order": 1}, "ddim", 0.0),
        ("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, DPMpp2M(), 0.0),
        (
            "EDMDPMSolverMultistepScheduler",
            {"solver_order": 2, "solver_type": "heun"},
            DPMpp2M(variant="heun"),
            0.0,
        ),
        (
            "EDMDPMSolverMultistepScheduler",
            {"solver_order": 3, "solver_type": "heun"},
            "dpmpp-3m",
            0.0,
        ),
        (
            "EDMDPMSolverMultistepScheduler",
            {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
            "ddpm",
            1.0,
        ),
        (
            "EDMDPMSolverMultistepScheduler",
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
            DPMpp2MSDE(),
            1.0,
        ),
    ],
)
def test_edm(
    scheduler: Make,
    schedule: str,
    name: str,
    config: dict[str, Any],
    solver: str | Integrator,
    eta: float,
) -> None:
    """The EDM schedulers on `srk.EDM`, from sigma = 80 to 0."""
    draws = normal(20, BATCH, 2, seed=2)
    final = {} if name == "EDMEulerScheduler" else {"lower_order_final": False}
    made = scheduler(name, 20, draws, sigma_schedule=schedule, **config, **final)
    times = [float(r) for r in made.sigmas]
    x = normal(BATCH, 2, seed=1) * times[0]
    theirs = run_edm_peer(made, x)
    assert_equal(
        run_ours(srk.EDM(sigma_min=0.0, sigma_max=times[0]), solver, times, x, draws, eta=eta),
        theirs,
    )


def test_edm_euler_with_churn_asks_before_it_adds_noise(scheduler: Make) -> None:
    """EDMEulerScheduler with s_churn evaluates the network before the churn and preconditions
    after it: not EDM's Algorithm 2, nor ours.
    """
    draws = normal(20, BATCH, 2, seed=2)
    made = scheduler("EDMEulerScheduler", 20, draws)
    times = [float(r) for r in made.sigmas]
    x = normal(BATCH, 2, seed=1) * times[0]
    theirs = run_edm_peer(made, x, s_churn=5.0)
    ours = run_ours(
        srk.EDM(sigma_min=0.0, sigma_max=times[0]), EDMEuler(s_churn=5.0), times, x, draws
    )
    assert difference(ours, theirs) > 1e-3


# -- rules of the last step, and float32
# ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "solver", "eta"),
    [
        ("UniPCMultistepScheduler", {"solver_order": 2}, "unipc-2", 0.0),
        (
            "DPMSolverMultistepScheduler",
            {"solver_order": 2, "algorithm_type": "dpmsolver++"},
            "dpmpp-2m",
            0.0,
        ),
        (
            "DPMSolverMultistepScheduler",
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
            "dpmpp-2m-sde",
            1.0,
        ),
    ],
)
def test_the_step_to_zero(
    scheduler: Make, name: str, config: dict[str, Any], solver: str, eta: float
) -> None:
    """With their defaults at order 2 (the last step to sigma = 0 of order 1) the schedulers end
    with the denoiser, as ours do.
    """
    draws = normal(20, BATCH, 2, seed=2) if eta else None
    run = Run(scheduler(name, 20, draws, final_sigmas_type="zero", **config), draws, ends_at=None)
    assert_equal(run.ours(solver, eta=eta), run.theirs())


@pytest.mark.parametrize(
    ("name", "config", "solver", "eta", "rtol"),
    [
        (
            "DPMSolverMultistepScheduler",
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
            "dpmpp-2m-sde",
            1.0,
            1e-6,
        ),
        ("UniPCMultistepScheduler", {"solver_order": 3}, "unipc-3", 0.0, 1e-6),
        ("DEISMultistepScheduler", {"solver_order": 2}, "deis-2", 0.0, 1e-4),
        ("DEISMultistepScheduler", {"solver_order": 3}, "deis-3", 0.0, 1e-3),
        (
            "SASolverScheduler",
            {"predictor_order": 2, "corrector_order": 2},
            SASolver(predictor=2, corrector=2, few_steps=True),
            1.0,
            1e-5,
        ),
        (
            "SASolverScheduler",
            {"predictor_order": 4, "corrector_order": 4},
            SASolver(predictor=4, few_steps=True),
            1.0,
            1e-3,
        ),
    ],
)
def test_in_float32(
    scheduler: Make,
    name: str,
    config: dict[str, Any],
    solver: str | Integrator,
    eta: float,
    rtol: float,
) -> None:
    """As diffusers ships, with float32 sigmas and coefficients, at 50 steps.

    The coefficients of DEIS and SA-Solver cancel.
    """
    draws = normal(50, BATCH, 2, seed=2) if eta else None
    end: dict[str, Any] = (
        {}
        if name in ("DEISMultistepScheduler", "SASolverScheduler")
        else {"final_sigmas_type": "sigma_min"}
    )
    if name == "SASolverScheduler":
        end["tau_func"] = lambda t: torch.tensor(eta)
    run = Run(
        scheduler(name, 50, draws, double=False, lower_order_final=False, **config, **end), draws
    )
    assert_equal(run.ours(solver, eta=eta), run.theirs(), rtol)
