"""Calls on a schedule: at its times and nowhere else, of weak order 2, as good as free calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import srk
from srk.analysis import gaussian_distribution, weak_order
from srk.errors import ArgumentError, IncompatibleError
from srk.integrators import SRK2M, SRK2S, OnSchedule
from srk.integrators.scheduled_srk2m import ScheduledSRK2M
from srk.noise import ReplayNoise
from srk.plans import StepPlan
from srk.processes.base import ForwardProcess, LinearProcess
from srk.sampling.planning import plan_grid

HOUSE = ["srk2", "srk2m", "srk2m-local", "auto"]
TARGET = srk.targets.GaussianMixture([0.3, 0.7], [[-1.0], [0.6]], [0.2, 0.1])
KARRAS = [14.6, 6.0, 2.5, 1.1, 0.5, 0.2, 0.05]
SHIFTED = [3 * t / (1 + 2 * t) for t in (1 - np.arange(10) / 10).tolist()]
PROCESSES: dict[str, tuple[LinearProcess, list[float]]] = {
    "edm to 0": (srk.EDM(0.0, 14.6), [*KARRAS, 0.0]),
    "edm": (srk.EDM(0.05, 14.6), KARRAS),
    "flow": (srk.Flow(0.0), [*SHIFTED, 0.0]),
    "vp": (srk.VP(), [1.0, 0.8, 0.55, 0.4, 0.2, 0.1, 0.03, 1e-3]),
}


def uniform(process: LinearProcess, steps: int) -> list[float]:
    """A grid of equal steps in log-SNR."""
    ends = process.lam(process.t_max), process.lam(process.t_min)
    inner = [process.time(ends[0] + (ends[1] - ends[0]) * i / steps) for i in range(1, steps)]
    return [process.t_max, *inner, process.t_min]


def bound(
    solver: str | SRK2M, process: ForwardProcess, times: Sequence[float], eta: float = 1.0
) -> ScheduledSRK2M:
    method = srk.solvers()[solver] if isinstance(solver, str) else solver
    made = OnSchedule(method).on_grid(process, times, eta)
    assert isinstance(made, ScheduledSRK2M)
    return made


def recorded(process: LinearProcess, calls: list[float]) -> srk.Data:
    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return TARGET.denoise(x, process.level(float(t[0])))

    return srk.Data(network, time="t")


# -- where the calls are ---------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("case", PROCESSES)
@pytest.mark.parametrize("solver", [*HOUSE, "ddpm", "dpmpp-2m-sde", "sa-solver"])
def test_the_network_is_called_at_the_times_of_the_grid(solver: str, case: str, eta: float) -> None:
    """All times but the last, the first included, to the last bit; also where alpha = 0."""
    process, times = PROCESSES[case]
    calls: list[float] = []
    solution = srk.solve(
        process,
        recorded(process, calls),
        solver,
        shape=(3, 1),
        grid=times,
        eta=eta,
        calls="schedule",
        denoise_final=False,
        dtype=torch.float64,
        seed=0,
    )
    assert calls == times[:-1]
    assert torch.isfinite(solution.x).all()
    assert solution.solver.endswith("on the schedule")


@pytest.mark.parametrize("solver", HOUSE)
def test_a_budget_buys_as_many_calls(solver: str) -> None:
    process = srk.VP()
    score = TARGET.score(process)
    sol = srk.solve(process, score, solver, shape=(2, 1), nfe=12, calls="schedule", seed=0)
    assert (sol.nfe, sol.steps) == (12, 11)


def test_a_phase_space_process_is_reversed_through_its_statistic() -> None:
    process, data = srk.CLD(), srk.targets.Gaussian([0.5], 0.25)
    free, scheduled = (
        srk.solve(
            process, data.score(process), "srk2m", shape=(4000, 2, 1), steps=24, seed=0, calls=c
        ).x
        for c in ("free", "schedule")
    )
    assert abs(float(scheduled[:, 0].var()) - 0.25) < 0.03
    assert abs(float(free[:, 0].var()) - 0.25) < 0.03


@pytest.mark.parametrize("factor", [1.2, 3.0, 30.0])
@pytest.mark.parametrize("v", [0.5, 0.0])
def test_every_node_lies_in_the_last_three_quarters_of_its_step(factor: float, v: float) -> None:
    """What weak order 2 asks for, on geometric and on irregular schedules; and steps that join."""
    process = srk.EDM(1e-4, 80.0)
    times = [80.0 / factor**i for i in range(8)]
    uneven = [80.0, 41.0, 40.0, 12.0, 3.0, 2.9, 0.4, 0.1, 0.05]
    for schedule in ([t for t in times if t > 1e-4], uneven):
        steps = bound(SRK2M(data_variance=v), process, schedule).placed
        assert steps[0].c == 0.0
        for i, step in enumerate(steps):
            assert step.node.t == schedule[i]
            assert step.start.t >= step.node.t >= step.stop.t
            assert step.stop.t >= schedule[i + 1]
            tau = [1.0 / (level.t**2 + v) for level in (step.start, step.node, step.stop)]
            assert step.c == pytest.approx((tau[1] - tau[0]) / (tau[2] - tau[0]), abs=1e-9)
        assert min(step.c for step in steps[1:-1]) >= 0.25 - 1e-9
        assert [s.stop for s in steps[:-1]] == [s.start for s in steps[1:]]


def test_nodes_lie_at_the_wanted_fraction_of_a_geometric_schedule() -> None:
    """v = 0: tau = 1/sigma^2 grows by one factor, so that the rule for the ends is exact inside."""
    process = srk.EDM(1e-6, 80.0)
    times = [80.0 / 1.5**i for i in range(20)]
    for c in (0.25, 1 / 3):
        steps = bound(SRK2M(data_variance=0.0, node=c), process, times).placed
        assert [step.c for step in steps[1:17]] == pytest.approx([c] * 16, abs=2e-3)


# -- the formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [0.25, 0.4])
def test_a_run_is_the_formulas(node: float) -> None:
    """X = Y + c H Rp + J, Y' = Y + H R + B on the gauge's clock, written out for given draws.

    In the clock tau = 1/(s + v) with Z = tau u, dZ = R dtau + dB.
    """
    v, process = 0.4, srk.EDM(0.0, 14.6)
    times = [*KARRAS, 0.0]
    solver = SRK2M(data_variance=v, node=node)
    steps = bound(solver, process, times).placed
    draws: dict[tuple[float, bool], torch.Tensor] = {}
    x = 14.6 * torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def given(start: float, area: bool) -> torch.Tensor:
        """The draw for a step, by where it starts on the clock."""
        key = round(start, 9), area
        if key not in draws:
            generator = torch.Generator().manual_seed(len(draws))
            draws[key] = torch.randn(3, 1, dtype=torch.float64, generator=generator)
        return draws[key]

    ours = srk.solve(
        process,
        TARGET.score(process),
        solver,
        x_init=x,
        grid=times,
        noise=lambda slot, clock, out: given(slot.start, len(slot.weights) > 1),
        calls="schedule",
    ).x

    def tau(t: float) -> float:
        return 1.0 / (t * t + v)

    def remainder(u: torch.Tensor, t: float) -> torch.Tensor:
        denoised.append(TARGET.denoise(u, process.level(t)))
        return ((t * t + v) * denoised[-1] - v * u) / (t * t)

    denoised: list[torch.Tensor] = []
    lengths = [tau(s.stop.t) - tau(s.start.t) for s in steps]
    z, seen, past = x * tau(14.6), x, []  # the path, what the network sees, (R, rho, H)
    b, rho = math.sqrt(lengths[0]) * given(tau(steps[0].start.t), False), 0.0
    for i in range(len(steps) - 1):
        R, H = remainder(seen, times[i]), lengths[i]
        z = z + H * R + b
        past.insert(0, (R, rho, H))
        step, H = steps[i + 1], lengths[i + 1]
        predicted = past[0][0]
        if len(past) > 1:
            (R1, rho1, H1), (R2, rho2, H2) = past[:2]
            weight = (1 - rho1) * H1 / (rho1 * H1 + (1 - rho2) * H2)
            predicted = R1 + weight * (R1 - R2)
        last = i + 1 == len(steps) - 1
        rho = 1.0 if last else 0.5
        if step.c == 0.0:  # the last call is where the path ends
            seen = z / tau(times[i + 1])
            continue
        b = math.sqrt(H) * given(tau(step.start.t), False)
        j = rho * b
        if not last and step.c > 0.25 * (1 + 1e-9):
            j = j + math.sqrt((step.c - 0.25) * H) * given(tau(step.start.t), True)
        seen = (z + step.c * H * predicted + j) / tau(times[i + 1])
    # the end: 0.6 of the reference, 0.24, is given back the variance that its denoiser lacks
    before, here = (0.24 * t * t / (0.24 + t * t) for t in times[-3:-1])
    k = math.sqrt(1.0 + here / (before - here)) - 1.0
    last = TARGET.denoise(seen, process.level(times[-2]))
    expected = last + k * (last - denoised[-1])
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_the_end_gives_back_the_spread() -> None:
    """Ten even steps of a flow with shift 3, whose last call is at sigma = 0.25.

    The denoiser there has 0.9 of the variance of N(0, 1); what is left of the loss is the error of
    the steps.
    """
    process, times = srk.Flow(t_min=0.0), [*SHIFTED, 0.0]
    for name in HOUSE:
        solver = OnSchedule(srk.integrators.integrator(name))
        law = gaussian_distribution(solver, process, 0.0, 1.0, grid=times, eta=1.0)
        assert abs(float(law.variance[0]) ** 0.5 - 1.0) < 0.025 < 0.5 * (1.0 - 0.9**0.5)


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_what_the_network_sees_has_the_noise_of_its_level(eta: float) -> None:
    """Data of the gauge itself, N(0, v): the state at each time of the schedule is exact."""
    process, v = srk.EDM(0.01, 80.0), 0.5
    times = uniform(process, 12)
    plans = plan_grid(process, OnSchedule(SRK2M(data_variance=v)), times, eta)
    for k in range(1, 12):
        assert _variance_at(process, plans[:k], v) == pytest.approx(times[k] ** 2 + v, rel=1e-9)


def _variance_at(process: srk.EDM, plans: Sequence[StepPlan], v: float) -> float:
    """The variance of the state after `plans` on data N(0, v), run on basis vectors by hand."""
    size = 1 + sum(len(plan.slots) for plan in plans)
    state, memory, used = np.zeros(size), [], 1
    state[0] = math.sqrt(80.0**2 + v)
    for plan in plans:
        (stage,) = plan.stages
        draws = np.eye(size)[used : used + len(plan.slots)]
        used += len(plan.slots)
        columns = {
            "x": [state],
            "m": memory,
            "X": [state],
            "E": [v / (v + stage.level.t**2) * state],
            "z": draws,
        }
        rows = [
            sum((value * columns[c.kind][c.number] for c, value in row), np.zeros(size))
            for row in (plan.update, *plan.keep)
        ]
        state, memory = rows[0], rows[1:]
    return float(state @ state)


def test_a_state_that_is_changed_between_two_calls_changes_the_path() -> None:
    """As masks and callbacks of hosts do: adding a constant to state and data moves all by it."""
    process, shift = srk.EDM(0.0, 14.6), 0.7
    times, x = [*KARRAS, 0.0], 14.6 * torch.randn(5, 1, dtype=torch.float64)

    def run(jump: float) -> torch.Tensor:
        moved = 0.0

        def network(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            # beyond the jump the data is moved too
            return TARGET.denoise(y - moved, process.level(float(t[0]))) + moved

        def callback(info: srk.StepInfo) -> None:
            nonlocal moved
            if info.index == 2:
                info.x.add_(jump)
                moved = jump

        return srk.solve(
            process,
            srk.Data(network, time="t"),
            "srk2m",
            x_init=x,
            grid=times,
            calls="schedule",
            callback=callback,
            noise=ReplayNoise(torch.zeros(20, 5, 1, dtype=torch.float64)),
        ).x

    moved = run(shift) - run(0.0)
    assert (moved - shift).abs().max() < 0.25 * shift  # predictions from before still lag behind


def test_a_run_may_begin_inside_the_schedule() -> None:
    """Image to image, and the second half of a split run: the first call starts a step anew."""
    process = srk.EDM(0.0, 14.6)
    times = [*KARRAS, 0.0]
    method = bound("srk2m", process, times)
    late = plan_grid(process, method, times[3:], 1.0)
    assert [plan.start.t for plan in late] == times[3:-1]
    assert late[0].stages[0].level.t == times[3]
    with pytest.raises(ArgumentError, match="not a time"):
        plan_grid(process, method, [3.3, 1.1], 1.0)


# -- how good it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "eta", "least"),
    [("srk2m", 1.0, 2.5), ("srk2m-local", 1.0, 2.0), ("auto", 1.0, 1.9), ("srk2m", 0.0, 1.7)],
)
def test_weak_order_two(solver: str, eta: float, least: float) -> None:
    """On Gaussian data, where the reverse SDE gains an order as it does with free calls."""
    order = weak_order(
        OnSchedule(srk.solvers()[solver]), srk.EDM(0.01, 80.0), steps=(32, 64, 128), eta=eta
    )
    assert order.slope > least


def test_weak_order_two_on_an_uneven_schedule() -> None:
    """Steps of alternating length in log-SNR, 1 to 2: the ends still leave every node its room."""
    process, errors = srk.EDM(0.01, 80.0), []
    for n in (32, 64, 128):
        grid = np.cumsum([0.0] + [1.0, 2.0] * (n // 2))
        lams = process.lam(80.0) + (process.lam(0.01) - process.lam(80.0)) * grid / grid[-1]
        times = [80.0, *(process.time(float(lam)) for lam in lams[1:-1]), 0.01]
        law = gaussian_distribution(OnSchedule(SRK2M()), process, 0.5, [0.05, 0.3, 1.5], grid=times)
        errors.append(math.sqrt(law.kl))
    assert math.log2(errors[0] / errors[1]) > 1.8
    assert math.log2(errors[1] / errors[2]) > 1.8


@pytest.mark.slow
def test_weak_order_two_on_a_mixture() -> None:
    """Nonlinear data, from means over mirrored paths."""
    process = srk.OU(t_min=0.1, horizon=1.0)
    target = srk.targets.GaussianMixture([0.5, 0.5], [-1.5, 1.0], [0.3, 0.4])
    order = weak_order(
        OnSchedule(SRK2M()), process, target, steps=(8, 16, 32), paths=60000, grid="log-snr"
    )
    assert order.slope > 1.7


@pytest.mark.parametrize("nfe", [12, 16, 24, 48])
def test_a_schedule_costs_no_accuracy(nfe: int) -> None:
    """Mean exact KL of `srk2m` over variances from 1e-3 to 10: within 10 % of free calls."""
    process, solver = srk.EDM(0.01, 80.0), SRK2M(data_variance=0.6)
    variances = np.logspace(-3, 1, 9)
    free = gaussian_distribution(solver, process, 0.0, variances, steps=nfe)
    scheduled = gaussian_distribution(OnSchedule(solver), process, 0.0, variances, steps=nfe)
    assert scheduled.nfe == free.nfe == nfe
    assert scheduled.kl < 1.1 * free.kl


@pytest.mark.parametrize("variance", [1.0, 0.5])
def test_the_spread_on_the_shifted_grid_of_a_flow(variance: float) -> None:
    """Ten steps of a flow with shift 3, "normal" in hosts."""
    process = srk.Flow(0.0)
    times = [3 * t / (1 + 2 * t) for t in np.linspace(1.0, 1e-3, 10).tolist()] + [0.0]

    def spread(solver: srk.Integrator) -> float:
        law = gaussian_distribution(solver, process, 0.0, variance, grid=times)
        return abs(math.sqrt(law.variance[0] / variance) - 1.0)

    for name in HOUSE if variance == 1.0 else ["srk2", "srk2m", "auto"]:
        assert spread(OnSchedule(srk.solvers()[name])) < 0.02, name
    assert spread(srk.solvers()["auto"]) < 0.02


def test_auto_takes_one_variance_on_uneven_schedules() -> None:
    """On a host's equal times: one long step at the end, or much noise at the last call."""

    def made(process: srk.LinearProcess, times: list[float], **options: Any) -> Any:
        return OnSchedule(srk.integrators.Auto(**options)).on_grid(process, times, 1.0).method

    def shifted(even: np.ndarray) -> list[float]:
        return [3 * t / (1 + 2 * t) for t in even.tolist()] + [0.0]

    flow, edm = srk.Flow(0.0), srk.EDM(0.0, 14.6)
    plain = SRK2M(data_variance=0.5, strong=True)
    for calls in (6, 10, 19):
        assert made(flow, shifted(np.linspace(1.0, 1e-3, calls))) == plain
        assert made(flow, shifted(1 - np.arange(calls) / calls)) == plain
        ramp = np.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), calls) ** 7
        even = np.geomspace(14.6, 0.02, calls)
        for times in (ramp, even):
            assert made(edm, [14.6, *times[1:].tolist(), 0.0]).local == 0.2
    assert made(flow, shifted(np.linspace(1.0, 1e-3, 20))).local == 2.0
    assert made(flow, shifted(np.linspace(1.0, 1e-3, 10)), local=0.5).local == 0.5


