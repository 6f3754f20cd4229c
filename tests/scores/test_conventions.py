"""A network that does not fit its adapter is noticed, and one that fits never is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ConventionWarning
from srk.processes.base import Level
from srk.scores import convert

Network = Callable[[Tensor, Tensor], Tensor]
ADAPTERS = {
    "score": srk.Score,
    "noise": srk.NoisePrediction,
    "data": srk.Data,
    "velocity": srk.Velocity,
    "flow": srk.FlowVelocity,
}
CONVERT = {
    "score": convert.to_score,
    "noise": convert.to_noise,
    "data": lambda denoised, x, level: denoised,
    "velocity": convert.to_velocity,
    "flow": convert.to_flow_velocity,
}
PROCESSES = {"vp": srk.VP(), "edm": srk.EDM(), "flow": srk.Flow(), "cosine": srk.VPCosine()}


def network(kind: str, target: srk.targets.Target, process: srk.LinearProcess) -> Network:
    """An exact network of a kind."""
    exact = target.score(process)

    def output(x: Tensor, t: Tensor) -> Tensor:
        level = process.level(float(t[0]))
        return CONVERT[kind](exact.denoise(x, level, process), x, level)

    return output


def reversed_flow(target: srk.targets.Target) -> Network:
    """x0 - eps, with time from noise (0) to data (1)."""
    forward = network("flow", target, srk.Flow(t_min=1e-9))
    return lambda x, t: -forward(x, (1 - t).clamp(1e-6, 1.0))


def complaint(
    process: srk.ForwardProcess, score: object, solver: str = "srk2m", **options: object
) -> str:
    """The warning of a run, or an empty string."""
    given: dict[str, object] = {"shape": (64, 12), "nfe": 20, "seed": 0, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            srk.solve(process, score, solver, **given)  # type: ignore[arg-type]
        except srk.errors.IncompatibleError:
            return ""  # alpha = 0, where the adapter says so itself
    found = [str(entry.message) for entry in caught if entry.category is ConventionWarning]
    assert len(found) <= 1
    return found[0] if found else ""


MIXTURE = srk.targets.GaussianMixture([0.3, 0.7], [[-1.0] * 12, [0.6] * 12], [0.1, 0.2])
POINTS = torch.rand(40, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("process", "adapter", "kind", "cure"),
    [
        ("vp", "score", "noise", r"srk\.NoisePrediction"),
        ("vp", "score", "data", r"srk\.Data"),
        ("vp", "score", "velocity", r"srk\.Velocity"),
        ("vp", "noise", "score", r"srk\.Score"),
        ("vp", "noise", "data", r"srk\.Data"),
        ("vp", "noise", "velocity", r"srk\.Velocity"),
        ("vp", "data", "score", r"srk\.Score"),
        ("vp", "data", "noise", r"srk\.NoisePrediction"),
        ("vp", "velocity", "noise", r"srk\.NoisePrediction"),
        ("vp", "velocity", "score", r"srk\.Score"),
        ("edm", "score", "noise", r"srk\.NoisePrediction"),
        ("edm", "noise", "score", r"srk\.Score"),
        ("edm", "noise", "data", r"srk\.Data"),
        ("edm", "data", "noise", r"srk\.NoisePrediction"),
        ("flow", "score", "flow", r"srk\.FlowVelocity\(network\)"),
        ("flow", "velocity", "flow", r"srk\.FlowVelocity\(network\)"),
        ("flow", "flow", "score", r"-network\(x, 1 - t\)"),
        ("flow", "flow", "data", r"srk\.Data"),
    ],
)
def test_the_likely_adapter_is_named(process: str, adapter: str, kind: str, cure: str) -> None:
    chosen = PROCESSES[process]
    score = ADAPTERS[adapter](network(kind, MIXTURE, chosen))
    with pytest.warns(ConventionWarning, match=cure):
        srk.solve(chosen, score, "srk2m", shape=(64, 12), nfe=20, seed=0, on_failure="return")


@pytest.mark.parametrize("solver", ["srk2m", "heun", "dpmpp-2m", "euler-maruyama"])
def test_a_flow_with_its_time_reversed_is_noticed(solver: str) -> None:
    target = srk.targets.Gaussian([0.5] * 10, 0.25)
    said = complaint(
        srk.Flow(), srk.FlowVelocity(reversed_flow(target)), solver, shape=(2000, 10), nfe=40
    )
    assert "-network(x, 1 - t)" in said
    right = reversed_flow(target)
    turned = srk.FlowVelocity(lambda x, t: -right(x, 1 - t))
    assert not complaint(srk.Flow(), turned, solver, shape=(2000, 10), nfe=40)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 12.0])
@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_right_adapters_are_left_alone(name: str, scale: float) -> None:
    process = PROCESSES[name]
    targets = [
        srk.targets.Gaussian([0.5 * scale] * 12, (0.3 * scale) ** 2),
        srk.targets.Gaussian([0.0] * 12, scale**2),  # all that D knows is a multiple of the state
        srk.targets.GaussianMixture(
            [0.3, 0.7], [[-scale] * 12, [0.6 * scale] * 12], [0.1 * scale, 0.2 * scale]
        ),
        srk.targets.Empirical(scale * POINTS),
        srk.targets.Gaussian([0.7 * scale] * 12, 1e-12),
    ]
    # a flow velocity of large data on the other processes is nobody's network
    kinds = [kind for kind in ADAPTERS if kind != "flow" or name == "flow"]
    for target in targets:
        for kind in kinds:
            score = ADAPTERS[kind](network(kind, target, process))
            for solver, nfe, batch in (("srk2m", 4, 64), ("heun", 8, 16), ("ddpm", 12, 8)):
                assert not complaint(process, score, solver, nfe=nfe, shape=(batch, 12))


@pytest.mark.parametrize("solver", sorted(srk.solvers()))
def test_no_solver_makes_a_right_network_look_wrong(solver: str) -> None:
    score = srk.EDMDenoiser(network("data", MIXTURE, srk.EDM(1e-9, 1e4)))
    assert not complaint(srk.EDM(), score, solver, nfe=None, steps=8)


def test_a_network_inside_guidance_is_seen_too() -> None:
    process = srk.VP()
    wrong = network("noise", MIXTURE, process)
    guided = srk.Guided(srk.Data(wrong), srk.Data(wrong), 1.5)
    assert "srk.NoisePrediction" in complaint(process, guided)
    right = srk.NoisePrediction(wrong)
    assert not complaint(process, srk.Guided(right, right, 1.5))
    assert "srk.NoisePrediction" in complaint(process, srk.scores.Hooked(srk.Score(wrong)))


def test_the_check_can_be_switched_off_and_needs_a_state_from_the_prior() -> None:
    process = srk.VP()
    wrong = srk.Data(network("score", MIXTURE, process))
    assert "srk.Score" in complaint(process, wrong)
    assert not complaint(process, wrong, check_network=False)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    assert not complaint(process, wrong, shape=None, x_init=x)
    assert not complaint(process, wrong, shape=(4, 12))  # too few numbers to tell


class Negated(srk.NoisePrediction):
    """A network that returns minus the noise."""

    def coefficients(self, level: Level) -> convert.Pair:
        a, b = super().coefficients(level)
        return a, -b


class Asked(srk.NoisePrediction):
    """The same, with the sign changed where the network is asked."""

    def output(self, x: Tensor, level: Level, process: srk.ForwardProcess) -> Tensor:
        return -super().output(x, level, process)


class Clamped(srk.NoisePrediction):
    """The noise, whose denoiser goes through a function of its own."""

    def denoise(self, x: Tensor, level: Level, process: srk.ForwardProcess) -> Tensor:
        return super().denoise(x, level, process).clamp(-9.0, 9.0)


class Named(srk.NoisePrediction):
    """The noise, read as the parent reads it."""

    origin = "a file"


@pytest.mark.parametrize("adapter", [Negated, Asked, Clamped])
def test_a_class_that_reads_the_output_otherwise_is_not_taken_for_its_parent(
    adapter: type[srk.NoisePrediction],
) -> None:
    vp = PROCESSES["vp"]
    other = network("data", MIXTURE, vp)
    assert not complaint(vp, adapter(other))
    assert adapter(other).reading is None


def test_a_class_that_keeps_the_reading_of_its_parent_is_checked_as_it_is() -> None:
    vp = PROCESSES["vp"]
    assert "srk.Data" in complaint(vp, Named(network("data", MIXTURE, vp)))
    assert Named(network("noise", MIXTURE, vp)).reading == (Named, "x")


def test_an_output_of_zeros_says_nothing() -> None:
    """As of a network whose last layer starts at zero."""
    for adapter in ADAPTERS.values():
        assert not complaint(srk.VP(), adapter(lambda x, t: 0 * x), on_failure="return")


def test_the_look_changes_no_number() -> None:
    process = srk.VP()
    score = srk.NoisePrediction(network("noise", MIXTURE, process))
    seen, unseen = (
        srk.solve(process, score, shape=(64, 12), nfe=20, seed=0, check_network=wanted).x
        for wanted in (True, False)
    )
    assert torch.equal(seen, unseen)
