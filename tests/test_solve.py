"""solve(): accounting, options, failures and the messages of its errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import srk
from srk.integrators import Slot
from srk.noise import NoiseSource

VP = srk.VP()
TARGET = srk.targets.GaussianMixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2])
SCORE = TARGET.score(VP)


def score(x: Tensor, t: Tensor) -> Tensor:
    return -x


class Counting:
    """A score that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (x.shape[0],)
        self.calls += 1
        return -x


@pytest.mark.usefixtures("global_rng_untouched")
def test_the_line_of_the_readme() -> None:
    sol = srk.solve(srk.VP(), TARGET.score(srk.VP()), solver="srk2")
    assert sol.x.shape == (1, 1) and sol.status == "done" and sol.success


@pytest.mark.parametrize("solver", ["srk2", "srk2m", "ddpm", "sra3", "wcw"])
@pytest.mark.parametrize("denoise_final", [True, False])
def test_nfe_is_what_the_network_ran(solver: str, denoise_final: bool) -> None:
    """Solution.nfe counts calls, and nfe=n never spends more than n."""
    for budget in (6, 7, 20):
        counting = Counting()
        sol = srk.solve(
            VP, counting, solver, shape=(3, 2), nfe=budget, denoise_final=denoise_final, seed=0
        )
        assert sol.nfe == counting.calls <= budget
        assert budget - sol.nfe < srk.solvers()[solver].evaluations_per_step
        assert len(sol.times) == sol.steps + 1
        assert sol.times[0] == VP.t_max and sol.times[-1] == VP.t_min


@pytest.mark.parametrize(
    "process", [srk.Flow(), srk.VPCosine(), srk.VP(t_min=0.0), srk.Flow(t_min=0.0)]
)
@pytest.mark.parametrize("solver", ["srk2", "srk2m", "ddpm", "sra1"])
def test_nfe_at_the_ends(process: srk.LinearProcess, solver: str) -> None:
    """Starts at alpha = 0 and ends at sigma = 0 cost one call where they are not steps of the
    method; the budget is still spent, not exceeded.
    """
    target = srk.targets.Gaussian(0.5, 0.3)
    for nfe in (9, 12):
        sol = srk.solve(process, target.score(process), solver, shape=2000, nfe=nfe, seed=0)
        assert nfe - 2 < sol.nfe <= nfe
        if solver != "sra1":  # unstable in the raw frame with so few steps
            assert sol.x.mean().item() == pytest.approx(0.5, abs=0.1)


def test_same_seed_same_samples() -> None:
    a = srk.solve(VP, SCORE, shape=4, steps=5, seed=7)
    b = srk.solve(VP, SCORE, shape=4, steps=5, seed=7)
    c = srk.solve(VP, SCORE, shape=4, steps=5, seed=8)
    assert torch.equal(a.x, b.x) and not torch.equal(a.x, c.x)
    d = srk.solve(VP, SCORE, shape=4, steps=5)
    assert torch.equal(d.x, srk.solve(VP, SCORE, shape=4, steps=5, seed=d.seed).x)


def test_names_objects_and_options_agree() -> None:
    by_name = srk.solve(VP, SCORE, "srk2m", shape=4, steps=6, seed=0).x
    assert torch.equal(
        by_name, srk.solve(VP, SCORE, srk.integrators.SRK2M(), shape=4, steps=6, seed=0).x
    )
    assert torch.equal(
        srk.solve(VP, SCORE, "sra1", shape=4, steps=6, seed=0).x,
        srk.solve(VP, SCORE, srk.tableaus()["sra1"], shape=4, steps=6, seed=0).x,
    )
    assert srk.solvers()["srk2"] is srk.solvers()["srk2s"]


def test_start_is_not_modified_and_sets_shape_dtype() -> None:
    x = torch.ones(3, 1, dtype=torch.float64)
    sol = srk.solve(VP, SCORE, x_init=x, steps=4, seed=0)
    assert torch.equal(x, torch.ones(3, 1, dtype=torch.float64))
    assert sol.x.shape == x.shape and sol.x.dtype == torch.float64