@pytest.mark.parametrize("solver", ["auto", "srk2m"])
@pytest.mark.parametrize("schedule", ["normal", "simple"])
def test_ten_steps_of_a_flow_keep_the_spread(schedule: str, solver: str) -> None:
    """Shift 3: "normal" ends near the data, "simple" makes its last call at sigma = 0.25.

    The sampled spread has a standard error of 0.3 %.
    """
    process = srk.Flow(0.0)
    even = np.linspace(1.0, 1e-3, 10) if schedule == "normal" else 1 - np.arange(10) / 10
    times = [3 * t / (1 + 2 * t) for t in even.tolist()] + [0.0]
    for variance in (1.0, 0.5):
        made = OnSchedule(srk.solvers()[solver])
        law = gaussian_distribution(made, process, 0.0, variance, grid=times)
        assert abs(math.sqrt(law.variance[0] / variance) - 1.0) < 0.02
    modes = srk.targets.GaussianMixture([0.5, 0.5], [[-0.9], [0.9]], [0.345, 0.345])
    x = srk.solve(
        process, modes.score(process), solver, shape=(30000, 1), grid=times, calls="schedule",
        seed=0, dtype=torch.float64,
    ).x  # fmt: skip
    assert abs(float(x.std()) / math.hypot(0.9, 0.345) - 1.0) < 0.02