def test_save_and_callback() -> None:
    seen: list[srk.StepInfo] = []
    sol = srk.solve(
        VP,
        SCORE,
        "srk2",
        shape=4,
        steps=5,
        seed=0,
        save=("x", "denoised"),
        callback=lambda info: seen.append(info),
    )
    assert sol.trajectory is not None and sol.denoised is not None
    assert sol.trajectory.values.shape == (6, 4, 1) and sol.trajectory.times == sol.times
    assert sol.denoised.values.shape == (6, 4, 1)  # five steps and the final one
    assert torch.equal(sol.denoised.values[-1], sol.x)
    first = SCORE.denoise(sol.trajectory.values[0], VP.level(1.0), VP)
    assert torch.allclose(sol.denoised.values[0], first)
    assert [info.index for info in seen] == list(range(5)) and [info.nfe for info in seen] == [
        2,
        4,
        6,
        8,
        10,
    ]
    assert all(info.steps == 5 and info.denoised is not None for info in seen)


def test_callback_stops() -> None:
    watch = lambda info: info.index == 2  # noqa: E731
    sol = srk.solve(VP, SCORE, "srk2", shape=4, steps=9, seed=0, callback=watch)
    assert sol.status == "stopped" and not sol.success and sol.steps == 3 and sol.nfe == 6


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    srk.solve(VP, SCORE, "ddpm", shape=4, steps=5, seed=0, progress=True)
    assert "NFE 5" in capsys.readouterr().out


def test_repr_tells_cost_and_status() -> None:
    text = repr(srk.solve(VP, SCORE, "srk2", shape=4, steps=5, seed=3))
    for part in ("done", "srk2s", "11 NFE in 5 steps", "4x1 float32 on cpu", "seed    3"):
        assert part in text


def test_a_network_that_returns_its_input_or_reuses_its_output() -> None:
    """Aliased results are not corrupted by buffer re-use.

    The run equals that of a network with fresh results.
    """
    static = torch.empty(4, 1, dtype=torch.float64)

    def recycled(x: Tensor, t: Tensor) -> Tensor:
        return static.copy_(0.3 * x)

    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]
    for solver in ("dpmpp-2m-sde", "srk2m", "srk2", "ddpm"):
        if solver not in srk.solvers():
            continue
        a = srk.solve(VP, srk.Data(recycled), solver, x_init=x, steps=6, seed=0).x
        b = srk.solve(VP, srk.Data(lambda x, t: 0.3 * x), solver, x_init=x, steps=6, seed=0).x
        assert torch.equal(a, b)
        c = srk.solve(VP, srk.Data(lambda x, t: x), solver, x_init=x, steps=6, seed=0).x
        d = srk.solve(VP, srk.Data(lambda x, t: x.clone()), solver, x_init=x, steps=6, seed=0).x
        assert torch.equal(c, d)


# -- failures
# ------------------------------------------------------------


def broken(after: int, value: float = math.nan) -> Callable[[Tensor, Tensor], Tensor]:
    calls = [0]

    def score(x: Tensor, t: Tensor) -> Tensor:
        calls[0] += 1
        out = -x
        if calls[0] > after:
            out = out.clone()
            out[:2] = value
        return out

    return score


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("solver", ["ddpm", "srk2", "srk2m"])
def test_not_finite(value: float, solver: str) -> None:
    sol = srk.solve(
        VP, broken(4, value), solver, shape=(5, 3), steps=8, seed=0, on_failure="return"
    )
    step = 2 if solver == "srk2" else 4
    assert (
        sol.status.startswith(f"failed: the score returned NaN or inf at step {step} (t = ")
        and "in 2 of 5 samples" in sol.status
    )
    assert not sol.success and sol.steps == step and torch.isfinite(sol.x).all()
    good = srk.solve(
        VP, lambda x, t: -x, solver, shape=(5, 3), steps=8, seed=0, save="x", denoise_final=False
    )
    assert good.trajectory is not None
    assert torch.equal(sol.x, good.trajectory.values[step])  # the last finite state
    with pytest.raises(
        srk.errors.SolveError, match=r"last finite state is in \.solution\.x"
    ) as failure:
        srk.solve(VP, broken(4, value), solver, shape=(5, 3), steps=8, seed=0)
    assert torch.equal(failure.value.solution.x, sol.x)


def test_large_finite_values_are_not_a_failure() -> None:
    """The cheap check is a sum, which may overflow where no value does."""
    big = torch.finfo(torch.float32).max

    def data(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, 0.75 * big)

    sol = srk.solve(
        srk.Flow(),
        srk.Data(data),
        "ddpm",
        x_init=torch.zeros(4, 2),
        grid=[0.5, 0.4],
        denoise_final=False,
        eta=0.0,
    )
    assert sol.status == "done"


CASES: list[tuple[str, type[Exception], dict[str, object]]] = [
    (
        "there is no solver named 'srk3'. Did you mean 'srk",
        srk.errors.UnknownNameError,
        {"solver": "srk3"},
    ),
    (
        "there is no controller named 'karas'. Did you mean 'karras'",
        srk.errors.UnknownNameError,
        {"grid": "karas"},
    ),
    ("there is no noise source named 'brown", srk.errors.UnknownNameError, {"noise": "brownean"}),
    ("neither shape nor x_init is given", ValueError, {"shape": None}),
    ("steps=5 and nfe=10 are alternatives", ValueError, {"steps": 5, "nfe": 10}),
    ("steps must be a positive int, not 0", ValueError, {"steps": 0}),
    ("nfe must be a positive int, not 2.5", ValueError, {"nfe": 2.5}),
    (
        "nfe=2 buys no step of srk2s, which needs 2 calls for the first and one for the "
        "final denoising; use nfe=3 or more",
        ValueError,
        {"nfe": 2, "solver": "srk2"},
    ),
    (
        "nfe=1 buys no step of auto, which needs 1 call for the first and one for the "
        "final denoising; use nfe=2 or more",
        ValueError,
        {"nfe": 1},
    ),
    (
        "must decrease from noise to data, but entry 1 (0.5) is above entry 0 (0.1); "
        "reverse the list",
        ValueError,
        {"grid": [0.1, 0.5, 1.0]},
    ),
    ("must decrease from noise to data", ValueError, {"grid": [1.0, 0.5, 0.7]}),
    ("repeats 0.5 at positions 1 and 2", ValueError, {"grid": [1.0, 0.5, 0.5, 0.1]}),
    ("needs at least two entries", ValueError, {"grid": [1.0]}),
    ("t = 1.5 is outside the range of VP", ValueError, {"grid": [1.5, 0.5]}),
    ("the grid starts at t = 0.5, below t_max = 1.0", ValueError, {"grid": [0.5, 0.1]}),
    ("needs the largest variance of the data", ValueError, {"grid": "gauge"}),
    ("both say where the steps go", ValueError, {"grid": "karras", "controller": "uniform"}),
    ("makes 2 steps, but steps=5", ValueError, {"grid": [1.0, 0.5, 0.1], "steps": 5}),
    ("eta must be a finite number >= 0", ValueError, {"eta": -1.0}),
    ("eta must be a finite number >= 0", ValueError, {"eta": math.nan}),
    (
        "wcw is defined for eta = 1 only, not eta = 0; use ",
        ValueError,
        {"solver": "wcw", "eta": 0.0},
    ),
    (
        "srk2m is defined for 0 <= eta <= 1 only, not eta = 1.5",
        ValueError,
        {"solver": "srk2m", "eta": 1.5},
    ),
    (
        "save must be 'x', 'denoised', 'log_prob', 'inputs' or several of them, not ['y']",
        ValueError,
        {"save": "y"},
    ),
    ("on_failure must be", ValueError, {"on_failure": "ignore"}),
    ("seed must be an int or None, not 0.5", TypeError, {"seed": 0.5}),
    ("a grid is a name, a decreasing list of times", TypeError, {"grid": 7}),
    ("solver must be a name, an srk.Integrator", TypeError, {"solver": 3}),
    ("process must be an srk.ForwardProcess", TypeError, {"process": "vp"}),
    ("contradicts x_init", ValueError, {"x_init": torch.zeros(4, 3)}),
    ("x_init must be a floating-point tensor", TypeError, {"x_init": [1.0], "shape": None}),
    ("shape=5 is only a batch size", ValueError, {"shape": 5}),
    ("shape must be (batch, *event) with positive sizes", ValueError, {"shape": (0, 2)}),
]