def test_more_steps_follow_the_same_path() -> None:
    """One Brownian path, 20 and 40 calls: the samples correlate."""
    process = srk.EDM(0.0, 14.6)
    runs = []
    for n in (20, 40):
        times = [*uniform(srk.EDM(0.03, 14.6), n - 1), 0.0]
        runs.append(
            srk.solve(
                process,
                TARGET.score(process),
                "srk2m",
                shape=(1000, 1),
                grid=times,
                noise="brownian",
                calls="schedule",
                seed=3,
            ).x.flatten()
        )
    assert float(torch.corrcoef(torch.stack(runs))[0, 1]) > 0.95


# -- mistakes --------------------------------------------------------------------------------------


def test_what_cannot_be_is_said() -> None:
    process, score = srk.EDM(), TARGET.score(srk.EDM())
    with pytest.raises(IncompatibleError, match=r"heun.*calls='free'"):
        srk.solve(process, score, "heun", shape=(1, 1), steps=5, calls="schedule")
    with pytest.raises(IncompatibleError, match="needs a schedule"):
        srk.solve(process, score, "srk2m", shape=(1, 1), grid="adaptive", calls="schedule")
    with pytest.raises(ArgumentError, match="'free' or 'schedule'"):
        srk.solve(process, score, "srk2m", shape=(1, 1), calls="host")  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="eta"):
        srk.solve(process, score, "srk2m", shape=(1, 1), eta=1.5, calls="schedule")


def test_two_calls_a_step_become_one_that_is_predicted() -> None:
    process, times = srk.EDM(0.0, 14.6), [*KARRAS, 0.0]
    two = OnSchedule(SRK2S(data_variance=0.3)).on_grid(process, times, 1.0)
    assert two == OnSchedule(SRK2M(data_variance=0.3)).on_grid(process, times, 1.0)