@pytest.mark.parametrize(
    ("message", "kind", "arguments"), CASES, ids=[case[0][:50] for case in CASES]
)
def test_bad_input(message: str, kind: type[Exception], arguments: dict[str, object]) -> None:
    """Every error is an SRKError, also a ValueError or TypeError, and says what is wrong."""
    arguments = {"process": VP, "score": score, "shape": (2, 2), **arguments}
    with pytest.raises(srk.errors.SRKError) as failure:
        srk.solve(arguments.pop("process"), arguments.pop("score"), **arguments)
    assert message in str(failure.value)
    if kind is not srk.errors.UnknownNameError:
        assert isinstance(failure.value, kind)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x, t: -x[:1], "shape"),
        (lambda x, t: -x.double(), "float64"),
        (lambda x, t: None, "NoneType"),
        (lambda x, t: (-x, 1), "tuple"),
    ],
)
def test_a_score_that_is_none(network: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(srk.errors.ScoreError, match=message):
        srk.solve(VP, network, shape=(2, 2), steps=3)


def test_event_shape_of_the_score_is_checked() -> None:
    with pytest.raises(
        ValueError, match=r"the samples would have event shape \(2,\), but the score is for \(1,\)"
    ):
        srk.solve(VP, SCORE, shape=(3, 2))


def test_overshoot_by_rounding_is_clamped() -> None:
    sol = srk.solve(
        VP,
        SCORE,
        x_init=torch.zeros(1, 1),
        grid=[math.nextafter(1.0, 2.0), 0.5, math.nextafter(1e-3, 0.0)],
    )
    assert sol.times[0] == 1.0 and sol.times[-1] == 1e-3


def test_seed_with_a_noise_object_is_ambiguous() -> None:
    with pytest.raises(ValueError, match="not to both"):
        srk.solve(VP, SCORE, shape=2, noise=srk.noise.GeneratorNoise(1), seed=2)


# -- users' own parts
# ------------------------------------------------------------


@pytest.mark.usefixtures("registries_restored")
def test_own_parts_without_touching_ours() -> None:
    """A user's process, solver, tableau and controller work by name with everything else."""

    @srk.register_process
    class Line(srk.LinearProcess):
        name = "line"
        t_min, t_max = 0.01, 0.95

        def alpha(self, t: float) -> float:
            return 1 - t

        def sigma(self, t: float) -> float:
            return t

    @srk.register_solver
    class Slow(srk.Integrator):
        name = "slow"

        def plan(self, step: srk.integrators.Step) -> srk.integrators.StepPlan:
            draft = step.draft()
            D = draft.evaluate(draft.state, step.start).value
            keep = step.stop.sigma / step.start.sigma
            return draft.finish(
                keep * draft.state + (step.stop.alpha - keep * step.start.alpha) * D
            )

    @srk.register_controller
    class Halves(srk.steps.Grid):
        name = "halves"

        def times(self, problem: srk.steps.RunInfo) -> list[float]:
            hi, lo = problem.process.t_max, problem.process.t_min
            return [hi, (hi + lo) / 2, lo]

    process = srk.process("line")
    target = srk.targets.Gaussian(0.0, 1.0)
    sol = srk.solve(process, target.score(process), "slow", grid="halves", shape=3, seed=0)
    ddim = srk.solve(
        process, target.score(process), "ddpm", grid="halves", eta=0.0, shape=3, seed=0
    )
    assert torch.allclose(sol.x, ddim.x, atol=1e-6) and sol.nfe == 3


class Drifting(srk.ForwardProcess):
    """dx = -x^3 dt + dW: nonlinear, no denoiser."""

    name = "drifting"
    t_min, t_max = 0.0, 1.0

    def drift(self, t: float, x: Tensor) -> Tensor:
        return -(x**3)

    def diffusion(self, t: float) -> float:
        return 1.0

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)


def test_nonlinear_process_in_the_raw_frame() -> None:
    """A process with a drift of its own.

    Every raw-frame solver reverses it, the others say which do. Stationary law p ~ exp(-x^4/2): the
    reverse process keeps it.
    """
    process = Drifting()

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -2 * x**3

    # Rejection-free start from the stationary law: a long forward Langevin run
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=g, dtype=torch.float64) * 0.7
    for _ in range(800):
        x = x - 0.01 * x**3 + 0.1 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    moments = (x**2).mean().item(), (x**4).mean().item()
    for solver in ("euler-maruyama", "sra1"):
        y = srk.solve(process, score, solver, x_init=x, steps=100, seed=1).x
        # E x^4 = 1/2 exactly (integration by parts); 4 standard errors plus the order-1 bias of the
        # reference itself
        assert (y**4).mean().item() == pytest.approx(0.5, abs=0.03)
        assert (y**2).mean().item() == pytest.approx(moments[0], abs=0.02)
    with pytest.raises(
        srk.errors.IncompatibleError, match=r"needs a linear process .* use a raw-frame solver"
    ):
        srk.solve(process, score, "srk2", shape=(2, 1))
    with pytest.raises(srk.errors.IncompatibleError, match="leave denoise_final out"):
        srk.solve(process, score, "sra1", shape=(2, 1), denoise_final=True)
    with pytest.raises(srk.errors.IncompatibleError, match="needs a log-SNR"):
        srk.solve(process, score, "sra1", shape=(2, 1), grid="log-snr")


def test_a_prior_of_its_own_shares_no_numbers_with_the_path() -> None:
    """Without drift and score one step adds sqrt(dt) z to the initial state.

    The two are independent: |correlation| < 4/sqrt(n).
    """

    class Free(Drifting):
        name = "free"

        def drift(self, t: float, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    n = 4000
    sol = srk.solve(
        Free(),
        lambda x, t: torch.zeros_like(x),
        "euler-maruyama",
        shape=(n, 1),
        steps=1,
        seed=0,
        save="x",
    )
    assert sol.trajectory is not None
    start, end = sol.trajectory.values
    assert abs(torch.corrcoef(torch.stack([start[:, 0], (end - start)[:, 0]]))[0, 1]) < 4 / n**0.5
    again = srk.solve(
        Free(), lambda x, t: torch.zeros_like(x), "euler-maruyama", shape=(n, 1), steps=1, seed=0
    )
    assert torch.equal(again.x, sol.x)


class Silent(NoiseSource):
    """Draws zeros."""

    name = "silent"

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None: ...

    def prior(self, out: Tensor) -> None:
        out.fill_(1.0)

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        raise AssertionError("nothing is drawn at eta = 0")


@pytest.mark.parametrize("solver", ["srk2", "srk2m", "ddpm", "euler-maruyama", "sra1", "etd-sra1"])
def test_nothing_is_drawn_at_eta_zero(solver: str) -> None:
    assert srk.solve(VP, SCORE, solver, shape=2, steps=4, eta=0.0, noise=Silent()).success


@pytest.mark.gpu
@pytest.mark.parametrize("solver", ["srk2", "srk2m", "ddpm", "sra1"])
def test_no_synchronisation_in_the_loop(solver: str) -> None:
    """CUDA's sync debug mode makes any wait for the device an error."""
    plan_warm_up = srk.solve(VP, score, solver, shape=(4, 2), steps=3, device="cuda", seed=0)
    assert plan_warm_up.success
    state = {"inside": False}

    def watched(x: Tensor, t: Tensor) -> Tensor:
        if not state["inside"]:
            torch.cuda.set_sync_debug_mode("error")
            state["inside"] = True
        return -x

    def last(info: srk.StepInfo) -> None:
        if info.index == 9:
            torch.cuda.set_sync_debug_mode("default")

    try:
        srk.solve(VP, watched, solver, shape=(4, 2), steps=10, device="cuda", seed=0, callback=last)
    finally:
        torch.cuda.set_sync_debug_mode("default")
